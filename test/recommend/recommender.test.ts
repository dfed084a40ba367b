/** The public class on the CPU device: equal bits however calls are merged, policies, budgets, exchange of versions, closing. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { DroverError, ErrorCode } from '../../lib/errors.js'
import type { RecommenderOptions } from '../../lib/recommend/options.js'
import { loadRecommender, type Recommender } from '../../lib/recommend/recommender.js'
import type { ScoreRequest } from '../../lib/recommend/request.js'
import { fixture, randomSource, rejectionOf } from '../support.js'
import {
  randomRequest,
  type TinyRecommender,
  tinyRecommender,
  withFolder,
  withTiny,
  writeRecommender,
} from './folders.js'

const tiny: TinyRecommender = { dense: 5, dim: 12, rows: [7, 100, 1000, 20000] }

const withRecommender = (
  options: RecommenderOptions,
  body: (recommender: Recommender, folder: string) => Promise<void>,
  model = tiny,
): Promise<void> =>
  withTiny(model, async (folder) => {
    const recommender = await loadRecommender(folder, options)
    try {
      await body(recommender, folder)
    } finally {
      await recommender.close()
    }
  })

const isRefused = async (code: ErrorCode, promise: Promise<unknown>): Promise<void> => {
  const error = await rejectionOf(promise)
  assert.is(error.code, code, String(error))
}

const bits = (scores: Float32Array): number[] => [...new Uint32Array(scores.buffer, scores.byteOffset, scores.length)]

/** The request's rows [from, to) as a request of their own. */
const rowsOf = ({ dense, sparse }: ScoreRequest, features: number, from: number, to: number): ScoreRequest => ({
  dense: dense.subarray(from * features, to * features),
  sparse: sparse.map(({ indices, offsets, weights }) => {
    const [start, end] = [Number(offsets[from]), Number(offsets[to])]
    return {
      indices: indices.subarray(start, end) as Int32Array,
      offsets: Int32Array.from({ length: to - from + 1 }, (_, i) => Number(offsets[from + i]) - start),
      ...(weights === undefined ? {} : { weights: weights.subarray(start, end) }),
    }
  }),
})

test('each caller gets the bits that it gets alone, whatever it is merged with, cut into, or where it runs', () =>
  withFolder(async (folder) => {
    const { config, tensors } = tinyRecommender(tiny)
    for (const quantization of [null, { tables: 'int8' }, { tables: { default: 'int4', 0: 'f16' }, layers: 'int8' }]) {
      await writeRecommender(folder, { ...config, quantization }, tensors)
      const random = randomSource(3)
      const requests = Array.from({ length: 60 }, (_, i) => randomRequest(random, tiny, 1 + (i % 40), i % 3 === 0))
      const alone: number[][] = []
      {
        await using recommender = await loadRecommender(folder, { threads: 1, tables: 'mapped' })
        for (const request of requests) alone.push(bits(await recommender.score(request)))
      }
      for (const options of [{}, { maxBatch: 7 }, { maxBatch: 64, threads: 1 }, { maxBatch: 1000, maxDelayMs: 1 }]) {
        await using recommender = await loadRecommender(folder, options)
        const what = JSON.stringify({ quantization, options })
        const merged = await Promise.all(requests.map((request) => recommender.score(request)))
        for (const [i, scores] of merged.entries()) assert.equal(bits(scores), alone[i], `${what} merged, request ${i}`)
        for (const [i, request] of requests.entries())
          assert.equal(bits(recommender.scoreSync(request)), alone[i], `${what} sync, request ${i}`)
        assert.ok(recommender.stats().batchSize.max > 1)
      }
      const [long] = requests.slice(39, 40) as [ScoreRequest]
      await using recommender = await loadRecommender(folder)
      for (let row = 0; row < 40; row++)
        assert.is(bits(recommender.scoreSync(rowsOf(long, 5, row, row + 1)))[0], alone[39]?.[row], `row ${row}`)
    }
  }))

test('int32 and int64 integers give the same', () =>
  withRecommender({}, async (recommender) => {
    const request = randomRequest(randomSource(5), tiny, 9)
    const wide: ScoreRequest = {
      dense: request.dense,
      sparse: request.sparse.map(({ indices, offsets }, t) => ({
        indices: BigInt64Array.from([...indices], BigInt),
        offsets: t % 2 ? offsets : BigInt64Array.from([...offsets], BigInt),
      })),
    }
    assert.equal(bits(await recommender.score(wide)), bits(await recommender.score(request)))
  }))

test('a synchronous call in the middle of others changes nothing of theirs', () =>
  withRecommender({ maxBatch: 256 }, async (recommender) => {
    const random = randomSource(6)
    const large = randomRequest(random, tiny, 2000)
    const small = randomRequest(random, tiny, 3)
    const wanted = bits(await recommender.score(large))
    const own = bits(await recommender.score(small))
    for (let round = 0; round < 10; round++) {
      let over = false
      const running = recommender.score(large).finally(() => {
        over = true
      })
      let calls = 0
      while (!over) {
        assert.equal(bits(recommender.scoreSync(small)), own)
        calls++
        await new Promise((resolve) => setImmediate(resolve))
      }
      assert.ok(calls > 1)
      assert.equal(bits(await running), wanted)
    }
  }))

test('a bad request fails alone, and says where it is wrong', () =>
  withRecommender({}, async (recommender) => {
    const random = randomSource(8)
    const good = Array.from({ length: 8 }, () => randomRequest(random, tiny, 4))
    const wanted = await Promise.all(good.map((request) => recommender.score(request)))
    const bad = randomRequest(random, tiny, 30)
    const { indices, offsets } = bad.sparse[2] as { indices: Int32Array; offsets: Int32Array }
    const position = indices.length - 1
    const start = offsets.findLast((offset) => offset <= position) as number
    indices[position] = 1000
    const mixed = [...good, bad]
    const results = await Promise.allSettled(mixed.map((request) => recommender.score(request)))
    for (const [i, scores] of wanted.entries()) {
      const result = results[i] as PromiseFulfilledResult<Float32Array>
      assert.equal(bits(result.value), bits(scores))
    }
    const error = (results.at(-1) as PromiseRejectedResult).reason as DroverError
    assert.is(error.code, 'E_RANGE')
    assert.is(error.field, `request.sparse[2].indices[${position}]`)
    assert.is(error.found, 1000)
    assert.match(error.message, new RegExp(`table emb_l\\.2, bag \\d+, position ${position - start};`))
    assert.throws(
      () => recommender.scoreSync(bad),
      (thrown: DroverError) => thrown.code === 'E_RANGE' && thrown.field === error.field,
    )
    assert.equal(recommender.stats().failed, { E_RANGE: 2 })
  }))

test('indices out of range are skipped or clamped, and counted, where that is asked for', () =>
  withTiny(tiny, async (folder) => {
    const bags = (...values: bigint[]) => ({
      indices: BigInt64Array.from(values),
      offsets: Int32Array.of(0, values.length),
    })
    const request = (...values: bigint[]): ScoreRequest => ({
      dense: new Float32Array(5).fill(0.5),
      sparse: [bags(...values), bags(1n), bags(), bags(2n, 3n)],
    })
    const wild = request(3n, 7n, -1n, 1n << 40n, -(1n << 40n))
    await using skipping = await loadRecommender(folder, { indices: 'skip' })
    assert.equal(bits(await skipping.score(wild)), bits(await skipping.score(request(3n))))
    assert.is(skipping.stats().skippedIndices, 4)
    assert.is(skipping.stats().clampedIndices, 0)
    await using clamping = await loadRecommender(folder, { indices: 'clamp' })
    assert.equal(bits(clamping.scoreSync(wild)), bits(clamping.scoreSync(request(3n, 6n, 0n, 6n, 0n))))
    assert.is(clamping.stats().clampedIndices, 4)
    await using strict = await loadRecommender(folder)
    await isRefused('E_RANGE', strict.score(wild))
  }))

test('mapped and prepared tables give the same; memory is told apart', () =>
  withTiny(tiny, async (folder) => {
    const request = randomRequest(randomSource(9), tiny, 20)
    await using prepared = await loadRecommender(folder, { tables: 'prepared' })
    await using mapped = await loadRecommender(folder, { tables: 'mapped' })
    assert.is(prepared.info.tablePlacement, 'prepared')
    assert.is(mapped.info.tablePlacement, 'mapped')
    assert.equal(bits(await mapped.score(request)), bits(await prepared.score(request)))
    const tableBytes = tiny.rows.reduce((sum, rows) => sum + rows * tiny.dim * 4, 0)
    assert.is(mapped.info.tableBytes, tableBytes)
    assert.ok((prepared.memoryUsage()['tables'] ?? 0) >= tableBytes)
    assert.is(mapped.memoryUsage()['tables'], 0)
    assert.ok((mapped.memoryUsage()['mapped'] ?? 0) >= tableBytes)
    assert.ok(mapped.info.residentBytes > 0 && mapped.info.residentBytes <= tableBytes + 2 * 4096 * 4)
    assert.is(prepared.info.residentBytes, 0)
    const { info } = mapped
    await mapped.close()
    assert.is(info.residentBytes, 0, 'what is kept can be read later')
  }))

test('info', () =>
  withRecommender({ threads: 1, maxBatch: 99 }, async ({ info }) => {
    assert.is(info.architecture, 'dlrm')
    assert.is(info.denseFeatures, 5)
    assert.is(info.threads, 1)
    assert.is(info.maxBatch, 99)
    assert.equal(info.weightTypes, ['f32'])
    assert.is(info.pooling, 'sum')
    assert.equal(info.tables[1], { name: 'emb_l.1', rows: 100, dim: 12, format: 'f32', bytes: 4800 })
  }))

test('what is converted while loading is told, and counts', () =>
  withTiny(
    { ...tiny, changes: { quantization: { tables: { default: 'int8', 0: 'f32' }, layers: 'int8' } } },
    async (folder) => {
      await using recommender = await loadRecommender(folder)
      const { tables, weightTypes } = recommender.info
      assert.equal(weightTypes, ['int8', 'f32'])
      assert.equal(
        tables.map(({ format }) => format),
        ['f32', 'int8', 'int8', 'int8'],
      )
      const rows = 100 + 1000 + 20000
      assert.is(tables[3]?.bytes, 20000 * 20)
      const { tables: inTables = 0, converted } = recommender.memoryUsage()
      assert.ok(inTables >= rows * 20 + 7 * 12 * 4)
      // Codes and scales of the layers 5-8-12 and 22-16-1; tables are counted once.
      assert.is(converted, 8 * 5 + 12 * 8 + 16 * 22 + 16 + 4 * (8 + 12 + 16 + 1))
      await isRefused('E_MEMORY', loadRecommender(folder, { memoryBudget: rows * 20 }))
    },
  ))

test('loss_threshold clamps probabilities', () =>
  withRecommender(
    {},
    async (recommender) => {
      const scores = recommender.scoreSync(randomRequest(randomSource(1), tiny, 500))
      assert.is(Math.min(...scores), Math.fround(0.45))
      assert.is(Math.max(...scores), Math.fround(1 - 0.45))
    },
    { ...tiny, changes: { loss_threshold: 0.45 } },
  ))

test('a budget: tables stay mapped when copies would not fit, or the load is refused', () =>
  withTiny({ ...tiny, rows: [200_000] }, async (folder) => {
    const tableBytes = 200_000 * 12 * 4
    const memoryBudget = 8 << 20
    await using mapped = await loadRecommender(folder, { memoryBudget })
    assert.is(mapped.info.tablePlacement, 'mapped')
    await isRefused('E_MEMORY', loadRecommender(folder, { memoryBudget, tables: 'prepared' }))
    await isRefused('E_MEMORY', loadRecommender(folder, { memoryBudget: 1000 }))
    // Room for one copy is not room for two.
    await using one = await loadRecommender(folder, { memoryBudget: tableBytes + memoryBudget, tables: 'prepared' })
    await isRefused('E_MEMORY', one.swap(folder))
    assert.is((await one.score(randomRequest(randomSource(2), { dense: 5, rows: [200_000] }, 3))).length, 3)
    await using two = await loadRecommender(folder, {
      memoryBudget: 2 * (tableBytes + memoryBudget),
      tables: 'prepared',
    })
    await two.swap(folder)
    assert.is(two.stats().swaps, 1)
  }))

test('copies that do not fit after all leave the tables mapped', () =>
  withTiny({ ...tiny, rows: [200_000] }, async (folder) => {
    const { found } = await rejectionOf(loadRecommender(folder, { memoryBudget: 1 << 20, tables: 'prepared' }))
    const memoryBudget = (found as number) - 1
    await isRefused('E_MEMORY', loadRecommender(folder, { memoryBudget, tables: 'prepared' }))
    await using tight = await loadRecommender(folder, { memoryBudget })
    assert.is(tight.info.tablePlacement, 'mapped')
    assert.is(tight.scoreSync(randomRequest(randomSource(2), { dense: 5, rows: [200_000] }, 3)).length, 3)
  }))

test('options are those of the call, and memory can be asked for at any time, whatever is exchanged', () =>
  withTiny(tiny, async (folder) => {
    const options: RecommenderOptions = { maxBatch: 64 }
    await using recommender = await loadRecommender(folder, options)
    options.maxBatch = -1
    let swapped = false
    const swapping = recommender.swap(folder).then(() => {
      swapped = true
    })
    for (let after = 0; after < 50; after += swapped ? 1 : 0) {
      recommender.memoryUsage()
      await new Promise(setImmediate)
    }
    await swapping
    assert.is(recommender.info.maxBatch, 64)
  }))

test('hot swap: calls in flight get the old version, later ones the new, and nobody fails', () =>
  withTiny(tiny, (first) =>
    withTiny({ ...tiny, seed: 2 }, async (second) => {
      const random = randomSource(11)
      const requests = Array.from({ length: 32 }, () => randomRequest(random, tiny, 8))
      const expected = await Promise.all(
        [first, second].map(async (folder) => {
          await using recommender = await loadRecommender(folder)
          return await Promise.all(requests.map(async (request) => bits(await recommender.score(request))))
        }),
      )
      await using recommender = await loadRecommender(first, { maxBatch: 16 })
      const memory = recommender.memoryUsage()
      for (let round = 0; round < 6; round++) {
        const [from, to] = round % 2 === 0 ? [0, 1] : [1, 0]
        let swapped = false
        const swap = recommender.swap(round % 2 === 0 ? second : first).then(() => {
          swapped = true
        })
        let answered = 0
        let crossed = false
        while (!swapped || !crossed) {
          const before = swapped
          const scores = await Promise.all(requests.map((request) => recommender.score(request)))
          for (const [i, own] of scores.entries()) {
            const found = JSON.stringify(bits(own))
            const isOld = found === JSON.stringify(expected[from]?.[i])
            assert.ok(isOld || found === JSON.stringify(expected[to]?.[i]), 'one version answers a request')
            if (before) assert.not.ok(isOld, 'later calls go to the new version')
            if (answered === 0) assert.ok(isOld, 'calls in flight get the old version')
          }
          crossed = before
          answered++
        }
        await swap
        assert.ok(answered > 1)
      }
      assert.is(recommender.info.path, first)
      assert.equal(recommender.stats().failed, {})
      assert.is(recommender.stats().swaps, 6)
      assert.is(recommender.memoryUsage()['tables'], memory['tables'], 'old versions are freed')
    }),
  ))

test('hot swap to a model of another form; a failed swap changes nothing', () =>
  withTiny(tiny, async (folder) => {
    await using recommender = await loadRecommender(folder)
    const request = randomRequest(randomSource(12), tiny, 2)
    const before = bits(await recommender.score(request))
    await isRefused('E_IO', recommender.swap(`${folder}/nowhere`))
    await isRefused('E_ABORTED', recommender.swap(folder, { signal: AbortSignal.abort() }))
    const twice = [recommender.swap(folder), recommender.swap(folder)]
    await isRefused('E_BUSY', twice[1] as Promise<void>)
    await twice[0]
    assert.equal(bits(await recommender.score(request)), before)
    await recommender.swap(fixture('dlrm-dcnv2'))
    assert.is(recommender.info.architecture, 'dlrm_dcn')
    await isRefused('E_SHAPE', recommender.score(request))
    assert.is(
      (await recommender.score(randomRequest(randomSource(1), { dense: 13, rows: [7, 100, 333, 64, 1200] }, 4))).length,
      4,
    )
  }))

test('close: what is in flight ends with E_CLOSED, so does what comes later; twice is once', () =>
  withTiny(tiny, async (folder) => {
    const recommender = await loadRecommender(folder, { maxBatch: 32 })
    const request = randomRequest(randomSource(13), tiny, 3000)
    const flying = Array.from({ length: 5 }, () => rejectionOf(recommender.score(request)))
    const swapping = rejectionOf(recommender.swap(folder))
    await new Promise((resolve) => setImmediate(resolve))
    const closing = recommender.close()
    assert.is(recommender.close(), closing)
    for (const error of await Promise.all(flying)) assert.is(error.code, 'E_CLOSED')
    assert.is((await swapping).code, 'E_CLOSED')
    await closing
    await isRefused('E_CLOSED', recommender.score(request))
    await isRefused('E_CLOSED', recommender.swap(folder))
    for (const use of [() => recommender.scoreSync(request), () => recommender.info, () => recommender.memoryUsage()])
      assert.throws(use, (error: DroverError) => error.code === 'E_CLOSED')
    assert.ok((recommender.stats().failed['E_CLOSED'] as number) >= 5)
  }))

test('abort and deadline of a call', () =>
  withRecommender({ maxBatch: 16 }, async (recommender) => {
    const request = randomRequest(randomSource(14), tiny, 20_000)
    const controller = new AbortController()
    const aborted = rejectionOf(recommender.score(request, { signal: controller.signal }))
    const late = rejectionOf(recommender.score(request, { deadlineMs: 1 }))
    setTimeout(() => controller.abort(), 2)
    assert.is((await aborted).code, 'E_ABORTED')
    assert.is((await late).code, 'E_DEADLINE')
    const scores = await recommender.score(rowsOf(request, 5, 0, 20), {
      deadlineMs: 60_000,
      signal: AbortSignal.timeout(60_000),
    })
    assert.is(scores.length, 20)
    assert.is(recommender.stats().inFlight, 0)
  }))

test('a request that is refused anyway is not looked at', () =>
  withRecommender({}, async (recommender) => {
    const request = {
      get dense(): Float32Array {
        throw new Error('looked at')
      },
      sparse: [],
    }
    await isRefused('E_ABORTED', recommender.score(request, { signal: AbortSignal.abort() }))
  }))

test('options are checked', () =>
  withTiny(tiny, async (folder) => {
    const wrong: [string, unknown][] = [
      ['options.maxbatch', { maxbatch: 3 }],
      ['options.maxBatch', { maxBatch: 0 }],
      ['options.maxDelayMs', { maxDelayMs: -1 }],
      ['options.queueLimit', { queueLimit: 0.5 }],
      ['options.tables', { tables: 'ram' }],
      ['options.indices', { indices: 'ignore' }],
      ['options.signal', { signal: 1 }],
      ['options.onProgress', { onProgress: true }],
      ['options.threads', { threads: '2' }],
    ]
    for (const [field, options] of wrong) {
      const error = await rejectionOf(loadRecommender(folder, options as RecommenderOptions))
      assert.is(error.code, 'E_ARGUMENT')
      assert.is(error.field, field)
    }
    await isRefused('E_ABORTED', loadRecommender(folder, { signal: AbortSignal.abort() }))
    await isRefused('E_UNSUPPORTED', loadRecommender(fixture('llama3-8b-like')))
    await using recommender = await loadRecommender(folder)
    const request = randomRequest(randomSource(15), tiny, 1)
    for (const options of [{ deadline: 3 }, { deadlineMs: Number.NaN }, { signal: {} }, 3])
      await isRefused('E_ARGUMENT', recommender.score(request, options as object))
  }))

test.run()
