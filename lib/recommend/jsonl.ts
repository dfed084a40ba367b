/**
 * Requests as lines of JSON, as `drover rank` reads them:
 *
 *   {"id": 7, "dense": [[0.1, 2], [0.3, 1]], "sparse": [[[1, 2], [3]], [5, 6], 9], "items": ["a", "b"], "label": [0, 1]}
 *
 * `dense` has a list of features per row, or one flat list for a single row. `sparse` has an entry per table: a bag per row
 * (`[[1, 2], [3]]`), one index per row (`[5, 6]`; for a single row, its bag), one index for all rows (`9`), or
 * `{"indices": [...], "offsets": [...], "weights": [...]}` as in the API. Only `dense` and `sparse` must be there.
 */
import { DroverError } from '../errors.js'
import type { Bags } from '../program/bags.js'
import type { ScoreRequest } from './request.js'

/** One line: what is asked, and what the caller wants to see beside the answers. */
export interface RequestLine {
  readonly id: string | number | undefined
  readonly request: ScoreRequest
  readonly rows: number
  /** Names of the rows. */
  readonly items: readonly string[] | undefined
  /** What happened: 0 or 1 per row. */
  readonly labels: readonly number[] | undefined
}

/** Where a line stands, for errors. */
export interface LinePlace {
  readonly file: string
  readonly line: number
}

const describe = (value: unknown): unknown =>
  Array.isArray(value) ? `an array of ${value.length}` : value === undefined ? 'nothing' : value

type Refuse = (field: string, found: unknown, expected: string) => DroverError

const refusalsOf =
  ({ file, line }: LinePlace): Refuse =>
  (field, found, expected) =>
    new DroverError('E_FORMAT', `line ${line} is no request`, {
      file,
      field: `line ${line}: ${field}`,
      found: describe(found),
      expected,
    })

const isInteger = (value: unknown): value is number => Number.isSafeInteger(value)

/** Indices as the narrowest array that holds them: what no table has is judged where all requests are. */
const integers = (values: readonly unknown[], field: string, refuse: Refuse): Int32Array | BigInt64Array => {
  let wide = false
  for (const [i, value] of values.entries()) {
    if (!isInteger(value)) throw refuse(`${field}[${i}]`, value, 'an integer')
    wide ||= value !== (value | 0)
  }
  const checked = values as readonly number[]
  return wide ? BigInt64Array.from(checked, BigInt) : Int32Array.from(checked)
}

const floats = (values: unknown, field: string, refuse: Refuse): Float32Array => {
  if (!Array.isArray(values)) throw refuse(field, values, 'an array of numbers')
  const wrong = values.findIndex((value) => typeof value !== 'number' || !Number.isFinite(Math.fround(value)))
  if (wrong !== -1) throw refuse(`${field}[${wrong}]`, values[wrong], 'a number that is finite in 32 bits')
  return Float32Array.from(values as number[])
}

const denseOf = (dense: unknown, features: number, refuse: Refuse): { data: Float32Array; rows: number } => {
  if (!Array.isArray(dense)) throw refuse('dense', dense, 'an array of rows')
  const rows: unknown[] = dense.length > 0 && !Array.isArray(dense[0]) ? [dense] : dense
  const data = new Float32Array(rows.length * features)
  for (const [i, row] of rows.entries()) {
    const values = floats(row, `dense[${i}]`, refuse)
    if (values.length !== features) throw refuse(`dense[${i}]`, row, `${features} features`)
    data.set(values, i * features)
  }
  return { data, rows: rows.length }
}

/** One index in every row. */
const oneEach = (indices: readonly unknown[], field: string, refuse: Refuse): Bags => ({
  indices: integers(indices, field, refuse),
  offsets: Int32Array.from({ length: indices.length + 1 }, (_, i) => i),
})

const bagsOf = (given: unknown, field: string, rows: number, refuse: Refuse): Bags => {
  if (typeof given === 'number') return oneEach(new Array(rows).fill(given), field, refuse)
  if (!Array.isArray(given)) return explicitBags(given, field, refuse)
  if (given.length > 0 && !Array.isArray(given[0])) {
    if (rows === 1) {
      return { indices: integers(given, field, refuse), offsets: Int32Array.of(0, given.length) }
    }
    if (given.length !== rows) throw refuse(field, given, `one index for each of ${rows} rows`)
    return oneEach(given, field, refuse)
  }
  // An empty list is an empty bag of a single row.
  const bags: unknown[] = rows === 1 && given.length === 0 ? [[]] : given
  if (bags.length !== rows) throw refuse(field, given, `one bag for each of ${rows} rows`)
  const offsets = new Int32Array(rows + 1)
  const indices: unknown[] = []
  for (const [i, bag] of bags.entries()) {
    if (!Array.isArray(bag)) throw refuse(`${field}[${i}]`, bag, 'a bag of indices')
    for (const index of bag) indices.push(index)
    offsets[i + 1] = indices.length
  }
  return { indices: integers(indices, field, refuse), offsets }
}

const explicitBags = (given: unknown, field: string, refuse: Refuse): Bags => {
  if (typeof given !== 'object' || given === null) {
    throw refuse(field, given, 'bags: a list per row, an index per row, one index, or indices and offsets')
  }
  const { indices, offsets, weights } = given as Record<string, unknown>
  const list = (name: string, values: unknown): Int32Array | BigInt64Array => {
    if (!Array.isArray(values)) throw refuse(`${field}.${name}`, values, 'an array of integers')
    return integers(values, `${field}.${name}`, refuse)
  }
  return {
    indices: list('indices', indices),
    offsets: list('offsets', offsets),
    ...(weights === undefined ? {} : { weights: floats(weights, `${field}.weights`, refuse) }),
  }
}

const perRow = <T>(
  field: string,
  values: unknown,
  rows: number,
  fits: (value: unknown) => value is T,
  expected: string,
  refuse: Refuse,
): readonly T[] | undefined => {
  if (values === undefined) return undefined
  if (!Array.isArray(values) || values.length !== rows || !values.every(fits)) {
    throw refuse(field, values, `${expected} for each of ${rows} rows`)
  }
  return values
}

/** Reads one line. Throws E_FORMAT with the file, the line and the place in it. */
export const parseRequestLine = (
  text: string,
  { denseFeatures, tables }: { readonly denseFeatures: number; readonly tables: readonly unknown[] },
  place: LinePlace,
): RequestLine => {
  const refuse = refusalsOf(place)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw refuse('JSON', (error as Error).message, 'an object with dense and sparse')
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw refuse('JSON', value, 'an object with dense and sparse')
  }
  const { id, dense, sparse, items, label } = value as Record<string, unknown>
  if (id !== undefined && typeof id !== 'string' && typeof id !== 'number') throw refuse('id', id, 'a text or a number')
  const { data, rows } = denseOf(dense, denseFeatures, refuse)
  if (!Array.isArray(sparse) || sparse.length !== tables.length) {
    throw refuse('sparse', sparse, `an entry for each of ${tables.length} tables`)
  }
  const isText = (item: unknown): item is string => typeof item === 'string'
  const isLabel = (item: unknown): item is number => item === 0 || item === 1
  return {
    id,
    rows,
    request: { dense: data, sparse: sparse.map((bags, t) => bagsOf(bags, `sparse[${t}]`, rows, refuse)) },
    items: perRow('items', items, rows, isText, 'a name', refuse),
    labels: perRow('label', label, rows, isLabel, '0 or 1', refuse),
  }
}

/** An error of a request, with the line that it stands in. */
export const atLine = (error: unknown, { file, line }: LinePlace): unknown => {
  if (!(error instanceof DroverError) || error.file !== undefined) return error
  const { code, what, field, found, expected, hint } = error
  return new DroverError(code, `line ${line} is refused: ${what}`, {
    file,
    ...(field === undefined ? {} : { field }),
    found,
    expected,
    ...(hint === undefined ? {} : { hint }),
    cause: error,
  })
}
