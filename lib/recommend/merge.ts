/** Parts of requests put together into one step, and which of them a step failed for. */
import type { DroverError } from '../errors.js'
import { indexError, type OwnBags, type OwnRequest, type RequestShape } from './request.js'

/** Rows [from, from + rows) of a request. */
export interface Part {
  readonly request: OwnRequest
  readonly from: number
  readonly rows: number
}

/** Indices that a part looks up. */
export const lookupsOf = ({ request, from, rows }: Part): number =>
  request.bags.reduce((sum, { offsets }) => sum + (offsets[from + rows] as number) - (offsets[from] as number), 0)

/** Inputs of one step. */
export interface MergedRows {
  readonly rows: number
  readonly dense: Float32Array
  readonly bags: readonly OwnBags[]
}

const ends = (bags: OwnBags, { from, rows }: Part): [number, number] => [
  bags.offsets[from] as number,
  bags.offsets[from + rows] as number,
]

/** Below so many numbers a loop is faster than a view and a call. */
const fewNumbers = 48

/** Copies from[start, end) to `at`. */
const copy = <A extends Int32Array | Float32Array>(to: A, at: number, from: A, start: number, end: number): void => {
  if (end - start > fewNumbers) to.set(from.subarray(start, end), at)
  else for (let i = start; i < end; i++) to[at + i - start] = from[i] as number
}

/** Bags of table `t` of all parts. Where some have weights, the others have weights of 1, which give the same bits. */
const mergeBags = (parts: readonly Part[], t: number, rows: number): OwnBags => {
  let length = 0
  let weighted = false
  for (const part of parts) {
    const bags = part.request.bags[t] as OwnBags
    const [start, end] = ends(bags, part)
    length += end - start
    weighted ||= bags.weights !== undefined
  }
  const indices = new Int32Array(length)
  const offsets = new Int32Array(rows + 1)
  const weights = weighted ? new Float32Array(length).fill(1) : undefined
  let row = 0
  let at = 0
  for (const part of parts) {
    const bags = part.request.bags[t] as OwnBags
    const [start, end] = ends(bags, part)
    for (let i = 0; i < part.rows; i++) offsets[row + i] = (bags.offsets[part.from + i] as number) - start + at
    copy(indices, at, bags.indices, start, end)
    if (weights !== undefined && bags.weights !== undefined) copy(weights, at, bags.weights, start, end)
    row += part.rows
    at += end - start
  }
  offsets[rows] = length
  return { indices, offsets, weights }
}

/** The rows of all parts, in order. */
export const mergeParts = (parts: readonly Part[], features: number): MergedRows => {
  const [first] = parts as readonly [Part]
  const { request } = first
  // A request that has a step to itself is passed on as it is.
  if (parts.length === 1 && first.rows === request.batch) {
    return { rows: first.rows, dense: request.dense, bags: request.bags }
  }
  const rows = parts.reduce((sum, part) => sum + part.rows, 0)
  const dense = new Float32Array(rows * features)
  let row = 0
  for (const part of parts) {
    const { from } = part
    copy(dense, row * features, part.request.dense, from * features, (from + part.rows) * features)
    row += part.rows
  }
  return { rows, dense, bags: request.bags.map((_, t) => mergeBags(parts, t, rows)) }
}

/** The error of the first index of a part that its table does not have, by the places that the caller knows. */
export const findIndexError = (part: Part, { tables }: RequestShape): DroverError | undefined => {
  for (const [t, table] of tables.entries()) {
    const bags = part.request.bags[t] as OwnBags
    const [start, end] = ends(bags, part)
    for (let i = start; i < end; i++) {
      const value = bags.indices[i] as number
      if (value >= 0 && value < table.rows) continue
      return indexError(table, `request.sparse[${t}].indices`, bags.offsets, i, value)
    }
  }
  return undefined
}
