/**
 * Compares each kernel's share of the machine's limits with the share that was saved for the same instruction set and
 * number of threads; gate.ts says how. Exit code 1 when a case is worse, has gone, or has no valid limit.
 *
 *   npm run bench:check -- [--save] [--threads=N] [text that a file's name must contain ...]
 *
 * --save accepts what is measured: bench/results/<isa>.json.
 */
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { dirname, join } from 'node:path'
import { benchFiles, readFlags, runBench } from './collect.js'
import { accept, attempts, best, compare, fails, type Saved, sharesOf, tolerance, type Verdict } from './gate.js'

const { flags, wanted } = readFlags()
const save = flags.includes('--save')
const passed = flags.filter((flag) => flag !== '--save')
// Tokenizers have no limit to be compared with.
const files = benchFiles(wanted).filter((file) => file !== 'tokenizer.bench.ts')
const cpuName = cpus()[0]?.model ?? 'unknown'

const readSaved = (path: string, isa: string): Saved =>
  existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as Saved) : { isa, threads: {} }

const show = ({ key, kind, saved, share }: Verdict): string => {
  const number = (value: number | undefined): string => (value === undefined ? '-' : value.toFixed(3)).padStart(6)
  return `${kind.padEnd(6)} ${number(saved)} -> ${number(share)}  ${key}`
}

let found = new Map<string, number | undefined>()
let isa = ''
let threads = ''
let path = ''
for (const file of files) {
  let mine = new Map<string, number | undefined>()
  for (let attempt = 0; attempt < attempts; attempt++) {
    const report = runBench(file, passed)
    isa = report.isa
    threads = String(report.threads)
    path = join(__dirname, 'results', `${isa}.json`)
    mine = best(mine, sharesOf(file, report))
    const known = readSaved(path, isa).threads[threads]?.shares ?? {}
    // What is saved deserves all attempts: a lucky or an unlucky run would stand for long.
    if (!save && !compare(known, mine, [file]).some(fails)) break
  }
  found = new Map([...found, ...mine])
}

const saved = readSaved(path, isa)
const entry = saved.threads[threads]
const verdicts = compare(entry?.shares ?? {}, found, files)
for (const verdict of verdicts) console.log(show(verdict))
if (save) {
  const shares = accept(entry?.shares ?? {}, found, files)
  const next: Saved = { isa, threads: { ...saved.threads, [threads]: { cpu: cpuName, shares } } }
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(`${path}.tmp`, `${JSON.stringify(next, null, 1)}\n`)
  renameSync(`${path}.tmp`, path)
  console.log(`saved ${path}`)
} else if (entry === undefined) {
  console.log(`nothing is saved for ${isa} with ${threads} threads: run with --save`)
  process.exitCode = 1
} else {
  const bad = verdicts.filter(fails).length
  const from = entry.cpu === cpuName ? '' : `; saved on another CPU: ${entry.cpu}`
  console.log(
    `${verdicts.length - bad} of ${verdicts.length} cases within ${tolerance * 100} % of what was saved${from}`,
  )
  if (bad > 0) process.exitCode = 1
}
