/** A tensor of a file as codes with scales beside them, slice by slice. */
import { DroverError } from '../errors.js'
import { type FileEntry, Pace } from '../format/file.js'
import type { TensorInfo } from '../tensor.js'
import { convertRows } from './rows.js'
import { type ScaledFormat, type ScaledRows, scaledRows } from './scaled.js'
import { asStored } from './source.js'

/** Elements that are encoded before others get their turn. */
const sliceElements = 2 ** 18

interface Settings {
  threads?: number
  signal?: AbortSignal
}

/**
 * Codes and scales of all rows, in order; `done` is told how many bytes have been read. Throws E_RANGE for a weight that is
 * not finite, E_IO, E_ABORTED.
 */
export async function* scaledTensor(
  file: FileEntry,
  info: TensorInfo,
  format: ScaledFormat,
  settings: Settings,
  done: (bytes: number) => void,
): AsyncGenerator<ScaledRows> {
  const tensor = asStored(info.name, info)
  const { cols } = tensor
  const most = Math.max(1, Math.floor(sliceElements / cols))
  const pace = new Pace(settings.signal, 'quantising')
  let row = 0
  for await (const chunk of convertRows(file, { tensor, to: 'f32', importance: undefined }, settings, done)) {
    const values = new Float32Array(chunk.buffer, chunk.byteOffset, chunk.length / 4)
    for (let start = 0; start < values.length; start += most * cols) {
      const slice = values.subarray(start, start + most * cols)
      const rows = slice.length / cols
      try {
        yield await scaledRows(format, slice, rows, cols, settings.threads)
      } catch (error) {
        if (!(error instanceof DroverError) || error.code !== 'E_RANGE') throw error
        throw new DroverError('E_RANGE', `a weight cannot be stored as ${format}: it is not finite`, {
          file: file.path,
          field: info.name,
          found: `in row ${row + Math.floor(Number(error.found) / cols)}`,
          expected: 'finite numbers',
          cause: error,
        })
      }
      row += rows
      if (pace.late()) await pace.rest()
    }
  }
}
