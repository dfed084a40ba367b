/** Layers that read the same rows run together when rows are few: the same bits as one by one, whoever reads what. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { cpuDevice } from '../../lib/device/cpu.js'
import { plainStep } from '../../lib/kernels/eager.js'
import { ProgramBuilder, type WeightSource } from '../../lib/program/builder.js'
import type { DTypeName } from '../../lib/tensor.js'
import { randomSource } from '../support.js'

const cols = 64
const maxRows = 20

/** Weights of floats one behind another in one region. */
const floats = (random: () => number) => {
  const values: number[] = []
  const weight = (rows: number, width = cols): WeightSource => {
    const offset = values.length * 4
    for (let i = 0; i < rows * width; i++) values.push(random() * 2 - 1)
    return { name: `weight at ${offset}`, dtype: 'f32' as DTypeName, rows, cols: width, region: 0, offset }
  }
  return { weight, data: () => new Uint8Array(Float32Array.from(values).buffer) }
}

const builderOf = (): ProgramBuilder =>
  new ProgramBuilder(cpuDevice.layout, {
    ...{ maxRows, maxOutputs: maxRows, maxSequences: 1, maxPages: 0, vocabulary: 0 },
    activations: 'auto',
  })

test('several layers of one input, one whose result nobody wants, one that reads another, one with a residual', async () => {
  for (let seed = 1; seed <= 12; seed++) {
    const random = randomSource(seed)
    const { weight, data } = floats(random)
    const builder = builderOf()
    const x = builder.input('x', 'rows', cols)
    const width = (): number => 1 + Math.floor(random() * 90)
    const layer = (name: string, rows: number, options = {}) => builder.linear(name, x, weight(rows), options)
    const outputs = width()
    builder.output('a', layer('a', outputs, { bias: weight(1, outputs) }))
    const square = layer('b', cols)
    layer('unwanted', width())
    builder.output('c', layer('c', width(), { activation: 'silu' }))
    builder.output('d', layer('d', cols, { residual: square }))
    builder.output('e', builder.linear('e', square, weight(width()), {}))
    for (let i = 0; i < 6; i++) builder.output(`f${i}`, layer(`f${i}`, width()))
    const program = builder.finish()
    const regions = [{ data: data() }]
    const whole = await cpuDevice.load(program, regions, { threads: 2 })
    const parts = await cpuDevice.load(program, regions, { threads: 1 })
    try {
      const input = Float32Array.from({ length: maxRows * cols }, () => random() * 2 - 1)
      for (const one of [whole, parts]) one.write(program.outputs.get('x') as number, 0, input)
      for (const rows of [1, 3, 16, 17, maxRows]) {
        const step = plainStep(rows)
        await whole.run(step)
        for (let op = 0; op < program.ops.length; op++) parts.runSync({ ...step, firstOp: op, endOp: op + 1 })
        for (const [role, index] of program.outputs) {
          const found = whole.read(index, 0, rows)
          assert.equal(found, parts.read(index, 0, rows), `seed ${seed}, ${rows} rows, ${role}`)
          assert.ok(found.some((value) => value !== 0))
        }
      }
    } finally {
      await whole.close()
      await parts.close()
    }
  }
})

test.run()
