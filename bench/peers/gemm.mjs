// Linear layers of drover beside NumPy (OpenBLAS), PyTorch (MKL, oneDNN, FBGEMM) and onnxruntime (MLAS, MatMulNBits):
// a chain of layers with 4096 x 4096 weights, so many that no cache holds a noticeable part of them, for 1, 8, 32 and
// 512 rows. One process per engine and format, engine after engine, round after round.
//
//   npm run bench:gemm -- [--formats f32,f16,bf16,int8,int4] [--rows 1,8,32,512] [--threads 2] [--rounds 3]
//       [--engines numpy,torch,onnxruntime] [--out bench/results/gemm-peers] [--layer 512x256]
//
// --layer: instead of the chain one layer of so many inputs x outputs, in caches, called again and again: what a call, the
// way of its rows in and out, and packing them cost counts.
//
// Formats: f32; f16 weights, f32 activations; bf16 weights and activations; int8 with a scale per row of the weight and
// activations rounded as they come (a scale per row; the peers' is one per tensor); int4 with a scale per block of 32
// (drover q4_0). A ratio is the median over rounds of peer's time / drover's time.
import { spawn } from 'node:child_process'
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { availableParallelism, cpus } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { median } from './plan.mjs'
import { venvPython } from './venv.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const { values: options } = parseArgs({
  options: {
    formats: { type: 'string', default: 'f32,f16,bf16,int8,int4' },
    rows: { type: 'string', default: '1,8,32,512' },
    threads: { type: 'string', default: String(availableParallelism()) },
    rounds: { type: 'string', default: '3' },
    layer: { type: 'string', default: '' },
    help: { type: 'boolean', default: false },
    engines: { type: 'string', default: 'numpy,torch,onnxruntime' },
    out: { type: 'string', default: join(here, '..', 'results', 'gemm-peers') },
  },
})
if (options.help) {
  const source = readFileSync(fileURLToPath(import.meta.url), 'utf8')
  console.log(source.slice(0, source.indexOf('import ')))
  process.exit(0)
}
const list = (text) => text.split(',').filter(Boolean)
/** What each engine has a kernel for. */
const formatsOf = {
  drover: ['f32', 'f16', 'bf16', 'int8', 'int4'],
  numpy: ['f32'],
  torch: ['f32', 'f16', 'bf16', 'int8'],
  onnxruntime: ['f32', 'int8', 'int4'],
}
const packagesOf = { numpy: ['numpy'], torch: ['numpy', 'torch'], onnxruntime: ['numpy', 'onnx', 'onnxruntime'] }
const engines = list(options.engines)
for (const engine of engines) if (!(engine in packagesOf)) throw new Error(`there is no engine ${engine}`)
const threads = Number(options.threads)
const isOne = options.layer !== ''
const [inputs, outputs] = isOne ? options.layer.split('x').map(Number) : [4096, 4096]
if (!(inputs > 0 && outputs > 0)) throw new Error(`--layer is inputs x outputs, as in 512x256, not ${options.layer}`)
const { cpu } = createRequire(import.meta.url)('../../dist/device/cpu.js')
/** Of all weights of a chain: twice the last cache. */
const bytes = Math.max(2 ** 28, 2 * cpu().l3Bytes)

const runProcess = (engine, format) =>
  new Promise((resolve, reject) => {
    const layers = { inputs, outputs, bytes: isOne ? 1 : bytes }
    const task = JSON.stringify({ engine, format, rows: list(options.rows).map(Number), threads, ...layers })
    const [command, script] =
      engine === 'drover' ? [process.execPath, 'gemm-drover.mjs'] : [venvPython(...packagesOf[engine]), 'gemm_peers.py']
    // The libraries read their number of threads when they are loaded.
    const env = { ...process.env, OMP_NUM_THREADS: threads, OPENBLAS_NUM_THREADS: threads, MKL_NUM_THREADS: threads }
    const child = spawn(command, [join(here, script), task], { env, stdio: ['ignore', 'pipe', 'inherit'] })
    let out = ''
    child.stdout.on('data', (chunk) => (out += chunk))
    child.on('error', reject)
    child.on('close', (code) => {
      const line = out.trim().split('\n').pop()
      if (code === 0 && line?.startsWith('{')) resolve(JSON.parse(line))
      else reject(new Error(`${engine} ${format} ended with ${code}\n${out}`))
    })
  })

const runs = []
for (let round = 0; round < Number(options.rounds); round++) {
  for (const format of list(options.formats)) {
    const able = ['drover', ...engines].filter((engine) => formatsOf[engine].includes(format))
    for (const engine of round % 2 === 0 ? able : able.reverse()) {
      const result = await runProcess(engine, format)
      runs.push({ round, engine, format, ...result })
      const shown = Object.entries(result.seconds).map(
        ([rows, seconds]) => `${rows}: ${(seconds * 1e6).toPrecision(3)}`,
      )
      console.error(`round ${round}  ${format}  ${engine}  µs per layer by rows: ${shown.join(', ')}`)
    }
  }
}

const secondsOf = (engine, format, rows) =>
  runs.filter((run) => run.engine === engine && run.format === format).map((run) => run.seconds[rows])
const cells = []
for (const format of list(options.formats))
  for (const rows of list(options.rows)) {
    const ours = secondsOf('drover', format, rows)
    const cell = { format, rows: Number(rows), droverMicroseconds: median(ours) * 1e6, ratios: {} }
    for (const engine of engines) {
      const theirs = secondsOf(engine, format, rows)
      if (theirs.length > 0) cell.ratios[engine] = median(theirs.map((seconds, round) => seconds / ours[round]))
    }
    cells.push(cell)
  }
const versions = Object.fromEntries(runs.map(({ engine, version }) => [engine, version]))
const named = engines.map((engine) => `${engine} ${versions[engine] ?? ''}`)
const markdown = [
  `${cpus()[0]?.model}, ${threads} threads, drover ${versions.drover}, ${isOne ? `one layer of ${inputs} x ${outputs} in caches` : 'layers of 4096 x 4096 from memory'}. Peer's time / drover's, median of ${options.rounds} rounds.`,
  '',
  `| format | rows | drover, µs | ${named.join(' | ')} |`,
  `|---|---|---|${engines.map(() => '---|').join('')}`,
  ...cells.map(({ format, rows, droverMicroseconds, ratios }) => {
    const shown = engines.map((engine) => ratios[engine]?.toFixed(2) ?? '')
    return `| ${format} | ${rows} | ${Number(droverMicroseconds.toPrecision(3))} | ${shown.join(' | ')} |`
  }),
  '',
].join('\n')
mkdirSync(dirname(options.out), { recursive: true })
for (const [extension, content] of [
  ['json', `${JSON.stringify({ threads, versions, cells, runs }, null, 1)}\n`],
  ['md', markdown],
]) {
  writeFileSync(`${options.out}.${extension}.tmp`, content)
  renameSync(`${options.out}.${extension}.tmp`, `${options.out}.${extension}`)
}
console.log(markdown)
