/** Arrows between the rooms of the house point one way. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { root } from '../support.js'
import { cycles, importsOf, includesOf, nativeSources, roomOf, typeScriptSources, wrongArrows } from './sources.js'

// cli, serve -> generate, recommend -> model, device -> program, memory -> tensor, format, check, errors
const floor = ['errors.ts', 'check.ts', 'tensor.ts', 'version.ts', 'format']
const middle = ['program', 'memory', ...floor]
const upper = ['model', 'device', 'text', ...middle]
const rooms: Record<string, readonly string[]> = {
  'errors.ts': [],
  'version.ts': [],
  'check.ts': ['errors.ts'],
  'tensor.ts': ['errors.ts'],
  format: ['errors.ts', 'check.ts', 'tensor.ts'],
  text: floor,
  program: floor,
  memory: ['program', ...floor], // its book-keeping is in the pages that programs are made for
  model: middle,
  device: middle,
  kernels: upper, // one-op programs for users: beside generate
  convert: upper, // files into other formats: beside generate
  generate: ['convert', ...upper], // weights may be converted as they are loaded
  recommend: ['convert', ...upper], // tables and layers may be converted as they are loaded
  cli: ['convert', 'generate', 'recommend', 'serve', ...upper],
  serve: ['generate', 'recommend', ...upper],
  'index.ts': ['convert', 'generate', 'recommend', ...upper],
  'kernels.ts': ['kernels', ...upper],
}

test('rooms of lib/ import only what lies below them', () => {
  const sources = typeScriptSources()
  assert.ok(sources.size > 60, `${sources.size} files`)
  assert.ok([...sources.values()].flat().length > 250, 'imports are found')
  for (const file of sources.keys()) assert.ok(roomOf(file) in rooms, `lib/${roomOf(file)} is no room of the house`)
  for (const [file, imports] of sources)
    for (const { own, to } of imports) if (own) assert.ok(sources.has(to), `${file} imports ${to}, which is not there`)
  assert.equal(wrongArrows(sources, rooms), [])
})

test('no file of lib/ imports itself through others', () => {
  assert.equal(cycles(typeScriptSources()), [])
})

test('only device/native.ts loads the addon', () => {
  const loaders = ['node-gyp-build', 'bindings', 'node-pre-gyp']
  for (const [file, imports] of typeScriptSources()) {
    const loading = imports.filter(({ to }) => loaders.includes(to) || to.endsWith('.node'))
    const text = readFileSync(join(root, 'lib', file), 'utf8')
    const other = /\bdlopen\b|createRequire|\brequire\b(?!\(['"])/.test(
      text.replace(/\(require\('node-gyp-build'\)/, '('),
    )
    assert.is(loading.length, file === 'device/native.ts' ? 1 : 0, file)
    assert.not.ok(other, `${file} loads something by a name that cannot be read here`)
    if (!file.startsWith('device/') && file !== 'index.ts' && file !== 'kernels.ts')
      assert.not.ok(
        imports.some(({ to }) => to === 'device/native.ts'),
        `${file} imports device/native.ts`,
      )
  }
})

test('packages that lib/ imports are dependencies', () => {
  const { dependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    dependencies: Record<string, string>
  }
  const used = new Set<string>()
  for (const imports of typeScriptSources().values())
    for (const { own, to } of imports) if (!own && !to.startsWith('node:')) used.add(to)
  assert.equal([...used].sort(), Object.keys(dependencies).sort())
})

test('a wrong arrow, a circle and hidden imports are seen', () => {
  const sources = new Map([
    ['model/a.ts', importsOf('model/a.ts', "import type { A } from '../device/b.js'\nimport fs from 'node:fs'")],
    ['device/b.ts', importsOf('device/b.ts', "export {\n  b,\n} from './c.js'\n")],
    ['device/c.ts', importsOf('device/c.ts', "const c = await import('./b.js')")],
    ['tensor.ts', importsOf('tensor.ts', "import './format/d.js'")],
    ['format/d.ts', importsOf('format/d.ts', "import { e } from '../errors.js' // taken from 'x y'")],
    ['attic/e.ts', importsOf('attic/e.ts', "require('../errors.js')")],
  ])
  assert.equal(wrongArrows(sources, rooms), [
    'model/a.ts -> device/b.ts',
    'tensor.ts -> format/d.ts',
    'attic/e.ts -> errors.ts',
  ])
  assert.equal(cycles(sources), ['device/b.ts -> device/c.ts -> device/b.ts'])
})

const nativeRooms: Record<string, readonly string[]> = {
  include: [],
  kernels: [], // nothing else of ours
  ops: ['core', 'kernels', 'include'],
  core: ['ops', 'kernels', 'include'],
  bridge: ['include'], // the C ABI and nothing behind it
  test: ['core', 'ops', 'kernels', 'include'],
}

test('native code: kernels stand alone, only the bridge sees N-API', () => {
  const sources = nativeSources()
  assert.ok(sources.size > 50, `${sources.size} files`)
  assert.equal(wrongArrows(sources, nativeRooms), [])
  assert.equal(cycles(new Map([...sources].filter(([file]) => file.endsWith('.h')))), [])
  for (const [file, includes] of sources) {
    const napi = includes.filter(({ to }) => /(^|\/)(napi|node|uv|v8)[^/]*\.h$|node_api/.test(to))
    if (roomOf(file) !== 'bridge') assert.equal(napi, [], file)
    for (const { to } of includes) assert.not.match(to, /^missing:/, `${file}: ${to}`)
  }
  const planted = includesOf(
    'kernels/x.inl',
    '#include <napi.h>\n # include "core/pool.h"',
    (path) => path === 'core/pool.h',
  )
  assert.equal(wrongArrows(new Map([['kernels/x.inl', planted]]), nativeRooms), ['kernels/x.inl -> core/pool.h'])
})

test('instruction set flags are only for kernels/isa', () => {
  const text = readFileSync(join(root, 'CMakeLists.txt'), 'utf8')
  const flagged = [...text.matchAll(/set_source_files_properties\(\s*([^)]*?)\s+PROPERTIES/g)].map(([, files]) => files)
  assert.ok(flagged.length >= 4)
  for (const files of flagged)
    for (const file of (files as string).split(/\s+/)) assert.match(file, /^native\/kernels\/isa\/\w+\.cc$/)
  // Flags of a whole target or folder would reach baseline code.
  for (const line of text.split('\n'))
    if (/add_compile_options|target_compile_options|CMAKE_CXX_FLAGS/.test(line))
      assert.not.match(line, /-m(arch|avx|fma|f16c|bmi|sse|tune)/)
  const intrinsics = [...nativeSources()].filter(([, includes]) =>
    includes.some(({ to }) => ['immintrin.h', 'arm_neon.h'].includes(to)),
  )
  assert.ok(intrinsics.length >= 3)
  for (const [file] of intrinsics) assert.match(file, /^kernels\/simd\//)
})

test('only platform_*.cc include headers of a system', () => {
  const systems = /^(sys\/.*|unistd|fcntl|sched|pthread|windows)(\.h)?$/
  const users = [...nativeSources()].filter(([, includes]) => includes.some(({ own, to }) => !own && systems.test(to)))
  assert.ok(users.length >= 4)
  for (const [file] of users) if (!file.startsWith('test/')) assert.match(file, /^core\/platform_\w+\.cc$/)
})

test.run()
