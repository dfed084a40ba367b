/**
 * Draws the embedding-bags of bench/peers/recommend.mjs under the machine's ceilings, one picture per number of threads:
 *
 *   tsx bench/recommend-chart.ts RESULTS.json      writes RESULTS-roofline-<threads>.svg beside it
 *
 * Cells whose rows are in caches lie above the slope of memory, as they should.
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { betterLimits, type Limits, measureLimits } from '../lib/device/limits.js'
import { type Point, roofline } from './roofline.js'

/** A row of the results' table of embedding-bags, as far as it is drawn. */
export interface BagCell {
  readonly dim: number
  readonly format: 'f32' | 'f16' | 'int8' | 'int4'
  readonly threads: number
  readonly batch: number
  readonly pooling: number
  readonly distribution: string
  readonly cache: string
  readonly lookupsPerSecond: number
  readonly ratio: number
}

const rowBytes = { f32: 4, f16: 2, int8: 1, int4: 0.5 } as const
const parameterBytes = { f32: 0, f16: 0, int8: 8, int4: 4 } as const

/** Bytes that a lookup moves: its row and index, and its part of the bag's offset and output. */
export const bytesPerLookup = ({ dim, format, pooling }: BagCell): number =>
  dim * rowBytes[format] + parameterBytes[format] + 4 + (4 * dim + 4) / pooling

/** Two operations per element: a multiply-add, or of floats the addition and what it could be for. */
const operations = ({ dim }: BagCell): number => 2 * dim

export const pointOf = (cell: BagCell): Point => ({
  series: `${cell.format} × ${cell.dim}`,
  mark: `${cell.distribution}, ${cell.cache}`,
  title:
    `${cell.format} × ${cell.dim}, batch ${cell.batch}, pooling ${cell.pooling}, ${cell.distribution}, ${cell.cache}: ` +
    `${(cell.lookupsPerSecond / 1e6).toPrecision(3)} M lookups/s, ${cell.ratio.toFixed(2)} × the best peer`,
  intensity: operations(cell) / bytesPerLookup(cell),
  perSecond: operations(cell) * cell.lookupsPerSecond,
})

export const bagChart = (machine: string, limits: Limits, cells: readonly BagCell[]): string =>
  roofline({
    title: "Embedding-bags under the machine's ceilings",
    subtitle: machine,
    readBytesPerSecond: limits.readBytesPerSecond,
    ceilings: [{ name: 'f32 multiply-adds', perSecond: limits.f32PerSecond }],
    points: cells.map(pointOf),
  })

const main = async (path: string): Promise<void> => {
  const { machine, tables } = JSON.parse(readFileSync(path, 'utf8'))
  const cells: readonly BagCell[] = tables.bags
  for (const threads of [...new Set(cells.map((cell) => cell.threads))]) {
    const limits = betterLimits(await measureLimits(threads), await measureLimits(threads))
    const subtitle = `${machine.cpu}, ${machine.isa}, ${threads} ${threads === 1 ? 'thread' : 'threads'}, Node ${machine.node}`
    const picture = path.replace(/(\.json)?$/, `-roofline-${threads}.svg`)
    const svg = bagChart(
      subtitle,
      limits,
      cells.filter((cell) => cell.threads === threads),
    )
    writeFileSync(`${picture}.tmp`, svg)
    renameSync(`${picture}.tmp`, picture)
    console.error(`saved ${picture}`)
  }
}

if (require.main === module) main(process.argv[2] as string)
