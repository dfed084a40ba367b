// The C++ checks of native/test under AddressSanitizer and UndefinedBehaviorSanitizer, one program per file. The last
// line is `N passed, N failed`, over all of them.
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const build = join(root, 'build', 'native-test')

const run = (command, args) => {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: ['ignore', 'ignore', 'inherit'] })
  if (error) console.error(`${command} could not be started: ${error.message}`)
  if (status !== 0) {
    console.log('0 passed, 1 failed')
    process.exit(1)
  }
}
run('cmake', ['-S', '.', '-B', build, '-DDROVER_TESTS=ON', '-DDROVER_SANITIZE=ON', '-DCMAKE_BUILD_TYPE=None'])
run('cmake', ['--build', build, '--parallel', '2'])

let passed = 0
let failed = 0
for (const file of readdirSync(join(root, 'native', 'test'))
  .filter((name) => /_test\.cc?$/.test(name))
  .sort()) {
  const name = file.replace(/\.cc?$/, '')
  const { status, signal, stdout, stderr } = spawnSync(join(build, name), [], {
    encoding: 'utf8',
    timeout: 600_000,
    env: { ...process.env, ASAN_OPTIONS: 'abort_on_error=1:detect_leaks=1', UBSAN_OPTIONS: 'print_stacktrace=1' },
  })
  const counts = /(\d+) passed, (\d+) failed\s*$/.exec(stdout ?? '')
  passed += Number(counts?.[1] ?? 0)
  // A crash, a leak or a program that reports nothing is a failure of its own.
  const broken = counts === null || Number(counts[1]) === 0 || (status !== 0 && counts[2] === '0')
  const failures = Number(counts?.[2] ?? 0) + (broken ? 1 : 0)
  failed += failures
  console.log(`${failures === 0 ? 'ok  ' : 'FAIL'} ${name}  ${counts?.[0] ?? `ended with ${signal ?? status}`}`)
  if (failures > 0) console.log(`${stdout}${stderr}`)
}
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed === 0 && passed > 0 ? 0 : 1
