/** How calls are merged, cut, held, refused and ended: an engine over a net that the test drives by hand. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { aborted, DroverError } from '../../lib/errors.js'
import { Engine, type EngineLimits, type Runner } from '../../lib/recommend/engine.js'
import type { MergedRows } from '../../lib/recommend/merge.js'
import type { Scored } from '../../lib/recommend/net.js'
import type { OwnRequest } from '../../lib/recommend/request.js'
import { Stats } from '../../lib/recommend/stats.js'

const tableRows = 100

/** Scores a row by its dense feature and the sum of its indices, when the test lets a step end. */
class FakeNet implements Runner {
  readonly shape = {
    denseFeatures: 1,
    tables: [{ name: 'items', rows: tableRows }],
    policy: 'error' as const,
    weighted: true,
  }
  readonly steps: MergedRows[] = []
  aborts = 0
  #finish: (() => void) | undefined
  #fail: ((error: unknown) => void) | undefined

  /** @param manual steps wait for {@link finish}. */
  constructor(public manual = false) {}

  run(merged: MergedRows): Promise<Scored> {
    this.steps.push(merged)
    return new Promise((resolve, reject) => {
      const finish = (): void => {
        try {
          resolve(this.runSync(merged))
        } catch (error) {
          reject(error)
        }
      }
      this.#finish = finish
      this.#fail = reject
      if (!this.manual) setImmediate(finish)
    })
  }

  runSync({ rows, dense, bags }: MergedRows): Scored {
    const { indices, offsets, weights } = bags[0] as MergedRows['bags'][number]
    const scores = new Float32Array(rows)
    for (let row = 0; row < rows; row++) {
      let sum = dense[row] as number
      for (let i = offsets[row] as number; i < (offsets[row + 1] as number); i++) {
        const index = indices[i] as number
        if (index < 0 || index >= tableRows) throw new DroverError('E_RANGE', 'an index', { found: index })
        sum += index * (weights?.[i] ?? 1)
      }
      scores[row] = sum
    }
    return { scores, skipped: 0, clamped: 0 }
  }

  tryRun(): undefined {
    return undefined
  }

  abort(): void {
    this.aborts++
    this.#fail?.(aborted('the step'))
  }

  finish(): void {
    this.#finish?.()
  }
}

/** Rows with features first, first + 1, … and a bag of one index each. */
const rowsFrom = (first: number, batch: number, index = 1): OwnRequest => ({
  batch,
  dense: Float32Array.from({ length: batch }, (_, i) => first + i),
  bags: [
    {
      indices: new Int32Array(batch).fill(index),
      offsets: Int32Array.from({ length: batch + 1 }, (_, i) => i),
      weights: undefined,
    },
  ],
})

const scoresFrom = (first: number, batch: number): number[] => Array.from({ length: batch }, (_, i) => first + i + 1)

const engineOf = (net: FakeNet, limits: Partial<EngineLimits> = {}): { engine: Engine; stats: Stats } => {
  const stats = new Stats(8)
  return { engine: new Engine(net, { maxBatch: 8, maxDelayMs: 0, queueLimit: 100, ...limits }, stats), stats }
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

const codeOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'none',
    (error: DroverError) => error.code,
  )

test('calls of one turn share a step; each gets its own rows', async () => {
  const net = new FakeNet()
  const { engine, stats } = engineOf(net)
  const calls = [1, 2, 3].map((batch) => engine.score(rowsFrom(10 * batch, batch), {}))
  const scores = await Promise.all(calls)
  assert.equal(
    scores.map((own) => [...own]),
    [1, 2, 3].map((batch) => scoresFrom(10 * batch, batch)),
  )
  assert.equal(
    net.steps.map(({ rows }) => rows),
    [6],
  )
  const report = stats.report(engine.inFlight)
  assert.is(report.requests, 3)
  assert.is(report.rows, 6)
  assert.is(report.inFlight, 0)
  assert.is(report.batchSize.count, 1)
  assert.is(report.batchSize.max, 6)
  assert.equal(report.batchSize.bounds, [1, 2, 4, 8])
  assert.equal(report.batchSize.counts, [0, 0, 0, 1, 0])
  assert.is(report.latencyMs.count, 3)
  assert.ok(report.latencyMs.p50 <= report.latencyMs.p99 && report.latencyMs.p99 <= report.latencyMs.max)
})

test('what comes while a step runs is merged into the next', async () => {
  const net = new FakeNet(true)
  const { engine } = engineOf(net)
  const first = engine.score(rowsFrom(0, 1), {})
  await turn()
  const later = [1, 2, 3].map((i) => engine.score(rowsFrom(i, 1), {}))
  await turn()
  assert.is(net.steps.length, 1)
  net.finish()
  assert.equal([...(await first)], [1])
  await turn()
  assert.equal(
    net.steps.map(({ rows }) => rows),
    [1, 3],
  )
  net.finish()
  assert.equal(
    (await Promise.all(later)).map((own) => [...own]),
    [[2], [3], [4]],
  )
})

test('a request larger than a step is cut, and lets others in between', async () => {
  const net = new FakeNet()
  const { engine } = engineOf(net)
  const order: string[] = []
  const long = engine.score(rowsFrom(0, 30), {}).then((scores) => {
    order.push('long')
    return scores
  })
  const short = engine.score(rowsFrom(100, 3), {}).then((scores) => {
    order.push('short')
    return scores
  })
  assert.equal([...(await long)], scoresFrom(0, 30))
  assert.equal([...(await short)], scoresFrom(100, 3))
  assert.equal(order, ['short', 'long'])
  assert.equal(
    net.steps.map(({ rows }) => rows),
    [8, 8, 8, 8, 1],
  )
})

test('steps with very many lookups have fewer rows', async () => {
  const net = new FakeNet()
  const { engine } = engineOf(net)
  const each = 300_000
  const long: OwnRequest = {
    ...rowsFrom(0, 4),
    bags: [
      {
        indices: new Int32Array(4 * each).fill(1),
        offsets: Int32Array.from({ length: 5 }, (_, i) => i * each),
        weights: undefined,
      },
    ],
  }
  const [scores, short] = await Promise.all([engine.score(long, {}), engine.score(rowsFrom(7, 2), {})])
  assert.equal(
    [...scores],
    [0, 1, 2, 3].map((i) => i + each),
  )
  assert.equal([...short], scoresFrom(7, 2))
  assert.ok(net.steps.every(({ bags }) => (bags[0]?.indices.length ?? 0) <= 2 ** 19))
  assert.equal([...engine.scoreSync(long)], [...scores])
})

test('weights: calls without them count as weights of 1 beside calls with them', async () => {
  const net = new FakeNet()
  const { engine } = engineOf(net)
  const plain = rowsFrom(0, 2, 10)
  const bags = rowsFrom(0, 2, 10).bags[0] as OwnRequest['bags'][number]
  const weighted: OwnRequest = { ...rowsFrom(0, 2), bags: [{ ...bags, weights: Float32Array.of(0.5, 2) }] }
  const [a, b] = await Promise.all([engine.score(plain, {}), engine.score(weighted, {})])
  assert.equal([...a], [10, 11])
  assert.equal([...b], [5, 21])
  assert.is(net.steps.length, 1)
})

test('a bad index fails its own call, with its place there; its neighbours are answered', async () => {
  const net = new FakeNet()
  const { engine, stats } = engineOf(net)
  const bad = rowsFrom(0, 3)
  ;(bad.bags[0] as { indices: Int32Array }).indices[2] = tableRows
  const good = engine.score(rowsFrom(10, 2), {})
  const wrong = engine.score(bad, {}).then(
    () => undefined,
    (reason: DroverError) => reason,
  )
  const other = engine.score(rowsFrom(20, 2), {})
  assert.equal([...(await good)], scoresFrom(10, 2))
  assert.equal([...(await other)], scoresFrom(20, 2))
  const error = await wrong
  assert.is(error?.code, 'E_RANGE')
  assert.is(error?.field, 'request.sparse[0].indices[2]')
  assert.is(error?.found, tableRows)
  assert.match(error?.message ?? '', /table items, bag 2, position 0/)
  assert.equal(stats.report(0).failed, { E_RANGE: 1 })
  // The rest ran again together.
  assert.equal(
    net.steps.map(({ rows }) => rows),
    [7, 4],
  )
})

test('a bad index in a later part of a long request fails all of it, once', async () => {
  const net = new FakeNet()
  const { engine } = engineOf(net)
  const bad = rowsFrom(0, 20)
  ;(bad.bags[0] as { indices: Int32Array }).indices[13] = -1
  const wrong = codeOf(engine.score(bad, {}))
  const good = engine.score(rowsFrom(50, 1), {})
  assert.is(await wrong, 'E_RANGE')
  assert.equal([...(await good)], [51])
  await turn()
  assert.is(engine.inFlight, 0)
})

test('more calls than may wait are refused at once', async () => {
  const net = new FakeNet(true)
  const { engine } = engineOf(net, { queueLimit: 2 })
  const first = engine.score(rowsFrom(0, 1), {})
  await turn()
  const waiting = [1, 2].map((i) => engine.score(rowsFrom(i, 1), {}))
  assert.throws(
    () => engine.score(rowsFrom(3, 1), {}),
    (error: DroverError) => error.code === 'E_BUSY' && error.field === 'options.queueLimit',
  )
  net.finish()
  await first
  await turn()
  net.finish()
  await Promise.all(waiting)
})

test('deadlines: a call that waits too long is never computed; others are not touched', async () => {
  const net = new FakeNet(true)
  const { engine } = engineOf(net)
  const first = engine.score(rowsFrom(0, 1), {})
  await turn()
  const late = codeOf(engine.score(rowsFrom(1, 1), { deadlineMs: 5 }))
  const patient = engine.score(rowsFrom(2, 1), { deadlineMs: 60_000 })
  assert.is(await late, 'E_DEADLINE')
  net.finish()
  await first
  await turn()
  net.finish()
  assert.equal([...(await patient)], [3])
  assert.equal(
    net.steps.map(({ rows }) => rows),
    [1, 1],
  )
  // The loop of events stood still: the timer has not fired, but the time is over.
  const blocked = codeOf(engine.score(rowsFrom(3, 1), { deadlineMs: 1 }))
  const end = performance.now() + 5
  while (performance.now() < end);
  assert.is(await blocked, 'E_DEADLINE')
  assert.is(net.steps.length, 2)
})

test('abort: before, while waiting, while running; a step that nobody waits for is ended', async () => {
  const net = new FakeNet(true)
  const { engine } = engineOf(net)
  assert.throws(
    () => engine.score(rowsFrom(0, 1), { signal: AbortSignal.abort() }),
    (error: DroverError) => error.code === 'E_ABORTED',
  )
  const [a, b, c] = [new AbortController(), new AbortController(), new AbortController()]
  const running = codeOf(engine.score(rowsFrom(0, 1), { signal: a.signal }))
  const beside = codeOf(engine.score(rowsFrom(1, 1), { signal: b.signal }))
  await turn()
  const waiting = codeOf(engine.score(rowsFrom(2, 1), { signal: c.signal }))
  const left = engine.score(rowsFrom(3, 1), {})
  a.abort()
  c.abort()
  assert.is(await running, 'E_ABORTED')
  assert.is(await waiting, 'E_ABORTED')
  assert.is(net.aborts, 0)
  b.abort()
  assert.is(await beside, 'E_ABORTED')
  assert.is(net.aborts, 1)
  await turn()
  net.finish()
  assert.equal([...(await left)], [4])
  assert.is(engine.inFlight, 0)
})

test('an idle engine never waits; behind a step, calls are held for others until the delay or a full step', async () => {
  const net = new FakeNet(true)
  const { engine } = engineOf(net, { maxDelayMs: 40 })
  const first = engine.score(rowsFrom(0, 1), {})
  await turn()
  assert.is(net.steps.length, 1)
  const held = engine.score(rowsFrom(1, 1), {})
  const came = performance.now()
  net.finish()
  await first
  await turn()
  assert.is(net.steps.length, 1, 'held')
  const joins = engine.score(rowsFrom(2, 1), {})
  while (net.steps.length < 2) await new Promise((resolve) => setTimeout(resolve, 1))
  assert.ok(performance.now() - came > 30, 'the delay was used')
  assert.is(net.steps[1]?.rows, 2)
  // A full step goes at once.
  const next = engine.score(rowsFrom(3, 1), {})
  net.finish()
  await Promise.all([held, joins])
  await turn()
  assert.is(net.steps.length, 2)
  const fills = engine.score(rowsFrom(4, 7), {})
  const began = performance.now()
  await turn()
  assert.is(net.steps.length, 3)
  assert.ok(performance.now() - began < 20)
  net.finish()
  await Promise.all([next, fills])
})

test('what has been in a step is not held: the rest of a long call, neighbours of a bad one', async () => {
  const { engine } = engineOf(new FakeNet(), { maxDelayMs: 10_000 })
  const began = performance.now()
  assert.equal([...(await engine.score(rowsFrom(0, 20), {}))], scoresFrom(0, 20))
  const wrong = codeOf(engine.score(rowsFrom(0, 1, tableRows), {}))
  const good = engine.score(rowsFrom(5, 2), {})
  assert.is(await wrong, 'E_RANGE')
  assert.equal([...(await good)], scoresFrom(5, 2))
  assert.ok(performance.now() - began < 5000)
})

/** An engine behind whose first step calls are held for a minute. */
const holding = async () => {
  const net = new FakeNet(true)
  const { engine } = engineOf(net, { maxDelayMs: 60_000 })
  const first = engine.score(rowsFrom(0, 1), {})
  await turn()
  const hold = async (): Promise<void> => {
    net.finish()
    await first
    await turn()
    assert.is(net.steps.length, 1, 'held')
  }
  return { net, engine, hold }
}

test('holding ends with the last call that is held; a call behind it finds an idle engine', async () => {
  const { net, engine, hold } = await holding()
  const controller = new AbortController()
  const held = codeOf(engine.score(rowsFrom(1, 1), { signal: controller.signal }))
  await hold()
  controller.abort()
  const next = engine.score(rowsFrom(2, 1), {})
  await turn()
  assert.is(net.steps.length, 2)
  net.finish()
  assert.is(await held, 'E_ABORTED')
  assert.equal([...(await next)], [3])
})

test('a call is not held beyond its deadline, whether it waits or joins those that are held', async () => {
  for (const joins of [false, true]) {
    const { net, engine, hold } = await holding()
    const call = () => engine.score(rowsFrom(1, 1), { deadlineMs: 250 })
    let urgent = joins ? engine.score(rowsFrom(2, 1), {}) : call()
    // A step may take so long, as far as the engine knows.
    await new Promise((resolve) => setTimeout(resolve, 50))
    await hold()
    net.manual = false
    if (joins) urgent = call()
    assert.equal([...(await urgent)], [2])
    assert.is(net.steps[1]?.rows, joins ? 2 : 1)
  }
})

test('an engine to which no more calls come holds none', async () => {
  const { net, engine, hold } = await holding()
  const held = engine.score(rowsFrom(1, 1), {})
  await hold()
  const drained = engine.drained()
  await turn()
  assert.is(net.steps.length, 2)
  net.finish()
  assert.equal([...(await held)], [2])
  await drained
})

test('closing ends what waits and runs, and what comes later', async () => {
  const net = new FakeNet(true)
  const { engine } = engineOf(net, { maxDelayMs: 1000 })
  const running = codeOf(engine.score(rowsFrom(0, 1), {}))
  await turn()
  const waiting = codeOf(engine.score(rowsFrom(1, 20), {}))
  await engine.close(new DroverError('E_CLOSED', 'closed'))
  assert.is(await running, 'E_CLOSED')
  assert.is(await waiting, 'E_CLOSED')
  assert.is(net.aborts, 1)
  assert.throws(
    () => engine.score(rowsFrom(2, 1), {}),
    (error: DroverError) => error.code === 'E_CLOSED',
  )
  assert.throws(
    () => engine.scoreSync(rowsFrom(2, 1)),
    (error: DroverError) => error.code === 'E_CLOSED',
  )
})

test('closing while calls are held does not wait for the delay', async () => {
  const net = new FakeNet(true)
  const { engine } = engineOf(net, { maxDelayMs: 60_000 })
  const first = engine.score(rowsFrom(0, 1), {})
  await turn()
  const held = codeOf(engine.score(rowsFrom(1, 1), {}))
  net.finish()
  await first
  await turn()
  await engine.close(new DroverError('E_CLOSED', 'closed'))
  assert.is(await held, 'E_CLOSED')
})

test('an error of the device ends the calls of its step and nothing else', async () => {
  const net = new FakeNet(true)
  const { engine } = engineOf(net)
  net.runSync = () => {
    throw new Error('lightning')
  }
  const struck = codeOf(engine.score(rowsFrom(0, 1), {}))
  await turn()
  const next = engine.score(rowsFrom(1, 1), {})
  net.finish()
  assert.is(await struck, 'E_INTERNAL')
  net.runSync = FakeNet.prototype.runSync
  await turn()
  net.finish()
  assert.equal([...(await next)], [2])
})

test('memory that a step does not get ends its calls and nothing else', async () => {
  const net = new FakeNet()
  const { engine } = engineOf(net)
  const refuse = (): never => {
    throw new RangeError('Array buffer allocation failed')
  }
  const [plain] = rowsFrom(0, 1).bags as [OwnRequest['bags'][number]]
  const large: OwnRequest = {
    ...rowsFrom(0, 1),
    bags: [Object.defineProperty({ ...plain }, 'indices', { get: refuse })],
  }
  const merging = [engine.score(large, {}), engine.score(rowsFrom(1, 1), {})].map(codeOf)
  assert.equal(await Promise.all(merging), ['E_MEMORY', 'E_MEMORY'])
  net.runSync = (merged) => {
    const scored = FakeNet.prototype.runSync.call(net, merged)
    return { ...scored, scores: Object.assign(scored.scores, { slice: refuse }) }
  }
  const answering = [1, 2].map((i) => codeOf(engine.score(rowsFrom(i, 1), {})))
  assert.equal(await Promise.all(answering), ['E_MEMORY', 'E_MEMORY'])
  net.runSync = FakeNet.prototype.runSync
  assert.equal([...(await engine.score(rowsFrom(3, 2), {}))], scoresFrom(3, 2))
  assert.is(engine.inFlight, 0)
})

test('no rows at all are answered at once; synchronous calls are cut as well', async () => {
  const net = new FakeNet()
  const { engine, stats } = engineOf(net)
  assert.is((await engine.score(rowsFrom(0, 0), {})).length, 0)
  assert.is(engine.scoreSync(rowsFrom(0, 0)).length, 0)
  assert.equal([...engine.scoreSync(rowsFrom(0, 21))], scoresFrom(0, 21))
  const { requests, rows, latencyMs } = stats.report(0)
  assert.equal([requests, rows, latencyMs.count], [3, 21, 3])
  const bad = rowsFrom(0, 20)
  ;(bad.bags[0] as { indices: Int32Array }).indices[13] = 1000
  assert.throws(
    () => engine.scoreSync(bad),
    (error: DroverError) => error.code === 'E_RANGE' && error.field === 'request.sparse[0].indices[13]',
  )
  assert.is(net.steps.length, 0)
  net.runSync = () => {
    throw new Error('lightning')
  }
  assert.throws(() => engine.scoreSync(bad), /lightning/)
})

test.run()
