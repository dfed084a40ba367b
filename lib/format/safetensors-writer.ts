/** Writes safetensors files whose tensors come piece by piece, in any order. */
import { type FileHandle, open, rm } from 'node:fs/promises'
import { DroverError } from '../errors.js'
import { type DTypeName, dtypes, elementCount } from '../tensor.js'
import { safetensorTypes } from './safetensors.js'

/** A tensor that will be written; its dtype is one of safetensors. */
export interface SafetensorsEntry {
  readonly name: string
  readonly dtype: DTypeName
  readonly shape: readonly number[]
}

interface Place {
  /** Where the next piece goes. */
  at: number
  readonly end: number
}

const typeNames = new Map([...safetensorTypes].map(([name, dtype]) => [dtype, name]))

const bytesOf = ({ dtype, shape }: SafetensorsEntry): number => elementCount(shape) * dtypes[dtype].bytes

/** Header and places of the tensors: those of wide elements first, so that all are aligned. */
const layOut = (entries: readonly SafetensorsEntry[]): { header: Uint8Array; places: Map<string, Place> } => {
  const sorted = [...entries].sort((a, b) => dtypes[b.dtype].bytes - dtypes[a.dtype].bytes)
  // Without a prototype: any name may be that of a tensor.
  const header: Record<string, unknown> = Object.create(null)
  header['__metadata__'] = { format: 'pt' }
  let end = 0
  for (const entry of sorted) {
    const type = typeNames.get(entry.dtype)
    if (type === undefined || entry.name in header) {
      throw new DroverError('E_INTERNAL', 'a tensor cannot be written', { field: entry.name, found: entry.dtype })
    }
    header[entry.name] = { dtype: type, shape: entry.shape, data_offsets: [end, end + bytesOf(entry)] }
    end += bytesOf(entry)
  }
  const json = Buffer.from(JSON.stringify(header))
  const length = Math.ceil(json.length / 8) * 8
  const bytes = Buffer.alloc(8 + length, ' ')
  bytes.writeBigUInt64LE(BigInt(length))
  json.copy(bytes, 8)
  const places = new Map<string, Place>()
  let at = bytes.length
  for (const entry of sorted) {
    places.set(entry.name, { at, end: at + bytesOf(entry) })
    at += bytesOf(entry)
  }
  return { header: bytes, places }
}

/** A file under construction, for a folder that appears when it is complete. */
export class SafetensorsWriter {
  readonly #path: string
  readonly #handle: FileHandle
  readonly #places: ReadonlyMap<string, Place>

  private constructor(path: string, handle: FileHandle, places: ReadonlyMap<string, Place>) {
    this.#path = path
    this.#handle = handle
    this.#places = places
  }

  /** Throws E_IO. */
  static async create(path: string, entries: readonly SafetensorsEntry[]): Promise<SafetensorsWriter> {
    const { header, places } = layOut(entries)
    const handle = await translated(path, () => open(path, 'w'))
    const writer = new SafetensorsWriter(path, handle, places)
    try {
      await writer.#put(header, 0)
    } catch (error) {
      await writer.discard()
      throw error
    }
    return writer
  }

  /** The next bytes of a tensor. Throws E_IO. */
  async write(name: string, bytes: Uint8Array): Promise<void> {
    const place = this.#places.get(name)
    if (place === undefined || bytes.length > place.end - place.at) {
      throw new DroverError('E_INTERNAL', 'more bytes than a tensor has', { field: name, found: bytes.length })
    }
    await this.#put(bytes, place.at)
    place.at += bytes.length
  }

  /** Ends the file. Throws E_IO; E_INTERNAL when a tensor is not complete. */
  async finish(): Promise<void> {
    for (const [name, { at, end }] of this.#places) {
      if (at !== end) throw new DroverError('E_INTERNAL', 'a tensor is not complete', { field: name, found: end - at })
    }
    await translated(this.#path, () => this.#handle.close())
  }

  /** Leaves nothing behind. */
  async discard(): Promise<void> {
    await this.#handle.close()
    await rm(this.#path, { force: true })
  }

  async #put(bytes: Uint8Array, position: number): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      const left = bytes.subarray(done)
      done += (await translated(this.#path, () => this.#handle.write(left, 0, left.length, position + done)))
        .bytesWritten
    }
  }
}

const translated = async <T>(path: string, body: () => Promise<T>): Promise<T> => {
  try {
    return await body()
  } catch (cause) {
    throw new DroverError('E_IO', 'the file could not be written', {
      file: path,
      found: (cause as NodeJS.ErrnoException).code,
      cause,
    })
  }
}
