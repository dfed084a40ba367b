/** Checks of the arguments that kernels share. Arrays are copied here: what is checked is what is used. */
import { createHash } from 'node:crypto'
import { checkInstance, checkInteger, checkNumber, checkOneOf } from '../check.js'
import { DroverError } from '../errors.js'
import { type DTypeName, dtypes, type RowwiseDType, rowBytes } from '../tensor.js'
import { mostCols, mostRows } from './eager.js'

/** Rows and columns of a row-major matrix. */
export type Shape = readonly [rows: number, cols: number]

/** Number formats that weights may have: every format of a file that holds real numbers. */
export type WeightDType = Exclude<DTypeName, 'u64' | 'u32' | 'u16' | 'u8' | 'bool'>

const integers: readonly string[] = ['u64', 'u32', 'u16', 'u8', 'bool']
export const weightDTypes = Object.keys(dtypes).filter((name) => !integers.includes(name)) as WeightDType[]

/** A matrix [rows, cols] of any number format, as a file stores it: little-endian, rows one after the other. */
export interface Weight {
  readonly dtype: WeightDType
  readonly data: ArrayBufferView
  readonly shape: Shape
  /**
   * [rows, groups]: what equal parts of each row are multiplied by. i8 and f8_e4m3 have one group, i4 groups of whole
   * 32s. Weights of 8 bits that have scales multiply activations of 8 bits with one scale per row.
   */
  readonly scales?: Float32Array
  /** f8_e4m3 with scales: what the maximum of an activation's row counts as at most; what exceeds it is cut. */
  readonly activationBound?: number
}

export const checkShape = (name: string, value: unknown): Shape => {
  if (!Array.isArray(value) || value.length !== 2) {
    throw new DroverError('E_ARGUMENT', `expected [rows, cols] for ${name}`, { field: name, found: value })
  }
  return [checkInteger(`${name}[0]`, value[0], 1, mostRows), checkInteger(`${name}[1]`, value[1], 1, mostCols)]
}

const refuseLength = (name: string, found: number, expected: number | string): never => {
  throw new DroverError('E_SHAPE', `${name} has the wrong length`, { field: name, found, expected })
}

/** A copy of f32 values [rows, cols]. */
export const checkMatrix = (name: string, value: unknown, [rows, cols]: Shape): Float32Array => {
  const copy = checkInstance(name, value, Float32Array).slice()
  return copy.length === rows * cols ? copy : refuseLength(name, copy.length, rows * cols)
}

/** A copy of f32 rows of `cols` elements; at least one. */
export const checkRows = (name: string, value: unknown, cols: number): Float32Array => {
  const copy = checkInstance(name, value, Float32Array).slice()
  const rows = copy.length / cols
  if (rows > 0 && Number.isInteger(rows) && rows <= mostRows) return copy
  return refuseLength(name, copy.length, `rows of ${cols}, at least one and at most ${mostRows}`)
}

/** A copy of the bytes of any view. */
const bytesOf = (name: string, value: unknown): Uint8Array => {
  if (!ArrayBuffer.isView(value)) {
    throw new DroverError('E_ARGUMENT', `expected a typed array for ${name}`, { field: name, found: typeof value })
  }
  return new Uint8Array(value.buffer, value.byteOffset, value.byteLength).slice()
}

/** A copy of stored rows. */
export const checkStored = (name: string, dtype: DTypeName | RowwiseDType, data: unknown, shape: Shape): Uint8Array => {
  const bytes = bytesOf(name, data)
  const expected = rowBytes(dtype, shape[1]) * shape[0]
  return bytes.length === expected ? bytes : refuseLength(name, bytes.length, `${expected} bytes`)
}

export interface CheckedWeight {
  readonly dtype: WeightDType
  readonly bytes: Uint8Array
  readonly rows: number
  readonly cols: number
  readonly scales: Float32Array | undefined
  readonly activationBound: number | undefined
}

/** A copy of a weight's scales. */
const checkScales = (name: string, value: unknown, dtype: DTypeName, rows: number, cols: number): Float32Array => {
  const copy = checkInstance(name, value, Float32Array).slice()
  const groups = copy.length / rows
  const fits =
    dtype === 'i4'
      ? Number.isInteger(groups) && cols % (groups * 32) === 0
      : /^(i8|f8_e4m3)$/.test(dtype) && groups === 1
  if (fits && groups > 0) return copy
  throw new DroverError('E_SHAPE', `${name} does not fit its weight`, {
    field: name,
    found: `${copy.length} scales for ${dtype} [${rows}, ${cols}]`,
    expected: 'one per row of i8 or f8_e4m3, or one per group of a multiple of 32 of i4',
  })
}

/** What no kernel would look at is refused. */
const checkBound = (name: string, value: unknown, dtype: DTypeName, scales: unknown): number => {
  if (dtype === 'f8_e4m3' && scales !== undefined) return checkNumber(name, value, 1e-12, Number.MAX_VALUE)
  throw new DroverError('E_ARGUMENT', 'this weight has no use for a bound on activations', {
    field: name,
    found: dtype === 'f8_e4m3' ? 'f8_e4m3 without scales' : dtype,
    expected: 'f8_e4m3 with scales',
  })
}

export const checkWeight = (name: string, value: unknown): CheckedWeight => {
  if (typeof value !== 'object' || value === null) {
    throw new DroverError('E_ARGUMENT', `expected { dtype, data, shape } for ${name}`, { field: name, found: value })
  }
  const { dtype, data, shape, scales, activationBound } = value as Partial<Weight>
  const type = checkOneOf(`${name}.dtype`, dtype, weightDTypes)
  if (!Array.isArray(shape) || shape.length !== 2) {
    throw new DroverError('E_ARGUMENT', `expected [rows, cols] for ${name}.shape`, {
      field: `${name}.shape`,
      found: shape,
    })
  }
  const rows = checkInteger(`${name}.shape[0]`, shape[0], 1, mostCols)
  const cols = checkInteger(`${name}.shape[1]`, shape[1], 1, mostCols)
  return {
    dtype: type,
    bytes: checkStored(`${name}.data`, type, data, [rows, cols]),
    rows,
    cols,
    scales: scales === undefined ? undefined : checkScales(`${name}.scales`, scales, type, rows, cols),
    activationBound:
      activationBound === undefined ? undefined : checkBound(`${name}.activationBound`, activationBound, type, scales),
  }
}

/** A short name for content, so that programs that hold it can be found again. */
export const contentKey = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('base64')

export const bytesOfFloats = (values: Float32Array): Uint8Array =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
