/** The arena plan: who shares bytes with whom, and how much is saved. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { cpuDevice } from '../../lib/device/cpu.js'
import { huggingFaceConfig, readHuggingFace } from '../../lib/format/config.js'
import { llamaFromHuggingFace } from '../../lib/model/llama.js'
import { describePlan } from '../../lib/model/plan.js'
import { ProgramBuilder } from '../../lib/program/builder.js'
import { arenaUnit, planProgram } from '../../lib/program/plan.js'
import type { Program } from '../../lib/program/program.js'
import { fixture, randomSource } from '../support.js'
import { randomProgram } from './random-programs.js'
import { randomRanker } from './random-rankers.js'

const { layout } = cpuDevice
const signatures = new Map(layout.ops.map(({ name, signature }) => [name, signature]))

/** Ops at which a tensor's content matters, found by walking the program: from its first write to its last read. */
const livesOf = (program: Program): { first: number; last: number }[] => {
  const lives = program.tensors.map(() => ({ first: Number.POSITIVE_INFINITY, last: Number.NEGATIVE_INFINITY }))
  program.ops.forEach(({ op, args }, at) => {
    const signature = signatures.get(op) as string
    args.forEach((arg, i) => {
      const life = 'oibp'.includes(signature[i] as string) ? lives[arg] : undefined
      if (life === undefined) return
      const input = signature[i] !== 'o' && life.first === Number.POSITIVE_INFINITY
      life.first = Math.min(life.first, input ? 0 : at)
      life.last = Math.max(life.last, at)
    })
  })
  for (const index of program.outputs.values()) lives[index]!.last = program.ops.length
  return lives
}

const assertSound = (program: Program, what: string): void => {
  const plan = planProgram(program, layout)
  const lives = livesOf(program)
  plan.tensors.forEach((tensor, i) => {
    const { name, dtype, cols } = program.tensors[i]!
    assert.is(tensor.offset % arenaUnit, 0)
    assert.ok(tensor.rowBytes >= layout.activationRowBytes(dtype, cols))
    assert.ok(tensor.offset + tensor.bytes <= plan.arenaBytes, `${what}: ${name} ends past the arena`)
    for (let j = 0; j < i; j++) {
      const other = plan.tensors[j]!
      const [a, b] = [lives[i]!, lives[j]!]
      const together = a.first <= b.last && b.first <= a.last
      const overlap = tensor.offset < other.offset + other.bytes && other.offset < tensor.offset + tensor.bytes
      if (together) assert.not.ok(overlap, `${what}: ${name} and ${program.tensors[j]!.name} share bytes`)
    }
  })
  assert.ok(plan.arenaBytes <= plan.unsharedBytes, what)
}

test('no two tensors that live at the same time share bytes', () => {
  for (let seed = 1; seed <= 200; seed++) assertSound(randomProgram(randomSource(seed)).program, `seed ${seed}`)
})

test('where rows run in blocks, inputs and outputs lie before all others, with room for all rows', () => {
  for (let seed = 1; seed <= 50; seed++) {
    const program = { ...randomRanker(randomSource(seed)).program, blockRows: 1 + (seed % 9) }
    assertSound(program, `seed ${seed}`)
    const plan = planProgram(program, layout)
    const kept = new Set(program.outputs.values())
    plan.tensors.forEach(({ offset, bytes, rowBytes }, i) => {
      const isKept = kept.has(i)
      assert.is(bytes, rowBytes * (isKept ? program.maxRows : Math.min(program.maxRows, program.blockRows)))
      assert.ok(isKept ? offset + bytes <= plan.keptBytes : offset >= plan.keptBytes)
    })
  }
})

test('inputs are there from the start, outputs to the end', () => {
  const b = new ProgramBuilder(layout, {
    maxRows: 4,
    maxOutputs: 4,
    maxSequences: 1,
    maxPages: 0,
    vocabulary: 0,
    activations: 'auto',
  })
  const [early, late] = [b.input('early', 'rows', 64), b.input('late', 'rows', 64)]
  const first = b.softmax('first', early)
  const second = b.softmax('second', first)
  b.output('out', b.swiglu('third', second, late))
  const program = b.finish()
  assertSound(program, 'two inputs')
  const plan = planProgram(program, layout)
  assert.is(plan.tensors[late.index]!.first, 0)
  assert.is(plan.tensors[late.index]!.last, program.ops.length)
  assert.ok(plan.tensors[second.index]!.last < program.ops.length)
})

test('tensors that follow each other share: a deep model needs little more than a shallow one', async () => {
  const folder = await readHuggingFace(fixture('llama3-8b-like'))
  const config = llamaFromHuggingFace(huggingFaceConfig(folder.config))
  const options = { contextLength: 2048, sequences: 1, kvType: 'f16', weightType: 'f16', maxRows: 64 } as const
  const arena = (layers: number): number => {
    const { plan, program } = describePlan(layout, { ...config, layers }, options)
    if (layers <= 8) assertSound(program, `${layers} layers`)
    assert.ok(plan.arenaBytes < plan.unsharedBytes)
    return plan.arenaBytes
  }
  assert.is(arena(64), arena(8))
  assert.ok(arena(8) <= 1.2 * arena(2))
})

test('plans of real sizes come from the config alone', () => {
  const sizes = [
    { name: '8B', hidden: 4096, intermediate: 14336, layers: 32, heads: 32, kvHeads: 8, parameters: 8.03e9 },
    { name: '70B', hidden: 8192, intermediate: 28672, layers: 80, heads: 64, kvHeads: 8, parameters: 70.55e9 },
    { name: '405B', hidden: 16384, intermediate: 53248, layers: 126, heads: 128, kvHeads: 8, parameters: 405.85e9 },
  ]
  for (const { name, parameters, ...size } of sizes) {
    const config = {
      file: name,
      ...size,
      headDim: 128,
      vocabulary: 128256,
      normEps: 1e-5,
      contextLength: 131072,
      tied: false,
      attentionBias: false,
      mlpBias: false,
      ropeFrequencies: new Float32Array(64),
      ropeLayout: 'half-split',
    } as const
    const { plan } = describePlan(layout, config, {
      contextLength: 131072,
      sequences: 1,
      kvType: 'f16',
      weightType: 'q8_0',
      maxRows: 512,
    })
    assert.ok(Math.abs(plan.parameters / parameters - 1) < 0.001, `${name}: ${plan.parameters}`)
    // Keys and values of every layer in two bytes each.
    assert.is(plan.kvBytesPerPosition, 2 * 2 * size.layers * size.kvHeads * 128)
    assert.is(plan.kvBytes, plan.kvBytesPerPosition * 131072)
    assert.ok(plan.arenaBytes < 1e9 && plan.arenaBytes > 512 * size.intermediate * 4, `${name}: ${plan.arenaBytes}`)
    assert.ok(plan.totalBytes > plan.parameters, name)
  }
})

test.run()
