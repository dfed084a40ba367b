/**
 * Tokens per second against context: one decoded token, and a chunk of a prompt, behind 512 to 131,072 positions, for a
 * model of the shape of Llama 3.2 1B with made-up Q4_K weights and each number format of the cache. One prefill fills
 * the first pages; the others are copies of them, which attention cannot tell from an hour of prefill.
 *
 *   npm run bench:context -- [--threads=N] [--contexts=512,2048,…] [--kv=f16,q8_0,…]
 *
 * Saves bench/results/context-<isa>-<threads>.json and .svg when all contexts and formats were measured.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { join } from 'node:path'
import { cpu, cpuDevice } from '../lib/device/cpu.js'
import { measureLimits } from '../lib/device/limits.js'
import { quantize } from '../lib/kernels.js'
import { buildLlama, huggingFaceNames, type LlamaConfig } from '../lib/model/llama.js'
import type { WeightSource } from '../lib/program/builder.js'
import { type KvType, kvTypeNames, kvTypes, pagePositions, type RegionSource } from '../lib/program/program.js'
import type { Step } from '../lib/program/step.js'
import { rowBytes } from '../lib/tensor.js'
import { type ContextPoint, contextChart } from './context-chart.js'

const chunk = 512
const vocabulary = 128256
const config: LlamaConfig = {
  file: 'made up',
  hidden: 2048,
  intermediate: 8192,
  layers: 16,
  heads: 32,
  kvHeads: 8,
  headDim: 64,
  vocabulary,
  normEps: 1e-5,
  contextLength: 131072,
  tied: true,
  attentionBias: false,
  mlpBias: false,
  ropeFrequencies: Float32Array.from({ length: 32 }, (_, i) => 500000 ** (-i / 32)),
  ropeLayout: 'half-split',
}

const argument = (name: string): string | undefined =>
  process.argv.find((given) => given.startsWith(`--${name}=`))?.slice(name.length + 3)
const threads = Number(argument('threads') ?? 0)
const contexts = (argument('contexts') ?? '512,2048,8192,32768,131072').split(',').map(Number)
const formats = (argument('kv') ?? kvTypeNames.join(',')).split(',') as KvType[]
if (!contexts.every((one) => Number.isInteger(one) && one >= chunk && one <= config.contextLength))
  throw new Error(`contexts are whole numbers from ${chunk} to ${config.contextLength}`)
if (!formats.every((one) => kvTypeNames.includes(one))) throw new Error(`formats are ${kvTypeNames.join(', ')}`)

/** Matrices one after another in region 0, all vectors the same ones in region 1, frequencies in region 2. */
let matrixBytes = 0
const placed = new Map<string, WeightSource>()
const weights = (name: string, rows: number, cols: number): WeightSource => {
  const known = placed.get(name)
  if (known !== undefined) return known
  const vector = rows === 1
  const weight: WeightSource = vector
    ? { name, dtype: 'f32', rows, cols, region: 1, offset: 0 }
    : { name, dtype: 'q4_k', rows, cols, region: 0, offset: matrixBytes }
  if (!vector) matrixBytes += rowBytes('q4_k', cols) * rows
  placed.set(name, weight)
  return weight
}

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1] as number

const measureFormat = async (kvType: KvType, regions: (bytes: number) => RegionSource[]): Promise<ContextPoint[]> => {
  const pages = Math.max(...contexts) / pagePositions
  const program = buildLlama(cpuDevice.layout, config, huggingFaceNames, weights, {
    maxRows: chunk,
    maxOutputs: 1,
    maxSequences: 1,
    maxPages: Math.ceil(pages),
    kvType: kvTypes[kvType],
    kvPages: Math.ceil(pages),
    activations: 'auto',
    candidates: 0,
    ropeRegion: 2,
  })
  const loaded = await cpuDevice.load(program, regions(matrixBytes), threads === 0 ? {} : { threads })
  const endOp = program.ops.findIndex(({ op }) => op === 'token_nll' || op.startsWith('sample'))
  const step = (rows: number, end: number): Step => ({
    tokens: Uint32Array.from({ length: rows }, (_, i) => (i * 7919 + 13) % vocabulary),
    positions: Uint32Array.from({ length: rows }, (_, i) => end - rows + i),
    sequences: [
      {
        rows,
        cacheStart: end - rows,
        pages: Uint32Array.from({ length: Math.ceil(end / pagePositions) }, (_, i) => i),
      },
    ],
    outputRows: Uint32Array.of(rows - 1),
    firstOp: 0,
    endOp: endOp < 0 ? program.ops.length : endOp,
  })
  const secondsOf = async (rows: number, end: number, least: number): Promise<number> => {
    const times: number[] = []
    for (let total = 0; times.length < least || (total < 2 && times.length < 50); ) {
      const begin = process.hrtime.bigint()
      await loaded.run(step(rows, end))
      times.push(Number(process.hrtime.bigint() - begin) / 1e9)
      total += times[times.length - 1] as number
    }
    return median(times)
  }
  await loaded.run(step(chunk, chunk))
  const written = chunk / pagePositions
  for (let page = written; page < pages; page++) loaded.copyPage(page % written, page)
  const points: ContextPoint[] = []
  for (const context of contexts) {
    const decode = await secondsOf(1, context, 5)
    const prefill = await secondsOf(chunk, context, 3)
    points.push({ kvType, context, decodePerSecond: 1 / decode, prefillPerSecond: chunk / prefill })
    console.error(
      `${kvType}, ${context} positions: ${(1 / decode).toFixed(1)} tokens/s written, ${(chunk / prefill).toFixed(0)} read`,
    )
  }
  await loaded.close()
  return points
}

const main = async (): Promise<void> => {
  // Blocks as a quantiser makes them, so that numbers stay in range; which ones they are does not matter for time.
  const block = quantize(
    'q4_k',
    Float32Array.from({ length: 2048 }, (_, i) => Math.sin(i * 1.7) / 40),
    [1, 2048],
  )
  const ones = new Uint8Array(new Float32Array(config.hidden).fill(1).buffer)
  const frequencies = new Uint8Array(config.ropeFrequencies.buffer)
  let matrices: Uint8Array | undefined
  const regions = (bytes: number): RegionSource[] => {
    matrices ??= Buffer.alloc(bytes, block)
    return [{ data: matrices }, { data: ones }, { data: frequencies }]
  }
  const points: ContextPoint[] = []
  for (const kvType of formats) points.push(...(await measureFormat(kvType, regions)))
  const { readBytesPerSecond } = await measureLimits(threads)
  const { isa, threads: all } = cpu()
  const machine = `${cpus()[0]?.model}, ${isa}, ${threads || all} ${(threads || all) === 1 ? 'thread' : 'threads'}, Node ${process.version}`
  console.table(points)
  if (argument('contexts') !== undefined || argument('kv') !== undefined) return
  const results = join(__dirname, 'results')
  mkdirSync(results, { recursive: true })
  const name = join(results, `context-${isa}-${threads || all}`)
  writeFileSync(`${name}.json`, `${JSON.stringify({ machine, readBytesPerSecond, points }, null, 1)}\n`)
  writeFileSync(`${name}.svg`, contextChart(machine, points))
  console.error(`saved ${name}.json and .svg`)
}

void main()
