/**
 * A program: a flat list of ops on tensors, before it is planned and encoded. Everything here is plain data; the op
 * table itself is native/core/ops.def, against which names are resolved when a device loads the program.
 */
import type { DTypeName, RowwiseDType } from '../tensor.js'

/**
 * dtypes of activations: f32, bf16, u32, and rows quantised to 8 bits: integers with a scale per 32 or 256 elements or
 * per row, or e4m3 floats with a scale per row.
 */
export type ActivationDType = 'f32' | 'bf16' | 'u32' | 'a8_32' | 'a8_256' | 'a8_row' | 'f8_row'

/** What the row count of a tensor follows: the rows of the step, its output rows, or a constant. */
export type RowDimension = 'rows' | 'outputs' | 'fixed'

export interface TensorSpec {
  /** Dotted name, as in `layers.3.attention.q`. */
  readonly name: string
  readonly dtype: ActivationDType
  readonly cols: number
  readonly dimension: RowDimension
  /** Rows when `dimension` is 'fixed', else 0. */
  readonly fixedRows: number
}

/**
 * How a weight is kept: the file's rows, panels for GEMM, or f32 rows (norms, biases, frequencies); tables of embeddings
 * stay in the file or are copied.
 */
export type WeightForm = 'stored' | 'prepared' | 'decoded' | 'mapped' | 'copied'

export interface WeightSpec {
  readonly name: string
  readonly dtype: DTypeName | RowwiseDType
  readonly rows: number
  readonly cols: number
  /** Index into the regions that the program is loaded with. */
  readonly region: number
  /** Byte offset in the region; any alignment. */
  readonly offset: number
  readonly form: WeightForm
  /** Index of the weight [rows, groups] of floats that this one is multiplied by. */
  readonly scales?: number
  /** Of tables: bytes between rows, and where in a row its scale and bias are. */
  readonly stride?: number
  readonly parameters?: 'first' | 'last'
}

/** Bytes that weights are taken from: a file, or memory; its index is the weights' `region`. */
export type RegionSource = { path: string; bytes: number } | { data: Uint8Array }

/** Index of a tensor or a weight; immediates are numbers in the op's own unit (floats as their f32 bits). */
export interface OpSpec {
  /** Dotted name, for errors, profiles and disassembly. */
  readonly name: string
  /** Name in ops.def. */
  readonly op: string
  readonly args: readonly number[]
}

/** Number formats that keys and values can be kept in, by the names that options have for them. */
export const kvTypes = { f32: 'f32', f16: 'f16', bf16: 'bf16', q8_0: 'q8_0', fp8: 'f8_e4m3' } as const
export type KvType = keyof typeof kvTypes
export type KvDType = (typeof kvTypes)[KvType]
export const kvTypeNames = Object.keys(kvTypes) as KvType[]

/** How GEMM and attention round their inputs; see {@link ProgramBuilder.linear} and {@link ProgramBuilder.attention}. */
export const activationModes = ['auto', 'f32', 'bf16'] as const
export type ActivationMode = (typeof activationModes)[number]

export interface KvSpec {
  readonly layers: number
  readonly heads: number
  readonly headDim: number
  readonly dtype: KvDType
  /** Pages of {@link pagePositions} positions, for all layers and heads. */
  readonly pages: number
}

export interface ProgramLimits {
  /** Rows (tokens) of one step. */
  readonly maxRows: number
  /** Rows of one step that reach the head. */
  readonly maxOutputs: number
  readonly maxSequences: number
  /** Page table entries of all sequences of one step. */
  readonly maxPages: number
  /** Tokens must be below it; 0: tokens are not looked at. */
  readonly vocabulary: number
  /**
   * Rows that go through all ops together, while others do so on other threads; default all. Only programs that read bags
   * have such blocks. Values other than inputs and outputs then cannot be read after a step.
   */
  readonly blockRows?: number
}

export interface Program extends ProgramLimits {
  /** Tables whose bags a step brings; default none. */
  readonly bagInputs?: number
  readonly kv: KvSpec | undefined
  readonly tensors: readonly TensorSpec[]
  readonly weights: readonly WeightSpec[]
  readonly ops: readonly OpSpec[]
  /** Tensors that must keep their values to the end of a step, by role ('logits', 'sample', …). */
  readonly outputs: ReadonlyMap<string, number>
}

/** Positions of a KV page (DROVER_PAGE_POSITIONS). */
export const pagePositions = 64

/** An operand that is not there. */
export const absent = 0xffffffff

/** Most rows a tensor can have in this program; `kept`: beyond a block. */
export const mostRows = (program: ProgramLimits, { dimension, fixedRows }: TensorSpec, kept = true): number => {
  if (dimension !== 'rows') return dimension === 'outputs' ? program.maxOutputs : fixedRows
  return kept ? program.maxRows : Math.min(program.maxRows, program.blockRows ?? program.maxRows)
}

/** What programs need to know of a device before they can be built and planned. */
export interface DeviceLayout {
  /** Ops in order of their numbers, with their operand signatures. */
  readonly ops: readonly { name: string; signature: string }[]
  /** Number of a dtype. */
  dtypeId(name: string): number
  /** Bytes between rows of an activation tensor. */
  activationRowBytes(dtype: ActivationDType, cols: number): number
  /** Activations that a prepared weight multiplies, or undefined when the dtype has no prepared form. */
  gemmActivations(dtype: DTypeName): ActivationDType | undefined
  kvPageBytes(kv: Omit<KvSpec, 'pages'>): number
  /** Bytes of the prepared form, 0 when there is none. */
  preparedBytes(dtype: DTypeName | RowwiseDType, rows: number, cols: number): number
}
