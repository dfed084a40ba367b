/** What a validation is asked for, checked, and what it finds. */
import { checkBoolean, checkFunction, checkInteger, checkNumber, checkOneOf, checkPath, checkSignal } from '../check.js'
import { type RecommenderType, recommenderTypes } from '../convert/recommender.js'
import { DroverError } from '../errors.js'
import { type LayerFormat, layerFormats } from '../model/open-recommender.js'
import { type IndexPolicy, indexPolicies } from '../program/bags.js'
import type { PartCost } from './choose.js'
import type { LabelCounts, LayerDifference, OutOfRange, TableDifference } from './compare.js'
import type { PredictionQuality } from './metrics.js'
import { ownOptions } from './options.js'

/** Options of validateRecommender. Unknown ones are refused. */
export interface ValidateOptions {
  /** File of requests, a line of JSON for each, with `label`: 0 or 1 per row. */
  data: string
  /**
   * Folder of the model that counts as right; default: the same weights as the files of the judged model hold them, with
   * activations of int8 layers that are not rounded. With `choose` they are, as in all that it can choose.
   */
  against?: string
  /**
   * Formats to judge the model in, as `quantizeModel` has them: of tables, and of layers (default: as `type`, int8 where
   * that is of integers). Default: what `quantization` of its config says, of a model that is judged against another what
   * its files hold, and int8 where there is neither. With `layers` alone that is still so of tables.
   */
  type?: RecommenderType
  layers?: LayerFormat
  /** Choose which tables and layers keep the precision of the reference. */
  choose?: boolean
  /** Largest relative change of normalised entropy that is chosen; default 0.0002. */
  budget?: number
  /**
   * Where the choice is written, with `choose`: a config.json for the folder of the reference, if the name ends in .json;
   * otherwise a new folder with the weights in the chosen formats.
   */
  output?: string
  /** Replace `output` if it is a file that exists. */
  overwrite?: boolean
  /** What becomes of an index that its table does not have; default 'error'. */
  indices?: IndexPolicy
  /** Caps the workers of each step. */
  threads?: number
  onProgress?: (fraction: number, what: string) => void
  signal?: AbortSignal
}

/** Formats by name: an entry `quantization` of config.json. */
export interface Formats {
  readonly tables: Readonly<Record<string, string>>
  readonly layers: Readonly<Record<string, string>>
}

/** A net, and how good its predictions are. */
export interface ValidatedNet extends PredictionQuality {
  readonly path: string
  readonly quantization: Formats
  /** 'auto': int8 layers multiply activations rounded to 8 bits; 'f32': activations as they are. */
  readonly activations: 'auto' | 'f32'
}

/** Numbers of the judged net less those of the reference. */
export interface QualityChange extends PredictionQuality {
  /** Change of normalised entropy, by that of the reference. */
  readonly relativeNormalizedEntropy: number
}

/** The net that is judged, beside the reference. */
export interface JudgedNet {
  readonly result: ValidatedNet
  readonly change: QualityChange
  /** In the order in which they are computed. */
  readonly layers: readonly LayerDifference[]
  readonly tables: readonly TableDifference[]
}

/** What was chosen. */
export interface ValidationChoice extends JudgedNet {
  readonly budget: number
  /** What differs between reference and judged net: tables, then layers. */
  readonly parts: readonly PartCost[]
  /** Names of the parts that keep their precision. */
  readonly kept: readonly string[]
  /** File or folder that was written. */
  readonly output?: string
}

/** What `validateRecommender` found. */
export interface ValidationReport extends JudgedNet, LabelCounts, OutOfRange {
  readonly data: string
  /** Share of positive rows. */
  readonly baseRate: number
  readonly reference: ValidatedNet
  readonly choice?: ValidationChoice
}

export const checkedValidateOptions = (input: unknown): ValidateOptions => {
  const texts = ['data', 'against', 'output'] as const
  const flags = ['choose', 'overwrite'] as const
  const names = [...texts, ...flags, 'type', 'layers', 'budget', 'indices', 'threads', 'onProgress', 'signal']
  const options = ownOptions<ValidateOptions>(input, names)
  checkPath('options.data', options.data)
  for (const name of texts) if (options[name] !== undefined) checkPath(`options.${name}`, options[name])
  for (const name of flags) if (options[name] !== undefined) checkBoolean(`options.${name}`, options[name])
  if (options.type !== undefined) checkOneOf('options.type', options.type, recommenderTypes)
  if (options.layers !== undefined) checkOneOf('options.layers', options.layers, layerFormats)
  if (options.indices !== undefined) checkOneOf('options.indices', options.indices, indexPolicies)
  if (options.budget !== undefined) checkNumber('options.budget', options.budget, 0)
  if (options.threads !== undefined) checkInteger('options.threads', options.threads, 1, 1024)
  if (options.onProgress !== undefined) checkFunction('options.onProgress', options.onProgress)
  if (options.signal !== undefined) checkSignal('options.signal', options.signal)
  if (options.output !== undefined && !options.choose) {
    throw new DroverError('E_ARGUMENT', 'there is nothing to write', {
      field: 'options.output',
      found: options.output,
      expected: 'options.choose beside it',
    })
  }
  return options
}
