/** Kernels that work row by row: norms, gates, rotary positions, softmax. */
import { checkInstance, checkInteger, checkNumber, checkOneOf, checkOptions } from '../check.js'
import { DroverError } from '../errors.js'
import { inverseFrequencies } from '../model/rope.js'
import type { ProgramBuilder, Value } from '../program/builder.js'
import { type AsyncOptions, type Call, mostCols, plainStep, run, runAsync, takeSignal } from './eager.js'
import { bytesOfFloats, checkMatrix, checkRows, checkShape, contentKey, type Shape } from './operands.js'

/** A call of one op that maps inputs, each with `rows` rows, to one output. */
const rowsCall = (
  key: string,
  rows: number,
  inputs: Readonly<Record<string, { data: Float32Array; cols: number }>>,
  build: (builder: ProgramBuilder, values: readonly Value[]) => Value,
  weight?: Float32Array,
): Call<Float32Array> => ({
  recipe: {
    key: weight === undefined ? key : `${key} ${contentKey(bytesOfFloats(weight))}`,
    rows,
    regions: weight === undefined ? [] : [{ data: bytesOfFloats(weight) }],
    build: (b) => {
      const values = Object.entries(inputs).map(([name, { cols }]) => b.input(name, 'rows', cols))
      b.output('out', build(b, values))
    },
  },
  *work(operands) {
    for (const [name, { data }] of Object.entries(inputs)) operands.write(name, data)
    yield plainStep(rows)
    return operands.read('out', rows)
  },
})

const vectorSource = (name: string, cols: number) =>
  ({ name, dtype: 'f32', rows: 1, cols, region: 0, offset: 0 }) as const

/** Options of {@link rmsNorm}. */
export interface RmsNormOptions {
  /** Added to the mean square; default 1e-5. */
  eps?: number
}

const rmsNormCall = (x: unknown, weight: unknown, input: unknown): Call<Float32Array> => {
  const { eps: given = 1e-5 } = checkOptions('options', input, ['eps'])
  const eps = checkNumber('options.eps', given, 0, 0.5)
  const scale = checkRows('weight', weight, checkInstance('weight', weight, Float32Array).length || 1)
  const data = checkRows('x', x, scale.length)
  return rowsCall(
    `rms_norm ${scale.length} ${eps}`,
    data.length / scale.length,
    { x: { data, cols: scale.length } },
    (b, [value]) => b.rmsNorm('norm', value as Value, vectorSource('weight', scale.length), eps),
    scale,
  )
}

/**
 * x · weight / √(mean(x²) + eps), row by row.
 * @param x f32 [rows, cols]
 * @param weight f32 [cols]
 * @returns f32 [rows, cols]
 * @throws DroverError E_ARGUMENT, E_SHAPE
 */
export const rmsNorm = (x: Float32Array, weight: Float32Array, options?: RmsNormOptions): Float32Array =>
  run(rmsNormCall(x, weight, options))

/** {@link rmsNorm} off the event loop. */
export const rmsNormAsync = async (
  x: Float32Array,
  weight: Float32Array,
  options?: RmsNormOptions & AsyncOptions,
): Promise<Float32Array> => {
  const [signal, rest] = takeSignal(options)
  return runAsync(rmsNormCall(x, weight, rest), signal)
}

const swigluCall = (gate: unknown, up: unknown, shape: unknown): Call<Float32Array> => {
  const [rows, cols] = checkShape('shape', shape)
  return rowsCall(
    `swiglu ${cols}`,
    rows,
    {
      gate: { data: checkMatrix('gate', gate, [rows, cols]), cols },
      up: { data: checkMatrix('up', up, [rows, cols]), cols },
    },
    (b, [g, u]) => b.swiglu('gated', g as Value, u as Value),
  )
}

/**
 * silu(gate) · up, element by element, where silu(x) = x / (1 + e⁻ˣ).
 * @param gate f32 [rows, cols]
 * @param up f32 [rows, cols]
 * @returns f32 [rows, cols]
 * @throws DroverError E_ARGUMENT, E_SHAPE
 */
export const swiglu = (gate: Float32Array, up: Float32Array, shape: Shape): Float32Array =>
  run(swigluCall(gate, up, shape))

/** {@link swiglu} off the event loop. */
export const swigluAsync = async (
  gate: Float32Array,
  up: Float32Array,
  shape: Shape,
  options?: AsyncOptions,
): Promise<Float32Array> => {
  const [signal, rest] = takeSignal(options)
  checkOptions('options', rest, [])
  return runAsync(swigluCall(gate, up, shape), signal)
}

type Normaliser = 'softmax' | 'logSoftmax' | 'logSumExp'

const softmaxCall = (op: Normaliser, x: unknown, shape: unknown): Call<Float32Array> => {
  const [rows, cols] = checkShape('shape', shape)
  const inputs = { x: { data: checkMatrix('x', x, [rows, cols]), cols } }
  return rowsCall(`${op} ${cols}`, rows, inputs, (b, [value]) => b[op]('result', value as Value))
}

const softmaxAsyncCall = async (
  op: Normaliser,
  x: Float32Array,
  shape: Shape,
  options: AsyncOptions | undefined,
): Promise<Float32Array> => {
  const [signal, rest] = takeSignal(options)
  checkOptions('options', rest, [])
  return runAsync(softmaxCall(op, x, shape), signal)
}

/**
 * eˣ / Σ eˣ over each row, computed from the row's maximum. A row with a NaN becomes NaN.
 * @param x f32 [rows, cols]
 * @returns f32 [rows, cols]
 * @throws DroverError E_ARGUMENT, E_SHAPE
 */
export const softmax = (x: Float32Array, shape: Shape): Float32Array => run(softmaxCall('softmax', x, shape))

/** {@link softmax} off the event loop. */
export const softmaxAsync = (x: Float32Array, shape: Shape, options?: AsyncOptions): Promise<Float32Array> =>
  softmaxAsyncCall('softmax', x, shape, options)

/** x - log Σ eˣ over each row, f32 [rows, cols]; otherwise as {@link softmax}. */
export const logSoftmax = (x: Float32Array, shape: Shape): Float32Array => run(softmaxCall('logSoftmax', x, shape))

/** {@link logSoftmax} off the event loop. */
export const logSoftmaxAsync = (x: Float32Array, shape: Shape, options?: AsyncOptions): Promise<Float32Array> =>
  softmaxAsyncCall('logSoftmax', x, shape, options)

/** log Σ eˣ of each row, f32 [rows]; otherwise as {@link softmax}. */
export const logSumExp = (x: Float32Array, shape: Shape): Float32Array => run(softmaxCall('logSumExp', x, shape))

/** {@link logSumExp} off the event loop. */
export const logSumExpAsync = (x: Float32Array, shape: Shape, options?: AsyncOptions): Promise<Float32Array> =>
  softmaxAsyncCall('logSumExp', x, shape, options)

/** Shape of the heads, and how fast their elements turn. */
export interface RopeOptions {
  heads: number
  /** Elements of a head; a row of x holds heads × headDim. */
  headDim: number
  /** Base of the geometric row of frequencies over the whole head; default 10,000. */
  theta?: number
  /** Inverse frequencies f32 [n] instead of `theta`; the first 2 n elements of each head turn. */
  frequencies?: Float32Array
  /** 'half-split' (default): element i turns with i + n, as Hugging Face orders heads; 'adjacent': 2 i with 2 i + 1, as Meta and GGUF do. */
  layout?: 'half-split' | 'adjacent'
}

const checkFrequencies = (options: Record<string, unknown>, headDim: number): Float32Array => {
  const { theta = 10000, frequencies } = options
  if (frequencies === undefined) {
    const turned = headDim % 2 === 0 ? headDim : headDim - 1
    return inverseFrequencies(checkNumber('options.theta', theta, 1e-3, 1e30), turned)
  }
  if (options.theta !== undefined) {
    throw new DroverError('E_ARGUMENT', 'give theta or frequencies, not both', { field: 'options.theta', found: theta })
  }
  const given = checkInstance('options.frequencies', frequencies, Float32Array).slice()
  if (given.length > 0 && 2 * given.length <= headDim) return given
  throw new DroverError('E_SHAPE', 'there are more frequencies than pairs in a head', {
    field: 'options.frequencies',
    found: given.length,
    expected: `1 to ${Math.floor(headDim / 2)}`,
  })
}

/** Row numbers, positions, tokens: integers in [0, limit), copied. */
export const checkIndices = (name: string, value: unknown, count: number, limit: number): Uint32Array => {
  const length = (value as ArrayLike<unknown> | undefined | null)?.length
  if (typeof value !== 'object' || length !== count) {
    throw new DroverError('E_SHAPE', `expected one entry of ${name} per row`, {
      field: name,
      found: length,
      expected: count,
    })
  }
  const list = Array.from(value as ArrayLike<unknown>)
  return Uint32Array.from(list, (entry, i) => checkInteger(`${name}[${i}]`, entry, 0, limit - 1))
}

const ropeCall = (x: unknown, positions: unknown, input: unknown): Call<Float32Array> => {
  const options = checkOptions('options', input, ['heads', 'headDim', 'theta', 'frequencies', 'layout'])
  const heads = checkInteger('options.heads', options.heads, 1, mostCols)
  const headDim = checkInteger('options.headDim', options.headDim, 2, Math.floor(mostCols / heads))
  const layout = checkOneOf('options.layout', options.layout ?? 'half-split', ['half-split', 'adjacent'])
  const frequencies = checkFrequencies(options, headDim)
  const cols = heads * headDim
  const data = checkRows('x', x, cols)
  const rows = data.length / cols
  const places = checkIndices('positions', positions, rows, 2 ** 31)
  const call = rowsCall(
    `rope ${heads} ${headDim} ${layout}`,
    rows,
    { out: { data, cols } },
    (b, [value]) => {
      const table = b.ropeTable('table', vectorSource('frequencies', frequencies.length))
      b.rope('rope', value as Value, table, heads, layout)
      return value as Value
    },
    frequencies,
  )
  return {
    recipe: call.recipe,
    *work(operands) {
      operands.write('out', data)
      yield { ...plainStep(rows), positions: places }
      return operands.read('out', rows)
    },
  }
}

/**
 * Rotates each head by its row's position: the pair (a, b) of frequency f at position p becomes
 * (a cos pf - b sin pf, a sin pf + b cos pf). Angles are formed in float64.
 * @param x f32 [rows, heads · headDim]
 * @param positions [rows], integers from 0
 * @returns f32 [rows, heads · headDim]
 * @throws DroverError E_ARGUMENT, E_SHAPE
 */
export const rope = (x: Float32Array, positions: ArrayLike<number>, options: RopeOptions): Float32Array =>
  run(ropeCall(x, positions, options))

/** {@link rope} off the event loop. */
export const ropeAsync = async (
  x: Float32Array,
  positions: ArrayLike<number>,
  options: RopeOptions & AsyncOptions,
): Promise<Float32Array> => {
  const [signal, rest] = takeSignal(options)
  return runAsync(ropeCall(x, positions, rest), signal)
}
