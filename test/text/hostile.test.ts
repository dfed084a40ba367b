/** Tokenizer files that are damaged, cut off or made to harm: each is refused by code, file and field. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { ErrorCode } from '../../lib/errors.js'
import { assertRefused } from '../format/refusals.js'
import {
  arrayValue,
  byteLevelJson,
  f32,
  field,
  gpt2Entries,
  join,
  llamaEntries,
  type Piece,
  rankLines,
  readBytes,
  spmBytes,
  spmNormalizer,
  spmPiece,
  spmPieces,
  spmTrainer,
  string,
  stringArray,
  stringValue,
  typeId,
  u32,
  u32Value,
  vocabularyBytes,
} from './small-files.js'

type Refusal = [what: string, code: ErrorCode, where: string | RegExp, bytes: Uint8Array]
const text = 'a the\u00e9 t'

// --- SentencePiece ---

const spm = suite('a hostile SentencePiece model')
const withPiece = (id: number, piece: Partial<Piece>): Uint8Array =>
  spmBytes(spmPieces.map((own, i) => (i === id ? { ...own, ...piece } : own)))
const unigram = join(field(3, 1), field(41, 1))

const spmRefusals: Refusal[] = [
  ['two pieces alike', 'E_FORMAT', 'piece 262', withPiece(262, { text: '\u2581t' })],
  ['an empty piece', 'E_FORMAT', 'piece 260', withPiece(260, { text: '' })],
  ['an unknown type of piece', 'E_FORMAT', 'piece 5', withPiece(5, { type: 9 })],
  ['a byte piece that names no byte', 'E_FORMAT', 'piece 7', withPiece(7, { text: '<0xZZ>' })],
  ['a score that is no number', 'E_FORMAT', 'piece 259', withPiece(259, { score: Number.NaN })],
  ['no unknown piece', 'E_FORMAT', 'pieces', withPiece(0, { type: 3 })],
  ['no settings', 'E_FORMAT', 'trainer_spec', join(...spmPieces.map(spmPiece))],
  ['no normaliser', 'E_FORMAT', 'normalizer_spec', join(...spmPieces.map(spmPiece), field(2, spmTrainer))],
  ['a piece that is a number', 'E_FORMAT', 'pieces', join(spmBytes(), field(1, 5))],
  ['settings that are a number', 'E_FORMAT', 'trainer_spec', join(spmBytes(), field(2, 5))],
  ['a unigram model', 'E_UNSUPPORTED', 'trainer_spec.model_type', spmBytes(spmPieces, unigram)],
  [
    'a normalisation table',
    'E_UNSUPPORTED',
    'normalizer_spec.precompiled_charsmap',
    spmBytes(spmPieces, spmTrainer, join(spmNormalizer, field(2, new Uint8Array(9)))),
  ],
  ['a length past the end', 'E_FORMAT', /^byte/, join(spmBytes(), Uint8Array.of(0x0a, 0xff, 0xff, 0xff, 0x7f))],
  ['an endless number', 'E_FORMAT', /^byte/, join(spmBytes(), Uint8Array.of(0x20, ...Array(11).fill(0xff)))],
  ['an unknown wire type', 'E_FORMAT', /^byte/, join(spmBytes(), Uint8Array.of(0x0f))],
  ['field number 0', 'E_FORMAT', /^byte/, join(spmBytes(), Uint8Array.of(0x02, 0x00))],
]

spm('the whole one is read', async () => {
  const tokenizer = await readBytes('tokenizer.model', spmBytes())
  assert.is(tokenizer.vocabularySize, spmPieces.length)
  assert.is(tokenizer.decode(tokenizer.encode(text)), text)
})
for (const [what, code, where, bytes] of spmRefusals) {
  spm(what, async () => void (await assertRefused(what, code, where, () => readBytes('tokenizer.model', bytes))))
}
spm('cut off anywhere', async () => {
  const whole = spmBytes()
  for (let length = 1; length < whole.length; length += 5) {
    await assertRefused(`${length} bytes`, 'E_FORMAT', /./, () => readBytes('tokenizer.model', whole.slice(0, length)))
  }
})
spm.run()

// --- Rank file ---

const ranks = suite('a hostile rank file')
const lines = (change: (lines: string[]) => void): Uint8Array => {
  const list = rankLines()
  change(list)
  return Buffer.from(`${list.join('\n')}\n`)
}
const nextRank = rankLines().length

const rankRefusals: Refusal[] = [
  ['nothing', 'E_FORMAT', 'byte 0', new Uint8Array(0)],
  ['noise', 'E_FORMAT', 'line 1', Buffer.from('hello, I am a tokenizer\n')],
  ['the same token twice', 'E_FORMAT', `line ${nextRank + 1}`, lines((list) => list.push(`dGg= ${nextRank}`))],
  ['a rank twice', 'E_FORMAT', 'line 258', lines((list) => list.splice(257, 0, list[256] as string))],
  ['a rank left out', 'E_FORMAT', 'line 101', lines((list) => list.splice(100, 1))],
  ['a byte left out', 'E_FORMAT', 'byte 255', lines((list) => list.splice(255, 1, '//8A 255'))],
  ['incomplete base64', 'E_FORMAT', 'line 3', lines((list) => (list[2] = 'A 2'))],
  ['an empty token', 'E_FORMAT', 'line 3', lines((list) => (list[2] = '= 2'))],
  ['no rank', 'E_FORMAT', 'line 3', lines((list) => (list[2] = 'Ag=='))],
  ['a rank below 0', 'E_FORMAT', 'line 3', lines((list) => (list[2] = 'Ag== -2'))],
  ['a rank past all numbers', 'E_FORMAT', 'line 3', lines((list) => (list[2] = `Ag== ${'9'.repeat(400)}`))],
]

const config = (first: number): Record<string, string> => ({
  'tokenizer_config.json': JSON.stringify({ added_tokens_decoder: { [first]: { content: '<|x|>', special: true } } }),
})

ranks('the whole one is read', async () => {
  const bytes = lines(() => {})
  assert.is((await readBytes('tokenizer.model', bytes)).vocabularySize, nextRank + 256)
  const tokenizer = await readBytes('tokenizer.model', bytes, config(nextRank))
  assert.is(tokenizer.vocabularySize, nextRank + 1)
  assert.is(tokenizer.decode(tokenizer.encode(text)), text)
})
for (const [what, code, where, bytes] of rankRefusals) {
  ranks(what, async () => void (await assertRefused(what, code, where, () => readBytes('tokenizer.model', bytes))))
}
ranks('cut off anywhere, where a configuration says how long it was', async () => {
  const whole = lines(() => {})
  for (let length = 0; length < whole.length - 1; length += 7) {
    const read = () => readBytes('tokenizer.model', whole.slice(0, length), config(nextRank))
    await assertRefused(`${length} bytes`, 'E_FORMAT', /./, read)
  }
})
ranks('a special token with the number of a rank', async () => {
  const read = (first: number) => () =>
    readBytes(
      'tokenizer.model',
      lines(() => {}),
      config(first),
    )
  await assertRefused('too low', 'E_FORMAT', '<|x|>', read(nextRank - 1))
})
ranks('a configuration that is no object', async () => {
  for (const other of ['[]', '7', 'null', '{', '']) {
    const read = () =>
      readBytes(
        'tokenizer.model',
        lines(() => {}),
        { 'tokenizer_config.json': other },
      )
    await assertRefused(other, 'E_FORMAT', 'JSON', read)
  }
})
ranks.run()

// --- tokenizer.json ---

const json = suite('a hostile tokenizer.json')
type Json = ReturnType<typeof byteLevelJson>
const edited = (change: (root: Json) => void): Uint8Array => {
  const root = byteLevelJson()
  change(root)
  return Buffer.from(JSON.stringify(root))
}
const model = (change: Partial<Record<keyof Json['model'] | 'byte_fallback', unknown>>): Uint8Array =>
  edited((root) => Object.assign(root.model, change))
const added = (...list: unknown[]): Uint8Array =>
  edited((root) => root.added_tokens.push(...(list as Json['added_tokens'])))
const split = (pattern: unknown, behavior = 'Isolated'): Uint8Array =>
  edited((root) => {
    const parts = [
      { type: 'Split', pattern, behavior },
      { type: 'ByteLevel', add_prefix_space: false, use_regex: false },
    ]
    root.pre_tokenizer = { type: 'Sequence', pretokenizers: parts }
  })

const jsonRefusals: Refusal[] = [
  ['no object', 'E_FORMAT', 'JSON', Buffer.from('[]')],
  ['no JSON', 'E_FORMAT', 'JSON', Buffer.from('tokenizer')],
  ['a key twice', 'E_FORMAT', /./, Buffer.from('{"model": {"vocab": {"a": 0, "a": 1}}}')],
  ['no model', 'E_FORMAT', 'model', Buffer.from('{}')],
  ['a model that is text', 'E_FORMAT', 'model', Buffer.from('{"model": "BPE"}')],
  ['an unknown model', 'E_UNSUPPORTED', 'model.type', model({ type: 'WordPiece' })],
  ['a type that is a number', 'E_FORMAT', 'model.type', model({ type: 5 })],
  ['no vocabulary', 'E_FORMAT', 'model.vocab', model({ vocab: undefined })],
  ['an empty vocabulary', 'E_FORMAT', 'model.vocab', model({ vocab: {}, merges: [] })],
  ['a vocabulary that is a list', 'E_FORMAT', 'model.vocab', model({ vocab: ['a'] })],
  ['a number that is text', 'E_FORMAT', 'model.vocab', model({ vocab: { a: '0' } })],
  ['a number below 0', 'E_FORMAT', 'model.vocab', model({ vocab: { a: -1 } })],
  ['a number past all vocabularies', 'E_FORMAT', 'model.vocab', model({ vocab: { a: 2 ** 31 } })],
  ['a broken number', 'E_FORMAT', 'model.vocab', model({ vocab: { a: 0.5 } })],
  ['a number twice', 'E_FORMAT', 'model.vocab', model({ vocab: { a: 0, b: 0 } })],
  ['no merges', 'E_FORMAT', 'model.merges', model({ merges: undefined })],
  ['merges that are text', 'E_FORMAT', 'model.merges', model({ merges: 't h' })],
  ['a merge of one token', 'E_FORMAT', 'model.merges', model({ merges: ['th'] })],
  ['a merge of three tokens', 'E_FORMAT', 'model.merges', model({ merges: [['t', 'h', 'e']] })],
  ['a merge of numbers', 'E_FORMAT', 'model.merges', model({ merges: [[1, 2]] })],
  ['a merge of foreign tokens', 'E_FORMAT', 'model.merges', model({ merges: ['xx yy'] })],
  ['a merge to a foreign token', 'E_FORMAT', 'model.merges', model({ merges: ['a a'] })],
  ['a flag that is a number', 'E_FORMAT', 'model.ignore_merges', model({ ignore_merges: 1 })],
  ['added tokens that are an object', 'E_FORMAT', 'added_tokens', edited((r) => (r.added_tokens = {} as never))],
  ['an added token that is text', 'E_FORMAT', 'added_tokens', added('<|x|>')],
  ['an added token without number', 'E_FORMAT', 'added_tokens[1].id', added({ content: 'x' })],
  ['an added token past all', 'E_FORMAT', 'added_tokens[1].id', added({ id: 2 ** 32, content: 'x' })],
  ['an added token without text', 'E_FORMAT', 'added_tokens[1].content', added({ id: 301 })],
  ['a number of two added tokens', 'E_FORMAT', 'added_tokens[1].id', added({ id: 300, content: 'x' })],
  ['an added token twice', 'E_FORMAT', 'added_tokens[1].content', added({ id: 301, content: '<|begin|>' })],
  [
    'an unknown normaliser',
    'E_UNSUPPORTED',
    'normalizer.type',
    edited((r) => (r.normalizer = { type: 'BertNormalizer' })),
  ],
  ['a normaliser without type', 'E_FORMAT', 'normalizer.type', edited((r) => (r.normalizer = {}))],
  ['no split into bytes', 'E_UNSUPPORTED', 'pre_tokenizer', edited((r) => (r.pre_tokenizer = null))],
  ['an unknown split', 'E_UNSUPPORTED', 'pre_tokenizer.type', edited((r) => (r.pre_tokenizer = { type: 'Digits' }))],
  ['a pattern that is none', 'E_UNSUPPORTED', 'pre_tokenizer.pattern', split({ Regex: '(' })],
  ['a pattern that could take for ever', 'E_UNSUPPORTED', 'pre_tokenizer.pattern', split({ Regex: '(a+)+$|b' })],
  ['a pattern that could take long', 'E_UNSUPPORTED', 'pre_tokenizer.pattern', split({ Regex: 'a*a*a*a*a*b' })],
  ['a pattern that looks back', 'E_UNSUPPORTED', 'pre_tokenizer.pattern', split({ Regex: '(a*)\\1b' })],
  ['a split that removes', 'E_UNSUPPORTED', /pre_tokenizer/, split({ Regex: ' ' }, 'Removed')],
  [
    'a start token that is not there',
    'E_FORMAT',
    'post_processor.single',
    edited((r) => {
      r.post_processor = { type: 'TemplateProcessing', single: [{ SpecialToken: { id: '<|no|>' } }] }
    }),
  ],
  [
    'a start token past all',
    'E_FORMAT',
    'post_processor.cls',
    edited((r) => {
      r.post_processor = { type: 'RobertaProcessing', cls: ['<s>', 1e9], sep: ['</s>', 2] }
    }),
  ],
  [
    'byte fallback with a normaliser it lacks',
    'E_UNSUPPORTED',
    'normalizer.type',
    edited((r) => {
      Object.assign(r.model, { byte_fallback: true })
      r.normalizer = { type: 'NFKC' }
    }),
  ],
]

json('the whole one is read', async () => {
  const tokenizer = await readBytes(
    'tokenizer.json',
    edited(() => {}),
  )
  assert.is(tokenizer.vocabularySize, 301)
  assert.is(tokenizer.bos, 300)
  assert.is(tokenizer.decode(tokenizer.encode(text)), text)
})
for (const [what, code, where, bytes] of jsonRefusals) {
  json(what, async () => void (await assertRefused(what, code, where, () => readBytes('tokenizer.json', bytes))))
}
json('cut off anywhere', async () => {
  const whole = edited(() => {})
  for (let length = 0; length < whole.length; length += 11) {
    await assertRefused(`${length} bytes`, 'E_FORMAT', /./, () => readBytes('tokenizer.json', whole.slice(0, length)))
  }
})
json('sequences in sequences without end', async () => {
  let parts = '{"type": "ByteLevel"}'
  for (let depth = 0; depth < 2000; depth++) parts = `{"type": "Sequence", "pretokenizers": [${parts}]}`
  const bytes = Buffer.from(`{"pre_tokenizer": ${parts}, "model": {"vocab": {"a": 0}, "merges": []}}`)
  await assertRefused('deep', 'E_FORMAT', /./, () => readBytes('tokenizer.json', bytes))
})
json('names of properties are tokens like any other', async () => {
  const names = ['__proto__', 'constructor', 'toString', 'hasOwnProperty']
  const vocab = { ...(byteLevelJson().model.vocab as Record<string, number>) }
  names.forEach((name, i) => {
    Object.defineProperty(vocab, name, { value: 261 + i, enumerable: true })
  })
  const tokenizer = await readBytes('tokenizer.json', model({ vocab }))
  for (const [i, name] of names.entries()) assert.is(tokenizer.decode([261 + i]), name)
})
json.run()

// --- GGUF ---

const gguf = suite('a hostile tokenizer in GGUF')
const key = (name: string): string => `tokenizer.ggml.${name}`
const changed = (base: Record<string, Uint8Array>, name: string, value: Uint8Array | undefined): Uint8Array => {
  const entries = { ...base }
  if (value === undefined) delete entries[key(name)]
  else entries[key(name)] = value
  return vocabularyBytes(entries)
}
const numbers = (type: 'i32' | 'f32', list: readonly number[]): Uint8Array =>
  arrayValue(typeId(type), list.length, join(...list.map(type === 'f32' ? f32 : u32)))

const ggufRefusals: [string, ErrorCode, string, Uint8Array | undefined, Record<string, Uint8Array>][] = [
  ['no model', 'E_FORMAT', 'model', undefined, gpt2Entries()],
  ['an unknown model', 'E_UNSUPPORTED', 'model', stringValue('bert'), gpt2Entries()],
  ['a model that is a number', 'E_FORMAT', 'model', u32Value(1), gpt2Entries()],
  ['an unknown pre-tokenizer', 'E_UNSUPPORTED', 'pre', stringValue('newest'), gpt2Entries()],
  ['no tokens', 'E_FORMAT', 'tokens', undefined, gpt2Entries()],
  ['an empty list of tokens', 'E_FORMAT', 'tokens', stringArray([]), gpt2Entries()],
  ['tokens that are numbers', 'E_FORMAT', 'tokens', numbers('i32', [1, 2]), gpt2Entries()],
  ['too few types', 'E_FORMAT', 'token_type', numbers('i32', [1, 1]), gpt2Entries()],
  ['an unknown type', 'E_FORMAT', 'token_type', numbers('i32', Array(262).fill(9)), gpt2Entries()],
  ['types that are text', 'E_FORMAT', 'token_type', stringArray(Array(262).fill('1')), gpt2Entries()],
  ['no merges', 'E_FORMAT', 'merges', undefined, gpt2Entries()],
  ['a merge of one token', 'E_FORMAT', 'merges', stringArray(['th']), gpt2Entries()],
  ['a merge of foreign tokens', 'E_FORMAT', 'merges', stringArray(['xx yy']), gpt2Entries()],
  ['a merge to a foreign token', 'E_FORMAT', 'merges', stringArray(['a a']), gpt2Entries()],
  ['an empty merge', 'E_FORMAT', 'merges', stringArray(['']), gpt2Entries()],
  ['an end past the vocabulary', 'E_FORMAT', 'eos_token_id', u32Value(262), gpt2Entries()],
  ['an end that is text', 'E_FORMAT', 'eos_token_id', stringValue('</s>'), gpt2Entries()],
  ['no scores', 'E_FORMAT', 'scores', undefined, llamaEntries()],
  ['too few scores', 'E_FORMAT', 'scores', numbers('f32', [1]), llamaEntries()],
  ['a flag that is text', 'E_FORMAT', 'add_space_prefix', stringValue('yes'), llamaEntries()],
]

gguf('the whole ones are read', async () => {
  for (const entries of [gpt2Entries(), llamaEntries()]) {
    const tokenizer = await readBytes('v.gguf', vocabularyBytes(entries))
    assert.is(tokenizer.decode(tokenizer.encode(text)), text)
  }
})
for (const [what, code, name, value, base] of ggufRefusals) {
  gguf(what, async () => {
    await assertRefused(what, code, key(name), () => readBytes('v.gguf', changed(base, name, value)))
  })
}
gguf('two tokens alike', async () => {
  const tokens = Array.from({ length: 262 }, (_, i) => (i < 128 ? 'the' : `t${i}`))
  const bytes = changed({ ...gpt2Entries(), [key('merges')]: stringArray([]) }, 'tokens', stringArray(tokens))
  await assertRefused('byte level', 'E_FORMAT', key('tokens'), () => readBytes('v.gguf', bytes))
  const pieces = spmPieces.map(({ text }, i) => (i === 262 ? 'he' : text))
  const read = () => readBytes('v.gguf', changed(llamaEntries(), 'tokens', stringArray(pieces)))
  await assertRefused('sentencepiece', 'E_FORMAT', 'piece 262', read)
})
gguf('a score that is no number', async () => {
  const scores = numbers('f32', Array(spmPieces.length).fill(Number.NaN))
  await assertRefused('NaN', 'E_FORMAT', 'piece 259', () =>
    readBytes('v.gguf', changed(llamaEntries(), 'scores', scores)),
  )
})
gguf('a string longer than the file', async () => {
  const bytes = join(vocabularyBytes({ [key('model')]: stringValue('gpt2') }).slice(0, -8), string('x'))
  await assertRefused('long', 'E_FORMAT', /./, () => readBytes('v.gguf', bytes))
})
gguf.run()
