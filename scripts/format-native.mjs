// clang-format over native/: writes, or with --check only compares. Where clang-format is not installed it says so.
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const files = readdirSync(join(root, 'native'), { recursive: true, encoding: 'utf8' })
  .filter((file) => /\.(h|cc|c|inl)$/.test(file) && !file.endsWith('iq_grids.inl'))
  .map((file) => join('native', file))
const check = process.argv.includes('--check')
const { status, error } = spawnSync('clang-format', [...(check ? ['--dry-run', '-Werror'] : ['-i']), ...files], {
  cwd: root,
  stdio: 'inherit',
})
if (error) console.log('clang-format is not installed: native sources were not checked')
process.exit(error ? 0 : (status ?? 1))
