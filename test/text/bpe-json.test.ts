/** tokenizer.json of byte-level BPE against Hugging Face tokenizers: every id must be the same. */
import { readFileSync } from 'node:fs'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { loadTokenizer } from '../../lib/text/load.js'
import type { Tokenizer } from '../../lib/text/tokenizer.js'
import { fixture } from '../support.js'

const read = <T>(path: string): T => JSON.parse(readFileSync(fixture(path), 'utf8')) as T

interface SmallCases {
  encode: { text: string; ids: number[]; ids_with_bos: number[] }[]
  decode: { ids: number[]; text: string; text_skip_special: string }[]
}

const small = suite<{ tokenizer: Tokenizer; cases: SmallCases }>('tokenizer.json in the form of Llama 3')

small.before(async (context) => {
  context.tokenizer = await loadTokenizer(fixture('tokenizer-bpe-small/tokenizer.json'))
  context.cases = read('tokenizer-bpe-small/cases.json')
})

small('encodes as tokenizers does', ({ tokenizer, cases }) => {
  for (const { text, ids, ids_with_bos } of cases.encode) {
    assert.equal([...tokenizer.encode(text, { parseSpecial: true })], ids, JSON.stringify(text))
    assert.equal([...tokenizer.encode(text, { parseSpecial: true, bos: true })], ids_with_bos, JSON.stringify(text))
  }
})

small('does not make special tokens of text unless asked', ({ tokenizer, cases }) => {
  const special = new Set(tokenizer.specialTokens.values())
  const looking = cases.encode.filter(({ ids }) => ids.some((id) => special.has(id)))
  assert.ok(looking.length > 0)
  for (const { text } of looking) {
    const ids = [...tokenizer.encode(text)]
    assert.ok(!ids.some((id) => special.has(id)), JSON.stringify(text))
    assert.is(tokenizer.decode(ids), text.toWellFormed())
  }
})

small('decodes as tokenizers does', ({ tokenizer, cases }) => {
  for (const { ids, text, text_skip_special } of cases.decode) {
    assert.is(tokenizer.decode(ids, { special: true }), text)
    assert.is(tokenizer.decode(ids), text_skip_special)
  }
})

small('knows where texts start and end', ({ tokenizer }) => {
  const special = (name: string): number | undefined => tokenizer.specialTokens.get(name)
  assert.is(tokenizer.bos, special('<|begin_of_text|>'))
  assert.equal(
    new Set(tokenizer.endTokens),
    new Set([special('<|end_of_text|>'), special('<|eom_id|>'), special('<|eot_id|>')]),
  )
})

small.run()

interface RobertaCases {
  encode: { text: string; ids: number[]; ids_plain: number[] }[]
  decode: { ids: number[]; text: string }[]
}

const roberta = suite<{ tokenizer: Tokenizer; cases: RobertaCases }>('tokenizer.json of RoBERTa')

roberta.before(async (context) => {
  context.tokenizer = await loadTokenizer(fixture('tokenizer-roberta-bpe/tokenizer.json'))
  context.cases = read('tokenizer-roberta-bpe/cases.json')
})

roberta('encodes as tokenizers does', ({ tokenizer, cases }) => {
  const end = tokenizer.specialTokens.get('</s>')
  for (const { text, ids, ids_plain } of cases.encode) {
    assert.equal([...tokenizer.encode(text, { parseSpecial: true })], ids_plain, JSON.stringify(text))
    assert.equal([...tokenizer.encode(text, { parseSpecial: true, bos: true }), end], ids, JSON.stringify(text))
  }
})

roberta('encodes as transformers.js does', ({ tokenizer }) => {
  const vectors = read<{ text: string; ids: number[] }[]>('tokenizer-roberta-bpe/hf-roberta-all-distil.json')
  for (const { text, ids } of vectors) {
    assert.equal([...tokenizer.encode(text, { parseSpecial: true, bos: true }), 2], ids, JSON.stringify(text))
  }
})

roberta('decodes as tokenizers does', ({ tokenizer, cases }) => {
  for (const { ids, text } of cases.decode) assert.is(tokenizer.decode(ids), text)
})

roberta.run()
