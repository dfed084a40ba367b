/**
 * Blocks of 32 elements and the ternary types: a half scale, and codes that are plain numbers or pick from a list. Each
 * function decodes the block at `at` to `out[to...]`. Layouts are those of the GGUF tensor types.
 *
 * All arithmetic is exact in float64 up to the one rounding of the store, so these are the very f32 numbers that the
 * native decoder gives: a scale has 11 significant bits, and with the codes a product never needs more than 24.
 */
import { floatFromBits, halfToFloat } from './scalar.js'

/** Decodes the block of `bytes` at `at`; element i goes to `out[to + i]`. */
export type BlockDecoder = (bytes: Uint8Array, at: number, out: Float32Array, to: number) => void

export const u16 = (bytes: Uint8Array, at: number): number => bytes[at]! | (bytes[at + 1]! << 8)
export const u32 = (bytes: Uint8Array, at: number): number => (u16(bytes, at) | (u16(bytes, at + 2) << 16)) >>> 0
export const i8 = (byte: number): number => (byte << 24) >> 24
export const half = (bytes: Uint8Array, at: number): number => halfToFloat(u16(bytes, at))
/** Four bits of a byte: the lower ones for an even `which`, the upper ones for an odd one. */
export const nibble = (byte: number, which: number): number => (byte >> ((which & 1) * 4)) & 15

/** d * (code - zero) + m for 4-bit codes, of which `high` may hold a fifth bit each. */
const nibbles = (
  bytes: Uint8Array,
  at: number,
  high: number,
  zero: number,
  d: number,
  m: number,
  out: Float32Array,
  to: number,
): void => {
  for (let i = 0; i < 32; i++) {
    const code = nibble(bytes[at + (i & 15)]!, i >> 4) | (((high >>> i) & 1) << 4)
    out[to + i] = d * (code - zero) + m
  }
}

// Adding -0 changes no number, not even the sign of a zero.
export const q4_0: BlockDecoder = (bytes, at, out, to) => nibbles(bytes, at + 2, 0, 8, half(bytes, at), -0, out, to)
export const q4_1: BlockDecoder = (bytes, at, out, to) =>
  nibbles(bytes, at + 4, 0, 0, half(bytes, at), half(bytes, at + 2), out, to)
export const q5_0: BlockDecoder = (bytes, at, out, to) =>
  nibbles(bytes, at + 6, u32(bytes, at + 2), 16, half(bytes, at), -0, out, to)
export const q5_1: BlockDecoder = (bytes, at, out, to) =>
  nibbles(bytes, at + 8, u32(bytes, at + 4), 0, half(bytes, at), half(bytes, at + 2), out, to)

export const q8_0: BlockDecoder = (bytes, at, out, to) => {
  const d = half(bytes, at)
  for (let i = 0; i < 32; i++) out[to + i] = d * i8(bytes[at + 2 + i]!)
}

/** Levels of the non-linear 4-bit types. */
const nonLinear = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]
/** Twice the E2M1 values, so that they are integers; the block scale is halved instead. */
const e2m1Doubled = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12]

const pick = (levels: readonly number[], d: number, bytes: Uint8Array, at: number, out: Float32Array, to: number) => {
  for (let i = 0; i < 32; i++) out[to + i] = d * levels[nibble(bytes[at + (i & 15)]!, i >> 4)]!
}

export const iq4_nl: BlockDecoder = (bytes, at, out, to) => pick(nonLinear, half(bytes, at), bytes, at + 2, out, to)

export const iq4_xs: BlockDecoder = (bytes, at, out, to) => {
  const d = half(bytes, at)
  const high = u16(bytes, at + 2)
  for (let group = 0; group < 8; group++) {
    const scale = nibble(bytes[at + 4 + (group >> 1)]!, group) | (((high >> (2 * group)) & 3) << 4)
    pick(nonLinear, d * (scale - 32), bytes, at + 8 + group * 16, out, to + group * 32)
  }
}

export const mxfp4: BlockDecoder = (bytes, at, out, to) => {
  const e = bytes[at]!
  // 2^(e - 128), subnormal for the two lowest exponents.
  pick(e2m1Doubled, floatFromBits(e < 2 ? 0x200000 << e : (e - 1) << 23), bytes, at + 1, out, to)
}

/** Two codes in a byte, 8 more than their values. */
export const i4: BlockDecoder = (bytes, at, out, to) => {
  for (let i = 0; i < 32; i++) out[to + i] = nibble(bytes[at + (i >> 1)]!, i) - 8
}

/** Base-3 digits of `count` bytes: a byte over 256 is the fraction 0.abcde, so multiplying by 3 brings up the next digit. */
const trits = (
  bytes: Uint8Array,
  at: number,
  count: number,
  places: number,
  d: number,
  out: Float32Array,
  to: number,
) => {
  for (let place = 0, power = 1; place < places; place++, power *= 3) {
    for (let i = 0; i < count; i++) {
      const rest = (bytes[at + i]! * power) & 255
      out[to + place * count + i] = d * (((rest * 3) >> 8) - 1)
    }
  }
}

export const tq1_0: BlockDecoder = (bytes, at, out, to) => {
  const d = half(bytes, at + 52)
  trits(bytes, at, 32, 5, d, out, to)
  trits(bytes, at + 32, 16, 5, d, out, to + 160)
  trits(bytes, at + 48, 4, 4, d, out, to + 240)
}

export const tq2_0: BlockDecoder = (bytes, at, out, to) => {
  const d = half(bytes, at + 64)
  for (let i = 0; i < 256; i++) {
    const byte = bytes[at + (i >> 7) * 32 + (i & 31)]!
    out[to + i] = d * (((byte >> (2 * ((i >> 5) & 3))) & 3) - 1)
  }
}
