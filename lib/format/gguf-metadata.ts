/** Typed access to GGUF metadata. What is missing or of the wrong type is an E_FORMAT with file and key. */
import { DroverError } from '../errors.js'
import type { GgufFile, GgufValue } from './gguf.js'
import type { StringTable } from './string-table.js'

const describe = (value: GgufValue | undefined): unknown =>
  value === undefined ? 'missing' : typeof value === 'object' ? `an array of ${value.length} ${value.type}` : value

const refuse = (file: GgufFile, key: string, expected: string): never => {
  const value = file.metadata.get(key)
  throw new DroverError('E_FORMAT', value === undefined ? 'metadata is missing' : 'a metadata value does not fit', {
    file: file.files[0]?.path,
    field: key,
    found: describe(value),
    expected,
  })
}

/** Limits of a number, and what stands for a missing key; without `fallback` a missing key is an error. */
export interface IntegerOptions<F = never> {
  /** Default 0. */
  minimum?: number
  /** Default 2^53 - 1. */
  maximum?: number
  fallback?: F
}

/** An integer in [minimum, maximum], of any stored integer type. */
export const metadataInteger = <F = never>(
  file: GgufFile,
  key: string,
  { minimum = 0, maximum = Number.MAX_SAFE_INTEGER, fallback }: IntegerOptions<F> = {},
): number | F => {
  const value = file.metadata.get(key)
  if (value === undefined && fallback !== undefined) return fallback
  const type = file.metadataTypes.get(key)
  if (
    typeof value === 'number' &&
    type !== 'f32' &&
    type !== 'f64' &&
    Number.isSafeInteger(value) &&
    value >= minimum &&
    value <= maximum
  ) {
    return value
  }
  return refuse(file, key, `an integer from ${minimum} to ${maximum}`)
}

/** A finite number. */
export const metadataNumber = <F = never>(file: GgufFile, key: string, fallback?: F): number | F => {
  const value = file.metadata.get(key)
  if (value === undefined && fallback !== undefined) return fallback
  return typeof value === 'number' && Number.isFinite(value) ? value : refuse(file, key, 'a finite number')
}

export const metadataString = <F = never>(file: GgufFile, key: string, fallback?: F): string | F => {
  const value = file.metadata.get(key)
  if (value === undefined && fallback !== undefined) return fallback
  return typeof value === 'string' ? value : refuse(file, key, 'a string')
}

export const metadataBoolean = <F = never>(file: GgufFile, key: string, fallback?: F): boolean | F => {
  const value = file.metadata.get(key)
  if (value === undefined && fallback !== undefined) return fallback
  return typeof value === 'boolean' ? value : refuse(file, key, 'true or false')
}

/** An array of strings as stored: small, each string made when asked for. */
export const metadataStrings = (file: GgufFile, key: string): StringTable => {
  const value = file.metadata.get(key)
  return typeof value === 'object' && value.type === 'string' ? value.values : refuse(file, key, 'an array of strings')
}

/** An array of strings as JavaScript strings. */
export const metadataStringArray = (file: GgufFile, key: string): string[] => metadataStrings(file, key).toArray()

/** An array of numbers of any stored type but bool; 64-bit integers must be safe ones. */
export const metadataNumberArray = (file: GgufFile, key: string): ArrayLike<number> => {
  const value = file.metadata.get(key)
  if (typeof value !== 'object' || value.type === 'string' || value.type === 'array' || value.type === 'bool') {
    return refuse(file, key, 'an array of numbers')
  }
  const { values } = value
  if (!(values instanceof BigInt64Array || values instanceof BigUint64Array)) return values
  const numbers = new Float64Array(values.length)
  for (let i = 0; i < values.length; i++) {
    numbers[i] = Number(values[i])
    if (!Number.isSafeInteger(numbers[i])) return refuse(file, key, 'an array of safe integers')
  }
  return numbers
}
