// drover's part of recommend.mjs: embedding-bags as programs of one op, whole models as loadRecommender gives them. Engine
// `drover` copies tables into huge pages, `drover-mapped` reads them from the mapped file.
import { readFileSync, statSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { checkOf, measureAsync, measureSync, readInt32, requestsOf } from './recommend-measure.mjs'

const task = JSON.parse(process.argv[2])
const require = createRequire(import.meta.url)
const { version } = require('../../dist/version.js')
const isMapped = task.engine === 'drover-mapped'
const { threads, milliseconds } = task

/** Of what pages the copies of so many bytes consist. */
const pagesOf = (bytes) => {
  if (isMapped) return 'mapped 4 KiB'
  const kib = /^AnonHugePages:\s+(\d+)/m.exec(readFileSync('/proc/self/smaps_rollup', 'utf8'))?.[1] ?? 0
  return kib * 1024 > bytes / 2 ? '2 MiB' : '4 KiB'
}

const runBags = () => {
  const { cpuDevice } = require('../../dist/device/cpu.js')
  const { ProgramBuilder } = require('../../dist/program/builder.js')
  const { bagStep } = require('../../dist/program/step.js')
  const dtype = { f32: 'f32', f16: 'f16', int8: 'i8_rowwise', int4: 'i4_rowwise' }[task.format]
  const { dim, rows, table: path } = task
  const shapes = task.cells.map((cell) => {
    const [batch, pooling, distribution, cache] = cell.split('-')
    return { cell, batch: Number(batch), pooling: Number(pooling), distribution, cache }
  })
  const builder = new ProgramBuilder(cpuDevice.layout, {
    maxRows: Math.max(...shapes.map(({ batch }) => batch)),
    maxOutputs: 0,
    maxSequences: 0,
    maxPages: 0,
    vocabulary: 0,
    activations: 'auto',
  })
  const table = { name: 'table', dtype, rows, cols: dim, region: 0, offset: 0 }
  const placement = isMapped ? 'mapped' : 'copied'
  builder.output('pooled', builder.embeddingBag('pooled', [table], { pooling: 'sum', placement }))
  const program = builder.finish()
  const { size: bytes } = statSync(path)
  const loaded = cpuDevice.loadSync(program, [{ path, bytes }], { threads })
  const pooled = program.outputs.get('pooled')
  const streams = Object.fromEntries(Object.entries(task.streams).map(([name, file]) => [name, readInt32(file)]))
  const offsetsOf = (batch, pooling) => Int32Array.from({ length: batch + 1 }, (_, i) => i * pooling)
  // A mapped file has all its pages before anything is timed, as copies have.
  if (isMapped && streams.uniform !== undefined) {
    const offsets = offsetsOf(1, 2 ** 16)
    for (let at = 0; at + 2 ** 16 <= streams.uniform.length; at += 2 ** 16)
      loaded.runSync(bagStep(1, [{ indices: streams.uniform.subarray(at, at + 2 ** 16), offsets }]))
  }
  const at = Object.fromEntries(Object.keys(streams).map((name) => [name, 0]))
  const results = {}
  for (const { cell, batch, pooling, distribution, cache } of shapes) {
    const stream = streams[distribution]
    const count = batch * pooling
    const offsets = offsetsOf(batch, pooling)
    const fixed = stream.subarray(0, count)
    const next = () => {
      if (cache === 'hot') return fixed
      const start = at[distribution] + count <= stream.length ? at[distribution] : 0
      at[distribution] = start + count
      return stream.subarray(start, start + count)
    }
    const step = (indices) => loaded.runSync(bagStep(batch, [{ indices, offsets }]))
    // The first cell of a process pays for what the compiler learns of all.
    if (cell === shapes[0].cell) measureSync(100, () => fixed, step)
    step(fixed)
    const check = checkOf(loaded.read(pooled, 0, batch))
    const measured = measureSync(milliseconds, next, step)
    // With the outputs copied into an array of JavaScript's.
    const read = measureSync(milliseconds / 4, next, (indices) => {
      step(indices)
      loaded.read(pooled, 0, batch)
    })
    results[cell] = { ...measured, readSeconds: read.seconds, check }
  }
  return { pages: pagesOf(bytes), results }
}

const runModel = async () => {
  const { loadRecommender } = require('../../dist/index.js')
  const before = process.hrtime.bigint()
  const model = await loadRecommender(task.folder, { threads, tables: isMapped ? 'mapped' : 'prepared' })
  const load = Number(process.hrtime.bigint() - before) / 1e9
  const { lookups } = JSON.parse(readFileSync(join(task.folder, 'config.json'), 'utf8'))
  const requests = requestsOf(task, lookups)
  const results = {}
  for (const cell of task.cells) {
    const batch = Number(cell)
    const check = checkOf(await model.score(requests(batch)()))
    const measured = await measureAsync(milliseconds, requests(batch), (request) => model.score(request))
    const sync = measureSync(milliseconds, requests(batch), (request) => model.scoreSync(request))
    results[cell] = { ...measured, syncSeconds: sync.seconds, syncP99: sync.p99, check }
  }
  const { size } = statSync(join(task.folder, 'model.safetensors'))
  return { load, memory: model.memoryUsage(), pages: pagesOf(size), results }
}

const result = task.kind === 'bag' ? runBags() : await runModel()
console.log(JSON.stringify({ version, ...result }))
process.exit(0)
