/** Helpers that tests share: where fixtures lie, how numbers are compared, seeded randomness. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { DroverError } from '../lib/errors.js'

export const root = join(__dirname, '..')

/** A file that is part of the repository. */
export const fixture = (path: string): string => join(__dirname, 'fixtures', path)

/** A file of the larger collection that may lie beside the repository; undefined where it does not. */
export const shared = (path: string): string | undefined => {
  const full = join(root, '..', 'shared', path)
  return existsSync(full) ? full : undefined
}

const refusal = (error: unknown): DroverError => {
  assert.instance(error, DroverError, 'a refusal was expected')
  return error as DroverError
}

/** The DroverError that a call throws. */
export const thrownBy = (body: () => unknown): DroverError => {
  try {
    body()
  } catch (error) {
    return refusal(error)
  }
  return refusal(undefined)
}

/** The DroverError that a promise is rejected with. */
export const rejectionOf = async (promise: Promise<unknown>): Promise<DroverError> =>
  refusal(
    await promise.then(
      () => undefined,
      (error: unknown) => error,
    ),
  )

export interface Difference {
  worst: number
  index: number
  found: number
  expected: number
}

/** Largest absolute difference. NaN against a number, and infinities that differ, count as infinite. */
export const largestDifference = (found: ArrayLike<number>, expected: ArrayLike<number>): Difference => {
  if (found.length !== expected.length) throw new Error(`length ${found.length}, expected ${expected.length}`)
  let result: Difference = { worst: 0, index: -1, found: 0, expected: 0 }
  for (let i = 0; i < found.length; i++) {
    const a = found[i] as number
    const b = expected[i] as number
    let d = Math.abs(a - b)
    if (Object.is(a, b) || a === b) d = 0
    else if (Number.isNaN(d) || d === Number.POSITIVE_INFINITY) d = Number.POSITIVE_INFINITY
    if (d > result.worst) result = { worst: d, index: i, found: a, expected: b }
  }
  return result
}

/** Fails unless every |found - expected| <= absolute + relative * |expected|. */
export const assertClose = (
  found: ArrayLike<number>,
  expected: ArrayLike<number>,
  absolute: number,
  what: string,
  relative = 0,
): void => {
  assert.is(found.length, expected.length, `${what}: length`)
  for (let i = 0; i < found.length; i++) {
    const a = found[i] as number
    const b = expected[i] as number
    if (a === b || (Number.isNaN(a) && Number.isNaN(b))) continue
    if (!(Math.abs(a - b) <= absolute + relative * Math.abs(b))) {
      const { worst, index } = largestDifference(found, expected)
      assert.unreachable(`${what}: [${i}] is ${a}, expected ${b} within ${absolute}; worst ${worst} at ${index}`)
    }
  }
}

/** Cosine of the angle between two vectors, in float64. */
export const cosine = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  let ab = 0
  let aa = 0
  let bb = 0
  for (let i = 0; i < a.length; i++) {
    ab += (a[i] as number) * (b[i] as number)
    aa += (a[i] as number) ** 2
    bb += (b[i] as number) ** 2
  }
  return ab / Math.sqrt(aa * bb)
}

/** mulberry32: uniform numbers in [0, 1) from a seed, the same on every machine. */
export const randomSource = (seed: number): (() => number) => {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}
