/**
 * Tables and layers that the config wants in another format than the files hold: converted into memory as a model is
 * loaded, or to where the caller keeps them. `drover quantize` does the same once and for all.
 */
import { convertRows } from '../convert/rows.js'
import { scaledTensor } from '../convert/scaled-tensor.js'
import { asStored } from '../convert/source.js'
import type { RowDType } from '../device/quantize.js'
import { DroverError } from '../errors.js'
import type { FileEntry } from '../format/file.js'
import {
  type LayerFormat,
  type OpenedRecommender,
  type RecommenderParts,
  tensorOfModule,
} from '../model/open-recommender.js'
import { type StoredTable, storageOf, type TableFormat } from '../model/tables.js'
import type { RegionSource } from '../program/program.js'
import { rowBytes, type TensorInfo } from '../tensor.js'

interface ConvertOptions {
  /** Bytes for all that is converted. */
  memoryBudget?: number | undefined
  threads?: number | undefined
  signal?: AbortSignal | undefined
  onProgress?: ((fraction: number, what: string) => void) | undefined
  /** Keeps what has been converted; default: in memory. */
  store?: ((data: Uint8Array) => Promise<RegionSource>) | undefined
}

/** What is computed with, and bytes of memory that it takes beside the files. */
export interface ConvertedParts {
  readonly parts: RecommenderParts
  readonly memory: number
}

class Conversion {
  readonly regions: RegionSource[]
  readonly #files: readonly FileEntry[]
  readonly #options: ConvertOptions
  readonly #total: number
  #done = 0
  memory = 0

  constructor({ weights, regions }: OpenedRecommender, total: number, options: ConvertOptions) {
    this.regions = [...regions]
    this.#files = weights.source.files
    this.#options = options
    this.#total = total
  }

  /** Bytes that a program can be loaded with: the number of their region. */
  async add(data: Uint8Array): Promise<number> {
    const { store } = this.#options
    if (store === undefined) return this.regions.push({ data }) - 1
    const region = await store(data)
    this.memory -= data.length
    return this.regions.push(region) - 1
  }

  /** Rows in another format. */
  async rows(info: TensorInfo, to: RowDType): Promise<Uint8Array> {
    const tensor = asStored(info.name, info)
    const out = this.#room(info, rowBytes(to, tensor.cols) * tensor.rows)
    let at = 0
    for await (const chunk of convertRows(
      this.#file(info),
      { tensor, to, importance: undefined },
      this.#settings(),
      this.#progress(info),
    )) {
      out.set(chunk, at)
      at += chunk.length
    }
    return out
  }

  /** Codes of 8 bits, and a scale per row. */
  async int8(info: TensorInfo): Promise<{ codes: Uint8Array; scales: Uint8Array }> {
    const { rows, cols } = asStored(info.name, info)
    const codes = this.#room(info, rows * cols)
    const scales = this.#room(info, rows * 4)
    let row = 0
    for await (const part of scaledTensor(this.#file(info), info, 'int8', this.#settings(), this.#progress(info))) {
      codes.set(part.codes, row * cols)
      scales.set(part.scales, row * 4)
      row += part.scales.length / 4
    }
    return { codes, scales }
  }

  #file(info: TensorInfo): FileEntry {
    return this.#files[info.file] as FileEntry
  }

  #settings(): { threads?: number; signal?: AbortSignal } {
    const { threads, signal } = this.#options
    return { ...(threads === undefined ? {} : { threads }), ...(signal === undefined ? {} : { signal }) }
  }

  #progress({ name }: TensorInfo): (bytes: number) => void {
    return (bytes) => {
      this.#done += bytes
      this.#options.onProgress?.(this.#done / this.#total, `converting ${name}`)
    }
  }

  /** Memory for a result. Throws E_MEMORY where the budget or JavaScript has none. */
  #room(info: TensorInfo, bytes: number): Uint8Array {
    this.memory += bytes
    const { memoryBudget = Number.POSITIVE_INFINITY } = this.#options
    try {
      if (this.memory <= memoryBudget) return new Uint8Array(bytes)
    } catch (error) {
      if (!(error instanceof RangeError)) throw error
    }
    throw new DroverError('E_MEMORY', 'there is no memory to convert a tensor while loading', {
      file: this.#file(info).path,
      field: info.name,
      found: `${this.memory} bytes for what is converted`,
      ...(this.memory > memoryBudget ? { expected: `at most ${memoryBudget}` } : {}),
      hint: 'convert the folder once with drover quantize',
    })
  }
}

const convertTable = async (
  conversion: Conversion,
  info: TensorInfo,
  table: StoredTable,
  format: TableFormat,
): Promise<StoredTable> => {
  const { dtype, parameters } = storageOf(format)
  if (parameters === 'first') {
    throw new DroverError('E_UNSUPPORTED', 'tables are not converted into this format', {
      field: `quantization.tables: ${table.name}`,
      found: format,
      expected: 'f32, f16, bf16, int8, int8_f16, int4 or int2',
    })
  }
  const data = await conversion.rows(info, dtype)
  const { name, rows, cols } = table
  return { name, rows, cols, dtype, format, bytes: data.length, region: await conversion.add(data), offset: 0 }
}

/** The tensor of a layer, and its scales where it has some, in memory. */
const convertLayer = async (
  conversion: Conversion,
  info: TensorInfo,
  format: LayerFormat,
): Promise<{ weight: TensorInfo; scales?: TensorInfo }> => {
  const placed = async (dtype: TensorInfo['dtype'], shape: readonly number[], data: Uint8Array, name = info.name) => ({
    name,
    dtype,
    shape,
    file: await conversion.add(data),
    offset: 0,
    bytes: data.length,
  })
  if (format !== 'int8') return { weight: await placed(format, info.shape, await conversion.rows(info, format)) }
  const { codes, scales } = await conversion.int8(info)
  return {
    weight: await placed('i8', info.shape, codes),
    scales: await placed('f32', [scales.length / 4, 1], scales, `${info.name}_scale`),
  }
}

/** Throws E_UNSUPPORTED, E_MEMORY, E_RANGE (a number that the format cannot hold), E_IO, E_ABORTED. */
export const convertParts = async (opened: OpenedRecommender, options: ConvertOptions): Promise<ConvertedParts> => {
  const { config, conversions, weights } = opened
  if (conversions.tables.size + conversions.layers.size === 0) return { parts: opened, memory: 0 }
  const tensors = new Map(weights.source.tensors)
  const scales = new Map(weights.scales)
  const infoOf = (name: string): TensorInfo => tensors.get(name) as TensorInfo
  const layers = [...conversions.layers].map(([module, format]) => ({
    info: tensorOfModule(tensors, module) as TensorInfo,
    format,
  }))
  const tensorOf = (table: number): TensorInfo => infoOf(config.tables[table]?.tensor as string)
  const total =
    layers.reduce((sum, { info }) => sum + info.bytes, 0) +
    [...conversions.tables.keys()].reduce((sum, i) => sum + tensorOf(i).bytes, 0)
  const conversion = new Conversion(opened, total, options)
  const tables = [...opened.tables]
  for (const [i, format] of conversions.tables) {
    tables[i] = await convertTable(conversion, tensorOf(i), tables[i] as StoredTable, format)
  }
  for (const { info, format } of layers) {
    const { weight, scales: beside } = await convertLayer(conversion, info, format)
    tensors.set(info.name, weight)
    if (beside !== undefined) scales.set(info.name, beside)
  }
  const { regions, memory } = conversion
  return { parts: { tables, weights: { source: { ...weights.source, tensors }, scales }, regions }, memory }
}
