/** Stored rows of one number format into another, on the pool of the addon. */
import { DroverError, throwIfAborted } from '../errors.js'
import { type DTypeName, type RowwiseDType, rowBytes } from '../tensor.js'
import { cpuDevice, guarded, translate } from './cpu.js'
import { nativeAddon } from './native.js'

/** Formats of files that {@link quantizeRows} writes. */
export const writableDTypes = [
  'f32',
  'f16',
  'bf16',
  'f8_e4m3',
  'f8_e5m2',
  'q8_0',
  'q4_0',
  'q4_1',
  'q5_0',
  'q5_1',
  'q2_k',
  'q3_k',
  'q4_k',
  'q5_k',
  'q6_k',
  'iq4_nl',
  'iq4_xs',
  'mxfp4',
] as const satisfies readonly DTypeName[]

export type WritableDType = (typeof writableDTypes)[number]
/** All formats that it writes: rows of tables, too. */
export type RowDType = WritableDType | RowwiseDType

export interface QuantizeRequest {
  from: DTypeName | RowwiseDType
  /** Rows of `from`, one after the other. */
  source: Uint8Array
  to: RowDType
  rows: number
  cols: number
  /** [cols], not negative: what the squared error of a column counts. */
  importance?: Float32Array | undefined
  /** Also refuse what a float format cannot hold; block formats always do. */
  finite?: boolean
  threads?: number | undefined
  /** Memory for the result, which is then a part of it: for callers that convert chunk after chunk. */
  out?: Uint8Array<ArrayBuffer> | undefined
}

type NativeArguments = Parameters<ReturnType<typeof nativeAddon>['quantize']>

const nativeArguments = (request: QuantizeRequest): NativeArguments => {
  const { from, source, to, rows, cols, importance, finite = false, threads = 0 } = request
  const { dtypeId } = cpuDevice.layout
  const options = { threads, finite, ...(importance === undefined ? {} : { importance }) }
  const bytes = rowBytes(to, cols) * rows
  const target = request.out?.subarray(0, bytes) ?? new Uint8Array(bytes)
  return [dtypeId(from), source, dtypeId(to), rows, cols, options, target]
}

/**
 * Rounds rows into another format and blocks. Throws E_RANGE when the format cannot hold a number; `found` is then the
 * index of the first element of its piece of 256.
 */
export const quantizeRows = (request: QuantizeRequest): Uint8Array<ArrayBuffer> =>
  guarded(undefined, () => {
    const args = nativeArguments(request)
    nativeAddon().quantizeSync(...args)
    return args[6]
  })

/** {@link quantizeRows} off the event loop. Source and importance are copied at the call. */
export const quantizeRowsAsync = async (
  request: QuantizeRequest,
  signal?: AbortSignal,
): Promise<Uint8Array<ArrayBuffer>> => {
  throwIfAborted(signal, 'quantising')
  const { promise, abort } = guarded(undefined, () => nativeAddon().quantize(...nativeArguments(request)))
  signal?.addEventListener('abort', abort, { once: true })
  try {
    return await promise
  } catch (error) {
    throw signal?.aborted ? new DroverError('E_ABORTED', 'quantising was aborted') : translate(error)
  } finally {
    signal?.removeEventListener('abort', abort)
  }
}
