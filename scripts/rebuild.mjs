// Builds the addon from the sources inside an installed package, for a platform that no prebuild fits:
//   node node_modules/drover/scripts/rebuild.mjs
// Needs CMake and a C++20 compiler. cmake-js, node-addon-api and node-api-headers are installed beside the package's
// own modules first when they are not there.
import { spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const require = createRequire(join(root, 'package.json'))
const tools = ['cmake-js', 'node-addon-api', 'node-api-headers']

const run = (command, args) => {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: 'inherit' })
  if (error) console.error(`drover: ${command} could not be started: ${error.message}`)
  if (status !== 0) process.exit(status ?? 1)
}
const missing = tools.filter((tool) => {
  try {
    require.resolve(`${tool}/package.json`)
    return false
  } catch {
    return true
  }
})
if (missing.length > 0) {
  const { devDependencies } = require('./package.json')
  run('npm', ['install', '--no-save', '--ignore-scripts', ...missing.map((tool) => `${tool}@${devDependencies[tool]}`)])
}
run(process.execPath, [
  join(dirname(require.resolve('cmake-js/package.json')), 'bin', 'cmake-js'),
  'build',
  '--parallel',
  '2',
])
