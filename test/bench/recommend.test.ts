/** What the recommenders' side-by-side benchmark plans, writes and makes of its results, on made-up ones. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type BagCell, bagChart, bytesPerLookup } from '../../bench/recommend-chart.js'
import { root } from '../support.js'

interface Group {
  kind: 'bag' | 'model'
  dim?: number
  model?: string
  format: string
  threads: number
  cells: string[]
}
type Options = Record<string, string>
type Runs = Record<string, object>
interface Row extends BagCell {
  peer: string
  seconds: number
  peerSeconds: number
  rounds: number
  share?: number
  isVoid?: boolean
}
interface ModelRow {
  samplesPerSecond: number
  ratio: number
  peer: string
  syncSeconds?: number
  peers: Record<string, { ratio: number }>
  floatRatio?: number
}
interface Plan {
  subsets: Record<string, Options>
  engineNames: string[]
  rowBytesOf: Record<string, (dim: number) => number>
  groupsOf(options: Options): Group[]
  keyOf(group: Group, engine: string, round: number): string
  turnsOf(group: Group, engines: string[], round: number): string[]
  missingCells(runs: Runs, group: Group, engine: string, round: number): string[]
  merge(known: object | undefined, group: Group, engine: string, round: number, result: object): object
}
interface Tables {
  disagreements(runs: Runs): string[]
  bagRows(runs: Runs, ours?: string): Row[]
  modelRows(runs: Runs, ours?: string): ModelRow[]
  judgeBags(
    rows: Row[],
    isa: string,
  ): { format: string; target: number; least: number; plain: { least?: number }; cells: number }[]
  bagMarkdown(rows: Row[], versions: Record<string, string>): string[]
  modelMarkdown(rows: ModelRow[], versions: Record<string, string>): string[]
  reportOf(
    state: { runs: Runs; machine: object; commit: string },
    rows: number,
  ): { tables: { bags: Row[]; models: ModelRow[] }; markdown: string[] }
}
interface Data {
  models: Record<string, object>
  indicesOf(distribution: string, rows: number, count: number): Int32Array
  writeTable(path: string, format: string, rows: number, dim: number): void
  writeModel(folder: string, name: string, format: string): void
}

const folder = join(root, 'bench', 'peers')
const load = async <T>(name: string): Promise<T> => (await import(join(folder, name))) as T
const plan = (): Promise<Plan> => load('recommend-plan.mjs')
const tables = (): Promise<Tables> => load('recommend-tables.mjs')
const data = (): Promise<Data> => load('recommend-data.mjs')

const bag: Group = { kind: 'bag', dim: 64, format: 'int8', threads: 1, cells: [] }
const cell = '32-20-uniform-cold'

test('the whole grid has every cell once', async () => {
  const { groupsOf, subsets, keyOf } = await plan()
  const groups = groupsOf(subsets['all'] as Options)
  const bags = groups.filter(({ kind }) => kind === 'bag')
  assert.is(bags.length, 2 * 4 * 2)
  for (const { cells } of bags) {
    assert.is(cells.length, 4 * 3 * 2 * 2)
    assert.is(new Set(cells).size, cells.length)
  }
  assert.is(groups.length - bags.length, 3 * 2 * 2)
  assert.is(new Set(groups.map((group) => keyOf(group, 'drover', 0))).size, groups.length)
})

test('every subset names what there is', async () => {
  const { groupsOf, subsets, engineNames } = await plan()
  const { models } = await data()
  assert.ok('twenty' in subsets)
  for (const options of Object.values(subsets)) {
    assert.equal(Object.keys(options), Object.keys(subsets['all'] as Options))
    assert.ok(groupsOf(options).length > 0)
    for (const engine of (options['engines'] as string).split(',')) assert.ok(engineNames.includes(engine), engine)
    for (const model of (options['models'] as string).split(',').filter(Boolean)) assert.ok(model in models, model)
  }
})

test('engines take turns, and only at what they can run', async () => {
  const { turnsOf } = await plan()
  const engines = ['drover', 'torch', 'fbgemm', 'onnxruntime']
  assert.equal(turnsOf(bag, engines, 0), ['drover', 'torch', 'fbgemm'])
  assert.equal(turnsOf(bag, engines, 1), ['fbgemm', 'torch', 'drover'])
  const model: Group = { kind: 'model', model: 'dlrm', format: 'f32', threads: 1, cells: ['1'] }
  assert.equal(turnsOf(model, engines, 0), ['drover', 'torch', 'onnxruntime'])
  assert.equal(turnsOf({ ...model, format: 'int8' }, engines, 0), ['drover', 'torch'])
})

test('a run goes on where it stopped: cells that are there are not measured again, and new ones join them', async () => {
  const { missingCells, merge, keyOf } = await plan()
  const first = { ...bag, cells: ['a', 'b'] }
  const runs: Runs = {}
  assert.equal(missingCells(runs, first, 'torch', 0), ['a', 'b'])
  const key = keyOf(first, 'torch', 0)
  runs[key] = merge(undefined, first, 'torch', 0, { version: '1', results: { a: { seconds: 1 } } })
  assert.equal(missingCells(runs, first, 'torch', 0), ['b'])
  assert.equal(missingCells(runs, first, 'torch', 1), ['a', 'b'])
  assert.equal(missingCells(runs, first, 'drover', 0), ['a', 'b'])
  runs[key] = merge(runs[key], first, 'torch', 0, { version: '1', results: { b: { seconds: 2 } } })
  assert.equal(missingCells(runs, first, 'torch', 0), [])
  assert.equal((runs[key] as { results: object }).results, { a: { seconds: 1 }, b: { seconds: 2 } })
})

const bagRun = (engine: string, seconds: number, more: object = {}) => ({
  ...{ kind: 'bag', dim: 64, format: 'int8', threads: 1, engine, round: 0 },
  results: { [cell]: { seconds, p99: 2 * seconds, calls: 9, check: 1 } },
  ...more,
})
const gather = (rowsPerSecond: number) => ({
  ...{ kind: 'gather', dim: 64, format: 'int8', threads: 1, round: 0 },
  ...{ rowsPerSecond, pages: '2 MiB' },
})

test('a ratio is beside the best peer of its round, the share beside the best gather loop', async () => {
  const { bagRows, bagMarkdown } = await tables()
  const runs = {
    a: bagRun('drover', 4e-6),
    b: bagRun('torch', 1e-5),
    c: bagRun('fbgemm', 3e-4),
    d: gather(100e6),
    e: gather(200e6),
  }
  const [row] = bagRows(runs) as [Row]
  assert.is(row.peer, 'torch')
  assert.ok(Math.abs(row.ratio - 2.5) < 1e-9)
  assert.ok(Math.abs(row.lookupsPerSecond - 160e6) < 1)
  assert.ok(Math.abs((row.share as number) - 0.8) < 1e-9)
  assert.is(row.isVoid, false)
  const text = bagMarkdown([row], { torch: 'torch 2' }).join('\n')
  assert.match(
    text,
    /\| int8 × 64 \| 1 \| 32 \| 20 \| uniform \| cold \| 4\.0 \| {2}\| 160 \| 10\.0 \| torch 2 \| \*\*2\.50\*\* \| {2}\| 80 % \(2 MiB pages\) \|/,
  )
})

test('a ceiling that any kernel passes is void, a peer included; where caches help there is none', async () => {
  const { bagRows, bagMarkdown } = await tables()
  const [passed] = bagRows({ a: bagRun('drover', 4e-6), b: bagRun('torch', 1e-5), d: gather(150e6) }) as [Row]
  assert.is(passed.isVoid, true)
  assert.match(bagMarkdown([passed], {})[2] as string, /ceiling void/)
  const [slower] = bagRows({ a: bagRun('drover', 2e-5), b: bagRun('torch', 4e-6), d: gather(150e6) }) as [Row]
  assert.is(slower.isVoid, true)
  const results = { '32-20-zipf-cold': { seconds: 1e-6, p99: 1e-6 }, '32-1-uniform-cold': { seconds: 1e-6, p99: 1e-6 } }
  const rows = bagRows({ a: bagRun('drover', 1, { results }), b: bagRun('torch', 1, { results }), d: gather(1) })
  assert.equal(
    rows.map(({ share }) => share),
    [undefined, undefined],
  )
})

test('the median over rounds; a round that lacks a side does not count', async () => {
  const { bagRows } = await tables()
  const times = [
    [1, 2],
    [1, 5],
    [1, 3],
  ] as const
  const runs: Runs = { alone: bagRun('drover', 1, { round: 3 }) }
  times.forEach(([ours, theirs], round) => {
    runs[`a${round}`] = bagRun('drover', ours, { round })
    runs[`b${round}`] = bagRun('torch', theirs, { round })
  })
  const [row] = bagRows(runs) as [Row]
  assert.equal([row.ratio, row.rounds], [3, 3])
  assert.equal(bagRows(runs, 'drover-mapped'), [])
})

test('outputs that differ are told, rounding is not', async () => {
  const { disagreements } = await tables()
  const with_ = (engine: string, check: number) => bagRun(engine, 1, { results: { [cell]: { seconds: 1, check } } })
  assert.equal(disagreements({ a: with_('drover', 1), b: with_('torch', 1.0005) }), [])
  const wrong = disagreements({ a: with_('drover', 1), b: with_('torch', 1.01), c: with_('fbgemm', Number.NaN) })
  assert.is(wrong.length, 2)
  assert.match(wrong[0] as string, /bag 64 int8 32-20-uniform-cold: drover 1, torch 1\.01/)
})

test('what is judged is the least ratio of the cells that a target speaks of', async () => {
  const { judgeBags } = await tables()
  const row = (pooling: number, ratio: number, more: object = {}): Row =>
    ({
      ...{ dim: 64, format: 'int8', threads: 1, batch: 32, distribution: 'uniform', cache: 'cold', pooling, ratio },
      ...more,
    }) as Row
  const rows = [row(20, 3), row(80, 2.6), row(1, 1.1), row(20, 1, { threads: 2 }), row(20, 1, { cache: 'hot' })]
  const [judged] = judgeBags(rows, 'avx512')
  assert.equal([judged?.format, judged?.target, judged?.least, judged?.cells], ['int8', 2.5, 2.6, 2])
  assert.is(judgeBags(rows, 'avx2')[0]?.target, 1.8)
})

test('a peer counts with the number of threads that suits it best, up to ours', async () => {
  const { bagRows } = await tables()
  const runs = {
    a: bagRun('drover', 1, { threads: 1 }),
    b: bagRun('torch', 2, { threads: 1 }),
    c: bagRun('drover', 0.5, { threads: 2 }),
    d: bagRun('torch', 9, { threads: 2 }),
  }
  assert.equal(
    bagRows(runs).map(({ threads, ratio }) => [threads, ratio]),
    [
      [1, 2],
      [2, 4],
    ],
  )
})

test('whole models: samples per second and latency beside every peer', async () => {
  const { modelRows, modelMarkdown } = await tables()
  const run = (engine: string, format: string, seconds: number, more: object = {}) => ({
    ...{ kind: 'model', model: 'dlrm', format, threads: 2, engine, round: 0 },
    results: { '128': { seconds, p99: seconds, check: 0.5, ...more } },
  })
  const runs = {
    a: run('drover', 'f32', 1e-4, { syncSeconds: 9e-5 }),
    b: run('torch', 'f32', 5e-4),
    c: run('onnxruntime', 'f32', 3e-4),
    d: run('drover', 'int8', 5e-5),
    e: run('torch', 'int8', 4e-4),
  }
  const [row, narrow] = modelRows(runs) as [ModelRow, ModelRow]
  assert.equal([Math.round(row.samplesPerSecond), row.peer, row.syncSeconds], [1_280_000, 'onnxruntime', 9e-5])
  const near = (found: number | undefined, expected: number): void =>
    assert.ok(Math.abs((found ?? 0) - expected) < 1e-9, `${found}`)
  near(row.ratio, 3)
  near(row.peers['torch']?.ratio, 5)
  near(narrow.ratio, 8)
  near(narrow.floatRatio, 10)
  assert.is(narrow.syncSeconds, undefined)
  const [head, , first, second] = modelMarkdown([row, narrow], { torch: 'torch 2' }) as [string, string, string, string]
  assert.match(first, /\| dlrm \| f32 \| 2 \| 128 \| 100 \| 100 \| 90\.0 \| 1280000 \| 500 \| 500 \| \*\*5\.00\*\*/)
  assert.match(head, /torch 2 p50/)
  for (const line of [first, second]) assert.is(line.split('|').length, head.split('|').length)
})

test('the report says what stood beside what; nothing is compared when outputs differ', async () => {
  const { reportOf } = await tables()
  const machine = { cpu: 'A CPU', cpus: 2, isa: 'avx512', l3Bytes: 2 ** 25, node: 'v20' }
  const runs = {
    a: bagRun('drover', 4e-6, { pages: '2 MiB', version: '1' }),
    b: bagRun('torch', 1e-5, { pages: '2 MiB', version: '2' }),
    c: bagRun('torch-plain', 2e-5, { pages: '4 KiB', version: '2' }),
    d: gather(200e6),
  }
  const { markdown } = reportOf({ runs, machine, commit: 'abc' }, 4_000_000)
  const text = markdown.join('\n')
  assert.match(text, /drover 2 MiB, torch 2 MiB, torch-plain 4 KiB\./)
  assert.match(text, /^\| int8 \| 2\.5 \| 2\.50 \| 2\.50 \| 5\.00 \| 5\.00 \| 80 \| 80 \| 1 \|$/m)
  assert.not.match(text, /undefined|NaN|Whole models/)
  const results = { [cell]: { seconds: 1, p99: 1, check: 2 } }
  assert.throws(
    () => reportOf({ runs: { ...runs, b: bagRun('torch', 1, { results }) }, machine, commit: 'abc' }, 1),
    /engines give different outputs/,
  )
})

test('indices lie in their table, uniform ones everywhere, those of Zipf on few rows', async () => {
  const { indicesOf } = await data()
  const rows = 10_000
  const distinct = (distribution: string): number => {
    const indices = indicesOf(distribution, rows, 100_000)
    assert.ok(indices.every((index) => index >= 0 && index < rows))
    return new Set(indices).size
  }
  assert.ok(distinct('uniform') > 0.99 * rows)
  const counts = new Map<number, number>()
  for (const index of indicesOf('zipf', rows, 100_000)) counts.set(index, (counts.get(index) ?? 0) + 1)
  const most = [...counts.values()].sort((a, b) => b - a)
  const sum = Array.from({ length: rows }, (_, rank) => (rank + 1) ** -1.05).reduce((a, b) => a + b)
  assert.ok(Math.abs((most[0] as number) / 100_000 - 1 / sum) < 0.01)
  assert.ok(Math.abs((most[9] as number) / 100_000 - 10 ** -1.05 / sum) < 0.005)
  assert.equal(indicesOf('zipf', rows, 100), indicesOf('zipf', rows, 100))
})

test('tables and models have the sizes that their formats say', async () => {
  const { writeTable, writeModel } = await data()
  const { rowBytesOf } = await plan()
  const temporary = mkdtempSync(join(tmpdir(), 'drover-recommend-'))
  try {
    for (const format of ['f32', 'f16', 'int8', 'int4']) {
      const path = join(temporary, format)
      writeTable(path, format, 70_000, 8)
      const bytes = readFileSync(path)
      const rowBytes = (rowBytesOf[format] as (dim: number) => number)(8)
      assert.is(bytes.length, 70_000 * rowBytes)
      // From row 65,537 on they repeat.
      const again = bytes.subarray(65_537 * rowBytes)
      assert.ok(again.equals(bytes.subarray(0, again.length)))
    }
    writeModel(join(temporary, 'tiny'), 'tiny', 'int8')
    const bytes = readFileSync(join(temporary, 'tiny', 'model.safetensors'))
    const size = Number(bytes.readBigUInt64LE())
    assert.is((8 + size) % 64, 0)
    const header = JSON.parse(bytes.toString('utf8', 8, 8 + size))
    assert.equal(header['emb_l.0.weight'], { dtype: 'U8', shape: [500, 72], data_offsets: [0, 500 * 72] })
    const ends = Object.values(header).map((entry) => (entry as { data_offsets: [number, number] }).data_offsets[1])
    assert.is(8 + size + Math.max(...ends), bytes.length)
  } finally {
    rmSync(temporary, { recursive: true })
  }
})

test('the picture has a point per cell', () => {
  const cells = (['f32', 'f16', 'int8', 'int4'] as const).flatMap((format) =>
    ['cold', 'hot'].map(
      (cache): BagCell => ({
        ...{ dim: 64, format, threads: 1, batch: 32, pooling: 20, distribution: 'uniform', cache },
        ...{ lookupsPerSecond: 1e8, ratio: 2 },
      }),
    ),
  )
  assert.is(bytesPerLookup(cells[0] as BagCell), 256 + 4 + 260 / 20)
  const limits = { bufferBytes: 2e9, readBytesPerSecond: 22e9, f32PerSecond: 190e9, int8PerSecond: 1, bf16PerSecond: 1 }
  const svg = bagChart('A <CPU>', limits, cells)
  assert.is([...svg.matchAll(/class="point"/g)].length, cells.length)
  assert.match(svg, /int4 × 64, batch 32, pooling 20, uniform, hot: 100 M lookups\/s, 2\.00 × the best peer/)
  assert.not.match(svg, /NaN|undefined/)
})

test('help names the subsets, by way of bench:peers too; an unknown subset is refused', () => {
  const node = (...args: string[]) => spawnSync(process.execPath, args, { encoding: 'utf8' })
  const help = node(join(folder, 'run.mjs'), 'recommend', '--help')
  assert.is(help.status, 0, help.stderr)
  assert.match(help.stdout, /bench:peers -- recommend/)
  assert.match(help.stdout, /^\/\/ twenty: /m)
  const unknown = node(join(folder, 'recommend.mjs'), '--subset', 'none')
  assert.is(unknown.status, 1)
  assert.match(unknown.stdout, /^\/\/ twenty: /m, 'it says which there are')
})

test.run()
