// npm's prepare step: in a clone, builds the addon and the TypeScript. From a packed tarball npm does not run it.
import { spawnSync } from 'node:child_process'
import { existsSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
if (process.env.DROVER_SKIP_BUILD) process.exit(0)
if (!existsSync(join(root, 'node_modules', 'cmake-js'))) {
  console.error('drover: development dependencies are missing; run npm install without --omit=dev')
  process.exit(1)
}
// The second Node of the tests comes as a dev dependency that links itself as node_modules/.bin/node; npm puts that folder
// first in its PATH, so every npm script would run under it.
rmSync(join(root, 'node_modules', '.bin', 'node'), { force: true })
for (const script of ['build:native', 'build:ts']) {
  const { status } = spawnSync('npm', ['run', '--silent', script], { cwd: root, stdio: 'inherit' })
  if (status !== 0) process.exit(status ?? 1)
}
