/** `drover doctor`: what drover sees of the machine. */
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { totalmem } from 'node:os'
import { cpu, cpuDevice } from '../../device/cpu.js'
import { type Limits, measureLimits, wantedBuffer } from '../../device/limits.js'
import { type Tuning, tuning, tuningFile } from '../../device/tuning.js'
import { DroverError } from '../../errors.js'
import type { ActivationDType } from '../../program/program.js'
import { type DTypeName, dtypes } from '../../tensor.js'
import { version } from '../../version.js'
import type { Command } from '../command.js'
import { bytes, json, line, table } from '../output.js'

const hugePages = async (): Promise<string> => {
  const text = await readFile('/sys/kernel/mm/transparent_hugepage/enabled', 'utf8').catch(() => '')
  return /\[(\w+)\]/.exec(text)?.[1] ?? 'unknown'
}

interface KernelChoice {
  weights: string
  /** What the kernel multiplies: f32, or 8 bits with a scale per 32 or per 256 elements. */
  activations: Exclude<ActivationDType, 'u32' | 'bf16'>
  kernel: string
  /** Instructions that do its work. */
  path: string
}

const decoded = 'rows of the file, decoded to f32 in the kernel'

/** Which kernel multiplies each format of weights. */
const kernelChoices = (): KernelChoice[] => {
  const { layout } = cpuDevice
  const { floatPath, bytePath } = cpu()
  return Object.keys(dtypes)
    .filter((name) => !/^(u\d+|bool)$/.test(name)) // never weights
    .map((name) => name as DTypeName)
    .map((weights) => {
      const activations = layout.gemmActivations(weights)
      if (activations === undefined)
        return {
          weights,
          activations: 'f32',
          kernel: decoded,
          path: floatPath,
        }
      return activations === 'f32' || activations === 'f8_row'
        ? { weights, activations, kernel: 'panels, widened to f32', path: floatPath }
        : { weights, activations: activations as 'a8_32', kernel: 'panels of codes', path: bytePath }
    })
}

const activationNames = {
  f32: 'f32',
  a8_32: '8 bits, a scale per 32',
  a8_256: '8 bits, a scale per 256',
  a8_row: '8 bits, a scale per row',
  f8_row: '8-bit floats, a scale per row',
}

/** A line per kernel, with all its formats. */
const kernelLines = (choices: readonly KernelChoice[]): string[][] => {
  const rows = new Map<string, string[]>()
  for (const { weights, activations, kernel, path } of choices) {
    const key = `${kernel}/${activations}`
    const row = rows.get(key)
    if (row === undefined) rows.set(key, [weights, activationNames[activations], kernel, path])
    else row[0] += ` ${weights}`
  }
  // What is decoded in the kernel comes last: the longest line, and the least interesting.
  return [...rows.values()].sort(([, , a = ''], [, , b = '']) => Number(a === decoded) - Number(b === decoded))
}

const giga = (value: number): string => (value / 1e9).toFixed(value < 1e11 ? 1 : 0)

const limitLines = (limits: Limits): string[][] => {
  const wanted = wantedBuffer()
  const over = `over ${bytes(limits.bufferBytes)}`
  const short = limits.bufferBytes < wanted ? `; memory does not allow ${bytes(wanted)}, caches may have helped` : ''
  return [
    ['reads memory at', `${giga(limits.readBytesPerSecond)} GB/s (${over}${short})`],
    ['f32 multiply-adds', `${giga(limits.f32PerSecond)} GFLOP/s`],
    ['products of bytes', `${giga(limits.int8PerSecond)} Gop/s`],
    [
      'BF16 products',
      limits.bf16PerSecond > 0 ? `${giga(limits.bf16PerSecond)} GFLOP/s, for activations: 'bf16'` : 'none',
    ],
  ]
}

/** The file that holds the choices: none where it could not be written. */
const keptIn = (): string | undefined => {
  const path = tuningFile()
  return path !== undefined && existsSync(path) ? path : undefined
}

const tuningLine = ({ requests, floatRows, floatPanels, byteRows }: Tuning): string =>
  `${requests} request${requests === 1 ? '' : 's'} per line of weights; blocks of ${floatRows} rows x ${floatPanels * 16} columns of floats; ` +
  `${bytes(byteRows)} of 8-bit rows (${keptIn() ?? 'not kept'})`

export const doctor: Command = {
  name: 'doctor',
  usage: '',
  summary:
    'What drover sees of this machine, what it can do at most, which kernels it picks and why, and what is wrong. Exit code 0 when all is well.',
  options: {},
  positionals: [0, 0],
  run: async (args) => {
    const problems: string[] = []
    const info = cpu() // throws E_NATIVE or E_ISA, which say what to do
    const pages = await hugePages()
    const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
    if (major < 20 || (major === 20 && minor < 19))
      problems.push(`Node ${process.versions.node} is older than 20.19: install a newer one`)
    if (info.isa === 'scalar') problems.push('only the scalar kernels run here: expect a tenth of the speed')
    if (info.isa !== info.isaBest)
      problems.push(`DROVER_ISA forces ${info.isa} although this CPU can run ${info.isaBest}: unset it`)
    if (pages === 'never')
      problems.push('transparent huge pages are off: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled')
    const choices = await tuning(cpuDevice)
    const limits = await measureLimits()
    const kernels = kernelChoices()
    const memory = { total: totalmem(), available: process.availableMemory() }
    const report = {
      drover: version,
      node: process.versions.node,
      platform: `${process.platform}-${process.arch}`,
      cpu: info,
      memory,
      hugePages: pages,
      limits: { ...limits, wantedBufferBytes: wantedBuffer() },
      tuning: { ...choices, file: keptIn() ?? null },
      kernels,
      problems,
    }
    if (args.flag('json')) json(report)
    else {
      line(
        table([
          ['drover', version],
          ['node', `${process.versions.node}, ${report.platform}`],
          ['instruction set', info.isa === info.isaBest ? info.isa : `${info.isa} (best: ${info.isaBest})`],
          ['features', info.features],
          ['threads', `${info.threads}: ${info.threadsReason}`],
          [
            'CPUs',
            `${info.logicalCpus} online, ${info.affinityCpus} allowed, ${info.physicalCores} cores, quota ${info.quotaCpus || 'none'}`,
          ],
          ['caches', `L1 ${bytes(info.l1dBytes)}, L2 ${bytes(info.l2Bytes)}, L3 ${bytes(info.l3Bytes)}`],
          ['memory', `${bytes(memory.available)} available of ${bytes(memory.total)}`],
          ['huge pages', pages],
          ...limitLines(limits),
          ['measured choices', tuningLine(choices)],
        ]),
      )
      line('\nkernels by format of the weights:')
      for (const [weights = '', activations, kernel, path] of kernelLines(kernels))
        line(`  ${weights}\n    times ${activations}: ${kernel}; ${path}`)
      for (const problem of problems) line(`problem: ${problem}`)
      if (problems.length === 0) line('all is well')
    }
    if (problems.length > 0)
      throw new DroverError('E_UNSUPPORTED', `${problems.length} problem${problems.length > 1 ? 's' : ''} found`)
  },
}
