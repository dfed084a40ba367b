/** GGUF files byte by byte, also impossible ones, which the writer of the library would refuse to make. */
import { ggufTypes } from '../../lib/format/gguf-types.js'

export const u8 = (value: number): Uint8Array => Uint8Array.of(value)
export const u32 = (value: number): Uint8Array => new Uint8Array(Uint32Array.of(value).buffer)
export const u64 = (value: number | bigint): Uint8Array => new Uint8Array(BigUint64Array.of(BigInt(value)).buffer)
export const f32 = (value: number): Uint8Array => new Uint8Array(Float32Array.of(value).buffer)
export const join = (...parts: Uint8Array[]): Uint8Array => Uint8Array.from(Buffer.concat(parts))

/** A length and that many bytes; text as UTF-8. */
export const string = (text: string | Uint8Array): Uint8Array => {
  const bytes = typeof text === 'string' ? Buffer.from(text) : text
  return join(u64(bytes.length), bytes)
}

/** The number of a metadata type in the file. */
export const typeId = (name: (typeof ggufTypes)[number]): number => ggufTypes.indexOf(name)

export const stringValue = (text: string): Uint8Array => join(u32(typeId('string')), string(text))
export const u32Value = (value: number): Uint8Array => join(u32(typeId('u32')), u32(value))
export const arrayValue = (type: number, length: number | bigint, content: Uint8Array): Uint8Array =>
  join(u32(typeId('array')), u32(type), u64(length), content)

export interface RawTensor {
  name: string | Uint8Array
  /** In file order: fastest first. */
  dimensions?: readonly (number | bigint)[]
  /** Number of dimensions, when it is to be wrong. */
  rank?: number
  type?: number
  offset?: number | bigint
}

export interface RawGguf {
  magic?: string
  version?: number
  tensorCount?: number | bigint
  entryCount?: number | bigint
  /** Keys and what follows them: type and value. */
  entries?: readonly (readonly [string | Uint8Array, Uint8Array])[]
  tensors?: readonly RawTensor[]
  alignment?: number
  /** Bytes of tensor data. */
  data?: number
}

const rawTensor = ({ name, dimensions = [8], rank = dimensions.length, type = 0, offset = 0 }: RawTensor): Uint8Array =>
  join(string(name), u32(rank), ...dimensions.map(u64), u32(type), u64(offset))

/** A file of these parts. Without any: one f32 tensor of 8 elements and no metadata. */
export const ggufBytes = (raw: RawGguf = {}): Uint8Array => {
  const { entries = [], tensors = [{ name: 't' }], alignment = 32, data = 32 } = raw
  const header = join(
    Buffer.from(raw.magic ?? 'GGUF', 'latin1'),
    u32(raw.version ?? 3),
    u64(raw.tensorCount ?? tensors.length),
    u64(raw.entryCount ?? entries.length),
    ...entries.flatMap(([key, value]) => [string(key), value]),
    ...tensors.map(rawTensor),
  )
  const padded = Math.ceil(header.length / alignment) * alignment
  return join(header, new Uint8Array(padded - header.length + data))
}
