/** Programs as words and as text, steps as words, and what builder, encoder and devices refuse. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { cpuDevice } from '../../lib/device/cpu.js'
import { referenceDevice } from '../../lib/device/reference.js'
import { DroverError, type ErrorCode } from '../../lib/errors.js'
import { type BuilderOptions, ProgramBuilder, type WeightSource } from '../../lib/program/builder.js'
import { disassemble } from '../../lib/program/disassemble.js'
import { encodeProgram } from '../../lib/program/encode.js'
import { planProgram } from '../../lib/program/plan.js'
import type { Program } from '../../lib/program/program.js'
import { encodeStep, plainSampling, type Step } from '../../lib/program/step.js'

const { layout } = cpuDevice
const limits: BuilderOptions = {
  maxRows: 4,
  maxOutputs: 2,
  maxSequences: 1,
  maxPages: 2,
  vocabulary: 6,
  activations: 'auto',
  kv: { layers: 1, heads: 1, headDim: 32, dtype: 'f16', pages: 2 },
}
const weight = (name: string, rows: number, cols: number, offset = 0): WeightSource => ({
  name,
  dtype: 'q8_0',
  rows,
  cols,
  region: 0,
  offset,
})
const vector = (name: string, cols: number): WeightSource => ({
  name,
  dtype: 'f32',
  rows: 1,
  cols,
  region: 1,
  offset: 0,
})
const regions = [{ data: new Uint8Array(4096) }, { data: new Uint8Array(256) }]

/** A layer: embed, norm, two products of the same input, attention. */
const layer = (): Program => {
  const b = new ProgramBuilder(layout, limits)
  const x = b.embed('embedding', weight('table', 6, 32))
  b.scope('layer', () => {
    const h = b.rmsNorm('norm', x, vector('norm', 32), 0.5)
    const k = b.linear('k', h, weight('k', 32, 32, 204))
    const v = b.linear('v', h, weight('v', 32, 32, 1292), { activation: 'relu', residual: x })
    b.kvWrite('cache', k, v, 0)
    b.output('out', b.attention('scores', h, { layer: 0, heads: 1, scale: 0.25, causal: true }))
  })
  return b.finish()
}

const step: Step = {
  tokens: [1, 2, 3],
  positions: [0, 1, 2],
  sequences: [{ rows: 3, cacheStart: 0, pages: [1] }],
  outputRows: [2],
}

const refused = async (code: ErrorCode, body: () => unknown, field?: string): Promise<void> => {
  try {
    await body()
  } catch (error) {
    assert.instance(error, DroverError)
    const { code: found, field: where, message } = error as DroverError
    assert.is(found, code, message)
    if (field !== undefined) assert.is(where, field, message)
    return
  }
  assert.unreachable(`${code} was expected`)
}

test('a program as text', () => {
  const text = disassemble(layer(), layout)
  assert.equal(text.split('\n'), [
    '   0  embedding  embed embedding:f32[rows, 32], table:q8_0[6, 32] stored',
    '   1  layer.norm  rms_norm layer.norm:f32[rows, 32], embedding:f32[rows, 32], norm:f32[1, 32] decoded, 0.5',
    '   2  layer.norm.a8_32  quantize layer.norm.a8_32:a8_32[rows, 32], layer.norm:f32[rows, 32], Infinity',
    '   3  layer.k  gemm layer.k:f32[rows, 32], layer.norm.a8_32:a8_32[rows, 32], k:q8_0[32, 32] prepared, -, -, 0',
    '   4  layer.v  gemm layer.v:f32[rows, 32], layer.norm.a8_32:a8_32[rows, 32], v:q8_0[32, 32] prepared, -, embedding:f32[rows, 32], 4',
    '   5  layer.cache  kv_write layer.k:f32[rows, 32], layer.v:f32[rows, 32], 0',
    '   6  layer.scores  attention layer.scores:f32[rows, 32], layer.norm:f32[rows, 32], 0, 1, 0.25, 1, 0',
  ])
  assert.match(disassemble(layer(), layout, planProgram(layer(), layout)), /embedding:f32\[rows, 32\]@\d+/)
})

test('the same program is the same words', () => {
  const words = () => encodeProgram(layer(), planProgram(layer(), layout), layout)
  assert.equal(words(), words())
  assert.is(words()[2], words().length)
})

test('a value that changes in place is quantised anew', () => {
  const b = new ProgramBuilder(layout, limits)
  const x = b.embed('x', weight('table', 6, 32))
  const table = b.ropeTable('table', vector('frequencies', 4))
  b.linear('before', x, weight('w', 32, 32, 204))
  b.linear('beside', x, weight('v', 32, 32, 1292))
  b.rope('turn', x, table, 1, 'adjacent')
  b.linear('after', x, weight('u', 32, 32, 2380))
  assert.is(b.finish().ops.filter(({ op }) => op === 'quantize').length, 2)
})

test('a table that is also a head is prepared once', () => {
  const b = new ProgramBuilder(layout, limits)
  const x = b.embed('x', weight('table', 6, 32))
  b.linear('logits', x, weight('table', 6, 32))
  const { weights } = b.finish()
  assert.equal(
    weights.map(({ form }) => form),
    ['prepared'],
  )
})

test('steps that do not fit are refused by both devices, alike', async () => {
  const program = layer()
  const cpu = await cpuDevice.load(program, regions)
  const reference = await referenceDevice.load(program, regions)
  const sequence = { rows: 3, cacheStart: 0, pages: [1] }
  const bad: [string, Partial<Step>][] = [
    ['E_RANGE', { tokens: [1, 6, 2] }],
    ['E_RANGE', { positions: [0, -1, 2] }],
    ['E_SHAPE', { positions: [0] }],
    ['E_RANGE', { outputRows: [3] }],
    ['E_RANGE', { outputRows: [0, 1, 2] }],
    ['E_RANGE', { targets: [6] }],
    ['E_SHAPE', { targets: [1, 2] }],
    ['E_RANGE', { tokens: [1, 2, 3, 4, 5], positions: [0, 1, 2, 3, 4] }],
    ['E_RANGE', { sequences: [] }],
    ['E_RANGE', { sequences: [{ ...sequence, rows: 2 }] }],
    ['E_RANGE', { sequences: [{ ...sequence, pages: [2] }] }],
    ['E_RANGE', { sequences: [{ ...sequence, pages: [] }] }],
    ['E_RANGE', { sequences: [{ ...sequence, cacheStart: 62 }] }],
    ['E_RANGE', { sequences: [{ ...sequence, pages: [1, 1] }] }],
    [
      'E_RANGE',
      {
        sequences: [
          { ...sequence, rows: 1 },
          { ...sequence, rows: 2, pages: [0] },
        ],
      },
    ],
    ['E_RANGE', { firstOp: 3, endOp: 2 }],
    ['E_RANGE', { endOp: 8 }],
  ]
  for (const device of [cpu, reference]) {
    for (const [code, change] of bad) {
      await refused(code as ErrorCode, () => device.runSync({ ...step, ...change }))
      await refused(code as ErrorCode, () => device.run({ ...step, ...change }))
    }
    await device.run(step)
    await refused('E_RANGE', () => device.read(0, 3, 2))
    await refused('E_RANGE', () => device.read(99, 0, 1))
    await refused('E_RANGE', () => device.readKv(0, 0, 'keys', [0], 65))
    await refused('E_RANGE', () => device.readKv(1, 0, 'keys', [0], 1))
    await refused('E_RANGE', () => device.readKv(0, 0, 'keys', [2], 1))
    await refused('E_RANGE', () => device.copyPage(0, 2))
    await device.close()
    await device.close()
    await refused('E_CLOSED', () => device.runSync(step))
    await refused('E_CLOSED', () => device.run(step))
    await refused('E_CLOSED', () => device.read(0, 0, 1))
  }
})

test('a device runs one step at a time, and ends it when asked', async () => {
  for (const device of [cpuDevice, referenceDevice]) {
    const loaded = await device.load(layer(), regions)
    const first = loaded.run(step)
    await refused('E_BUSY', () => loaded.run(step))
    await first
    await loaded.run({ ...step, profile: true })
    const times = loaded.profile()
    assert.is(times.length, layer().ops.length)
    times.forEach(({ start, end, busy }, i) => {
      assert.ok(start > 0n && end >= start && (i === 0 || start >= times[i - 1]!.end), `op ${i} follows the last`)
      assert.ok(busy.length > 0 && busy.every((time) => time <= end - start), `op ${i}: ${busy} of ${end - start}`)
    })
    await loaded.run({ ...step, profile: true, firstOp: 1 })
    assert.equal(loaded.profile()[0]!.end, 0n, 'an op that did not run')
    assert.ok(Object.values(loaded.memoryUsage()).some((bytes) => bytes > 0))
    await loaded.close()
  }
  const reference = await referenceDevice.load(layer(), regions)
  const running = reference.run(step)
  reference.abort()
  await refused('E_ABORTED', () => running)
  await reference.close()
})

test('loads are refused past their budget, past a region, when aborted, and for what is not a number', async () => {
  for (const device of [cpuDevice, referenceDevice]) {
    await refused('E_MEMORY', () => device.load(layer(), regions, { memoryBudget: 1000 }))
    await refused('E_MEMORY', () => device.loadSync(layer(), regions, { memoryBudget: 1000 }))
    await refused('E_PROGRAM', () => device.load(layer(), [{ data: new Uint8Array(1000) }, regions[1]!]))
    await refused('E_PROGRAM', () => device.load(layer(), []))
    await refused('E_ABORTED', () => device.load(layer(), regions, { signal: AbortSignal.abort() }))
    const spoiled = new Uint8Array(256).fill(255)
    await refused('E_FORMAT', () => device.load(layer(), [regions[0]!, { data: spoiled }], { verifyWeights: true }))
    await refused('E_FORMAT', () => device.loadSync(layer(), [regions[0]!, { data: spoiled }], { verifyWeights: true }))
    const shown: number[] = []
    const loaded = await device.load(layer(), regions, { onProgress: (fraction) => shown.push(fraction) })
    assert.is(shown.at(-1), 1)
    await loaded.close()
  }
})

test('programs that contradict themselves are refused with the op they break at', async () => {
  const broken = (change: (program: { -readonly [K in keyof Program]: Program[K] }) => void): Program => {
    const program = { ...layer() }
    change(program)
    return program
  }
  const replaceArg = (op: number, arg: number, value: number): Program =>
    broken((program) => {
      program.ops = program.ops.map((spec, i) =>
        i === op ? { ...spec, args: spec.args.map((old, j) => (j === arg ? value : old)) } : spec,
      )
    })
  const load = (program: Program) => () => cpuDevice.load(program, regions)
  await refused('E_PROGRAM', load(replaceArg(1, 1, 99)), 'layer.norm')
  await refused('E_PROGRAM', load(replaceArg(3, 2, 0)), 'layer.k')
  await refused('E_PROGRAM', load(replaceArg(3, 1, 0)), 'layer.k')
  await refused('E_PROGRAM', load(replaceArg(4, 5, 9)), 'layer.v')
  await refused('E_PROGRAM', load(replaceArg(5, 2, 1)), 'layer.cache')
  await refused('E_PROGRAM', load(replaceArg(6, 3, 3)), 'layer.scores')
  await refused('E_PROGRAM', load(broken((program) => (program.vocabulary = 7))), 'embedding')
  // Without a vocabulary no token would be checked.
  await refused('E_PROGRAM', load(broken((program) => (program.vocabulary = 0))), 'embedding')
  await refused('E_PROGRAM', load(broken((program) => (program.kv = undefined))), 'layer.cache')
  await refused(
    'E_UNSUPPORTED',
    load(broken((program) => (program.ops = [{ name: 'x', op: 'teleport', args: [] }]))),
    'x',
  )
})

test('sampling parameters are checked where they are used', async () => {
  const b = new ProgramBuilder(layout, { ...limits, kv: undefined })
  const logits = b.input('logits', 'outputs', 6)
  b.output('sample', b.sample('sample', logits, 2))
  const loaded = await cpuDevice.load(b.finish(), [])
  const plain: Step = { tokens: [0], positions: [0], sequences: [], outputRows: [0] }
  const run = (change: Partial<typeof plainSampling>) => () =>
    loaded.run({ ...plain, sampling: [{ ...plainSampling, ...change }] })
  await refused('E_RANGE', run({ temperature: Number.NaN }))
  await refused('E_RANGE', run({ temperature: -1 }))
  await refused('E_RANGE', run({ repetitionPenalty: 0 }))
  await refused('E_RANGE', run({ bias: [[6, 1]] }))
  await refused('E_RANGE', run({ history: [[9, 1]] }))
  await refused('E_RANGE', run({ uniform: 1 }))
  await refused('E_SHAPE', () => encodeStep({ ...plain, sampling: [] }, 1))
  await loaded.run({ ...plain, sampling: [{ ...plainSampling, bias: [[3, 100]] }] })
  assert.is(loaded.readWords(1, 0, 1)[0], 3)
  await loaded.close()
})

test.run()
