/** Byte-level BPE: added tokens, pieces, merges. Llama 3, GPT-2, RoBERTa. */
import { checkString } from '../check.js'
import { type MergeTable, mergeTokens } from './bpe.js'
import { PieceCache } from './piece-cache.js'
import type { Scanner } from './pretokenize.js'
import type { EncodeOptions, Tokenizer } from './tokenizer.js'
import { type AddedTokens, decodeUtf8, TokenTable } from './vocabulary.js'

export interface BpeParts {
  /** How many tokens there are, but for added ones beyond them. */
  size: number
  /** Bytes of a token; undefined where a number stands for nothing. Added tokens need none. */
  bytesOf(token: number): Uint8Array | undefined
  merges: MergeTable
  added: AddedTokens
  scanner: Scanner
  /** A piece that is a token as a whole is not merged. */
  wholePieces: boolean
  /** Texts that do not start with a space get one. */
  prefixSpace: boolean
  /** Normal form of the text, where the file asks for one. */
  normalize?: 'NFC' | 'NFD' | 'NFKC' | 'NFKD' | undefined
  bos: number | undefined
  endTokens: readonly number[]
}

/** Tokens that are kept as binary strings, undefined where a number stands for nothing. */
export const tokensOf = (tokens: readonly (string | undefined)[]): Pick<BpeParts, 'size' | 'bytesOf'> => ({
  size: tokens.length,
  bytesOf: (token) => {
    const binary = tokens[token]
    return binary === undefined ? undefined : Buffer.from(binary, 'latin1')
  },
})

/** The UTF-8 of a text as a binary string; text in ASCII is that already. */
const toBinary = (text: string): string => {
  for (let i = 0; i < text.length; i++) {
    if (text.charCodeAt(i) > 127) return Buffer.from(text).toString('latin1')
  }
  return text
}

export class BpeTokenizer implements Tokenizer {
  readonly vocabularySize: number
  readonly bos: number | undefined
  readonly endTokens: readonly number[]
  readonly specialTokens: ReadonlyMap<string, number>
  readonly #parts: BpeParts
  readonly #table: TokenTable
  readonly #byteTokens: readonly (number | undefined)[]
  readonly #pieces = new PieceCache((piece) => this.#encodePiece(piece))

  constructor(parts: BpeParts) {
    this.#parts = parts
    const { size, bytesOf, added, merges } = parts
    this.#table = new TokenTable(size, bytesOf, added)
    this.#byteTokens = Array.from({ length: 256 }, (_, byte) => merges.token(String.fromCharCode(byte)))
    this.vocabularySize = this.#table.size
    this.bos = parts.bos
    this.endTokens = parts.endTokens
    this.specialTokens = added.special
  }

  encode(text: string, { bos = false, parseSpecial = false }: EncodeOptions = {}): Int32Array {
    const out: number[] = bos && this.bos !== undefined ? [this.bos] : []
    const { added, prefixSpace, normalize } = this.#parts
    for (const span of added.split(checkString('text', text).toWellFormed(), parseSpecial)) {
      if ('token' in span) {
        out.push(span.token)
        continue
      }
      const normal = normalize === undefined ? span.text : span.text.normalize(normalize)
      this.#encodeSpan(prefixSpace && !normal.startsWith(' ') ? ` ${normal}` : normal, out)
    }
    return new Int32Array(out)
  }

  decode(tokens: ArrayLike<number>, { special = false }: { special?: boolean } = {}): string {
    return decodeUtf8(this.#table.concat(tokens, special))
  }

  decodeBytes(tokens: ArrayLike<number>): Uint8Array {
    return this.#table.concat(tokens, false)
  }

  tokenBytes(token: number): Uint8Array {
    return this.#table.bytes(token, false)
  }

  #encodeSpan(text: string, out: number[]): void {
    const { scanner } = this.#parts
    for (let from = 0; from < text.length; ) {
      const end = scanner(text, from)
      const piece = text.slice(from, end)
      from = end
      for (const token of this.#pieces.get(piece)) out.push(token)
    }
  }

  #encodePiece(piece: string): readonly number[] {
    const { merges, wholePieces } = this.#parts
    const binary = toBinary(piece)
    if (wholePieces) {
      const whole = merges.token(binary)
      if (whole !== undefined) return [whole]
    }
    const tokens: number[] = []
    for (let i = 0; i < binary.length; i++) {
      const token = this.#byteTokens[binary.charCodeAt(i)]
      if (token !== undefined) tokens.push(token)
    }
    return mergeTokens(tokens, merges)
  }
}
