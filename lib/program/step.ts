/** One step: the dynamic inputs of a program's run, and their encoding (native/core/program.h). */
import { DroverError } from '../errors.js'
import { type Bags, bagWords, type IndexPolicy, indexPolicies, putBags } from './bags.js'
import { absent } from './program.js'

/** How one output row is sampled; see native/kernels/sampling.h for the order in which they apply. */
export interface SamplingParameters {
  /** 0: greedy, the lowest of equal tokens. */
  temperature: number
  /** 0: off. Tokens tied with the k-th are kept. */
  topK: number
  /** 1: off. */
  topP: number
  /** 0: off. Relative to the likeliest token. */
  minP: number
  /** 1: off. */
  typicalP: number
  /** 1: off. */
  repetitionPenalty: number
  presencePenalty: number
  frequencyPenalty: number
  /** 64 bits. The draw is a function of (seed, counter) alone. */
  seed: bigint
  counter: number
  /** Report the drawn token's log-probability under the raw logits. */
  logprobs: boolean
  /** Candidates to report, at most what the program has room for. */
  topLogprobs: number
  /** [token, value added to its logit] */
  bias: readonly (readonly [number, number])[]
  /** [token, occurrences] in the penalty window */
  history: readonly (readonly [number, number])[]
  /** Bit t of word t / 32 set: token t is allowed. */
  mask?: Uint32Array
  /** In [0, 1): replaces the generator's number. */
  uniform?: number
}

export const plainSampling: Readonly<SamplingParameters> = {
  temperature: 1,
  topK: 0,
  topP: 1,
  minP: 0,
  typicalP: 1,
  repetitionPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  seed: 0n,
  counter: 0,
  logprobs: false,
  topLogprobs: 0,
  bias: [],
  history: [],
}

export interface StepSequence {
  /** Rows of this sequence in the step. */
  rows: number
  /** Cache position of its first row. */
  cacheStart: number
  /** Its page table; must hold cacheStart + rows positions. */
  pages: ArrayLike<number>
}

export interface Step {
  /** With bags only their number counts, that of the step's rows. */
  tokens: ArrayLike<number>
  /** RoPE positions, one per row. */
  positions: ArrayLike<number>
  /** They cover the rows in order. */
  sequences: readonly StepSequence[]
  /** Rows that reach the head. */
  outputRows: ArrayLike<number>
  /** One per output row, for token_nll. */
  targets?: ArrayLike<number>
  /** One per output row, for sample. */
  sampling?: readonly SamplingParameters[]
  /** One per bag input of the program, for embedding_bag. */
  bags?: readonly Bags[]
  /** What becomes of their indices that are out of range; default 'error'. */
  indices?: IndexPolicy
  /** Ops [firstOp, endOp) run; default all. */
  firstOp?: number
  endOp?: number
  /** Measure each op. */
  profile?: boolean
}

const magic = 0x53565244
const headerWords = 16
const sequenceWords = 5
const samplingWords = 24
const flags = { profile: 1, targets: 2, sampling: 4, bags: 8 }

const tailOf = (sampling: readonly SamplingParameters[]): number =>
  sampling.reduce((sum, { bias, history, mask }) => sum + 2 * bias.length + 2 * history.length + (mask?.length ?? 0), 0)

/** A step of `rows` rows that are the bags of tables, one per bag input in order. */
export const bagStep = (rows: number, bags: readonly Bags[], indices: IndexPolicy = 'error'): Step => {
  const tokens = noTokens(rows)
  return { tokens, positions: tokens, sequences: [], outputRows: [], bags, indices }
}

let zeros = new Uint32Array(64)
const noTokens = (rows: number): Uint32Array => {
  if (rows > zeros.length) zeros = new Uint32Array(2 * rows)
  return zeros.subarray(0, rows)
}

/** Words for a step: in `room`, if it is large enough. */
const wordsFor = (total: number, zeroed: number, room: Uint32Array | undefined): Uint32Array => {
  if (room === undefined || room.length < total) return new Uint32Array(total)
  return room.subarray(0, total).fill(0, 0, zeroed)
}

/**
 * Encodes a step for a program of `opCount` ops.
 * @param room memory that nobody needs any more; the result may be a part of it
 */
export const encodeStep = (step: Step, opCount: number, room?: Uint32Array): Uint32Array => {
  const { tokens, positions, sequences, outputRows, targets, sampling, bags } = step
  const rows = tokens.length
  const outputs = outputRows.length
  const pages = sequences.reduce((sum, sequence) => sum + sequence.pages.length, 0)
  const lengths = {
    positions: [positions.length, rows],
    targets: [targets?.length ?? outputs, outputs],
    sampling: [sampling?.length ?? outputs, outputs],
  }
  for (const [field, [found, expected]] of Object.entries(lengths)) {
    if (found !== expected) throw new DroverError('E_SHAPE', 'a step has one entry per row', { field, found, expected })
  }
  const tail = sampling === undefined ? 0 : tailOf(sampling)
  const plainWords =
    headerWords +
    (bags === undefined ? 2 * rows : 0) +
    sequences.length * sequenceWords +
    pages +
    outputs +
    (targets === undefined ? 0 : outputs) +
    (sampling === undefined ? 0 : outputs * samplingWords) +
    tail
  const total = plainWords + (bags === undefined ? 0 : bagWords(bags, rows))
  const words = wordsFor(total, plainWords, room)
  const flag =
    (step.profile ? flags.profile : 0) |
    (targets === undefined ? 0 : flags.targets) |
    (sampling === undefined ? 0 : flags.sampling) |
    (bags === undefined ? 0 : flags.bags)
  words.set([
    magic,
    total,
    rows,
    outputs,
    sequences.length,
    pages,
    step.firstOp ?? 0,
    step.endOp ?? opCount,
    flag,
    tail,
    bags?.length ?? 0,
    bags === undefined ? 0 : indexPolicies.indexOf(step.indices ?? 'error'),
  ])
  let at = headerWords
  const put = (values: ArrayLike<number>): void => {
    words.set(values, at)
    at += values.length
  }
  if (bags === undefined) {
    put(tokens)
    put(positions)
  }
  let row = 0
  let page = 0
  for (const sequence of sequences) {
    put([row, sequence.rows, sequence.cacheStart, page, sequence.pages.length])
    row += sequence.rows
    page += sequence.pages.length
  }
  for (const sequence of sequences) put(sequence.pages)
  put(outputRows)
  if (targets !== undefined) put(targets)
  if (sampling !== undefined) putSampling(words, at, sampling)
  if (bags !== undefined) putBags(words, plainWords, bags)
  return words
}

const putSampling = (words: Uint32Array, start: number, sampling: readonly SamplingParameters[]): void => {
  const floats = new Float32Array(words.buffer, words.byteOffset, words.length)
  const double = new Float64Array(1)
  const halves = new Uint32Array(double.buffer)
  const tailStart = start + sampling.length * samplingWords
  let tail = 0
  sampling.forEach((s, i) => {
    const at = start + i * samplingWords
    floats.set([s.temperature], at)
    words[at + 1] = s.topK
    floats.set([s.topP, s.minP, s.typicalP, s.repetitionPenalty, s.presencePenalty, s.frequencyPenalty], at + 2)
    words[at + 8] = Number(BigInt.asUintN(32, s.seed))
    words[at + 9] = Number(BigInt.asUintN(32, s.seed >> 32n))
    words[at + 10] = s.counter
    words[at + 11] = s.topLogprobs
    words.set([tail, s.bias.length], at + 12)
    for (const [token, value] of s.bias) {
      words[tailStart + tail] = token
      floats[tailStart + tail + 1] = value
      tail += 2
    }
    words.set([tail, s.history.length], at + 14)
    for (const [token, count] of s.history) {
      words[tailStart + tail] = token
      words[tailStart + tail + 1] = count
      tail += 2
    }
    words[at + 16] = s.mask === undefined ? absent : tail
    if (s.mask !== undefined) {
      words.set(s.mask, tailStart + tail)
      tail += s.mask.length
    }
    words[at + 17] = (s.uniform === undefined ? 0 : 1) | (s.logprobs ? 2 : 0)
    if (s.uniform !== undefined) {
      double[0] = s.uniform
      words.set(halves, at + 18)
    }
  })
}
