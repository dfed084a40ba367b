/** Attention against float64. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { attention, attentionAsync } from '../../lib/kernels.js'
import { kvTypeNames } from '../../lib/program/program.js'
import { assertClose, cosine, randomSource } from '../support.js'
import { type Fixture, headsLast, openFixture, pickRows } from './fixture.js'

const cases = 18
// Scores in the hundreds.
const steep = [4, 9, 14]

interface Case {
  q: Float32Array
  k: Float32Array
  v: Float32Array
  queries: number
  keys: number
  options: { heads: number; kvHeads: number; headDim: number }
  tolerance: number
}

const caseOf = (fixture: Fixture, index: number): Case => {
  const [q, k, v] = ['q', 'k', 'v'].map((name) => fixture.tensor(`case${index}.${name}`))
  if (q === undefined || k === undefined || v === undefined) throw new Error(`no case ${index}`)
  const [heads, queries, headDim] = q.shape as [number, number, number]
  const [kvHeads, keys] = k.shape as [number, number]
  return {
    q: headsLast(q),
    k: headsLast(k),
    v: headsLast(v),
    queries,
    keys,
    options: { heads, kvHeads, headDim },
    tolerance: steep.includes(index) ? 2e-3 : 2e-5,
  }
}

const expectedOf = (fixture: Fixture, name: string): Float32Array => headsLast(fixture.tensor(name))

test('causal attention', async () => {
  const fixture = await openFixture('kernels-attention')
  for (let i = 0; i < cases; i++) {
    const { q, k, v, options, tolerance } = caseOf(fixture, i)
    const expected = expectedOf(fixture, `case${i}.causal`)
    assertClose(attention(q, k, v, options), expected, tolerance, `case ${i}`)
    assertClose(await attentionAsync(q, k, v, options), expected, tolerance, `case ${i}, asynchronous`)
  }
})

test('attention to everything, and to chosen keys', async () => {
  const fixture = await openFixture('kernels-attention')
  let checked = 0
  for (let i = 0; i < cases; i++) {
    const { q, k, v, options, tolerance } = caseOf(fixture, i)
    const width = options.kvHeads * options.headDim
    if (fixture.has(`case${i}.full`)) {
      const found = attention(q, k, v, { ...options, causal: false })
      assertClose(found, expectedOf(fixture, `case${i}.full`), tolerance, `case ${i}`)
      checked++
    }
    if (fixture.has(`case${i}.key_mask`)) {
      const visible = [...fixture.bytes(`case${i}.key_mask`)].flatMap((bit, key) => (bit === 0 ? [] : [key]))
      const found = attention(q, pickRows(k, width, visible), pickRows(v, width, visible), {
        ...options,
        causal: false,
      })
      assertClose(found, expectedOf(fixture, `case${i}.key_masked`), tolerance, `case ${i}, masked`)
      checked++
    }
  }
  assert.ok(checked >= 12, `${checked} cases`)
})

test('the last keys of a window, query by query', async () => {
  const fixture = await openFixture('kernels-attention')
  let checked = 0
  for (let i = 0; i < cases; i++) {
    if (!fixture.has(`case${i}.window`)) continue
    const { q, k, v, queries, keys, options, tolerance } = caseOf(fixture, i)
    const [window] = new Int32Array(fixture.bytes(`case${i}.window`).buffer) as unknown as [number]
    const expected = expectedOf(fixture, `case${i}.windowed`)
    const width = options.heads * options.headDim
    const kvWidth = options.kvHeads * options.headDim
    for (let row = 0; row < queries; row++) {
      const end = keys - queries + row + 1
      const from = Math.max(0, end - window)
      const found = attention(
        q.subarray(row * width, (row + 1) * width),
        k.subarray(from * kvWidth, end * kvWidth),
        v.subarray(from * kvWidth, end * kvWidth),
        options,
      )
      assertClose(found, expected.subarray(row * width, (row + 1) * width), tolerance, `case ${i}, query ${row}`)
      checked++
    }
  }
  assert.ok(checked >= 20, `${checked} queries`)
})

test('keys and values of fewer bits', async () => {
  const fixture = await openFixture('kernels-attention')
  let bfloat = 0
  for (let i = 0; i < cases; i++) {
    const { q, k, v, options, tolerance } = caseOf(fixture, i)
    if (fixture.has(`case${i}.k_bf16`)) {
      const keys = headsLast(fixture.tensor(`case${i}.k_bf16`))
      const values = headsLast(fixture.tensor(`case${i}.v_bf16`))
      const expected = expectedOf(fixture, `case${i}.causal_bf16_kv`)
      assertClose(attention(q, keys, values, options), expected, tolerance, `case ${i}, keys of bf16`)
      assertClose(attention(q, k, v, { ...options, kvType: 'bf16' }), expected, tolerance, `case ${i}, cache of bf16`)
      bfloat++
    }
    if (steep.includes(i)) continue
    const expected = expectedOf(fixture, `case${i}.causal`)
    assertClose(attention(q, k, v, { ...options, kvType: 'f16' }), expected, 5e-3, `case ${i}, f16`)
    for (const [kvType, activations, least] of [
      ['bf16', 'auto', 0.9999],
      ['q8_0', 'auto', 0.9995],
      ['q8_0', 'f32', 0.9997],
      ['fp8', 'auto', 0.998],
    ] as const) {
      const similarity = cosine(attention(q, k, v, { ...options, kvType, activations }), expected)
      assert.ok(similarity > least, `case ${i}, ${kvType}, ${activations}: ${similarity}`)
    }
  }
  assert.ok(bfloat >= 3)
})

/** In float64. */
const plainAttention = (
  { q, k, v, queries, keys, options: { heads, kvHeads, headDim } }: Omit<Case, 'tolerance'>,
  causal: boolean,
  scale: number,
): Float32Array => {
  const out = new Float32Array(q.length)
  for (let row = 0; row < queries; row++) {
    for (let head = 0; head < heads; head++) {
      const kv = Math.floor((head * kvHeads) / heads)
      const end = causal ? keys - queries + row + 1 : keys
      const scores = Array.from({ length: end }, (_, key) => {
        let sum = 0
        for (let d = 0; d < headDim; d++) {
          sum += (q[(row * heads + head) * headDim + d] as number) * (k[(key * kvHeads + kv) * headDim + d] as number)
        }
        return sum * scale
      })
      const most = Math.max(...scores)
      const weights = scores.map((score) => Math.exp(score - most))
      const total = weights.reduce((sum, weight) => sum + weight, 0)
      for (let d = 0; d < headDim; d++) {
        let sum = 0
        weights.forEach((weight, key) => {
          sum += weight * (v[(key * kvHeads + kv) * headDim + d] as number)
        })
        out[(row * heads + head) * headDim + d] = sum / total
      }
    }
  }
  return out
}

test('any shape: odd head sizes, page borders, many rows, more queries than keys', () => {
  const random = randomSource(3)
  const normal = (length: number): Float32Array =>
    Float32Array.from({ length }, () => random() + random() + random() + random() - 2)
  const shapes = [
    [1, 1, 1, 1, 1],
    [3, 3, 7, 5, 5],
    [4, 2, 33, 64, 64],
    [2, 1, 16, 65, 130],
    [6, 2, 20, 1, 128],
    [1, 1, 257, 3, 70],
    [2, 2, 8, 1100, 1200],
    [4, 1, 12, 90, 9],
  ] as const
  for (const [heads, kvHeads, headDim, queries, keys] of shapes) {
    const options = { heads, kvHeads, headDim }
    const q = normal(queries * heads * headDim)
    const k = normal(keys * kvHeads * headDim)
    const v = normal(keys * kvHeads * headDim)
    for (const causal of [true, false]) {
      if (causal && queries > keys) continue
      const scale = 0.3
      const found = attention(q, k, v, { ...options, causal, scale })
      const expected = plainAttention({ q, k, v, queries, keys, options }, causal, scale)
      assertClose(found, expected, 2e-5, `${[heads, kvHeads, headDim, queries, keys, causal]}`)
    }
  }
})

test('what a call leaves in the cache does not reach the next', () => {
  const options = { heads: 2, kvHeads: 1, headDim: 24 }
  const fill = (length: number, value: number): Float32Array => new Float32Array(length).fill(value)
  for (const kvType of kvTypeNames) {
    const spoiled = attention(fill(64 * 48, 1), fill(64 * 24, 1), fill(64 * 24, Number.NaN), { ...options, kvType })
    assert.ok(spoiled.every(Number.isNaN))
    for (const causal of [true, false]) {
      // As many keys as need a program of the same size, which is the one used before.
      const found = attention(fill(3 * 48, 1), fill(40 * 24, 1), fill(40 * 24, 0.5), { ...options, kvType, causal })
      assertClose(found, fill(3 * 48, 0.5), 1e-4, `${kvType}, causal ${causal}`)
    }
  }
})

test.run()
