/** `drover generate`: the text, its JSON, options, interrupts and broken pipes. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { loadLanguageModel } from '../../lib/index.js'
import { fixture } from '../support.js'
import { drover, jsonLines, output, refused, storiesPath, withFolder } from './run.js'

interface Item {
  text: string
  token: number
  logprob?: number
  topLogprobs?: { token: number; text: string; logprob: number }[]
}
interface Whole {
  text: string
  tokens: number[]
  finishReason: string
  usage: { promptTokens: number; completionTokens: number }
  promptPerSecond: number
  generationPerSecond: number | null
  firstTokenMs: number
}

const prompt = 'Once upon a time'
const greedy = ['generate', storiesPath, '-p', prompt, '-t', '0', '-n', '40']

test('writes what the library generates, and speeds beside it', async () => {
  const model = await loadLanguageModel(storiesPath)
  const expected = await model.generate(prompt, { temperature: 0, maxTokens: 40 }).result()
  await model.close()
  const { code, out, err } = await drover(greedy)
  assert.is(code, 0, err)
  assert.is(out, `${expected.text}\n`)
  assert.match(err, /^loading 25 %$/m)
  for (const mark of ['\r', '\u001b', '█']) assert.not.ok(err.includes(mark), 'no bar and no colours on a pipe')
  assert.match(err, /^\d+ prompt tokens at [\d.]+\/s, first token after \d+ ms; 40 tokens, [\d.]+ tokens\/s; length$/m)
  assert.is(out, await output([...greedy, '--threads', '1', '--context', '128']))
  assert.is(out, await output([...greedy, '--verify', '--memory', '2000000000']))
})

test('with --json: one object per token, then one for the whole', async () => {
  const objects = jsonLines(await output([...greedy, '--json', '--logprobs', '2']))
  const whole = objects.pop() as Whole
  const items = objects as Item[]
  assert.is(items.length, 40)
  assert.is(items.map(({ text }) => text).join(''), whole.text)
  assert.equal(
    items.map(({ token }) => token),
    whole.tokens,
  )
  for (const { token, logprob, topLogprobs } of items) {
    assert.ok(typeof logprob === 'number' && logprob <= 0)
    assert.is(topLogprobs?.length, 2)
    assert.is(topLogprobs?.[0]?.token, token, 'greedy takes the likeliest')
  }
  assert.is(whole.finishReason, 'length')
  assert.is(whole.usage.completionTokens, 40)
  for (const speed of [whole.promptPerSecond, whole.generationPerSecond, whole.firstTokenMs])
    assert.ok(typeof speed === 'number' && speed > 0 && Number.isFinite(speed))
})

test('a seed decides; a stop text ends; the prompt may be in a file', async () => {
  const sampled = (...args: string[]) => output(['generate', storiesPath, '-n', '30', '-t', '1', ...args])
  const seven = await sampled('-p', prompt, '-s', '7')
  assert.is(await sampled('-p', prompt, '-s', '7'), seven)
  assert.is.not(await sampled('-p', prompt, '-s', '8'), seven)
  const whole = await output(greedy)
  const stop = whole.trim().split(' ')[3] as string
  assert.is(await output([...greedy, '--stop', stop]), `${whole.slice(0, whole.indexOf(stop))}\n`)
  await withFolder(async (folder) => {
    const file = join(folder, 'prompt.txt')
    writeFileSync(file, prompt)
    assert.is(await output(['generate', storiesPath, '--prompt-file', file, '-t', '0', '-n', '40']), whole)
  })
})

test('what does not fit is refused', async () => {
  await refused([...greedy, '--memory', '100000'], /^drover: E_MEMORY: /)
  await refused([...greedy, '--context', '4'], /^drover: E_RANGE: /)
  await refused([...greedy, '--kv', 'f64'], /^drover: E_ARGUMENT: .*kvType.*found: f64/)
  const integers = fixture('llama-gguf-q4km/model.Q4_K_M.gguf')
  await refused(['generate', integers, '-p', 'a', '--activations', 'bf16'], /^drover: E_UNSUPPORTED: .*found: q4_k/)
  await refused([...greedy, '--activations', 'f64'], /^drover: E_ARGUMENT: .*activations/)
  await refused([...greedy, '--logprobs', '21'], /--logprobs is not a whole number from 0 to 20/)
})

// Long enough that nobody sees its end by chance.
const endless = ['generate', storiesPath, '-p', prompt, '--context', '100000', '-n', '90000', '--ignore-end']

test('Ctrl-C ends the text, which is no success', async () => {
  let sent = false
  const { code, signal, err } = await drover(endless, {
    onOutput: (out, kill) => {
      if (out.length > 50 && !sent) kill('SIGINT')
      sent ||= out.length > 50
    },
  })
  assert.is(`${signal ?? code}`, '130', err)
  assert.match(err, /tokens\/s; aborted$/m)
})

test('a reader that has seen enough ends the program quietly', async () => {
  const { code, signal, err } = await drover(endless, { onOutput: (out, _, close) => out.length > 50 && close() })
  assert.is(`${signal ?? code}`, '0', err)
  assert.not.match(err, /EPIPE|Error|E_/)
})

test.run()
