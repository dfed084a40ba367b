/** `drover doctor`: what drover sees of the machine. */
import { readFile } from 'node:fs/promises'
import { totalmem } from 'node:os'
import { cpu } from '../../device/cpu.js'
import { DroverError } from '../../errors.js'
import { version } from '../../version.js'
import type { Command } from '../command.js'
import { bytes, json, line, table } from '../output.js'

const hugePages = async (): Promise<string> => {
  const text = await readFile('/sys/kernel/mm/transparent_hugepage/enabled', 'utf8').catch(() => '')
  return /\[(\w+)\]/.exec(text)?.[1] ?? 'unknown'
}

export const doctor: Command = {
  name: 'doctor',
  usage: '',
  summary: 'What drover sees of this machine, what it chose and why, and what is wrong. Exit code 0 when all is well.',
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
    const memory = { total: totalmem(), available: process.availableMemory() }
    const report = {
      drover: version,
      node: process.versions.node,
      platform: `${process.platform}-${process.arch}`,
      cpu: info,
      memory,
      hugePages: pages,
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
        ]),
      )
      for (const problem of problems) line(`problem: ${problem}`)
      if (problems.length === 0) line('all is well')
    }
    if (problems.length > 0)
      throw new DroverError('E_UNSUPPORTED', `${problems.length} problem${problems.length > 1 ? 's' : ''} found`)
  },
}
