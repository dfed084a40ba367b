/**
 * Builds programs; its methods read like a model's forward pass. Each call appends one op (plus a quantisation of its
 * input where the weight wants 8-bit activations, shared by all who read that input) and returns the new value.
 */
import { DroverError } from '../errors.js'
import type { DTypeName } from '../tensor.js'
import {
  type ActivationDType,
  type ActivationMode,
  absent,
  type DeviceLayout,
  type KvSpec,
  type OpSpec,
  type Program,
  type ProgramLimits,
  type RowDimension,
  type TensorSpec,
  type WeightForm,
  type WeightSpec,
} from './program.js'
import {
  bagOutputs,
  type EmbeddingBagOptions,
  type Pairs,
  pairCount,
  pairKinds,
  poolings,
  type TableSource,
  tableWeight,
} from './tables.js'

/** A tensor of the program under construction. */
export interface Value {
  readonly index: number
  readonly cols: number
  readonly dtype: ActivationDType
}

/** A weight [rows, cols] as a file holds it; `region` numbers the file. */
export interface WeightSource {
  readonly name: string
  readonly dtype: DTypeName
  readonly rows: number
  readonly cols: number
  readonly region: number
  readonly offset: number
  /** Floats [rows, groups] that equal parts of each row are multiplied by; i8, f8_e4m3 (one group) and i4 have them. */
  readonly scales?: WeightSource
  /** f8_e4m3: what the maximum of an activation's row counts as at most; default: no bound. */
  readonly activationBound?: number
}

/** In order of native/kernels/kernels.h. */
export const activationNames = ['none', 'silu', 'gelu', 'gelu_tanh', 'relu'] as const
/** What a layer may apply to its output; 'none' for nothing. */
export type Activation = (typeof activationNames)[number]

export interface LinearOptions {
  /** [1, outputs] */
  bias?: WeightSource
  /** Added after the activation. */
  residual?: Value
  activation?: Activation
}

export interface BuilderOptions extends ProgramLimits {
  kv?: KvSpec
  /**
   * 'auto': quantised weights multiply 8-bit activations, and q8_0 keys 8-bit queries; 'f32': activations are never
   * rounded; 'bf16': what float weights multiply is rounded to bf16, quantised weights are refused.
   */
  activations: ActivationMode
}

/** Values that one concat takes. */
const mostConcat = 7

const floatBits = (value: number): number => new Uint32Array(Float32Array.of(value).buffer)[0] as number

export class ProgramBuilder {
  readonly #layout: DeviceLayout
  readonly #options: BuilderOptions
  readonly #tensors: TensorSpec[] = []
  readonly #weights: WeightSpec[] = []
  readonly #weightIndex = new Map<string, number>()
  readonly #ops: OpSpec[] = []
  readonly #outputs = new Map<string, number>()
  /** Rounded forms of values: `index/form` -> value. */
  readonly #quantized = new Map<string, Value>()
  #bagInputs = 0
  #scope = ''

  constructor(layout: DeviceLayout, options: BuilderOptions) {
    this.#layout = layout
    this.#options = options
  }

  /** Runs `body` with `name` put before the names it gives. */
  scope<T>(name: string, body: () => T): T {
    const outer = this.#scope
    this.#scope = `${outer}${name}.`
    try {
      return body()
    } finally {
      this.#scope = outer
    }
  }

  /** An f32 tensor that the caller writes before a step; it has a row per row, or per output row, of the step. */
  input(name: string, dimension: 'rows' | 'outputs', cols: number): Value {
    const value = this.#tensor(name, 'f32', cols, dimension)
    this.#outputs.set(name, value.index)
    return value
  }

  /** Keeps a value to the end of the step under a role by which the runner finds it. */
  output(role: string, value: Value): void {
    this.#outputs.set(role, value.index)
  }

  /** Rows of `table` by the step's tokens. */
  embed(name: string, table: WeightSource): Value {
    const out = this.#tensor(name, 'f32', table.cols, 'rows')
    // A table that is also the head has one prepared copy; alone it stays in the file.
    this.#op(name, 'embed', [out.index, this.#weight(table, 'stored')])
    return out
  }

  rmsNorm(name: string, x: Value, weight: WeightSource, eps: number): Value {
    const out = this.#like(name, x)
    this.#op(name, 'rms_norm', [out.index, x.index, this.#weight(weight, 'decoded'), floatBits(eps)])
    return out
  }

  /** act(x · weightᵀ + bias) + residual. */
  linear(name: string, x: Value, weight: WeightSource, options: LinearOptions = {}): Value {
    const wanted = this.#activationsOf(weight)
    const prepared = wanted !== undefined && (wanted === 'f32' || this.#options.activations === 'auto')
    const input =
      prepared && wanted !== 'f32' ? this.quantize(x, wanted, weight.activationBound) : this.#rounded(x, weight)
    const out = this.#like(name, x, weight.rows)
    this.#op(name, 'gemm', [
      out.index,
      input.index,
      this.#weight(weight, prepared ? 'prepared' : 'stored'),
      options.bias === undefined ? absent : this.#weight(options.bias, 'decoded'),
      options.residual === undefined ? absent : options.residual.index,
      activationNames.indexOf(options.activation ?? 'none'),
    ])
    return out
  }

  /** 8-bit form of a value; made once however many ops read it. */
  quantize(x: Value, dtype: ActivationDType, bound = Number.POSITIVE_INFINITY): Value {
    return this.#once(x, Number.isFinite(bound) ? `${dtype}.${bound}` : dtype, dtype, 'quantize', [floatBits(bound)])
  }

  /** What a float weight multiplies: x, or x rounded to bf16 (made once) where that is asked for. */
  #rounded(x: Value, weight: WeightSource): Value {
    if (this.#options.activations !== 'bf16') return x
    if (!['f32', 'f16', 'bf16'].includes(weight.dtype)) {
      throw new DroverError('E_UNSUPPORTED', 'bf16 activations multiply float weights', {
        field: weight.name,
        found: weight.dtype,
        expected: 'f32, f16 or bf16',
        hint: "use activations: 'auto' or 'f32'",
      })
    }
    // Panels of bf16 have a kernel for such rows; others read f32.
    return weight.dtype === 'bf16'
      ? this.#once(x, 'bf16', 'bf16', 'round_bf16')
      : this.#once(x, 'bf16.f32', 'f32', 'round_bf16')
  }

  /** silu(gate) · up. */
  swiglu(name: string, gate: Value, up: Value): Value {
    const out = this.#like(name, gate)
    this.#op(name, 'swiglu', [out.index, gate.index, up.index])
    return out
  }

  /** Cosines and sines [rows, 2 n] of the step's positions for `frequencies` [1, n]. */
  ropeTable(name: string, frequencies: WeightSource): Value {
    const out = this.#tensor(name, 'f32', frequencies.cols * 2, 'rows')
    this.#op(name, 'rope_table', [out.index, this.#weight(frequencies, 'decoded')])
    return out
  }

  /** Rotates each head of `x` in place. */
  rope(name: string, x: Value, table: Value, heads: number, layout: 'half-split' | 'adjacent'): void {
    this.#forget(x)
    this.#op(name, 'rope', [x.index, table.index, heads, x.cols / heads, layout === 'adjacent' ? 1 : 0])
  }

  kvWrite(name: string, k: Value, v: Value, layer: number): void {
    this.#op(name, 'kv_write', [k.index, v.index, layer])
  }

  /** Causal or full attention over the cache of `layer`; with 'auto', 8-bit queries multiply the keys of a q8_0 cache. */
  attention(name: string, q: Value, options: { layer: number; heads: number; scale: number; causal: boolean }): Value {
    const out = this.#like(name, q)
    const { layer, heads, scale, causal } = options
    const byteQueries = this.#options.kv?.dtype === 'q8_0' && this.#options.activations === 'auto'
    const flags = [causal, byteQueries].map(Number)
    this.#op(name, 'attention', [out.index, q.index, layer, heads, floatBits(scale), ...flags])
    return out
  }

  /** The rows that the step asks outputs for. */
  gather(name: string, x: Value): Value {
    const out = this.#tensor(name, 'f32', x.cols, 'outputs')
    this.#op(name, 'gather', [out.index, x.index])
    return out
  }

  /** Negative log-likelihood of the step's targets. */
  tokenNll(name: string, logits: Value): Value {
    const out = this.#like(name, logits, 1)
    this.#op(name, 'token_nll', [out.index, logits.index])
    return out
  }

  /** Draws a token per output row by the step's sampling parameters; room for `candidates` top log-probabilities. */
  sample(name: string, logits: Value, candidates: number): Value {
    const out = this.#tensor(name, 'u32', 4 + 2 * candidates, 'outputs')
    this.#op(name, 'sample', [out.index, logits.index])
    return out
  }

  sampleProbabilities(name: string, logits: Value): Value {
    const out = this.#like(name, logits)
    this.#op(name, 'sample_probabilities', [out.index, logits.index])
    return out
  }

  softmax(name: string, x: Value): Value {
    const out = this.#like(name, x)
    this.#op(name, 'softmax', [out.index, x.index])
    return out
  }

  logSoftmax(name: string, x: Value): Value {
    const out = this.#like(name, x)
    this.#op(name, 'log_softmax', [out.index, x.index])
    return out
  }

  logSumExp(name: string, x: Value): Value {
    const out = this.#like(name, x, 1)
    this.#op(name, 'log_sum_exp', [out.index, x.index])
    return out
  }

  /**
   * Pooled lookups in all tables, side by side in their order: [rows, sum of cols]. Table t reads bag input firstBag + t of
   * the step, whose weights multiply its rows where the step has some; a maximum takes none.
   */
  embeddingBag(name: string, tables: readonly TableSource[], options: EmbeddingBagOptions): Value {
    const { pooling, placement, firstBag = this.#bagInputs, output = 'f32' } = options
    const first = this.#weights.length
    for (const table of tables) this.#weights.push(tableWeight(table, placement))
    this.#bagInputs = Math.max(this.#bagInputs, firstBag + tables.length)
    const cols = tables.reduce((sum, table) => sum + table.cols, 0)
    const out =
      output === 'f32'
        ? this.#tensor(name, 'f32', cols, 'rows')
        : this.#tensor(name, 'u32', Math.ceil(cols / 2), 'rows')
    const kinds = [poolings.indexOf(pooling), bagOutputs.indexOf(output)]
    this.#op(name, 'embedding_bag', [out.index, first, tables.length, firstBag, ...kinds])
    return out
  }

  /**
   * DLRM's interaction: dense [rows, d], then the products of pairs of the vectors dense, pooled 0, pooled 1, … row by row.
   */
  interaction(name: string, dense: Value, pooled: Value, pairs: Pairs): Value {
    const vectors = pooled.cols / dense.cols + 1
    const out = this.#like(name, dense, dense.cols + pairCount(pairs, vectors))
    this.#op(name, 'interaction', [out.index, dense.index, pooled.index, pairKinds.indexOf(pairs)])
    return out
  }

  /** The rows of all values, one behind the other. */
  concat(name: string, values: readonly Value[]): Value {
    const [first, ...others] = values
    if (first === undefined) throw new DroverError('E_INTERNAL', 'there is nothing to put together', { field: name })
    if (others.length === 0) return first
    const together = values.slice(0, mostConcat)
    const out = this.#like(
      name,
      first,
      together.reduce((sum, { cols }) => sum + cols, 0),
    )
    const inputs = Array.from({ length: mostConcat }, (_, i) => together[i]?.index ?? absent)
    this.#op(name, 'concat', [out.index, ...inputs])
    return this.concat(name, [out, ...values.slice(mostConcat)])
  }

  /** x0 · y + x: what a cross layer makes of its product y. */
  cross(name: string, x0: Value, y: Value, x: Value): Value {
    const out = this.#like(name, x)
    this.#op(name, 'cross', [out.index, x0.index, y.index, x.index])
    return out
  }

  /** A factorization machine's [rows, 1]: ((sum of x)² - sum of x²) / 2. */
  factorization(name: string, x: Value): Value {
    const out = this.#like(name, x, 1)
    this.#op(name, 'factorization', [out.index, x.index])
    return out
  }

  /** 1 / (1 + e^-x). */
  sigmoid(name: string, x: Value): Value {
    const out = this.#like(name, x)
    this.#op(name, 'sigmoid', [out.index, x.index])
    return out
  }

  /** A weight's rows as f32 [rows, cols]. */
  dequantize(name: string, weight: WeightSource): Value {
    const out = this.#tensor(name, 'f32', weight.cols, 'fixed', weight.rows)
    this.#op(name, 'dequantize', [out.index, this.#weight(weight, 'stored')])
    return out
  }

  finish(): Program {
    const { maxRows, maxOutputs, maxSequences, maxPages, vocabulary, blockRows, kv } = this.#options
    return {
      maxRows,
      maxOutputs,
      maxSequences,
      maxPages,
      vocabulary,
      kv,
      tensors: this.#tensors,
      weights: this.#weights,
      ops: this.#ops,
      outputs: this.#outputs,
      ...(blockRows === undefined ? {} : { blockRows }),
      ...(this.#bagInputs === 0 ? {} : { bagInputs: this.#bagInputs }),
    }
  }

  #op(name: string, op: string, args: number[]): void {
    this.#ops.push({ name: `${this.#scope}${name}`, op, args })
  }

  #tensor(name: string, dtype: ActivationDType, cols: number, dimension: RowDimension, fixedRows = 0): Value {
    const index = this.#tensors.length
    this.#tensors.push({ name: `${this.#scope}${name}`, dtype, cols, dimension, fixedRows })
    return { index, cols, dtype }
  }

  #like(name: string, x: Value, cols = x.cols): Value {
    const spec = this.#tensors[x.index] as TensorSpec
    return this.#tensor(name, 'f32', cols, spec.dimension, spec.fixedRows)
  }

  /** The `form` of a value that `op` makes; made once however many ops read it. */
  #once(x: Value, form: string, dtype: ActivationDType, op: string, immediates: readonly number[] = []): Value {
    const key = `${x.index}/${form}`
    const made = this.#quantized.get(key)
    if (made !== undefined) return made
    const name = `${this.#tensors[x.index]?.name.slice(this.#scope.length)}.${form}`
    const spec = this.#tensors[x.index] as TensorSpec
    const out = this.#tensor(name, dtype, x.cols, spec.dimension, spec.fixedRows)
    this.#op(name, op, [out.index, x.index, ...immediates])
    this.#quantized.set(key, out)
    return out
  }

  /** Numbers of 8 bits that have no scales are just numbers: they multiply f32. */
  #activationsOf({ dtype, scales }: WeightSource): ActivationDType | undefined {
    const plain = scales === undefined && (dtype === 'i8' || dtype === 'f8_e4m3')
    return plain ? undefined : this.#layout.gemmActivations(dtype)
  }

  /** A value that changes in place has no valid rounded form any more. */
  #forget(x: Value): void {
    for (const key of this.#quantized.keys()) if (key.startsWith(`${x.index}/`)) this.#quantized.delete(key)
  }

  #weight({ scales, activationBound: _, ...source }: WeightSource, form: WeightForm): number {
    const key = `${source.region}:${source.offset}:${source.rows}x${source.cols}`
    const known = this.#weightIndex.get(key)
    if (known !== undefined) {
      const spec = this.#weights[known] as WeightSpec
      // One copy serves all readers: rows can be read from panels, so 'prepared' wins over 'stored'.
      if (spec.form === 'stored' && form === 'prepared') this.#weights[known] = { ...spec, form }
      else if (spec.form !== form && !(spec.form === 'prepared' && form === 'stored')) {
        throw new DroverError('E_INTERNAL', 'a weight is used in two forms', {
          field: source.name,
          found: form,
          expected: spec.form,
        })
      }
      return known
    }
    const beside = scales === undefined ? {} : { scales: this.#weight(scales, 'stored') }
    const index = this.#weights.length
    this.#weights.push({ ...source, form, ...beside })
    this.#weightIndex.set(key, index)
    return index
  }
}
