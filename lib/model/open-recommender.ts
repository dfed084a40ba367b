/** Opens the folder of a recommender: config, tables, weights. Nothing is loaded yet. */
import { DroverError } from '../errors.js'
import { type ConfigRecord, readHuggingFace } from '../format/config.js'
import { isFolder, type ReadOptions, type TensorSource } from '../format/file.js'
import { type QuantizedSource, quantizedSource } from '../format/quantization.js'
import { readSafetensors } from '../format/safetensors.js'
import type { DeviceLayout, Program, RegionSource } from '../program/program.js'
import { elementCount, type TensorInfo } from '../tensor.js'
import { buildRecommender, layerNames, type RecommenderProgramOptions } from './dlrm.js'
import { isRecommender, type RecommenderConfig, recommenderConfig } from './dlrm-config.js'
import { checkFormatNames, formatFor, type StoredTable, storedTable, type TableFormat, tableFormats } from './tables.js'
import { weightsOf } from './weights.js'

/** How the matrices of the MLPs and of the cross network can be stored. */
export const layerFormats = ['f32', 'f16', 'bf16', 'int8'] as const
/** How the matrices of a layer are stored. */
export type LayerFormat = (typeof layerFormats)[number]

/** Tables and weights of a recommender, and where they lie. */
export interface RecommenderParts {
  readonly tables: readonly StoredTable[]
  readonly weights: QuantizedSource
  readonly regions: readonly RegionSource[]
}

export interface OpenedRecommender extends RecommenderParts {
  readonly path: string
  readonly config: RecommenderConfig
  /** Tables by index and modules by name that the config wants in another format than the files hold. */
  readonly conversions: {
    readonly tables: ReadonlyMap<number, TableFormat>
    readonly layers: ReadonlyMap<string, LayerFormat>
  }
  readonly parameters: number
  /** Number formats of tables and weights, most bytes first. */
  readonly weightTypes: readonly string[]
  readonly weightBytes: number
  /** As the files name and store them. */
  readonly tensors: readonly TensorInfo[]
}

/** A module's matrix: `<module>.weight`, or a tensor of its own name. */
export const tensorOfModule = (tensors: ReadonlyMap<string, TensorInfo>, module: string): TensorInfo | undefined =>
  tensors.get(`${module}.weight`) ?? tensors.get(module)

/** Which format a module is stored in; undefined where it has none of {@link layerFormats}. */
export const storedLayerFormat = ({ source, scales }: QuantizedSource, module: string): LayerFormat | undefined => {
  const info = tensorOfModule(source.tensors, module)
  if (info?.dtype === 'i8') return scales.has(info.name) ? 'int8' : undefined
  return layerFormats.find((format) => format === info?.dtype)
}

/** An entry that nobody reads would be believed to have an effect. */
const checkQuantization = (record: ConfigRecord): void => {
  const quantization = record.record('quantization')
  for (const key of quantization?.values.keys() ?? []) {
    if (key !== 'tables' && key !== 'layers') throw quantization?.refuse(key, 'tables and layers', key)
  }
}

/** A layer of float64 that is named would be believed to be converted; a default says nothing of it. */
const refuseWide = (record: ConfigRecord, { source }: QuantizedSource, module: string): void => {
  const named = record.record('quantization')?.get('layers')
  const info = tensorOfModule(source.tensors, module)
  if (info?.dtype !== 'f64' || !(named instanceof Map && named.has(module))) return
  throw new DroverError('E_UNSUPPORTED', 'a layer of this dtype is not converted while loading', {
    file: record.file,
    field: `quantization.layers: ${module}`,
    found: info.dtype,
    expected: 'f32, f16 or bf16',
    hint: 'convert the folder once with drover quantize',
  })
}

const layerConversions = (
  record: ConfigRecord,
  config: RecommenderConfig,
  weights: QuantizedSource,
): Map<string, LayerFormat> => {
  const names = layerNames(config)
  checkFormatNames(record, 'layers', new Set(names))
  const conversions = new Map<string, LayerFormat>()
  for (const module of names) {
    const wanted = formatFor(record, 'layers', [module], layerFormats)
    const stored = storedLayerFormat(weights, module)
    if (wanted === undefined || stored === wanted) continue
    if (stored === undefined) {
      refuseWide(record, weights, module)
      continue
    }
    if (stored === 'int8') {
      throw new DroverError('E_FORMAT', 'a layer has another format', {
        file: record.file,
        field: `quantization.layers: ${module}`,
        found: wanted,
        expected: 'int8, as the file stores it',
      })
    }
    conversions.set(module, wanted)
  }
  return conversions
}

const openTables = (
  record: ConfigRecord,
  config: RecommenderConfig,
  source: TensorSource,
): { tables: StoredTable[]; conversions: Map<number, TableFormat> } => {
  const conversions = new Map<number, TableFormat>()
  const names = new Set(config.tables.map(({ name }) => name))
  const known = config.tables.map(({ name }, i) => (names.has(`${i}`) ? [name] : [name, `${i}`]))
  checkFormatNames(record, 'tables', new Set(known.flat()))
  const tables = config.tables.map((shape, i) => {
    const wanted = formatFor(record, 'tables', known[i] as string[], tableFormats)
    const table = storedTable(source, shape, wanted)
    if (wanted !== undefined && wanted !== table.format) conversions.set(i, wanted)
    return table
  })
  return { tables, conversions }
}

/** How many numbers a model has, and in which formats, most bytes first. */
export const summaryOf = (
  config: RecommenderConfig,
  { tables, weights: { source } }: Pick<RecommenderParts, 'tables' | 'weights'>,
): { parameters: number; weightTypes: string[] } => {
  const places = new Map(config.tables.map(({ tensor }, i) => [tensor, tables[i] as StoredTable]))
  const bytesByType = new Map<string, number>()
  let parameters = 0
  for (const { name, dtype, shape, bytes } of source.tensors.values()) {
    const table = places.get(name)
    const type = table?.format ?? (dtype === 'i8' ? 'int8' : dtype)
    parameters += table === undefined ? elementCount(shape) : table.rows * table.cols
    bytesByType.set(type, (bytesByType.get(type) ?? 0) + (table?.bytes ?? bytes))
  }
  return { parameters, weightTypes: [...bytesByType].sort((a, b) => b[1] - a[1]).map(([type]) => type) }
}

/** Whether a path is the folder of a recommender. What is no folder, or cannot be read, is left to those who say why. */
export const isRecommenderFolder = async (path: string): Promise<boolean> =>
  (await isFolder(path)) &&
  readHuggingFace(path).then(
    ({ config }) => isRecommender(config),
    () => false,
  )

/** Opens a folder with config.json and safetensors. Throws E_IO, E_FORMAT, E_UNSUPPORTED or E_ABORTED. */
export const openRecommender = async (path: string, options: ReadOptions = {}): Promise<OpenedRecommender> =>
  openRecommenderAs((await readHuggingFace(path, options)).config, path, options)

/** The same with another config than the folder's. */
export const openRecommenderAs = async (
  record: ConfigRecord,
  path: string,
  options: ReadOptions = {},
): Promise<OpenedRecommender> => {
  recommenderConfig(record, () => false) // refuses another architecture before its weights are looked for
  checkQuantization(record)
  const source = await readSafetensors(path, options)
  const config = recommenderConfig(record, (name) => source.tensors.has(name))
  const weights = quantizedSource(source, { method: 'compressed-tensors', dtype: 'i8' })
  const { tables, conversions } = openTables(record, config, source)
  const tensors = [...source.tensors.values()]
  return {
    path,
    config,
    tables,
    weights,
    regions: source.files.map((file) => ({ path: file.path, bytes: file.size })),
    conversions: { tables: conversions, layers: layerConversions(record, config, weights) },
    ...summaryOf(config, { tables, weights }),
    weightBytes: tensors.reduce((sum, { bytes }) => sum + bytes, 0),
    tensors,
  }
}

/** The program of opened or converted parts. Throws E_FORMAT when a weight is missing or has another shape. */
export const programOf = (
  layout: DeviceLayout,
  config: RecommenderConfig,
  { tables, weights }: RecommenderParts,
  options: RecommenderProgramOptions,
): Program => buildRecommender(layout, config, tables, weightsOf(weights.source, weights.scales), options)
