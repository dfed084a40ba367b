/**
 * Mutations of real files, for the property test and the longer fuzz run: a case is made from a seed and a number, so
 * that any of them can be repeated alone. Whatever the bytes, a reader must refuse them with a DroverError or give a
 * description that is consistent.
 */
import { type Folder, fromBytes, memoryFolder } from '../../lib/format/file.js'
import { randomSource } from '../support.js'

export type Random = () => number

/** An integer from 0 to `below` - 1. */
export const pick = (random: Random, below: number): number => Math.floor(random() * below)
const one = <T>(random: Random, list: readonly T[]): T => list[pick(random, list.length)] as T

/** Where a mutation may cut: mostly near other structure, as small steps from one point. */
const range = (random: Random, length: number): { from: number; to: number } => {
  const from = pick(random, length + 1)
  const size = random() < 0.8 ? 1 + pick(random, 16) : pick(random, length + 1)
  return { from, to: Math.min(length, from + size) }
}

const splice = (bytes: Uint8Array, from: number, to: number, middle: Uint8Array): Uint8Array => {
  const out = new Uint8Array(bytes.length - (to - from) + middle.length)
  out.set(bytes.subarray(0, from))
  out.set(middle, from)
  out.set(bytes.subarray(to), from + middle.length)
  return out
}

const integers = [0n, 1n, 2n, 7n, 31n, 32n, 33n, 255n, 65535n, 65536n, 0x7fffffffn, 0x80000000n, 0xffffffffn, 1n << 32n]
integers.push((1n << 53n) - 1n, 1n << 53n, (1n << 63n) - 1n, 1n << 63n, (1n << 64n) - 1n)
const texts = ['{', '}', '[', ']', '"', ',', ':', '\\', '\\u0000', '\\ud800', 'null', 'true', '-1', '1e999', '0.5', ' ']
texts.push('""', '[]', '{}', '9007199254740993', '18446744073709551615', '"__proto__":', '"F32"', '"U8"', '\0', '\xff')

type Mutation = (bytes: Uint8Array, random: Random) => Uint8Array

const mutations: readonly Mutation[] = [
  // One bit, one byte.
  (bytes, random) => {
    if (bytes.length > 0) bytes[pick(random, bytes.length)]! ^= 1 << pick(random, 8)
    return bytes
  },
  (bytes, random) => {
    if (bytes.length > 0)
      bytes[pick(random, bytes.length)] = one(random, [0, 1, 8, 9, 0x7f, 0x80, 0xff, pick(random, 256)])
    return bytes
  },
  // An integer of 1, 2, 4 or 8 bytes, as it is or a step beside what stands there.
  (bytes, random) => {
    const width = one(random, [1, 2, 4, 8])
    if (bytes.length < width) return bytes
    const at = pick(random, bytes.length - width + 1)
    let value = one(random, integers)
    if (random() < 0.4) {
      value = 0n
      for (let i = width - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[at + i]!)
      value += BigInt(pick(random, 65) - 32)
    }
    for (let i = 0; i < width; i++) bytes[at + i] = Number((value >> BigInt(8 * i)) & 255n)
    return bytes
  },
  // Cut off, cut out, doubled, moved, noise put in.
  (bytes, random) => bytes.slice(0, pick(random, bytes.length + 1)),
  (bytes, random) => {
    const { from, to } = range(random, bytes.length)
    return splice(bytes, from, to, new Uint8Array(0))
  },
  (bytes, random) => {
    const { from, to } = range(random, bytes.length)
    return splice(bytes, to, to, bytes.slice(from, to))
  },
  (bytes, random) => {
    const { from, to } = range(random, bytes.length)
    const at = pick(random, bytes.length + 1)
    return splice(bytes, at, Math.min(bytes.length, at + to - from), bytes.slice(from, to))
  },
  (bytes, random) => {
    const { from, to } = range(random, bytes.length)
    return splice(
      bytes,
      from,
      to,
      Uint8Array.from({ length: pick(random, 20) }, () => pick(random, 256)),
    )
  },
  // A piece of JSON.
  (bytes, random) => {
    const at = pick(random, bytes.length + 1)
    const to = Math.min(bytes.length, at + pick(random, 3))
    return splice(bytes, at, to, Buffer.from(one(random, texts), 'latin1'))
  },
]

/** One to four byte mutations; `bytes` stays as it is. */
export const mutateBytes = (bytes: Uint8Array, random: Random): Uint8Array => {
  let result = Uint8Array.from(bytes)
  for (let count = 1 + pick(random, 4); count > 0; count--)
    result = Uint8Array.from(one(random, mutations)(result, random))
  return result
}

const values: readonly unknown[] = [
  null,
  true,
  false,
  0,
  -1,
  1,
  0.5,
  1e308,
  2 ** 31,
  2 ** 53,
  '',
  'F32',
  'x.safetensors',
  '../x',
  [],
]
const containers = (): unknown[] => [{}, [[]], [0], ['a'], { a: 1 }, { dtype: 'F32', shape: [1], data_offsets: [0, 4] }]

type Slot = { parent: Record<string, unknown>; key: string }

const slots = (value: unknown, found: Slot[] = []): Slot[] => {
  if (typeof value !== 'object' || value === null) return found
  for (const [key, child] of Object.entries(value)) {
    found.push({ parent: value as Record<string, unknown>, key })
    slots(child, found)
  }
  return found
}

/** One to three changes to the values and keys of a JSON text, which stays valid JSON. */
export const mutateJson = (text: string, random: Random): string => {
  const root: unknown = JSON.parse(text)
  for (let count = 1 + pick(random, 3); count > 0; count--) {
    const all = slots(root)
    if (all.length === 0) break
    const { parent, key } = one(random, all)
    const choice = pick(random, 5)
    if (choice === 0) delete parent[key]
    else if (choice === 1) parent[key] = structuredClone(one(random, all).parent)
    else if (choice === 2 && typeof parent[key] === 'number')
      parent[key] = (parent[key] as number) + one(random, [-1, 1, 4, 1024])
    else if (choice === 3) parent[one(random, ['a', '', '__proto__x', 'shape', key.slice(1)])] = parent[key]
    else parent[key] = one(random, [...values, ...containers()])
    if (JSON.stringify(root).length > 100_000) break
  }
  return JSON.stringify(root)
}

/** A file whose first bytes matter and whose rest is `tail` zeros. */
export interface Seed {
  readonly bytes: Uint8Array
  readonly tail: number
}

/** A folder of seeds in memory; the tails take no memory. */
export const seedFolder = (files: ReadonlyMap<string, Seed>): Folder => {
  const inner = memoryFolder(new Map([...files].map(([name, { bytes }]) => [name, bytes])))
  return {
    ...inner,
    open: async (name) => {
      const source = await inner.open(name)
      const { bytes, tail } = files.get(name) as Seed
      if (tail === 0) return source
      const size = bytes.length + tail
      return {
        ...source,
        size,
        read: async (offset, length) => {
          if (offset + length <= bytes.length) return bytes.subarray(offset, offset + length)
          // Past the end, the error of a source of the right size.
          if (offset + length > size) return fromBytes(source.path, new Uint8Array(0)).read(offset, length)
          const window = new Uint8Array(length)
          window.set(bytes.subarray(offset, offset + length))
          return window
        },
      }
    },
  }
}

/** The random numbers of one case. */
export const caseRandom = (seed: number, number: number): Random => {
  const random = randomSource(Math.imul(seed, 0x9e3779b1) ^ Math.imul(number + 1, 0x85ebca6b))
  random()
  return random
}
