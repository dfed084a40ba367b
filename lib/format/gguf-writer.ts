/** Writes GGUF files, version 3: converters, tests and benchmarks make their models with it. */
import { randomBytes } from 'node:crypto'
import { type FileHandle, open, rename, rm } from 'node:fs/promises'
import { checkInteger } from '../check.js'
import { DroverError } from '../errors.js'
import { type DTypeName, elementCount, rowBytes } from '../tensor.js'
import {
  defaultAlignment,
  type GgufNumericType,
  type GgufType,
  ggmlTypes,
  ggufTypeBytes,
  ggufTypes,
} from './gguf-types.js'
import type { GgufValue } from './gguf-values.js'

/** A value as {@link readGguf} gives it, and its type; nested arrays cannot be written. Throws E_UNSUPPORTED. */
export const entryOf = (key: string, type: GgufType | undefined, value: GgufValue): GgufEntry => {
  if (typeof value !== 'object') return { type: type as Exclude<GgufType, 'array'>, value }
  if (value.type === 'array') {
    throw new DroverError('E_UNSUPPORTED', 'arrays of arrays are not written', { field: key, found: 'a nested array' })
  }
  if (value.type !== 'bool') return { type: `${value.type}[]`, value: value.values }
  return { type: 'bool[]', value: Array.from(value.values as Uint8Array, (bit) => bit !== 0) }
}

export type GgufScalar = number | bigint | boolean | string

/** One metadata value and the type to store it in; `f32[]` is an array of f32. 64-bit integers may be bigints. */
export interface GgufEntry {
  readonly type: Exclude<GgufType, 'array'> | `${Exclude<GgufType, 'array'>}[]`
  readonly value: GgufScalar | (Iterable<GgufScalar> & { readonly length: number })
}

export interface GgufTensor {
  readonly name: string
  /** A tensor type of the format in any case: `Q4_K`, `f16`. */
  readonly type: string
  /** Row-major, slowest dimension first; one to four dimensions. */
  readonly shape: readonly number[]
  /** Size of the data, as a check on the chunks: whole blocks, row after row. */
  readonly bytes: number
  /** The data in pieces of any size; asked for once, each piece written before the next is taken. */
  chunks(): Iterable<Uint8Array> | AsyncIterable<Uint8Array>
}

/**
 * Writes a GGUF file. Alignment is that of a `general.alignment` in the metadata, else 32. The file appears under its
 * name only when it is complete. Throws E_ARGUMENT (a value that does not fit its type, a bad name, chunks of another
 * size than `bytes`), E_SHAPE (rows that are not whole blocks) or E_IO.
 */
export const writeGguf = async (
  path: string,
  metadata: ReadonlyMap<string, GgufEntry>,
  tensors: readonly GgufTensor[],
): Promise<void> => {
  const alignment = alignmentOf(metadata)
  const header = encodeHeader(metadata, tensors, alignment)
  const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`
  try {
    const handle = await open(temporary, 'wx')
    try {
      await writeAll(handle, header)
      await writeAll(handle, padding(header.length, alignment))
      for (const tensor of tensors) {
        await writeTensor(handle, tensor)
        await writeAll(handle, padding(tensor.bytes, alignment))
      }
    } finally {
      await handle.close()
    }
    await rename(temporary, path)
  } catch (error) {
    await rm(temporary, { force: true })
    if (error instanceof DroverError || (error as NodeJS.ErrnoException).syscall === undefined) throw error
    throw new DroverError('E_IO', 'the file could not be written', {
      file: path,
      found: (error as NodeJS.ErrnoException).code,
      cause: error,
    })
  }
}

const refuse = (what: string, field: string, found: unknown, expected: unknown): DroverError =>
  new DroverError('E_ARGUMENT', what, { field, found, expected })

const padding = (length: number, alignment: number): Uint8Array =>
  new Uint8Array(Math.ceil(length / alignment) * alignment - length)

const writeAll = async (handle: FileHandle, bytes: Uint8Array): Promise<void> => {
  for (let done = 0; done < bytes.length; ) done += (await handle.write(bytes, done)).bytesWritten
}

const writeTensor = async (handle: FileHandle, tensor: GgufTensor): Promise<void> => {
  let written = 0
  for await (const chunk of tensor.chunks()) {
    written += chunk.length
    if (written > tensor.bytes) break
    await writeAll(handle, chunk)
  }
  if (written !== tensor.bytes) {
    throw refuse('the chunks of a tensor have another size than it', tensor.name, written, `${tensor.bytes} bytes`)
  }
}

const alignmentOf = (metadata: ReadonlyMap<string, GgufEntry>): number => {
  const entry = metadata.get('general.alignment')
  if (entry === undefined) return defaultAlignment
  const value = checkInteger('general.alignment', entry.value, 1, 2 ** 30)
  if (entry.type === 'u32' && (value & (value - 1)) === 0) return value
  throw refuse('the alignment is impossible', 'general.alignment', `${entry.type} ${value}`, 'a u32 power of two')
}

/** A growing buffer with little-endian numbers and strings as GGUF stores them. */
class Encoder {
  private buffer = Buffer.alloc(1 << 16)
  private used = 0

  /** Room for `length` more bytes; where they start. */
  private grow(length: number): number {
    const start = this.used
    this.used += length
    if (this.used > this.buffer.length) {
      const larger = Buffer.alloc(Math.max(this.used, this.buffer.length * 2))
      larger.set(this.buffer.subarray(0, start))
      this.buffer = larger
    }
    return start
  }

  raw(text: string): void {
    const at = this.grow(text.length) // may replace the buffer
    this.buffer.write(text, at, 'latin1')
  }

  string(text: string, field: string): void {
    if (/\p{Surrogate}/u.test(text)) throw refuse('a string is not well-formed', field, text, 'no lone surrogates')
    const length = Buffer.byteLength(text)
    this.scalar('u64', length, field)
    const at = this.grow(length)
    this.buffer.write(text, at, 'utf8')
  }

  scalar(type: GgufNumericType, value: GgufScalar, field: string): void {
    const at = this.grow(ggufTypeBytes[type])
    if (type === 'bool') {
      if (typeof value !== 'boolean') throw refuse('a value does not fit its type', field, value, 'true or false')
      this.buffer.writeUInt8(value ? 1 : 0, at)
    } else if (type === 'f32' || type === 'f64') {
      if (typeof value !== 'number') throw refuse('a value does not fit its type', field, value, 'a number')
      if (type === 'f32') this.buffer.writeFloatLE(value, at)
      else this.buffer.writeDoubleLE(value, at)
    } else {
      const bits = BigInt(ggufTypeBytes[type] * 8)
      const lowest = type.startsWith('i') ? -(1n << (bits - 1n)) : 0n
      const highest = lowest + (1n << bits) - 1n
      const whole = typeof value === 'bigint' || (typeof value === 'number' && Number.isSafeInteger(value))
      const integer = whole ? BigInt(value) : highest + 1n
      if (integer < lowest || integer > highest) {
        throw refuse('a value does not fit its type', field, value, `an integer from ${lowest} to ${highest}`)
      }
      for (let i = 0n; i < bits; i += 8n) this.buffer[at + Number(i / 8n)] = Number((integer >> i) & 255n)
    }
  }

  finish(): Uint8Array {
    return this.buffer.subarray(0, this.used)
  }
}

const encodeHeader = (
  metadata: ReadonlyMap<string, GgufEntry>,
  tensors: readonly GgufTensor[],
  alignment: number,
): Uint8Array => {
  const encoder = new Encoder()
  encoder.raw('GGUF')
  encoder.scalar('u32', 3, 'version')
  encoder.scalar('u64', tensors.length, 'tensor count')
  encoder.scalar('u64', metadata.size, 'metadata count')
  for (const [key, entry] of metadata) {
    encoder.string(key, 'metadata key')
    encodeEntry(encoder, key, entry)
  }
  const names = new Set<string>()
  let offset = 0
  for (const tensor of tensors) {
    if (names.has(tensor.name)) throw refuse('a tensor name occurs twice', tensor.name, 'two of this name', 'one')
    names.add(tensor.name)
    encodeTensor(encoder, tensor, offset)
    offset += Math.ceil(tensor.bytes / alignment) * alignment
  }
  return encoder.finish()
}

const encodeEntry = (encoder: Encoder, key: string, { type, value }: GgufEntry): void => {
  const isArray = type.endsWith('[]')
  const element = (isArray ? type.slice(0, -2) : type) as Exclude<GgufType, 'array'>
  const id = ggufTypes.indexOf(element)
  if (id < 0 || (element as GgufType) === 'array') {
    throw refuse('a metadata type does not exist', key, type, `${ggufTypes.join(', ')}, or one of them with []`)
  }
  const put = (item: GgufScalar): void => {
    if (element !== 'string') encoder.scalar(element, item, key)
    else if (typeof item === 'string') encoder.string(item, key)
    else throw refuse('a value does not fit its type', key, item, 'a string')
  }
  if (!isArray) {
    encoder.scalar('u32', id, key)
    if (typeof value === 'object') throw refuse('a value does not fit its type', key, 'an array', type)
    put(value)
    return
  }
  if (typeof value !== 'object') throw refuse('a value does not fit its type', key, value, 'an array')
  encoder.scalar('u32', ggufTypes.indexOf('array'), key)
  encoder.scalar('u32', id, key)
  encoder.scalar('u64', value.length, key)
  for (const item of value) put(item)
}

const typeIds: ReadonlyMap<string, number> = new Map([...ggmlTypes].map(([id, dtype]) => [dtype, id]))

const encodeTensor = (encoder: Encoder, tensor: GgufTensor, offset: number): void => {
  const { name, shape } = tensor
  const dtype = tensor.type.toLowerCase()
  const id = typeIds.get(dtype)
  if (id === undefined) throw refuse('a tensor type does not exist', name, tensor.type, [...typeIds.keys()].join(', '))
  if (shape.length < 1 || shape.length > 4)
    throw refuse('a tensor has an impossible shape', name, shape, '1 to 4 sizes')
  for (const size of shape) checkInteger(`a dimension of ${name}`, size, 1)
  const bytes = rowBytes(dtype as DTypeName, shape.at(-1) as number) * elementCount(shape.slice(0, -1))
  if (bytes !== tensor.bytes) throw refuse('a tensor has another size than its shape', name, tensor.bytes, bytes)
  encoder.string(name, 'tensor name')
  encoder.scalar('u32', shape.length, name)
  for (const size of [...shape].reverse()) encoder.scalar('u64', size, name)
  encoder.scalar('u32', id, name)
  encoder.scalar('u64', offset, name)
}
