/** Tables of embeddings as ops of a program name them. */
import { isRowwise, rowBytes, type TableDType } from '../tensor.js'
import type { Program, WeightSpec } from './program.js'

/** A table [rows, cols] as a file holds it; `region` numbers the file. */
export interface TableSource {
  readonly name: string
  readonly dtype: TableDType
  readonly rows: number
  readonly cols: number
  readonly region: number
  readonly offset: number
  /** Bytes between rows; default: what a row needs. */
  readonly stride?: number
  /** Where the scale and bias of a row-wise format are: behind the codes (default), or before them as in FBGEMM's table-batched rows. */
  readonly parameters?: 'first' | 'last'
}

/** In order of native/kernels/recommend/recommend.h. */
export const poolings = ['sum', 'mean', 'max'] as const
/** How the rows of a bag become one. */
export type Pooling = (typeof poolings)[number]
export const bagOutputs = ['f32', 'f16', 'bf16'] as const
/** What pooled rows are rounded to. */
export type BagOutput = (typeof bagOutputs)[number]

export const pairKinds = ['lower', 'lower-and-itself', 'upper'] as const
/** Vectors that each vector is multiplied by: those before it, those before it and itself, those behind it. */
export type Pairs = (typeof pairKinds)[number]
/** The vectors [first, end) that vector i of so many is multiplied by. */
export const partners = (pairs: Pairs, vectors: number, i: number): [first: number, end: number] =>
  pairs === 'upper' ? [i + 1, vectors] : [0, pairs === 'lower' ? i : i + 1]
export const pairCount = (pairs: Pairs, vectors: number): number =>
  (vectors * (pairs === 'lower-and-itself' ? vectors + 1 : vectors - 1)) / 2

export interface EmbeddingBagOptions {
  pooling: Pooling
  /** 'mapped': rows are read from the file; 'copied': from a copy on huge pages, which counts against the memory budget. */
  placement: 'mapped' | 'copied'
  /** The first of the step's bag inputs that the tables read; default: those that no op has read yet. */
  firstBag?: number
  /** Default f32. Floats of 16 bits come two in a u32, which no other op reads. */
  output?: BagOutput
}

export const tableWeight = (table: TableSource, placement: 'mapped' | 'copied'): WeightSpec => {
  const { name, dtype, rows, cols, region, offset, stride = rowBytes(dtype, cols), parameters = 'last' } = table
  const place = { name, dtype, rows, cols, region, offset, stride, form: placement }
  return isRowwise(dtype) ? { ...place, parameters } : place
}

/** The parts of an embedding_bag's arguments. */
export const bagArguments = (args: readonly number[]) => {
  const [out = 0, firstTable = 0, count = 0, firstBag = 0, pooling = 0, output = 0] = args
  return { out, firstTable, count, firstBag, pooling: poolings[pooling]!, output: bagOutputs[output]! }
}

/** The table that a bag input is for: the first that reads it. */
export const tableOfBags = (program: Program, input: number): WeightSpec | undefined => {
  for (const { op, args } of program.ops) {
    if (op !== 'embedding_bag') continue
    const { firstTable, count, firstBag } = bagArguments(args)
    if (input >= firstBag && input < firstBag + count) return program.weights[firstTable + input - firstBag]
  }
  return undefined
}
