/** Pooled lookups in one large table: rows that no cache holds, and rows that the second-level cache does. */
import { cpuDevice } from '../lib/device/cpu.js'
import type { DeviceProgram } from '../lib/device/device.js'
import type { Bags } from '../lib/program/bags.js'
import { ProgramBuilder } from '../lib/program/builder.js'
import { bagStep } from '../lib/program/step.js'
import { rowBytes, type TableDType } from '../lib/tensor.js'
import { type Case, suite, threads } from './harness.js'

const family = 'embedding-bag'
const dtypes: readonly TableDType[] = ['f32', 'f16', 'i8_rowwise', 'i4_rowwise']

/** Numbers from 0 to 1, the same every time. */
const numbers = (seed: number): (() => number) => {
  let state = seed
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 32
  }
}

/** Bags of uniform lookups: as many requests as make rows of an earlier one leave the caches. */
const requestsOf = (rows: number, batch: number, pooling: number): Bags[] => {
  const random = numbers(pooling)
  const count = Math.max(4, Math.ceil(2 ** 21 / (batch * pooling)))
  return Array.from({ length: count }, () => ({
    indices: Int32Array.from({ length: batch * pooling }, () => Math.floor(random() * rows)),
    offsets: Int32Array.from({ length: batch + 1 }, (_, bag) => bag * pooling),
  }))
}

const mostBags = 2048

/** A program of one op on a table. Its rows are zeros, which are numbers like others, in memory of the addon alone. */
const load = (dtype: TableDType, rows: number, cols: number): DeviceProgram => {
  const builder = new ProgramBuilder(cpuDevice.layout, {
    maxRows: mostBags,
    maxOutputs: 0,
    maxSequences: 0,
    maxPages: 0,
    vocabulary: 0,
    activations: 'auto',
  })
  const table = { name: 'table', dtype, rows, cols, region: 0, offset: 0 }
  builder.output('out', builder.embeddingBag('bags', [table], { pooling: 'sum', placement: 'mapped' }))
  const data = new Uint8Array(rowBytes(dtype, cols) * rows)
  return cpuDevice.loadSync(builder.finish(), [{ data }], threads === 0 ? {} : { threads })
}

const lookups = async (rows: number, cols: number, shapes: readonly (readonly [number, number])[]): Promise<void> => {
  for (const dtype of dtypes) {
    const row = rowBytes(dtype, cols)
    const program = load(dtype, rows, cols)
    const cases = shapes.map(([batch, pooling]): Case => {
      const requests = requestsOf(rows, batch, pooling)
      const count = batch * pooling
      let turn = 0
      return {
        name: `${dtype}, batch ${batch}, pooling ${pooling}`,
        flops: 2 * count * cols,
        bytes: count * row,
        items: { count: count / 1e6, unit: 'M rows' },
        lookups: { count, shape: { rows, stride: row, rowBytes: row } },
        run: () => program.runSync(bagStep(batch, [requests[turn++ % requests.length] as Bags])),
      }
    })
    await suite(family, `${rows / 1000}K rows x ${cols}`, cases)
    await program.close()
  }
}

const main = async (): Promise<void> => {
  await lookups(4_000_000, 64, [
    [32, 20],
    [256, 20],
    [256, 80],
    [mostBags, 1],
    [mostBags, 80],
  ])
  await lookups(4_000_000, 128, [[256, 80]])
  await lookups(4_000, 64, [[256, 80]])
}

void main()
