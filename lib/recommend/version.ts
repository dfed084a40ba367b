/** One version of a recommender's tables and weights: opened, sized to the memory there is, loaded. */
import { cpu, cpuDevice } from '../device/cpu.js'
import type { DeviceProgram } from '../device/device.js'
import { DroverError, throwIfAborted } from '../errors.js'
import {
  type OpenedRecommender,
  openRecommender,
  programOf,
  type RecommenderParts,
  summaryOf,
} from '../model/open-recommender.js'
import type { IndexPolicy } from '../program/bags.js'
import { planProgram } from '../program/plan.js'
import type { Program } from '../program/program.js'
import { convertParts } from './convert.js'
import { Net } from './net.js'
import { defaults, type RecommenderOptions } from './options.js'

/** What was loaded, and what was chosen for this machine. */
export interface RecommenderInfo {
  /** Folder that it was loaded from. */
  readonly path: string
  readonly architecture: 'dlrm' | 'dlrm_dcn' | 'deepfm'
  readonly parameters: number
  /** Number formats of tables and weights, by size. */
  readonly weightTypes: readonly string[]
  readonly denseFeatures: number
  readonly tables: readonly TableInfo[]
  readonly pooling: 'sum' | 'mean' | 'max'
  /** Where rows are read: from copies in huge pages, or from the mapped file. */
  readonly tablePlacement: 'prepared' | 'mapped'
  /** Bytes of all tables, and of mapped ones that are in memory when this is read; none once they have been freed. */
  readonly tableBytes: number
  readonly residentBytes: number
  readonly indices: IndexPolicy
  readonly maxBatch: number
  /** Kernel set in use. */
  readonly isa: string
  readonly threads: number
  readonly threadsReason: string
}

/** A table, as it is computed with. */
export interface TableInfo {
  readonly name: string
  readonly rows: number
  readonly dim: number
  /** f32, f16, bf16, int8, int8_f16, int4, int2, tbe_int8, tbe_int4 or tbe_int2. */
  readonly format: string
  readonly bytes: number
}

/** A version in use. */
export interface Version {
  readonly net: Net
  /** Bytes of layers that were converted while loading; they stay beside what is computed with. */
  readonly converted: number
  readonly info: Omit<RecommenderInfo, 'residentBytes'>
}

type Progress = NonNullable<RecommenderOptions['onProgress']>

/** Never goes back: threads that work side by side tell of what they have done in any order. */
export const ascending = (onProgress: Progress): Progress => {
  let most = 0
  return (fraction, what) => {
    most = Math.max(most, fraction)
    onProgress(most, what)
  }
}

/** Progress of a part of the work, from `from` to `to` of all of it. */
const share = (onProgress: Progress | undefined, from: number, to: number, what?: string) =>
  onProgress === undefined
    ? undefined
    : (fraction: number, name = '') => onProgress(from + (to - from) * fraction, what ?? name)

/** Whether copies of the tables fit beside everything else; `taken` bytes of the budget are used. */
const choosePlacement = (
  opened: OpenedRecommender,
  program: Program,
  { tables, memoryBudget }: RecommenderOptions,
  taken: number,
): 'prepared' | 'mapped' => {
  if (tables !== undefined) return tables
  const plan = planProgram(program, cpuDevice.layout)
  const room = memoryBudget === undefined ? process.availableMemory() / 2 : memoryBudget - taken
  const tableBytes = opened.tables.reduce((sum, { bytes }) => sum + bytes, 0)
  return plan.arenaBytes + plan.preparedBytes + tableBytes <= room ? 'prepared' : 'mapped'
}

/** Opens and loads the folder; `memoryBudget` is what this version may take. */
export const loadVersion = async (path: string, options: RecommenderOptions): Promise<Version> => {
  const { signal, threads, memoryBudget, indices = defaults.indices, maxBatch = defaults.maxBatch } = options
  const onProgress = options.onProgress && ascending(options.onProgress)
  throwIfAborted(signal, 'loading')
  const opened = await openRecommender(path, { signal, onProgress: share(onProgress, 0, 0.05) })
  const { parts, memory } = await convertParts(opened, {
    threads,
    memoryBudget,
    signal,
    onProgress: share(onProgress, 0.05, 0.2),
  })
  const { config } = opened
  const build = (tables: 'mapped' | 'copied'): Program =>
    programOf(cpuDevice.layout, config, parts, { maxRows: maxBatch, activations: 'auto', tables, keeps: 'scores' })
  const load = async (placement: 'prepared' | 'mapped', program: Program): Promise<Version> => {
    const loaded = await cpuDevice.load(program, parts.regions, {
      ...(threads === undefined ? {} : { threads }),
      ...(memoryBudget === undefined ? {} : { memoryBudget: Math.max(1, memoryBudget - memory) }),
      ...(signal === undefined ? {} : { signal }),
      ...(onProgress === undefined ? {} : { onProgress: share(onProgress, 0.2, 1, 'preparing tables and weights') }),
    })
    const version = versionOf({ ...opened, ...parts }, program, loaded, placement, indices, options)
    // The device has its own copy of what was converted, and counts the tables in it.
    return { ...version, converted: memory - convertedTableBytes(opened, parts) }
  }
  const mapped = build('mapped')
  const placement = choosePlacement({ ...opened, ...parts }, mapped, options, memory)
  if (placement === 'mapped') return load(placement, mapped)
  return load(placement, build('copied')).catch((error: unknown) => {
    // Loading takes a little more than was counted.
    const isTooMuch = error instanceof DroverError && error.code === 'E_MEMORY'
    if (options.tables === undefined && isTooMuch) return load('mapped', mapped)
    throw error
  })
}

const convertedTableBytes = ({ conversions }: OpenedRecommender, { tables }: RecommenderParts): number =>
  [...conversions.tables.keys()].reduce((sum, i) => sum + (tables[i]?.bytes ?? 0), 0)

const versionOf = (
  opened: OpenedRecommender,
  program: Program,
  loaded: DeviceProgram,
  tablePlacement: 'prepared' | 'mapped',
  policy: IndexPolicy,
  { threads }: RecommenderOptions,
): Omit<Version, 'converted'> => {
  const { config, tables } = opened
  const machine = cpu()
  const shape = {
    denseFeatures: config.denseFeatures,
    tables: tables.map(({ name, rows }) => ({ name, rows })),
    policy,
    weighted: config.pooling !== 'max',
  }
  return {
    net: new Net(program, loaded, shape, {
      lossThreshold: config.lossThreshold,
      inMemory: tablePlacement === 'prepared',
    }),
    info: {
      path: opened.path,
      architecture: config.architecture,
      ...summaryOf(config, opened),
      denseFeatures: config.denseFeatures,
      tables: tables.map(({ name, rows, cols, format, bytes }) => ({ name, rows, dim: cols, format, bytes })),
      pooling: config.pooling,
      tablePlacement,
      tableBytes: tables.reduce((sum, { bytes }) => sum + bytes, 0),
      indices: policy,
      maxBatch: program.maxRows,
      isa: machine.isa,
      threads: Math.min(threads ?? machine.threads, machine.threads),
      threadsReason:
        threads !== undefined && threads <= machine.threads ? 'the caller asks for it' : machine.threadsReason,
    },
  }
}
