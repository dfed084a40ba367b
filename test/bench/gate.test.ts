/** The regression gate on made-up results. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { accept, best, compare, fails, sharesOf, tolerance } from '../../bench/gate.js'
import { type Block, markdownOf, reportOf } from '../../bench/report.js'

const limits = {
  bufferBytes: 2e9,
  readBytesPerSecond: 20e9,
  f32PerSecond: 200e9,
  int8PerSecond: 800e9,
  bf16PerSecond: 0,
}
const files = ['gemm.bench.ts']

const kinds = (saved: Record<string, number>, found: Record<string, number | undefined>): Record<string, string> =>
  Object.fromEntries(compare(saved, new Map(Object.entries(found)), files).map(({ key, kind }) => [key, kind]))

test('a case may lose as much as the tolerance says, and no more', () => {
  const saved = { 'gemm/a/1 row': 0.8, 'gemm/a/8 rows': 0.8, 'gemm/b/1 row': 0.8 }
  const found = {
    'gemm/a/1 row': 0.8 * (1 - tolerance) + 1e-9,
    'gemm/a/8 rows': 0.8 * (1 - tolerance) - 1e-9,
    'gemm/b/1 row': 0.8 * (1 + tolerance) + 1e-9,
  }
  assert.equal(kinds(saved, found), { 'gemm/a/1 row': 'kept', 'gemm/a/8 rows': 'worse', 'gemm/b/1 row': 'better' })
})

test('a case that has gone, or whose limit is void, fails; a new one does not', () => {
  const verdicts = compare(
    { 'gemm/a/1 row': 0.5, 'gemm/gone/1 row': 0.5, 'rows/x/y': 0.5 },
    new Map<string, number | undefined>([
      ['gemm/a/1 row', undefined],
      ['gemm/new/1 row', 0.4],
    ]),
    files,
  )
  assert.equal(
    verdicts.map(({ key, kind }) => [key, kind]),
    [
      ['gemm/a/1 row', 'void'],
      ['gemm/new/1 row', 'new'],
      ['gemm/gone/1 row', 'gone'],
    ],
  )
  assert.equal(verdicts.map(fails), [true, false, true], 'cases of files that did not run count for nothing')
})

test('of several attempts the best share counts, and any is better than none', () => {
  const first = new Map([
    ['a', 0.5],
    ['b', undefined],
    ['c', 0.7],
    ['d', undefined],
  ])
  const second = new Map([
    ['a', 0.6],
    ['b', 0.1],
    ['c', undefined],
    ['d', undefined],
  ])
  const expected = { a: 0.6, b: 0.1, c: 0.7, d: undefined }
  assert.equal(Object.fromEntries(best(first, second)), expected)
  assert.equal(Object.fromEntries(best(second, first)), expected)
})

test('accepting replaces the cases of the files that ran, and leaves void ones out', () => {
  const saved = { 'gemm/a/1 row': 0.5, 'gemm/old/1 row': 0.5, 'rows/x/y': 0.3 }
  const found = new Map<string, number | undefined>([
    ['gemm/b/1 row', 0.4],
    ['gemm/a/1 row', 0.6],
    ['gemm/c/1 row', undefined],
  ])
  assert.equal(accept(saved, found, files), { 'gemm/a/1 row': 0.6, 'gemm/b/1 row': 0.4, 'rows/x/y': 0.3 })
})

const block = (seconds: number, part: Partial<Block> = {}): Block => ({
  isa: 'avx512',
  threads: 2,
  limits,
  measured: [
    { family: 'integer layers', suite: 'q4', name: '1 row', seconds, bytes: 10e9, flops: 40e9, arithmetic: 'int8' },
  ],
  ...part,
})

test('shares are of the nearest limit, the best that the process has measured', () => {
  const report = reportOf([block(1), block(2, { limits: { ...limits, readBytesPerSecond: 25e9 } })])
  assert.is(report.limits?.readBytesPerSecond, 25e9)
  assert.equal(
    report.measured.map(({ share, bound, gbps, gflops }) => [share, bound, gbps, gflops]),
    [
      [0.4, 'memory', 10, 40],
      [0.2, 'memory', 5, 20],
    ],
  )
  const compute = reportOf([block(1, { measured: [{ ...block(1).measured[0]!, bytes: undefined, flops: 400e9 }] })])
  assert.equal([compute.measured[0]?.share, compute.measured[0]?.bound], [0.5, 'int8'])
})

test('a limit below what a kernel reached is void', () => {
  const report = reportOf([block(0.4)])
  assert.is(report.measured[0]?.isVoid, true)
  assert.equal([...sharesOf('gemm.bench.ts', report)], [['gemm/q4/1 row', undefined]])
  assert.match(markdownOf([report]), /\| q4 \| 1 row \| .* \| void \(1\.25\) \| memory \|/)
})

test('what has neither operations nor bytes has no share', () => {
  const measured = [{ family: 'x', suite: 'x', name: 'y', seconds: 1, items: '3 MB/s' }]
  const report = reportOf([{ isa: 'avx512', threads: 2, measured }])
  assert.is(sharesOf('tokenizer.bench.ts', report).size, 0)
  assert.match(markdownOf([report]), /\| x \| y \| 1000000\.0 \| 3 MB\/s \| {2}\| {2}\| {2}\|/)
  assert.throws(() => reportOf([]), /measured nothing/)
})

test.run()
