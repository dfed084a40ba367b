/** Metadata values of a GGUF header: numbers, text and arrays, each checked against the bytes that remain. */
import { DroverError } from '../errors.js'
import type { Cursor } from './cursor.js'
import { type GgufNumericType, type GgufType, ggufTypeBytes, ggufTypes } from './gguf-types.js'
import { type StringTable, StringTableBuilder } from './string-table.js'

export type GgufNumbers =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array
  | BigUint64Array
  | BigInt64Array

/** A metadata array. Arrays of bool hold 0 and 1 in a Uint8Array. */
export type GgufArray =
  | { readonly type: 'string'; readonly length: number; readonly values: StringTable }
  | { readonly type: 'array'; readonly length: number; readonly values: readonly GgufArray[] }
  | { readonly type: GgufNumericType; readonly length: number; readonly values: GgufNumbers }

/** 64-bit integers are numbers where that is exact, else bigints. */
export type GgufValue = number | bigint | boolean | string | GgufArray

/** Elements of an array and bytes of a text; the cursor bounds the header as a whole. */
const longest = 1 << 28
const mostNested = 1 << 16
const deepest = 4

const typedArrays = {
  u8: Uint8Array,
  i8: Int8Array,
  u16: Uint16Array,
  i16: Int16Array,
  u32: Uint32Array,
  i32: Int32Array,
  f32: Float32Array,
  bool: Uint8Array,
  u64: BigUint64Array,
  i64: BigInt64Array,
  f64: Float64Array,
} as const

/** Reads the values of one header; counts its nested arrays. */
export class ValueReader {
  private nested = 0

  constructor(private readonly cursor: Cursor) {}

  async read(key: string): Promise<{ type: GgufType; value: GgufValue }> {
    const type = await this.type(key)
    if (type === 'string') return { type, value: await this.cursor.string(key, longest) }
    if (type === 'array') return { type, value: await this.array(key, 1) }
    await this.cursor.fill(ggufTypeBytes[type], key)
    const value = type === 'bool' ? this.bool(this.cursor.u8(), key) : this.cursor[type]()
    return { type, value }
  }

  private async type(key: string): Promise<GgufType> {
    await this.cursor.fill(4, key)
    const id = this.cursor.u32()
    const type = ggufTypes[id]
    if (type !== undefined) return type
    throw new DroverError('E_FORMAT', 'a metadata value has an unknown type', {
      file: this.cursor.source.path,
      field: key,
      found: `type ${id}`,
      expected: `a type from 0 to ${ggufTypes.length - 1}`,
    })
  }

  private bool(byte: number, field: string): boolean {
    if (byte <= 1) return byte === 1
    throw new DroverError('E_FORMAT', 'a boolean is neither 0 nor 1', {
      file: this.cursor.source.path,
      field,
      found: byte,
      expected: '0 or 1',
    })
  }

  private async array(key: string, depth: number): Promise<GgufArray> {
    const type = await this.type(key)
    if (type === 'string') return this.strings(key)
    if (type === 'array') return this.arrays(key, depth)
    const width = ggufTypeBytes[type]
    const length = await this.cursor.count(key, width, longest)
    const bytes = await this.cursor.copy(length * width, key)
    if (type === 'bool') for (let i = 0; i < length; i++) this.bool(bytes[i]!, `${key}[${i}]`)
    return { type, length, values: new typedArrays[type](bytes.buffer as ArrayBuffer, 0, length) }
  }

  private async arrays(key: string, depth: number): Promise<GgufArray> {
    const where = { file: this.cursor.source.path, field: key }
    if (depth === deepest) {
      throw new DroverError('E_FORMAT', 'metadata arrays are nested too deep', {
        ...where,
        found: `more than ${deepest} levels`,
        expected: `at most ${deepest}`,
      })
    }
    const length = await this.cursor.count(key, 12, longest)
    this.nested += length
    if (this.nested > mostNested) {
      throw new DroverError('E_FORMAT', 'there are too many nested metadata arrays', {
        ...where,
        found: this.nested,
        expected: `at most ${mostNested}`,
      })
    }
    const values: GgufArray[] = []
    for (let i = 0; i < length; i++) {
      values.push(await this.array(`${key}[${i}]`, depth + 1))
      if (this.cursor.pace.due()) await this.cursor.pace.rest()
    }
    return { type: 'array', length, values }
  }

  private async strings(key: string): Promise<GgufArray> {
    const { cursor } = this
    const length = await cursor.count(key, 8, longest)
    const table = new StringTableBuilder(length)
    while (table.length < length) {
      const { bytes, start, end } = cursor.ahead()
      const first = table.length
      const taken = table.takePrefixed(bytes, start, end)
      const wrong = table.notUtf8(first)
      if (wrong !== -1) throw cursor.notUtf8(`${key}[${wrong}]`)
      cursor.take(taken)
      if (taken === 0) {
        // The next one reaches beyond the window, or the file does not hold it.
        await cursor.fill(8, key)
        const { bytes, start } = cursor.ahead()
        const size = 8 + Number(bytes.readBigUInt64LE(start))
        cursor.expect(size, `${key}[${table.length}]`)
        await cursor.fill(size, `${key}[${table.length}]`)
      }
      if (cursor.pace.late()) await cursor.pace.rest()
    }
    return { type: 'string', length, values: table.finish() }
  }
}
