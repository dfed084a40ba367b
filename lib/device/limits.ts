/** What the machine can do at most, measured; and how near to that a piece of work came. */
import type { Arithmetic, Work } from '../program/cost.js'
import { cpu } from './cpu.js'
import { type Limits, nativeAddon } from './native.js'

export type { Limits }

/** Reading less than this could be served by any cache; where the size of the last one is unknown it stands in. */
const leastBuffer = 512 * 2 ** 20

/** A buffer that no cache can hold a noticeable part of. */
export const wantedBuffer = (): number => Math.max(leastBuffer, 8 * cpu().l3Bytes)

/**
 * The limits of `threads` workers (0: all that the machine allows), each the best of several loops. Memory is read over
 * {@link wantedBuffer} bytes, or over half of what is available where that is less: `bufferBytes` tells.
 */
export const measureLimits = (threads = 0): Promise<Limits> =>
  nativeAddon().probe(threads, Math.min(wantedBuffer(), Math.floor(process.availableMemory() / 2)))

/** Rows that are read at random. */
export interface GatherShape {
  rows: number
  /** Bytes between rows, and of a row. */
  stride: number
  rowBytes: number
}

/**
 * Rows per second that `threads` workers can read at random from a table of this shape, by nothing but the reading: the
 * best of many loops, 8 to 256 rows ahead. No kernel for lookups can do more.
 */
export const measureGather = async ({ rows, stride, rowBytes }: GatherShape, threads = 0): Promise<number> =>
  (await nativeAddon().probeGather(threads, rows, stride, rowBytes)).rowsPerSecond

/** The better of two measurements: whatever else runs on a machine can only slow one down. */
export const betterLimits = (a: Limits, b: Limits): Limits => ({
  bufferBytes: Math.max(a.bufferBytes, b.bufferBytes),
  readBytesPerSecond: Math.max(a.readBytesPerSecond, b.readBytesPerSecond),
  f32PerSecond: Math.max(a.f32PerSecond, b.f32PerSecond),
  int8PerSecond: Math.max(a.int8PerSecond, b.int8PerSecond),
  bf16PerSecond: Math.max(a.bf16PerSecond, b.bf16PerSecond),
})

/** The shortest time in which the machine could do a piece of work, and what it waits for. */
export const leastTime = (work: Work, limits: Limits): { seconds: number; bound: 'memory' | Arithmetic } => {
  const { flops = 0, bytes = 0, arithmetic = 'f32' } = work
  // Without instructions for bf16 its products are those of f32.
  const { f32PerSecond: f32, int8PerSecond: int8, bf16PerSecond } = limits
  const computing = flops / { f32, int8, bf16: Math.max(f32, bf16PerSecond) }[arithmetic]
  const reading = bytes / limits.readBytesPerSecond
  return reading > computing ? { seconds: reading, bound: 'memory' } : { seconds: computing, bound: arithmetic }
}
