// Builds the addon from the sources inside an installed package, for a platform that no prebuild fits:
//   node node_modules/drover/scripts/rebuild.mjs
// Needs CMake and a C++20 compiler, and two packages of headers: node-addon-api and node-api-headers. Where these are
// not installed they are fetched into build/headers; nothing else of the project is touched.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const build = join(root, 'build')
const fetched = join(build, 'headers')

const run = (command, args, cwd = root) => {
  const { status, error } = spawnSync(command, args, { cwd, stdio: 'inherit' })
  if (error?.code === 'ENOENT') console.error(`drover: ${command} is not installed; building from source needs it`)
  else if (error) console.error(`drover: ${command} could not be started: ${error.message}`)
  if (status !== 0) process.exit(status ?? 1)
}

const folderOf = (name) => {
  for (const from of [root, fetched]) {
    try {
      return dirname(createRequire(join(from, 'package.json')).resolve(`${name}/package.json`))
    } catch {
      // looked for in the next place
    }
  }
  return undefined
}

const headers = ['node-api-headers', 'node-addon-api']
const missing = headers.filter((name) => folderOf(name) === undefined)
if (missing.length > 0) {
  const { devDependencies } = createRequire(import.meta.url)('../package.json')
  mkdirSync(fetched, { recursive: true })
  writeFileSync(join(fetched, 'package.json'), '{ "private": true }\n')
  const versions = missing.map((name) => `${name}@${devDependencies[name]}`)
  run('npm', ['install', '--no-save', '--ignore-scripts', '--no-audit', '--no-fund', ...versions], fetched)
}
const includes = [join(folderOf('node-api-headers'), 'include'), folderOf('node-addon-api')]
const ninja = spawnSync('ninja', ['--version']).status === 0
// CMake refuses to change the generator of a folder that it has configured.
const generator = ninja && !existsSync(join(build, 'CMakeCache.txt')) ? ['-G', 'Ninja'] : []
run('cmake', [
  ...['-S', root, '-B', build, ...generator],
  '-DCMAKE_BUILD_TYPE=Release',
  `-DCMAKE_JS_INC=${includes.join(';')}`,
  `-DCMAKE_LIBRARY_OUTPUT_DIRECTORY=${join(build, 'Release')}`,
])
run('cmake', ['--build', build, '--parallel', String(Math.min(4, availableParallelism()))])
console.log(`drover: built ${join(build, 'Release', 'drover.node')}`)
