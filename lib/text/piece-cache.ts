/** Pieces of text repeat: the tokens of the most recent ones are kept. */

const mostPieces = 1 << 16
const longestPiece = 64

/** A slice of 13 characters or more keeps the whole string alive that it was cut from: copied, it does not. */
const detached = (slice: string): string =>
  slice.length < 13 ? slice : Buffer.from(slice, 'utf16le').toString('utf16le')

/** Tokens by piece, at most 65,536 of them. */
export class PieceCache {
  readonly #tokens = new Map<string, readonly number[]>()
  readonly #encode: (piece: string) => readonly number[]

  /** @param encode gives the tokens of a piece that was not seen lately */
  constructor(encode: (piece: string) => readonly number[]) {
    this.#encode = encode
  }

  get(piece: string): readonly number[] {
    const known = this.#tokens.get(piece)
    if (known !== undefined) return known
    const tokens = this.#encode(piece)
    if (piece.length <= longestPiece) {
      if (this.#tokens.size >= mostPieces) this.#tokens.clear()
      this.#tokens.set(detached(piece), tokens)
    }
    return tokens
  }
}
