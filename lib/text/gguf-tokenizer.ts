/** Tokenizers in GGUF metadata: `gpt2` (byte-level BPE) and `llama` (SentencePiece BPE). */
import { DroverError } from '../errors.js'
import type { GgufFile } from '../format/gguf.js'
import {
  metadataBoolean,
  metadataInteger,
  metadataNumberArray,
  metadataString,
  metadataStringArray,
} from '../format/gguf-metadata.js'
import { listMerges } from './bpe.js'
import { BpeTokenizer } from './bpe-tokenizer.js'
import { alphabetToBinary } from './byte-alphabet.js'
import { gpt2Scanner, llama3Scanner, type Scanner } from './pretokenize.js'
import type { PieceKind } from './sentencepiece.js'
import { scoredTokenizer } from './sentencepiece-model.js'
import type { Tokenizer } from './tokenizer.js'
import { type AddedToken, AddedTokens } from './vocabulary.js'

const key = (name: string): string => `tokenizer.ggml.${name}`

/** By tokenizer.ggml.pre; with `whole`, a piece that is a token is not merged. */
const preTokenizers: ReadonlyMap<string, { scanner: Scanner; whole: boolean }> = new Map([
  ['llama-bpe', { scanner: llama3Scanner, whole: true }],
  ['llama3', { scanner: llama3Scanner, whole: true }],
  ['gpt-2', { scanner: gpt2Scanner, whole: false }],
  ['default', { scanner: gpt2Scanner, whole: false }],
])

/** By number in tokenizer.ggml.token_type. */
const kinds: readonly (PieceKind | undefined)[] = [undefined, 'normal', 'unknown', 'control', 'user', 'unused', 'byte']

const refuse = (file: GgufFile, field: string, found: unknown, expected: string): DroverError =>
  new DroverError('E_FORMAT', 'the tokenizer does not fit', {
    file: file.files[0]?.path,
    field: key(field),
    found,
    expected,
  })

/** The tokenizer of a GGUF file. Throws E_FORMAT, or E_UNSUPPORTED by name for other models. */
export const tokenizerFromGguf = (file: GgufFile): Tokenizer => {
  const model = metadataString(file, key('model'))
  if (model !== 'llama' && model !== 'gpt2') {
    throw new DroverError('E_UNSUPPORTED', 'this kind of tokenizer is not supported yet', {
      file: file.files[0]?.path,
      field: key('model'),
      found: model,
      expected: 'llama (SentencePiece BPE) or gpt2 (byte-level BPE)',
    })
  }
  const tokens = metadataStringArray(file, key('tokens'))
  if (tokens.length === 0) throw refuse(file, 'tokens', 0, 'tokens')
  const types = file.metadata.has(key('token_type')) ? metadataNumberArray(file, key('token_type')) : undefined
  if (types !== undefined && types.length !== tokens.length)
    throw refuse(file, 'token_type', types.length, `${tokens.length} entries`)
  const kindOf = (id: number): PieceKind => {
    const kind = types === undefined ? 'normal' : kinds[types[id] as number]
    if (kind === undefined) throw refuse(file, 'token_type', types?.[id], '1 to 6')
    return kind
  }
  const token = (name: string): number | undefined => {
    if (!file.metadata.has(key(name))) return undefined
    return metadataInteger(file, key(name), { maximum: tokens.length - 1 })
  }
  const ends = [token('eos_token_id'), token('eot_token_id'), token('eom_token_id')]
  const endTokens = [...new Set(ends.filter((id) => id !== undefined))]
  if (model === 'llama') {
    const scores = metadataNumberArray(file, key('scores'))
    if (scores.length !== tokens.length) throw refuse(file, 'scores', scores.length, `${tokens.length} entries`)
    return scoredTokenizer({
      pieces: tokens,
      scores,
      kinds: tokens.map((_, id) => kindOf(id)),
      spacePrefix: metadataBoolean(file, key('add_space_prefix'), true),
      collapseSpaces: metadataBoolean(file, key('remove_extra_whitespaces'), false),
      bos: metadataBoolean(file, key('add_bos_token'), true) ? token('bos_token_id') : undefined,
      endTokens,
      file: file.files[0]?.path ?? '',
    })
  }
  const pre = metadataString(file, key('pre'), 'default')
  const rules = preTokenizers.get(pre)
  if (rules === undefined) {
    throw new DroverError('E_UNSUPPORTED', 'this pre-tokenizer is not supported yet', {
      file: file.files[0]?.path,
      field: key('pre'),
      found: pre,
      expected: [...preTokenizers.keys()].join(', '),
    })
  }
  const added: AddedToken[] = []
  const binary = tokens.map((text, id) => {
    const kind = kindOf(id)
    if (kind === 'control' || kind === 'user') {
      added.push({ id, text, special: kind === 'control' })
      return undefined
    }
    return alphabetToBinary(text)
  })
  const ids = new Map(tokens.map((text, id) => [text, id]))
  const pairs = metadataStringArray(file, key('merges')).map((merge) => {
    const cut = merge.indexOf(' ', 1)
    const [left, right] = [merge.slice(0, cut), merge.slice(cut + 1)]
    const triple = [ids.get(left), ids.get(right), ids.get(left + right)] as const
    if (cut === -1 || triple.includes(undefined)) throw refuse(file, 'merges', merge, 'two tokens of the vocabulary')
    return triple as readonly [number, number, number]
  })
  const binaryIds = new Map<string, number>()
  binary.forEach((bytes, id) => {
    if (bytes === undefined) return
    if (binaryIds.has(bytes))
      throw refuse(file, 'tokens', tokens[id], `another text than that of ${binaryIds.get(bytes)}`)
    binaryIds.set(bytes, id)
  })
  return new BpeTokenizer({
    tokens: binary,
    merges: listMerges(binaryIds, pairs),
    added: new AddedTokens(added),
    scanner: rules.scanner,
    wholePieces: rules.whole,
    prefixSpace: metadataBoolean(file, key('add_space_prefix'), false),
    bos: metadataBoolean(file, key('add_bos_token'), rules.whole) ? token('bos_token_id') : undefined,
    endTokens,
  })
}
