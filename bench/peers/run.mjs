// drover beside other engines on the same synthetic files, turn by turn in fresh processes.
//
//   npm run bench:peers -- [--subset twenty] [--shape 1b|8b] [--mixes F16,Q8_0,Q6_K,Q4_0,Q4_K_M] [--threads 1,2]
//       [--rounds 3] [--want prompt-512,prompt-2048,decode-64,decode-4096,batch-8,batch-32]
//       [--peers node-llama-cpp,llama-cpp-python] [--out bench/results/peers] [--fresh]
//   npm run bench:peers -- recommend ...: embedding-bags and recommenders, which recommend.mjs is about
//
// Every finished process is saved at once: stop it when you like, the same command goes on where it stopped, and other
// subsets add to the same table. The machine's ceilings are probed before every engine's process.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { costs, shapes, writeModel } from './model.mjs'
import { ceilingsOf, decodeTokens, markdownOf, processesOf, subsets, tableOf } from './plan.mjs'
import { venvPython } from './venv.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const root = join(here, '..', '..')
if (process.argv[2] === 'recommend') {
  const { status } = spawnSync(process.execPath, [join(here, 'recommend.mjs'), ...process.argv.slice(3)], {
    stdio: 'inherit',
  })
  process.exit(status ?? 1)
}
const { values: given } = parseArgs({
  options: {
    subset: { type: 'string' },
    shape: { type: 'string', default: '1b' },
    mixes: { type: 'string' },
    threads: { type: 'string' },
    rounds: { type: 'string' },
    want: { type: 'string' },
    peers: { type: 'string', default: 'node-llama-cpp' },
    out: { type: 'string', default: join(root, 'bench', 'results', 'peers') },
    fresh: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
if (given.help || (given.subset && !subsets[given.subset])) {
  const source = readFileSync(fileURLToPath(import.meta.url), 'utf8').split('\n')
  console.log(
    source
      .slice(
        0,
        source.findIndex((line) => !line.startsWith('//')),
      )
      .join('\n'),
  )
  for (const [name, subset] of Object.entries(subsets)) console.log(`// ${name}: ${JSON.stringify(subset)}`)
  process.exit(given.help ? 0 : 1)
}
// A named subset stands for its options; those that are given beside it count.
const options = { ...(subsets[given.subset] ?? { ...subsets.all, want: subsets.twenty.want }), ...given }
const shape = shapes[options.shape]
const list = (text) => text.split(',').filter(Boolean)
const peers = list(options.peers)

/** Engines: how each is started. */
const engines = {
  drover: () => [process.execPath, join(here, 'engine-drover.mjs')],
  'node-llama-cpp': () => {
    if (!existsSync(join(here, 'node_modules', 'node-llama-cpp'))) {
      console.error('installing the peer (npm install --prefix bench/peers --ignore-scripts)')
      const install = ['install', '--prefix', here, '--ignore-scripts', '--no-audit', '--no-fund']
      const { status } = spawnSync('npm', install, { stdio: 'inherit' })
      if (status !== 0) process.exit(1)
    }
    return [process.execPath, join(here, 'engine-llama.mjs')]
  },
  'llama-cpp-python': () => [venvPython('llama-cpp-python'), join(here, 'engine_llama_cpp_python.py')],
  limits: () => [process.execPath, join(here, 'limits.mjs')],
}
const commands = Object.fromEntries(
  ['limits', 'drover', ...peers].map((name) => {
    if (!(name in engines)) throw new Error(`there is no peer ${name}`)
    return [name, engines[name]()]
  }),
)

const stateFile = `${options.out}-${options.shape}.json`
mkdirSync(dirname(stateFile), { recursive: true })
const state = !options.fresh && existsSync(stateFile) ? JSON.parse(readFileSync(stateFile, 'utf8')) : { runs: {} }
const save = () => {
  writeFileSync(`${stateFile}.tmp`, `${JSON.stringify(state, null, 1)}\n`)
  renameSync(`${stateFile}.tmp`, stateFile)
}

const runProcess = ([command, ...args], task) =>
  new Promise((resolve, reject) => {
    const child = spawn(command, [...args, JSON.stringify(task)], { stdio: ['ignore', 'pipe', 'pipe'] })
    let out = ''
    let err = ''
    child.stdout.on('data', (chunk) => (out += chunk))
    child.stderr.on('data', (chunk) => (err += chunk))
    child.on('error', reject)
    child.on('close', (code) => {
      const line = out.trim().split('\n').pop()
      if (code === 0 && line?.startsWith('{')) resolve(JSON.parse(line))
      else reject(new Error(`${args[0]} ended with ${code}\n${out}\n${err}`))
    })
  })

const summaryOf = ({ results, readGBps, f32Gflops, int8Gops }) =>
  results === undefined
    ? `read ${readGBps.toFixed(1)} GB/s, f32 ${f32Gflops.toFixed(0)} GFLOP/s, int8 ${int8Gops.toFixed(0)} Gop/s`
    : Object.entries(results)
        .map(([what, value]) => `${what} ${value.toPrecision(4)}`)
        .join(', ')

const modelPath = (mix) => join(process.env.DROVER_PEER_MODELS ?? join(here, 'models'), `${options.shape}-${mix}.gguf`)
const started = Date.now()
for (const mix of list(options.mixes)) {
  mkdirSync(dirname(modelPath(mix)), { recursive: true })
  await writeModel(modelPath(mix), options.shape, mix)
}
state.machine = { cpu: cpus()[0]?.model, cpus: cpus().length, node: process.version }
state.commit = spawnSync('git', ['rev-parse', '--short', 'HEAD'], { cwd: root }).stdout.toString().trim()

const runOne = async (engine, mix, threads, round, part) => {
  const task = { path: modelPath(mix), threads, vocabulary: shape.vocabulary, decodeTokens, ...part }
  const key = `${mix}/${threads}/${round}/${part.want.join('+')}/${engine}`
  if (state.runs[key]) return
  const limits = { ...(await runProcess(commands.limits, { threads })), engine: 'limits', threads }
  state.runs[`${key}/limits`] = limits
  // The page cache holds the file: loading is timed warm for all.
  spawnSync('cat', [task.path], { stdio: ['ignore', 'ignore', 'ignore'] })
  const result = await runProcess(commands[engine], task)
  state.runs[key] = { ...result, engine, mix, threads, round }
  save()
  console.error(
    `${((Date.now() - started) / 60000).toFixed(1)} min  ${key}  ${summaryOf(result)}; ${summaryOf(limits)}`,
  )
}
/** Loading once more, from the file of prepared weights that a first process has left. */
const runCached = async (mix, threads, round) => {
  const key = `${mix}/${threads}/${round}/load-cached/drover`
  if (state.runs[key]) return
  const preparedCache = mkdtempSync(join(tmpdir(), 'drover-prepared-'))
  try {
    const [part] = processesOf(['decode-64'])
    const task = { path: modelPath(mix), threads, vocabulary: shape.vocabulary, decodeTokens, ...part, want: [] }
    await runProcess(commands.drover, { ...task, preparedCache })
    const result = await runProcess(commands.drover, { ...task, preparedCache })
    const results = { 'load-cached': result.results.load }
    state.runs[key] = { ...result, results, mix, threads, round }
    save()
    console.error(`${((Date.now() - started) / 60000).toFixed(1)} min  ${key}  ${summaryOf({ results })}`)
  } finally {
    rmSync(preparedCache, { recursive: true })
  }
}
for (let round = 0; round < Number(options.rounds); round++) {
  // Who goes first changes from round to round.
  const order = round % 2 === 0 ? ['drover', ...peers] : [...peers, 'drover']
  for (const mix of list(options.mixes))
    for (const threads of list(options.threads).map(Number)) {
      await runCached(mix, threads, round)
      for (const part of processesOf(list(options.want)))
        for (const engine of order) await runOne(engine, mix, threads, round, part)
    }
}

// ---- the tables: all that the state holds, one per peer ----
const ofEngine = (name) => Object.values(state.runs).find(({ engine }) => engine === name)
const ours = ofEngine('drover')
const probed = Object.values(state.runs).filter(({ engine }) => engine === 'limits')
const ceilingText = [...new Set(probed.map(({ threads }) => threads))]
  .sort((a, b) => a - b)
  .map((threads) => `${threads} ${threads === 1 ? 'thread' : 'threads'}: ${summaryOf(ceilingsOf(state.runs, threads))}`)
const { machine, commit } = state
const markdown = [
  `Shape ${options.shape}, ${machine.cpu}, ${machine.cpus} CPUs, drover ${commit} (${ours?.info.isa}), Node ${machine.node}.`,
  `Ceilings, the best of all probes: ${ceilingText.join('; ')}.`,
]
state.tables = {}
let worst = Number.POSITIVE_INFINITY
let cells = 0
for (const peer of Object.keys(engines).filter((name) => name !== 'drover' && name !== 'limits')) {
  const rows = tableOf(state.runs, peer, costs(options.shape))
  if (rows.length === 0) continue
  state.tables[peer] = rows
  markdown.push('', ...markdownOf(rows, `${peer} ${ofEngine(peer).version}`))
  worst = rows.reduce((least, { ratio }) => Math.min(least, ratio), worst)
  cells += rows.length
}
save()
writeFileSync(stateFile.replace(/json$/, 'md'), `${markdown.join('\n')}\n`)
console.log(markdown.join('\n'))
console.log(`\nworst ratio ${worst.toFixed(2)} over ${cells} cells; saved ${stateFile}`)
