/** AUC, log loss, normalised entropy and SQNR against numbers found by hand and by counting pairs. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { DroverError } from '../../lib/errors.js'
import { Pace } from '../../lib/format/file.js'
import { Distance, LogLoss, RankStatistic, relativeChange } from '../../lib/recommend/metrics.js'
import { randomSource } from '../support.js'

const aucOf = (scores: readonly number[], labels: readonly number[]): Promise<number> => {
  const statistic = new RankStatistic()
  statistic.add(Float32Array.from(scores), labels)
  return statistic.auc(new Pace(undefined, 'testing'))
}

/** Every pair is looked at. */
const countedAuc = (scores: readonly number[], labels: readonly number[]): number => {
  let halves = 0
  let pairs = 0
  for (const [i, a] of scores.entries()) {
    for (const [j, b] of scores.entries()) {
      if (labels[i] !== 1 || labels[j] !== 0) continue
      pairs++
      const [x, y] = [Math.fround(a), Math.fround(b)]
      halves += x > y ? 2 : x === y ? 1 : 0
    }
  }
  return halves / (2 * pairs)
}

const refusedWith = (code: string, body: () => unknown): void => {
  try {
    body()
  } catch (error) {
    assert.instance(error, DroverError)
    assert.is((error as DroverError).code, code)
    return
  }
  assert.unreachable(`${code} was expected`)
}

test('AUC by hand', async () => {
  assert.is(await aucOf([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]), 0.75)
  assert.is(await aucOf([0, 1], [0, 1]), 1)
  assert.is(await aucOf([0, 1], [1, 0]), 0)
  assert.is(await aucOf([0.5, 0.5, 0.5], [1, 0, 1]), 0.5, 'ties count half')
  assert.is(await aucOf([-0, 0], [1, 0]), 0.5, 'zeros of both signs are equal')
  assert.is(await aucOf([-3, -2, 2, -1], [0, 1, 1, 0]), 0.75, 'negative scores have an order too')
})

test('AUC as counting all pairs gives it, with ties, odd sizes and in parts', async () => {
  const random = randomSource(7)
  for (const [size, levels] of [
    [2, 2],
    [3, 3],
    [17, 4],
    [101, 7],
    [257, 1e9],
    [640, 20],
    [999, 300],
  ] as const) {
    const scores = Array.from({ length: size }, () => (Math.floor(random() * levels) - levels / 2) / 8)
    const labels = scores.map((_, i) => (i === 0 ? 1 : i === 1 ? 0 : random() < 0.3 ? 1 : 0))
    const expected = countedAuc(scores, labels)
    assert.is(await aucOf(scores, labels), expected, `${size} scores, ${levels} levels`)
    const parts = new RankStatistic()
    for (let at = 0; at < size; at += 13) {
      parts.add(Float32Array.from(scores.slice(at, at + 13)), labels.slice(at, at + 13))
    }
    assert.is(await parts.auc(), expected, 'in parts')
  }
})

test('AUC of many rows', async () => {
  // Scores 0 to n - 1 shuffled by a multiplication; the positives are the upper half but for the lowest of it.
  const n = 100_003
  const scores = Array.from({ length: n }, (_, i) => (i * 7919) % n)
  const half = Math.floor(n / 2)
  const labels = scores.map((score) => (score > half !== (score === half + 1 || score === 0) ? 1 : 0))
  const positives = labels.filter((label) => label === 1).length
  // The positive of score 0 loses against all negatives; the negative of score half + 1 wins against that one alone.
  const negatives = n - positives
  assert.is(await aucOf(scores, labels), ((positives - 1) * negatives) / (positives * negatives))
})

test('what has no AUC and no entropy is refused', async () => {
  for (const labels of [[], [1], [0, 0, 0]]) {
    const statistic = new RankStatistic()
    statistic.add(new Float32Array(labels.length), labels)
    const error = await statistic.auc().then(
      () => undefined,
      (reason: DroverError) => reason,
    )
    assert.is(error?.code, 'E_RANGE')
    assert.ok(error?.hint)
    const loss = new LogLoss()
    loss.add(new Float32Array(labels.length), labels)
    refusedWith('E_RANGE', () => loss.normalizedEntropy())
  }
  refusedWith('E_RANGE', () => new RankStatistic().add(Float32Array.of(Number.NaN), [1]))
  refusedWith('E_RANGE', () => new LogLoss().add([Number.POSITIVE_INFINITY], [1]))
  refusedWith('E_RANGE', () => new LogLoss().add([0], [2]))
  refusedWith('E_SHAPE', () => new LogLoss().add([0, 1], [1]))
})

test('log loss and normalised entropy by hand', () => {
  const logit = (p: number): number => Math.log(p / (1 - p))
  const loss = new LogLoss()
  loss.add([logit(0.9), logit(0.2)], [1, 0])
  loss.add([logit(0.4)], [1])
  const expected = -(Math.log(0.9) + Math.log(0.8) + Math.log(0.4)) / 3
  assert.ok(Math.abs(loss.mean - expected) < 1e-15)
  const entropy = -((2 / 3) * Math.log(2 / 3) + (1 / 3) * Math.log(1 / 3))
  assert.ok(Math.abs(loss.normalizedEntropy() - expected / entropy) < 1e-15)
  assert.is(loss.rows, 3)
  assert.is(loss.positives, 2)

  const base = new LogLoss()
  base.add(new Array(8).fill(logit(0.25)), [1, 1, 0, 0, 0, 0, 0, 0])
  assert.ok(Math.abs(base.normalizedEntropy() - 1) < 1e-15, 'the base rate alone has an entropy of 1')

  const sure = new LogLoss()
  sure.add([1000, -1000], [0, 1])
  assert.is(sure.mean, 1000, 'no overflow, no loss of what lies beyond 1')
  const clamped = new LogLoss(0.01)
  clamped.add([1000, -1000], [0, 0])
  assert.ok(Math.abs(clamped.mean + (Math.log(0.01) + Math.log(0.99)) / 2) < 1e-14)
})

test('relative changes, also of nothing', () => {
  assert.is(relativeChange(2, 1.5), -0.25)
  assert.is(relativeChange(0, 0), 0)
  assert.is(relativeChange(0, 1), Number.POSITIVE_INFINITY)
})

test('SQNR and the largest error by hand', () => {
  const distance = new Distance()
  distance.add([3, 4], [3, 4.5])
  distance.add([9, 0, 10, 9], [9, 0, 10, 9], 1, 3)
  assert.is(distance.sqnr, 10 * Math.log10(125 / 0.25))
  assert.is(distance.maxError, 0.5)
  assert.ok(distance.isFinite)
  const equal = new Distance()
  equal.add([1, 2], [1, 2])
  assert.is(equal.sqnr, Number.POSITIVE_INFINITY)
  assert.is(equal.maxError, 0)
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
    const broken = new Distance()
    broken.add([1, 2], [bad, 2])
    assert.not.ok(broken.isFinite)
  }
})

test.run()
