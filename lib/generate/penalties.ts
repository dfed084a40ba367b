/** Counts the tokens that penalties look back on, one token at a time: a long text costs no more per token. */
export class PenaltyWindow {
  readonly #tokens: readonly number[]
  readonly #size: number
  readonly #counts = new Map<number, number>()
  /** Tokens counted so far, and those that have left the window again. */
  #end = 0
  #begin = 0

  /** @param tokens grow at their end @param size how many of the last ones count */
  constructor(tokens: readonly number[], size: number) {
    this.#tokens = tokens
    this.#size = size
  }

  /** [token, occurrences] among the last tokens, in no particular order. */
  counts(): (readonly [number, number])[] {
    if (this.#size === 0) return []
    while (this.#end < this.#tokens.length) this.#add(this.#tokens[this.#end++] as number, 1)
    while (this.#end - this.#begin > this.#size) this.#add(this.#tokens[this.#begin++] as number, -1)
    return [...this.#counts]
  }

  #add(token: number, change: 1 | -1): void {
    const count = (this.#counts.get(token) ?? 0) + change
    if (count === 0) this.#counts.delete(token)
    else this.#counts.set(token, count)
  }
}
