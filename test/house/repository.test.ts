/** What lies in the repository: its size, no traces of the machine it was made on, files that say what they are. */
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { root } from '../support.js'
import { typeScriptSources } from './sources.js'

const read = (file: string): string => readFileSync(join(root, file), 'latin1')

/** Tracked files with their modes; none where the sources are not in git (an unpacked archive). */
const tracked = (): { mode: string; file: string }[] => {
  const { status, stdout } = spawnSync('git', ['ls-files', '-s', '-z'], {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 1 << 26,
  })
  if (status !== 0) return []
  return stdout
    .split('\0')
    .filter(Boolean)
    .map((line) => ({ mode: line.slice(0, 6), file: line.slice(line.indexOf('\t') + 1) }))
    .filter(({ file }) => existsSync(join(root, file))) // a file may be on its way out
}

const files = tracked()
const isClone = files.length > 0
const largest = 60e6
const longest = 600

test('only plain files are tracked, and nothing that is made from them', () => {
  if (!isClone) return console.log('not a clone: not checked')
  assert.ok(files.length > 200)
  for (const { mode, file } of files) {
    assert.match(mode, /^100(644|755)$/, `${file} is a link or a repository of its own`)
    assert.not.match(file, /(^|\/)(node_modules|build|dist|prebuilds|coverage)(\/|$)|\.(node|tgz|o|log|tmp)$/, file)
  }
  const bytes = files.reduce((sum, { file }) => sum + statSync(join(root, file)).size, 0)
  assert.ok(bytes < largest, `${bytes} bytes`)
})

// Home folders and the like, where a path begins: not inside an address or a relative path.
const machinePath = /(?<![\w.~/)-])\/(?:home|root|Users|work|mnt|var\/folders)\/[\w.]/
// Hosts that packages come from.
const registry = /\bregistry\.[a-z]|\bartifactory\b|\bpypi\.org\b|\.jfrog\.|_authToken/i

test('no file names a path of a machine or a registry', () => {
  const planted = ['see /home/', 'x/y'].join('')
  assert.match(planted, machinePath)
  assert.not.match('https://example.org/+/x and ../+/y'.replaceAll('+', 'home'), machinePath)
  for (const { file } of files) {
    const text = read(file)
    const found = machinePath.exec(text)
    const host = file === 'test/house/repository.test.ts' ? null : registry.exec(text)
    for (const hit of [found, host])
      assert.is(hit, null, `${file}: ${text.slice(Math.max(0, (hit?.index ?? 0) - 30), (hit?.index ?? 0) + 60)}`)
  }
})

test('lock files name versions and hashes, no hosts', () => {
  const locks = files.map(({ file }) => file).filter((file) => file.endsWith('package-lock.json'))
  if (isClone) assert.ok(locks.includes('package-lock.json'))
  for (const file of locks) {
    const { packages } = JSON.parse(read(file)) as { packages: Record<string, { resolved?: string }> }
    assert.ok(Object.keys(packages).length > 20, file)
    for (const [name, { resolved }] of Object.entries(packages))
      assert.not.ok(resolved !== undefined && /^[a-z+]+:\/\//.test(resolved), `${file}: ${name} is from ${resolved}`)
    const settings = normalize(join(dirname(file), '.npmrc'))
    assert.match(read(settings), /^omit-lockfile-registry-resolved=true$/m, `${settings} keeps it so`)
  }
})

test('files are short', () => {
  const tables = ['native/kernels/iq_grids.inl'] // constants of the GGUF format
  for (const { file } of files) {
    if (tables.includes(file) || !/^(lib|native|test|scripts|bench)\/.*\.(ts|mjs|js|cc|c|h|inl|def|py)$/.test(file))
      continue
    const lines = read(file).split('\n').length
    assert.ok(lines < longest, `${file} has ${lines} lines`)
  }
})

test('every file of lib/ and scripts/ begins by saying what it is', () => {
  for (const file of typeScriptSources().keys())
    assert.match(read(join('lib', file)), /^(#!.*\n)?\/\*\*[\s\S]{10,}?\*\//, `lib/${file} has no leading comment`)
  for (const { file } of files) if (file.startsWith('scripts/')) assert.match(read(file), /^\/\/ \S/, file)
})

test('test files run their tests', () => {
  for (const { file } of files.filter(({ file }) => file.endsWith('.test.ts'))) {
    const text = read(file)
    assert.match(text, /^\s*\w+\.run\(\)$/m, file)
    assert.not.match(text, /\btest\.(only|skip)\(/, file)
  }
})

/** Names that an entry exports, and the file each one is declared in. */
const exportsOf = (entry: string): { name: string; file: string }[] =>
  [...read(entry).matchAll(/export (?:type )?\{([^}]*)\} from '([^']+)'/g)].flatMap(([, names = '', from = '']) =>
    names
      .split(',')
      .map((name) => name.trim().replace(/^type /, ''))
      .filter(Boolean)
      .map((name) => ({ name, file: normalize(join(dirname(entry), from)).replace(/\.js$/, '.ts') })),
  )

test('every public export has a docstring', () => {
  for (const entry of ['lib/index.ts', 'lib/kernels.ts']) {
    const exported = exportsOf(entry)
    assert.ok(exported.length > 10)
    assert.not.match(read(entry), /export \*/, `${entry} names what it exports`)
    for (const { name, file } of exported)
      assert.match(
        read(file),
        new RegExp(`\\*/\\nexport (?:async )?(?:class|interface|type|const|function) ${name}\\b`),
        `${name} of ${entry} has no docstring in ${file}`,
      )
  }
})

test.run()
