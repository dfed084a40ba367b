/** How calls behave: arguments, copies, twins, aborts, layers that are closed. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import * as kernels from '../../lib/kernels.js'
import { DroverError } from '../../lib/kernels.js'
import { isaNames } from '../isa.js'
import { randomSource } from '../support.js'

const refuses = (code: string, body: () => unknown, field?: string): void => {
  assert.throws(
    body,
    (error: unknown) =>
      error instanceof DroverError && error.code === code && (field === undefined || error.field === field),
    `${code} for ${field}`,
  )
}

const rejects = async (code: string, promise: Promise<unknown>): Promise<void> => {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  assert.instance(error, DroverError)
  assert.is((error as DroverError).code, code)
}

const floats = (length: number, seed = 1): Float32Array => {
  const random = randomSource(seed)
  return Float32Array.from({ length }, () => random() * 2 - 1)
}

const weightOf = (rows: number, cols: number) =>
  ({ dtype: 'f32', data: floats(rows * cols, 2), shape: [rows, cols] }) as const
const heads = { heads: 2, headDim: 8 }

test('every function has a twin that gives the same', async () => {
  const x = floats(6 * 32)
  const shape = [6, 32] as const
  const weight = weightOf(5, 32)
  const attended = { heads: 4, kvHeads: 2, headDim: 8 }
  const bags = { indices: Int32Array.of(4, 0, 1), offsets: Int32Array.of(0, 2, 2, 3) }
  const pairs: [unknown, Promise<unknown>][] = [
    [kernels.gemm(x, weight, { activation: 'gelu' }), kernels.gemmAsync(x, weight, { activation: 'gelu' })],
    [
      kernels.attention(x, floats(128, 3), floats(128, 4), attended),
      kernels.attentionAsync(x, floats(128, 3), floats(128, 4), attended),
    ],
    [kernels.rmsNorm(x, floats(32, 5), { eps: 0.1 }), kernels.rmsNormAsync(x, floats(32, 5), { eps: 0.1 })],
    [kernels.swiglu(x, floats(192, 6), shape), kernels.swigluAsync(x, floats(192, 6), shape)],
    [kernels.softmax(x, shape), kernels.softmaxAsync(x, shape)],
    [kernels.logSoftmax(x, shape), kernels.logSoftmaxAsync(x, shape)],
    [kernels.logSumExp(x, shape), kernels.logSumExpAsync(x, shape)],
    [
      kernels.rope(x, [0, 1, 2, 3, 4, 5], { heads: 4, headDim: 8 }),
      kernels.ropeAsync(x, [0, 1, 2, 3, 4, 5], { heads: 4, headDim: 8 }),
    ],
    [kernels.sample(x, shape, { seed: 5n }), kernels.sampleAsync(x, shape, { seed: 5n })],
    [
      kernels.sampleProbabilities(x, shape, { temperature: 0.5 }),
      kernels.sampleProbabilitiesAsync(x, shape, { temperature: 0.5 }),
    ],
    [kernels.quantize('q8_0', x, shape), kernels.quantizeAsync('q8_0', x, shape)],
    [kernels.quantize('i4_rowwise', x, shape), kernels.quantizeAsync('i4_rowwise', x, shape)],
    [
      kernels.dequantize('i8h_rowwise', new Uint8Array(216), shape),
      kernels.dequantizeAsync('i8h_rowwise', new Uint8Array(216), shape),
    ],
    [kernels.embeddingBag(weightOf(5, 32), bags), kernels.embeddingBagAsync(weightOf(5, 32), bags)],
    [kernels.dequantize('f16', new Uint8Array(384), shape), kernels.dequantizeAsync('f16', new Uint8Array(384), shape)],
  ]
  for (const [found, promise] of pairs) assert.equal(await promise, found)
  const functions = Object.entries(kernels).filter(
    ([, value]) => typeof value === 'function' && !/^[A-Z]/.test(value.name),
  )
  for (const [name] of functions) {
    if (name === 'cpu' || name.endsWith('Async')) continue
    assert.ok(`${name}Async` in kernels, name)
  }
})

test('the machine is described', () => {
  const { isa, threads, threadsReason } = kernels.cpu()
  assert.ok(isaNames.includes(isa))
  assert.ok(threads >= 1)
  assert.ok(threadsReason.length > 0)
})

test('arguments of the wrong kind are refused by name', () => {
  const x = floats(64)
  const any = (value: unknown) => value as never
  refuses('E_ARGUMENT', () => kernels.gemm(any([1, 2]), weightOf(2, 2)), 'x')
  refuses('E_ARGUMENT', () => kernels.gemm(x, any(undefined)), 'weight')
  refuses('E_ARGUMENT', () => kernels.gemm(x, any({ ...weightOf(2, 32), dtype: 'q9' })), 'weight.dtype')
  refuses('E_ARGUMENT', () => kernels.gemm(x, any({ ...weightOf(2, 32), shape: [2] })), 'weight.shape')
  refuses('E_ARGUMENT', () => kernels.gemm(x, any({ ...weightOf(2, 32), shape: [0, 32] })), 'weight.shape[0]')
  refuses('E_ARGUMENT', () => kernels.gemm(x, any({ ...weightOf(2, 32), data: [1] })), 'weight.data')
  refuses('E_SHAPE', () => kernels.gemm(x, { ...weightOf(2, 32), shape: [3, 32] }), 'weight.data')
  refuses('E_SHAPE', () => kernels.gemm(x, weightOf(2, 33)), 'x')
  refuses('E_SHAPE', () => kernels.gemm(new Float32Array(), weightOf(2, 32)), 'x')
  refuses('E_SHAPE', () => kernels.gemm(x, { dtype: 'q8_0', data: new Uint8Array(68), shape: [1, 48] }))
  refuses('E_SHAPE', () => kernels.gemm(x, weightOf(2, 32), { bias: floats(3) }), 'options.bias')
  refuses('E_SHAPE', () => kernels.gemm(x, weightOf(2, 32), { residual: floats(3) }), 'options.residual')
  refuses('E_ARGUMENT', () => kernels.gemm(x, weightOf(2, 32), any({ activation: 'tanh' })), 'options.activation')
  refuses('E_ARGUMENT', () => kernels.gemm(x, weightOf(2, 32), any({ Bias: floats(2) })), 'options.Bias')
  refuses('E_ARGUMENT', () => kernels.gemm(x, weightOf(2, 32), any({ signal: AbortSignal.abort() })), 'options.signal')
  refuses('E_ARGUMENT', () => kernels.gemm(x, weightOf(2, 32), any(3)), 'options')
  refuses('E_ARGUMENT', () => kernels.attention(x, x, x, any({ heads: 2 })), 'options.headDim')
  refuses('E_SHAPE', () => kernels.attention(x, x, x, { heads: 3, kvHeads: 2, headDim: 4 }), 'options.kvHeads')
  refuses('E_SHAPE', () => kernels.attention(x, x.subarray(0, 16), x.subarray(0, 16), heads), 'k')
  refuses('E_SHAPE', () => kernels.attention(x, x, x.subarray(0, 16), heads), 'v')
  refuses('E_ARGUMENT', () => kernels.attention(x, x, x, any({ ...heads, kvType: 'f64' })), 'options.kvType')
  refuses('E_ARGUMENT', () => kernels.attention(x, x, x, any({ ...heads, activations: 'bf16' })), 'options.activations')
  refuses('E_ARGUMENT', () => kernels.attention(x, x, x, any({ ...heads, window: 3 })), 'options.window')
  refuses('E_ARGUMENT', () => kernels.rmsNorm(x, floats(8), { eps: Number.NaN }), 'options.eps')
  refuses('E_SHAPE', () => kernels.rmsNorm(x, new Float32Array()), 'weight')
  refuses('E_SHAPE', () => kernels.rope(x, [0], heads), 'positions')
  refuses('E_ARGUMENT', () => kernels.rope(x, [0, 1, 2, -1], heads), 'positions[3]')
  refuses('E_SHAPE', () => kernels.rope(x, [0, 1, 2, 3], { ...heads, frequencies: floats(5) }), 'options.frequencies')
  refuses('E_ARGUMENT', () => kernels.rope(x, [0, 1, 2, 3], { ...heads, theta: 1, frequencies: floats(4) }))
  refuses('E_SHAPE', () => kernels.softmax(x, [3, 32]), 'x')
  refuses('E_ARGUMENT', () => kernels.softmax(x, any([2.5, 32])), 'shape[0]')
  refuses('E_ARGUMENT', () => kernels.sample(x, [2, 32], { temperature: -1 }), 'options.temperature')
  refuses('E_SHAPE', () => kernels.sample(x, [2, 32], [{}]), 'options')
  refuses('E_ARGUMENT', () => kernels.sample(x, [2, 32], [{}, { bias: [[32, 1]] }]), 'options[1].bias[0][0]')
  refuses('E_SHAPE', () => kernels.sample(x, [1, 64], { mask: new Uint32Array(1) }), 'options.mask')
  refuses('E_RANGE', () => kernels.sample(x, [1, 64], { mask: new Uint32Array(2) }))
})

test('twins reject, they do not throw', async () => {
  const any = (value: unknown) => value as never
  await rejects('E_ARGUMENT', kernels.gemmAsync(any(0), weightOf(2, 2)))
  await rejects('E_ARGUMENT', kernels.softmaxAsync(floats(4), [1, 4], any({ sygnal: 1 })))
  await rejects('E_ARGUMENT', kernels.attentionAsync(floats(4), floats(4), floats(4), any({ signal: 3 })))
  await rejects('E_SHAPE', kernels.quantizeAsync('q8_0', floats(31), [1, 31]))
})

test('arrays are copied at the call', async () => {
  const x = floats(4 * 64)
  const weight = weightOf(48, 64)
  const expected = kernels.gemm(x, weight)
  const promise = kernels.gemmAsync(x, weight)
  const normed = kernels.rmsNorm(x, weight.data.subarray(0, 64))
  const norm = kernels.rmsNormAsync(x, weight.data.subarray(0, 64))
  x.fill(Number.NaN)
  weight.data.fill(Number.NaN)
  assert.equal(await promise, expected)
  assert.equal(await norm, normed)
  // Shared memory, and views into larger arrays, are as good.
  const memory = new Float32Array(new SharedArrayBuffer(4 * 300), 40, 256)
  memory.set(floats(256, 8))
  assert.equal(kernels.softmax(memory, [4, 64]), kernels.softmax(memory.slice(), [4, 64]))
})

test('many calls at once, of the same shape', async () => {
  const shape = [3, 50] as const
  const inputs = Array.from({ length: 40 }, (_, i) => floats(150, i + 1))
  const expected = inputs.map((x) => kernels.logSoftmax(x, shape))
  const found = await Promise.all(inputs.map((x) => kernels.logSoftmaxAsync(x, shape)))
  assert.equal(found, expected)
})

test('weights that look alike are not mistaken for each other', () => {
  const x = floats(8)
  for (const scale of [1, 2, 3]) {
    const weight = new Float32Array(8).fill(scale)
    const one = kernels.rmsNorm(x, new Float32Array(8).fill(1))
    assert.equal(
      kernels.rmsNorm(x, weight),
      one.map((value) => Math.fround(value * scale)),
    )
  }
})

test('an abort ends a call', async () => {
  const size = 1536
  const x = floats(size * size)
  const weight = { dtype: 'f32', data: x, shape: [size, size] } as const
  await rejects('E_ABORTED', kernels.gemmAsync(x, weight, { signal: AbortSignal.abort() }))
  const controller = new AbortController()
  const call = kernels.gemmAsync(x, weight, { signal: controller.signal })
  setTimeout(() => controller.abort(), 1)
  await rejects('E_ABORTED', call)
  const layer = kernels.PreparedLinear.prepare(weight, size)
  const second = new AbortController()
  const applied = layer.applyAsync(x, undefined, { signal: second.signal })
  setTimeout(() => second.abort(), 1)
  await rejects('E_ABORTED', applied)
  // The layer itself is unharmed.
  assert.is(layer.apply(x.subarray(0, size)).length, size)
  await layer.close()
})

test('a layer serves one call at a time, and none when closed', async () => {
  const layer = kernels.PreparedLinear.prepare(weightOf(64, 64), 32)
  const x = floats(32 * 64)
  const first = layer.applyAsync(x)
  await rejects('E_BUSY', layer.applyAsync(x))
  refuses('E_BUSY', () => layer.apply(x))
  assert.equal(await first, layer.apply(x))
  refuses('E_RANGE', () => layer.apply(floats(33 * 64)), 'x')
  refuses('E_SHAPE', () => layer.apply(x, floats(3)), 'residual')
  await layer.close()
  await layer.close()
  refuses('E_CLOSED', () => layer.apply(x))
  await rejects('E_CLOSED', layer.applyAsync(x))
})

test('draws follow their seed, their filters and their bias', () => {
  const logits = floats(4 * 100, 12)
  const shape = [4, 100] as const
  const one = kernels.sample(logits, shape, { seed: 7n, logprobs: true, topLogprobs: 3 })
  assert.equal(kernels.sample(logits, shape, { seed: 7n, logprobs: true, topLogprobs: 3 }), one)
  const best = kernels.logSoftmax(logits, shape)
  one.forEach(({ token, logprob, topLogprobs }, row) => {
    assert.is(topLogprobs.length, 3)
    assert.ok(Math.abs((logprob as number) - (best[row * 100 + token] as number)) < 1e-5)
    assert.ok(
      Math.abs((topLogprobs[0]?.logprob as number) - Math.max(...best.subarray(row * 100, row * 100 + 100))) < 1e-5,
    )
  })
  const greedy = kernels.sample(logits, shape, { temperature: 0 })
  greedy.forEach(({ token, logprob }, row) => {
    assert.is(logprob, undefined)
    assert.is(logits[row * 100 + token], Math.max(...logits.subarray(row * 100, row * 100 + 100)))
  })
  const forced = kernels.sample(logits, shape, { bias: [[42, 1e6]] })
  assert.ok(forced.every(({ token }) => token === 42))
  const probabilities = kernels.sampleProbabilities(logits, shape, { topK: 1 })
  greedy.forEach(({ token }, row) => {
    assert.is(probabilities[row * 100 + token], 1)
  })
})

test.run()
