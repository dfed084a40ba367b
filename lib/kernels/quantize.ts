/**
 * f32 rows into stored number formats: floats of fewer bits, rounded to nearest even, and the five simple block
 * formats of GGUF, byte for byte as the reference quantiser of the format writes them.
 */
import { checkOneOf, checkOptions } from '../check.js'
import { DroverError } from '../errors.js'
import { floatToBfloat, floatToE4m3, floatToE5m2, floatToHalf } from '../format/decode/scalar.js'
import { Pace } from '../format/file.js'
import { dtypes, rowBytes } from '../tensor.js'
import { type AsyncOptions, takeSignal } from './eager.js'
import { checkMatrix, checkShape, type Shape, type WeightDType, weightDTypes } from './operands.js'

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

const encoders: Partial<Record<WeightDType, BlockEncoder>> = {
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
}

/** Formats that {@link quantize} writes. */
export const quantizableDTypes = Object.keys(encoders) as readonly WeightDType[]

interface Job {
  blocks: number
  out: Uint8Array<ArrayBuffer>
  encode(block: number): void
}

const jobOf = (type: unknown, values: unknown, shape: unknown): Job => {
  const dtype = checkOneOf('type', type, weightDTypes)
  const [rows, cols] = checkShape('shape', shape)
  const x = checkMatrix('values', values, [rows, cols])
  const encode = encoders[dtype]
  if (encode === undefined) {
    throw new DroverError('E_UNSUPPORTED', 'quantising to this format is not built yet', {
      field: 'type',
      found: dtype,
      expected: quantizableDTypes.join(', '),
    })
  }
  const { block, bytes } = dtypes[dtype]
  if (block > 1) {
    const bad = x.findIndex((value) => !Number.isFinite(value))
    if (bad !== -1) {
      throw new DroverError('E_RANGE', 'block formats hold finite numbers', { field: `values[${bad}]`, found: x[bad] })
    }
  }
  const out = new Uint8Array(rowBytes(dtype, cols) * rows)
  const view = new DataView(out.buffer)
  return { blocks: x.length / block, out, encode: (i) => encode(x, i * block, view, i * bytes) }
}

/**
 * Rounds f32 values into a stored number format.
 *
 * @param type f32, f16, bf16, f8_e4m3 (saturating at ±448), f8_e5m2, q8_0, q4_0, q4_1, q5_0 or q5_1
 * @param values f32 [rows, cols]; finite for block formats
 * @param shape [rows, cols]; cols a multiple of the format's block
 * @returns the stored bytes, rows one after the other
 * @throws DroverError E_ARGUMENT, E_SHAPE; E_RANGE for values that are not finite; E_UNSUPPORTED for other formats
 */
export const quantize = (type: WeightDType, values: Float32Array, shape: Shape): Uint8Array => {
  const { blocks, out, encode } = jobOf(type, values, shape)
  for (let i = 0; i < blocks; i++) encode(i)
  return out
}

/** {@link quantize} in slices of a few milliseconds, so that the event loop stays free. */
export const quantizeAsync = async (
  type: WeightDType,
  values: Float32Array,
  shape: Shape,
  options?: AsyncOptions,
): Promise<Uint8Array> => {
  const [signal, rest] = takeSignal(options)
  checkOptions('options', rest, [])
  const { blocks, out, encode } = jobOf(type, values, shape)
  const pace = new Pace(signal, 'quantising')
  for (let i = 0; i < blocks; i++) {
    encode(i)
    if (pace.due()) await pace.rest()
  }
  return out
}
