/**
 * Tables and layers of a recommender in two forms, of which any mixture can be loaded. What has been converted lies in
 * temporary files: mixtures map them, so that none of them holds a copy in memory.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { requantizedConfig } from '../convert/recommender.js'
import { DroverError } from '../errors.js'
import type { ConfigRecord } from '../format/config.js'
import type { RecommenderConfig } from '../model/dlrm-config.js'
import { openRecommenderAs, type RecommenderParts, tensorOfModule } from '../model/open-recommender.js'
import type { StoredTable } from '../model/tables.js'
import type { RegionSource } from '../program/program.js'
import type { TensorInfo } from '../tensor.js'
import { convertParts } from './convert.js'
import { type Form, type Part, quantizationOf } from './forms.js'

/** A folder for what is converted; gone when the body has ended. Throws E_IO. */
export const withConverted = async <T>(body: (store: (data: Uint8Array) => Promise<RegionSource>) => Promise<T>) => {
  const failed = (cause: unknown): DroverError =>
    new DroverError('E_IO', 'what is converted cannot be written', {
      file: tmpdir(),
      found: (cause as NodeJS.ErrnoException).code,
      hint: 'it goes to the folder for temporary files: TMPDIR names another',
      cause,
    })
  const folder = await mkdtemp(join(tmpdir(), 'drover-validate-')).catch((cause: unknown) => {
    throw failed(cause)
  })
  let files = 0
  try {
    return await body(async (data) => {
      const path = join(folder, `${files++}`)
      await writeFile(path, data).catch((cause: unknown) => {
        throw failed(cause)
      })
      return { path, bytes: data.length }
    })
  } finally {
    // What cannot be removed goes with the folder for temporary files.
    await rm(folder, { recursive: true, force: true }).catch(() => {})
  }
}

/** A folder and the form in which its weights are wanted. */
export interface FormOfFolder {
  readonly path: string
  readonly record: ConfigRecord
  readonly config: RecommenderConfig
  readonly form: Form
}

/**
 * Converts what the files do not hold in that form. Throws E_FORMAT, E_UNSUPPORTED (a conversion that there is not), E_RANGE
 * (a number that a format cannot hold), E_IO, E_ABORTED.
 */
export const partsIn = async (
  { path, record, config, form }: FormOfFolder,
  options: {
    readonly threads: number | undefined
    readonly signal: AbortSignal | undefined
    readonly store: (data: Uint8Array) => Promise<RegionSource>
  },
): Promise<RecommenderParts> => {
  const wanted = requantizedConfig(record, quantizationOf(config, form))
  return (await convertParts(await openRecommenderAs(wanted, path, { signal: options.signal }), options)).parts
}

/** `right` with these parts as `converted` has them; both come from one folder. */
export const mixedParts = (
  right: RecommenderParts,
  converted: RecommenderParts,
  parts: readonly Part[],
): RecommenderParts => {
  const { source } = right.weights
  const files = source.files.length
  const placeOf = (region: number): number => (region < files ? region : region - files + right.regions.length)
  const moved = (info: TensorInfo): TensorInfo => ({ ...info, file: placeOf(info.file) })
  const tables = [...right.tables]
  const tensors = new Map(source.tensors)
  const scales = new Map(right.weights.scales)
  for (const { kind, name, table } of parts) {
    if (kind === 'table') {
      const found = converted.tables[table] as StoredTable
      tables[table] = { ...found, region: placeOf(found.region) }
      continue
    }
    const { source: other, scales: otherScales } = converted.weights
    const info = tensorOfModule(other.tensors, name) as TensorInfo
    const beside = otherScales.get(info.name)
    tensors.set(info.name, moved(info))
    if (beside === undefined) scales.delete(info.name)
    else scales.set(info.name, moved(beside))
  }
  return {
    tables,
    weights: { source: { ...source, tensors }, scales },
    regions: [...right.regions, ...converted.regions.slice(files)],
  }
}
