/** Thousands of damaged tokenizer files: each is refused with a DroverError or is a tokenizer that keeps its promises. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { DroverError } from '../../lib/errors.js'
import { caseRandom, mutateBytes, mutateJson, type Random } from '../format/mutate.js'
import {
  byteLevelJson,
  gpt2Entries,
  llamaEntries,
  rankLines,
  readBytes,
  spmBytes,
  vocabularyBytes,
} from './small-files.js'

const seed = 7
const count = 1500
const texts = ['', 'the \u00e9\ud800 \n the', ' '.repeat(50), '<|begin|> <s>\u4e2d\u{1f999}'] as const

const fallbackJson = (): unknown => {
  const pieces = [
    '<unk>',
    ...Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, '0')}>`),
  ]
  const vocab = Object.fromEntries([...pieces, '\u2581', 't', 'h', '\u2581t', '\u2581th'].map((text, id) => [text, id]))
  return {
    added_tokens: [{ id: 0, content: '<unk>', special: true }],
    normalizer: {
      type: 'Sequence',
      normalizers: [
        { type: 'Prepend', prepend: '\u2581' },
        { type: 'Replace', pattern: { String: ' ' }, content: '\u2581' },
      ],
    },
    model: { type: 'BPE', byte_fallback: true, unk_token: '<unk>', vocab, merges: ['\u2581 t', '\u2581t h'] },
  }
}

const forms: Record<string, { name: string; bytes: Uint8Array; json?: boolean }> = {
  'a SentencePiece model': { name: 'tokenizer.model', bytes: spmBytes() },
  'a rank file': { name: 'tokenizer.model', bytes: Buffer.from(rankLines().join('\n')) },
  'tokenizer.json, byte level': {
    name: 'tokenizer.json',
    bytes: Buffer.from(JSON.stringify(byteLevelJson())),
    json: true,
  },
  'tokenizer.json, byte fallback': {
    name: 'tokenizer.json',
    bytes: Buffer.from(JSON.stringify(fallbackJson())),
    json: true,
  },
  'GGUF, byte level': { name: 'v.gguf', bytes: vocabularyBytes(gpt2Entries()) },
  'GGUF, SentencePiece': { name: 'v.gguf', bytes: vocabularyBytes(llamaEntries()) },
}

const mutated = ({ bytes, json }: { bytes: Uint8Array; json?: boolean }, random: Random): Uint8Array =>
  json === true && random() < 0.7
    ? Buffer.from(mutateJson(Buffer.from(bytes).toString(), random))
    : mutateBytes(bytes, random)

for (const [what, form] of Object.entries(forms)) {
  test(what, async () => {
    let refused = 0
    for (let number = 0; number < count; number++) {
      const random = caseRandom(seed, number)
      const where = `seed ${seed}, case ${number}`
      try {
        const tokenizer = await readBytes(form.name, mutated(form, random))
        for (const text of texts) {
          const ids = tokenizer.encode(text, { bos: random() < 0.5, parseSpecial: random() < 0.5 })
          for (const id of ids) assert.ok(id >= 0 && id < tokenizer.vocabularySize, `${where}: token ${id}`)
          assert.type(tokenizer.decode(ids), 'string')
          assert.type(tokenizer.decode(ids, { special: true }), 'string')
        }
        for (const id of tokenizer.endTokens) assert.ok(id >= 0 && id < tokenizer.vocabularySize, `${where}: end ${id}`)
      } catch (error) {
        if (!(error instanceof DroverError)) throw new Error(`${where}: ${(error as Error).stack}`)
        assert.type(error.file, 'string', `${where}: ${error.message}`)
        assert.type(error.field, 'string', `${where}: ${error.message}`)
        assert.ok(error.code === 'E_FORMAT' || error.code === 'E_UNSUPPORTED', `${where}: ${error.message}`)
        refused++
      }
    }
    // Both outcomes occur, or the mutations are too weak or too strong to say anything.
    assert.ok(refused > count / 10 && refused < count, `${refused} of ${count} refused`)
  })
}
test.run()
