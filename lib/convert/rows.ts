/** Stored rows of one tensor in another number format, chunk by chunk. */
import { quantizeRowsAsync, type RowDType } from '../device/quantize.js'
import { DroverError, throwIfAborted } from '../errors.js'
import { type FileEntry, openFile } from '../format/file.js'
import { type DTypeName, isRowwise, type RowwiseDType, rowBytes } from '../tensor.js'
import type { SourceTensor } from './source.js'

/** What becomes of one tensor: in a file, or as rows of a table. */
export interface Planned<To = DTypeName> {
  readonly tensor: SourceTensor
  readonly to: To
  readonly importance: Float32Array | undefined
}

/** Bytes of a chunk, as f32: large enough for all threads, small enough to forget. */
const chunkBytes = 8 << 20

/** Rows of whole heads in the order of GGUF: elements that rotate together stand side by side. */
const interleaved = (chunk: Uint8Array, row: number, headRows: number): Uint8Array => {
  const out = new Uint8Array(chunk.length)
  for (let to = 0; to < chunk.length / row; to++) {
    const within = to % headRows
    const from = to - within + (within >> 1) + (within & 1) * (headRows / 2)
    out.set(chunk.subarray(from * row, (from + 1) * row), to * row)
  }
  return out
}

/**
 * Rows of a tensor, converted, in chunks of whole rows; the next is read while one is converted. A chunk's memory is used
 * again for the next one. `done` is told how many bytes have been read. Throws E_RANGE for a weight that the format
 * cannot hold, unless it is stored in that format.
 */
export async function* convertRows(
  { path: file }: FileEntry,
  { tensor, to, importance }: Planned<DTypeName | RowwiseDType>,
  { threads, signal }: { threads?: number; signal?: AbortSignal },
  done: (bytes: number) => void,
): AsyncGenerator<Uint8Array> {
  const { info, rows, cols, headRows = 1 } = tensor
  const source = await openFile(file)
  try {
    const row = rowBytes(info.dtype, cols)
    const step = headRows * Math.max(1, Math.floor(chunkBytes / (cols * 4 * headRows)))
    // Used again and again: garbage of this size would pile up faster than it is collected.
    const most = Math.min(step, rows)
    const inputs = [new Uint8Array(most * row), new Uint8Array(step < rows ? most * row : 0)] as const
    const out = new Uint8Array(info.dtype === to ? 0 : rowBytes(to, cols) * most)
    const read = async (first: number): Promise<Uint8Array | undefined> => {
      if (first >= rows) return undefined
      const into = inputs[(first / step) & 1]
      return source.read(info.offset + first * row, Math.min(step, rows - first) * row, into)
    }
    let next = read(0)
    for (let first = 0; first < rows; first += step) {
      throwIfAborted(signal, 'quantising')
      const stored = (await next) as Uint8Array
      next = read(first + step)
      next.catch(() => {}) // seen when it is awaited, unless the conversion fails first
      const chunk = headRows > 1 ? interleaved(stored, row, headRows) : stored
      const request = { from: info.dtype, source: chunk, to: to as RowDType, rows: chunk.length / row, cols }
      try {
        yield info.dtype === to
          ? chunk
          : await quantizeRowsAsync({ ...request, importance, finite: true, threads, out }, signal)
      } catch (error) {
        if (!(error instanceof DroverError) || error.code !== 'E_RANGE') throw error
        throw new DroverError('E_RANGE', `a weight cannot be stored as ${to}: it is not finite or too large`, {
          file,
          field: info.name,
          found: `among the ${isRowwise(to) ? cols : 256} elements from ${first * cols + Number(error.found ?? 0)} on`,
          expected: 'finite numbers in the range of the format',
          cause: error,
        })
      }
      done(chunk.length)
    }
  } finally {
    await source.close()
  }
}
