/**
 * SentencePiece BPE with byte fallback (Llama 2): text becomes characters, spaces become U+2581, and neighbours merge
 * while their union is a piece, best score (or earliest merge) first, leftmost among equals.
 */
import { checkString } from '../check.js'
import { MergeHeap } from './bpe.js'
import { PieceCache } from './piece-cache.js'
import type { EncodeOptions, Tokenizer } from './tokenizer.js'
import { type AddedTokens, decodeUtf8, TokenTable } from './vocabulary.js'

export const spaceMark = '\u2581'

export type PieceKind = 'normal' | 'unknown' | 'control' | 'user' | 'unused' | 'byte'

export interface SentencePieceParts {
  pieces: readonly string[]
  kinds: readonly PieceKind[]
  /** See {@link textPieces}. */
  ids: ReadonlyMap<string, number>
  /** Order of merging two neighbours (lower first), or undefined when they do not merge. */
  mergeRank(left: string, right: string): number | undefined
  added: AddedTokens
  /** Which stretches of text between added tokens get a space in front. */
  spacePrefix: 'always' | 'first' | 'never'
  /** Runs of spaces become one, and those at the ends go. */
  collapseSpaces: boolean
  unknown: number | undefined
  bos: number | undefined
  endTokens: readonly number[]
}

/** The byte that a piece like `<0x0A>` stands for. */
export const byteOf = (piece: string): number | undefined => {
  const match = /^<0x([0-9A-Fa-f]{2})>$/.exec(piece)
  return match === null ? undefined : Number.parseInt(match[1] as string, 16)
}

/** The pieces that text is made of, by their text; of two alike the first, and `repeated` hears of the other. */
export const textPieces = (
  pieces: readonly string[],
  kinds: readonly (PieceKind | undefined)[],
  repeated?: (id: number, first: number) => void,
): ReadonlyMap<string, number> => {
  const ids = new Map<string, number>()
  pieces.forEach((piece, id) => {
    if (!isText(kinds[id])) return
    const first = ids.get(piece)
    if (first === undefined) ids.set(piece, id)
    else repeated?.(id, first)
  })
  return ids
}

/** Whether pieces of this kind are found in text. */
export const isText = (kind: PieceKind | undefined): boolean =>
  kind === 'normal' || kind === 'user' || kind === 'unused'

const insideSpace = /[^\u2581]\u2581/

/** Index of the next space mark that starts a word, or the end of the text. */
const nextWord = (text: string, from: number): number => {
  let at = text.indexOf(spaceMark, from + 1)
  while (at !== -1 && text[at - 1] === spaceMark) at = text.indexOf(spaceMark, at + 1)
  return at === -1 ? text.length : at
}

export class SentencePieceTokenizer implements Tokenizer {
  readonly vocabularySize: number
  readonly bos: number | undefined
  readonly endTokens: readonly number[]
  readonly specialTokens: ReadonlyMap<string, number>
  readonly #parts: SentencePieceParts
  readonly #table: TokenTable
  readonly #byteTokens = new Array<number | undefined>(256).fill(undefined)
  readonly #longest: number
  /** Whether no piece has a space behind another character: then merges never cross the start of a word. */
  readonly #wordwise: boolean
  readonly #words = new PieceCache((word) => this.#encodeWord(word))

  constructor(parts: SentencePieceParts) {
    this.#parts = parts
    const { pieces, kinds, added } = parts
    let longest = 0
    pieces.forEach((piece, id) => {
      if (kinds[id] === 'byte') this.#byteTokens[byteOf(piece) ?? 0] ??= id
      if (isText(kinds[id])) longest = Math.max(longest, piece.length)
    })
    const bytesOf = (token: number): Uint8Array | undefined => {
      const piece = pieces[token]
      if (piece === undefined) return undefined
      if (kinds[token] === 'byte') return Uint8Array.of(byteOf(piece) ?? 0)
      return Buffer.from(kinds[token] === 'unknown' ? ' \u2047 ' : piece.replaceAll(spaceMark, ' '))
    }
    this.#longest = longest
    this.#wordwise = !pieces.some((piece) => insideSpace.test(piece))
    this.#table = new TokenTable(pieces.length, bytesOf, added)
    this.vocabularySize = this.#table.size
    this.bos = parts.bos
    this.endTokens = parts.endTokens
    this.specialTokens = added.special
  }

  encode(text: string, { bos = false, parseSpecial = false }: EncodeOptions = {}): Int32Array {
    const out: number[] = bos && this.bos !== undefined ? [this.bos] : []
    const { added, spacePrefix, collapseSpaces } = this.#parts
    added.split(checkString('text', text).toWellFormed(), parseSpecial).forEach((span, i) => {
      if ('token' in span) {
        out.push(span.token)
        return
      }
      const plain = collapseSpaces ? span.text.replace(/ +/g, ' ').replace(/^ | $/g, '') : span.text
      if (plain === '') return
      const prefixed = spacePrefix === 'always' || (spacePrefix === 'first' && i === 0) ? ` ${plain}` : plain
      this.#encodeSpan(prefixed.replaceAll(' ', spaceMark), out)
    })
    return Int32Array.from(out)
  }

  decode(tokens: ArrayLike<number>, { special = false }: { special?: boolean } = {}): string {
    const text = decodeUtf8(this.#table.concat(tokens, special))
    return this.#parts.spacePrefix !== 'never' && text.startsWith(' ') ? text.slice(1) : text
  }

  decodeBytes(tokens: ArrayLike<number>): Uint8Array {
    const bytes = this.#table.concat(tokens, false)
    return this.#parts.spacePrefix !== 'never' && bytes[0] === 32 ? bytes.subarray(1) : bytes
  }

  tokenBytes(token: number): Uint8Array {
    return this.#table.bytes(token, false)
  }

  #encodeSpan(text: string, out: number[]): void {
    const { unknown } = this.#parts
    for (let from = 0; from < text.length; ) {
      const end = this.#wordwise ? nextWord(text, from) : text.length
      for (const token of this.#words.get(text.slice(from, end))) {
        // What is unknown in a row is one unknown token.
        if (token !== unknown || out.at(-1) !== unknown) out.push(token)
      }
      from = end
    }
  }

  #encodeWord(text: string): number[] {
    const starts: number[] = []
    const ends: number[] = []
    for (let at = 0; at < text.length; ) {
      const end = at + ((text.codePointAt(at) as number) > 0xffff ? 2 : 1)
      starts.push(at)
      ends.push(end)
      at = end
    }
    const count = starts.length
    const next = Int32Array.from({ length: count }, (_, i) => i + 1)
    const previous = Int32Array.from({ length: count }, (_, i) => i - 1)
    const heap = new MergeHeap()
    const { mergeRank } = this.#parts
    const offer = (left: number): void => {
      const right = next[left] as number
      if (right >= count) return
      const [start, middle, end] = [starts[left] as number, ends[left] as number, ends[right] as number]
      if (end - start > this.#longest) return
      const rank = mergeRank(text.slice(start, middle), text.slice(middle, end))
      if (rank !== undefined) heap.push(rank, left, middle, end)
    }
    for (let i = 0; i + 1 < count; i++) offer(i)
    for (let top = heap.pop(); top !== undefined; top = heap.pop()) {
      const { at, left: middle, right: end } = top
      const second = next[at] as number
      // Stale when either side has merged since (one merged away has no end).
      if (second >= count || ends[at] !== middle || ends[second] !== end) continue
      ends[at] = end
      ends[second] = -1
      const after = next[second] as number
      next[at] = after
      if (after < count) previous[after] = at
      const before = previous[at] as number
      if (before >= 0) offer(before)
      offer(at)
    }
    const out: number[] = []
    for (let i = 0; i < count; i = next[i] as number) this.#emit(text.slice(starts[i], ends[i]), out)
    return out
  }

  #emit(symbol: string, out: number[]): void {
    const id = this.#parts.ids.get(symbol)
    if (id !== undefined) {
      out.push(id)
      return
    }
    const tokens: number[] = []
    for (const byte of Buffer.from(symbol)) {
      const token = this.#byteTokens[byte]
      if (token === undefined) {
        const { unknown } = this.#parts
        if (unknown !== undefined) out.push(unknown)
        return
      }
      tokens.push(token)
    }
    out.push(...tokens)
  }
}
