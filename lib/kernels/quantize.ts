/**
 * f32 rows into stored number formats: floats of fewer bits, rounded to nearest even; the five simple block formats of
 * GGUF, byte for byte as the reference quantiser of the format writes them; and the others by search.
 */
import { checkInstance, checkOneOf, checkOptions } from '../check.js'
import { type QuantizeRequest, quantizeRows, quantizeRowsAsync, writableDTypes } from '../device/quantize.js'
import { DroverError } from '../errors.js'
import { isRowwise, type RowwiseDType, rowBytes, rowwiseDTypes } from '../tensor.js'
import { type AsyncOptions, takeSignal } from './eager.js'
import { bytesOfFloats, checkMatrix, checkShape, type Shape, type WeightDType, weightDTypes } from './operands.js'

/** Formats that {@link quantize} writes. */
export const quantizableDTypes: readonly (WeightDType | RowwiseDType)[] = [...writableDTypes, ...rowwiseDTypes]

/** Options of {@link quantize}. */
export interface QuantizeOptions {
  /**
   * f32 [cols], not negative: what the squared error of each column counts, as the mean squares of the activations
   * that meet it. Q8_0 and the float formats do not search, and ignore it.
   */
  importance?: Float32Array
}

interface Job extends QuantizeRequest {
  values: Float32Array
}

const checkImportance = (value: unknown, cols: number): Float32Array | undefined => {
  if (value === undefined) return undefined
  const field = 'options.importance'
  const copy = checkInstance(field, value, Float32Array).slice()
  if (copy.length !== cols)
    throw new DroverError('E_SHAPE', 'there is one importance per column', {
      field,
      found: copy.length,
      expected: cols,
    })
  const bad = copy.findIndex((weight) => !(weight >= 0 && weight < Number.POSITIVE_INFINITY))
  if (bad !== -1)
    throw new DroverError('E_RANGE', 'importances are finite and not negative', {
      field: `${field}[${bad}]`,
      found: copy[bad],
    })
  return copy
}

const jobOf = (type: unknown, input: unknown, size: unknown, options: QuantizeOptions | undefined): Job => {
  const dtype = checkOneOf('type', type, [...weightDTypes, ...rowwiseDTypes])
  const shape = checkShape('shape', size)
  const values = checkMatrix('values', input, shape)
  const { importance } = checkOptions('options', options, ['importance'])
  const to = isRowwise(dtype) ? dtype : writableDTypes.find((name) => name === dtype)
  if (to === undefined) {
    throw new DroverError('E_UNSUPPORTED', 'quantising to this format is not built yet', {
      field: 'type',
      found: dtype,
      expected: quantizableDTypes.join(', '),
    })
  }
  const [rows, cols] = shape
  rowBytes(to, cols) // rows hold whole blocks
  const weights = checkImportance(importance, cols)
  return { from: 'f32', source: bytesOfFloats(values), to, rows, cols, importance: weights, values }
}

/** Names the number that a format cannot hold. */
const explain = (error: unknown, { to, values, cols }: Job): unknown => {
  if (!(error instanceof DroverError) || error.code !== 'E_RANGE') return error
  const start = Number(error.found ?? 0)
  const piece = values.subarray(start, start + (isRowwise(to) ? cols : 256))
  const bad = piece.findIndex((value) => !Number.isFinite(value))
  const at = bad === -1 ? piece.reduce((most, v, i) => (Math.abs(v) > Math.abs(piece[most]!) ? i : most), 0) : bad
  return new DroverError(
    'E_RANGE',
    bad === -1 ? `the number is too large for ${to}` : 'block and row-wise formats hold finite numbers',
    { field: `values[${start + at}]`, found: piece[at] },
  )
}

/**
 * Rounds f32 values into a stored number format.
 *
 * @param type f32, f16, bf16, f8_e4m3 (saturating at ±448), f8_e5m2; q8_0, q4_0, q4_1, q5_0, q5_1; q2_k, q3_k, q4_k,
 *   q5_k, q6_k, iq4_nl, iq4_xs or mxfp4; for rows of embedding tables i8_rowwise, i8h_rowwise, i4_rowwise or i2_rowwise,
 *   scale and bias last, byte for byte as FBGEMM's fused rows
 * @param values f32 [rows, cols]; finite for block and row-wise formats
 * @param shape [rows, cols]; cols a multiple of the format's block, or any number for row-wise ones
 * @returns the stored bytes, rows one after the other
 * @throws DroverError E_ARGUMENT, E_SHAPE; E_RANGE for values that are not finite or too large; E_UNSUPPORTED for other
 *   formats
 */
export const quantize = (
  type: WeightDType | RowwiseDType,
  values: Float32Array,
  shape: Shape,
  options?: QuantizeOptions,
): Uint8Array => {
  const job = jobOf(type, values, shape, options)
  try {
    return quantizeRows(job)
  } catch (error) {
    throw explain(error, job)
  }
}

/** {@link quantize} off the event loop. */
export const quantizeAsync = async (
  type: WeightDType | RowwiseDType,
  values: Float32Array,
  shape: Shape,
  options?: QuantizeOptions & AsyncOptions,
): Promise<Uint8Array> => {
  const [signal, rest] = takeSignal(options)
  const job = jobOf(type, values, shape, rest)
  try {
    return await quantizeRowsAsync(job, signal)
  } catch (error) {
    throw explain(error, job)
  }
}
