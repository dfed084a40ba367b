/** Super-blocks of 256 elements whose codes pick whole vectors from a code book: the IQ1, IQ2 and IQ3 types. */
import { type BlockDecoder, half, nibble, u16, u32 } from './blocks.js'
import { evenSigns, gridOf } from './grids.js'
import { halfToFloat } from './scalar.js'

/** `width` elements of a book from `from` on, times d, negated where `signs` has a bit. */
const vector = (
  grid: Int8Array,
  from: number,
  width: number,
  signs: number,
  d: number,
  out: Float32Array,
  to: number,
): void => {
  for (let i = 0; i < width; i++) {
    const value = d * grid[from + i]!
    out[to + i] = (signs >> i) & 1 ? -value : value
  }
}

export const iq2_xxs: BlockDecoder = (bytes, at, out, to) => {
  const grid = gridOf('iq2xxs')
  const d = half(bytes, at)
  for (let l = 0; l < 32; l++) {
    const group = at + 2 + (l >> 2) * 8
    // Four times 7 sign bits, then 4 bits of scale.
    const tail = u32(bytes, group + 4)
    const scale = d * (0.5 + (tail >>> 28)) * 0.25
    const signs = evenSigns[(tail >>> (7 * (l & 3))) & 127]!
    vector(grid, bytes[group + (l & 3)]! * 8, 8, signs, scale, out, to + l * 8)
  }
}

export const iq2_xs: BlockDecoder = (bytes, at, out, to) => {
  const grid = gridOf('iq2xs')
  const d = half(bytes, at)
  for (let l = 0; l < 32; l++) {
    // 9 bits of index, 7 of signs.
    const code = u16(bytes, at + 2 + l * 2)
    const scale = d * (0.5 + nibble(bytes[at + 66 + (l >> 2)]!, l >> 1)) * 0.25
    vector(grid, (code & 511) * 8, 8, evenSigns[code >> 9]!, scale, out, to + l * 8)
  }
}

export const iq2_s: BlockDecoder = (bytes, at, out, to) => {
  const grid = gridOf('iq2s')
  const d = half(bytes, at)
  for (let l = 0; l < 32; l++) {
    const index = bytes[at + 2 + l]! | (((bytes[at + 66 + (l >> 2)]! >> (2 * (l & 3))) & 3) << 8)
    const scale = d * (0.5 + nibble(bytes[at + 74 + (l >> 2)]!, l >> 1)) * 0.25
    vector(grid, index * 8, 8, bytes[at + 34 + l]!, scale, out, to + l * 8)
  }
}

export const iq3_xxs: BlockDecoder = (bytes, at, out, to) => {
  const grid = gridOf('iq3xxs')
  const d = half(bytes, at)
  for (let l = 0; l < 64; l++) {
    const tail = u32(bytes, at + 66 + (l >> 3) * 4)
    const scale = d * (0.5 + (tail >>> 28)) * 0.5
    const signs = evenSigns[(tail >>> (7 * ((l >> 1) & 3))) & 127]! >> ((l & 1) * 4)
    vector(grid, bytes[at + 2 + l]! * 4, 4, signs, scale, out, to + l * 4)
  }
}

export const iq3_s: BlockDecoder = (bytes, at, out, to) => {
  const grid = gridOf('iq3s')
  const d = half(bytes, at)
  for (let l = 0; l < 64; l++) {
    const group = l >> 3
    const index = bytes[at + 2 + l]! | (((bytes[at + 66 + group]! >> (l & 7)) & 1) << 8)
    const scale = d * (1 + 2 * nibble(bytes[at + 106 + (group >> 1)]!, group))
    vector(grid, index * 4, 4, nibble(bytes[at + 74 + (l >> 1)]!, l), scale, out, to + l * 4)
  }
}

/** Eight ternary values, all shifted up by an eighth, or down. */
const ternary = (grid: Int8Array, index: number, down: number, d: number, out: Float32Array, to: number): void => {
  const delta = down ? -0.125 : 0.125
  for (let i = 0; i < 8; i++) out[to + i] = d * (grid[index * 8 + i]! + delta)
}

export const iq1_s: BlockDecoder = (bytes, at, out, to) => {
  const grid = gridOf('iq1s')
  const d = half(bytes, at)
  for (let l = 0; l < 32; l++) {
    // Four times 3 index bits, 3 of scale, 1 of direction.
    const high = u16(bytes, at + 34 + (l >> 2) * 2)
    const index = bytes[at + 2 + l]! | (((high >> (3 * (l & 3))) & 7) << 8)
    ternary(grid, index, high & 0x8000, d * (2 * ((high >> 12) & 7) + 1), out, to + l * 8)
  }
}

export const iq1_m: BlockDecoder = (bytes, at, out, to) => {
  const grid = gridOf('iq1s')
  // The half scale lies in the highest nibbles of the four words of scales.
  let code = 0
  for (let i = 0; i < 4; i++) code |= (u16(bytes, at + 48 + 2 * i) >> 12) << (4 * i)
  const d = halfToFloat(code)
  for (let l = 0; l < 32; l++) {
    // 3 bits of index, 1 of direction.
    const high = nibble(bytes[at + 32 + (l >> 1)]!, l)
    const scales = u16(bytes, at + 48 + (l >> 3) * 2)
    const scale = d * (2 * ((scales >> (3 * ((l >> 1) & 3))) & 7) + 1)
    ternary(grid, bytes[at + l]! | ((high & 7) << 8), high & 8, scale, out, to + l * 8)
  }
}
