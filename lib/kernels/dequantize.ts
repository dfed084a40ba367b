/** Stored rows back to f32, and sums of embedding rows. */
import { checkOneOf, checkOptions } from '../check.js'
import { DroverError } from '../errors.js'
import { type AsyncOptions, type Call, plainStep, run, runAsync, takeSignal } from './eager.js'
import { checkShape, checkStored, type Shape, type WeightDType, weightDTypes } from './operands.js'

const dequantizeCall = (type: unknown, bytes: unknown, shape: unknown): Call<Float32Array> => {
  const dtype = checkOneOf('type', type, weightDTypes)
  const [rows, cols] = checkShape('shape', shape)
  const data = checkStored('bytes', dtype, bytes, [rows, cols])
  return {
    recipe: {
      key: undefined,
      rows: 1,
      regions: [{ data }],
      build: (b) => b.output('out', b.dequantize('out', { name: 'bytes', dtype, rows, cols, region: 0, offset: 0 })),
    },
    *work(operands) {
      yield plainStep(1)
      return operands.read('out', rows)
    },
  }
}

/**
 * Decodes stored rows, each number to the nearest f32.
 * @param type any number format of a weight
 * @param bytes rows one after the other, as a file holds them
 * @param shape [rows, cols]; cols a multiple of the format's block
 * @returns f32 [rows, cols]
 * @throws DroverError E_ARGUMENT, E_SHAPE, E_MEMORY
 */
export const dequantize = (type: WeightDType, bytes: Uint8Array, shape: Shape): Float32Array =>
  run(dequantizeCall(type, bytes, shape))

/** {@link dequantize} off the event loop. */
export const dequantizeAsync = async (
  type: WeightDType,
  bytes: Uint8Array,
  shape: Shape,
  options?: AsyncOptions,
): Promise<Float32Array> => {
  const [signal, rest] = takeSignal(options)
  checkOptions('options', rest, [])
  return runAsync(dequantizeCall(type, bytes, shape), signal)
}

const notBuilt = (): DroverError =>
  new DroverError('E_UNSUPPORTED', 'embeddingBag is not built yet', { field: 'embeddingBag' })

/** Sums of embedding rows per bag. Not built yet: throws E_UNSUPPORTED. */
export const embeddingBag = (..._operands: unknown[]): Float32Array => {
  throw notBuilt()
}

/** {@link embeddingBag} off the event loop. Not built yet: rejects with E_UNSUPPORTED. */
export const embeddingBagAsync = async (..._operands: unknown[]): Promise<Float32Array> => {
  throw notBuilt()
}
