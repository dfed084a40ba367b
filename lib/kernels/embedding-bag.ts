/** Pooled lookups in tables of embeddings. */
import { checkInteger, checkOneOf, checkOptions } from '../check.js'
import { DroverError, throwIfAborted } from '../errors.js'
import { type Bags, type IndexPolicy, indexPolicies } from '../program/bags.js'
import type { ProgramBuilder } from '../program/builder.js'
import type { RegionSource } from '../program/program.js'
import { bagStep } from '../program/step.js'
import { type BagOutput, bagOutputs, type Pooling, poolings, type TableSource } from '../program/tables.js'
import { isRowwise, rowBytes, type TableDType, tableDTypes } from '../tensor.js'
import {
  type AsyncOptions,
  type Call,
  load,
  loadSync,
  mostRows,
  type Operands,
  type Recipe,
  run,
  runAsync,
  runOn,
  runOnAsync,
  takeSignal,
} from './eager.js'
import type { Shape } from './operands.js'

/** A table of embeddings [rows, cols], as a file or FBGEMM stores it. */
export interface EmbeddingTable {
  readonly dtype: TableDType
  readonly data: ArrayBufferView
  readonly shape: Shape
  /** Bytes from one row to the next; default: what a row needs. */
  readonly stride?: number
  /** Where row-wise formats have scale and bias: behind the codes (default), or before them. */
  readonly parameters?: 'first' | 'last'
}

/** How lookups are pooled, and what comes out. */
export interface EmbeddingBagOptions {
  /** Default 'sum'. A mean divides by the number of lookups; a maximum takes no weights. An empty bag is 0. */
  pooling?: Pooling
  /** Default f32; f16 and bf16 come as bit patterns. */
  output?: BagOutput
  /** What becomes of an index that is out of range; default 'error'. */
  indices?: IndexPolicy
}

/** What {@link embeddingBag} gives: bit patterns for 16-bit floats. */
export type Pooled<O extends EmbeddingBagOptions> = O extends { output: 'f16' | 'bf16' } ? Uint16Array : Float32Array

/** Indices are 32-bit integers. */
const mostTableRows = 2 ** 31 - 1
const mostTableCols = 4096

interface CheckedTables {
  readonly sources: readonly TableSource[]
  readonly regions: readonly RegionSource[]
  /** Of all tables together. */
  readonly cols: number
}

const viewOf = (field: string, value: unknown): Uint8Array => {
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength)
  throw new DroverError('E_ARGUMENT', `expected a typed array for ${field}`, { field, found: typeof value })
}

const checkTable = (name: string, value: unknown, region: number): { source: TableSource; data: Uint8Array } => {
  if (typeof value !== 'object' || value === null) {
    throw new DroverError('E_ARGUMENT', `expected { dtype, data, shape } for ${name}`, { field: name, found: value })
  }
  const { dtype: type, data: bytes, shape, stride: given, parameters = 'last' } = value as Partial<EmbeddingTable>
  const dtype = checkOneOf(`${name}.dtype`, type, tableDTypes)
  if (!Array.isArray(shape) || shape.length !== 2) {
    throw new DroverError('E_ARGUMENT', `expected [rows, cols] for ${name}.shape`, {
      field: `${name}.shape`,
      found: shape,
    })
  }
  const rows = checkInteger(`${name}.shape[0]`, shape[0], 1, mostTableRows)
  const cols = checkInteger(`${name}.shape[1]`, shape[1], 1, mostTableCols)
  const needed = rowBytes(dtype, cols)
  const stride = given === undefined ? needed : checkInteger(`${name}.stride`, given, needed, 2 ** 31)
  const data = viewOf(`${name}.data`, bytes)
  const length = stride * (rows - 1) + needed
  // A last row may be padded like the others, or end where its numbers do.
  if (data.length !== length && data.length !== stride * rows) {
    throw new DroverError('E_SHAPE', `${name}.data has the wrong length`, {
      field: `${name}.data`,
      found: data.length,
      expected: `${stride * rows} bytes`,
    })
  }
  checkOneOf(`${name}.parameters`, parameters, ['first', 'last'])
  const place = { name, dtype, rows, cols, region, offset: 0, stride }
  return { source: isRowwise(dtype) ? { ...place, parameters } : place, data }
}

const checkTables = (value: unknown): CheckedTables => {
  const tables = Array.isArray(value)
    ? value.map((table, i) => checkTable(`tables[${i}]`, table, i))
    : [checkTable('tables', value, 0)]
  if (tables.length === 0) throw new DroverError('E_ARGUMENT', 'expected a table or several', { field: 'tables' })
  return {
    sources: tables.map(({ source }) => source),
    regions: tables.map(({ data }) => ({ data })),
    cols: tables.reduce((sum, { source }) => sum + source.cols, 0),
  }
}

const isIntegers = (value: unknown): value is Int32Array | BigInt64Array =>
  value instanceof Int32Array || value instanceof BigInt64Array

const checkBags = (value: unknown, tables: number): readonly Bags[] => {
  const bags: readonly unknown[] = Array.isArray(value) ? value : [value]
  const named = (i: number): string => (Array.isArray(value) ? `bags[${i}]` : 'bags')
  if (bags.length !== tables) {
    throw new DroverError('E_SHAPE', 'there are bags for every table', {
      field: 'bags',
      found: bags.length,
      expected: tables,
    })
  }
  return bags.map((entry, i) => {
    const { indices, offsets, weights } = (entry ?? {}) as Partial<Bags>
    for (const [key, numbers] of Object.entries({ indices, offsets })) {
      if (isIntegers(numbers)) continue
      const field = `${named(i)}.${key}`
      throw new DroverError('E_ARGUMENT', `expected an Int32Array or a BigInt64Array for ${field}`, { field })
    }
    if (weights !== undefined && !(weights instanceof Float32Array)) {
      const field = `${named(i)}.weights`
      throw new DroverError('E_ARGUMENT', `expected a Float32Array for ${field}`, { field })
    }
    return { indices, offsets, weights } as Bags
  })
}

const checkBagOptions = (input: unknown): Required<EmbeddingBagOptions> => {
  const { pooling, output, indices } = checkOptions('options', input, ['pooling', 'output', 'indices'])
  return {
    pooling: checkOneOf('options.pooling', pooling ?? 'sum', poolings),
    output: checkOneOf('options.output', output ?? 'f32', bagOutputs),
    indices: checkOneOf('options.indices', indices ?? 'error', indexPolicies),
  }
}

const recipeOf = (tables: CheckedTables, { pooling, output }: Required<EmbeddingBagOptions>, rows: number): Recipe => ({
  key: undefined,
  rows,
  regions: tables.regions,
  build: (b: ProgramBuilder) =>
    // The bytes are copied into memory of the addon already.
    b.output('out', b.embeddingBag('bags', tables.sources, { pooling, output, placement: 'mapped' })),
})

/** The rows of the output, without what rounds 16-bit rows up to whole words. */
const readRows = (operands: Operands, rows: number, cols: number, output: BagOutput): Float32Array | Uint16Array => {
  if (output === 'f32') return operands.read('out', rows)
  const words = operands.readWords('out', rows)
  const codes = new Uint16Array(words.buffer, words.byteOffset, words.length * 2)
  const width = rows === 0 ? cols : codes.length / rows
  if (width === cols) return codes
  const out = new Uint16Array(rows * cols)
  for (let row = 0; row < rows; row++) out.set(codes.subarray(row * width, row * width + cols), row * cols)
  return out
}

const workOf = (
  bags: readonly Bags[],
  cols: number,
  { output, indices }: Required<EmbeddingBagOptions>,
): Call<Float32Array | Uint16Array>['work'] =>
  function* (operands: Operands) {
    const rows = rowsOf(bags)
    yield bagStep(rows, bags, indices)
    return readRows(operands, rows, cols, output)
  }

const rowsOf = ([first]: readonly Bags[], most = mostRows): number => {
  const rows = (first as Bags).offsets.length - 1
  if (rows >= 0 && rows <= most) return rows
  throw new DroverError('E_RANGE', 'there are more bags than rows to write, or not even one offset', {
    field: 'bags',
    found: rows,
    expected: `0 to ${most}`,
  })
}

/** What is checked is what is used: a call that waits must not see its arrays change. */
const copyOf = ({ indices, offsets, weights }: Bags): Bags => ({
  indices: indices.slice(),
  offsets: offsets.slice(),
  weights: weights?.slice(),
})

const embeddingBagCall = (tables: unknown, bags: unknown, input: unknown): Call<Float32Array | Uint16Array> => {
  const options = checkBagOptions(input)
  const checked = checkTables(tables)
  const copies = checkBags(bags, checked.sources.length).map(copyOf)
  return { recipe: recipeOf(checked, options, rowsOf(copies)), work: workOf(copies, checked.cols, options) }
}

/**
 * Sums, means or maxima of the rows that each bag looks up, in one table or in several at once.
 *
 * Every call copies the tables: {@link PreparedTables} does that once. A row's sum does not depend on threads, other bags
 * or the instruction set; bags of more than 4,096 lookups are summed in parts of that many.
 * @param tables one table, or several whose pooled rows then stand side by side
 * @param bags lookups per table; all tables have the same number of bags B
 * @returns [B, sum of the tables' cols]
 * @throws DroverError E_ARGUMENT, E_SHAPE, E_MEMORY; E_RANGE naming table, bag, position and value
 */
export const embeddingBag = <O extends EmbeddingBagOptions = Record<never, never>>(
  tables: EmbeddingTable | readonly EmbeddingTable[],
  bags: Bags | readonly Bags[],
  options?: O,
): Pooled<O> => run(embeddingBagCall(tables, bags, options)) as Pooled<O>

/** {@link embeddingBag} off the event loop. */
export const embeddingBagAsync = async <O extends EmbeddingBagOptions = Record<never, never>>(
  tables: EmbeddingTable | readonly EmbeddingTable[],
  bags: Bags | readonly Bags[],
  options?: O & AsyncOptions,
): Promise<Pooled<O>> => {
  const [signal, rest] = takeSignal(options)
  return (await runAsync(embeddingBagCall(tables, bags, rest), signal)) as Pooled<O>
}

/** Tables that are copied and checked once, onto huge pages where the system has them, for many calls. */
export class PreparedTables<O extends EmbeddingBagOptions = Record<never, never>> {
  readonly maxBags: number
  /** Of a pooled row. */
  readonly cols: number
  readonly #tables: number
  readonly #options: Required<EmbeddingBagOptions>
  #operands: Operands | undefined

  private constructor(
    tables: CheckedTables,
    maxBags: number,
    options: Required<EmbeddingBagOptions>,
    operands: Operands,
  ) {
    this.maxBags = maxBags
    this.cols = tables.cols
    this.#tables = tables.sources.length
    this.#options = options
    this.#operands = operands
  }

  /** @param maxBags most bags per table that {@link pool} will be given; memory is set aside for their rows */
  static prepare<O extends EmbeddingBagOptions = Record<never, never>>(
    tables: EmbeddingTable | readonly EmbeddingTable[],
    maxBags: number,
    options?: O,
  ): PreparedTables<O> {
    const { checked, rows, settings } = PreparedTables.#check(tables, maxBags, options)
    return new PreparedTables<O>(checked, rows, settings, loadSync(recipeOf(checked, settings, rows)))
  }

  /** {@link prepare} off the event loop. */
  static async prepareAsync<O extends EmbeddingBagOptions = Record<never, never>>(
    tables: EmbeddingTable | readonly EmbeddingTable[],
    maxBags: number,
    options?: O & AsyncOptions,
  ): Promise<PreparedTables<O>> {
    const [signal, rest] = takeSignal(options)
    const { checked, rows, settings } = PreparedTables.#check(tables, maxBags, rest)
    return new PreparedTables<O>(checked, rows, settings, await load(recipeOf(checked, settings, rows), signal))
  }

  static #check(tables: unknown, maxBags: unknown, options: unknown) {
    const settings = checkBagOptions(options)
    return { checked: checkTables(tables), rows: checkInteger('maxBags', maxBags, 1, mostRows), settings }
  }

  /** As {@link embeddingBag}. One call at a time: E_BUSY otherwise. */
  pool(bags: Bags | readonly Bags[]): Pooled<O> {
    return runOn(this.#open(), { work: this.#work(bags) }) as Pooled<O>
  }

  /** {@link pool} off the event loop; arrays are copied before it returns. */
  async poolAsync(bags: Bags | readonly Bags[], options?: AsyncOptions): Promise<Pooled<O>> {
    const [signal, rest] = takeSignal(options)
    checkOptions('options', rest, [])
    throwIfAborted(signal, 'the lookup')
    return (await runOnAsync(this.#open(), { work: this.#work(bags) }, signal)) as Pooled<O>
  }

  /** Indices that the last call skipped or clamped. */
  bagCounts(): { skipped: number; clamped: number } {
    return this.#open().loaded.bagCounts()
  }

  /** Frees the memory, after a call in flight has been aborted. Idempotent. */
  async close(): Promise<void> {
    const operands = this.#operands
    this.#operands = undefined
    await operands?.loaded.close()
  }

  #open(): Operands {
    if (this.#operands !== undefined) return this.#operands
    throw new DroverError('E_CLOSED', 'the tables have been closed')
  }

  #work(bags: unknown): Call<Float32Array | Uint16Array>['work'] {
    const checked = checkBags(bags, this.#tables)
    rowsOf(checked, this.maxBags)
    return workOf(checked, this.cols, this.#options)
  }
}
