/** Random small programs of every op, with weights of every format, for comparing devices. */
import { cpuDevice } from '../../lib/device/cpu.js'
import { quantize, type WeightDType } from '../../lib/kernels.js'
import { activationNames, ProgramBuilder, type Value, type WeightSource } from '../../lib/program/builder.js'
import { type KvSpec, kvTypes, type Program, pagePositions } from '../../lib/program/program.js'
import type { Step } from '../../lib/program/step.js'
import { dtypes, rowBytes } from '../../lib/tensor.js'

export interface RandomProgram {
  program: Program
  regions: { data: Uint8Array }[]
  /** Steps in order: they fill the cache of one to three sequences. */
  steps: Step[]
}

export type Random = () => number

export const pick = <T>(random: Random, list: readonly T[]): T => list[Math.floor(random() * list.length)] as T
export const between = (random: Random, least: number, most: number): number =>
  least + Math.floor(random() * (most - least + 1))

const normal = (random: Random, length: number, size: number): Float32Array =>
  Float32Array.from({ length }, () => (random() + random() + random() + random() - 2) * size)

/** Stored rows with values of about `size`. */
export const storedWeight = (
  random: Random,
  dtype: WeightDType,
  rows: number,
  cols: number,
  size: number,
): Uint8Array => {
  if (['f32', 'f16', 'bf16', 'q8_0', 'q4_0', 'q4_1', 'q5_0', 'q5_1'].includes(dtype)) {
    return quantize(dtype, normal(random, rows * cols, size), [rows, cols])
  }
  // Random codes under small scales.
  const half = quantize('f16', Float32Array.of(size / 400), [1, 1])
  const bytes = Uint8Array.from({ length: rowBytes(dtype, cols) * rows }, () => Math.floor(random() * 256))
  const scales: Partial<Record<WeightDType, readonly number[]>> = {
    q4_k: [0, 2],
    q5_k: [0, 2],
    q6_k: [208],
    q2_k: [80, 82],
    q3_k: [108],
    iq4_nl: [0],
    iq4_xs: [0],
    iq1_s: [0],
    iq2_xs: [0],
    iq3_xxs: [0],
    tq1_0: [52],
  }
  for (let block = 0; block < bytes.length; block += dtypes[dtype].bytes) {
    for (const at of scales[dtype] ?? []) bytes.set(half, block + at)
  }
  return bytes
}

const weightTypes = ['f32', 'f16', 'bf16', 'q8_0', 'q4_0', 'q4_1', 'q5_1', 'iq4_nl', 'i8', 'i4'] as const
const wideTypes = ['q4_k', 'q5_k', 'q6_k', 'q2_k', 'q3_k', 'iq4_xs', 'iq1_s', 'iq2_xs', 'iq3_xxs', 'tq1_0'] as const

class Weights {
  readonly regions: { data: Uint8Array }[] = []
  readonly #random: Random

  /** Whether matrices are floats only, as bf16 activations want them. */
  readonly #floats: boolean

  constructor(random: Random, floats: boolean) {
    this.#random = random
    this.#floats = floats
  }

  /** A format that rows of `cols` elements can have. */
  dtypeFor(cols: number): WeightDType {
    if (this.#floats || cols % 32 !== 0) return pick(this.#random, weightTypes.slice(0, 3))
    return pick(this.#random, cols % 256 === 0 ? [...weightTypes, ...wideTypes] : weightTypes)
  }

  matrix(name: string, dtype: WeightDType, rows: number, cols: number): WeightSource {
    // Odd offsets: files align rows as they like.
    const offset = between(this.#random, 0, 9)
    const bytes = storedWeight(this.#random, dtype, rows, cols, 1 / Math.sqrt(cols))
    const data = new Uint8Array(offset + bytes.length + 3)
    data.set(bytes, offset)
    this.regions.push({ data })
    const weight = { name, dtype, rows, cols, region: this.regions.length - 1, offset }
    return dtype === 'i8' || dtype === 'i4' ? { ...weight, scales: this.#scales(weight) } : weight
  }

  /** Scales beside a weight: one per row of i8, one per 32 of i4. */
  #scales({ name, dtype, rows, cols }: WeightSource): WeightSource {
    const groups = dtype === 'i8' ? 1 : cols / 32
    const size = 1 / Math.sqrt(cols) / (dtype === 'i8' ? 74 : 4.6)
    const type = pick(this.#random, ['f32', 'f16', 'bf16'] as const)
    const offset = between(this.#random, 0, 3)
    const bytes = quantize(type, normal(this.#random, rows * groups, size), [rows, groups])
    const data = new Uint8Array(offset + bytes.length)
    data.set(bytes, offset)
    this.regions.push({ data })
    return { name: `${name}.scales`, dtype: type, rows, cols: groups, region: this.regions.length - 1, offset }
  }

  vector(name: string, cols: number, size = 1): WeightSource {
    this.regions.push({ data: quantize('f32', normal(this.#random, cols, size), [1, cols]) })
    return { name, dtype: 'f32', rows: 1, cols, region: this.regions.length - 1, offset: 0 }
  }
}

/** Appends an op that maps x to a value of the same rows. */
const appendOp = (b: ProgramBuilder, weights: Weights, random: Random, x: Value, peers: Value[], n: number): Value => {
  const name = `op${n}`
  const linear = (outputs: number): Value =>
    b.linear(name, x, weights.matrix(`${name}.weight`, weights.dtypeFor(x.cols), outputs, x.cols), {
      activation: pick(random, activationNames),
      ...(random() < 0.5 ? { bias: weights.vector(`${name}.bias`, outputs) } : {}),
      ...(random() < 0.5 ? residualOf(outputs) : {}),
    })
  const residualOf = (outputs: number): { residual?: Value } => {
    const fitting = peers.filter(({ cols }) => cols === outputs)
    return fitting.length === 0 ? {} : { residual: pick(random, fitting) }
  }
  const twins = peers.filter(({ cols, index }) => cols === x.cols && index !== x.index)
  switch (between(random, 0, 6)) {
    case 0:
      return b.rmsNorm(name, x, weights.vector(`${name}.weight`, x.cols), 1e-5)
    case 1:
      return b.softmax(name, x)
    case 2:
      return b.logSoftmax(name, x)
    case 3:
      if (twins.length > 0) return b.swiglu(name, x, pick(random, twins))
      return linear(x.cols)
    case 4:
      return linear(pick(random, [32, 64, 256, 31]))
    default:
      return linear(pick(random, [x.cols, 256, 512]))
  }
}

/** q, k and v of x, turned by the table, written to the cache and attended to. */
const appendAttention = (
  b: ProgramBuilder,
  weights: Weights,
  random: Random,
  x: Value,
  kv: KvSpec,
  layer: number,
): Value =>
  b.scope(`layer${layer}`, () => {
    const heads = kv.heads * between(random, 1, 3)
    const matrix = (name: string, rows: number): WeightSource => weights.matrix(name, 'f32', rows, x.cols)
    const q = b.linear('q', x, matrix('wq', heads * kv.headDim))
    const k = b.linear('k', x, matrix('wk', kv.heads * kv.headDim))
    const v = b.linear('v', x, matrix('wv', kv.heads * kv.headDim))
    const turned = between(random, 1, Math.floor(kv.headDim / 2))
    const table = b.ropeTable('table', weights.vector('frequencies', turned, 0.3))
    const layout = pick(random, ['half-split', 'adjacent'] as const)
    b.rope('rope_q', q, table, heads, layout)
    b.rope('rope_k', k, table, kv.heads, layout)
    b.kvWrite('write', k, v, layer)
    return b.attention('read', q, { layer, heads, scale: 0.2 + random(), causal: random() < 0.7 })
  })

const stepsOf = (random: Random, program: Program): Step[] => {
  const { maxSequences, kv, vocabulary, maxRows } = program
  const pages = Math.floor((kv?.pages ?? 0) / maxSequences)
  const done = Array.from({ length: maxSequences }, () => 0)
  return Array.from({ length: 3 }, (_, n) => {
    const counts = done.map((count) => {
      const room = Math.min(Math.floor(maxRows / maxSequences), pages * pagePositions - count)
      return n === 0 ? room : Math.min(room, between(random, 0, 2))
    })
    if (!counts.some((count) => count > 0)) counts[0] = 1
    const sequences = counts.flatMap((rows, s) =>
      rows === 0
        ? []
        : [{ rows, cacheStart: done[s]!, pages: Array.from({ length: pages }, (_, i) => s + i * maxSequences) }],
    )
    counts.forEach((count, s) => {
      done[s]! += count
    })
    const rows = counts.reduce((sum, count) => sum + count, 0)
    const list = (limit: number): number[] => Array.from({ length: rows }, () => between(random, 0, limit - 1))
    const outputRows = list(rows).slice(0, between(random, 1, Math.min(rows, program.maxOutputs)))
    return {
      tokens: list(vocabulary),
      positions: list(300),
      sequences,
      outputRows,
      targets: outputRows.map(() => between(random, 0, vocabulary - 1)),
    }
  })
}

export const randomProgram = (random: Random): RandomProgram => {
  const vocabulary = between(random, 5, 70)
  const kv: KvSpec = {
    layers: between(random, 1, 2),
    heads: between(random, 1, 3),
    headDim: pick(random, [2, 7, 16, 24, 33]),
    dtype: pick(random, Object.values(kvTypes)),
    pages: 6,
  }
  const activations = pick(random, ['auto', 'auto', 'f32', 'bf16'] as const)
  const weights = new Weights(random, activations === 'bf16')
  const b = new ProgramBuilder(cpuDevice.layout, {
    maxRows: between(random, 3, 40),
    maxOutputs: 8,
    maxSequences: between(random, 1, 3),
    maxPages: 18,
    vocabulary,
    activations,
    kv,
  })
  const width = pick(random, [32, 40, 64, 256])
  const table = weights.matrix(
    'table',
    activations === 'bf16' || width % 32 !== 0 ? pick(random, ['f32', 'f16'] as const) : pick(random, weightTypes),
    vocabulary,
    width,
  )
  let x = b.embed('embedding', table)
  const peers = [x]
  let n = 0
  for (let layer = 0; layer < kv.layers; layer++) {
    for (let i = between(random, 0, 4); i > 0; i--) {
      x = appendOp(b, weights, random, pick(random, peers), peers, n++)
      peers.push(x)
    }
    x = appendAttention(b, weights, random, x, kv, layer)
    peers.push(x)
  }
  let y = b.gather('gathered', pick(random, peers))
  const last = [y]
  for (let i = between(random, 0, 3); i > 0; i--) {
    y = appendOp(b, weights, random, pick(random, last), last, n++)
    last.push(y)
  }
  const normed = b.rmsNorm('norm', y, weights.vector('norm', y.cols), 1e-5)
  const logits = b.linear('logits', normed, weights.matrix('head', 'f16', vocabulary, y.cols))
  b.output('logits', logits)
  b.output('nll', b.tokenNll('nll', logits))
  b.output('sums', b.logSumExp('sums', logits))
  b.output('decoded', b.dequantize('decoded', weights.matrix('stored', 'q5_1', 3, 64)))
  const program = b.finish()
  return { program, regions: weights.regions, steps: stepsOf(random, program) }
}
