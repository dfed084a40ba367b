/** Tokenizers in GGUF metadata: `gpt2` (byte-level BPE) and `llama` (SentencePiece BPE). */
import { DroverError } from '../errors.js'
import type { GgufFile } from '../format/gguf.js'
import {
  metadataBoolean,
  metadataInteger,
  metadataNumberArray,
  metadataString,
  metadataStrings,
} from '../format/gguf-metadata.js'
import { listMerges } from './bpe.js'
import { BpeTokenizer } from './bpe-tokenizer.js'
import { alphabetToBinary, writeAlphabet } from './byte-alphabet.js'
import { gpt2Scanner, llama3Scanner, type Scanner } from './pretokenize.js'
import type { PieceKind } from './sentencepiece.js'
import { scoredTokenizer } from './sentencepiece-model.js'
import { TokenIndex } from './token-index.js'
import type { Tokenizer } from './tokenizer.js'
import { type AddedToken, AddedTokens } from './vocabulary.js'

const key = (name: string): string => `tokenizer.ggml.${name}`

/** By tokenizer.ggml.pre; with `whole`, a piece that is a token is not merged. */
export const preTokenizers: ReadonlyMap<string, { scanner: Scanner; whole: boolean }> = new Map([
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
  const tokens = metadataStrings(file, key('tokens'))
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
    const pieces = tokens.toArray()
    return scoredTokenizer({
      pieces,
      scores,
      kinds: pieces.map((_, id) => kindOf(id)),
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
  const isAdded = new Set<number>()
  const index = new TokenIndex(tokens)
  for (let id = 0; id < tokens.length; id++) {
    const kind = kindOf(id)
    if (kind === 'control' || kind === 'user') {
      added.push({ id, text: tokens.at(id)!, special: kind === 'control' })
      isAdded.add(id)
      continue
    }
    const before = index.add(id)
    // What is not in the alphabet stands for nothing, and may do so twice.
    if (before !== -1 && alphabetToBinary(tokens.at(id)!) !== undefined)
      throw refuse(file, 'tokens', tokens.at(id), `another text than that of ${before}`)
  }
  // Merges may name added tokens, too; the texts of pieces never are theirs.
  for (const id of isAdded) index.add(id)
  const merges = metadataStrings(file, key('merges'))
  const triples = new Int32Array(3 * merges.length)
  for (let i = 0, start = 0; i < merges.length; i++) {
    const end = merges.ends[i]!
    if (!index.findMerge(merges.bytes, start, end, triples, 3 * i))
      throw refuse(file, 'merges', merges.at(i), 'two tokens of the vocabulary')
    start = end
  }
  let written = new Uint8Array(256)
  const tokenOf = (binary: string): number | undefined => {
    if (written.length < 2 * binary.length) written = new Uint8Array(2 * binary.length)
    const id = index.find(written, 0, writeAlphabet(binary, written))
    return id === -1 || isAdded.has(id) ? undefined : id
  }
  const bytesOf = (id: number): Uint8Array | undefined => {
    const binary = isAdded.has(id) ? undefined : alphabetToBinary(tokens.at(id) ?? '')
    return binary === undefined ? undefined : Buffer.from(binary, 'latin1')
  }
  return new BpeTokenizer({
    size: tokens.length,
    bytesOf,
    merges: listMerges(tokenOf, triples),
    added: new AddedTokens(added),
    scanner: rules.scanner,
    wholePieces: rules.whole,
    prefixSpace: metadataBoolean(file, key('add_space_prefix'), false),
    bos: metadataBoolean(file, key('add_bos_token'), rules.whole) ? token('bos_token_id') : undefined,
    endTokens,
  })
}
