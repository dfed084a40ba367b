// Embedding-bags and whole recommenders of drover beside PyTorch (whose bags are FBGEMM's kernels), FBGEMM's
// table-batched operator and onnxruntime: the same tables, indices and threads, turn by turn in fresh processes.
//
//   npm run bench:peers -- recommend [--subset twenty] [--formats f32,f16,int8,int4] [--dims 64,128] [--batches 1,32,256,2048]
//       [--poolings 1,20,80] [--distributions uniform,zipf] [--caches cold,hot] [--models dlrm,dlrm-cached,dcnv2]
//       [--precisions f32,int8] [--modelBatches 1,128,2048] [--threads 1,2] [--rounds 3] [--milliseconds 250]
//       [--engines drover,drover-mapped,torch,torch-plain,fbgemm,onnxruntime] [--rows 4000000]
//       [--out bench/results/recommend] [--fresh]
//
// cold: every call has other indices, of a stream of 4M; hot: the same call again and again. drover runs a program of one
// op, whose output stays with it as a model's does; "with outputs read" copies it into an array, as PreparedTables of
// drover/kernels do. A ratio is the median over rounds of the best peer's median time by drover's. PyTorch gets huge pages
// for its tables (THP_MEM_ALLOC_ENABLE), which is better for it (torch-plain is without); results tell of all sides'
// pages. The gather rate is that of a plain loop with one load per cache line over rows of the same layout and stream,
// probed before every process; the best probe counts.
//
// Every finished process is saved at once: stop it when you like, the same command goes on where it stopped, and other
// subsets add to the same tables. Tables and models of the run lie in bench/peers/models, one at a time.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { cpus } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { models, streamSamples, writeIndices, writeModel, writeRequests, writeTable } from './recommend-data.mjs'
import {
  engineNames,
  groupsOf,
  keyOf,
  merge,
  missingCells,
  rowBytesOf,
  subsets,
  tableRows,
  turnsOf,
} from './recommend-plan.mjs'
import { reportOf } from './recommend-tables.mjs'
import { venvPython } from './venv.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const root = join(here, '..', '..')
const { values: given } = parseArgs({
  options: {
    subset: { type: 'string' },
    ...Object.fromEntries(Object.keys(subsets.all).map((name) => [name, { type: 'string' }])),
    rows: { type: 'string', default: String(tableRows) },
    out: { type: 'string', default: join(root, 'bench', 'results', 'recommend') },
    fresh: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
if (given.help || (given.subset !== undefined && !(given.subset in subsets))) {
  const source = readFileSync(fileURLToPath(import.meta.url), 'utf8').split('\n')
  const end = source.findIndex((line) => !line.startsWith('//'))
  console.log(source.slice(0, end).join('\n'))
  for (const [name, subset] of Object.entries(subsets)) console.log(`// ${name}: ${JSON.stringify(subset)}`)
  process.exit(given.help ? 0 : 1)
}
// A named subset stands for its options; those that are given beside it count.
const options = { ...subsets[given.subset ?? 'twenty'], ...given }
const engines = options.engines.split(',').filter(Boolean)
for (const engine of engines) if (!engineNames.includes(engine)) throw new Error(`there is no engine ${engine}`)
for (const model of options.models.split(',').filter(Boolean))
  if (!(model in models)) throw new Error(`there is no model ${model}`)
const rows = Number(options.rows)
const milliseconds = Number(options.milliseconds)
const rounds = Number(options.rounds)

const folder = process.env.DROVER_PEER_MODELS ?? join(here, 'models')
mkdirSync(folder, { recursive: true })
const stateFile = `${options.out}.json`
mkdirSync(dirname(stateFile), { recursive: true })
const state = !given.fresh && existsSync(stateFile) ? JSON.parse(readFileSync(stateFile, 'utf8')) : { runs: {} }
state.rows ??= rows
if (state.rows !== rows)
  throw new Error(`${stateFile} is about tables of ${state.rows} rows: give --fresh or another --out`)
const save = (path, content) => {
  writeFileSync(`${path}.tmp`, content)
  renameSync(`${path}.tmp`, path)
}
const saveState = () => save(stateFile, `${JSON.stringify(state, null, 1)}\n`)

const run = (command, args, env = {}) =>
  new Promise((resolve, reject) => {
    const child = spawn(command, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
    let out = ''
    let err = ''
    child.stdout.on('data', (chunk) => (out += chunk))
    child.stderr.on('data', (chunk) => (err += chunk))
    child.on('error', reject)
    child.on('close', (code) => {
      const line = out.trim().split('\n').pop()
      if (code === 0 && line?.startsWith('{')) resolve(JSON.parse(line))
      else reject(new Error(`${command} ${args[0]} ended with ${code}\n${out}\n${err}`))
    })
  })

const mustRun = (command, args) => {
  const { status, error } = spawnSync(command, args, { stdio: ['ignore', 'inherit', 'inherit'] })
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${error?.message ?? `ended with ${status}`}`)
}

// ---- what each engine needs, made once ----
const python = engines.some((engine) => /^torch|^fbgemm/.test(engine))
  ? venvPython('numpy', 'torch', 'fbgemm-gpu-cpu')
  : undefined
const gather = join(folder, 'recommend-gather')
const makeGather = () =>
  mustRun(process.env.CC ?? 'cc', ['-O2', '-march=native', '-pthread', '-o', gather, join(here, 'recommend-gather.c')])
const makeOnnx = (modelFolder) => {
  if (!existsSync(join(here, 'node_modules', 'onnxruntime-node')))
    mustRun('npm', ['install', '--prefix', here, '--ignore-scripts', '--no-audit', '--no-fund'])
  mustRun(venvPython('numpy', 'onnx'), [join(here, 'recommend_onnx.py'), modelFolder])
}

const commands = {
  drover: (task) => [process.execPath, [join(here, 'recommend-drover.mjs'), task]],
  'drover-mapped': (task) => [process.execPath, [join(here, 'recommend-drover.mjs'), task]],
  onnxruntime: (task) => [process.execPath, [join(here, 'recommend-onnx.mjs'), task]],
  torch: (task) => [python, [join(here, 'recommend_peers.py'), task]],
  'torch-plain': (task) => [python, [join(here, 'recommend_peers.py'), task]],
  fbgemm: (task) => [python, [join(here, 'recommend_peers.py'), task]],
}

const started = Date.now()
const minutes = () => ((Date.now() - started) / 60000).toFixed(1)

/** One engine's turn: the cells that are missing, in a process of its own. */
const runTurn = async (group, engine, round, place) => {
  const cells = missingCells(state.runs, group, engine, round)
  if (cells.length === 0) return
  const key = keyOf(group, engine, round)
  const task = JSON.stringify({ ...group, ...place, cells, engine, milliseconds })
  const [command, args] = commands[engine](task)
  // The libraries read their number of threads when they are loaded.
  const env = { OMP_NUM_THREADS: group.threads, MKL_NUM_THREADS: group.threads }
  if (engine !== 'torch-plain') env.THP_MEM_ALLOC_ENABLE = 1
  const result = await run(command, args, env)
  state.runs[key] = merge(state.runs[key], group, engine, round, result)
  saveState()
  const shown = cells.map((cell) => `${cell} ${(result.results[cell].seconds * 1e6).toPrecision(4)}`)
  console.error(`${minutes()} min  ${key}, ${result.pages ?? ''} pages, µs: ${shown.join(', ')}`)
}

const isMissing = (group, round) =>
  turnsOf(group, engines, round).some((engine) => missingCells(state.runs, group, engine, round).length > 0)

const streams = {}
const makeStreams = () => {
  for (const distribution of options.distributions.split(',').filter(Boolean)) {
    streams[distribution] = join(folder, `${distribution}-${rows}.i32`)
    writeIndices(streams[distribution], distribution, rows, 2 ** 22)
  }
}

const runBag = async (group, round) => {
  const { format, dim, threads } = group
  const rowBytes = rowBytesOf[format](dim)
  const table = join(folder, `bag-${format}-${dim}-${rows}.bin`)
  writeTable(table, format, rows, dim)
  for (const engine of turnsOf(group, engines, round)) {
    if (missingCells(state.runs, group, engine, round).length === 0) continue
    if (streams.uniform !== undefined) {
      const probe = await run(gather, [rows, rowBytes, threads, streams.uniform, 60].map(String))
      const key = `gather ${dim}/${format}/${threads}/${round}/${engine}`
      state.runs[key] = { kind: 'gather', dim, format, threads, round, ...probe }
      const rate = `${(probe.rowsPerSecond / 1e6).toFixed(0)} M rows/s, ${probe.bestAhead} ahead, ${probe.pages} pages`
      console.error(`${minutes()} min  ${key}: ${rate}`)
    }
    await runTurn(group, engine, round, { table, rows, rowBytes, streams })
  }
}

const runModel = async (group, round) => {
  const { model, format } = group
  const place = {
    folder: join(folder, `${model}-${format}`),
    requests: join(folder, `${model}-requests`),
    samples: streamSamples,
  }
  writeModel(place.folder, model, format)
  writeRequests(place.requests, model)
  const turns = turnsOf(group, engines, round)
  if (turns.includes('onnxruntime')) makeOnnx(place.folder)
  for (const engine of turns) await runTurn(group, engine, round, place)
}

/** What a table or model is kept for: its groups differ in threads only, and stand side by side. */
const dataOf = (group) =>
  group.kind === 'bag' ? `bag-${group.format}-${group.dim}-${rows}.bin` : `${group.model}-${group.format}`

const { cpu } = createRequire(import.meta.url)('../../dist/device/cpu.js')
const { isa, l3Bytes } = cpu()
state.machine = { cpu: cpus()[0]?.model, cpus: cpus().length, isa, l3Bytes, node: process.version }
state.commit = spawnSync('git', ['rev-parse', '--short', 'HEAD'], { cwd: root }).stdout.toString().trim()
const groups = groupsOf(options)
if (groups.some(({ kind }) => kind === 'bag')) {
  makeStreams()
  makeGather()
}
for (let round = 0; round < rounds; round++) {
  const wanted = groups.filter((group) => isMissing(group, round))
  for (const [i, group] of wanted.entries()) {
    await (group.kind === 'bag' ? runBag(group, round) : runModel(group, round))
    // Gigabytes each: gone when no group of this round needs them.
    const last = wanted[i + 1] === undefined || dataOf(wanted[i + 1]) !== dataOf(group)
    if (last) rmSync(join(folder, dataOf(group)), { recursive: true, force: true })
  }
}

// ---- the tables: all that the state holds ----
const { tables, markdown } = reportOf(state, rows)
state.tables = tables
saveState()
save(`${options.out}.md`, `${markdown.join('\n')}\n`)
console.log(markdown.join('\n'))
const { bags } = tables
if (bags.length > 0)
  mustRun(process.execPath, ['--import', 'tsx', join(root, 'bench', 'recommend-chart.ts'), stateFile])
const cells = [...bags, ...tables.models]
const worst = Math.min(...cells.map(({ ratio }) => ratio))
console.log(`\n${cells.length} cells, worst ratio ${worst.toFixed(2)}; saved ${stateFile}`)
