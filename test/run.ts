/**
 * Runs every test file in a process of its own (an abort in native code must not lose the other results), then the
 * C++ checks under sanitizers. Fails on a file that runs no test. The last line is `N passed, N failed`.
 *
 *   tsx test/run.ts [--no-native] [text that a file's path must contain ...]
 */
import { spawn } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join, relative } from 'node:path'
import { root } from './support.js'

interface Outcome {
  name: string
  passed: number
  failed: number
  seconds: number
  output: string
}

const fileTimeoutSeconds = 1500
// Files that measure time or memory run alone, after the others.
const measuring = /\/(leak|latency|speed|workers|prefill-memory|prepared-cache|measure)[^/]*\.test\.ts$/

const capture = (
  name: string,
  command: string,
  args: string[],
): Promise<{ code: number | null; output: string; seconds: number }> =>
  new Promise((resolve) => {
    const start = Date.now()
    // Tests leave nothing in the user's caches.
    const env = { DROVER_TUNING: 'off', ...process.env, FORCE_COLOR: '0' }
    const child = spawn(command, args, { cwd: root, env })
    const chunks: Buffer[] = []
    child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk))
    child.stderr.on('data', (chunk: Buffer) => chunks.push(chunk))
    const timer = setTimeout(() => {
      chunks.push(Buffer.from(`\n${name}: killed after ${fileTimeoutSeconds} s\n`))
      child.kill('SIGKILL')
    }, fileTimeoutSeconds * 1000)
    child.on('close', (code) => {
      clearTimeout(timer)
      resolve({ code, output: Buffer.concat(chunks).toString(), seconds: (Date.now() - start) / 1000 })
    })
  })

const runFile = async (file: string): Promise<Outcome> => {
  const name = relative(root, file)
  const { code, output, seconds } = await capture(name, process.execPath, ['--expose-gc', '--import', 'tsx', file])
  const sum = (label: string) =>
    [...output.matchAll(new RegExp(`^\\s+${label}:\\s+(\\d+)`, 'gm'))].reduce(
      (total, match) => total + Number(match[1]),
      0,
    )
  const passed = sum('Passed')
  let failed = sum('Total') - passed - sum('Skipped')
  if (passed + failed === 0 || (code !== 0 && failed === 0)) failed++
  return { name, passed, failed, seconds, output }
}

const runNative = async (): Promise<Outcome> => {
  const name = 'native checks (ASan, UBSan)'
  const { code, output, seconds } = await capture(name, process.execPath, ['scripts/test-native.mjs'])
  const [, passed = '0', failed = '0'] = /(\d+) passed, (\d+) failed\s*$/.exec(output) ?? []
  const counted = { passed: Number(passed), failed: Number(failed) }
  if (counted.passed === 0 || (code !== 0 && counted.failed === 0)) counted.failed++
  return { name, ...counted, seconds, output }
}

const main = async (): Promise<void> => {
  const args = process.argv.slice(2)
  const wanted = args.filter((arg) => !arg.startsWith('--'))
  const files = readdirSync(join(root, 'test'), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.test.ts'))
    .map((file) => join(root, 'test', file))
    .filter((file) => wanted.length === 0 || wanted.some((part) => file.includes(part)))
    .sort()
  const outcomes: Outcome[] = []
  const report = (outcome: Outcome): void => {
    outcomes.push(outcome)
    const mark = outcome.failed === 0 ? 'ok  ' : 'FAIL'
    console.log(
      `${mark} ${outcome.name}  ${outcome.passed} passed, ${outcome.failed} failed  (${outcome.seconds.toFixed(1)} s)`,
    )
    if (outcome.failed > 0) console.log(outcome.output.replace(/^/gm, '    '))
  }
  const together = files.filter((file) => !measuring.test(file))
  const worker = async (): Promise<void> => {
    for (let file = together.shift(); file !== undefined; file = together.shift()) report(await runFile(file))
  }
  await Promise.all([worker(), worker()])
  for (const file of files.filter((file) => measuring.test(file))) report(await runFile(file))
  if (wanted.length === 0 && !args.includes('--no-native')) report(await runNative())
  const passed = outcomes.reduce((total, outcome) => total + outcome.passed, 0)
  const failed = outcomes.reduce((total, outcome) => total + outcome.failed, 0)
  for (const outcome of outcomes.filter((outcome) => outcome.failed > 0)) console.log(`failed: ${outcome.name}`)
  console.log(`${passed} passed, ${failed} failed`)
  process.exitCode = failed === 0 && passed > 0 ? 0 : 1
}

void main()
