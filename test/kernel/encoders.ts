/**
 * The five simple block formats of GGUF and floats of fewer bits, one element at a time: what the native encoders are
 * compared with.
 */
import { floatToBfloat, floatToE4m3, floatToE5m2, floatToHalf } from '../../lib/format/decode/scalar.js'
import { dtypes } from '../../lib/tensor.js'

/** Writes the `block` elements of x from `at` on as one block at byte `to` of `out`. */
type BlockEncoder = (x: Float32Array, at: number, out: DataView, to: number) => void

const half = 16
const f = Math.fround

/** The element of largest magnitude, the first of equals. */
const extreme = (x: Float32Array, at: number): number => {
  let found = 0
  for (let i = at; i < at + 32; i++) if (Math.abs(x[i] as number) > Math.abs(found)) found = x[i] as number
  return found
}

const inverse = (scale: number): number => (scale === 0 ? 0 : f(1 / scale))

/** Element i of a 32-block has its low four bits beside those of element i + 16. */
const putNibbles = (codes: Uint8Array, out: DataView, to: number): void => {
  for (let i = 0; i < half; i++) out.setUint8(to + i, (codes[i]! & 15) | ((codes[i + half]! & 15) << 4))
}

/** Fifth bits, element 0 lowest. */
const putHighBits = (codes: Uint8Array, out: DataView, to: number): void => {
  let bits = 0
  for (let i = 0; i < 32; i++) bits |= (codes[i]! >> 4) << i
  out.setUint32(to, bits >>> 0, true)
}

const codes = new Uint8Array(32)

/** Codes around a middle: the extreme element gets the code 0. */
const centred = (x: Float32Array, at: number, middle: number): number => {
  const scale = f(extreme(x, at) / -middle)
  const factor = inverse(scale)
  for (let i = 0; i < 32; i++) {
    codes[i] = Math.min(2 * middle - 1, Math.max(0, Math.trunc(f(f((x[at + i] as number) * factor) + (middle + 0.5)))))
  }
  return scale
}

/** Codes from the smallest element up. */
const fromLeast = (x: Float32Array, at: number, most: number): [scale: number, least: number] => {
  let least = x[at] as number
  let largest = least
  for (let i = at; i < at + 32; i++) {
    least = Math.min(least, x[i] as number)
    largest = Math.max(largest, x[i] as number)
  }
  const scale = f(f(largest - least) / most)
  const factor = inverse(scale)
  for (let i = 0; i < 32; i++) {
    codes[i] = Math.min(most, Math.trunc(f(f(f((x[at + i] as number) - least) * factor) + 0.5)))
  }
  return [scale, least]
}

/** Rounds half away from zero. */
const away = (value: number): number => Math.sign(value) * Math.floor(Math.abs(value) + 0.5)

const encoders = {
  f32: (x, at, out, to) => out.setFloat32(to, x[at] as number, true),
  f16: (x, at, out, to) => out.setUint16(to, floatToHalf(x[at] as number), true),
  bf16: (x, at, out, to) => out.setUint16(to, floatToBfloat(x[at] as number), true),
  f8_e4m3: (x, at, out, to) => out.setUint8(to, floatToE4m3(x[at] as number)),
  f8_e5m2: (x, at, out, to) => out.setUint8(to, floatToE5m2(x[at] as number)),
  q8_0: (x, at, out, to) => {
    const scale = f(Math.abs(extreme(x, at)) / 127)
    const factor = inverse(scale)
    out.setUint16(to, floatToHalf(scale), true)
    for (let i = 0; i < 32; i++) out.setInt8(to + 2 + i, away(f((x[at + i] as number) * factor)))
  },
  q4_0: (x, at, out, to) => {
    out.setUint16(to, floatToHalf(centred(x, at, 8)), true)
    putNibbles(codes, out, to + 2)
  },
  q5_0: (x, at, out, to) => {
    out.setUint16(to, floatToHalf(centred(x, at, 16)), true)
    putHighBits(codes, out, to + 2)
    putNibbles(codes, out, to + 6)
  },
  q4_1: (x, at, out, to) => {
    const [scale, least] = fromLeast(x, at, 15)
    out.setUint16(to, floatToHalf(scale), true)
    out.setUint16(to + 2, floatToHalf(least), true)
    putNibbles(codes, out, to + 4)
  },
  q5_1: (x, at, out, to) => {
    const [scale, least] = fromLeast(x, at, 31)
    out.setUint16(to, floatToHalf(scale), true)
    out.setUint16(to + 2, floatToHalf(least), true)
    putHighBits(codes, out, to + 4)
    putNibbles(codes, out, to + 8)
  },
} satisfies Partial<Record<string, BlockEncoder>>

/** Formats that {@link encode} writes. */
export const encodedDTypes = Object.keys(encoders) as (keyof typeof encoders)[]

export const encode = (type: keyof typeof encoders, x: Float32Array): Uint8Array => {
  const { block, bytes } = dtypes[type]
  const out = new Uint8Array((x.length / block) * bytes)
  const view = new DataView(out.buffer)
  for (let i = 0; i < x.length / block; i++) encoders[type](x, i * block, view, i * bytes)
  return out
}
