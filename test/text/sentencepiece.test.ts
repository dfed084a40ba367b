/** SentencePiece BPE with byte fallback, from every file form, against sentencepiece, transformers.js and llama.cpp. */
import { readdirSync, readFileSync } from 'node:fs'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { loadTokenizer } from '../../lib/text/load.js'
import type { Tokenizer } from '../../lib/text/tokenizer.js'
import { fixture } from '../support.js'

interface Cases {
  encode: { text: string; ids: number[] }[]
  decode: { ids: number[]; text: string }[]
  vocab_size: number
  bos: number
  eos: number
}
const read = <T>(path: string): T => JSON.parse(readFileSync(fixture(path), 'utf8')) as T

/** One vocabulary of Llama 2 in the forms it is published in. This tokenizer.json has lost its no-break spaces. */
const forms: [string, string][] = [
  ['tokenizer.model', fixture('tokenizer-llama2-spm/tokenizer.model')],
  ['GGUF llama', fixture('tokenizer-gguf/ggml-vocab-llama-spm.gguf')],
  ['tokenizer.json', fixture('tokenizer-llama2-spm/tokenizer.json')],
]

for (const [form, path] of forms) {
  const llama2 = suite<{ tokenizer: Tokenizer; cases: Cases }>(`Llama 2, ${form}`)

  llama2.before(async (context) => {
    context.tokenizer = await loadTokenizer(path)
    context.cases = read('tokenizer-llama2-spm/cases.json')
  })

  llama2('encodes as sentencepiece does', ({ tokenizer, cases }) => {
    assert.ok(cases.encode.length > 200)
    for (const { text, ids } of cases.encode) {
      assert.equal([...tokenizer.encode(text)], ids, JSON.stringify(text))
      assert.equal([...tokenizer.encode(text, { bos: true })], [cases.bos, ...ids], JSON.stringify(text))
    }
  })

  llama2('decodes as sentencepiece does', ({ tokenizer, cases }) => {
    for (const { ids, text } of cases.decode) assert.is(tokenizer.decode(ids), text, JSON.stringify(ids))
  })

  llama2('knows its sizes and special tokens', ({ tokenizer, cases }) => {
    assert.is(tokenizer.vocabularySize, cases.vocab_size)
    assert.is(tokenizer.bos, cases.bos)
    assert.equal([...tokenizer.endTokens], [cases.eos])
  })

  for (const name of readdirSync(fixture('tokenizer-llama2-spm/vectors'))) {
    llama2(`agrees with ${name}`, ({ tokenizer }) => {
      const vectors = read<{ text: string; ids: number[]; decoded?: string }[]>(`tokenizer-llama2-spm/vectors/${name}`)
      assert.ok(vectors.length > 20)
      const bos = name.startsWith('hf-')
      for (const { text, ids, decoded } of vectors) {
        assert.equal([...tokenizer.encode(text, { bos, parseSpecial: bos })], ids, JSON.stringify(text))
        assert.is(tokenizer.decode(ids, { special: true }), decoded ?? text)
      }
    })
  }

  llama2('makes no special token of text unless asked', ({ tokenizer, cases }) => {
    const forged = 'a</s><s>b<unk>'
    const ids = [...tokenizer.encode(forged)]
    for (const id of [0, cases.bos, cases.eos]) assert.not(ids.includes(id))
    assert.is(tokenizer.decode(ids), forged)
    assert.ok([...tokenizer.encode('a</s>b', { parseSpecial: true })].includes(cases.eos))
  })

  llama2.run()
}

const small = suite<{ tokenizer: Tokenizer; cases: Cases }>('a small vocabulary that splits digits')

small.before(async (context) => {
  context.tokenizer = await loadTokenizer(fixture('tokenizer-spm-bpe-small/tokenizer.model'))
  context.cases = read('tokenizer-spm-bpe-small/cases.json')
})

small('encodes and decodes as sentencepiece does', ({ tokenizer, cases }) => {
  assert.is(tokenizer.vocabularySize, cases.vocab_size)
  for (const { text, ids } of cases.encode) assert.equal([...tokenizer.encode(text)], ids, JSON.stringify(text))
  for (const { ids, text } of cases.decode) assert.is(tokenizer.decode(ids), text, JSON.stringify(ids))
})

small.run()
