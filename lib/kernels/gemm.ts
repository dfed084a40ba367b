/** Linear layers: act(x · weightᵀ + bias) + residual. */
import { checkInteger, checkOneOf, checkOptions } from '../check.js'
import { DroverError, throwIfAborted } from '../errors.js'
import { type Activation, activationNames, type ProgramBuilder, type WeightSource } from '../program/builder.js'
import { type ActivationMode, activationModes, type RegionSource } from '../program/program.js'
import {
  type AsyncOptions,
  type Call,
  load,
  loadSync,
  mostRows,
  type Operands,
  plainStep,
  type Recipe,
  run,
  runAsync,
  runOn,
  runOnAsync,
  takeSignal,
} from './eager.js'
import { bytesOfFloats, type CheckedWeight, checkMatrix, checkRows, checkWeight, type Weight } from './operands.js'

/** What a linear layer does to its product. */
export interface LinearOptions {
  /** f32 [N], added to every row of the product. */
  bias?: Float32Array
  /** Applied after the bias; default 'none'. 'gelu' is the exact one, 'gelu_tanh' its usual approximation. */
  activation?: Activation
  /**
   * 'auto' (default): weights of a block-quantised format that has integer kernels multiply activations rounded to
   * 8 bits in blocks of 32 or 256; 'f32': activations are never rounded; 'bf16': they are rounded to bf16, and
   * weights are f32, f16 or bf16.
   */
  activations?: ActivationMode
}

/** What `gemm` does to its product. */
export interface GemmOptions extends LinearOptions {
  /** f32 [M, N], added last. */
  residual?: Float32Array
}

interface Layer {
  readonly weight: CheckedWeight
  readonly bias: Float32Array | undefined
  readonly activation: Activation
  readonly activations: ActivationMode
}

const layerOptions = ['bias', 'activation', 'activations']

const checkLayer = (weight: unknown, options: Record<string, unknown>): Layer => {
  const { bias, activation = 'none', activations = 'auto' } = options
  const checked = checkWeight('weight', weight)
  return {
    weight: checked,
    bias: bias === undefined ? undefined : checkMatrix('options.bias', bias, [1, checked.rows]),
    activation: checkOneOf('options.activation', activation, activationNames),
    activations: checkOneOf('options.activations', activations, activationModes),
  }
}

/** One op without and, when asked for, one with a residual; both read the same prepared weight. */
const recipeOf = (layer: Layer, rows: number, variants: readonly ('plain' | 'residual')[]): Recipe => {
  const { weight, bias, activation, activations } = layer
  const regions: RegionSource[] = [{ data: weight.bytes }]
  const floats = (name: string, values: Float32Array, rows: number): WeightSource => ({
    name,
    dtype: 'f32',
    rows,
    cols: values.length / rows,
    region: regions.push({ data: bytesOfFloats(values) }) - 1,
    offset: 0,
  })
  const { dtype, rows: outputs, cols, scales, activationBound } = weight
  const source: WeightSource = {
    name: 'weight',
    dtype,
    rows: outputs,
    cols,
    region: 0,
    offset: 0,
    ...(scales === undefined ? {} : { scales: floats('scales', scales, outputs) }),
    ...(activationBound === undefined ? {} : { activationBound }),
  }
  const biasSource = bias === undefined ? {} : { bias: floats('bias', bias, 1) }
  return {
    key: undefined,
    rows,
    activations,
    regions,
    build: (b: ProgramBuilder) => {
      const x = b.input('x', 'rows', weight.cols)
      const options = { activation, ...biasSource }
      for (const variant of variants) {
        const residual = variant === 'residual' ? { residual: b.input('added', 'rows', weight.rows) } : {}
        b.output(variant, b.linear(variant, x, source, { ...options, ...residual }))
      }
    },
  }
}

/** Writes x, runs the op of the variant (behind the rounding of x, where there is one), reads its output. */
const work = (x: Float32Array, residual: Float32Array | undefined, rows: number): Call<Float32Array>['work'] =>
  function* (operands: Operands) {
    const role = residual === undefined ? 'plain' : 'residual'
    operands.write('x', x)
    if (residual !== undefined) operands.write('added', residual)
    const { ops } = operands.program
    const rounded = ops.findIndex(({ op }) => op === 'gemm')
    if (rounded > 0) yield { ...plainStep(rows), firstOp: 0, endOp: rounded }
    const op = ops.findIndex(({ name }) => name === role)
    yield { ...plainStep(rows), firstOp: op, endOp: op + 1 }
    return operands.read(role, rows)
  }

const gemmCall = (x: unknown, weight: unknown, input: unknown): Call<Float32Array> => {
  const options = checkOptions('options', input, [...layerOptions, 'residual'])
  const layer = checkLayer(weight, options)
  const data = checkRows('x', x, layer.weight.cols)
  const rows = data.length / layer.weight.cols
  const { residual } = options
  const added =
    residual === undefined ? undefined : checkMatrix('options.residual', residual, [rows, layer.weight.rows])
  return {
    recipe: recipeOf(layer, rows, [added === undefined ? 'plain' : 'residual']),
    work: work(data, added, rows),
  }
}

/**
 * act(x · weightᵀ + bias) + residual, as f32 [M, N].
 *
 * The weight is verified and prepared by every call: {@link PreparedLinear} does that once.
 * @param x f32 [M, K]
 * @param weight [N, K] in any number format; K must be a multiple of the format's block
 * @throws DroverError E_ARGUMENT, E_SHAPE, E_MEMORY
 */
export const gemm = (x: Float32Array, weight: Weight, options?: GemmOptions): Float32Array =>
  run(gemmCall(x, weight, options))

/** {@link gemm} off the event loop. */
export const gemmAsync = async (
  x: Float32Array,
  weight: Weight,
  options?: GemmOptions & AsyncOptions,
): Promise<Float32Array> => {
  const [signal, rest] = takeSignal(options)
  return runAsync(gemmCall(x, weight, rest), signal)
}

/** A linear layer whose weight is copied, checked and brought into the kernels' order once, for many calls. */
export class PreparedLinear {
  /** [N, K] of the weight. */
  readonly shape: readonly [number, number]
  readonly dtype: string
  readonly maxRows: number
  #operands: Operands | undefined

  private constructor(layer: Layer, maxRows: number, operands: Operands) {
    this.shape = [layer.weight.rows, layer.weight.cols]
    this.dtype = layer.weight.dtype
    this.maxRows = maxRows
    this.#operands = operands
  }

  /** @param maxRows most rows M that {@link apply} will be given; memory is set aside for them */
  static prepare(weight: Weight, maxRows: number, options?: LinearOptions): PreparedLinear {
    const { layer, rows, recipe } = PreparedLinear.#check(weight, maxRows, options)
    return new PreparedLinear(layer, rows, loadSync(recipe))
  }

  /** {@link prepare} off the event loop. */
  static async prepareAsync(
    weight: Weight,
    maxRows: number,
    options?: LinearOptions & AsyncOptions,
  ): Promise<PreparedLinear> {
    const [signal, rest] = takeSignal(options)
    const { layer, rows, recipe } = PreparedLinear.#check(weight, maxRows, rest)
    return new PreparedLinear(layer, rows, await load(recipe, signal))
  }

  static #check(weight: unknown, maxRows: unknown, input: unknown) {
    const layer = checkLayer(weight, checkOptions('options', input, layerOptions))
    const rows = checkInteger('maxRows', maxRows, 1, mostRows)
    return { layer, rows, recipe: recipeOf(layer, rows, ['plain', 'residual']) }
  }

  /** The layer of x [M, K], plus `residual` [M, N] when given, as f32 [M, N]. One call at a time: E_BUSY otherwise. */
  apply(x: Float32Array, residual?: Float32Array): Float32Array {
    return runOn(this.#open(), { work: this.#work(x, residual) })
  }

  /** {@link apply} off the event loop. */
  async applyAsync(x: Float32Array, residual?: Float32Array, options?: AsyncOptions): Promise<Float32Array> {
    const [signal, rest] = takeSignal(options)
    checkOptions('options', rest, [])
    throwIfAborted(signal, 'the layer')
    return runOnAsync(this.#open(), { work: this.#work(x, residual) }, signal)
  }

  /** Frees the memory, after a call in flight has been aborted. Idempotent. */
  async close(): Promise<void> {
    const operands = this.#operands
    this.#operands = undefined
    await operands?.loaded.close()
  }

  #open(): Operands {
    if (this.#operands !== undefined) return this.#operands
    throw new DroverError('E_CLOSED', 'the layer has been closed')
  }

  #work(x: unknown, residual: unknown): Call<Float32Array>['work'] {
    const [outputs, inputs] = this.shape
    const data = checkRows('x', x, inputs)
    const rows = data.length / inputs
    if (rows > this.maxRows) {
      throw new DroverError('E_RANGE', 'more rows than the layer was prepared for', {
        field: 'x',
        found: rows,
        expected: this.maxRows,
      })
    }
    return work(data, residual === undefined ? undefined : checkMatrix('residual', residual, [rows, outputs]), rows)
  }
}
