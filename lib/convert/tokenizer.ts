/** The tokenizer of a Hugging Face folder as metadata of a GGUF file. */
import { DroverError } from '../errors.js'
import { ConfigRecord } from '../format/config.js'
import { type Folder, isMissing, Pace } from '../format/file.js'
import type { GgufEntry } from '../format/gguf-writer.js'
import { type JsonObject, parseJson } from '../format/json.js'
import { preTokenizers } from '../text/gguf-tokenizer.js'
import { readWhole } from '../text/load.js'
import { kindByNumber, looksLikeSentencePiece, readSentencePiece } from '../text/sentencepiece-model.js'
import {
  addedTokens,
  bosOf,
  gpt2Pattern,
  llama3Pattern,
  mergesOf,
  partsOf,
  tokenizerFromJson,
  vocabularyOf,
} from '../text/tokenizer-json.js'

/** Entries of the tokenizer, and the numbers of tokens by their text. */
export interface TokenizerEntries {
  readonly entries: ReadonlyMap<string, GgufEntry>
  readonly ids: ReadonlyMap<string, number>
}

const kinds = { normal: 1, unknown: 2, control: 3, user: 4, unused: 5 } as const

const unsupported = (file: string, field: string, found: unknown, expected: string, hint?: string): DroverError =>
  new DroverError('E_UNSUPPORTED', 'this tokenizer is not written to GGUF files', {
    file,
    field,
    found,
    expected,
    ...(hint === undefined ? {} : { hint }),
  })

const withoutMissing = async <T>(reading: Promise<T>): Promise<T | undefined> =>
  reading.catch((error: unknown) => {
    if (isMissing(error)) return undefined
    throw error
  })

/**
 * Reads the tokenizer that a folder is loaded with: tokenizer.json, else tokenizer.model. GGUF has forms for byte-level BPE
 * and for SentencePiece BPE, whose scores are in tokenizer.model alone. `vocabulary` is the model's: numbers that the
 * tokenizer does not have become unused tokens. Throws E_UNSUPPORTED, E_FORMAT, E_IO.
 */
export const tokenizerEntries = async (folder: Folder, vocabulary: number): Promise<TokenizerEntries> => {
  const json = await withoutMissing(readWhole(folder, 'tokenizer.json'))
  const file = await withoutMissing(readWhole(folder, 'tokenizer.model'))
  const model = file !== undefined && looksLikeSentencePiece(file.bytes) ? file : undefined
  const root = json === undefined ? undefined : await rootOf(json.bytes, json.path)
  if (root !== undefined && (model === undefined || !hasByteFallback(root))) return byteLevelEntries(root, vocabulary)
  if (model !== undefined) return sentencePieceEntries(model.bytes, model.path, vocabulary, root)
  throw unsupported(
    `${folder.path}/tokenizer.json`,
    'tokenizer',
    file === undefined ? 'none' : 'tiktoken ranks alone',
    'tokenizer.json, or a tokenizer.model of SentencePiece',
    'put the tokenizer.json of the model into the folder',
  )
}

const rootOf = async (bytes: Uint8Array, file: string): Promise<ConfigRecord> => {
  const json = await parseJson(bytes, file, new Pace(undefined, 'reading a tokenizer'))
  tokenizerFromJson(json, file) // refuses what is damaged
  return new ConfigRecord(file, json as JsonObject)
}

/** SentencePiece BPE in a tokenizer.json. */
const hasByteFallback = (root: ConfigRecord): boolean => root.record('model')?.boolean('byte_fallback', false) === true

const checkCount = (file: string, field: string, found: number, vocabulary: number): void => {
  if (found <= vocabulary) return
  throw new DroverError('E_FORMAT', 'the tokenizer has more tokens than the model', {
    file,
    field,
    found,
    expected: `at most ${vocabulary}`,
  })
}

/** One more than the largest number. */
const countOf = (ids: Iterable<number>): number => {
  let count = 0
  for (const id of ids) count = Math.max(count, id + 1)
  return count
}

/** The name that GGUF gives to a way of cutting text. */
const preTokenizerOf = (root: ConfigRecord): { pre: string; prefixSpace: boolean } => {
  let pre: string | undefined
  let prefixSpace = false
  for (const part of partsOf(root.record('pre_tokenizer'), 'pretokenizers')) {
    if (part.string('type') === 'ByteLevel') {
      prefixSpace = part.boolean('add_prefix_space', true)
      if (part.boolean('use_regex', true)) pre ??= 'gpt-2'
      continue
    }
    const pattern = part.record('pattern')?.string('Regex')
    if (pattern === llama3Pattern) pre = 'llama-bpe'
    else if (pattern === gpt2Pattern) pre = 'gpt-2'
    else throw unsupported(root.file, 'pre_tokenizer.pattern', pattern, 'the pattern of Llama 3 or of GPT-2')
  }
  if (pre === undefined) throw unsupported(root.file, 'pre_tokenizer', 'none', 'byte-level BPE')
  return { pre, prefixSpace }
}

const byteLevelEntries = (root: ConfigRecord, vocabulary: number): TokenizerEntries => {
  const { file } = root
  const model = root.record('model') as ConfigRecord
  if (hasByteFallback(root)) {
    const hint = 'put the tokenizer.model of the model into the folder: its scores are needed'
    throw unsupported(file, 'model.byte_fallback', true, 'byte-level BPE, or a tokenizer.model', hint)
  }
  if (root.has('normalizer')) throw unsupported(file, 'normalizer', 'one', 'none')
  const { pre, prefixSpace } = preTokenizerOf(root)
  const whole = model.boolean('ignore_merges', false)
  const expected = preTokenizers.get(pre)?.whole
  // GGUF has no entry for it: readers know it by the name of the pre-tokenizer.
  if (whole !== expected) throw unsupported(file, 'model.ignore_merges', whole, `${expected}, as ${pre} stands for`)
  const { texts, ids } = vocabularyOf(model)
  const added = addedTokens(root)
  const all = new Map([...ids, ...added.map(({ text, id }) => [text, id] as const)])
  checkCount(file, 'vocab', countOf(all.values()), vocabulary)
  const tokens = Array.from({ length: vocabulary }, (_, id) => texts[id] ?? `[PAD${id}]`)
  const types = Array.from(tokens, (_, id): number => (texts[id] === undefined ? kinds.unused : kinds.normal))
  for (const { id, text, special } of added) {
    tokens[id] = text
    types[id] = special ? kinds.control : kinds.user
  }
  const entries = new Map<string, GgufEntry>([
    ['tokenizer.ggml.model', { type: 'string', value: 'gpt2' }],
    ['tokenizer.ggml.pre', { type: 'string', value: pre }],
    ['tokenizer.ggml.tokens', { type: 'string[]', value: tokens }],
    ['tokenizer.ggml.token_type', { type: 'i32[]', value: types }],
    ['tokenizer.ggml.merges', { type: 'string[]', value: mergesOf(model, ids).map((pair) => pair.join(' ')) }],
  ])
  if (prefixSpace) entries.set('tokenizer.ggml.add_space_prefix', { type: 'bool', value: true })
  addBos(entries, bosOf(root, all))
  return { entries, ids: all }
}

/** `root`: the tokenizer.json beside it, whose added tokens and whose token in front of a text count. */
const sentencePieceEntries = (
  bytes: Uint8Array,
  file: string,
  vocabulary: number,
  root: ConfigRecord | undefined,
): TokenizerEntries => {
  const model = readSentencePiece(bytes, file)
  checkCount(file, 'pieces', model.pieces.length, vocabulary)
  const added = root === undefined ? [] : addedTokens(root)
  checkCount(root?.file ?? file, 'added_tokens', countOf(added.map(({ id }) => id)), vocabulary)
  const tokens = Array.from({ length: vocabulary }, (_, id) => model.pieces[id] ?? `[PAD${id}]`)
  const types = Array.from(tokens, (_, id): number => {
    const kind = model.kinds[id]
    return kind === undefined ? kinds.unused : kindByNumber.indexOf(kind)
  })
  const ids = new Map(model.pieces.map((text, id) => [text, id]))
  for (const { id, text, special } of added) {
    if (tokens[id] !== text) ids.delete(tokens[id] as string)
    tokens[id] = text
    ids.set(text, id)
    // What stands for the unknown does so whatever else it is.
    if (types[id] !== kinds.unknown) types[id] = special ? kinds.control : kinds.user
  }
  const entries = new Map<string, GgufEntry>([
    ['tokenizer.ggml.model', { type: 'string', value: 'llama' }],
    ['tokenizer.ggml.pre', { type: 'string', value: 'default' }],
    ['tokenizer.ggml.tokens', { type: 'string[]', value: tokens }],
    ['tokenizer.ggml.scores', { type: 'f32[]', value: tokens.map((_, id) => model.scores[id] ?? -1e4) }],
    ['tokenizer.ggml.token_type', { type: 'i32[]', value: types }],
    ['tokenizer.ggml.add_space_prefix', { type: 'bool', value: model.spacePrefix }],
    ['tokenizer.ggml.remove_extra_whitespaces', { type: 'bool', value: model.collapseSpaces }],
  ])
  addBos(entries, root === undefined ? model.bos : bosOf(root, ids))
  return { entries, ids }
}

const addBos = (entries: Map<string, GgufEntry>, bos: number | undefined): void => {
  entries.set('tokenizer.ggml.add_bos_token', { type: 'bool', value: bos !== undefined })
  if (bos !== undefined) entries.set('tokenizer.ggml.bos_token_id', { type: 'u32', value: bos })
}
