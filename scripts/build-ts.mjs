// Builds dist: CommonJS by tsc, and beside each entry an ES module that re-exports it by name, so that `import` and
// `require` share one DroverError class and one thread pool. The folder is made aside and swapped in, so that programs
// that start meanwhile see the old one or the new one.
//   node scripts/build-ts.mjs [folder]
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const dist = resolve(process.argv[2] ?? join(root, 'dist'))
// Both lie beside dist: its files look for package.json one folder up, and a rename must not cross file systems.
const made = `${join(dirname(dist), 'build-')}ts-${process.pid}`
const old = `${made}-old`
const require = createRequire(import.meta.url)

const build = () => {
  const tsc = join(dirname(require.resolve('typescript/package.json')), 'bin', 'tsc')
  const { status } = spawnSync(process.execPath, [tsc, '-p', join(root, 'tsconfig.build.json'), '--outDir', made], {
    cwd: root,
    stdio: 'inherit',
  })
  if (status !== 0) return status ?? 1
  for (const entry of ['index', 'kernels']) {
    const names = Object.keys(require(join(made, `${entry}.js`))).filter(
      (name) => name !== 'default' && name !== '__esModule',
    )
    writeFileSync(
      join(made, `${entry}.mjs`),
      `import commonjs from './${entry}.js'\n\nexport const { ${names.join(', ')} } = commonjs\n`,
    )
    writeFileSync(join(made, `${entry}.d.mts`), `export * from './${entry}.js'\n`)
  }
  const main = join(made, 'cli', 'main.js')
  if (!readFileSync(main, 'utf8').startsWith('#!')) throw new Error('dist/cli/main.js has lost its first line')
  chmodSync(main, 0o755)
  if (existsSync(dist)) renameSync(dist, old)
  renameSync(made, dist)
  return 0
}

mkdirSync(dirname(dist), { recursive: true })
try {
  process.exitCode = build()
} finally {
  for (const folder of [made, old]) rmSync(folder, { recursive: true, force: true })
}
