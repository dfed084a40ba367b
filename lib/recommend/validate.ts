/** A recommender in two precisions over labelled requests: what each layer and the predictions lose, and what to keep. */
import { checkPath } from '../check.js'
import { configText, requantizedConfig, writeRecommender } from '../convert/recommender.js'
import { DroverError, throwIfAborted } from '../errors.js'
import { type ConfigRecord, readHuggingFace } from '../format/config.js'
import type { JsonObject } from '../format/json.js'
import type { RecommenderConfig } from '../model/dlrm-config.js'
import { type OpenedRecommender, openRecommenderAs } from '../model/open-recommender.js'
import type { RegionSource } from '../program/program.js'
import { chooseParts } from './choose.js'
import { compareNets, type DataOptions, type LabelCounts, type NetComparison } from './compare.js'
import {
  changedForm,
  differences,
  type Form,
  isFloat,
  ownForm,
  type Part,
  quantizationOf,
  quantizedForm,
  storedForm,
} from './forms.js'
import { LayeredNet, rowsOfStep } from './layered-net.js'
import { type PredictionQuality, relativeChange } from './metrics.js'
import { type FormOfFolder, mixedParts, partsIn, withConverted } from './mixed-parts.js'
import { checkNewFile, writeNewFile } from './new-file.js'
import {
  checkedValidateOptions,
  type Formats,
  type JudgedNet,
  type ValidatedNet,
  type ValidateOptions,
  type ValidationChoice,
  type ValidationReport,
} from './validation.js'
import { ascending } from './version.js'

const defaultBudget = 0.0002

/** A folder, and how it is computed. */
interface Side extends FormOfFolder {
  readonly activations: 'auto' | 'f32'
}

/** What counts as right, what is judged, and what they differ in. */
interface Sides {
  readonly right: Side
  readonly judged: Side
  readonly parts: readonly Part[]
}

const open = async (
  path: string,
  signal: AbortSignal | undefined,
): Promise<{ record: ConfigRecord; opened: OpenedRecommender }> => {
  const { config: record } = await readHuggingFace(path, { signal })
  return { record, opened: await openRecommenderAs(record, path, { signal }) }
}

/** The judged model in the form that is asked for. */
const judgedForm = (
  record: ConfigRecord,
  opened: OpenedRecommender,
  { type, layers, against }: ValidateOptions,
): Form => {
  const isTold = record.has('quantization') || against !== undefined
  const form = quantizedForm(storedForm(opened), type ?? 'int8', layers)
  if (type !== undefined || !isTold) return form
  const own = ownForm(opened)
  return layers === undefined ? own : { ...own, layers: form.layers }
}

const sidesOf = async (path: string, options: ValidateOptions): Promise<Sides> => {
  const { signal, against, choose } = options
  const { record, opened } = await open(path, signal)
  const { config } = opened
  const form = judgedForm(record, opened, options)
  const judged: Side = { path, record, config, form, activations: 'auto' }
  if (against !== undefined) {
    const other = await open(against, signal)
    checkSameShape(config, other.opened.config, against)
    const right: Side = {
      path: against,
      record: other.record,
      config: other.opened.config,
      form: ownForm(other.opened),
      activations: 'auto',
    }
    const parts = differences(right.config, right.form, form)
    if (choose) checkChoosable(parts, right.form, other.opened)
    return { right, judged, parts }
  }
  const stored = storedForm(opened)
  // Whatever can be chosen rounds the activations of int8 layers: what that costs is nothing that a choice could save.
  const rounds = choose && [...stored.layers.values()].includes('int8')
  const right: Side = { ...judged, form: stored, activations: rounds ? 'auto' : 'f32' }
  const parts = differences(config, right.form, form)
  if (parts.length === 0 && ![...form.layers.values()].includes('int8')) {
    throw new DroverError('E_ARGUMENT', 'both precisions are the same', {
      field: 'options.against',
      found: 'no table or layer that would be computed otherwise',
      expected: 'a model to compare with, or another type',
      hint: 'give the model that this one was made from, or a type that it is not stored in',
    })
  }
  if (choose) checkChoosable(parts, right.form, opened)
  return { right, judged, parts }
}

/** What is computed must be the same but for its precision. */
const checkSameShape = (judged: RecommenderConfig, right: RecommenderConfig, against: string): void => {
  const shapeOf = ({ file, lossThreshold, tables, ...rest }: RecommenderConfig): Record<string, unknown> => ({
    ...rest,
    tables: tables.map(({ rows, dim }) => [rows, dim]),
  })
  const [found, expected] = [shapeOf(right), shapeOf(judged)]
  for (const key of new Set([...Object.keys(expected), ...Object.keys(found)])) {
    if (JSON.stringify(found[key]) === JSON.stringify(expected[key])) continue
    throw new DroverError('E_SHAPE', 'the models are not of one shape', {
      file: against,
      field: key,
      found: found[key],
      expected: expected[key],
    })
  }
}

/** A choice converts the weights of the reference, which must be there as floats. */
const checkChoosable = (parts: readonly Part[], form: Form, opened: OpenedRecommender): void => {
  const refuse = (what: string, found: string, expected: string): DroverError =>
    new DroverError('E_ARGUMENT', what, {
      field: 'options.choose',
      found,
      expected,
      hint: 'choose with the model of floats: against it, or from it by a type',
    })
  if (parts.length === 0)
    throw refuse('there is nothing to choose', 'the same formats twice', 'tables or layers that differ')
  const stored = differences(opened.config, storedForm(opened), form)
  const packed = [...stored, ...parts].find(({ from }) => !isFloat(from))
  if (packed !== undefined)
    throw refuse('what is quantised has no higher precision', `${packed.name}: ${packed.from}`, 'floats')
}

const asFormats = (quantization: JsonObject): Formats => {
  const entry = (key: string) =>
    Object.fromEntries((quantization.get(key) as JsonObject).entries()) as Record<string, string>
  return { tables: entry('tables'), layers: entry('layers') }
}

const netOf = ({ path, config, form, activations }: Side, quality: PredictionQuality): ValidatedNet => ({
  path,
  quantization: asFormats(quantizationOf(config, form)),
  activations,
  ...quality,
})

const judgedNet = (side: Side, { reference, result, layers, tables }: NetComparison): JudgedNet => ({
  result: netOf(side, result),
  change: {
    auc: result.auc - reference.auc,
    logLoss: result.logLoss - reference.logLoss,
    normalizedEntropy: result.normalizedEntropy - reference.normalizedEntropy,
    relativeNormalizedEntropy: relativeChange(reference.normalizedEntropy, result.normalizedEntropy),
  },
  layers,
  tables,
})

const isConfigFile = (output: string): boolean => /\.json$/i.test(output)

/**
 * Runs the folder `path` in two precisions over labelled requests. Memory does not grow with the data but for some bytes
 * per row (AUC is exact); what is converted passes through temporary files. Throws E_ARGUMENT, E_IO, E_FORMAT,
 * E_UNSUPPORTED, E_SHAPE (models of two shapes), E_RANGE (all labels are alike, a number is not finite, an index is out of
 * range: the line is named), E_MEMORY, E_ABORTED.
 */
export const validateRecommender = async (path: string, input: ValidateOptions): Promise<ValidationReport> => {
  checkPath('path', path)
  const options = checkedValidateOptions(input)
  const { output, overwrite = false, signal } = options
  throwIfAborted(signal, 'validating')
  if (output !== undefined && !(overwrite && isConfigFile(output)))
    await checkNewFile('options.output', output, isConfigFile(output))
  const sides = await sidesOf(path, options)
  const { report, choice, chosen } = await withConverted((store) => validateSides(sides, store, options))
  if (choice === undefined) return report
  if (output === undefined) return { ...report, choice }
  await writeChoice(chosen, output, options)
  return { ...report, choice: { ...choice, output } }
}

type Validated =
  | { readonly report: ValidationReport; readonly choice?: undefined; readonly chosen?: undefined }
  | { readonly report: ValidationReport; readonly choice: ValidationChoice; readonly chosen: Side }

const validateSides = async (
  { right, judged, parts }: Sides,
  store: (data: Uint8Array) => Promise<RegionSource>,
  {
    data: file,
    against,
    choose = false,
    budget = defaultBudget,
    indices = 'error',
    threads,
    signal,
    onProgress: tell,
  }: ValidateOptions,
): Promise<Validated> => {
  // A choice reads the data again for each round that it needs, however many.
  const onProgress = tell && ascending(tell)
  const how = { maxRows: rowsOfStep(right.config), indices, threads, signal }
  /** Reading the data is the share [from, to) of all. */
  const data = (from: number, to: number, what: string): DataOptions => ({
    ...how,
    file,
    onProgress: (fraction) => onProgress?.(from + (to - from) * fraction, what),
  })
  const ownShare = choose ? 0.2 : 1
  const rightParts = await partsIn(right, { threads, signal, store })
  const judgedParts = await partsIn(judged, { threads, signal, store })
  const reference = await LayeredNet.load('the reference', right.config, rightParts, right.activations, how)
  try {
    const result = await LayeredNet.load('the judged model', judged.config, judgedParts, judged.activations, how)
    const comparison = await compareNets(reference, result, data(0, ownShare, 'comparing')).finally(() =>
      result.close(),
    )
    const { rows, positives, skippedIndices, clampedIndices } = comparison
    const report: ValidationReport = {
      data: file,
      rows,
      positives,
      baseRate: positives / rows,
      skippedIndices,
      clampedIndices,
      reference: netOf(right, comparison.reference),
      ...judgedNet(judged, comparison),
    }
    if (!choose) return { report }
    const quantised: Side = { ...right, form: changedForm(right.form, parts), activations: 'auto' }
    const converted = against === undefined ? judgedParts : await partsIn(quantised, { threads, signal, store })
    const found = await chooseParts({
      reference,
      parts,
      budget,
      entropy: comparison.reference.normalizedEntropy,
      load: (own) => LayeredNet.load('a candidate', right.config, mixedParts(rightParts, converted, own), 'auto', how),
      data: (pass, passes) => {
        const shareOf = (done: number): number => ownShare + ((1 - ownShare) * done) / passes
        return data(shareOf(pass), shareOf(pass + 1), 'choosing')
      },
      check: (counts) => checkUnchanged(file, comparison, counts),
    })
    const chosen: Side = { ...quantised, form: changedForm(right.form, found.quantised) }
    const kept = found.parts.filter((part) => part.kept).map(({ name }) => name)
    const choice = { budget, parts: found.parts, kept, ...judgedNet(chosen, found.comparison) }
    return { report, choice, chosen }
  } finally {
    await reference.close()
  }
}

const writeChoice = async (
  { path, record, config, form }: Side,
  output: string,
  { overwrite = false, threads, signal }: ValidateOptions,
): Promise<void> => {
  const chosen = requantizedConfig(record, quantizationOf(config, form))
  if (isConfigFile(output)) return writeNewFile('options.output', output, configText(chosen), overwrite)
  await writeRecommender(chosen, path, output, {
    ...(threads === undefined ? {} : { threads }),
    ...(signal === undefined ? {} : { signal }),
  })
}

/** The data is read several times. */
const checkUnchanged = (file: string, first: LabelCounts, counts: LabelCounts): void => {
  if (counts.rows === first.rows && counts.positives === first.positives) return
  throw new DroverError('E_IO', 'the labelled requests have changed while they were read', {
    file,
    found: `${counts.rows} rows, ${counts.positives} positive`,
    expected: `${first.rows} rows, ${first.positives} positive`,
  })
}
