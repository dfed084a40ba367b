/** Runs *.bench.ts files, each in a process of its own. */
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { type Block, type Report, reportOf } from './report.js'

/** The benchmarks whose file names hold one of the texts; all of them without texts. */
export const benchFiles = (wanted: readonly string[]): string[] => {
  const files = readdirSync(__dirname)
    .filter((name) => name.endsWith('.bench.ts') && (wanted.length === 0 || wanted.some((part) => name.includes(part))))
    .sort()
  if (files.length === 0) throw new Error(`no benchmark is named like ${wanted.join(', ')}`)
  return files
}

/** Runs one; `flags` are passed on. */
export const runBench = (file: string, flags: readonly string[]): Report => {
  console.error(file)
  const { stdout, stderr, status } = spawnSync(
    process.execPath,
    ['--import', 'tsx', join(__dirname, file), '--json', ...flags],
    { encoding: 'utf8', maxBuffer: 2 ** 26 },
  )
  if (status !== 0) throw new Error(`${file} ended with ${status}\n${stdout}\n${stderr}`)
  return reportOf([...stdout.matchAll(/^RESULT (.*)$/gm)].map(([, line]) => JSON.parse(line as string) as Block))
}

/** Command line arguments: flags, and the rest. */
export const readFlags = (): { flags: string[]; wanted: string[] } => {
  const args = process.argv.slice(2)
  return {
    flags: args.filter((argument) => argument.startsWith('--')),
    wanted: args.filter((argument) => !argument.startsWith('--')),
  }
}
