/**
 * Benchmarks beside the machine's limits. benny gives the median time of a case; what that is in GFLOP/s or GB/s, and
 * which share of the limit measured in the same process before and after, is worked out here.
 */
import b from 'benny'
import { nativeAddon } from '../lib/device/native.js'

export interface Case {
  readonly name: string
  /** Floating-point (or integer) operations of one run, two per multiply-add. */
  readonly flops?: number
  /** Bytes that one run must read from memory. */
  readonly bytes?: number
  /** Things done by one run, and their name, where neither of the above says it. */
  readonly items?: { readonly count: number; readonly unit: string }
  run(): void
}

export interface Measured {
  readonly suite: string
  readonly name: string
  readonly seconds: number
  readonly gflops?: number
  readonly gbps?: number
  /** Of the f32 FMA peak or of the read bandwidth, as the case is bound by the one or the other. */
  readonly share?: number
  readonly items?: string
}

interface Limits {
  readBytesPerSecond: number
  fmaFlopsPerSecond: number
}

const json = process.argv.includes('--json')
const threadsArgument = process.argv.find((argument) => argument.startsWith('--threads='))
/** Workers of every step; 0: all that the machine allows. */
export const threads = Number(threadsArgument?.slice('--threads='.length) ?? 0)

const better = (a: Limits, c: Limits): Limits => ({
  readBytesPerSecond: Math.max(a.readBytesPerSecond, c.readBytesPerSecond),
  fmaFlopsPerSecond: Math.max(a.fmaFlopsPerSecond, c.fmaFlopsPerSecond),
})

const measuredOf = (suite: string, c: Case, seconds: number, limits: Limits): Measured => {
  const gflops = c.flops === undefined ? undefined : c.flops / seconds / 1e9
  const gbps = c.bytes === undefined ? undefined : c.bytes / seconds / 1e9
  const ofArithmetic = gflops === undefined ? 0 : (gflops * 1e9) / limits.fmaFlopsPerSecond
  const ofMemory = gbps === undefined ? 0 : (gbps * 1e9) / limits.readBytesPerSecond
  const share = Math.max(ofArithmetic, ofMemory)
  return {
    suite,
    name: c.name,
    seconds,
    ...(gflops === undefined ? {} : { gflops }),
    ...(gbps === undefined ? {} : { gbps }),
    ...(share === 0 ? {} : { share }),
    ...(c.items === undefined ? {} : { items: `${(c.items.count / seconds).toPrecision(3)} ${c.items.unit}/s` }),
  }
}

/** Runs a suite; with --json it prints one line that run.ts reads, else a table. */
export const suite = async (name: string, cases: readonly Case[]): Promise<void> => {
  const addon = nativeAddon()
  const before = await addon.probe(threads)
  const medians = new Map<string, number>()
  await b.suite(
    name,
    ...cases.map((c) => b.add(c.name, () => () => c.run(), { minSamples: 8, maxTime: 1 })),
    b.cycle((result) => {
      medians.set(result.name, result.details.median)
      return ''
    }),
    b.complete(),
  )
  const limits = better(before, await addon.probe(threads))
  const measured = cases.map((c) => measuredOf(name, c, medians.get(c.name) as number, limits))
  const { isa } = addon.cpu()
  if (json) console.log(`RESULT ${JSON.stringify({ isa, threads: threads || addon.cpu().threads, limits, measured })}`)
  else console.table(measured.map(({ suite: _, ...rest }) => rest))
}
