/** `drover tokenize`: text to tokens and back, with the tokenizer of a model or alone. */
import { readFileSync } from 'node:fs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { loadTokenizer } from '../../lib/index.js'
import { fixture } from '../support.js'
import { output, outputJson, refused, storiesPath } from './run.js'

interface Tokens {
  tokens: number[]
  pieces: string[]
  count: number
}

test('text as tokens', async () => {
  assert.is(await output(['tokenize', storiesPath, 'Once upon']), '     403  " Once"\n     407  " upon"\n2 tokens\n')
  const found = await outputJson<Tokens>(['tokenize', storiesPath, 'Once upon', '--bos'])
  assert.equal(found, { tokens: [1, 403, 407], pieces: ['<s>', ' Once', ' upon'], count: 3 })
})

test('special tokens are parsed only on request', async () => {
  const plain = await outputJson<Tokens>(['tokenize', storiesPath, 'a</s>'])
  assert.not.ok(plain.tokens.includes(2))
  const parsed = await outputJson<Tokens>(['tokenize', storiesPath, 'a</s>', '--special'])
  assert.is(parsed.tokens.at(-1), 2)
})

test('a file, and tokens as text', async () => {
  const file = fixture('stories260K/tinystories_first.txt')
  const text = readFileSync(file, 'utf8')
  const { tokens } = await outputJson<Tokens>(['tokenize', storiesPath, '--file', file])
  assert.equal(tokens, [...(await loadTokenizer(storiesPath)).encode(text)])
  const back = await outputJson<{ text: string }>(['tokenize', storiesPath, '--decode', tokens.join(',')])
  assert.is(back.text.trimStart(), text)
  assert.is(await output(['tokenize', storiesPath, '--decode', '403 407']), `${' Once upon'.trimStart()}\n`)
  assert.is(await output(['tokenize', storiesPath, '-d', '1,403', '--special']), '<s> Once\n')
})

test('a tokenizer file or folder of its own', async () => {
  const folder = await outputJson<Tokens>(['tokenize', fixture('tokenizer-llama2-spm'), 'Hello world'])
  const file = await outputJson<Tokens>(['tokenize', fixture('tokenizer-llama2-spm/tokenizer.model'), 'Hello world'])
  assert.equal(folder, file)
  assert.equal(file.tokens, [15043, 3186]) // Llama 2's
})

test('tokens that are none are refused', async () => {
  await refused(['tokenize', storiesPath, '--decode', '1,x'], /^drover: E_(ARGUMENT|RANGE): .*x/)
  await refused(['tokenize', storiesPath, '--decode', '512'], /^drover: E_RANGE: .*512/)
})

test.run()
