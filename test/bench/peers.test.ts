/** What the side-by-side benchmark plans and makes of its results, on made-up ones. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { root } from '../support.js'

interface Row {
  mix: string
  threads: number
  what: string
  drover: number
  peer: number
  ratio: number
  rounds: number
  gbps?: number
  gops?: number
  share?: number
}

interface Cost {
  layerOperations: number
  attentionOperations(tokens: number): number
  cacheBytes(positions: number): number
  weightBytes(mix: string): number
}

interface Plan {
  subsets: Record<string, { mixes: string; threads: string; rounds: string; want: string }>
  processesOf(wants: readonly string[]): { want: string[]; sequences: number; contextLength: number }[]
  tableOf(runs: Record<string, object>, peer: string, cost: Cost): Row[]
  markdownOf(rows: readonly Row[], peer: string): string[]
}

const folder = join(root, 'bench', 'peers')
const load = async <T>(name: string): Promise<T> => (await import(join(folder, name))) as T
const cost: Cost = {
  layerOperations: 2e9,
  attentionOperations: (tokens) => tokens * 1e6,
  cacheBytes: (positions) => positions * 1e6,
  weightBytes: () => 1e9,
}

test('every subset can be planned', async () => {
  const { subsets, processesOf } = await load<Plan>('plan.mjs')
  assert.ok('twenty' in subsets)
  for (const { want } of Object.values(subsets)) assert.ok(processesOf(want.split(',')).length > 0)
})

test('long contexts have a process of their own, so that batches need not hold them', async () => {
  const { processesOf } = await load<Plan>('plan.mjs')
  assert.equal(processesOf(['prompt-512', 'decode-64', 'batch-8']), [
    { want: ['prompt-512', 'decode-64', 'batch-8'], sequences: 8, contextLength: 640 },
  ])
  assert.equal(processesOf(['batch-32', 'decode-4096']), [
    { want: ['batch-32'], sequences: 32, contextLength: 144 },
    { want: ['decode-4096'], sequences: 1, contextLength: 4224 },
  ])
  assert.throws(() => processesOf(['prompt']), /prompt is none of/)
})

const run = (engine: string, threads: number, round: number, results: Record<string, number>) => ({
  engine,
  mix: 'Q4_0',
  threads,
  round,
  results,
})

test('ratios, and shares of the best ceilings', async () => {
  const { tableOf, markdownOf } = await load<Plan>('plan.mjs')
  const limits = { engine: 'limits', f32Gflops: 100, int8Gops: 400 }
  const runs = {
    a: run('drover', 1, 0, { 'decode-64': 10, load: 2 }),
    cached: run('drover', 1, 0, { 'load-cached': 0.25 }),
    b: run('peer', 1, 0, { 'decode-64': 8, load: 3 }),
    c: run('drover', 2, 0, { 'decode-64': 12, 'prompt-512': 100 }),
    d: run('peer', 2, 0, { 'decode-64': 5, 'prompt-512': 40 }),
    e: { ...limits, threads: 1, readGBps: 10 },
    f: { ...limits, threads: 1, readGBps: 20 },
    g: { ...limits, threads: 2, readGBps: 12 },
  }
  const rows = tableOf(runs, 'peer', cost)
  const row = (what: string, threads: number): Row => {
    const found = rows.find((one) => one.what === what && one.threads === threads)
    assert.ok(found, what)
    return found
  }
  assert.is(rows.length, 5)
  assert.is(row('load to first token, s', 1).ratio, 1.5)
  assert.is(row('load from a prepared cache, s', 1).ratio, 12, 'beside how the peer loads')
  assert.is(row('decode at 64', 1).ratio, 10 / 8)
  assert.is(row('decode at 64', 2).ratio, 12 / 8, 'the peer is better with one thread')
  assert.is(row('prompt 512', 2).ratio, 2.5)
  // Weights and the keys and values of 64 + 32 positions.
  assert.ok(Math.abs((row('decode at 64', 1).gbps ?? 0) - 10 * 1.096) < 1e-9)
  assert.ok(Math.abs((row('decode at 64', 1).share ?? 0) - (10 * 1.096) / 20) < 1e-9)
  // 512 tokens need 1024e9 / 400e9 + 0.512e9 / 100e9 seconds.
  assert.ok(Math.abs((row('prompt 512', 2).share ?? 0) - (2.56 + 0.00512) / 5.12) < 1e-9)
  const text = markdownOf(rows, 'peer 1').join('\n')
  assert.match(text, /\| Q4_0 \| 2 \| decode at 64 \| 12\.00 \| 8\.00 \| \*\*1\.50\*\* \| 13\.2 GB\/s, ceiling void \|/)
  assert.match(text, /\| Q4_0 \| 1 \| decode at 64 \| .* \| 11\.0 GB\/s, 55 % of read \|/)
})

test('a ratio is the median over rounds of those that both have run', async () => {
  const { tableOf } = await load<Plan>('plan.mjs')
  const pairs = [
    [10, 5],
    [9, 3],
    [8, 8],
  ] as const
  const runs: Record<string, object> = { alone: run('drover', 1, 3, { 'batch-8': 99 }) }
  pairs.forEach(([ours, theirs], round) => {
    runs[`ours${round}`] = run('drover', 1, round, { 'batch-8': ours })
    runs[`theirs${round}`] = run('peer', 1, round, { 'batch-8': theirs })
  })
  const [row] = tableOf(runs, 'peer', cost)
  assert.equal([row?.ratio, row?.rounds, row?.drover, row?.peer], [2, 3, 9, 5])
})

test('what a model costs', async () => {
  const { costs } = await load<{ costs(shape: string): Cost }>('model.mjs')
  const one = costs('1b')
  assert.is(one.layerOperations, 2 * 16 * (2048 * 2048 * 2 + 2 * 512 * 2048 + 3 * 2048 * 8192))
  assert.is(one.cacheBytes(1), 16 * 2 * 512 * 2)
  assert.is(one.attentionOperations(2), 2 * 16 * 2048 * (2 * 3))
  assert.is(one.weightBytes('F16'), one.layerOperations + 2 * 128256 * 2048)
  assert.ok(one.weightBytes('Q6_K') < one.weightBytes('Q8_0') && one.weightBytes('Q4_K_M') < one.weightBytes('Q6_K'))
})

test('help names the subsets, and an unknown one is refused', () => {
  const script = join(folder, 'run.mjs')
  const help = spawnSync(process.execPath, [script, '--help'], { encoding: 'utf8' })
  assert.is(help.status, 0, help.stderr)
  assert.match(help.stdout, /npm run bench:peers/)
  assert.match(help.stdout, /^\/\/ twenty: /m)
  assert.is(spawnSync(process.execPath, [script, '--subset', 'none'], { encoding: 'utf8' }).status, 1)
})

test.run()
