/**
 * What callers ask: dense features and bags of indices per table. A request that waits for its step is copied at the call,
 * each array once, and the copy is what is checked and used: its owner may write into it meanwhile. A synchronous one is
 * used as it is; the device checks its own copy again.
 */
import { types } from 'node:util'
import { checkOptions } from '../check.js'
import { DroverError, refusedMemory } from '../errors.js'
import type { Bags, IndexPolicy } from '../program/bags.js'

/** What is asked of a recommender. */
export interface ScoreRequest {
  /** [batch, features] */
  readonly dense: Float32Array
  /** One per table. */
  readonly sparse: readonly Bags[]
}

/** What a model takes. */
export interface RequestShape {
  readonly denseFeatures: number
  readonly tables: readonly { readonly name: string; readonly rows: number }[]
  readonly policy: IndexPolicy
  /** Maxima have no weights. */
  readonly weighted: boolean
}

/** Checked bags of one table. */
export interface OwnBags {
  readonly indices: Int32Array
  readonly offsets: Int32Array
  readonly weights: Float32Array | undefined
}

/** A checked request: a copy, or the caller's arrays while the caller waits. */
export interface OwnRequest {
  readonly batch: number
  readonly dense: Float32Array
  readonly bags: readonly OwnBags[]
}

const argument = (field: string, found: unknown, expected: string, hint?: string): DroverError =>
  new DroverError('E_ARGUMENT', `expected ${expected} for ${field}`, { field, found, expected, ...(hint && { hint }) })

const shape = (what: string, field: string, found: unknown, expected: unknown, hint?: string): DroverError =>
  new DroverError('E_SHAPE', what, { field, found, expected, ...(hint && { hint }) })

/** The kind of a value, for errors: what was given may be large. */
const kindOf = (value: unknown): string =>
  value === null ? 'null' : typeof value !== 'object' ? typeof value : (value.constructor?.name ?? 'an object')

/** More indices than this in one table would not fit 32-bit offsets. */
const mostIndices = 2 ** 31 - 1

/**
 * Integers as 32-bit ones. One that is too large for them is larger than any table or offset, and becomes the largest
 * or the smallest. `refuse` is told of the first that does.
 */
const narrowed = (values: BigInt64Array, refuse: (position: number, value: bigint) => void): Int32Array => {
  const copy = new BigInt64Array(values)
  const words = new Int32Array(copy.buffer) // low half first
  const out = new Int32Array(copy.length)
  for (let i = 0; i < out.length; i++) {
    const low = words[2 * i] as number
    const high = words[2 * i + 1] as number
    if (high === low >> 31) out[i] = low
    else {
      refuse(i, copy[i] as bigint)
      out[i] = high < 0 ? -(2 ** 31) : 2 ** 31 - 1
    }
  }
  return out
}

const integers = (
  field: string,
  values: unknown,
  borrow: boolean,
  refuse: (position: number, value: bigint) => void,
): Int32Array => {
  // By the constructor: `slice` would ask the caller's class which array to make.
  if (types.isInt32Array(values)) return borrow ? values : new Int32Array(values)
  if (types.isBigInt64Array(values)) return narrowed(values, refuse)
  throw argument(field, kindOf(values), 'an Int32Array or a BigInt64Array')
}

/** Which bag a position lies in. */
const bagOf = (offsets: Int32Array, position: number): number => {
  let [low, high] = [0, offsets.length - 1]
  while (high - low > 1) {
    const middle = (low + high) >> 1
    if ((offsets[middle] as number) <= position) low = middle
    else high = middle
  }
  return low
}

const checkOffsets = (field: string, table: string, offsets: Int32Array, batch: number, indices: number): void => {
  if (offsets.length !== batch + 1) {
    throw shape(
      `table ${table} has the wrong number of offsets`,
      field,
      offsets.length,
      batch + 1,
      'one per row of dense, and the number of indices at the end',
    )
  }
  if (offsets[0] !== 0) throw range(`the offsets of table ${table} do not begin with 0`, `${field}[0]`, offsets[0], 0)
  for (let i = 0; i < batch; i++) {
    if ((offsets[i + 1] as number) >= (offsets[i] as number)) continue
    throw range(
      `the offsets of table ${table} decrease behind bag ${i}`,
      `${field}[${i + 1}]`,
      offsets[i + 1],
      `at least ${offsets[i]}`,
    )
  }
  if (offsets[batch] !== indices) {
    throw range(
      `the offsets of table ${table} do not end with the number of indices`,
      `${field}[${batch}]`,
      offsets[batch],
      indices,
    )
  }
}

const range = (what: string, field: string, found: unknown, expected: unknown): DroverError =>
  new DroverError('E_RANGE', what, { field, found, expected })

/** The error of indices[at], which a table does not have; its position is the one in its bag. */
export const indexError = (
  table: { readonly name: string; readonly rows: number },
  field: string,
  offsets: Int32Array,
  at: number,
  value: number | bigint,
): DroverError => {
  const bag = bagOf(offsets, at)
  return range(
    `an index is out of range: table ${table.name}, bag ${bag}, position ${at - (offsets[bag] as number)}`,
    `${field}[${at}]`,
    value,
    `from 0 to ${table.rows - 1}`,
  )
}

const checkedBags = (given: unknown, i: number, batch: number, model: RequestShape, borrow: boolean): OwnBags => {
  const { tables, policy, weighted } = model
  const name = `request.sparse[${i}]`
  const table = tables[i] as RequestShape['tables'][number]
  const bags = checkOptions(name, given, ['indices', 'offsets', 'weights'])
  let huge: { position: number; value: bigint } | undefined
  const indices = integers(`${name}.indices`, bags['indices'], borrow, (position, value) => {
    if (policy === 'error') huge ??= { position, value }
  })
  if (indices.length > mostIndices) throw range('too many indices', `${name}.indices`, indices.length, mostIndices)
  const offsets = integers(`${name}.offsets`, bags['offsets'], borrow, (position, value) => {
    throw range(
      `an offset of table ${table.name} is out of range`,
      `${name}.offsets[${position}]`,
      value,
      indices.length,
    )
  })
  checkOffsets(`${name}.offsets`, table.name, offsets, batch, indices.length)
  if (huge !== undefined) {
    const { position, value } = huge
    throw indexError(table, `${name}.indices`, offsets, position, value)
  }
  const given32 = bags['weights']
  if (given32 === undefined) return { indices, offsets, weights: undefined }
  if (!types.isFloat32Array(given32)) throw argument(`${name}.weights`, kindOf(given32), 'a Float32Array')
  if (!weighted) {
    throw argument(
      `${name}.weights`,
      'weights',
      'none',
      'the model takes the maximum of each bag, which has no weights',
    )
  }
  const weights = borrow ? given32 : new Float32Array(given32)
  if (weights.length !== indices.length) {
    throw shape(`table ${table.name} has one weight per index`, `${name}.weights`, weights.length, indices.length)
  }
  return { indices, offsets, weights }
}

/**
 * Checks a request; indices are compared with their tables when the step runs, unless 32 bits cannot hold them. `borrow`:
 * with the caller's arrays, who waits for the result. Throws E_ARGUMENT, E_SHAPE, E_MEMORY or E_RANGE with the table, bag,
 * position and value.
 */
export const checkRequest = (request: unknown, model: RequestShape, borrow: boolean): OwnRequest => {
  try {
    return checked(request, model, borrow)
  } catch (error) {
    throw error instanceof RangeError ? refusedMemory('a copy of the request', error) : error
  }
}

const checked = (request: unknown, model: RequestShape, borrow: boolean): OwnRequest => {
  const given = checkOptions('request', request, ['dense', 'sparse'])
  const { dense: floats, sparse } = given
  if (!types.isFloat32Array(floats)) throw argument('request.dense', kindOf(floats), 'a Float32Array')
  if (!Array.isArray(sparse)) throw argument('request.sparse', kindOf(sparse), 'an array of bags')
  const { denseFeatures, tables } = model
  const dense = borrow ? floats : new Float32Array(floats)
  const batch = dense.length / denseFeatures
  if (!Number.isInteger(batch)) {
    throw shape('dense holds whole rows', 'request.dense', dense.length, `a multiple of ${denseFeatures}`)
  }
  if (sparse.length !== tables.length) {
    throw shape('there are bags for each table', 'request.sparse', sparse.length, tables.length)
  }
  return { batch, dense, bags: tables.map((_, i) => checkedBags(sparse[i], i, batch, model, borrow)) }
}
