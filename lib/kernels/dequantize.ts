/** Stored rows back to f32. */
import { checkOneOf, checkOptions } from '../check.js'
import { quantizeRows, quantizeRowsAsync } from '../device/quantize.js'
import { isRowwise, type RowwiseDType } from '../tensor.js'
import { type AsyncOptions, type Call, plainStep, run, runAsync, takeSignal } from './eager.js'
import { checkShape, checkStored, type Shape, type WeightDType, weightDTypes } from './operands.js'

/** Rows of a table, whose codes no op but embedding_bag reads. */
const rowsRequest = (type: RowwiseDType, bytes: unknown, shape: unknown) => {
  const [rows, cols] = checkShape('shape', shape)
  return { from: type, source: checkStored('bytes', type, bytes, [rows, cols]), to: 'f32', rows, cols } as const
}
const floatsOf = (bytes: Uint8Array<ArrayBuffer>): Float32Array => new Float32Array(bytes.buffer)

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
 * @param type any number format of a weight, or of the rows of a table with scale and bias last
 * @param bytes rows one after the other, as a file holds them
 * @param shape [rows, cols]; cols a multiple of the format's block, or any number for row-wise formats
 * @returns f32 [rows, cols]
 * @throws DroverError E_ARGUMENT, E_SHAPE, E_MEMORY
 */
export const dequantize = (type: WeightDType | RowwiseDType, bytes: Uint8Array, shape: Shape): Float32Array =>
  isRowwise(type) ? floatsOf(quantizeRows(rowsRequest(type, bytes, shape))) : run(dequantizeCall(type, bytes, shape))

/** {@link dequantize} off the event loop. */
export const dequantizeAsync = async (
  type: WeightDType | RowwiseDType,
  bytes: Uint8Array,
  shape: Shape,
  options?: AsyncOptions,
): Promise<Float32Array> => {
  const [signal, rest] = takeSignal(options)
  checkOptions('options', rest, [])
  if (isRowwise(type)) return floatsOf(await quantizeRowsAsync(rowsRequest(type, bytes, shape), signal))
  return runAsync(dequantizeCall(type, bytes, shape), signal)
}
