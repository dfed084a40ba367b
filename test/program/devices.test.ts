/** The CPU device against the reference device, op by op. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { cpuDevice } from '../../lib/device/cpu.js'
import type { DeviceProgram } from '../../lib/device/device.js'
import { referenceDevice } from '../../lib/device/reference.js'
import type { Bags } from '../../lib/program/bags.js'
import { disassemble } from '../../lib/program/disassemble.js'
import type { Program, TensorSpec } from '../../lib/program/program.js'
import type { Step } from '../../lib/program/step.js'
import { ModelRunner, range } from '../model/runner.js'
import { assertClose, fixture, randomSource, thrownBy } from '../support.js'
import { between, pick, type Random, type RandomProgram, randomProgram } from './random-programs.js'
import { randomRanker } from './random-rankers.js'

/** A language model, and now and then a recommender. */
const randomOf = (seed: number): RandomProgram =>
  seed % 3 === 0 ? randomRanker(randomSource(seed)) : randomProgram(randomSource(seed))

const rowsOf = ({ dimension, fixedRows }: TensorSpec, step: Step): number =>
  dimension === 'rows' ? step.tokens.length : dimension === 'outputs' ? step.outputRows.length : fixedRows

/** Tensors that an op writes. */
const written = (program: Program, op: Program['ops'][number]): number[] => {
  const signature = cpuDevice.layout.ops.find(({ name }) => name === op.op)?.signature ?? ''
  return op.args.filter((_, i) => 'ob'.includes(signature[i] ?? '') && program.tensors[op.args[i]!] !== undefined)
}

/** Runs each op on both; the reference goes on with the CPU's numbers, so that errors do not add up. */
const compareOps = (program: Program, step: Step, cpu: DeviceProgram, reference: DeviceProgram): Set<string> => {
  const seen = new Set<string>()
  program.ops.forEach((op, i) => {
    const range = { firstOp: i, endOp: i + 1 }
    cpu.runSync({ ...step, ...range })
    reference.runSync({ ...step, ...range })
    seen.add(op.op)
    for (const index of written(program, op)) {
      const spec = program.tensors[index]!
      const rows = rowsOf(spec, step)
      if (spec.dtype !== 'f32') continue
      const found = cpu.read(index, 0, rows)
      const expected = reference.read(index, 0, rows)
      const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
      // With 8-bit queries probabilities have 16 bits.
      const share = op.op === 'attention' && op.args[6] === 1 ? 2e-4 : 3e-6
      assertClose(found, expected, share * largest + 1e-6, `${op.name} (${op.op})`, 1e-5)
      reference.write(index, 0, found)
    }
  })
  return seen
}

const runBoth = async (
  { program, regions, steps }: RandomProgram,
  body: (cpu: DeviceProgram, reference: DeviceProgram, step: Step) => void,
): Promise<void> => {
  const cpu = await cpuDevice.load(program, regions)
  const reference = referenceDevice.loadSync(program, regions)
  try {
    for (const step of steps) body(cpu, reference, step)
  } finally {
    await cpu.close()
    await reference.close()
  }
}

test('random programs, op by op', async () => {
  const seen = new Set<string>()
  for (let seed = 1; seed <= 90; seed++) {
    const random = randomOf(seed)
    try {
      await runBoth(random, (cpu, reference, step) => {
        for (const op of compareOps(random.program, step, cpu, reference)) seen.add(op)
      })
    } catch (error) {
      console.log(`seed ${seed}\n${disassemble(random.program, cpuDevice.layout)}`)
      throw error
    }
  }
  const all = cpuDevice.layout.ops.map(({ name }) => name).filter((name) => referenceDevice.supportsOp(name))
  assert.equal([...seen].sort(), all.sort())
})

test('a program in one run gives what its ops give one by one', async () => {
  for (let seed = 101; seed <= 130; seed++) {
    const random = randomOf(seed)
    const { program, steps, regions } = random
    const whole = await cpuDevice.load(program, regions)
    const parts = await cpuDevice.load(program, regions, { threads: 1 })
    for (const step of steps) {
      await whole.run(step)
      for (let op = 0; op < program.ops.length; op++) parts.runSync({ ...step, firstOp: op, endOp: op + 1 })
      for (const [role, index] of program.outputs) {
        const rows = rowsOf(program.tensors[index]!, step)
        assert.equal(whole.read(index, 0, rows), parts.read(index, 0, rows), `seed ${seed}, ${role}`)
      }
    }
    await whole.close()
    await parts.close()
  }
})

/** The bags with one among them that is cut into parts. */
const withLongBag = ({ indices, offsets, weights }: Bags, random: Random): Bags => {
  const ends = Array.from(offsets as ArrayLike<number | bigint>, Number)
  const bag = between(random, 0, ends.length - 2)
  const at = ends[bag]!
  const insert = <T>(values: T[], value: T): T[] => [
    ...values.slice(0, at),
    ...Array<T>(9000).fill(value),
    ...values.slice(at),
  ]
  return {
    indices: Int32Array.from(insert(Array.from(indices as ArrayLike<number | bigint>, Number), 0)),
    offsets: Int32Array.from(ends, (end, i) => end + (i > bag ? 9000 : 0)),
    ...(weights === undefined ? {} : { weights: Float32Array.from(insert([...weights], 0.25)) }),
  }
}

test('rows in blocks, on one thread or several, give what they give together; only inputs and outputs can be read', async () => {
  for (let seed = 1; seed <= 40; seed++) {
    const random = randomSource(seed)
    const { program, regions, steps } = randomRanker(random, 400)
    const [first] = steps as [Step]
    const step = { ...first, bags: first.bags!.map((bags) => (seed % 2 === 0 ? bags : withLongBag(bags, random))) }
    const whole = await cpuDevice.load(program, regions)
    const dense = Float32Array.from({ length: 400 * program.tensors[0]!.cols }, () => random() - 0.5)
    const input = program.outputs.get('dense')!
    const score = program.outputs.get('score')!
    const rows = step.tokens.length
    const run = async (loaded: DeviceProgram, what: Step): Promise<Float32Array> => {
      loaded.write(input, 0, dense.subarray(0, rows * program.tensors[0]!.cols))
      await loaded.run(what)
      return loaded.read(score, 0, rows)
    }
    const wanted = await run(whole, step)
    for (const threads of [1, 2]) {
      const blocks = { ...program, blockRows: pick(random, [1, 7, 64, 100, 500]) }
      const loaded = await cpuDevice.load(blocks, regions, { threads })
      const what = `seed ${seed}, ${rows} rows in blocks of ${blocks.blockRows}, ${threads} threads`
      assert.equal(await run(loaded, step), wanted, what)
      assert.equal(await run(loaded, { ...step, profile: true }), wanted, `${what}, profiled`)
      assert.equal(loaded.bagCounts(), whole.bagCounts(), what)
      const times = loaded.profile()
      for (const [i, { start, end }] of times.entries()) {
        assert.ok(end >= start && start >= (times[i - 1]?.end ?? 0), `${what}: op ${i}`)
      }
      const part = thrownBy(() => loaded.runSync({ ...step, firstOp: 1 }))
      assert.match(part.message, /a program of blocks runs from its first op/)
      if (blocks.blockRows < program.maxRows) {
        const inside = program.tensors.findIndex(({ name }) => name === 'pooled')
        assert.is(thrownBy(() => loaded.read(inside, 0, program.maxRows)).code, 'E_RANGE', what)
      }
      await loaded.close()
    }
    await whole.close()
  }
})

for (const model of ['llama3-8b-like-bf16', 'llama-bias-hd80', 'llama-gguf-types/model.Q4_K.gguf']) {
  test(`${model}: logits of both devices`, async () => {
    const random = randomSource(8)
    const options = { maxRows: 12, pages: 2, maxSequences: 1, kvType: 'f32', activations: 'f32' } as const
    const cpu = await ModelRunner.open(fixture(model), options)
    const reference = await ModelRunner.open(fixture(model), { ...options, device: referenceDevice })
    const ids = range(11).map(() => Math.floor(random() * cpu.vocabulary))
    for (const [from, to] of [
      [0, 9],
      [9, 10],
      [10, 11],
    ] as const) {
      const chunk = ids.slice(from, to)
      const [found, expected] = [
        await cpu.forward(chunk, { start: from }),
        await reference.forward(chunk, { start: from }),
      ]
      assertClose(found, expected, 2e-4, `positions ${from} to ${to}`)
    }
    assertClose(cpu.kv(0, 'keys', ids.length), reference.kv(0, 'keys', ids.length), 1e-4, 'keys')
    cpu.loaded.copyPage(0, 1)
    reference.loaded.copyPage(0, 1)
    const copied = cpu.kv(0, 'values', ids.length, [1])
    assert.equal(copied, cpu.kv(0, 'values', ids.length, [0]))
    assertClose(copied, reference.kv(0, 'values', ids.length, [1]), 1e-4, 'values of the copied page')
    await cpu.close()
    await reference.close()
  })
}

test.run()
