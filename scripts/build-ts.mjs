// Builds dist: CommonJS by tsc, and beside each entry an ES module that re-exports it by name, so that `import` and
// `require` share one DroverError class and one thread pool.
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const dist = join(root, 'dist')
const require = createRequire(import.meta.url)

rmSync(dist, { recursive: true, force: true })
const tsc = join(dirname(require.resolve('typescript/package.json')), 'bin', 'tsc')
const { status } = spawnSync(process.execPath, [tsc, '-p', join(root, 'tsconfig.build.json')], {
  cwd: root,
  stdio: 'inherit',
})
if (status !== 0) process.exit(status ?? 1)

for (const entry of ['index', 'kernels']) {
  const path = join(dist, `${entry}.js`)
  if (!existsSync(path)) continue
  const names = Object.keys(require(path)).filter((name) => name !== 'default' && name !== '__esModule')
  writeFileSync(
    join(dist, `${entry}.mjs`),
    `import commonjs from './${entry}.js'\n\nexport const { ${names.join(', ')} } = commonjs\n`,
  )
  writeFileSync(join(dist, `${entry}.d.mts`), `export * from './${entry}.js'\n`)
}
const main = join(dist, 'cli', 'main.js')
if (existsSync(main)) {
  if (!readFileSync(main, 'utf8').startsWith('#!')) throw new Error('dist/cli/main.js has lost its first line')
  chmodSync(main, 0o755)
}
