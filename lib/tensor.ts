/**
 * Number formats and tensor descriptions. Nothing here reads a file or touches the addon: formats produce
 * {@link TensorInfo}, models consume it, programs refer to it.
 */
import { DroverError } from './errors.js'

/** One stored number format: `block` consecutive elements of a row occupy `bytes` bytes. */
export interface DType {
  readonly name: string
  readonly block: number
  readonly bytes: number
}

const table = {
  f64: [1, 8],
  f32: [1, 4],
  f16: [1, 2],
  bf16: [1, 2],
  f8_e4m3: [1, 1],
  f8_e5m2: [1, 1],
  i64: [1, 8],
  i32: [1, 4],
  i16: [1, 2],
  i8: [1, 1],
  u64: [1, 8],
  u32: [1, 4],
  u16: [1, 2],
  u8: [1, 1],
  bool: [1, 1],
  q4_0: [32, 18],
  q4_1: [32, 20],
  q5_0: [32, 22],
  q5_1: [32, 24],
  q8_0: [32, 34],
  q2_k: [256, 84],
  q3_k: [256, 110],
  q4_k: [256, 144],
  q5_k: [256, 176],
  q6_k: [256, 210],
  q8_k: [256, 292],
  iq2_xxs: [256, 66],
  iq2_xs: [256, 74],
  iq2_s: [256, 82],
  iq3_xxs: [256, 98],
  iq3_s: [256, 110],
  iq1_s: [256, 50],
  iq1_m: [256, 56],
  iq4_nl: [32, 18],
  iq4_xs: [256, 136],
  tq1_0: [256, 54],
  tq2_0: [256, 66],
  mxfp4: [32, 17],
  i4: [32, 16],
} as const satisfies Record<string, readonly [number, number]>

export type DTypeName = keyof typeof table

/** Every number format a file may hold, by name. */
export const dtypes: Readonly<Record<DTypeName, DType>> = Object.fromEntries(
  Object.entries(table).map(([name, [block, bytes]]) => [name, { name, block, bytes }]),
) as unknown as Record<DTypeName, DType>

const rowwise = {
  i8_rowwise: [1, 1, 8],
  i8h_rowwise: [1, 1, 4],
  i4_rowwise: [2, 1, 4],
  i2_rowwise: [4, 1, 4],
} as const satisfies Record<string, readonly [number, number, number]>

/**
 * Formats of embedding rows: codes of 8, 4 or 2 bits, packed from the low bits up, with one scale and one bias per row
 * behind them, as FBGEMM has them: f32 in i8_rowwise, f16 in the others. No file has a name for them: they are bytes there.
 */
export type RowwiseDType = keyof typeof rowwise
export const rowwiseDTypes = Object.keys(rowwise) as RowwiseDType[]
export const isRowwise = (dtype: string): dtype is RowwiseDType => Object.hasOwn(rowwise, dtype)

/** Bytes of a row's scale and bias together. */
export const parameterBytes = (dtype: RowwiseDType): number => rowwise[dtype][2]

/** What the rows of an embedding table may be. */
export type TableDType = 'f32' | 'f16' | 'bf16' | RowwiseDType
export const tableDTypes: readonly TableDType[] = ['f32', 'f16', 'bf16', ...rowwiseDTypes]

/**
 * Where a tensor lies in a file. Shapes are in row-major order, slowest dimension first: a linear layer's
 * weight is [rows = outputs, cols = inputs], whatever order the container stores its dimensions in.
 */
export interface TensorInfo {
  readonly name: string
  readonly dtype: DTypeName
  readonly shape: readonly number[]
  /** Index into the source's list of files. */
  readonly file: number
  /** Byte offset from the start of that file. */
  readonly offset: number
  readonly bytes: number
}

export const elementCount = (shape: readonly number[]): number => shape.reduce((product, n) => product * n, 1)

/** Bytes of one row of `cols` elements. Throws E_SHAPE when the row of a file's format does not hold whole blocks. */
export const rowBytes = (dtype: DTypeName | RowwiseDType, cols: number): number => {
  if (isRowwise(dtype)) {
    const [block, bytes, parameters] = rowwise[dtype]
    return Math.ceil(cols / block) * bytes + parameters
  }
  const { block, bytes } = dtypes[dtype]
  if (cols % block !== 0) {
    throw new DroverError('E_SHAPE', `a row of ${dtype} holds whole blocks`, {
      found: `${cols} columns`,
      expected: `a multiple of ${block}`,
    })
  }
  return (cols / block) * bytes
}
