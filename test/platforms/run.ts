/**
 * The packed tarball on other platforms: builds every prebuild with zig, installs the tarball into an empty project
 * without network, and runs the kernel tests and a story in real Nodes: of this machine, of arm64 under QEMU, of Windows
 * under Wine. Addons for macOS are read, not run. What the machine lacks is skipped, with the reason. The last line is
 * `N passed, N failed`.
 *
 *   npm run test:platforms -- [--fetch] [--no-build] [text that a platform's or its addon's name must contain ...]
 *
 * --fetch gets the Nodes from npm (about 40 MB each) into build/nodes; --no-build takes prebuilds/ as it is.
 */
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, readFileSync, rmSync } from 'node:fs'
import { basename, join } from 'node:path'
import { cpu } from '../../lib/device/cpu.js'
import { isaNames } from '../isa.js'
import { Workshop } from '../package/staging.js'
import { fixture, root } from '../support.js'
import { faultsOf } from './addons.js'
import { bundle, kernelTests } from './bundle.js'
import { type Machine, machines } from './machines.js'
import { nodeBinary } from './nodes.js'
import type { Story } from './story.js'

const args = process.argv.slice(2)
const fetch = args.includes('--fetch')
const wanted = args.filter((arg) => !arg.startsWith('--'))
const isWanted = (name: string): boolean => wanted.length === 0 || wanted.some((part) => name.includes(part))
const golden = readFileSync(fixture('stories260K/expected_greedy_200.txt'), 'utf8')

let passed = 0
let failed = 0
const report = (what: string, good: number, bad: number, output = ''): void => {
  passed += good
  failed += bad
  console.log(`${bad === 0 ? 'ok  ' : 'FAIL'} ${what}`)
  if (bad > 0 && output !== '') console.log(output.replace(/^/gm, '    '))
}
const skip = (what: string, reason: string): void => console.log(`skip ${what}: ${reason}`)

const script = (name: string): string => join(root, 'scripts', name)

/** Builds what zig can, and reads every addon that is there; returns their paths by name. */
const prebuild = async (): Promise<ReadonlyMap<string, string>> => {
  const { targets } = (await import(script('targets.mjs'))) as { targets: { name: string; path: string }[] }
  const needed = machines.filter((machine) => isWanted(machine.name)).map(({ target }) => target)
  const chosen = targets.filter(({ name }) => isWanted(name) || needed.includes(name))
  const build = !args.includes('--no-build')
  const { findZig } = (await import(script('zig.mjs'))) as { findZig: () => string[] | undefined }
  if (build && findZig() === undefined) skip('building the addons', 'zig is missing: pip install ziglang')
  else if (build && chosen.length > 0) {
    const names = chosen.map(({ name }) => name)
    const { status } = spawnSync(process.execPath, [script('prebuild.mjs'), '--all', ...names], { stdio: 'inherit' })
    report('every addon is built', Number(status === 0), Number(status !== 0))
  }
  for (const { name, path } of chosen) {
    if (!existsSync(join(root, path))) {
      skip(`the addon of ${name}`, 'it is not built')
      continue
    }
    const faults = faultsOf(name, join(root, path))
    report(
      `the addon of ${name} needs and gives what it should`,
      Number(faults.length === 0),
      faults.length,
      faults.join('\n'),
    )
  }
  return new Map(targets.map(({ name, path }) => [name, path]))
}

interface Outcome {
  code: number | null
  output: string
}

/** Runs scripts of a project's test folder in the Node of a machine. */
class Runner {
  readonly #result: string
  constructor(
    readonly workshop: Workshop,
    readonly project: string,
    readonly machine: Machine,
    readonly node: string,
  ) {
    this.#result = join(project, 'result.json')
  }

  run(name: string, env: Record<string, string> = {}): Outcome {
    const { under, path, env: own } = this.machine
    const inside = [join(this.project, 'test', 'inside.js'), this.#result, join(this.project, 'test', name)].map(path)
    const [command = '', ...rest] = [...under, this.node, ...inside]
    rmSync(this.#result, { force: true })
    const ran = this.#started(command, rest, { ...own, DROVER_THREADS: '2', ...env })
    if (existsSync(this.#result)) return JSON.parse(readFileSync(this.#result, 'utf8')) as Outcome
    return { code: ran.code, output: `it ended without a result\n${ran.out}${ran.err}` }
  }

  /** One that does not end in time is a failure of its own, not the end of all. */
  #started(command: string, args: readonly string[], env: Record<string, string>): ReturnType<Workshop['run']> {
    try {
      return this.workshop.run(this.project, command, args, env)
    } catch (error) {
      return { code: -1, out: '', err: String(error) }
    }
  }
}

const countOf = (output: string, label: string): number =>
  [...output.matchAll(new RegExp(`^\\s+${label}:\\s+(\\d+)`, 'gm'))].reduce((sum, [, n]) => sum + Number(n), 0)

/** What the machine's story must be told with: a prebuild that quietly falls back to less is a broken one. */
const bestOf = ({ sets }: Machine): string => sets?.at(-1) ?? cpu().isaBest

const runStory = (runner: Runner): void => {
  const { code, output } = runner.run('story.js')
  const { name } = runner.machine
  const story = code === 0 ? (JSON.parse(output) as Story) : undefined
  const good = story?.text === golden && story.isa === bestOf(runner.machine)
  report(`${name}: the golden story${story ? ` (${story.isa})` : ''}`, Number(good), Number(!good), output)
}

const runKernels = (runner: Runner): void => {
  const { name } = runner.machine
  for (const test of kernelTests) {
    const { code, output } = runner.run(`${basename(test, '.ts')}.js`)
    const good = countOf(output, 'Passed')
    const bad = countOf(output, 'Total') - good - countOf(output, 'Skipped')
    report(`${name}: ${test}, ${good} passed`, good, bad === 0 && (code !== 0 || good === 0) ? 1 : bad, output)
  }
}

/** Of the first machine's scalar set. */
let firstHashes: Record<string, string> | undefined

/** Every set of every machine gives the bits of the first machine's scalar one. */
const runBits = (runner: Runner): void => {
  const { name, sets = isaNames } = runner.machine
  for (const isa of sets) {
    const { code, output } = runner.run('bits.js', { DROVER_ISA: isa })
    const optional = runner.machine.sets === undefined && isa !== 'scalar' && isa !== bestOf(runner.machine)
    if (code !== 0 && optional && output.includes('E_ISA')) continue
    const { hashes } = code === 0 ? (JSON.parse(output) as { hashes: Record<string, string> }) : { hashes: {} }
    if (code === 0) firstHashes ??= hashes
    const right = firstHashes ?? {}
    const names = Object.keys(right)
    const different = names.filter((key) => hashes[key] !== right[key])
    const good = names.length > 250 && different.length === 0
    report(
      `${name}: ${isa} gives the bits of the first scalar set`,
      Number(good),
      Number(!good),
      code === 0 ? different.join(', ') : output,
    )
  }
}

const main = async (): Promise<void> => {
  const paths = await prebuild()
  const workshop = new Workshop()
  try {
    const stage = workshop.stage()
    const prebuilds = join(root, 'prebuilds')
    if (existsSync(prebuilds)) cpSync(prebuilds, join(stage, 'prebuilds'), { recursive: true })
    const tarball = workshop.pack(stage, workshop.folder)
    const project = workshop.project('elsewhere', [
      tarball,
      ...workshop.packInstalled('@huggingface/jinja', 'node-gyp-build'),
    ])
    await bundle(
      [...kernelTests, join('kernel', 'bits.ts'), join('platforms', 'story.ts'), join('platforms', 'inside.ts')],
      join(project, 'test'),
    )
    cpSync(fixture(''), join(project, 'test', 'fixtures'), { recursive: true })
    for (const machine of machines.filter(({ name, target }) => isWanted(name) || isWanted(target))) {
      const node = nodeBinary(machine.node, fetch)
      const addon = paths.get(machine.target)
      const reason =
        machine.missing() ??
        (addon === undefined || !existsSync(join(root, addon))
          ? `the addon of ${machine.target} is not built`
          : undefined) ??
        (node === undefined ? `${machine.node} is not here: run with --fetch` : undefined)
      if (node === undefined || reason !== undefined) {
        skip(machine.name, reason ?? '')
        continue
      }
      const runner = new Runner(workshop, project, machine, node)
      runStory(runner)
      if (!machine.kernels) continue
      runKernels(runner)
      runBits(runner)
    }
  } finally {
    workshop.close()
  }
  console.log(`${passed} passed, ${failed} failed`)
  process.exitCode = failed === 0 && passed > 0 ? 0 : 1
}

void main()
