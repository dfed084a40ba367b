/** Random small recommenders: every op of theirs, tables of every format, bags of every kind, for comparing devices. */
import { cpuDevice } from '../../lib/device/cpu.js'
import { quantize } from '../../lib/kernels.js'
import { type Bags, indexPolicies } from '../../lib/program/bags.js'
import { ProgramBuilder, type WeightSource } from '../../lib/program/builder.js'
import type { Step } from '../../lib/program/step.js'
import { bagStep } from '../../lib/program/step.js'
import { pairKinds, type TableSource } from '../../lib/program/tables.js'
import { isRowwise, parameterBytes, rowBytes, tableDTypes } from '../../lib/tensor.js'
import { between, pick, type Random, type RandomProgram } from './random-programs.js'

const normal = (random: Random, length: number): Float32Array =>
  Float32Array.from({ length }, () => random() + random() + random() - 1.5)

const randomTable = (random: Random, name: string, cols: number, regions: { data: Uint8Array }[]): TableSource => {
  const dtype = pick(random, tableDTypes)
  const rows = between(random, 1, 60)
  const row = rowBytes(dtype, cols)
  const stride = row + pick(random, [0, 0, 4, 13])
  const offset = between(random, 0, 9)
  const packed = quantize(dtype, normal(random, rows * cols), [rows, cols])
  const first = isRowwise(dtype) && random() < 0.5
  const data = new Uint8Array(offset + stride * (rows - 1) + row).fill(0xee)
  for (let r = 0; r < rows; r++) {
    const source = packed.subarray(r * row, (r + 1) * row)
    const at = offset + r * stride
    data.set(source, at)
    if (!first) continue
    const parameters = parameterBytes(dtype)
    data.set(source.subarray(row - parameters), at)
    data.set(source.subarray(0, row - parameters), at + parameters)
  }
  const region = regions.push({ data }) - 1
  return { name, dtype, rows, cols, region, offset, stride, ...(first ? { parameters: 'first' as const } : {}) }
}

const randomBags = (random: Random, rows: number, table: TableSource, weighted: boolean, wrong: boolean): Bags => {
  const wide = random() < 0.5
  const numbers = (values: number[]) => (wide ? BigInt64Array.from(values, BigInt) : Int32Array.from(values))
  const offsets = [0]
  for (let row = 0; row < rows; row++) offsets.push(offsets[row]! + (random() < 0.3 ? 0 : between(random, 1, 9)))
  const index = (): number =>
    wrong && random() < 0.1 ? pick(random, [-1, table.rows, 2 ** 31 - 1]) : between(random, 0, table.rows - 1)
  const indices = Array.from({ length: offsets[rows]! }, index)
  const weights = weighted ? { weights: normal(random, indices.length) } : {}
  return { indices: numbers(indices), offsets: numbers(offsets), ...weights }
}

/** Tables of one width that an interaction reads, others with bags of their own, a factorization machine, a cross layer and a score. */
export const randomRanker = (random: Random, mostRows = 30): RandomProgram => {
  const maxRows = between(random, 1, mostRows)
  const regions: { data: Uint8Array }[] = []
  const b = new ProgramBuilder(cpuDevice.layout, {
    maxRows,
    maxOutputs: 0,
    maxSequences: 0,
    maxPages: 0,
    vocabulary: 0,
    activations: 'auto',
  })
  const dim = pick(random, [1, 4, 16, 20, 31, 64, 129])
  const tables = Array.from({ length: between(random, 1, 6) }, (_, t) => randomTable(random, `t${t}`, dim, regions))
  const others = Array.from({ length: between(random, 1, 3) }, (_, t) =>
    randomTable(random, `wide${t}`, between(random, 1, 40), regions),
  )
  const placement = (): 'mapped' | 'copied' => pick(random, ['mapped', 'copied'])
  const dense = b.input('dense', 'rows', dim)
  const pooled = b.embeddingBag('pooled', tables, { pooling: 'sum', placement: placement() })
  const largest = b.embeddingBag('largest', tables.slice(0, 1), { pooling: 'max', placement: placement(), firstBag: 0 })
  const wide = b.embeddingBag('wide', others, { pooling: 'mean', placement: placement() })
  const pairs = b.interaction('pairs', dense, pooled, pick(random, pairKinds))
  const machine = b.factorization('machine', pooled)
  const all = b.concat('all', [
    pairs,
    largest,
    wide,
    machine,
    ...Array.from({ length: between(random, 0, 9) }, () => dense),
  ])
  const crossed = b.cross('crossed', all, b.sigmoid('gates', all), all)
  const values = normal(random, all.cols)
  const head: WeightSource = { name: 'head', dtype: 'f32', rows: 1, cols: all.cols, region: regions.length, offset: 0 }
  regions.push({ data: quantize('f32', values, [1, all.cols]) })
  b.output('score', b.sigmoid('score', b.linear('logit', crossed, head)))
  const program = b.finish()
  const steps = Array.from({ length: 3 }, (): Step => {
    const rows = between(random, 1, maxRows)
    const policy = pick(random, indexPolicies)
    const bags = [...tables, ...others].map((table, i) =>
      // A maximum takes no weights.
      randomBags(random, rows, table, i > 0 && random() < 0.5, policy !== 'error'),
    )
    return bagStep(rows, bags, policy)
  })
  return { program, regions, steps }
}
