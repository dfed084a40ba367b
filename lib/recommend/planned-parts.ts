/** Tables and layers in the formats that conversion would give them, for plans: nothing is converted, so nothing can run. */
import {
  type LayerFormat,
  type OpenedRecommender,
  type RecommenderParts,
  tensorOfModule,
} from '../model/open-recommender.js'
import { type StoredTable, storageOf, type TableFormat } from '../model/tables.js'
import { rowBytes, type TensorInfo } from '../tensor.js'

const plannedTable = (table: StoredTable, format: TableFormat): StoredTable => {
  const { name, rows, cols, region, offset } = table
  const storage = storageOf(format)
  return { name, rows, cols, region, offset, ...storage, format, bytes: rows * rowBytes(storage.dtype, cols) }
}

/** The matrix, and its scales where it has some. */
const plannedLayer = (info: TensorInfo, format: LayerFormat): { weight: TensorInfo; scales?: TensorInfo } => {
  const [rows = 0, cols = 0] = info.shape
  const weight = (dtype: TensorInfo['dtype']): TensorInfo => ({ ...info, dtype, bytes: rows * rowBytes(dtype, cols) })
  if (format !== 'int8') return { weight: weight(format) }
  const scales = { ...info, name: `${info.name}_scale`, dtype: 'f32', shape: [rows, 1], bytes: rows * 4 } as const
  return { weight: weight('i8'), scales }
}

/** What a model is computed with, and bytes of layers that are converted, which stay beside what is prepared of them. */
export const plannedParts = ({
  tables: stored,
  weights,
  regions,
  conversions,
}: OpenedRecommender): { parts: RecommenderParts; convertedBytes: number } => {
  const tables = stored.map((table, i) => {
    const format = conversions.tables.get(i)
    return format === undefined ? table : plannedTable(table, format)
  })
  const tensors = new Map(weights.source.tensors)
  const scales = new Map(weights.scales)
  let convertedBytes = 0
  for (const [module, format] of conversions.layers) {
    const info = tensorOfModule(tensors, module) as TensorInfo
    const { weight, scales: beside } = plannedLayer(info, format)
    tensors.set(info.name, weight)
    if (beside !== undefined) scales.set(info.name, beside)
    convertedBytes += weight.bytes + (beside?.bytes ?? 0)
  }
  return { parts: { tables, weights: { source: { ...weights.source, tensors }, scales }, regions }, convertedBytes }
}
