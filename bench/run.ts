/**
 * Runs every *.bench.ts in a process of its own and saves what they measured.
 *
 *   npm run bench -- [--threads=N] [text that a file's name must contain ...]
 *
 * Results go to bench/results/kernels-<isa>-<threads>.json and .md.
 */
import { spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, renameSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { join } from 'node:path'
import type { Measured } from './harness.js'

interface Report {
  isa: string
  threads: number
  limits: { readBytesPerSecond: number; fmaFlopsPerSecond: number }
  measured: Measured[]
}

const wanted = process.argv.slice(2).filter((argument) => !argument.startsWith('--'))
const flags = process.argv.slice(2).filter((argument) => argument.startsWith('--threads='))
const files = readdirSync(__dirname).filter(
  (name) => name.endsWith('.bench.ts') && (wanted.length === 0 || wanted.some((part) => name.includes(part))),
)
const reports: Report[] = []
for (const file of files.sort()) {
  console.error(file)
  const { stdout, stderr, status } = spawnSync(
    process.execPath,
    ['--import', 'tsx', join(__dirname, file), '--json', ...flags],
    { encoding: 'utf8', maxBuffer: 2 ** 26 },
  )
  if (status !== 0) throw new Error(`${file} ended with ${status}\n${stdout}\n${stderr}`)
  for (const [, line] of stdout.matchAll(/^RESULT (.*)$/gm)) reports.push(JSON.parse(line as string) as Report)
}
if (reports.length === 0) throw new Error(`no benchmark is named like ${wanted.join(', ')}`)

const fixed = (value: number | undefined, digits = 1): string => (value === undefined ? '' : value.toFixed(digits))
const [{ isa, threads }] = reports as [Report]
const lines = [
  `${cpus()[0]?.model}, ${isa}, ${threads} threads, Node ${process.version}. Share: of the f32 FMA peak or of the read`,
  'bandwidth, whichever is nearer, measured in the same process before and after the suite.',
  '',
  '| suite | case | time, µs | GFLOP/s | GB/s | share | limits: GFLOP/s, GB/s |',
  '|---|---|---|---|---|---|---|',
]
for (const { measured, limits } of reports) {
  for (const m of measured) {
    const limit = `${fixed(limits.fmaFlopsPerSecond / 1e9, 0)}, ${fixed(limits.readBytesPerSecond / 1e9)}`
    const rate = m.items === undefined ? fixed(m.gflops) : m.items
    lines.push(
      `| ${m.suite} | ${m.name} | ${fixed(m.seconds * 1e6)} | ${rate} | ${fixed(m.gbps)} | ${fixed(m.share, 2)} | ${limit} |`,
    )
  }
}
const text = `${lines.join('\n')}\n`
console.log(text)
// A partial run says nothing of the rest: only whole ones are kept.
if (wanted.length === 0) {
  const out = join(__dirname, 'results', `kernels-${isa}-${threads}`)
  mkdirSync(join(__dirname, 'results'), { recursive: true })
  for (const [extension, content] of [
    ['json', `${JSON.stringify(reports, null, 1)}\n`],
    ['md', text],
  ] as const) {
    writeFileSync(`${out}.${extension}.tmp`, content)
    renameSync(`${out}.${extension}.tmp`, `${out}.${extension}`)
  }
}
