/**
 * The packed tarball, installed into an empty project without network: what it holds, that both module systems share one
 * implementation in both Nodes, that its types fit, and that its commands run.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { root } from '../support.js'
import { otherNode, Workshop } from './staging.js'

const test = suite('package')
const workshop = new Workshop()
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string; files: string[] }
const platform = `${process.platform}-${process.arch}`
const nodes = existsSync(otherNode) ? [process.execPath, otherNode] : [process.execPath]
let tarball = ''
let dependencies: string[] = []
let project = ''

test.before(() => {
  const stage = workshop.stage()
  const made = workshop.output(stage, process.execPath, [join(stage, 'scripts', 'prebuild.mjs')])
  assert.match(made, new RegExp(`^prebuilds/${platform}/drover\\.(glibc\\.|musl\\.)?node {2}\\d+ bytes$`, 'm'))
  tarball = workshop.pack(stage, workshop.folder)
  dependencies = workshop.packInstalled('@huggingface/jinja', 'node-gyp-build')
  project = workshop.project('consumer', [tarball, ...dependencies])
})
test.after(() => workshop.close())

const installed = (...path: string[]): string => join(project, 'node_modules', 'drover', ...path)

test('the tarball holds what runs and what builds, and nothing else', () => {
  const top = readdirSync(installed()).sort()
  const always = ['CMakeLists.txt', 'LICENSE', 'assets', 'dist', 'native', 'package.json', 'prebuilds', 'scripts']
  const written = ['ARCHITECTURE.md', 'CHANGELOG.md', 'README.md'].filter((name) => existsSync(join(root, name)))
  assert.equal(top, [...always, ...written].sort())
  assert.equal(readdirSync(installed('scripts')), ['rebuild.mjs'])
  assert.not.ok(existsSync(installed('native', 'test')))
  assert.not.ok(existsSync(installed('node_modules')), 'its dependencies are those of the project')
  const dist = readdirSync(installed('dist'), { recursive: true, encoding: 'utf8' })
  const sources = readdirSync(join(root, 'lib'), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts'))
    .map((file) => file.slice(0, -3))
  const modules = dist.filter((file) => file.endsWith('.js')).map((file) => file.slice(0, -3))
  assert.equal(modules.sort(), sources.sort(), 'dist is lib, no more and no less')
  for (const file of sources) assert.ok(dist.includes(`${file}.d.ts`), `${file}.d.ts`)
  assert.ok(statSync(tarball).size < 7e6, `${statSync(tarball).size} bytes`)
  const names = readdirSync(installed('prebuilds', platform))
  assert.is(names.length, 1)
  const [prebuild = ''] = names
  assert.not.ok(readFileSync(installed('prebuilds', platform, prebuild)).includes('.symtab'), 'stripped')
  assert.ok(!existsSync(join(root, 'prebuilds')) || statSync(join(root, 'prebuilds')).isDirectory())
})

const checks = `
const model = await drover.loadLanguageModel(modelPath, { threads: 1 })
const { text, usage } = await model.generate('Once upon a time', { temperature: 0, maxTokens: 20 }).result()
await model.close()
const refused = async (call) => { try { await call() } catch (error) { return error } }
const late = await refused(() => model.logits([1]))
const wrong = await refused(() => kernels.gemm(new Float32Array(4), 7))
const product = kernels.gemm(Float32Array.of(1, 2, 3, 4), { dtype: 'f32', data: new Uint8Array(Float32Array.of(1, 0, 0, 1).buffer), shape: [2, 2] })
console.log(JSON.stringify({
  text, tokens: usage.completionTokens, version: drover.version, names: Object.keys(drover).sort(), kernels: Object.keys(kernels).sort(),
  late: [late instanceof drover.DroverError, late instanceof kernels.DroverError, late.code],
  wrong: [wrong instanceof drover.DroverError, wrong.code],
  one: drover.DroverError === kernels.DroverError, product: [...product], node: process.versions.node,
}))
`
const modelPath = `const modelPath = require('node:path').join(require.resolve('drover/package.json'), '..', 'assets', 'stories260K.gguf')\n`

interface Checked {
  text: string
  tokens: number
  version: string
  names: string[]
  kernels: string[]
  late: unknown[]
  wrong: unknown[]
  one: boolean
  product: number[]
  node: string
}

test('require and import give one implementation, in both Nodes', () => {
  const commonjs = `const drover = require('drover')\nconst kernels = require('drover/kernels')\n${modelPath};(async () => {${checks}})()`
  const esm = `import * as drover from 'drover'\nimport * as kernels from 'drover/kernels'\nimport { createRequire } from 'node:module'
const require = createRequire(import.meta.url)\n${modelPath}${checks}
const same = require('drover')
const others = require('drover/kernels')
for (const name of Object.keys(drover)) if (drover[name] !== same[name]) throw new Error(name + ' is there twice')
for (const name of Object.keys(kernels)) if (kernels[name] !== others[name]) throw new Error(name + ' is there twice')
if (Object.keys(drover).length !== Object.keys(same).length) throw new Error('import and require give different names')
`
  writeFileSync(join(project, 'one.cjs'), commonjs)
  writeFileSync(join(project, 'two.mjs'), esm)
  const results = nodes.flatMap((node) =>
    ['one.cjs', 'two.mjs'].map((file) => JSON.parse(workshop.output(project, node, [file])) as Checked),
  )
  const [first] = results as [Checked]
  assert.is(first.tokens, 20)
  assert.match(first.text, /^, there was a little girl named/)
  assert.is(first.version, manifest.version)
  assert.ok(first.names.includes('loadLanguageModel') && first.names.includes('DroverError'))
  assert.ok(first.kernels.includes('gemm') && first.kernels.includes('cpu'))
  assert.equal(first.late, [true, true, 'E_CLOSED'])
  assert.is(first.wrong[0], true)
  assert.is(first.one, true)
  assert.equal(first.product, [1, 2, 3, 4])
  for (const { node: _, ...result } of results) {
    const { node: __, ...expected } = first
    assert.equal(result, expected)
  }
  const majors = new Set(results.map(({ node }) => node.split('.')[0]))
  assert.is(majors.size, nodes.length, [...majors].join(', '))
})

test('nothing else can be imported', () => {
  for (const path of ['drover/dist/index.js', 'drover/lib/index.js', 'drover/dist/device/native.js', 'drover/serve']) {
    const { code, err } = workshop.run(project, process.execPath, ['-e', `require('${path}')`])
    assert.is(code, 1, path)
    assert.match(err, /ERR_PACKAGE_PATH_NOT_EXPORTED/, path)
  }
})

test('npx drover runs in both Nodes, from any folder', () => {
  for (const node of nodes) {
    const env = workshop.pathWith(node)
    const doctor = JSON.parse(workshop.run(project, 'npx', ['--offline', 'drover', 'doctor', '--json'], env).out)
    assert.is(`v${doctor.node}`, workshop.output(project, node, ['--version']).trim())
    const demo = JSON.parse(
      workshop.output(project, 'npx', ['--offline', 'drover', 'demo', '--json', '-t', '0', '-n', '20'], env),
    )
    assert.match(demo.text, /^, there was a little girl named/)
    for (const name of ['promptPerSecond', 'generationPerSecond', 'firstTokenMs', 'threads'])
      assert.ok(demo[name] > 0, `${name}: ${demo[name]}`)
    assert.is(typeof demo.threadsReason, 'string')
    const elsewhere = join(workshop.folder, 'home')
    const bin = join(project, 'node_modules', '.bin', 'drover')
    assert.match(workshop.output(elsewhere, bin, ['demo', '-n', '5'], env), /^Once upon a time/)
  }
})

const consumer = `import {
  DroverError, type ErrorCode, type GenerateOptions, type GenerationResult, type LanguageModel, type LanguageModelOptions,
  loadLanguageModel, loadTokenizer, type Tokenizer, version,
} from 'drover'
import { cpu, gemm, quantize, type Weight } from 'drover/kernels'

export const run = async (path: string): Promise<string> => {
  const options: LanguageModelOptions = { threads: 1, kvType: 'q8_0', onProgress: (fraction, what) => void [fraction.toFixed(), what] }
  await using scoped: LanguageModel = await loadLanguageModel(path, options)
  const model: LanguageModel = await loadLanguageModel(path)
  const sampling: GenerateOptions = { temperature: 0, stop: ['x'], logitBias: { 3: -1 } }
  for await (const { text, token, logprob } of model.generate('a', sampling)) void [text.length, token + (logprob ?? 0)]
  const result: GenerationResult = await model.generate([1, 2]).result()
  const tokenizer: Tokenizer = await loadTokenizer(path)
  const ids: Int32Array = tokenizer.encode('a', { bos: true })
  const weight: Weight = { dtype: 'q8_0', data: quantize('q8_0', new Float32Array(32), [1, 32]), shape: [1, 32] }
  const product: Float32Array = gemm(new Float32Array(32), weight)
  void [scoped, ids, product, cpu().threadsReason, version.length]
  // @ts-expect-error options are typed
  await loadLanguageModel(path, { thread: 1 })
  try {
    await model.close()
  } catch (error) {
    if (error instanceof DroverError) {
      const code: ErrorCode = error.code
      if (code === 'E_CLOSED') return code
    }
  }
  // @ts-expect-error no such reason
  if (result.finishReason === 'bored') return ''
  return result.text
}
`

test('types fit with moduleResolution node16 and bundler, in CommonJS and ESM', () => {
  const types = join(project, 'node_modules', '@types')
  if (!existsSync(types)) {
    mkdirSync(types)
    for (const name of ['@types/node', 'undici-types'])
      symlinkSync(join(root, 'node_modules', name), join(project, 'node_modules', name))
  }
  const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc')
  for (const [module, moduleResolution, files] of [
    ['node16', 'node16', ['consumer.mts', 'consumer.cts', 'consumer.ts']],
    ['nodenext', 'nodenext', ['consumer.mts', 'consumer.cts', 'consumer.ts']],
    ['esnext', 'bundler', ['consumer.mts', 'consumer.ts']],
  ] as const) {
    const folder = join(project, `types-${moduleResolution}`)
    mkdirSync(folder)
    for (const file of files) writeFileSync(join(folder, file), consumer)
    writeFileSync(
      join(folder, 'tsconfig.json'),
      JSON.stringify({
        compilerOptions: {
          ...{ module, moduleResolution, target: 'es2022', lib: ['es2022', 'esnext.disposable'], types: ['node'] },
          ...{ strict: true, skipLibCheck: false, noEmit: true, exactOptionalPropertyTypes: true },
        },
        files,
      }),
    )
    workshop.output(folder, process.execPath, [tsc, '-p', '.'])
    // And it does look: a wrong call is an error in every one of the files.
    for (const file of files) writeFileSync(join(folder, file), consumer.replace(/\/\/ @ts-expect-error.*/g, ''))
    const { code, out } = workshop.run(folder, process.execPath, [tsc, '-p', '.'])
    assert.is.not(code, 0)
    for (const file of files) assert.is(out.split(file).length - 1 >= 2, true, out)
  }
})

test('without a build that fits, the error names the one command that makes one', () => {
  const bare = workshop.project('bare', [tarball, ...dependencies])
  const folder = join(bare, 'node_modules', 'drover')
  rmSync(join(folder, 'prebuilds'), { recursive: true })
  for (const node of nodes) {
    // Loading the package is no error: what needs no addon works.
    const script = `const d = require('drover'); console.log(d.version); d.loadLanguageModel(process.argv[1]).catch((e) => console.log(JSON.stringify([e instanceof d.DroverError, e.code, e.message])))`
    const out = workshop.output(bare, node, ['-e', script, join(folder, 'assets', 'stories260K.gguf')])
    const [version, error = ''] = out.trim().split('\n')
    assert.is(version, manifest.version)
    const [ours, code, message] = JSON.parse(error) as [boolean, string, string]
    assert.equal([ours, code], [true, 'E_NATIVE'])
    const command = /build it from source with: node (\S+)$/.exec(message)?.[1]
    assert.ok(command !== undefined && existsSync(command), message)
    assert.ok(message.includes(platform), message)
    const cli = workshop.run(bare, node, [join(folder, 'dist', 'cli', 'main.js'), 'demo'])
    assert.is(cli.code, 1)
    assert.match(cli.err, /^drover: E_NATIVE: .*rebuild\.mjs\n$/)
  }
  // A prebuild of another machine or of another C library does not count as one that fits.
  const other = join(folder, 'prebuilds', process.arch === 'x64' ? 'linux-arm64' : 'linux-x64')
  mkdirSync(other, { recursive: true })
  writeFileSync(join(other, 'drover.glibc.node'), 'no addon')
  const { err } = workshop.run(bare, process.execPath, [join(folder, 'dist', 'cli', 'main.js'), 'demo'])
  assert.match(err, /^drover: E_NATIVE: .*rebuild\.mjs\n$/)
})

test.run()
