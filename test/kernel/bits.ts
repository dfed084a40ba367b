/** Prints, as JSON, hashes of what the kernels compute on random operands: the same whatever the instruction set. */
import { createHash } from 'node:crypto'
import { weightDTypes } from '../../lib/kernels/operands.js'
import * as kernels from '../../lib/kernels.js'
import { kvTypeNames } from '../../lib/program/program.js'
import { dtypes, rowBytes, tableDTypes } from '../../lib/tensor.js'
import { randomSource } from '../support.js'

const random = randomSource(77)
const normal = (length: number): Float32Array =>
  Float32Array.from({ length }, () => (random() + random() + random() + random() - 2) * 2)
const hashes: Record<string, string> = {}
const record = (name: string, values: Float32Array): void => {
  hashes[name] = createHash('sha256').update(new Uint8Array(values.buffer)).digest('hex')
}

/** Random bytes without the largest exponents, where half precision scales become infinite. */
const stored = (type: kernels.WeightDType, rows: number, cols: number): Uint8Array => {
  if ((kernels.quantizableDTypes as readonly string[]).includes(type)) {
    return kernels.quantize(type, normal(rows * cols), [rows, cols])
  }
  if (type === 'f64') return new Uint8Array(Float64Array.from(normal(rows * cols)).buffer)
  return Uint8Array.from({ length: rowBytes(type, cols) * rows }, () => Math.floor(random() * 256) & 0xbb)
}

const activations = ['none', 'silu', 'gelu', 'gelu_tanh', 'relu'] as const
weightDTypes.forEach((type, i) => {
  const cols = dtypes[type].block === 1 ? 131 : dtypes[type].block * (dtypes[type].block === 32 ? 5 : 2)
  for (const rows of [1, 3, 18]) {
    const outputs = 35
    const weight = { dtype: type, data: stored(type, outputs, cols), shape: [outputs, cols] } as const
    const x = normal(rows * cols)
    const activation = activations[(i + rows) % activations.length] as (typeof activations)[number]
    const options = { activation, bias: normal(outputs), residual: normal(rows * outputs) }
    record(`gemm ${type} ${rows}`, kernels.gemm(x, weight, options))
    record(`gemm ${type} ${rows} f32`, kernels.gemm(x, weight, { ...options, activations: 'f32' }))
  }
})
for (const [heads, kvHeads, headDim, queries, keys] of [
  [4, 1, 48, 1, 200],
  [3, 3, 7, 20, 20],
  [8, 2, 80, 33, 97],
] as const) {
  const q = normal(queries * heads * headDim)
  const k = normal(keys * kvHeads * headDim)
  const v = normal(keys * kvHeads * headDim)
  for (const kvType of kvTypeNames) {
    for (const causal of [true, false]) {
      const found = kernels.attention(q, k, v, { heads, kvHeads, headDim, kvType, causal })
      record(`attention ${[heads, kvHeads, headDim, queries, keys, kvType, causal]}`, found)
    }
  }
}
for (const cols of [1, 15, 16, 17, 100, 1000]) {
  const rows = 3
  const x = normal(rows * cols)
  record(`rms_norm ${cols}`, kernels.rmsNorm(x, normal(cols)))
  record(`swiglu ${cols}`, kernels.swiglu(x, normal(rows * cols), [rows, cols]))
  record(`softmax ${cols}`, kernels.softmax(x, [rows, cols]))
  record(`log_softmax ${cols}`, kernels.logSoftmax(x, [rows, cols]))
  record(`log_sum_exp ${cols}`, kernels.logSumExp(x, [rows, cols]))
  record(
    `sample ${cols}`,
    kernels.sampleProbabilities(x, [rows, cols], { topP: 0.9, typicalP: 0.95, temperature: 0.7 }),
  )
}
for (const layout of ['half-split', 'adjacent'] as const) {
  for (const headDim of [2, 10, 64, 80]) {
    const options = { heads: 3, headDim, layout }
    record(`rope ${layout} ${headDim}`, kernels.rope(normal(2 * 3 * headDim), [17, 100000], options))
  }
}

for (const dtype of tableDTypes) {
  for (const cols of [1, 16, 37, 64, 200]) {
    const table = { dtype, data: kernels.quantize(dtype, normal(50 * cols), [50, cols]), shape: [50, cols] } as const
    const indices = Int32Array.from({ length: 5000 }, () => Math.floor(random() * 50))
    const bags = { indices, offsets: Int32Array.of(0, 9, 9, 4200, 5000) }
    record(`embedding_bag ${dtype} ${cols}`, kernels.embeddingBag(table, { ...bags, weights: normal(5000) }))
    for (const pooling of ['mean', 'max'] as const)
      record(`embedding_bag ${dtype} ${cols} ${pooling}`, kernels.embeddingBag(table, bags, { pooling }))
  }
}

process.stdout.write(JSON.stringify({ isa: kernels.cpu().isa, hashes }))
