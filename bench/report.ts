/** What benchmarks tell, put together: limits of a process, shares of them, tables. */
import { betterLimits, type Limits, leastTime } from '../lib/device/limits.js'
import type { Arithmetic, Work } from '../lib/program/cost.js'

/** One case, as its process measured it. */
export interface Measured extends Work {
  /** Kernels that share a picture. */
  readonly family: string
  readonly suite: string
  readonly name: string
  /** Of one run, the median. */
  readonly seconds: number
  /** Things per second, where operations and bytes do not say it. */
  readonly items?: string
  /** Of lookups: the seconds that reading their rows at random takes at least, by nothing but the reading. */
  readonly gatherSeconds?: number | undefined
}

/** A line of a benchmark's process: a suite, and the best of the limits that the process has measured up to its end. */
export interface Block {
  readonly isa: string
  readonly threads: number
  readonly limits?: Limits
  readonly measured: readonly Measured[]
}

/** A case beside the limits of its process. */
export interface Judged extends Measured {
  readonly gflops?: number
  readonly gbps?: number
  /** Of what the machine can do at most: the time it would need, by the time taken. */
  readonly share?: number
  readonly bound?: 'memory' | 'random rows' | Arithmetic
  /** The limit lies below what the kernel reached: it is none. */
  readonly isVoid?: boolean
}

export interface Report {
  readonly isa: string
  readonly threads: number
  readonly limits?: Limits
  readonly measured: readonly Judged[]
}

export const judge = (measured: Measured, limits: Limits | undefined): Judged => {
  const { flops, bytes, seconds } = measured
  const rates = {
    ...(flops === undefined ? {} : { gflops: flops / seconds / 1e9 }),
    ...(bytes === undefined ? {} : { gbps: bytes / seconds / 1e9 }),
  }
  if (measured.gatherSeconds !== undefined) {
    const share = measured.gatherSeconds / seconds
    return { ...measured, ...rates, share, bound: 'random rows', ...(share > 1 ? { isVoid: true } : {}) }
  }
  if (limits === undefined || (flops === undefined && bytes === undefined)) return { ...measured, ...rates }
  const least = leastTime(measured, limits)
  const share = least.seconds / seconds
  return { ...measured, ...rates, share, bound: least.bound, ...(share > 1 ? { isVoid: true } : {}) }
}

/** The blocks of one process, all beside the best of its limits. */
export const reportOf = (blocks: readonly Block[]): Report => {
  const [first] = blocks
  if (first === undefined) throw new Error('the benchmark measured nothing')
  let limits: Limits | undefined
  for (const block of blocks)
    if (block.limits !== undefined) limits = limits === undefined ? block.limits : betterLimits(limits, block.limits)
  return {
    isa: first.isa,
    threads: first.threads,
    ...(limits === undefined ? {} : { limits }),
    measured: blocks.flatMap(({ measured }) => measured.map((one) => judge(one, limits))),
  }
}

const fixed = (value: number | undefined, digits = 1): string => (value === undefined ? '' : value.toFixed(digits))

export const limitsLine = (limits: Limits): string =>
  [
    `reading ${fixed(limits.readBytesPerSecond / 1e9)} GB/s over ${fixed(limits.bufferBytes / 2 ** 30)} GiB`,
    `f32 ${fixed(limits.f32PerSecond / 1e9, 0)} GFLOP/s`,
    `int8 ${fixed(limits.int8PerSecond / 1e9, 0)} Gop/s`,
    ...(limits.bf16PerSecond > 0 ? [`BF16 ${fixed(limits.bf16PerSecond / 1e9, 0)} GFLOP/s`] : []),
  ].join(', ')

/** Reports as a Markdown table, one section per process. */
export const markdownOf = (reports: readonly Report[]): string => {
  const lines: string[] = []
  for (const { limits, measured } of reports) {
    if (limits !== undefined) lines.push(`Limits: ${limitsLine(limits)}.`, '')
    lines.push('| suite | case | time, µs | Gop/s | GB/s | share | of |', '|---|---|---|---|---|---|---|')
    for (const m of measured) {
      const share = m.isVoid ? `void (${fixed(m.share, 2)})` : fixed(m.share, 2)
      lines.push(
        `| ${m.suite} | ${m.name} | ${fixed(m.seconds * 1e6)} | ${m.items ?? fixed(m.gflops)} | ${fixed(m.gbps)} | ${share} | ${m.bound ?? ''} |`,
      )
    }
    lines.push('')
  }
  return lines.join('\n')
}
