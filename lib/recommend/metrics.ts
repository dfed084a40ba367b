/**
 * What probabilities are worth against what happened: AUC, log loss, normalised entropy; and how far numbers are from those
 * that count as right: signal-to-quantisation-noise ratio and largest error. All of them take their numbers part by part.
 */
import { DroverError } from '../errors.js'
import type { Pace } from '../format/file.js'

/** How well the probabilities of a recommender fit what happened. */
export interface PredictionQuality {
  /** Share of the pairs of a positive and a negative row in which the positive one has the higher score; ties count half. */
  readonly auc: number
  /** Mean of -ln(probability of what happened), in nats. */
  readonly logLoss: number
  /** `logLoss` by the entropy of the base rate: 1 is what knowing nothing but the base rate gives. */
  readonly normalizedEntropy: number
}

/** Pairs of so many rows can be counted exactly in a double. */
const mostRows = 2 ** 27

/** Numbers that are looked at before others get their turn. */
const stretch = 2 ** 14

const signBit = 0x80000000

/** Floats as unsigned integers in the same order, of which equal ones are equal: -0 is 0. */
const keysOf = (scores: Float32Array, start: number, out: Uint32Array): void => {
  const words = new Uint32Array(scores.buffer, scores.byteOffset, scores.length)
  for (let i = 0; i < scores.length; i++) {
    const word = words[i] as number
    out[start + i] = word === signBit ? signBit : word & signBit ? ~word : word | signBit
  }
}

/** Sorts by halves of the key, the low ones first. */
const sortKeys = async (keys: Uint32Array, pace: Pace | undefined): Promise<Uint32Array> => {
  let from = keys
  let to: Uint32Array = new Uint32Array(keys.length)
  const stretches = async (body: (start: number, end: number) => void): Promise<void> => {
    for (let start = 0; start < keys.length; start += stretch) {
      body(start, Math.min(keys.length, start + stretch))
      if (pace?.late()) await pace.rest()
    }
  }
  for (const shift of [0, 16]) {
    const places = new Uint32Array(2 ** 16 + 1)
    const source = from
    const target = to
    await stretches((start, end) => {
      for (let i = start; i < end; i++) places[(((source[i] as number) >>> shift) & 0xffff) + 1]! += 1
    })
    for (let i = 1; i < places.length; i++) places[i]! += places[i - 1] as number
    await stretches((start, end) => {
      for (let i = start; i < end; i++) {
        const key = source[i] as number
        target[places[(key >>> shift) & 0xffff]!++] = key
      }
    })
    from = target
    to = source
  }
  return from
}

/** Keys that come one after another: a growing array. */
class Keys {
  #keys = new Uint32Array(1024)
  length = 0

  add(scores: Float32Array): void {
    if (this.length + scores.length > this.#keys.length) {
      const larger = new Uint32Array(Math.max(this.length + scores.length, 2 * this.#keys.length))
      larger.set(this.#keys.subarray(0, this.length))
      this.#keys = larger
    }
    keysOf(scores, this.length, this.#keys)
    this.length += scores.length
  }

  sorted(pace: Pace | undefined): Promise<Uint32Array> {
    return sortKeys(this.#keys.subarray(0, this.length), pace)
  }
}

/** The area under the ROC curve, exact: from the order of all scores, which it keeps (4 bytes each). */
export class RankStatistic {
  readonly #positives = new Keys()
  readonly #negatives = new Keys()

  /** Finite scores, and whether each row was positive. Throws E_SHAPE, E_RANGE. */
  add(scores: Float32Array, labels: ArrayLike<number>): void {
    const total = this.#positives.length + this.#negatives.length + scores.length
    if (total > mostRows) {
      throw new DroverError('E_RANGE', 'these are more rows than an AUC is counted of', {
        field: 'rows',
        found: total,
        expected: `at most ${mostRows}`,
        hint: 'take a sample of the data',
      })
    }
    checkPairs(scores, labels)
    this.#positives.add(scores.filter((_, i) => labels[i] === 1))
    this.#negatives.add(scores.filter((_, i) => labels[i] !== 1))
  }

  /** Throws E_RANGE without rows of both kinds. */
  async auc(pace?: Pace): Promise<number> {
    checkClasses(this.#positives.length, this.#positives.length + this.#negatives.length)
    const positives = await this.#positives.sorted(pace)
    const negatives = await this.#negatives.sorted(pace)
    let below = 0
    let notAbove = 0
    let halves = 0
    for (let i = 0; i < positives.length; i++) {
      const key = positives[i] as number
      while (below < negatives.length && (negatives[below] as number) < key) below++
      notAbove = Math.max(notAbove, below)
      while (notAbove < negatives.length && (negatives[notAbove] as number) === key) notAbove++
      halves += below + notAbove
      if (pace?.due()) await pace.rest()
    }
    return halves / (2 * positives.length * negatives.length)
  }
}

const checkPairs = (scores: ArrayLike<number>, labels: ArrayLike<number>): void => {
  if (scores.length !== labels.length) {
    throw new DroverError('E_SHAPE', 'there is a label per score', {
      field: 'labels',
      found: labels.length,
      expected: scores.length,
    })
  }
  for (let i = 0; i < scores.length; i++) {
    if (!Number.isFinite(scores[i])) {
      throw new DroverError('E_RANGE', 'a score is not finite', { field: `scores[${i}]`, found: String(scores[i]) })
    }
    if (labels[i] !== 0 && labels[i] !== 1) {
      throw new DroverError('E_RANGE', 'a label is neither 0 nor 1', { field: `labels[${i}]`, found: labels[i] })
    }
  }
}

const checkClasses = (positives: number, rows: number): void => {
  if (positives > 0 && positives < rows) return
  throw new DroverError('E_RANGE', rows === 0 ? 'there are no labelled rows' : 'all labels are alike', {
    field: 'label',
    found: rows === 0 ? 'no rows' : `${rows} rows with label ${positives === 0 ? 0 : 1}`,
    expected: 'rows with label 0 and rows with label 1',
    hint: 'AUC and normalised entropy compare what happened with what did not',
  })
}

/** Mean log loss, from logits: a probability that rounds to 0 or 1 still has a finite loss. */
export class LogLoss {
  readonly #bound: number
  #sum = 0
  #rows = 0
  #positives = 0

  /** @param threshold above 0: probabilities are clamped to [it, 1 - it], as the model's are. */
  constructor(threshold = 0) {
    this.#bound = threshold > 0 ? Math.log((1 - threshold) / threshold) : Number.POSITIVE_INFINITY
  }

  /** Throws E_SHAPE, and E_RANGE for a logit that is not finite. */
  add(logits: ArrayLike<number>, labels: ArrayLike<number>): void {
    checkPairs(logits, labels)
    for (let i = 0; i < logits.length; i++) {
      const logit = Math.min(Math.max(logits[i] as number, -this.#bound), this.#bound)
      const wrong = labels[i] === 1 ? -logit : logit
      // ln(1 + e^wrong) without overflow
      this.#sum += Math.max(wrong, 0) + Math.log1p(Math.exp(-Math.abs(wrong)))
      this.#positives += labels[i] as number
    }
    this.#rows += logits.length
  }

  get rows(): number {
    return this.#rows
  }

  get positives(): number {
    return this.#positives
  }

  get mean(): number {
    return this.#sum / this.#rows
  }

  /** By the entropy of the base rate. Throws E_RANGE without rows of both kinds. */
  normalizedEntropy(): number {
    checkClasses(this.#positives, this.#rows)
    const rate = this.#positives / this.#rows
    return this.mean / -(rate * Math.log(rate) + (1 - rate) * Math.log1p(-rate))
  }
}

/** How much a figure has grown, by what it was; what stays 0 has not grown. */
export const relativeChange = (from: number, to: number): number => (from === to ? 0 : (to - from) / from)

/** How far numbers are from those that count as right. */
export class Distance {
  #signal = 0
  #noise = 0
  #largest = 0

  /** Elements [start, end) of both. */
  add(expected: ArrayLike<number>, found: ArrayLike<number>, start = 0, end = expected.length): void {
    let signal = 0
    let noise = 0
    for (let i = start; i < end; i++) {
      const right = expected[i] as number
      const error = Math.abs((found[i] as number) - right)
      signal += right * right
      noise += error * error
      // A NaN is in the sums.
      if (error > this.#largest) this.#largest = error
    }
    this.#signal += signal
    this.#noise += noise
  }

  /** False once a number was infinite or none: squares of 32-bit floats do not overflow 64 bits. */
  get isFinite(): boolean {
    return Number.isFinite(this.#signal) && Number.isFinite(this.#noise)
  }

  /** 10 log10(Σ right² / Σ error²), in dB: Infinity where all numbers are equal. */
  get sqnr(): number {
    return this.#noise === 0 ? Number.POSITIVE_INFINITY : 10 * Math.log10(this.#signal / this.#noise)
  }

  get maxError(): number {
    return this.#largest
  }
}
