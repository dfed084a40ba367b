/** `drover inspect` of a recommender: its tables, its layers, and what they take in memory. */
import { cpuDevice } from '../../device/cpu.js'
import type { RecommenderConfig } from '../../model/dlrm-config.js'
import { type OpenedRecommender, openRecommender, programOf } from '../../model/open-recommender.js'
import { disassemble } from '../../program/disassemble.js'
import { planProgram } from '../../program/plan.js'
import { defaults } from '../../recommend/options.js'
import { plannedParts } from '../../recommend/planned-parts.js'
import { type Arguments, usageError } from '../command.js'
import { bytes, count, json, line, table } from '../output.js'

const shapeOf = (config: RecommenderConfig): Record<string, unknown> => {
  const { file: _, tables, ...rest } = config
  return { ...rest, tables: tables.length }
}

const tableRows = ({ tables, conversions }: OpenedRecommender): string[][] => [
  ['table', 'rows', 'dim', 'format', 'size'],
  ...tables.map(({ name, rows, cols, format, bytes: size }, i) => {
    const to = conversions.tables.get(i)
    return [name, count(rows), `${cols}`, to === undefined ? format : `${format} → ${to}`, bytes(size)]
  }),
]

/** Options of plans of language models. */
const foreign = ['context', 'sequences', 'kv', 'type'] as const

/** Formats by name that loading converts tables and layers into. */
const conversionsOf = ({ config, conversions: { tables, layers } }: OpenedRecommender) => ({
  tables: Object.fromEntries([...tables].map(([i, format]) => [config.tables[i]?.name as string, format])),
  layers: Object.fromEntries(layers),
})

const convertedRow = ({ conversions: { tables, layers } }: OpenedRecommender, size: number): string[] => [
  'converted',
  `${tables.size} tables and ${layers.size} layers while loading; ${bytes(size)} of layers stay`,
]

export const inspectRecommender = async (path: string, args: Arguments): Promise<void> => {
  const given = foreign.find((name) => args.text(name) !== undefined)
  if (given !== undefined)
    throw usageError(`--${given} is for language models`, 'a recommender is planned in the formats of its folder')
  const opened = await openRecommender(path)
  const { config, tables, tensors, parameters, weightTypes, weightBytes, conversions } = opened
  const { parts, convertedBytes } = plannedParts(opened)
  const maxBatch = defaults.maxBatch
  const program = programOf(cpuDevice.layout, config, parts, {
    maxRows: maxBatch,
    activations: 'auto',
    tables: 'mapped',
    keeps: 'scores',
  })
  const planned = planProgram(program, cpuDevice.layout)
  const tableBytes = parts.tables.reduce((sum, { bytes: size }) => sum + size, 0)
  const plan = {
    maxBatch,
    tableBytes,
    preparedBytes: planned.preparedBytes,
    arenaBytes: planned.arenaBytes,
    convertedBytes,
    totalBytes: tableBytes + planned.preparedBytes + planned.arenaBytes + convertedBytes,
    ops: program.ops.length,
  }
  const listing = (): string => disassemble(program, cpuDevice.layout, planned)
  if (args.flag('json')) {
    json({
      path,
      config: shapeOf(config),
      tables: tables.map(({ name, rows, cols, format, bytes: size }) => ({
        name,
        rows,
        dim: cols,
        format,
        bytes: size,
      })),
      parameters,
      weightTypes,
      weightBytes,
      conversions: conversionsOf(opened),
      ...(args.flag('tensors') ? { tensors } : {}),
      plan,
      ...(args.flag('program') ? { program: listing().trimEnd().split('\n') } : {}),
    })
    return
  }
  line(table(Object.entries(shapeOf(config)).map(([key, value]) => [key, String(value)])))
  line()
  line(table(tableRows(opened)))
  line()
  line(
    table([
      ['parameters', count(parameters)],
      ['files', `${bytes(weightBytes)}: ${weightTypes.join(', ')}`],
      ['tables', `${bytes(tableBytes)}, copied to memory, or mapped`],
      ['layers', bytes(planned.preparedBytes)],
      ['activations', `${bytes(planned.arenaBytes)} for steps of ${maxBatch} rows`],
      ...(conversions.tables.size + conversions.layers.size === 0 ? [] : [convertedRow(opened, convertedBytes)]),
      ['total', `${bytes(plan.totalBytes)}, and some scratch per thread`],
      ['ops', String(plan.ops)],
    ]),
  )
  if (args.flag('tensors')) {
    line()
    line(
      table(tensors.map(({ name, dtype, shape, bytes: size }) => [name, dtype, `[${shape.join(', ')}]`, bytes(size)])),
    )
  }
  if (args.flag('program')) {
    line()
    line(listing())
  }
}
