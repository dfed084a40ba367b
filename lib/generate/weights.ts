/** Weights in another number format than the files hold: converted as a model is loaded. */
import { mkdtemp, rm, stat, utimes } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { mixNames } from '../convert/mixes.js'
import { convertModel } from '../convert/quantize.js'
import { isScaledFormat, type ScaledFormat } from '../convert/scaled.js'
import { type OpenedModel, openModel } from '../model/open.js'

/** What weights may be converted to: the formats and mixes of `drover quantize`. */
export type WeightType = (typeof mixNames)[number] | ScaledFormat

export const weightTypes: readonly WeightType[] = [...mixNames, 'int8', 'fp8', 'int4']

/** A model whose weights lie in a file of ours. */
export interface ConvertedModel {
  readonly opened: OpenedModel
  /** Removes the file; what has been loaded keeps its bytes. To be called again when those are freed. */
  release(): Promise<void>
}

const pathsOf = ({ regions }: OpenedModel): string[] =>
  regions.flatMap((region) => ('path' in region ? region.path : []))

/** Files that are made from the same ones are as old as each other: prepared weights know them again by that. */
const ageLike = async (made: OpenedModel, source: OpenedModel): Promise<void> => {
  const times = await Promise.all(pathsOf(source).map(async (path) => (await stat(path)).mtimeMs))
  const newest = new Date(Math.max(...times))
  for (const path of pathsOf(made)) await utimes(path, newest, newest)
}

/**
 * `opened` with its weights in another format. They pass through a file in the system's folder for temporary files: pages
 * of it are taken and given back like those of any mapped model, unless that folder is itself in memory (a tmpfs), which
 * then holds them until the model is loaded. Throws what quantizeModel throws.
 */
export const convertWeights = async (
  opened: OpenedModel,
  type: WeightType,
  options: { threads?: number; onProgress?: (fraction: number, what: string) => void; signal?: AbortSignal },
): Promise<ConvertedModel> => {
  const folder = await mkdtemp(join(tmpdir(), 'drover-weights-'))
  // Windows keeps a file that is mapped: the second call removes it, or it goes with the folder for temporary files.
  const release = (): Promise<void> => rm(folder, { recursive: true, force: true }).catch(() => {})
  try {
    const path = join(folder, isScaledFormat(type) ? 'model' : 'model.gguf')
    await convertModel(opened.path, path, { type, ...options }, true)
    const made = await openModel(path, options)
    await ageLike(made, opened).catch(() => {}) // they are then prepared once more, no worse
    const { config, parameters, weightTypes, weightBytes, tensors, regions, build } = made
    return { opened: { ...opened, config, parameters, weightTypes, weightBytes, tensors, regions, build }, release }
  } catch (error) {
    await release()
    throw error
  }
}
