/** Weights in another number format than the files hold: converted as a model is loaded. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { mixNames } from '../convert/mixes.js'
import { quantizeModel } from '../convert/quantize.js'
import { isScaledFormat, type ScaledFormat } from '../convert/scaled.js'
import { type OpenedModel, openModel } from '../model/open.js'

/** What weights may be converted to: the formats and mixes of `drover quantize`. */
export type WeightType = (typeof mixNames)[number] | ScaledFormat

export const weightTypes: readonly WeightType[] = [...mixNames, 'int8', 'fp8', 'int4']

/** A model whose weights lie in a file of ours. */
export interface ConvertedModel {
  readonly opened: OpenedModel
  /** Removes the file; what has been loaded keeps its bytes. */
  release(): Promise<void>
}

/**
 * `opened` with its weights in another format. They pass through a file in the system's folder for temporary files, not
 * through memory: pages of it are taken and given back like those of any mapped model. Throws what quantizeModel throws.
 */
export const convertWeights = async (
  opened: OpenedModel,
  type: WeightType,
  options: { threads?: number; onProgress?: (fraction: number, what: string) => void; signal?: AbortSignal },
): Promise<ConvertedModel> => {
  const folder = await mkdtemp(join(tmpdir(), 'drover-weights-'))
  // Windows keeps a file that is mapped: it goes with the folder for temporary files.
  const release = (): Promise<void> => rm(folder, { recursive: true, force: true }).catch(() => {})
  try {
    const path = join(folder, isScaledFormat(type) ? 'model' : 'model.gguf')
    await quantizeModel(opened.path, path, { type, ...options })
    const { config, parameters, weightTypes, weightBytes, tensors, regions, build } = await openModel(path, options)
    return { opened: { ...opened, config, parameters, weightTypes, weightBytes, tensors, regions, build }, release }
  } catch (error) {
    await release()
    throw error
  }
}
