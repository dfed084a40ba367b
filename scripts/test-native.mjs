// The C++ and C checks of native/test, one program per file, under AddressSanitizer and UndefinedBehaviorSanitizer. The
// last line is `N passed, N failed`, over all of them.
//
//   npm run test:native -- [--tsan] [text that a program's name must contain ...]
//
// --tsan builds with ThreadSanitizer instead and runs what uses threads: core_test.
import { spawn, spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const threads = process.argv.includes('--tsan')
const wanted = process.argv.slice(2).filter((argument) => !argument.startsWith('--'))
const build = join(root, 'build', threads ? 'native-tsan' : 'native-test')
const workers = Math.max(2, availableParallelism())

const names = readdirSync(join(root, 'native', 'test'))
  .filter((name) => /_test\.cc?$/.test(name))
  .map((name) => name.replace(/\.cc?$/, ''))
  .filter((name) =>
    threads ? name === 'core_test' : wanted.length === 0 || wanted.some((part) => name.includes(part)),
  )
  .sort()

const run = (command, args) => {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: ['ignore', 'ignore', 'inherit'] })
  if (error) console.error(`${command} could not be started: ${error.message}`)
  if (status !== 0) {
    console.log('0 passed, 1 failed')
    process.exit(1)
  }
}
const sanitize = threads ? 'thread' : 'address'
run('cmake', ['-S', '.', '-B', build, '-DDROVER_TESTS=ON', `-DDROVER_SANITIZE=${sanitize}`, '-DCMAKE_BUILD_TYPE=None'])
run('cmake', ['--build', build, '--parallel', String(workers), '--target', ...names])

const timeoutSeconds = 600
const check = (name) =>
  new Promise((resolve) => {
    const start = Date.now()
    const child = spawn(join(build, name), [], {
      timeout: timeoutSeconds * 1000,
      killSignal: 'SIGKILL',
      env: {
        ...process.env,
        ASAN_OPTIONS: 'abort_on_error=1:detect_leaks=1:detect_stack_use_after_return=1',
        TSAN_OPTIONS: 'halt_on_error=1:second_deadlock_stack=1',
        UBSAN_OPTIONS: 'print_stacktrace=1',
      },
    })
    let output = ''
    let errors = ''
    child.stdout.on('data', (chunk) => (output += chunk))
    child.stderr.on('data', (chunk) => (errors += chunk))
    child.on('error', (error) => (errors += error.message))
    child.on('close', (status, signal) => {
      const seconds = (Date.now() - start) / 1000
      const counts = /(\d+) passed, (\d+) failed\s*$/.exec(output)
      // A crash, a leak or a program that reports nothing is a failure of its own.
      const broken = counts === null || Number(counts[1]) === 0 || (status !== 0 && counts[2] === '0')
      const failures = Number(counts?.[2] ?? 0) + (broken ? 1 : 0)
      const told = counts?.[0].trim() ?? 'no summary'
      const end = broken ? `  ended with ${signal ?? status}` : ''
      console.log(`${failures === 0 ? 'ok  ' : 'FAIL'} ${name}  ${told}${end}  (${seconds.toFixed(1)} s)`)
      if (failures > 0) console.log(`${output}${errors}`)
      resolve({ passed: Number(counts?.[1] ?? 0), failed: failures })
    })
  })

let passed = 0
let failed = 0
const waiting = [...names]
const worker = async () => {
  for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) {
    const result = await check(name)
    passed += result.passed
    failed += result.failed
  }
}
await Promise.all(Array.from({ length: workers }, worker))
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed === 0 && passed > 0 ? 0 : 1
