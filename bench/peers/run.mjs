// drover beside node-llama-cpp on the same synthetic files, turn by turn in fresh processes.
//
//   npm run bench:peers -- [--subset twenty] [--shape 1b|8b] [--mixes F16,Q8_0,Q4_0,Q4_K_M] [--threads 1,2] [--rounds 3]
//                          [--want prompt,decode,batch] [--out bench/results/peers] [--fresh]
//
// Every finished process is saved at once: stop it when you like, the same command goes on where it stopped.
// A cell's ratio is the median over rounds of drover / peer, the two having run one after the other.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { shapes, weightBytes, writeModel } from './model.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const root = join(here, '..', '..')
const { values: options } = parseArgs({
  options: {
    subset: { type: 'string' },
    shape: { type: 'string', default: '1b' },
    mixes: { type: 'string', default: 'F16,Q8_0,Q4_0,Q4_K_M' },
    threads: { type: 'string', default: '1,2' },
    rounds: { type: 'string', default: '3' },
    want: { type: 'string', default: 'prompt,decode,batch' },
    out: { type: 'string', default: join(root, 'bench', 'results', 'peers') },
    fresh: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
// Subsets with a name, so that a figure can say what it was part of.
const subsets = {
  twenty: { mixes: 'F16,Q8_0,Q4_0,Q4_K_M', threads: '1,2', rounds: '1' },
  q4: { mixes: 'Q4_K_M', threads: '1,2', rounds: '3' },
}
if (options.help || (options.subset && !subsets[options.subset])) {
  console.log(
    readFileSync(fileURLToPath(import.meta.url), 'utf8')
      .split('\n')
      .slice(0, 8)
      .join('\n'),
  )
  console.log(`// subsets: ${Object.keys(subsets).join(', ')}`)
  process.exit(options.help ? 0 : 1)
}
Object.assign(options, options.subset ? subsets[options.subset] : {})
const shape = shapes[options.shape]
const list = (text) => text.split(',').filter(Boolean)
const median = (numbers) => {
  const sorted = [...numbers].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

if (!existsSync(join(here, 'node_modules', 'node-llama-cpp'))) {
  console.error('installing the peer (npm install --prefix bench/peers --ignore-scripts)')
  const { status } = spawnSync('npm', ['install', '--prefix', here, '--ignore-scripts', '--no-audit', '--no-fund'], {
    stdio: 'inherit',
  })
  if (status !== 0) process.exit(1)
}

const stateFile = `${options.out}-${options.shape}.json`
mkdirSync(dirname(stateFile), { recursive: true })
const state = !options.fresh && existsSync(stateFile) ? JSON.parse(readFileSync(stateFile, 'utf8')) : { runs: {} }
const save = () => {
  writeFileSync(`${stateFile}.tmp`, `${JSON.stringify(state, null, 1)}\n`)
  renameSync(`${stateFile}.tmp`, stateFile)
}

const runProcess = (script, argument) =>
  new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [join(here, script), JSON.stringify(argument)], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let out = ''
    let err = ''
    child.stdout.on('data', (chunk) => (out += chunk))
    child.stderr.on('data', (chunk) => (err += chunk))
    child.on('close', (code) => {
      const line = out.trim().split('\n').pop()
      if (code === 0 && line?.startsWith('{')) resolve(JSON.parse(line))
      else reject(new Error(`${script} ended with ${code}\n${out}\n${err}`))
    })
  })

const cells = []
for (const mix of list(options.mixes))
  for (const threads of list(options.threads).map(Number)) cells.push({ mix, threads })
const rounds = Number(options.rounds)
const modelPath = (mix) => join(process.env.DROVER_PEER_MODELS ?? join(here, 'models'), `${options.shape}-${mix}.gguf`)
const started = Date.now()
for (const mix of list(options.mixes)) {
  mkdirSync(dirname(modelPath(mix)), { recursive: true })
  await writeModel(modelPath(mix), options.shape, mix)
}
for (let round = 0; round < rounds; round++) {
  for (const { mix, threads } of cells) {
    const engines = round % 2 === 0 ? ['drover', 'llama'] : ['llama', 'drover']
    for (const engine of ['limits', ...engines]) {
      const key = `${mix}/${threads}/${round}/${engine}`
      if (state.runs[key]) continue
      const task = {
        path: modelPath(mix),
        threads,
        vocabulary: shape.vocabulary,
        promptTokens: 512,
        decodeTokens: 64,
        sequences: list(options.want).includes('batch') ? 8 : 1,
        want: list(options.want),
      }
      // The page cache holds the file: loading is timed warm for both.
      if (engine !== 'limits') spawnSync('cat', [task.path], { stdio: ['ignore', 'ignore', 'ignore'] })
      const result = await runProcess(engine === 'limits' ? 'limits.mjs' : `engine-${engine}.mjs`, task)
      state.runs[key] = result
      state.machine = { cpu: cpus()[0]?.model, cpus: cpus().length, node: process.version }
      state.commit = spawnSync('git', ['rev-parse', '--short', 'HEAD'], { cwd: root }).stdout.toString().trim()
      save()
      console.error(`${((Date.now() - started) / 60000).toFixed(1)} min  ${key}  ${summaryOf(result)}`)
    }
  }
}

function summaryOf(result) {
  const parts = []
  if (result.readGBps)
    parts.push(`read ${result.readGBps.toFixed(1)} GB/s, f32 FMA ${result.fmaGflops.toFixed(0)} GFLOP/s`)
  if (result.promptPerSecond) parts.push(`prompt ${result.promptPerSecond.toFixed(1)}/s`)
  if (result.decodePerSecond) parts.push(`decode ${result.decodePerSecond.toFixed(2)}/s`)
  if (result.batchPerSecond) parts.push(`batch ${result.batchPerSecond.toFixed(1)}/s`)
  if (result.loadSeconds) parts.push(`load ${result.loadSeconds.toFixed(2)} s`)
  return parts.join(', ')
}

// ---- the table ----
const metrics = [
  ['promptPerSecond', 'prompt 512', false],
  ['decodePerSecond', 'decode 64', false],
  ['batchPerSecond', '8 sequences', false],
  ['loadSeconds', 'load to first token, s', true],
]
const { parameters, bytes } = weightBytes(options.shape)
const rows = []
for (const { mix, threads } of cells) {
  for (const [metric, label, lowerIsBetter] of metrics) {
    const pairs = []
    for (let round = 0; round < rounds; round++) {
      const ours = state.runs[`${mix}/${threads}/${round}/drover`]?.[metric]
      const theirs = state.runs[`${mix}/${threads}/${round}/llama`]?.[metric]
      const limits = state.runs[`${mix}/${threads}/${round}/limits`]
      if (ours && theirs) pairs.push({ ours, theirs, limits })
    }
    if (pairs.length === 0) continue
    const ours = median(pairs.map((pair) => pair.ours))
    const theirs = median(pairs.map((pair) => pair.theirs))
    const ratio = median(pairs.map((pair) => (lowerIsBetter ? pair.theirs / pair.ours : pair.ours / pair.theirs)))
    const row = { mix, threads, metric: label, drover: ours, peer: theirs, ratio, rounds: pairs.length }
    if (metric === 'decodePerSecond') {
      row.weightGBps = (ours * bytes(mix)) / 1e9
      row.shareOfRead = median(pairs.map((pair) => (pair.ours * bytes(mix)) / 1e9 / pair.limits.readGBps))
    }
    if (metric === 'promptPerSecond') {
      row.gflops = (ours * 2 * parameters.body) / 1e9
      row.shareOfFma = median(pairs.map((pair) => (pair.ours * 2 * parameters.body) / 1e9 / pair.limits.fmaGflops))
    }
    rows.push(row)
  }
}
const number = (value) => (value >= 100 ? value.toFixed(0) : value.toFixed(2))
const limitOf = (row) =>
  row.shareOfRead
    ? `${row.weightGBps.toFixed(1)} GB/s, ${(row.shareOfRead * 100).toFixed(0)} % of read`
    : row.shareOfFma
      ? `${row.gflops.toFixed(0)} GFLOP/s, ${row.shareOfFma.toFixed(2)} of f32 FMA peak`
      : ''
const isa = Object.values(state.runs).find((run) => run.engine === 'drover')?.info.isa
const version = Object.values(state.runs).find((run) => run.engine === 'node-llama-cpp')?.version
const markdown = [
  `Shape ${options.shape}, ${state.machine.cpu}, ${state.machine.cpus} CPUs, drover ${state.commit} (${isa}), node-llama-cpp ${version}, Node ${state.machine.node}.`,
  '',
  '| file | threads | what | drover | node-llama-cpp | ratio | of the machine |',
  '|---|---|---|---|---|---|---|',
  ...rows.map(
    (row) =>
      `| ${row.mix} | ${row.threads} | ${row.metric} | ${number(row.drover)} | ${number(row.peer)} | **${row.ratio.toFixed(2)}** | ${limitOf(row)} |`,
  ),
  '',
].join('\n')
state.table = rows
save()
writeFileSync(stateFile.replace(/json$/, 'md'), markdown)
console.log(markdown)
const worst = rows.reduce((least, row) => Math.min(least, row.ratio), Number.POSITIVE_INFINITY)
console.log(`worst ratio ${worst.toFixed(2)} over ${rows.length} cells; saved ${stateFile}`)
