/** Super-blocks of 256 elements whose groups of 16 or 32 have scales (and minimums) of a few bits: the K types. */
import { type BlockDecoder, half, i8, nibble } from './blocks.js'

export const q2_k: BlockDecoder = (bytes, at, out, to) => {
  const d = half(bytes, at + 80)
  const dmin = half(bytes, at + 82)
  for (let i = 0; i < 256; i++) {
    const scale = bytes[at + (i >> 4)]!
    const code = (bytes[at + 16 + (i >> 7) * 32 + (i & 31)]! >> (2 * ((i >> 5) & 3))) & 3
    out[to + i] = d * (scale & 15) * code - dmin * (scale >> 4)
  }
}

export const q3_k: BlockDecoder = (bytes, at, out, to) => {
  const d = half(bytes, at + 108)
  for (let i = 0; i < 256; i++) {
    const group = i >> 4
    // Sixteen scales of six bits: nibbles in 8 bytes, then pairs of bits in 4.
    const low = nibble(bytes[at + 96 + (group & 7)]!, group >> 3)
    const scale = (low | (((bytes[at + 104 + (group & 3)]! >> (2 * (group >> 2))) & 3) << 4)) - 32
    const code = (bytes[at + 32 + (i >> 7) * 32 + (i & 31)]! >> (2 * ((i >> 5) & 3))) & 3
    const third = (bytes[at + (i & 31)]! >> (i >> 5)) & 1
    out[to + i] = d * scale * (code + 4 * third - 4)
  }
}

/** Scale and minimum of group `group`, six bits each, from 12 bytes; `minimum` is 4 for the minimum, else 0. */
const six = (bytes: Uint8Array, at: number, group: number, minimum: 0 | 4): number =>
  group < 4
    ? bytes[at + group + minimum]! & 63
    : nibble(bytes[at + group + 4]!, minimum >> 2) | ((bytes[at + group - 4 + minimum]! >> 6) << 4)

export const q4_k: BlockDecoder = (bytes, at, out, to) => {
  const d = half(bytes, at)
  const dmin = half(bytes, at + 2)
  for (let group = 0; group < 8; group++) {
    const scale = d * six(bytes, at + 4, group, 0)
    const minimum = dmin * six(bytes, at + 4, group, 4)
    for (let i = 0; i < 32; i++) {
      out[to + group * 32 + i] = scale * nibble(bytes[at + 16 + (group >> 1) * 32 + i]!, group) - minimum
    }
  }
}

export const q5_k: BlockDecoder = (bytes, at, out, to) => {
  const d = half(bytes, at)
  const dmin = half(bytes, at + 2)
  for (let group = 0; group < 8; group++) {
    const scale = d * six(bytes, at + 4, group, 0)
    const minimum = dmin * six(bytes, at + 4, group, 4)
    for (let i = 0; i < 32; i++) {
      const low = nibble(bytes[at + 48 + (group >> 1) * 32 + i]!, group)
      out[to + group * 32 + i] = scale * (low | (((bytes[at + 16 + i]! >> group) & 1) << 4)) - minimum
    }
  }
}

export const q6_k: BlockDecoder = (bytes, at, out, to) => {
  const d = half(bytes, at + 208)
  for (let i = 0; i < 256; i++) {
    const part = i >> 7
    const quarter = (i >> 5) & 3
    const low = nibble(bytes[at + part * 64 + (i & 63)]!, quarter >> 1)
    const high = (bytes[at + 128 + part * 32 + (i & 31)]! >> (2 * quarter)) & 3
    out[to + i] = d * i8(bytes[at + 192 + (i >> 4)]!) * ((low | (high << 4)) - 32)
  }
}

export const q8_k: BlockDecoder = (bytes, at, out, to) => {
  const d = new DataView(bytes.buffer, bytes.byteOffset).getFloat32(at, true)
  for (let i = 0; i < 256; i++) out[to + i] = d * i8(bytes[at + 4 + i]!)
}
