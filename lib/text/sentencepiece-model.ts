/** SentencePiece's `tokenizer.model`: a protobuf message (sentencepiece_model.proto) of pieces and two settings blocks. */
import { DroverError } from '../errors.js'
import { byteOf, isText, type PieceKind, SentencePieceTokenizer, textPieces } from './sentencepiece.js'
import type { Tokenizer } from './tokenizer.js'
import { type AddedToken, AddedTokens } from './vocabulary.js'

/** One field of a message: its number and its value, a number, four bytes, or bytes. */
interface Field {
  number: number
  value: number
  bytes: Uint8Array | undefined
}

const mostPieces = 1 << 22

/** Walks the fields of a protobuf message. Throws E_FORMAT on what is no message. */
function* fields(bytes: Uint8Array, file: string): Generator<Field> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  let at = 0
  const refuse = (expected: string, found: unknown = `${bytes.length - at} more bytes`): never => {
    throw new DroverError('E_FORMAT', 'a SentencePiece model is damaged', {
      file,
      field: `byte ${at}`,
      found,
      expected,
    })
  }
  const varint = (): number => {
    let value = 0
    for (let shift = 0; shift < 70; shift += 7) {
      if (at >= bytes.length) refuse('more bytes')
      const byte = bytes[at++] as number
      value += (byte & 127) * 2 ** shift
      if (byte < 128) return value
    }
    return refuse('a number of at most ten bytes', 'a longer one')
  }
  while (at < bytes.length) {
    const key = varint()
    const number = Math.floor(key / 8)
    const type = key % 8
    if (number === 0) refuse('a field number', number)
    if (type === 0) {
      yield { number, value: varint(), bytes: undefined }
    } else if (type === 2) {
      const length = varint()
      if (length > bytes.length - at) refuse(`at most ${bytes.length - at} bytes`, length)
      yield { number, value: 0, bytes: bytes.subarray(at, at + length) }
      at += length
    } else if (type === 5 || type === 1) {
      const size = type === 5 ? 4 : 8
      if (size > bytes.length - at) refuse(`${size} bytes`)
      yield { number, value: type === 5 ? view.getFloat32(at, true) : view.getFloat64(at, true), bytes: undefined }
      at += size
    } else refuse('wire type 0, 1, 2 or 5', type)
  }
}

/** By number in the message, and in GGUF's tokenizer.ggml.token_type. */
export const kindByNumber: readonly (PieceKind | undefined)[] = [
  undefined,
  'normal',
  'unknown',
  'control',
  'user',
  'unused',
  'byte',
]
const partNames: readonly (string | undefined)[] = [undefined, 'pieces', 'trainer_spec', 'normalizer_spec']
const modelTypes: readonly (string | undefined)[] = [undefined, 'unigram', 'bpe', 'word', 'char']

/** True when bytes begin like a SentencePiece model: field 1, a message. A rank file begins with base64. */
export const looksLikeSentencePiece = (bytes: Uint8Array): boolean => bytes[0] === 0x0a

/** Pieces with scores as a tokenizer; shared with GGUF. */
export const scoredTokenizer = (options: {
  pieces: readonly string[]
  scores: ArrayLike<number>
  kinds: readonly PieceKind[]
  spacePrefix: boolean
  collapseSpaces: boolean
  bos: number | undefined
  endTokens: readonly number[]
  file: string
}): Tokenizer => {
  const { pieces, scores, kinds, file } = options
  const refuse = (id: number, found: unknown, expected: string): never => {
    throw new DroverError('E_FORMAT', 'a piece does not fit', { file, field: `piece ${id}`, found, expected })
  }
  const added: AddedToken[] = []
  pieces.forEach((text, id) => {
    const kind = kinds[id]
    if (kind === 'byte' && byteOf(text) === undefined) refuse(id, text, 'a byte, like <0x0A>')
    if (kind === 'control' || kind === 'user') added.push({ id, text, special: kind === 'control' })
    if (isText(kind) && !Number.isFinite(scores[id])) refuse(id, scores[id], 'a finite score')
  })
  const normal = new Set<string>()
  const ids = textPieces(pieces, kinds, (id, first) => {
    if (kinds[id] !== 'normal') return
    const text = pieces[id] as string
    if (kinds[first] === 'normal' || normal.has(text)) refuse(id, text, 'text that no other piece has')
    normal.add(text)
  })
  const unknown = kinds.indexOf('unknown')
  return new SentencePieceTokenizer({
    pieces,
    kinds,
    ids,
    mergeRank: (left, right) => {
      const id = ids.get(left + right)
      return id === undefined ? undefined : -(scores[id] as number)
    },
    added: new AddedTokens(added),
    spacePrefix: options.spacePrefix ? 'always' : 'never',
    collapseSpaces: options.collapseSpaces,
    unknown: unknown === -1 ? undefined : unknown,
    bos: options.bos,
    endTokens: options.endTokens,
  })
}

/** What a SentencePiece model of BPE holds. */
export interface SentencePieceModel {
  readonly pieces: readonly string[]
  readonly scores: readonly number[]
  readonly kinds: readonly PieceKind[]
  readonly spacePrefix: boolean
  readonly collapseSpaces: boolean
  readonly bos: number | undefined
  readonly eos: number | undefined
}

/** Reads a `tokenizer.model`. Throws E_FORMAT, or E_UNSUPPORTED for models other than BPE. */
export const readSentencePiece = (bytes: Uint8Array, file: string): SentencePieceModel => {
  const pieces: string[] = []
  const scores: number[] = []
  const kinds: PieceKind[] = []
  const settings = { type: 1, bos: 1, eos: 2, prefix: 1, collapse: 1, charsmap: 0 }
  const parts = new Set<number>()
  for (const { number, bytes: body } of fields(bytes, file)) {
    parts.add(number)
    if (body === undefined) {
      if (number > 3) continue
      throw new DroverError('E_FORMAT', 'a SentencePiece model is damaged', {
        file,
        field: partNames[number],
        found: 'a number',
        expected: 'a message',
      })
    }
    if (number === 1) {
      let text = ''
      let score = 0
      let kind: PieceKind | undefined = 'normal'
      for (const field of fields(body, file)) {
        if (field.number === 1 && field.bytes !== undefined) text = Buffer.from(field.bytes).toString()
        if (field.number === 2) score = field.value
        if (field.number === 3) kind = kindByNumber[field.value]
      }
      if (kind === undefined || text === '' || pieces.length >= mostPieces) {
        throw new DroverError('E_FORMAT', 'a piece does not fit', {
          file,
          field: `piece ${pieces.length}`,
          found: text,
          expected: kind === undefined ? 'a known type' : text === '' ? 'text' : `at most ${mostPieces} pieces`,
        })
      }
      pieces.push(text)
      scores.push(score)
      kinds.push(kind)
    } else if (number === 2) {
      for (const field of fields(body, file)) {
        if (field.number === 3) settings.type = field.value
        if (field.number === 41) settings.bos = field.value
        if (field.number === 42) settings.eos = field.value
      }
    } else if (number === 3) {
      for (const field of fields(body, file)) {
        if (field.number === 2) settings.charsmap = field.bytes?.length ?? 0
        if (field.number === 3) settings.prefix = field.value
        if (field.number === 4) settings.collapse = field.value
      }
    }
  }
  // What ends before its settings has been cut off; their defaults would be those of another kind of model.
  const missing = [1, 2, 3].find((part) => !parts.has(part))
  if (missing !== undefined || !kinds.includes('unknown')) {
    throw new DroverError('E_FORMAT', 'a SentencePiece model is not complete', {
      file,
      field: partNames[missing ?? 1],
      found: missing === undefined ? 'no unknown piece' : 'missing',
      expected: missing === undefined ? 'a piece for what is unknown' : 'pieces, trainer_spec and normalizer_spec',
    })
  }
  const type = modelTypes[settings.type]
  if (type !== 'bpe' || settings.charsmap > 0) {
    throw new DroverError('E_UNSUPPORTED', 'this kind of SentencePiece model is not supported yet', {
      file,
      field: type === 'bpe' ? 'normalizer_spec.precompiled_charsmap' : 'trainer_spec.model_type',
      found: type === 'bpe' ? `${settings.charsmap} bytes` : (type ?? settings.type),
      expected: 'bpe without a normalisation table',
    })
  }
  const token = (id: number): number | undefined => (id >= 0 && id < pieces.length ? id : undefined)
  return {
    pieces,
    scores,
    kinds,
    spacePrefix: settings.prefix !== 0,
    collapseSpaces: settings.collapse !== 0,
    bos: token(settings.bos),
    eos: token(settings.eos),
  }
}

/** The tokenizer of a `tokenizer.model`. Throws as {@link readSentencePiece}. */
export const sentencePieceFromModel = (bytes: Uint8Array, file: string): Tokenizer => {
  const { eos, ...model } = readSentencePiece(bytes, file)
  return scoredTokenizer({ ...model, endTokens: eos === undefined ? [] : [eos], file })
}
