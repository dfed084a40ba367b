// Fills prebuilds/<platform>-<arch>/ with the addon of this machine, stripped, under the name node-gyp-build looks for.
import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const built = join(root, 'build', 'Release', 'drover.node')
if (!existsSync(built)) {
  const { status } = spawnSync('npm', ['run', '--silent', 'build:native'], { cwd: root, stdio: 'inherit' })
  if (status !== 0) process.exit(status ?? 1)
}
const musl = process.platform === 'linux' && process.report.getReport().header.glibcVersionRuntime === undefined
const folder = join(root, 'prebuilds', `${process.platform}-${process.arch}`)
const target = join(folder, process.platform === 'linux' ? `drover.${musl ? 'musl' : 'glibc'}.node` : 'drover.node')
mkdirSync(folder, { recursive: true })
copyFileSync(built, target)
const strip = spawnSync('strip', process.platform === 'darwin' ? ['-x', target] : ['--strip-unneeded', target])
if (strip.status !== 0) console.error('drover: strip is not available, the prebuild keeps its symbols')
console.log(`${target.slice(root.length + 1)}  ${statSync(target).size} bytes`)
