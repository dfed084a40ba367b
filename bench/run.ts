/**
 * Runs every *.bench.ts in a process of its own, saves what they measured, and draws each family of kernels under the
 * machine's ceilings.
 *
 *   npm run bench -- [--threads=N] [text that a file's name must contain ...]
 *
 * Whole runs go to bench/results: kernels-<isa>-<threads>.json and .md, roofline-<isa>-<threads>-<family>.svg. Parts of
 * a run are shown; their pictures alone are saved.
 */
import { mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { join } from 'node:path'
import { betterLimits } from '../lib/device/limits.js'
import { benchFiles, readFlags, runBench } from './collect.js'
import { type Judged, markdownOf, type Report } from './report.js'
import { familyChart } from './roofline.js'

const { flags, wanted } = readFlags()
const reports = benchFiles(wanted).map((file) => runBench(file, flags))
const { isa, threads } = reports.find(({ limits }) => limits !== undefined) ?? (reports[0] as Report)
const machine = `${cpus()[0]?.model}, ${isa}, ${threads} ${threads === 1 ? 'thread' : 'threads'}, Node ${process.version}`
const text = [
  `${machine}. Share: the least time that the machine's limits allow, by the time taken; 1 cannot be passed, and a limit`,
  'that is passed is void. Each limit is the best of many loops before, between and after the suites of one process.',
  '',
  markdownOf(reports),
].join('\n')
console.log(text)

const results = join(__dirname, 'results')
mkdirSync(results, { recursive: true })
const save = (name: string, content: string): void => {
  const path = join(results, name)
  writeFileSync(`${path}.tmp`, content)
  renameSync(`${path}.tmp`, path)
  console.error(`saved ${path}`)
}
// A partial run says nothing of the rest: only whole ones are kept.
if (wanted.length === 0) {
  save(`kernels-${isa}-${threads}.json`, `${JSON.stringify({ machine, reports }, null, 1)}\n`)
  save(`kernels-${isa}-${threads}.md`, text)
}
const families = new Map<string, { measured: Judged[]; limits: NonNullable<Report['limits']> }>()
for (const { measured, limits } of reports) {
  if (limits === undefined) continue
  for (const one of measured) {
    const known = families.get(one.family)
    if (known === undefined) families.set(one.family, { measured: [one], limits })
    else {
      known.measured.push(one)
      known.limits = betterLimits(known.limits, limits)
    }
  }
}
for (const [family, { measured, limits }] of families) {
  const picture = familyChart(family, machine, measured, limits)
  if (picture !== undefined) save(`roofline-${isa}-${threads}-${family.replace(/\W+/g, '-')}.svg`, picture)
}
