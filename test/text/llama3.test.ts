/** Llama 3's rank file against tiktoken, Hugging Face tokenizers and llama.cpp: every id must be the same. */
import { readdirSync, readFileSync } from 'node:fs'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { loadTokenizer } from '../../lib/text/load.js'
import type { Tokenizer } from '../../lib/text/tokenizer.js'
import { fixture } from '../support.js'

interface Cases {
  encode: { text: string; ids: number[]; ids_allow_special?: number[] }[]
  decode: { ids: number[]; bytes_b64: string[]; text_replace: string }[]
  special_tokens: Record<string, number>
  vocab_size: number
}

interface Vector {
  text: string
  ids: number[]
  options?: { bos: boolean; eos: boolean }
  decoded?: string
}

const folder = 'tokenizer-llama3'
const read = (name: string): unknown => JSON.parse(readFileSync(fixture(`${folder}/${name}`), 'utf8'))
const cases = read('cases.json') as Cases

const ranks = suite<{ tokenizer: Tokenizer }>('Llama 3 rank file')

ranks.before(async (context) => {
  context.tokenizer = await loadTokenizer(fixture(`${folder}/tokenizer.model`))
})

ranks('encodes as tiktoken does', ({ tokenizer }) => {
  for (const { text, ids } of cases.encode) assert.equal([...tokenizer.encode(text)], ids, JSON.stringify(text))
})

ranks('parses special tokens only when asked', ({ tokenizer }) => {
  const special = cases.encode.filter(({ ids_allow_special }) => ids_allow_special !== undefined)
  assert.ok(special.length > 0)
  for (const { text, ids_allow_special } of special) {
    assert.equal([...tokenizer.encode(text, { parseSpecial: true })], ids_allow_special, JSON.stringify(text))
  }
})

ranks('puts the token that starts a text in front, when asked', ({ tokenizer }) => {
  for (const { text, ids } of cases.encode) {
    assert.equal([...tokenizer.encode(text, { bos: true })], [128000, ...ids], JSON.stringify(text))
  }
})

ranks('gives the bytes of tokens, and their text', ({ tokenizer }) => {
  for (const { ids, bytes_b64, text_replace } of cases.decode) {
    const bytes = ids.map((id) => Buffer.from(tokenizer.tokenBytes(id)).toString('base64'))
    const plain = bytes_b64.map((text, i) => ((ids[i] as number) < 128000 ? text : ''))
    assert.equal(bytes, plain)
    assert.is(tokenizer.decode(ids, { special: true }), text_replace)
  }
})

ranks('knows the special tokens', ({ tokenizer }) => {
  assert.is(tokenizer.vocabularySize, cases.vocab_size)
  assert.is(tokenizer.specialTokens.size, 256)
  for (const [text, id] of Object.entries(cases.special_tokens)) assert.is(tokenizer.specialTokens.get(text), id, text)
  assert.is(tokenizer.bos, 128000)
  assert.equal(
    [...tokenizer.endTokens].sort((a, b) => a - b),
    [128001, 128008, 128009],
  )
})

ranks('leaves special tokens out of a text unless asked', ({ tokenizer }) => {
  const ids = [128000, 9906, 128009, 1917, 128255]
  assert.is(tokenizer.decode(ids), 'Hello world')
  assert.is(
    tokenizer.decode(ids, { special: true }),
    '<|begin_of_text|>Hello<|eot_id|> world<|reserved_special_token_245|>',
  )
  assert.equal(Buffer.from(tokenizer.decodeBytes(ids)).toString(), 'Hello world')
  assert.is(tokenizer.tokenBytes(128000).length, 0)
})

ranks('refuses tokens outside the vocabulary', ({ tokenizer }) => {
  for (const id of [-1, 128256, 0.5, Number.NaN]) {
    assert.throws(
      () => tokenizer.tokenBytes(id),
      (error: { code?: string }) => error.code === 'E_RANGE',
    )
    assert.throws(
      () => tokenizer.decode([9906, id]),
      (error: { code?: string }) => error.code === 'E_RANGE',
    )
  }
})

/** What transformers.js does to decoded text unless told otherwise; the vectors have it. */
const cleanedUp = (text: string): string => text.replace(/ ([.?!,])/g, '$1').replace(/ (n't|'m|'s|'ve|'re)/g, '$1')

for (const name of readdirSync(fixture(`${folder}/vectors`))) {
  ranks(`agrees with ${name}`, async ({ tokenizer }) => {
    const vectors = read(`vectors/${name}`) as Vector[]
    // Numbers the reserved tokens as transformers does: the tokenizer_config.json of the folder has those names.
    const named = name.startsWith('belladore')
    const used = named ? await loadTokenizer(fixture(folder)) : tokenizer
    for (const { text, ids, options, decoded } of vectors) {
      // Whether a set counts the first token is seen from its ids.
      const bos = options?.bos ?? ids[0] === 128000
      const end = options?.eos ? [128001] : []
      assert.equal([...used.encode(text, { bos, parseSpecial: named }), ...end], ids, JSON.stringify(text))
      if (decoded !== undefined) assert.is(cleanedUp(used.decode(ids, { special: true })), decoded)
    }
  })
}

ranks.run()
