/**
 * Tokens of a large vocabulary by their text, as bytes in one block: a Map of 128,256 strings, and the strings that 280,147
 * merges would be cut into, take longer to make than all else that loading a model does.
 */
import type { StringTable } from '../format/string-table.js'

/** Odd 32-bit factor. Drawn anew for every index, so that no file can hold texts that all fall on one slot. */
const factor = (): number => Math.floor(Math.random() * 0x80000000) * 2 + 1

export class TokenIndex {
  readonly #bytes: Uint8Array
  readonly #ends: Uint32Array
  readonly #slots: Int32Array // tokens; -1 for an empty one
  readonly #mask: number
  readonly #factor = factor()
  readonly #start = factor()
  #longest = 0

  constructor(tokens: StringTable) {
    this.#bytes = tokens.bytes
    this.#ends = tokens.ends
    const size = 1 << Math.max(4, 33 - Math.clz32(tokens.length)) // at most half full
    this.#slots = new Int32Array(size).fill(-1)
    this.#mask = size - 1
  }

  /** Adds a token of the table; gives the one that has the same text and was there before, or -1. */
  add(token: number): number {
    const start = this.#startOf(token)
    const end = this.#ends[token]!
    const at = this.#slotOf(this.#hash(this.#start, this.#bytes, start, end), this.#bytes, start, end, end, end)
    const before = this.#slots[at]!
    if (before === -1) this.#slots[at] = token
    this.#longest = Math.max(this.#longest, end - start)
    return before
  }

  /** The token with this text, or -1. */
  find(bytes: Uint8Array, start: number, end: number): number {
    if (end - start > this.#longest) return -1
    return this.#slots[this.#slotOf(this.#hash(this.#start, bytes, start, end), bytes, start, end, end, end)]!
  }

  /** Writes what [start, end) of a merge says, text, space, text, to `out`: two tokens and what they become; false if it does not. */
  findMerge(bytes: Uint8Array, start: number, end: number, out: Int32Array, at: number): boolean {
    const cut = bytes.indexOf(32, start + 1)
    if (cut === -1 || cut >= end) return false
    const hash = this.#hash(this.#start, bytes, start, cut)
    out[at] = this.#slots[this.#slotOf(hash, bytes, start, cut, cut, cut)]!
    out[at + 1] = this.find(bytes, cut + 1, end)
    const whole = this.#hash(hash, bytes, cut + 1, end)
    out[at + 2] = this.#slots[this.#slotOf(whole, bytes, start, cut, cut + 1, end)]!
    return out[at] !== -1 && out[at + 1] !== -1 && out[at + 2] !== -1
  }

  #startOf(token: number): number {
    return token === 0 ? 0 : this.#ends[token - 1]!
  }

  /** The hash of a text; that of two texts in a row goes on from the hash of the first. */
  #hash(from: number, bytes: Uint8Array, start: number, end: number): number {
    let hash = from
    const factor = this.#factor
    for (let i = start; i < end; i++) {
      hash = Math.imul(hash ^ bytes[i]!, factor)
      hash ^= hash >>> 15
    }
    return hash
  }

  /** Slot of the text [start, cut) and [from, end), or the empty one where it belongs. */
  #slotOf(hash: number, bytes: Uint8Array, start: number, cut: number, from: number, end: number): number {
    const own = this.#bytes
    const length = cut - start + end - from
    let at = hash & this.#mask
    for (let token = this.#slots[at]!; token !== -1; token = this.#slots[at]!) {
      let place = this.#startOf(token)
      if (this.#ends[token]! - place === length) {
        let i = start
        while (i < cut && own[place] === bytes[i]) {
          i++
          place++
        }
        if (i === cut) {
          i = from
          while (i < end && own[place] === bytes[i]) {
            i++
            place++
          }
          if (i === end) return at
        }
      }
      at = (at + 1) & this.#mask
    }
    return at
  }
}
