// Fills prebuilds/<platform>-<arch>/ with addons, stripped, under the names that node-gyp-build looks for.
//   node scripts/prebuild.mjs                             the addon of this machine, as it was built
//   node scripts/prebuild.mjs --all [text in a name ...]  every platform of targets.mjs, or some, on one Linux machine with zig
import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { targets } from './targets.mjs'
import { buildWithZig, findZig } from './zig.mjs'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')

const keep = (built, path) => {
  const target = join(root, path)
  mkdirSync(dirname(target), { recursive: true })
  copyFileSync(built, target)
  return target
}
const report = (path) => console.log(`${path}  ${statSync(join(root, path)).size} bytes`)

const prebuildThis = () => {
  const built = join(root, 'build', 'Release', 'drover.node')
  if (!existsSync(built)) {
    const { status } = spawnSync('npm', ['run', '--silent', 'build:native'], { cwd: root, stdio: 'inherit' })
    if (status !== 0) process.exit(status ?? 1)
  }
  const { platform, arch, report: facts } = process
  const musl = platform === 'linux' && facts.getReport().header.glibcVersionRuntime === undefined
  const name = platform === 'linux' ? `drover.${musl ? 'musl' : 'glibc'}.node` : 'drover.node'
  const path = `prebuilds/${platform}-${arch}/${name}`
  const target = keep(built, path)
  const strip = spawnSync('strip', platform === 'darwin' ? ['-x', target] : ['--strip-unneeded', target])
  if (strip.status !== 0) console.error('drover: strip is not available, the prebuild keeps its symbols')
  report(path)
}

const prebuildAll = (wanted) => {
  const chosen = targets.filter(({ name }) => wanted.length === 0 || wanted.some((part) => name.includes(part)))
  if (chosen.length === 0) {
    console.error(`drover: no such platform; there are: ${targets.map(({ name }) => name).join(', ')}`)
    process.exit(1)
  }
  const zig = findZig()
  if (zig === undefined) {
    console.error('drover: zig is not installed; get it with: pip install ziglang (or put zig on the PATH)')
    process.exit(1)
  }
  for (const target of chosen) {
    keep(buildWithZig(root, zig, target), target.path)
    report(target.path)
  }
}

const [first, ...rest] = process.argv.slice(2)
if (first === '--all') prebuildAll(rest)
else prebuildThis()
