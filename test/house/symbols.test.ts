/**
 * Object files of the kernels share nothing that a linker may pick from the wrong one. An inline function or variable
 * compiled for AVX-512 becomes a weak symbol; linked first, it stands in for the baseline's own and ends older CPUs with
 * an illegal instruction. nm marks such symbols W, V or u.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { root } from '../support.js'

const objects = join(root, 'build', 'CMakeFiles', 'drover_core.dir', 'native', 'kernels')
const hasTools = spawnSync('nm', ['--version']).status === 0

interface Symbol {
  type: string
  name: string
}

const symbolsOf = (file: string): Symbol[] => {
  const { status, stdout, stderr } = spawnSync('nm', ['-C', file], { encoding: 'utf8', maxBuffer: 1 << 28 })
  assert.is(status, 0, stderr)
  return [...stdout.matchAll(/^[0-9a-f ]{16} ([A-Za-z]) (.+)$/gm)].map(([, type = '', name = '']) => ({ type, name }))
}

const shared = ({ type }: Symbol): boolean => 'WwVvu'.includes(type)

const objectFiles = (folder: string): string[] =>
  readdirSync(folder)
    .filter((name) => name.endsWith('.o'))
    .map((name) => join(folder, name))

const given: Record<string, string> = {
  ...Object.fromEntries(
    ['scalar', 'avx2', 'avx512', 'neon'].map((name) => [`recommend_${name}`, `drover::recommend_${name}()`]),
  ),
  bf16_avx512: 'drover::use_bf16_avx512(drover::KernelTable&)',
}

test('kernels define no symbol that another file may define too', () => {
  if (!hasTools) return console.log('nm is missing: not checked')
  // A build without object files (installed from a prebuild) has nothing to check; a clone always has them.
  assert.ok(existsSync(objects), 'build the addon first: npm run build:native')
  const isa = objectFiles(join(objects, 'isa'))
  assert.ok(isa.length >= 1)
  const all: Partial<Record<string, number>> = { x64: 8, arm64: 6 }
  assert.is(isa.length, all[process.arch] ?? isa.length)
  for (const file of [...isa, ...objectFiles(objects)]) {
    const symbols = symbolsOf(file)
    assert.ok(symbols.length > 0, file)
    assert.equal(
      symbols.filter(shared).map(({ type, name }) => `${type} ${name}`),
      [],
      file,
    )
  }
  // An instruction set gives one thing: its table, or what it puts into another's. Everything else of it is private.
  for (const file of isa) {
    const name = /([a-z0-9_]+)\.cc\.o$/.exec(file)?.[1] ?? ''
    assert.equal(
      symbolsOf(file)
        .filter(({ type }) => 'TDBRGSC'.includes(type))
        .map((symbol) => symbol.name),
      [given[name] ?? `drover::kernels_${name}()`],
    )
  }
})

test('such a symbol is seen', () => {
  const folder = mkdtempSync(join(tmpdir(), 'drover-symbols-'))
  try {
    const source = join(folder, 'x.cc')
    writeFileSync(
      source,
      'inline int shared_function(int x) { return x + 1; }\ninline int shared_variable = 3;\n' +
        'namespace { int private_function(int x) { return x; } }\n' +
        'int (*kept)(int) = shared_function; int (*own)(int) = private_function; int *variable = &shared_variable;\n',
    )
    const object = join(folder, 'x.o')
    if (!hasTools || spawnSync('c++', ['-std=c++20', '-c', source, '-o', object]).status !== 0)
      return console.log('nm or c++ is missing: not checked')
    assert.equal(
      symbolsOf(object)
        .filter(shared)
        .map(({ name }) => name)
        .sort(),
      ['shared_function(int)', 'shared_variable'],
    )
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test.run()
