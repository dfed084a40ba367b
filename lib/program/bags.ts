/** The lookups of a step in tables of embeddings, and their encoding (native/core/program.h). */
import { DroverError } from '../errors.js'

/** Lookups in one table: bag b has the positions offsets[b] to offsets[b + 1] of indices and weights. */
export interface Bags {
  readonly indices: Int32Array | BigInt64Array
  /** [rows + 1]: from 0 to the number of indices, never falling. */
  readonly offsets: Int32Array | BigInt64Array
  /** What each looked up row is multiplied by; default 1. */
  readonly weights?: Float32Array | undefined
}

export const indexPolicies = ['error', 'skip', 'clamp'] as const
/** What becomes of an index that is out of range: the step is refused, or it counts for nothing, or as the nearest row. */
export type IndexPolicy = (typeof indexPolicies)[number]

const recordWords = 2
const flags = { wideIndices: 1, wideOffsets: 2, weights: 4 }
/** Below so many numbers a loop is faster than a call. */
const fewNumbers = 32

const widthOf = (numbers: Int32Array | BigInt64Array): number => numbers.BYTES_PER_ELEMENT / 4

/** Words of the bags of a step of `rows` rows. Throws E_SHAPE when their arrays do not fit each other. */
export const bagWords = (bags: readonly Bags[], rows: number): number => {
  let words = bags.length * recordWords
  bags.forEach(({ indices, offsets, weights }, i) => {
    if (offsets.length !== rows + 1) {
      throw new DroverError('E_SHAPE', 'bags have an offset per row and one behind the last', {
        field: `bags[${i}].offsets`,
        found: offsets.length,
        expected: rows + 1,
      })
    }
    if (weights !== undefined && weights.length !== indices.length) {
      throw new DroverError('E_SHAPE', 'bags have a weight per index', {
        field: `bags[${i}].weights`,
        found: weights.length,
        expected: indices.length,
      })
    }
    words += offsets.length * widthOf(offsets) + indices.length * widthOf(indices) + (weights?.length ?? 0)
  })
  return words
}

/** Copies numbers as they are; returns where the next ones go. */
const putNumbers = (words: Uint32Array, at: number, numbers: Int32Array | BigInt64Array | Float32Array): number => {
  if (numbers instanceof Int32Array) {
    if (numbers.length > fewNumbers) words.set(numbers, at)
    else for (let i = 0; i < numbers.length; i++) words[at + i] = numbers[i]!
    return at + numbers.length
  }
  // No element becomes a bigint on its way.
  const source = new Uint32Array(numbers.buffer, numbers.byteOffset, numbers.byteLength / 4)
  words.set(source, at)
  return at + source.length
}

/** Writes the bags of a step behind its other words. */
export const putBags = (words: Uint32Array, start: number, bags: readonly Bags[]): void => {
  let at = start + bags.length * recordWords
  for (let i = 0; i < bags.length; i++) {
    const { indices, offsets, weights } = bags[i]!
    words[start + i * recordWords] =
      (indices instanceof BigInt64Array ? flags.wideIndices : 0) |
      (offsets instanceof BigInt64Array ? flags.wideOffsets : 0) |
      (weights === undefined ? 0 : flags.weights)
    words[start + i * recordWords + 1] = indices.length
    at = putNumbers(words, at, offsets)
    at = putNumbers(words, at, indices)
    if (weights !== undefined) at = putNumbers(words, at, weights)
  }
}
