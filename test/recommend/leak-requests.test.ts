/**
 * Many callers with valid and hostile requests: every one settles as it should, neighbours keep their bits, and memory stays
 * flat. DROVER_REQUESTS sets how many; 1,000,000 for the long run.
 */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { DroverError } from '../../lib/errors.js'
import { loadRecommender } from '../../lib/recommend/recommender.js'
import type { ScoreRequest } from '../../lib/recommend/request.js'
import { caseRandom, pick } from '../format/mutate.js'
import { median, settledMegabytes } from '../runtime/memory.js'
import { fixture, randomSource } from '../support.js'
import { randomRequest, withTiny } from './folders.js'

const total = Number(process.env['DROVER_REQUESTS'] ?? 60_000)
const callers = 64
const model = { dense: 13, rows: [7, 100, 333, 64, 1200] }

const strange: readonly unknown[] = [
  undefined,
  null,
  0,
  -1,
  1.5,
  Number.NaN,
  '',
  'x',
  true,
  [],
  {},
  () => 0,
  Symbol('x'),
  10n,
]
const arrays = (random: () => number): unknown => {
  const length = pick(random, 6)
  const types = [Int32Array, Float32Array, Uint8Array, Float64Array, Uint32Array, Int16Array]
  const Type = types[pick(random, types.length)] as Int32ArrayConstructor
  return new Type(length).fill(pick(random, 1300) - 20)
}
const odd = (random: () => number): unknown => (random() < 0.5 ? strange[pick(random, strange.length)] : arrays(random))

/** A valid request with one to three parts exchanged, or with integers that may be wrong. */
const hostile = (random: () => number): unknown => {
  const { dense, sparse } = randomRequest(random, model, 1 + pick(random, 5), random() < 0.3)
  const request: { dense: unknown; sparse: unknown } = { dense, sparse: sparse.map((bags) => ({ ...bags })) }
  for (let changes = 1 + pick(random, 3); changes > 0; changes--) {
    const table = sparse[pick(random, sparse.length)] as ScoreRequest['sparse'][number]
    const { indices, offsets } = table as { indices: Int32Array; offsets: Int32Array }
    const value = [-1, 7, 1200, 2 ** 31 - 1, -(2 ** 31), pick(random, 2000)][pick(random, 6)] as number
    const choice = pick(random, 7)
    if (choice === 0 && indices.length > 0) indices[pick(random, indices.length)] = value
    else if (choice === 1) offsets[pick(random, offsets.length)] = value
    else if (choice === 2) request.dense = odd(random)
    else if (choice === 3) request.sparse = odd(random)
    else if (choice === 4 && Array.isArray(request.sparse)) request.sparse[pick(random, 5)] = odd(random)
    else if (Array.isArray(request.sparse)) {
      const part = request.sparse[pick(random, 5)] as Record<string, unknown> | undefined
      const name = ['indices', 'offsets', 'weights'][pick(random, 3)] as string
      if (typeof part === 'object' && part !== null) part[name] = odd(random)
    }
  }
  return request
}

const codes = ['E_ARGUMENT', 'E_SHAPE', 'E_RANGE', 'E_ABORTED', 'E_DEADLINE']

test(`${total} requests from ${callers} callers: all settle, memory stays flat`, async () => {
  await using recommender = await loadRecommender(fixture('dlrm-dcnv2'), { maxBatch: 48 })
  const random = randomSource(21)
  const valid = Array.from({ length: 40 }, () => randomRequest(random, model, 1 + pick(random, 6), random() < 0.3))
  const wanted = valid.map((request) => [...recommender.scoreSync(request)])
  let next = 0
  let refused = 0
  const sizes: number[] = []
  const call = async (number: number): Promise<void> => {
    const own = caseRandom(7, number)
    const kind = pick(own, 20)
    if (kind < 12) {
      const i = pick(own, valid.length)
      assert.equal([...(await recommender.score(valid[i] as ScoreRequest))], wanted[i])
      return
    }
    const options =
      kind === 12
        ? { signal: AbortSignal.abort() }
        : kind === 13
          ? { deadlineMs: own() / 4 }
          : kind === 14
            ? odd(own)
            : undefined
    const request = kind < 14 ? valid[pick(own, valid.length)] : hostile(own)
    try {
      const asked = request as ScoreRequest
      const scores = kind === 15 ? recommender.scoreSync(asked) : await recommender.score(asked, options as object)
      assert.is.not(kind, 12, 'an aborted call was answered')
      assert.ok(scores.every((score) => score >= 0 && score <= 1))
    } catch (error) {
      refused++
      assert.instance(error, DroverError, `case ${number}: ${error}`)
      assert.ok(codes.includes((error as DroverError).code), `case ${number}: ${error}`)
    }
  }
  const portion = total / 40
  while (next < total) {
    const end = Math.min(total, next + portion)
    await Promise.all(
      Array.from({ length: callers }, async () => {
        while (next < end) await call(next++)
      }),
    )
    sizes.push(await settledMegabytes())
  }
  assert.ok(refused > total / 6, `${refused}`)
  const stats = recommender.stats()
  assert.is(stats.inFlight, 0)
  assert.ok(stats.batchSize.mean > 2, 'calls were merged')
  const growth = median(sizes.slice(-10)) - median(sizes.slice(10, 20))
  // What 50 bytes a request would add; allocators come and go by a MB. DROVER_REQUESTS=1000000 tells more.
  assert.ok(
    growth < Math.max(1.5, total / 60_000),
    `${growth.toFixed(2)} MB in the second half: ${sizes.map((size) => size.toFixed(1)).join(' ')}`,
  )
})

test('a hundred exchanges of versions under load leave memory flat', () =>
  withTiny({ ...model, dim: 32, rows: [7, 100, 333, 64, 60_000] }, async (folder) => {
    await using recommender = await loadRecommender(folder)
    const request = randomRequest(randomSource(5), model, 4)
    const sizes: number[] = []
    for (let round = 0; round < 100; round++) {
      const calls = Array.from({ length: 20 }, () => recommender.score(request))
      await recommender.swap(folder)
      await Promise.all(calls)
      if (round % 5 === 4) sizes.push(await settledMegabytes())
    }
    assert.equal(recommender.stats().failed, {})
    const growth = median(sizes.slice(-5)) - median(sizes.slice(8, 13))
    // A version takes 7.7 MB: one that stayed would be seen. Heap and allocator come and go by 3 MB.
    assert.ok(growth < 5, `${growth.toFixed(2)} MB: ${sizes.map((size) => size.toFixed(1)).join(' ')}`)
  }))

test.run()
