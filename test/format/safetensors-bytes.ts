/** safetensors files from a header, right or wrong. */
import type { Folder } from '../../lib/format/file.js'
import { fromBytes, memoryFolder } from '../../lib/format/file.js'
import { readSafetensorsFrom, type SafetensorsFile } from '../../lib/format/safetensors.js'

export interface RawEntry {
  dtype?: unknown
  shape?: unknown
  data_offsets?: unknown
}

/** A header (text, bytes, or an object to make JSON of) and `data` bytes, counting up, after it. */
export const safetensorsBytes = (
  header: string | Uint8Array | Readonly<Record<string, unknown>>,
  data = 0,
  length?: bigint,
): Uint8Array => {
  const text =
    header instanceof Uint8Array ? header : Buffer.from(typeof header === 'string' ? header : JSON.stringify(header))
  const size = new Uint8Array(BigUint64Array.of(length ?? BigInt(text.length)).buffer)
  return Uint8Array.from(Buffer.concat([size, text, Uint8Array.from({ length: data }, (_, i) => i)]))
}

/** An f32 tensor of one dimension at `begin`. */
export const entry = (begin: number, count: number): RawEntry => ({
  dtype: 'F32',
  shape: [count],
  data_offsets: [begin, begin + count * 4],
})

export const folderOf = (files: Readonly<Record<string, Uint8Array | string | object>>): Folder =>
  memoryFolder(
    new Map(
      Object.entries(files).map(([name, content]) => [
        name,
        content instanceof Uint8Array
          ? content
          : Buffer.from(typeof content === 'string' ? content : JSON.stringify(content)),
      ]),
    ),
  )

export const readBytes = (bytes: Uint8Array): Promise<SafetensorsFile> =>
  readSafetensorsFrom(folderOf({ 'm.safetensors': bytes }), 'm.safetensors')

/** A folder in which every name opens these bytes with zeros after them up to `size`: a sparse file. */
export const sparseFolder = (start: Uint8Array, size: number): Folder => ({
  path: 'sparse',
  list: async () => ['model.safetensors'],
  open: async (name) => ({
    ...fromBytes(`sparse/${name}`, start),
    size,
    read: async (offset, length) => {
      const bytes = new Uint8Array(length)
      bytes.set(start.subarray(offset, offset + length))
      return bytes
    },
  }),
})
