/**
 * Runs suites of cases and tells what they took, beside the machine's limits: measured in the same process when it
 * begins and after every suite, so that the best of many loops from the whole run stands for each.
 */
import b from 'benny'
import { cpu } from '../lib/device/cpu.js'
import { betterLimits, type GatherShape, type Limits, measureGather, measureLimits } from '../lib/device/limits.js'
import type { Work } from '../lib/program/cost.js'
import { type Block, judge, limitsLine } from './report.js'

export interface Case extends Work {
  readonly name: string
  /** Things done by one run, and their name, where operations and bytes do not say it. */
  readonly items?: { readonly count: number; readonly unit: string }
  /** Rows that it looks up at random: they are its limit then. */
  readonly lookups?: { readonly count: number; readonly shape: GatherShape }
  run(): void
}

const json = process.argv.includes('--json')
const threadsArgument = process.argv.find((argument) => argument.startsWith('--threads='))
/** Workers of every step; 0: all that the machine allows. */
export const threads = Number(threadsArgument?.slice('--threads='.length) ?? 0)

/** Enough bytes that none of them is still in the last cache when its turn comes again. */
export const beyondCaches = Math.min(2 ** 30, Math.max(2 ** 28, 2 * cpu().l3Bytes))

/** Tells run.ts of a block, with --json; else shows it. */
export const tell = (block: Block): void => {
  if (json) {
    console.log(`RESULT ${JSON.stringify(block)}`)
    return
  }
  if (block.limits !== undefined) console.log(limitsLine(block.limits))
  console.table(
    block.measured.map((one) => {
      const { name, seconds, items, gflops, gbps, share } = judge(one, block.limits)
      return { name, 'time, µs': seconds * 1e6, rate: items, 'Gop/s': gflops, 'GB/s': gbps, share }
    }),
  )
}

let limits: Limits | undefined

/** Rows per second, the best that this process has seen, by shape. */
const gathered = new Map<string, number>()
const keyOf = (shape: GatherShape): string => JSON.stringify(shape)

/** Measures every shape of some cases once more. */
const gather = async (cases: readonly Case[]): Promise<void> => {
  const shapes = new Map(
    cases.flatMap(({ lookups }) => (lookups === undefined ? [] : [[keyOf(lookups.shape), lookups.shape]])),
  )
  for (const [key, shape] of shapes) {
    gathered.set(key, Math.max(gathered.get(key) ?? 0, await measureGather(shape, threads)))
  }
}

/** Runs a suite; `family` names the picture that its cases are part of. */
export const suite = async (family: string, name: string, cases: readonly Case[]): Promise<void> => {
  limits ??= await measureLimits(threads)
  await gather(cases)
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
  limits = betterLimits(limits, await measureLimits(threads))
  await gather(cases)
  const { isa, threads: all } = cpu()
  const measured = cases.map(({ name: case_, flops, bytes, arithmetic, items, lookups }) => {
    const seconds = medians.get(case_) as number
    return {
      ...{ family, suite: name, name: case_, seconds, flops, bytes, arithmetic },
      ...(lookups === undefined
        ? {}
        : { gatherSeconds: lookups.count / (gathered.get(keyOf(lookups.shape)) as number) }),
      ...(items === undefined ? {} : { items: `${(items.count / seconds).toPrecision(3)} ${items.unit}/s` }),
    }
  })
  tell({ isa, threads: threads || all, limits, measured })
}
