/** Pairs of tokens as keys. A Map would need both in one number, which for large tokens lives on the heap: six times slower. */

/** Odd 32-bit factor. Drawn anew for every table, so that no file can hold pairs that all fall on one slot. */
const factor = (): number => Math.floor(Math.random() * 0x80000000) * 2 + 1

const slot = (left: number, right: number, a: number, b: number, shift: number): number =>
  (Math.imul(left, a) + Math.imul(right, b)) >>> shift

/** Pairs with a number each, for good. */
export class PairTable {
  readonly #shift: number
  readonly #entries: Int32Array // left, right, value of each slot; -1 for an empty one
  readonly #a = factor()
  readonly #b = factor()

  constructor(capacity: number) {
    const bits = Math.max(4, 33 - Math.clz32(capacity)) // at most half full
    this.#shift = 32 - bits
    this.#entries = new Int32Array(3 << bits).fill(-1)
  }

  /** Slot of a pair, or the empty one where it belongs. */
  #find(left: number, right: number): number {
    const entries = this.#entries
    let at = 3 * slot(left, right, this.#a, this.#b, this.#shift)
    while (entries[at] !== -1 && (entries[at] !== left || entries[at + 1] !== right)) {
      at += 3
      if (at === entries.length) at = 0
    }
    return at
  }

  /** The number of a pair, or -1. */
  get(left: number, right: number): number {
    return this.#entries[this.#find(left, right) + 2] as number
  }

  /** Gives a pair its number, unless it has one. */
  add(left: number, right: number, value: number): void {
    const at = this.#find(left, right)
    if (this.#entries[at] !== -1) return
    this.#entries[at] = left
    this.#entries[at + 1] = right
    this.#entries[at + 2] = value
  }
}

const cacheBits = 17

/** What was found for recent pairs: a fixed number of slots, each with the last pair that fell on it. */
export class PairCache {
  readonly #entries = new Int32Array(3 << cacheBits).fill(-1)
  readonly #a = factor()
  readonly #b = factor()

  get(left: number, right: number, find: (left: number, right: number) => number): number {
    const entries = this.#entries
    const at = 3 * slot(left, right, this.#a, this.#b, 32 - cacheBits)
    if (entries[at] === left && entries[at + 1] === right) return entries[at + 2] as number
    const found = find(left, right)
    entries[at] = left
    entries[at + 1] = right
    entries[at + 2] = found
    return found
  }
}
