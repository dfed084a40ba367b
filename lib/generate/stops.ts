/** Finds stop texts in text that comes in pieces, and holds back what may turn out to be the start of one. */
export class StopFinder {
  readonly #stops: readonly string[]
  #held = ''

  constructor(stops: readonly string[]) {
    this.#stops = stops
  }

  /** Text that may still become part of a stop text. */
  get held(): string {
    return this.#held
  }

  /** Takes the next piece; gives what is certain, and whether a stop text was found (the rest is then dropped). */
  push(piece: string): { text: string; stopped: boolean } {
    const text = this.#held + piece
    let cut = -1
    for (const stop of this.#stops) {
      const at = text.indexOf(stop)
      if (at !== -1 && (cut === -1 || at < cut)) cut = at
    }
    if (cut !== -1) {
      this.#held = ''
      return { text: text.slice(0, cut), stopped: true }
    }
    const keep = this.#possibleStart(text)
    this.#held = text.slice(text.length - keep)
    return { text: text.slice(0, text.length - keep), stopped: false }
  }

  /** What was held back, once no more text comes. */
  end(): string {
    const text = this.#held
    this.#held = ''
    return text
  }

  /** Length of the longest end of `text` with which a stop text begins. */
  #possibleStart(text: string): number {
    let longest = 0
    for (const stop of this.#stops) {
      for (let length = Math.min(stop.length - 1, text.length); length > longest; length--) {
        if (text.endsWith(stop.slice(0, length))) longest = length
      }
    }
    return longest
  }
}
