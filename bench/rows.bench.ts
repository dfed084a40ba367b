/** Norm, gate, softmax, sampling: what runs row by row, over operands that no cache holds. */
import { cpuDevice } from '../lib/device/cpu.js'
import { plainStep } from '../lib/kernels/eager.js'
import { ProgramBuilder } from '../lib/program/builder.js'
import type { Program, RegionSource } from '../lib/program/program.js'
import { plainSampling, type SamplingParameters } from '../lib/program/step.js'
import { beyondCaches, type Case, suite, threads } from './harness.js'

const family = 'rows'

/** A program of some ops on tensors of `rows` rows, its inputs filled with waves. */
const load = (rows: number, vocabulary: number, build: (builder: ProgramBuilder) => void, regions: RegionSource[]) => {
  const builder = new ProgramBuilder(cpuDevice.layout, {
    maxRows: rows,
    maxOutputs: rows,
    maxSequences: 1,
    maxPages: 0,
    vocabulary,
    activations: 'auto',
  })
  build(builder)
  const program = builder.finish()
  const loaded = cpuDevice.loadSync(program, regions, threads === 0 ? {} : { threads })
  for (const tensor of program.outputs.values()) {
    const cols = program.tensors[tensor]?.cols ?? 1
    const some = Float32Array.from({ length: Math.min(rows, 64) * cols }, (_, i) => Math.sin(i * 0.37) * 4)
    for (let row = 0; row < rows; row += 64)
      loaded.write(tensor, row, some.subarray(0, Math.min(64, rows - row) * cols))
  }
  return { program, loaded }
}

const opOf = ({ ops }: Program, name: string): number => ops.findIndex((op) => op.name === name)

const rowSuite = async (): Promise<void> => {
  const cols = 8192
  const rows = Math.ceil(beyondCaches / (cols * 4))
  const norm = new Uint8Array(Float32Array.from({ length: cols }, () => 1).buffer)
  const { program, loaded } = load(
    rows,
    0,
    (builder) => {
      const x = builder.input('x', 'rows', cols)
      const other = builder.input('other', 'rows', cols)
      builder.rmsNorm('rmsNorm', x, { name: 'weight', dtype: 'f32', rows: 1, cols, region: 0, offset: 0 }, 1e-5)
      builder.swiglu('swiglu', x, other)
      builder.softmax('softmax', x)
      builder.logSumExp('logSumExp', x)
    },
    [{ data: norm }],
  )
  // An exponential counts as one operation.
  const unary = (name: string, operationsEach: number, tensors: number): Case => {
    const op = opOf(program, name)
    return {
      name: `${name} of ${cols} columns`,
      flops: rows * cols * operationsEach,
      bytes: rows * cols * 4 * tensors,
      run: () => loaded.runSync({ ...plainStep(rows), firstOp: op, endOp: op + 1 }),
    }
  }
  await suite(family, 'row by row', [
    unary('rmsNorm', 4, 2),
    unary('swiglu', 5, 3),
    unary('softmax', 5, 2),
    unary('logSumExp', 4, 1),
  ])
  await loaded.close()
}

const samplingSuite = async (): Promise<void> => {
  const vocabulary = 128256
  const rows = 64
  // As many logits as make a round through all of them longer than the last cache remembers.
  const inputs = Math.ceil(beyondCaches / (vocabulary * 4 * rows))
  const { program, loaded } = load(
    rows,
    vocabulary,
    (builder) => {
      for (let i = 0; i < inputs; i++)
        builder.sample(`sample${i}`, builder.input(`logits${i}`, 'outputs', vocabulary), 0)
    },
    [],
  )
  let turn = 0
  const sampled = (name: string, options: Partial<SamplingParameters>): Case => {
    const sampling = Array.from({ length: rows }, (_, counter) => ({ ...plainSampling, ...options, counter }))
    return {
      name,
      // Reading every logit once, comparing or exponentiating it, is the least that any of them needs.
      flops: 2 * rows * vocabulary,
      bytes: rows * vocabulary * 4,
      items: { count: rows, unit: 'rows' },
      run: () => {
        const op = opOf(program, `sample${turn++ % inputs}`)
        loaded.runSync({ ...plainStep(rows), sampling, firstOp: op, endOp: op + 1 })
      },
    }
  }
  await suite(family, 'sampling', [
    sampled('greedy', { temperature: 0 }),
    sampled('temperature', { temperature: 0.8 }),
    sampled('top-k 40', { temperature: 0.8, topK: 40 }),
    sampled('top-p 0.9', { temperature: 0.8, topP: 0.9 }),
    sampled('typical 0.9', { temperature: 0.8, typicalP: 0.9 }),
  ])
  await loaded.close()
}

const main = async (): Promise<void> => {
  await rowSuite()
  await samplingSuite()
}

void main()
