/** Forms of a recommender: which format each table and layer is computed in, and configs that say so. */
import { layerFormatOf, type RecommenderType } from '../convert/recommender.js'
import type { JsonObject, JsonValue } from '../format/json.js'
import { layerNames } from '../model/dlrm.js'
import type { RecommenderConfig } from '../model/dlrm-config.js'
import { type LayerFormat, layerFormats, type OpenedRecommender, storedLayerFormat } from '../model/open-recommender.js'
import { floatFormats, type TableFormat } from '../model/tables.js'

/** Formats of tables by index and of layers by the names that `quantization.layers` has for them. */
export interface Form {
  readonly tables: readonly TableFormat[]
  readonly layers: ReadonlyMap<string, LayerFormat>
}

/** A table or layer that two forms have in different formats. */
export interface Part {
  readonly kind: 'table' | 'layer'
  readonly name: string
  /** Index of a table. */
  readonly table: number
  /** In the form that counts as right, and in the one that is judged. */
  readonly from: string
  readonly to: string
}

/** As the files hold them. */
export const storedForm = ({ config, tables, weights }: OpenedRecommender): Form => {
  const layers = new Map<string, LayerFormat>()
  for (const name of layerNames(config)) {
    const format = storedLayerFormat(weights, name)
    if (format !== undefined) layers.set(name, format)
  }
  return { tables: tables.map(({ format }) => format), layers }
}

/** As the model is computed with: what its config converts, converted. */
export const ownForm = (opened: OpenedRecommender): Form => {
  const { tables, layers } = storedForm(opened)
  const { conversions } = opened
  return {
    tables: tables.map((format, i) => conversions.tables.get(i) ?? format),
    layers: new Map([...layers].map(([name, format]) => [name, conversions.layers.get(name) ?? format])),
  }
}

export const isFloat = (format: string): boolean => floatFormats.some((name) => name === format)

/** What `drover quantize` would make of floats; what the files hold in integers stays. */
export const quantizedForm = (stored: Form, type: RecommenderType, layers = layerFormatOf(type)): Form => ({
  tables: stored.tables.map((format) => (isFloat(format) ? type : format)),
  layers: new Map([...stored.layers].map(([name, format]) => [name, isFloat(format) ? layers : format])),
})

/** What the two forms differ in: tables in their order, then layers in theirs. */
export const differences = (config: RecommenderConfig, right: Form, judged: Form): Part[] => {
  const parts: Part[] = []
  for (const [table, from] of right.tables.entries()) {
    const to = judged.tables[table] ?? from
    if (to !== from) parts.push({ kind: 'table', name: config.tables[table]?.name as string, table, from, to })
  }
  for (const [name, from] of right.layers) {
    const to = judged.layers.get(name) ?? from
    if (to !== from) parts.push({ kind: 'layer', name, table: -1, from, to })
  }
  return parts
}

/** `right` with these parts as the judged form has them. */
export const changedForm = (right: Form, parts: readonly Part[]): Form => {
  const tables = [...right.tables]
  const layers = new Map(right.layers)
  for (const { kind, name, table, to } of parts) {
    if (kind === 'table') tables[table] = to as TableFormat
    else layers.set(name, layerFormats.find((format) => format === to) as LayerFormat)
  }
  return { tables, layers }
}

/** The commonest format as the default, others by name. */
const entryOf = (formats: readonly (readonly [name: string, format: string])[]): JsonObject => {
  const counts = new Map<string, number>()
  for (const [, format] of formats) counts.set(format, (counts.get(format) ?? 0) + 1)
  // One that is called like the default would be taken for it: then all are named.
  const named = formats.some(([name]) => name === 'default')
  const [common] = named ? [] : [...counts].sort((a, b) => b[1] - a[1])
  const entry = new Map<string, JsonValue>(common === undefined ? [] : [['default', common[0]]])
  for (const [name, format] of formats) if (format !== common?.[0]) entry.set(name, format)
  return entry
}

/** `quantization` of a config for this form. */
export const quantizationOf = (config: RecommenderConfig, { tables, layers }: Form): JsonObject =>
  new Map([
    ['tables', entryOf(tables.map((format, i) => [config.tables[i]?.name as string, format]))],
    ['layers', entryOf([...layers])],
  ])
