/**
 * A list of strings kept as one block of UTF-8: a vocabulary of 128,256 tokens and 280,147 merges takes
 * 4 MB this way and 30 MB as JavaScript strings.
 */
import { isUtf8 as wellFormed } from 'node:buffer'
import { isUtf8 } from './file.js'

/** A list of strings, each made when asked for. */
export class StringTable implements Iterable<string> {
  /** @param bytes valid UTF-8, one string after another. @param ends where each string ends in `bytes`. */
  constructor(
    readonly bytes: Buffer,
    readonly ends: Uint32Array,
  ) {}

  get length(): number {
    return this.ends.length
  }

  /** The string at `index`; undefined when out of range. */
  at(index: number): string | undefined {
    if (!(index >= 0 && index < this.ends.length)) return undefined
    return this.bytes.toString('utf8', index === 0 ? 0 : this.ends[index - 1], this.ends[index])
  }

  /** The UTF-8 bytes of the string at `index`, as a view. */
  bytesAt(index: number): Uint8Array | undefined {
    if (!(index >= 0 && index < this.ends.length)) return undefined
    return this.bytes.subarray(index === 0 ? 0 : this.ends[index - 1], this.ends[index])
  }

  /** All strings: the block is decoded once, and cut. */
  toArray(): string[] {
    const { bytes, ends } = this
    const text = bytes.toString('utf8')
    const strings = new Array<string>(ends.length)
    // A byte of UTF-8 starts a UTF-16 unit unless it continues a character; one that starts four bytes makes two.
    for (let i = 0, at = 0, from = 0; i < ends.length; i++) {
      let to = from
      for (const end = ends[i]!; at < end; at++) {
        const byte = bytes[at]!
        if ((byte & 0xc0) !== 0x80) to += byte >= 0xf0 ? 2 : 1
      }
      strings[i] = text.slice(from, to)
      from = to
    }
    return strings
  }

  *[Symbol.iterator](): IterableIterator<string> {
    for (let i = 0; i < this.ends.length; i++) yield this.at(i)!
  }
}

/** Collects strings for a {@link StringTable}; the block grows with what is really there, not with what a header claims. */
export class StringTableBuilder {
  private bytes: Buffer = Buffer.allocUnsafeSlow(1024)
  private used = 0
  private count = 0
  private readonly ends: Uint32Array

  constructor(count: number) {
    this.ends = new Uint32Array(count)
  }

  /** Strings so far. */
  get length(): number {
    return this.count
  }

  /**
   * Adds strings that stand in `source` with a u64 length before each, as many as lie in [start, end) as a whole and the
   * table has room for; says how many bytes they took. Called for tables of 400,000: what can be is done once for all.
   */
  takePrefixed(source: Uint8Array, start: number, end: number): number {
    // No string can be longer than what it stands in.
    this.reserve(end - start)
    const { bytes, ends } = this
    let { used, count } = this
    let at = start
    while (count < ends.length && at + 8 <= end) {
      const high = source[at + 4]! | source[at + 5]! | source[at + 6]! | source[at + 7]!
      const size = (source[at]! | (source[at + 1]! << 8) | (source[at + 2]! << 16) | (source[at + 3]! << 24)) >>> 0
      if (high !== 0 || size > end - at - 8) break
      at += 8
      // Most strings of a vocabulary have a few bytes, where a loop beats a subarray and a copy.
      if (size < 16) for (let i = 0; i < size; i++) bytes[used + i] = source[at + i]!
      else bytes.set(source.subarray(at, at + size), used)
      at += size
      used += size
      ends[count++] = used
    }
    this.used = used
    this.count = count
    return at - start
  }

  private reserve(more: number): void {
    const needed = this.used + more
    if (needed <= this.bytes.length) return
    const larger = Buffer.allocUnsafeSlow(Math.max(needed, this.bytes.length * 2))
    larger.set(this.bytes.subarray(0, this.used))
    this.bytes = larger
  }

  /** Index of the first string from `first` on that is not UTF-8, or -1. */
  notUtf8(first: number): number {
    const { bytes, ends, used, count } = this
    const start = (index: number): number => (index === 0 ? 0 : ends[index - 1]!)
    // Well-formed as a whole, and no string starts inside a character: then each is well-formed.
    let right = wellFormed(bytes.subarray(start(first), used))
    for (let i = first; right && i < count; i++) right = start(i) === used || (bytes[start(i)]! & 0xc0) !== 0x80
    if (right) return -1
    for (let i = first; i < count; i++) if (!isUtf8(bytes, start(i), ends[i]!)) return i
    return -1
  }

  finish(): StringTable {
    return new StringTable(this.bytes.subarray(0, this.used), this.ends)
  }
}
