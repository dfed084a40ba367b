/** How far the predictions of one model are from those of another: what a change of number format has cost. */
import { checkFunction, checkInteger, checkOptions, checkSignal, checkTokens } from '../check.js'
import { DroverError } from '../errors.js'
import { Pace } from '../format/file.js'
import type { LanguageModel } from './model.js'

/** What {@link compareModels} found. Divergences are in nats per token. */
export interface ModelComparison {
  /** Positions compared. */
  readonly tokens: number
  /** Kullback-Leibler divergence of the result's distribution from the source's. */
  readonly meanDivergence: number
  readonly medianDivergence: number
  readonly p99Divergence: number
  readonly largestDivergence: number
  /** Share of positions at which both hold the same token for the likeliest. */
  readonly topAgreement: number
  readonly sourcePerplexity: number
  readonly perplexity: number
  /** `perplexity / sourcePerplexity`. */
  readonly perplexityRatio: number
}

/** Logits of one window at most; two of them are in memory at once. */
const mostLogitBytes = 2 ** 28

interface Distribution {
  likeliest: number
  /** Logarithm of the sum of exponentials. */
  logSum: number
}

const distributionOf = (logits: Float32Array): Distribution => {
  let likeliest = 0
  for (let i = 1; i < logits.length; i++) if (logits[i]! > logits[likeliest]!) likeliest = i
  const largest = logits[likeliest] as number
  let sum = 0
  for (let i = 0; i < logits.length; i++) sum += Math.exp(logits[i]! - largest)
  return { likeliest, logSum: largest + Math.log(sum) }
}

/** Σ p (log p - log q) of two rows of logits. */
const divergence = (a: Float32Array, b: Float32Array, p: Distribution, q: Distribution): number => {
  let sum = 0
  for (let i = 0; i < a.length; i++) {
    const log = a[i]! - p.logSum
    sum += Math.exp(log) * (log - (b[i]! - q.logSum))
  }
  return Math.max(0, sum) // rounding may leave a little less than nothing
}

/**
 * Runs two models of one vocabulary over a text, in windows that share no context, and compares what they expect of
 * each token. Throws E_SHAPE when the vocabularies differ, E_RANGE for fewer than two tokens.
 *
 * @param source the model that counts as right
 * @param result the model that is judged
 * @param tokens the text
 */
export const compareModels = async (
  source: LanguageModel,
  result: LanguageModel,
  tokens: ArrayLike<number>,
  options: { window?: number; onProgress?: (fraction: number) => void; signal?: AbortSignal } = {},
): Promise<ModelComparison> => {
  const { signal, onProgress, ...rest } = checkOptions('options', options, [
    'window',
    'onProgress',
    'signal',
  ]) as typeof options
  if (signal !== undefined) checkSignal('options.signal', signal)
  if (onProgress !== undefined) checkFunction('options.onProgress', onProgress)
  const { vocabularySize } = source.info
  if (result.info.vocabularySize !== vocabularySize) {
    throw new DroverError('E_SHAPE', 'the models have different vocabularies', {
      found: result.info.vocabularySize,
      expected: vocabularySize,
    })
  }
  const context = Math.min(source.info.contextLength, result.info.contextLength)
  const affordable = Math.max(2, Math.floor(mostLogitBytes / (vocabularySize * 4)))
  const largest = Math.min(context, affordable)
  const { window = Math.min(512, largest) } = rest
  checkInteger('options.window', window, 2, largest)
  const text = checkTokens('tokens', tokens, vocabularySize, Number.MAX_SAFE_INTEGER)
  if (text.length < 2)
    throw new DroverError('E_RANGE', 'a comparison needs at least two tokens', { field: 'tokens', found: text.length })

  const pace = new Pace(signal, 'comparing')
  const divergences: number[] = []
  let agreed = 0
  let sourceLoss = 0
  let resultLoss = 0
  const asked = { rows: 'all', ...(signal === undefined ? {} : { signal }) } as const
  for (let start = 0; start + 1 < text.length; start += window) {
    const part = text.subarray(start, start + window)
    if (part.length < 2) break
    const rows = part.length - 1
    const expected = (await source.logits(part.subarray(0, rows), asked)).data
    const found = (await result.logits(part.subarray(0, rows), asked)).data
    for (let row = 0; row < rows; row++) {
      const a = expected.subarray(row * vocabularySize, (row + 1) * vocabularySize)
      const b = found.subarray(row * vocabularySize, (row + 1) * vocabularySize)
      const [p, q] = [distributionOf(a), distributionOf(b)]
      const target = part[row + 1] as number
      sourceLoss += p.logSum - a[target]!
      resultLoss += q.logSum - b[target]!
      if (p.likeliest === q.likeliest) agreed++
      divergences.push(divergence(a, b, p, q))
      if (pace.late()) await pace.rest() // a row may have 128,256 logits
    }
    onProgress?.(Math.min(1, (start + part.length) / text.length))
  }
  const count = divergences.length
  const sorted = Float64Array.from(divergences).sort()
  const quantile = (share: number): number => sorted[Math.min(count - 1, Math.floor(share * count))] as number
  const [sourcePerplexity, perplexity] = [Math.exp(sourceLoss / count), Math.exp(resultLoss / count)]
  return {
    tokens: count,
    meanDivergence: divergences.reduce((sum, value) => sum + value, 0) / count,
    medianDivergence: quantile(0.5),
    p99Divergence: quantile(0.99),
    largestDivergence: sorted[count - 1] as number,
    topAgreement: agreed / count,
    sourcePerplexity,
    perplexity,
    perplexityRatio: perplexity / sourcePerplexity,
  }
}
