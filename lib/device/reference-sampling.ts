/**
 * Sampling in plain steps: sort, sum, cut, in the order of native/kernels/sampling.h. Logits are f32 and stay f32
 * through penalties, bias and temperature, as in transformers; weights and their sums are float64.
 */
import { plainSampling, type SamplingParameters } from '../program/step.js'

/** To f32; what is beyond its range stays as it is. */
const f = (value: number): number => (Math.abs(value) < 2 ** 127 ? Math.fround(value) : value)

/** Philox 4x32-10: four words of a counter under a key (Salmon et al., Parallel random numbers: as easy as 1, 2, 3). */
export const philox = (counter: readonly number[], key: readonly number[]): number[] => {
  let [a, b, c, d] = counter.map(BigInt) as [bigint, bigint, bigint, bigint]
  let [k, l] = key.map(BigInt) as [bigint, bigint]
  const low = (value: bigint): bigint => BigInt.asUintN(32, value)
  for (let round = 0; round < 10; round++) {
    const first = 0xd2511f53n * a
    const second = 0xcd9e8d57n * c
    ;[a, b, c, d] = [(second >> 32n) ^ b ^ k, low(second), (first >> 32n) ^ d ^ l, low(first)]
    k = low(k + 0x9e3779b9n)
    l = low(l + 0xbb67ae85n)
  }
  return [a, b, c, d].map(Number)
}

/** The number in [0, 1), of 53 bits, that a draw takes. */
export const uniformOf = (seed: bigint, counter: number): number => {
  const key = [BigInt.asUintN(32, seed), BigInt.asUintN(32, seed >> 32n)].map(Number)
  const [high, low] = philox([counter, 0, 0, 0], key) as [number, number]
  return ((high >>> 5) * 2 ** 26 + (low >>> 6)) / 2 ** 53
}

/** Logits after penalties, bias and mask. */
const adjusted = (logits: ArrayLike<number>, s: SamplingParameters): Float64Array => {
  const scores = Float64Array.from(logits)
  for (const [token, count] of s.history) {
    const score = scores[token]!
    const repeated = f(score > 0 ? score / f(s.repetitionPenalty) : score * f(s.repetitionPenalty))
    scores[token] = f(f(repeated - f(f(s.frequencyPenalty) * count)) - f(s.presencePenalty))
  }
  for (const [token, value] of s.bias) scores[token] = f(scores[token]! + f(value))
  const { mask } = s
  if (mask === undefined) return scores
  return scores.map((score, i) => ((mask[i >>> 5]! >>> (i & 31)) & 1 ? score : Number.NEGATIVE_INFINITY))
}

/** Tokens by ascending value; of equal ones the lower first. */
const ascending = (tokens: readonly number[], value: (token: number) => number): number[] =>
  [...tokens].sort((a, b) => value(a) - value(b) || a - b)

/** The final distribution over the vocabulary; undefined where the logits are broken or nothing is left. */
export const distribution = (
  logits: ArrayLike<number>,
  parameters: Partial<SamplingParameters>,
): Float64Array | undefined => {
  const s = { ...plainSampling, ...parameters }
  for (let i = 0; i < logits.length; i++) {
    if (Number.isNaN(logits[i]) || logits[i] === Number.POSITIVE_INFINITY) return undefined
  }
  const scores = adjusted(logits, s)
  const peak = scores.reduce((most, score) => Math.max(most, score), Number.NEGATIVE_INFINITY)
  if (!Number.isFinite(peak)) return undefined
  const out = new Float64Array(logits.length)
  if (s.temperature === 0) {
    out[scores.indexOf(peak)] = 1
    return out
  }
  const temperature = f(s.temperature)
  const score = (token: number): number => f(scores[token]! / temperature) - f(peak / temperature)
  const weight = (token: number): number => Math.exp(score(token))
  const sum = (list: readonly number[]): number => list.reduce((total, token) => total + weight(token), 0)
  // Below e^-708 a weight is no normal number any more: it counts as 0.
  let kept = Array.from(scores.keys()).filter((token) => score(token) >= -708)
  if (s.topK > 0 && s.topK < kept.length) {
    const least = score(ascending(kept, score).at(-s.topK)!)
    kept = kept.filter((token) => score(token) >= least)
  }
  if (f(s.topP) < 1) {
    const limit = (1 - f(s.topP)) * sum(kept)
    const order = ascending(kept, score)
    let dropped = 0
    let from = 0
    while (from < order.length - 1 && dropped + weight(order[from]!) <= limit) dropped += weight(order[from++]!)
    kept = order.slice(from).sort((a, b) => a - b)
  }
  kept = kept.filter((token) => weight(token) >= f(s.minP))
  if (f(s.typicalP) < 1) {
    const total = sum(kept)
    const surprise = (token: number): number => -Math.log(weight(token) / total)
    const entropy = kept.reduce((mean, token) => mean + (weight(token) / total) * surprise(token), 0)
    const distance = (token: number): number => Math.abs(surprise(token) - entropy)
    const order = ascending(kept, distance)
    let mass = 0
    let last = 0
    while (last < order.length) {
      mass += weight(order[last]!)
      if (mass >= f(s.typicalP) * total) break
      last++
    }
    const farthest = last < order.length ? distance(order[last]!) : Number.POSITIVE_INFINITY
    kept = kept.filter((token) => distance(token) <= farthest)
  }
  const total = sum(kept)
  for (const token of kept) out[token] = weight(token) / total
  return out
}

/** The token that the parameters' number picks from a distribution, in the order of the vocabulary. */
export const draw = (probabilities: Float64Array, parameters: Partial<SamplingParameters>): number => {
  const { seed, counter, uniform } = { ...plainSampling, ...parameters }
  const at = uniform ?? uniformOf(seed, counter)
  let sum = 0
  let last = 0
  for (const [token, probability] of probabilities.entries()) {
    if (probability === 0) continue
    last = token
    sum += probability
    if (sum > at) break
  }
  return last
}

/** Log-probabilities under the raw logits. */
export const logProbabilities = (logits: ArrayLike<number>): Float64Array => {
  const values = Float64Array.from(logits)
  const peak = values.reduce((most, value) => Math.max(most, value), Number.NEGATIVE_INFINITY)
  const total = peak + Math.log(values.reduce((sum, value) => sum + Math.exp(value - peak), 0))
  return values.map((value) => value - total)
}

/** The likeliest tokens, best first; of equal ones the lower first. */
export const likeliest = (values: Float64Array, count: number): number[] =>
  ascending(Array.from(values.keys()), (token) => -values[token]!).slice(0, count)
