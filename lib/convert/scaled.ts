/** Rows of floats as codes with scales beside them: int8 and fp8 with one scale per row, int4 with one per group. */
import { quantizeRowsAsync } from '../device/quantize.js'
import { DroverError } from '../errors.js'

/** Formats with scales beside them, by the names that users give. */
export const scaledFormats = {
  int8: { dtype: 'i8', scale: 'f32', group: undefined },
  fp8: { dtype: 'f8_e4m3', scale: 'f32', group: undefined },
  int4: { dtype: 'i4', scale: 'bf16', group: 32 },
} as const

export type ScaledFormat = keyof typeof scaledFormats

export const isScaledFormat = (name: string): name is ScaledFormat => Object.hasOwn(scaledFormats, name)

/** Rows [rows, cols] as codes, one row after the other, and scales [rows, groups] as numbers of the format's type. */
export interface ScaledRows {
  readonly codes: Uint8Array<ArrayBuffer>
  readonly scales: Uint8Array<ArrayBuffer>
}

/** Adding and subtracting it rounds a double to the nearest whole number, halves to the even one. */
const whole = 1.5 * 2 ** 52

const peakOf = (values: Float32Array, from: number, to: number): number => {
  let peak = 0
  for (let i = from; i < to; i++) {
    const magnitude = Math.abs(values[i] as number)
    if (magnitude <= peak) continue
    if (!Number.isFinite(magnitude)) {
      throw new DroverError('E_RANGE', 'a weight is not finite', { found: i, expected: 'finite numbers' })
    }
    peak = magnitude
  }
  return peak
}

const bytesOf = (values: Float32Array | Uint16Array | Int8Array): Uint8Array<ArrayBuffer> =>
  new Uint8Array(values.buffer as ArrayBuffer, values.byteOffset, values.byteLength)

/** scale = max(|max|, 1e-8) / 127, code = x / scale to the nearest, ties to even. */
const int8Rows = (values: Float32Array, rows: number, cols: number): ScaledRows => {
  const codes = new Int8Array(rows * cols)
  const scales = new Float32Array(rows)
  for (let row = 0; row < rows; row++) {
    const [from, to] = [row * cols, (row + 1) * cols]
    const scale = Math.fround(Math.max(peakOf(values, from, to), Math.fround(1e-8)) / 127)
    scales[row] = scale
    for (let i = from; i < to; i++) codes[i] = Math.fround((values[i] as number) / scale) + whole - whole
  }
  return { codes: bytesOf(codes), scales: bytesOf(scales) }
}

/** scale = max(|max|, 1e-12) / 448; the largest of a row becomes the largest e4m3 number. */
const fp8Rows = async (
  values: Float32Array,
  rows: number,
  cols: number,
  threads: number | undefined,
): Promise<ScaledRows> => {
  const scaled = new Float32Array(values.length)
  const scales = new Float32Array(rows)
  for (let row = 0; row < rows; row++) {
    const [from, to] = [row * cols, (row + 1) * cols]
    const peak = Math.max(peakOf(values, from, to), Math.fround(1e-12))
    const factor = Math.fround(448 / peak)
    scales[row] = peak / 448
    for (let i = from; i < to; i++) {
      scaled[i] = Math.min(Math.max(Math.fround((values[i] as number) * factor), -448), 448)
    }
  }
  const codes = await quantizeRowsAsync({ from: 'f32', source: bytesOf(scaled), to: 'f8_e4m3', rows, cols, threads })
  return { codes, scales: bytesOf(scales) }
}

const bits = new Uint32Array(1)
const real = new Float32Array(bits.buffer)

/** The nearest bf16, as its bits. */
const bfloatBits = (value: number): number => {
  real[0] = value
  const word = bits[0] as number
  return (word + 0x7fff + ((word >>> 16) & 1)) >>> 16
}

/**
 * scale = |max| / 7.5, a bf16 number; code = x / scale to the nearest, from -8 to 7. Two codes in a byte, 8 more than
 * they stand for.
 */
const int4Rows = (values: Float32Array, rows: number, cols: number, group: number): ScaledRows => {
  const codes = new Uint8Array((rows * cols) / 2)
  const scales = new Uint16Array((rows * cols) / group)
  for (let g = 0; g < scales.length; g++) {
    const from = g * group
    const peak = peakOf(values, from, from + group)
    scales[g] = bfloatBits(peak / 7.5)
    bits[0] = (scales[g] as number) << 16
    const scale = real[0] as number
    const inverse = scale === 0 ? 0 : 1 / scale
    for (let i = from; i < from + group; i++) {
      const code = Math.min(Math.max((values[i] as number) * inverse + whole - whole, -8), 7) + 8
      codes[i >> 1] = (codes[i >> 1] as number) | (code << ((i & 1) * 4))
    }
  }
  return { codes, scales: bytesOf(scales) }
}

/** Throws E_RANGE, with the index of an element as `found`, when it is not finite. */
export const scaledRows = (
  format: ScaledFormat,
  values: Float32Array,
  rows: number,
  cols: number,
  threads?: number,
): ScaledRows | Promise<ScaledRows> => {
  if (format === 'fp8') return fp8Rows(values, rows, cols, threads)
  return format === 'int8' ? int8Rows(values, rows, cols) : int4Rows(values, rows, cols, scaledFormats.int4.group)
}
