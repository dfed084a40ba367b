/** What ops cost, counted by hand for a small layer. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { cpuDevice } from '../../lib/device/cpu.js'
import { ProgramBuilder, type WeightSource } from '../../lib/program/builder.js'
import { type OpCost, opCost } from '../../lib/program/cost.js'
import { plainSampling, type Step } from '../../lib/program/step.js'
import type { DTypeName } from '../../lib/tensor.js'

const { layout } = cpuDevice
const cols = 256
const heads = 4
const kvHeads = 2
const headDim = 64
const vocabulary = 100

const weight = (name: string, dtype: DTypeName, rows: number, offset: number, width = cols): WeightSource => ({
  name,
  dtype,
  rows,
  cols: width,
  region: 0,
  offset,
})

const program = (() => {
  const kv = { layers: 3, heads: kvHeads, headDim, dtype: 'f16' as const, pages: 4 }
  const limits = { maxRows: 8, maxOutputs: 2, maxSequences: 2, maxPages: 4, vocabulary, activations: 'auto' as const }
  const builder = new ProgramBuilder(layout, { ...limits, kv })
  const x = builder.embed('embed', weight('table', 'f16', vocabulary, 0))
  const normed = builder.rmsNorm('norm', x, weight('norm', 'f32', 1, 100_000), 1e-5)
  const q = builder.linear('q', normed, weight('q', 'q4_k', heads * headDim, 200_000))
  const k = builder.linear('k', normed, weight('k', 'f32', kvHeads * headDim, 300_000))
  builder.kvWrite('write', k, k, 1)
  const attended = builder.attention('causal', q, { layer: 1, heads, scale: 0.125, causal: true })
  builder.attention('whole', q, { layer: 1, heads, scale: 0.125, causal: false })
  builder.linear('stored', attended, weight('stored', 'q8_k', 32, 500_000))
  const logits = builder.linear('head', builder.gather('last', attended), weight('head', 'q8_0', vocabulary, 600_000))
  builder.sample('sample', logits, 0)
  return builder.finish()
})()

const step: Step = {
  tokens: [1, 2, 3, 4, 5],
  positions: [0, 1, 2, 40, 41],
  sequences: [
    { rows: 3, cacheStart: 0, pages: [0] },
    { rows: 2, cacheStart: 40, pages: [1] },
  ],
  outputRows: [2, 4],
  sampling: [plainSampling, plainSampling],
}

const costOf = (name: string, other: Step = step): OpCost => {
  const op = program.ops.find((one) => one.name === name)
  assert.ok(op, name)
  return opCost(program, layout, other, op)
}

test('operations of each op', () => {
  assert.is(costOf('q').flops, 2 * 5 * cols * heads * headDim)
  assert.is(costOf('k').flops, 2 * 5 * cols * kvHeads * headDim)
  assert.is(costOf('head').flops, 2 * 2 * heads * headDim * vocabulary, 'output rows only')
  assert.is(costOf('norm').flops, 4 * 5 * cols)
  assert.is(costOf('norm.a8_256').flops, 3 * 5 * cols)
  // Causal: 1 + 2 + 3 keys, and 41 + 42; else 3 x 3 and 2 x 42. Two products with each key and value.
  assert.is(costOf('causal').flops, 4 * heads * headDim * (6 + 83))
  assert.is(costOf('whole').flops, 4 * heads * headDim * (9 + 84))
  assert.is(costOf('sample').flops, 2 * 2 * vocabulary)
  assert.is(costOf('sample', { ...step, sampling: undefined as unknown as [] }).flops, 0, 'nothing is drawn')
  for (const name of ['embed', 'write', 'last']) assert.is(costOf(name).flops, 0, name)
})

test('the peak that bounds each layer', () => {
  assert.equal(
    ['q', 'k', 'stored', 'head'].map((name) => costOf(name).arithmetic),
    ['int8', 'f32', 'f32', 'int8'],
  )
})

test('bytes that come from memory: weights, rows of the table, keys and values', () => {
  const positionBytes = 2 * kvHeads * headDim * 2
  assert.is(costOf('embed').bytes, 5 * cols * 2)
  assert.is(costOf('norm').bytes, cols * 4)
  assert.is(costOf('q').bytes, layout.preparedBytes('q4_k', heads * headDim, cols))
  assert.is(costOf('stored').bytes, (32 * cols * 292) / 256, 'rows as the file holds them')
  assert.is(costOf('write').bytes, 5 * positionBytes)
  assert.is(costOf('causal').bytes, (3 + 42) * positionBytes)
  assert.is(costOf('last').bytes, 0)
})

test('activations are counted apart', () => {
  assert.is(costOf('norm').activationBytes, 2 * 5 * cols * 4)
  const quantized = layout.activationRowBytes('a8_256', cols)
  assert.is(costOf('norm.a8_256').activationBytes, 5 * (cols * 4 + quantized))
  assert.is(costOf('q').activationBytes, 5 * (quantized + heads * headDim * 4))
})

test.run()
