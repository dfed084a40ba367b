/** Random logits and parameters for sampling, and what both devices' samplers must agree on. */
import { plainSampling, type SamplingParameters } from '../../lib/program/step.js'
import { between, pick, type Random } from '../program/random-programs.js'

/** Logits of many shapes: peaked, flat, with ties, with tokens that are out. */
export const randomLogits = (random: Random, vocabulary: number): Float32Array => {
  const size = pick(random, [0, 0.01, 1, 4, 30, 400])
  const step = pick(random, [0, 0, 0.5, 2])
  const out = random() < 0.2 ? 0.2 : 0
  return Float32Array.from({ length: vocabulary }, () => {
    const value = (random() + random() + random() - 1.5) * size
    if (random() < out) return Number.NEGATIVE_INFINITY
    return step === 0 ? value : Math.round(value / step) * step
  })
}

/** Parameters of which each is off as often as on. */
export const randomParameters = (random: Random, vocabulary: number): SamplingParameters => {
  const maybe = <T>(on: T, off: T): T => (random() < 0.5 ? on : off)
  const tokens = (count: number): number[] => {
    const found = new Set<number>()
    for (let i = 0; i < count; i++) found.add(between(random, 0, vocabulary - 1))
    return [...found]
  }
  const mask = Uint32Array.from({ length: Math.ceil(vocabulary / 32) }, () => Math.floor(random() * 2 ** 32))
  mask[0]! |= 1
  return {
    ...plainSampling,
    temperature: maybe(pick(random, [0.05, 0.7, 1.3, 5]), 1),
    topK: maybe(between(random, 1, vocabulary + 3), 0),
    topP: maybe(random(), 1),
    minP: maybe(random() ** 3, 0),
    typicalP: maybe(random(), 1),
    repetitionPenalty: maybe(0.5 + 2 * random(), 1),
    presencePenalty: maybe(2 * random() - 1, 0),
    frequencyPenalty: maybe(random() - 0.3, 0),
    seed: BigInt(Math.floor(random() * 2 ** 53)) * 2047n,
    counter: between(random, 0, 2 ** 32 - 1),
    logprobs: random() < 0.5,
    topLogprobs: maybe(between(random, 0, Math.min(20, vocabulary)), 0),
    bias: tokens(between(random, 0, 4)).map((token) => [token, 10 * random() - 5] as const),
    history: tokens(between(random, 0, 12)).map((token) => [token, between(random, 1, 5)] as const),
    ...(random() < 0.3 ? { mask } : {}),
    ...(random() < 0.3 ? { uniform: random() } : {}),
  }
}
