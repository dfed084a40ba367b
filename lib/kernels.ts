/**
 * `drover/kernels`: the kernels that models run on, for typed arrays.
 *
 * Matrices are row-major f32 arrays; weights are the bytes of a stored format. Every function has an `…Async` twin that
 * works off the event loop and takes a `signal`. Arrays are copied at the call. Errors are `DroverError`s: E_ARGUMENT
 * and E_SHAPE for what does not fit, E_MEMORY, and for twins E_ABORTED. Results are the same, bit for bit, for every
 * instruction set and number of threads.
 */
export { cpu } from './device/cpu.js'
export type { CpuInfo } from './device/native.js'
export { DroverError, type ErrorCode } from './errors.js'
export { type AttentionOptions, attention, attentionAsync } from './kernels/attention.js'
export { dequantize, dequantizeAsync } from './kernels/dequantize.js'
export type { AsyncOptions } from './kernels/eager.js'
export {
  type EmbeddingBagOptions,
  type EmbeddingTable,
  embeddingBag,
  embeddingBagAsync,
  type Pooled,
  PreparedTables,
} from './kernels/embedding-bag.js'
export { type GemmOptions, gemm, gemmAsync, type LinearOptions, PreparedLinear } from './kernels/gemm.js'
export type { Shape, Weight, WeightDType } from './kernels/operands.js'
export { type QuantizeOptions, quantizableDTypes, quantize, quantizeAsync } from './kernels/quantize.js'
export {
  logSoftmax,
  logSoftmaxAsync,
  logSumExp,
  logSumExpAsync,
  type RmsNormOptions,
  type RopeOptions,
  rmsNorm,
  rmsNormAsync,
  rope,
  ropeAsync,
  softmax,
  softmaxAsync,
  swiglu,
  swigluAsync,
} from './kernels/rows.js'
export {
  type Sample,
  type SampleOptions,
  sample,
  sampleAsync,
  sampleProbabilities,
  sampleProbabilitiesAsync,
} from './kernels/sample.js'
export type { Bags, IndexPolicy } from './program/bags.js'
export type { Activation } from './program/builder.js'
export type { BagOutput, Pooling } from './program/tables.js'
export type { RowwiseDType, TableDType } from './tensor.js'
