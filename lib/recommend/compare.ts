/** Two nets over the same labelled rows: how far each layer's numbers are apart, and what that makes of the predictions. */
import { DroverError } from '../errors.js'
import { Pace } from '../format/file.js'
import { type LabelledBatch, labelledBatches } from './labelled.js'
import { type LayeredNet, type NetOptions, requestShape } from './layered-net.js'
import { Distance, LogLoss, type PredictionQuality, RankStatistic } from './metrics.js'

/** How far numbers of the judged net are from those of the one that counts as right. */
export interface Difference {
  /** Signal-to-quantisation-noise ratio in dB; Infinity where all numbers are equal (null in JSON). */
  readonly sqnr: number
  readonly maxError: number
}

/** The numbers that one layer gives. */
export interface LayerDifference extends Difference {
  /** As the program names it: bottom.0, pooled, interaction, cross.0, top.0, prob. */
  readonly name: string
  /** What they are of the whole: bottom, pooled, interaction, logit, prob. */
  readonly role?: string
  /** The module of its matrix, as `quantization.layers` names it. */
  readonly module?: string
}

/** The pooled rows of one table. */
export interface TableDifference extends Difference {
  readonly name: string
}

/** How many rows have been read, and how many of them are labelled 1. */
export interface LabelCounts {
  readonly rows: number
  readonly positives: number
}

/** Indices out of range, by what was done with them. */
export interface OutOfRange {
  readonly skippedIndices: number
  readonly clampedIndices: number
}

export interface NetComparison extends LabelCounts, OutOfRange {
  readonly reference: PredictionQuality
  readonly result: PredictionQuality
  readonly layers: readonly LayerDifference[]
  readonly tables: readonly TableDifference[]
}

/** Where the labelled rows are, and how they are read. */
export interface DataOptions extends NetOptions {
  readonly file: string
  readonly onProgress?: ((fraction: number) => void) | undefined
}

const batchesFor = ({ config }: LayeredNet, options: DataOptions) =>
  labelledBatches(options.file, requestShape(config, options.indices), options)

/** Throws E_RANGE when a number is infinite or none. */
const checkFinite = (
  values: Float32Array,
  batch: LabelledBatch,
  { title }: LayeredNet,
  layer: string,
  file: string,
): void => {
  const at = values.findIndex((value) => !Number.isFinite(value))
  if (at === -1) return
  const line = batch.lineOf(Math.floor((at * batch.merged.rows) / values.length))
  throw new DroverError('E_RANGE', `${title} gives a number that is not finite`, {
    file,
    field: `line ${line}: ${layer}`,
    found: String(values[at]),
    expected: 'finite numbers in every layer',
    hint: 'look at the features of that line, and at the weights of that layer',
  })
}

const qualityOf = async (loss: LogLoss, ranks: RankStatistic, pace: Pace): Promise<PredictionQuality> => ({
  auc: await ranks.auc(pace),
  logLoss: loss.mean,
  normalizedEntropy: loss.normalizedEntropy(),
})

/** What the net answers: probabilities, clamped where its config says so. */
const answers = (prob: Float32Array, threshold: number): Float32Array =>
  threshold > 0 ? prob.map((p) => Math.min(Math.max(p, threshold), 1 - threshold)) : prob

class Predictions {
  readonly #threshold: number
  readonly #loss: LogLoss
  readonly #ranks = new RankStatistic()

  constructor({ config }: LayeredNet) {
    this.#threshold = config.lossThreshold
    this.#loss = new LogLoss(config.lossThreshold)
  }

  logits(values: Float32Array, labels: readonly number[]): void {
    this.#loss.add(values, labels)
  }

  probabilities(values: Float32Array, labels: readonly number[]): void {
    this.#ranks.add(answers(values, this.#threshold), labels)
  }

  get counts(): LabelCounts {
    return { rows: this.#loss.rows, positives: this.#loss.positives }
  }

  quality(pace: Pace): Promise<PredictionQuality> {
    return qualityOf(this.#loss, this.#ranks, pace)
  }
}

/**
 * Runs both over the file, layer by layer. Both have the same shape. Throws E_IO, E_ABORTED; E_FORMAT, E_SHAPE and E_RANGE
 * with the line; E_RANGE when all labels are alike.
 */
export const compareNets = async (
  reference: LayeredNet,
  result: LayeredNet,
  options: DataOptions,
): Promise<NetComparison> => {
  const pace = new Pace(options.signal, 'validating')
  const nets = [reference, result] as const
  const predictions = nets.map((net) => new Predictions(net)) as [Predictions, Predictions]
  const pairs = reference.layers.map((layer, i) => ({
    layer,
    other: result.layers[i] as (typeof result.layers)[number],
    distance: new Distance(),
  }))
  const tables = reference.config.tables.map(({ name, dim }) => ({ name, dim, distance: new Distance() }))
  let [skippedIndices, clampedIndices] = [0, 0]
  for await (const batch of batchesFor(reference, options)) {
    const [expectedOf, foundOf] = [reference.begin(batch), result.begin(batch)]
    for (const { layer, other, distance } of pairs) {
      const expected = await expectedOf(layer)
      const found = await foundOf(other)
      distance.add(expected, found)
      if (!distance.isFinite) {
        checkFinite(expected, batch, reference, layer.name, options.file)
        checkFinite(found, batch, result, layer.name, options.file)
      }
      if (layer.role === 'pooled') addTables(tables, expected, found, batch.merged.rows)
      for (const [i, values] of [expected, found].entries()) {
        if (layer.role === 'logit') predictions[i]?.logits(values, batch.labels)
        if (layer.role === 'prob') predictions[i]?.probabilities(values, batch.labels)
      }
      if (pace.late()) await pace.rest()
    }
    const { skipped, clamped } = reference.bagCounts()
    skippedIndices += skipped
    clampedIndices += clamped
  }
  return {
    ...predictions[0].counts,
    skippedIndices,
    clampedIndices,
    reference: await predictions[0].quality(pace),
    result: await predictions[1].quality(pace),
    layers: pairs.map(({ layer: { name, role, module }, distance: { sqnr, maxError } }) => ({
      name,
      ...(role === undefined ? {} : { role }),
      ...(module === undefined ? {} : { module }),
      sqnr,
      maxError,
    })),
    tables: tables.map(({ name, distance: { sqnr, maxError } }) => ({ name, sqnr, maxError })),
  }
}

/** The columns of each table. */
const addTables = (
  tables: readonly { readonly dim: number; readonly distance: Distance }[],
  expected: Float32Array,
  found: Float32Array,
  rows: number,
): void => {
  let at = 0
  for (let row = 0; row < rows; row++) {
    for (const { dim, distance } of tables) {
      distance.add(expected, found, at, at + dim)
      at += dim
    }
  }
}

/** Normalised entropies of nets of one shape over the file, which is read once. Throws what {@link compareNets} does. */
export const entropiesOf = async (
  nets: readonly LayeredNet[],
  options: DataOptions,
): Promise<{ entropies: number[]; counts: LabelCounts }> => {
  const losses = nets.map(({ config }) => new LogLoss(config.lossThreshold))
  const [first] = nets as readonly [LayeredNet]
  for await (const batch of batchesFor(first, options)) {
    for (const [i, net] of nets.entries()) {
      losses[i]?.add(await net.logits(batch), batch.labels)
    }
  }
  const { rows = 0, positives = 0 } = losses[0] ?? {}
  return { entropies: losses.map((loss) => loss.normalizedEntropy()), counts: { rows, positives } }
}
