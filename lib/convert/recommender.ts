/**
 * Writes the folder of a recommender with tables and layers in other formats: tables as FBGEMM's fused rows, layers of
 * INT8 as codes with a scale per output. What the source's config names for single tables and layers goes before the type.
 */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { DroverError } from '../errors.js'
import { ConfigRecord, readHuggingFace } from '../format/config.js'
import type { JsonObject, JsonValue } from '../format/json.js'
import { type LayerFormat, layerFormats, type OpenedRecommender, openRecommenderAs } from '../model/open-recommender.js'
import { storageOf, type TableFormat } from '../model/tables.js'
import { elementCount, isRowwise, rowBytes, type TensorInfo } from '../tensor.js'
import { copyRest } from './folder.js'
import {
  type FolderOptions,
  intoNewFolder,
  scaledEntries,
  type TensorPlan,
  type WrittenFolder,
  writeWeights,
  writtenOf,
} from './shards.js'

/** What tables can be written in. */
export const recommenderTypes = ['int8', 'int8_f16', 'int4', 'int2', 'f32', 'f16', 'bf16'] as const
/** A format of tables that can be written. */
export type RecommenderType = (typeof recommenderTypes)[number]

/** Layers of the types of tables: those of fewer than 8 bits have layers of 8. */
export const layerFormatOf = (type: RecommenderType): LayerFormat =>
  layerFormats.find((format) => format === type) ?? 'int8'

/** `quantization` of a config with other defaults; entries for single tables and layers stay. */
const newQuantization = (config: ConfigRecord, type: RecommenderType, layers: LayerFormat): JsonObject => {
  const old = config.record('quantization')
  const entry = (key: string, format: string): JsonValue => {
    const given = old?.get(key)
    const named = given instanceof Map ? [...given].filter(([name]) => name !== 'default') : []
    return new Map<string, JsonValue>([['default', format], ...named])
  }
  return new Map([
    ['tables', entry('tables', type)],
    ['layers', entry('layers', layers)],
  ])
}

/** Where each tensor goes: by name, the format that it is to have. */
const targetsOf = ({ config, conversions }: OpenedRecommender) => {
  const tables = new Map<string, TableFormat>()
  for (const [i, format] of conversions.tables) tables.set(config.tables[i]?.tensor as string, format)
  return { tables, layers: conversions.layers }
}

const tablePlan = (info: TensorInfo, format: TableFormat): TensorPlan => {
  const [rows = 0, cols = 0] = info.shape
  const { dtype: to, parameters } = storageOf(format)
  if (parameters === 'first') {
    throw new DroverError('E_UNSUPPORTED', 'tables are not written in this format', {
      field: info.name,
      found: format,
      expected: recommenderTypes.join(', '),
    })
  }
  const entry = isRowwise(to)
    ? { name: info.name, dtype: 'u8' as const, shape: [rows, rowBytes(to, cols)] }
    : { name: info.name, dtype: to, shape: info.shape }
  return { info, entries: [entry], to: { rows: to } }
}

const layerPlan = (info: TensorInfo, module: string, format: LayerFormat): TensorPlan => {
  if (format !== 'int8') {
    return { info, entries: [{ name: info.name, dtype: format, shape: info.shape }], to: { rows: format } }
  }
  const [rows = 0, cols = 0] = info.shape
  return { info, entries: scaledEntries(module, format, rows, cols), to: { scaled: format } }
}

const planOf = (opened: OpenedRecommender): TensorPlan[] => {
  const { tables, layers } = targetsOf(opened)
  return opened.tensors.map((info): TensorPlan => {
    const table = tables.get(info.name)
    if (table !== undefined) return tablePlan(info, table)
    const module = info.name.replace(/\.weight$/, '')
    const layer = layers.get(module)
    if (layer !== undefined) return layerPlan(info, module, layer)
    return { info, entries: [{ name: info.name, dtype: info.dtype, shape: info.shape }], to: { rows: info.dtype } }
  })
}

const asObject = (value: JsonValue): unknown => {
  if (value instanceof Map) return Object.fromEntries([...value].map(([key, entry]) => [key, asObject(entry)]))
  return Array.isArray(value) ? value.map(asObject) : value
}

/** Bytes by the format that configs have a name for. */
const formatOf =
  (opened: OpenedRecommender) =>
  ({ info, to }: TensorPlan): string => {
    if ('scaled' in to) return to.scaled
    const table = opened.config.tables.findIndex(({ tensor }) => tensor === info.name)
    return opened.conversions.tables.get(table) ?? opened.tables[table]?.format ?? to.rows
  }

/** The same config with another entry `quantization`. */
export const requantizedConfig = (config: ConfigRecord, quantization: JsonObject): ConfigRecord =>
  new ConfigRecord(config.file, new Map([...config.values, ['quantization', quantization]]))

/** A config as the text of its file. */
export const configText = (config: ConfigRecord): string => `${JSON.stringify(asObject(config.values), undefined, 2)}\n`

/**
 * Writes the folder `input` as `output`, which must not exist and appears when it is complete. Tables and layers must be
 * floats in the source where they change. Throws E_ARGUMENT, E_UNSUPPORTED, E_FORMAT, E_RANGE (a number that the format
 * cannot hold), E_IO, E_ABORTED.
 */
export const quantizeRecommender = async (
  input: string,
  output: string,
  type: RecommenderType,
  layers: LayerFormat | undefined,
  options: FolderOptions,
): Promise<WrittenFolder> => {
  const { config } = await readHuggingFace(input, { signal: options.signal })
  const quantization = newQuantization(config, type, layers ?? layerFormatOf(type))
  return writeRecommender(requantizedConfig(config, quantization), input, output, options)
}

/** The same in the formats that `config`, written beside the weights, names. */
export const writeRecommender = async (
  config: ConfigRecord,
  input: string,
  output: string,
  options: FolderOptions,
): Promise<WrittenFolder> => {
  const opened = await openRecommenderAs(config, input, { signal: options.signal })
  const plans = planOf(opened)
  await intoNewFolder(output, async (folder) => {
    await writeWeights(folder, opened.weights.source.files, plans, options)
    await writeFile(join(folder, 'config.json'), configText(config))
    await copyRest(input, folder)
  })
  const tables = new Map(opened.config.tables.map(({ tensor, rows, dim }) => [tensor, rows * dim]))
  return writtenOf(plans, formatOf(opened), ({ name, shape }) => tables.get(name) ?? elementCount(shape), [])
}
