/** Hugging Face `tokenizer.json`: byte-level BPE (Llama 3, GPT-2, RoBERTa) and SentencePiece-style BPE (Llama 2). */
import { DroverError } from '../errors.js'
import { ConfigRecord } from '../format/config.js'
import type { JsonObject, JsonValue } from '../format/json.js'
import { listMerges } from './bpe.js'
import { BpeTokenizer, tokensOf } from './bpe-tokenizer.js'
import { alphabetToBinary } from './byte-alphabet.js'
import { gpt2Scanner, llama3Scanner, regexScanner, type Scanner, wholeScanner } from './pretokenize.js'
import { type PieceKind, SentencePieceTokenizer, spaceMark, textPieces } from './sentencepiece.js'
import type { Tokenizer } from './tokenizer.js'
import { type AddedToken, AddedTokens } from './vocabulary.js'

const mostTokens = 1 << 22

export const llama3Pattern =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
export const gpt2Pattern = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

const unsupported = (file: string, field: string, found: unknown, expected: string): DroverError =>
  new DroverError('E_UNSUPPORTED', 'this kind of tokenizer is not supported yet', { file, field, found, expected })

/** A record, or its parts when it is a Sequence, in order. */
export const partsOf = (record: ConfigRecord | undefined, listKey: string): ConfigRecord[] => {
  if (record === undefined) return []
  if (record.string('type') !== 'Sequence') return [record]
  const list = record.get(listKey)
  if (!Array.isArray(list)) throw record.refuse(listKey, 'an array')
  return list.flatMap((part) => {
    if (part instanceof Map) return partsOf(new ConfigRecord(record.file, part as JsonObject), listKey)
    throw record.refuse(listKey, 'an array of objects')
  })
}

export const addedTokens = (root: ConfigRecord): AddedToken[] => {
  const list = root.get('added_tokens') ?? []
  if (!Array.isArray(list)) throw root.refuse('added_tokens', 'an array')
  const texts = new Set<string>()
  const ids = new Set<number>()
  return list.map((entry, i) => {
    if (!(entry instanceof Map)) throw root.refuse('added_tokens', 'an array of objects')
    const token = new ConfigRecord(root.file, entry, `added_tokens[${i}].`)
    const id = token.integer('id', { maximum: mostTokens - 1 })
    const text = token.string('content')
    if (ids.has(id)) throw token.refuse('id', 'a number that no other added token has')
    if (texts.has(text)) throw token.refuse('content', 'text that no other added token has')
    ids.add(id)
    texts.add(text)
    return {
      id,
      text,
      special: token.boolean('special', false),
      stripLeft: token.boolean('lstrip', false),
      stripRight: token.boolean('rstrip', false),
    }
  })
}

/** Tokens by number. */
export const vocabularyOf = (model: ConfigRecord): { texts: string[]; ids: Map<string, number> } => {
  const vocabulary = model.get('vocab')
  if (!(vocabulary instanceof Map)) throw model.refuse('vocab', 'an object')
  const texts: string[] = []
  const ids = new Map<string, number>()
  for (const [text, id] of vocabulary) {
    if (typeof id !== 'number' || !Number.isInteger(id) || id < 0 || id >= mostTokens) {
      throw model.refuse('vocab', 'token numbers', `${text}: ${id}`)
    }
    if (texts[id] !== undefined) throw model.refuse('vocab', 'a number for each token', `${text}: ${id}`)
    texts[id] = text
    ids.set(text, id)
  }
  if (ids.size === 0) throw model.refuse('vocab', 'tokens')
  return { texts, ids }
}

/** `a b` as a pair; where a token holds a space itself, the cut that leaves two tokens. */
const splitMerge = (merge: string, ids: ReadonlyMap<string, number>): string[] | undefined => {
  for (let cut = merge.indexOf(' ', 1); cut !== -1; cut = merge.indexOf(' ', cut + 1)) {
    const pair = [merge.slice(0, cut), merge.slice(cut + 1)]
    if (pair.every((token) => ids.has(token))) return pair
  }
  return undefined
}

/** Merges as pairs of texts; files write them as `a b` or as [a, b]. */
export const mergesOf = (model: ConfigRecord, ids: ReadonlyMap<string, number>): [string, string][] => {
  const list = model.get('merges')
  if (!Array.isArray(list)) throw model.refuse('merges', 'an array')
  return list.map((entry: JsonValue) => {
    const pair = typeof entry === 'string' ? splitMerge(entry, ids) : entry
    if (Array.isArray(pair) && pair.length === 2 && typeof pair[0] === 'string' && typeof pair[1] === 'string') {
      return [pair[0], pair[1]]
    }
    throw model.refuse('merges', 'pairs of tokens of the vocabulary', entry)
  })
}

/** The token that the post-processor puts in front of a text. */
export const bosOf = (root: ConfigRecord, ids: ReadonlyMap<string, number>): number | undefined => {
  const known = new Set(ids.values())
  for (const processor of partsOf(root.record('post_processor'), 'processors')) {
    const type = processor.string('type')
    if (type === 'RobertaProcessing' || type === 'BertProcessing') {
      const pair = processor.get('cls')
      if (Array.isArray(pair) && typeof pair[1] === 'number' && known.has(pair[1])) return pair[1]
      throw processor.refuse('cls', 'a token and its number')
    }
    if (type !== 'TemplateProcessing') continue
    const single = processor.get('single')
    const first = Array.isArray(single) ? single[0] : undefined
    const special = first instanceof Map ? first.get('SpecialToken') : undefined
    const name = special instanceof Map ? special.get('id') : undefined
    if (typeof name !== 'string') continue
    if (ids.has(name)) return ids.get(name)
    throw processor.refuse('single', 'a special token of the vocabulary', name)
  }
  return undefined
}

const endNames = ['<|end_of_text|>', '<|eom_id|>', '<|eot_id|>', '<|endoftext|>', '</s>', '<|im_end|>']

interface Common {
  root: ConfigRecord
  model: ConfigRecord
  texts: string[]
  ids: Map<string, number>
  added: AddedToken[]
  bos: number | undefined
  endTokens: number[]
}

/** Reads a parsed tokenizer.json. Throws E_FORMAT with the entry at fault, or E_UNSUPPORTED by name. */
export const tokenizerFromJson = (json: JsonValue, file: string): Tokenizer => {
  if (!(json instanceof Map))
    throw new DroverError('E_FORMAT', 'a tokenizer file holds no object', {
      file,
      field: 'JSON',
      found: Array.isArray(json) ? 'an array' : json,
      expected: 'an object',
    })
  const root = new ConfigRecord(file, json)
  const model = root.record('model')
  if (model === undefined) throw root.refuse('model', 'an object')
  const type = model.string('type', 'BPE')
  if (type !== 'BPE') throw unsupported(file, 'model.type', type, 'BPE')
  const { texts, ids } = vocabularyOf(model)
  const added = addedTokens(root)
  const byText = new Map([...ids, ...added.map(({ text, id }) => [text, id] as const)])
  const endTokens = endNames.flatMap((name) => byText.get(name) ?? [])
  const common: Common = { root, model, texts, ids, added, bos: bosOf(root, byText), endTokens }
  return model.boolean('byte_fallback', false) ? sentencePieceJson(common) : byteLevelJson(common)
}

const byteLevelJson = ({ root, model, texts, ids, added, bos, endTokens }: Common): Tokenizer => {
  let normalize: 'NFC' | 'NFD' | 'NFKC' | 'NFKD' | undefined
  for (const normalizer of partsOf(root.record('normalizer'), 'normalizers')) {
    const type = normalizer.string('type')
    if (type !== 'NFC' && type !== 'NFD' && type !== 'NFKC' && type !== 'NFKD')
      throw unsupported(root.file, 'normalizer.type', type, 'NFC, NFD, NFKC, NFKD')
    normalize = type
  }
  let scanner: Scanner | undefined
  let byteLevel = false
  let prefixSpace = false
  for (const part of partsOf(root.record('pre_tokenizer'), 'pretokenizers')) {
    const type = part.string('type')
    if (type === 'ByteLevel') {
      byteLevel = true
      prefixSpace = part.boolean('add_prefix_space', true)
      if (part.boolean('use_regex', true)) scanner ??= gpt2Scanner
    } else if (type === 'Split') {
      if (scanner !== undefined) throw unsupported(root.file, 'pre_tokenizer', 'several splits', 'one split')
      scanner = splitScanner(part)
    } else throw unsupported(root.file, 'pre_tokenizer.type', type, 'ByteLevel, Split')
  }
  if (!byteLevel) throw unsupported(root.file, 'pre_tokenizer', 'no ByteLevel', 'byte-level BPE')
  const addedIds = new Set(added.map(({ id }) => id))
  const binary: (string | undefined)[] = Array.from({ length: texts.length }, () => undefined)
  const binaryIds = new Map<string, number>()
  texts.forEach((text, id) => {
    const bytes = alphabetToBinary(text)
    if (bytes === undefined || addedIds.has(id)) return
    binary[id] = bytes
    binaryIds.set(bytes, id)
  })
  const merges = mergesOf(model, ids)
  const triples = new Int32Array(3 * merges.length)
  merges.forEach(([left, right], i) => {
    const triple = [ids.get(left), ids.get(right), ids.get(left + right)]
    if (triple.includes(undefined)) throw model.refuse('merges', 'tokens of the vocabulary', `${left} ${right}`)
    triples.set(triple as number[], 3 * i)
  })
  return new BpeTokenizer({
    ...tokensOf(binary),
    merges: listMerges((bytes) => binaryIds.get(bytes), triples),
    added: new AddedTokens(added),
    scanner: scanner ?? wholeScanner,
    wholePieces: model.boolean('ignore_merges', false),
    prefixSpace,
    normalize,
    bos,
    endTokens,
  })
}

/** What escapes mean to Oniguruma, for which the patterns were written. */
const unicodeClasses: Record<string, string> = {
  '\\s': '\\p{White_Space}',
  '\\S': '\\P{White_Space}',
  '\\d': '\\p{Nd}',
  '\\D': '\\P{Nd}',
}

/**
 * Whether matching may take exponential time (a repeated group, a reference back) or a high power of the text's length
 * (many repetitions in a row). Published patterns have neither.
 */
const mayRunForEver = (pattern: string): boolean => {
  const bare = pattern
    .replace(/\\[1-9k]/g, ')*')
    .replace(/\\./gsu, '_')
    .replace(/\[[^\]]*\]/g, '_')
  const repetitions = (text: string): number => text.match(/[*+]|\{\d+,\}/g)?.length ?? 0
  return /\)(?:[*+]|\{\d*,\d*\})/.test(bare) || bare.split('|').some((branch) => repetitions(branch) > 3)
}

const splitScanner = (part: ConfigRecord): Scanner => {
  const pattern = part.record('pattern')?.string('Regex')
  if (pattern === undefined || part.string('behavior', 'Isolated') !== 'Isolated' || part.boolean('invert', false)) {
    throw unsupported(part.file, 'pre_tokenizer.behavior', part.get('behavior'), 'a Regex, Isolated')
  }
  if (pattern === llama3Pattern) return llama3Scanner
  if (pattern === gpt2Pattern) return gpt2Scanner
  const refusal = (expected: string, cause?: unknown): DroverError =>
    new DroverError('E_UNSUPPORTED', 'the split pattern cannot be used', {
      file: part.file,
      field: 'pre_tokenizer.pattern',
      found: pattern,
      expected,
      cause,
    })
  if (mayRunForEver(pattern)) throw refusal('no repeated groups, no references back, few repetitions in a row')
  try {
    return regexScanner(
      new RegExp(
        pattern.replace(/\\./gsu, (text) => unicodeClasses[text] ?? text),
        'u',
      ),
    )
  } catch (cause) {
    throw refusal('a regular expression that JavaScript knows', cause)
  }
}

/**
 * Spaces become U+2581 before anything matches, so a piece with a plain space is out of reach: a copy of Llama 2's
 * tokenizer.json that is about has lost its no-break spaces to an editor. Where no piece holds one, they are put back.
 */
const restoreSpaces = ({ texts, added }: Common): ((text: string) => string) => {
  const foreign = new Set(added.map(({ text }) => text))
  const own = texts.filter((text) => text !== undefined && !foreign.has(text))
  const lost = own.some((text) => text.includes(' ')) && !own.some((text) => text.includes('\u00a0'))
  return lost ? (text) => (foreign.has(text) ? text : text.replaceAll(' ', '\u00a0')) : (text) => text
}

const sentencePieceJson = (common: Common): Tokenizer => {
  const { root, model, ids, added, bos, endTokens } = common
  let spacePrefix: 'always' | 'first' | 'never' = 'never'
  for (const part of partsOf(root.record('normalizer'), 'normalizers')) {
    const type = part.string('type')
    if (type === 'Prepend' && part.string('prepend') === spaceMark) spacePrefix = 'always'
    else if (type !== 'Replace') throw unsupported(root.file, 'normalizer.type', type, 'Prepend, Replace')
  }
  for (const part of partsOf(root.record('pre_tokenizer'), 'pretokenizers')) {
    const type = part.string('type')
    if (type !== 'Metaspace') throw unsupported(root.file, 'pre_tokenizer.type', type, 'Metaspace')
    const scheme = part.string('prepend_scheme', part.boolean('add_prefix_space', true) ? 'always' : 'never')
    if (scheme !== 'always' && scheme !== 'first' && scheme !== 'never')
      throw part.refuse('prepend_scheme', 'always, first or never', scheme)
    spacePrefix = scheme
  }
  const restored = restoreSpaces(common)
  const texts = Array.from(common.texts, (text) => (text === undefined ? undefined : restored(text)))
  const ranks = new Map<string, number>()
  mergesOf(model, ids).forEach(([left, right], rank) => {
    if (!ids.has(left + right)) throw model.refuse('merges', 'tokens of the vocabulary', `${left} ${right}`)
    const key = `${restored(left)} ${restored(right)}`
    if (!ranks.has(key)) ranks.set(key, rank)
  })
  const special = new Set(added.filter((token) => token.special).map(({ id }) => id))
  const unknownText = model.string('unk_token', '')
  const unknown = unknownText === '' ? undefined : ids.get(unknownText)
  const kinds: PieceKind[] = texts.map((text, id) => {
    if (text === undefined || special.has(id)) return id === unknown ? 'unknown' : 'control'
    return /^<0x[0-9A-F]{2}>$/.test(text) ? 'byte' : 'normal'
  })
  const pieces = texts.map((text) => text ?? '')
  return new SentencePieceTokenizer({
    pieces,
    kinds,
    ids: textPieces(pieces, kinds),
    mergeRank: (left, right) => ranks.get(`${left} ${right}`),
    added: new AddedTokens(added),
    spacePrefix,
    collapseSpaces: false,
    unknown,
    bos,
    endTokens,
  })
}
