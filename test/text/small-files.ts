/** Small tokenizer files of every form, made in memory so that tests can break any part of them. */
import { memoryFolder } from '../../lib/format/file.js'
import { alphabetCharacter } from '../../lib/text/byte-alphabet.js'
import { readTokenizer } from '../../lib/text/load.js'
import type { Tokenizer } from '../../lib/text/tokenizer.js'
import { arrayValue, f32, ggufBytes, join, string, stringValue, typeId, u32, u32Value } from '../format/gguf-bytes.js'

/** Reads a file that exists in memory only. */
export const readBytes = (name: string, bytes: Uint8Array, beside: Record<string, string> = {}): Promise<Tokenizer> => {
  const others = Object.entries(beside).map(([other, text]): [string, Uint8Array] => [other, Buffer.from(text)])
  return readTokenizer(memoryFolder(new Map([[name, bytes], ...others])), name, others.length > 0)
}

const bytesOfAll = Array.from({ length: 256 }, (_, byte) => byte)

// --- Protobuf ---

const varint = (value: number): number[] => {
  const out: number[] = []
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return [...out, rest]
    out.push((rest % 128) + 128)
  }
}

/** Field of a message: a number as varint, anything else with its length. */
export const field = (number: number, value: number | Uint8Array): Uint8Array =>
  typeof value === 'number'
    ? Uint8Array.from([...varint(number * 8), ...varint(value)])
    : Uint8Array.from([...varint(number * 8 + 2), ...varint(value.length), ...value])

export const floatField = (number: number, value: number): Uint8Array =>
  join(Uint8Array.from(varint(number * 8 + 5)), f32(value))

export interface Piece {
  text: string
  score?: number
  /** 1 normal, 2 unknown, 3 control, 4 user, 5 unused, 6 byte. */
  type?: number
}

export const spmPieces: readonly Piece[] = [
  { text: '<unk>', type: 2 },
  { text: '<s>', type: 3 },
  { text: '</s>', type: 3 },
  ...bytesOfAll.map((byte) => ({ text: `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`, type: 6 })),
  ...['\u2581t', 'he', '\u2581the', '\u2581', 'e', 't', 'h', 'a'].map((text, i) => ({ text, score: -i })),
]

export const spmTrainer = join(field(3, 2), field(41, 1), field(42, 2))
export const spmNormalizer = join(field(1, Buffer.from('identity')), field(3, 1), field(4, 0))

export const spmPiece = ({ text, score = 0, type = 1 }: Piece): Uint8Array =>
  field(1, join(field(1, Buffer.from(text)), floatField(2, score), ...(type === 1 ? [] : [field(3, type)])))

/** A SentencePiece BPE model. */
export const spmBytes = (
  pieces: readonly Piece[] = spmPieces,
  trainer: Uint8Array | undefined = spmTrainer,
  normalizer: Uint8Array | undefined = spmNormalizer,
): Uint8Array => join(...pieces.map(spmPiece), field(2, trainer), field(3, normalizer))

// --- Rank file ---

const merged = ['th', 'he', 'the', ' t', ' the']

/** Lines of a rank file: every byte, then a few words. */
export const rankLines = (): string[] =>
  [...bytesOfAll.map((byte) => Buffer.of(byte)), ...merged.map((text) => Buffer.from(text))].map(
    (bytes, rank) => `${bytes.toString('base64')} ${rank}`,
  )

// --- tokenizer.json ---

const written = (binary: string): string => Array.from(binary, (c) => alphabetCharacter(c.charCodeAt(0))).join('')
const byteTexts = bytesOfAll.map(alphabetCharacter)

/** Byte-level BPE in the form of Llama 3's tokenizer.json. */
export const byteLevelJson = () => ({
  added_tokens: [{ id: 300, content: '<|begin|>', special: true, lstrip: false, rstrip: false }],
  normalizer: null as unknown,
  pre_tokenizer: {
    type: 'Sequence',
    pretokenizers: [
      { type: 'Split', pattern: { Regex: '\\p{L}+|\\P{L}' }, behavior: 'Isolated', invert: false },
      { type: 'ByteLevel', add_prefix_space: false, use_regex: false },
    ],
  } as unknown,
  post_processor: {
    type: 'TemplateProcessing',
    single: [{ SpecialToken: { id: '<|begin|>' } }, { Sequence: { id: 'A' } }],
  } as unknown,
  model: {
    type: 'BPE',
    ignore_merges: true,
    vocab: Object.fromEntries([...byteTexts, ...merged.map(written)].map((text, id) => [text, id])) as unknown,
    merges: [['t', 'h'], 'h e', 'th e', [written(' '), 't'], `${written(' ')} the`] as unknown,
  },
})

// --- GGUF ---

const stringArray = (texts: readonly string[]): Uint8Array =>
  arrayValue(typeId('string'), texts.length, join(...texts.map(string)))

/** The metadata of byte-level BPE. */
export const gpt2Entries = (): Record<string, Uint8Array> => ({
  'general.architecture': stringValue('llama'),
  'tokenizer.ggml.model': stringValue('gpt2'),
  'tokenizer.ggml.pre': stringValue('llama-bpe'),
  'tokenizer.ggml.tokens': stringArray([...byteTexts, ...merged.map(written), '<|end|>']),
  'tokenizer.ggml.token_type': arrayValue(
    typeId('i32'),
    256 + merged.length + 1,
    join(...bytesOfAll.map(() => u32(1)), ...merged.map(() => u32(1)), u32(3)),
  ),
  'tokenizer.ggml.merges': stringArray(['t h', 'h e', 'th e', `${written(' ')} t`, `${written(' ')} the`]),
  'tokenizer.ggml.eos_token_id': u32Value(256 + merged.length),
})

/** The metadata of SentencePiece BPE. */
export const llamaEntries = (): Record<string, Uint8Array> => ({
  'general.architecture': stringValue('llama'),
  'tokenizer.ggml.model': stringValue('llama'),
  'tokenizer.ggml.tokens': stringArray(spmPieces.map(({ text }) => text)),
  'tokenizer.ggml.scores': arrayValue(
    typeId('f32'),
    spmPieces.length,
    join(...spmPieces.map(({ score = 0 }) => f32(score))),
  ),
  'tokenizer.ggml.token_type': arrayValue(
    typeId('i32'),
    spmPieces.length,
    join(...spmPieces.map(({ type = 1 }) => u32(type))),
  ),
  'tokenizer.ggml.bos_token_id': u32Value(1),
  'tokenizer.ggml.eos_token_id': u32Value(2),
})

export const vocabularyBytes = (entries: Record<string, Uint8Array>): Uint8Array =>
  ggufBytes({ entries: Object.entries(entries), tensors: [], data: 0 })

export { arrayValue, f32, join, string, stringArray, stringValue, typeId, u32, u32Value }
