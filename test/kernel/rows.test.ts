/** Norms, gates, activations, softmax and rotary positions against float64. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { gemm, logSoftmax, logSumExp, rmsNorm, rope, softmax, swiglu } from '../../lib/kernels.js'
import { assertClose } from '../support.js'
import { openFixture, type Tensor } from './fixture.js'

const shapeOf = ({ shape }: Tensor): [number, number] => [shape[0] as number, shape[1] as number]

test('RMSNorm, two epsilons', async () => {
  const fixture = await openFixture('kernels-elementwise')
  for (let i = 0; i < 3; i++) {
    const x = fixture.floats(`norm.${i}.x`)
    const weight = fixture.floats(`norm.${i}.w`)
    for (const [name, eps] of [
      ['1e-05', 1e-5],
      ['1e-06', 1e-6],
    ] as const) {
      assertClose(rmsNorm(x, weight, { eps }), fixture.floats(`norm.${i}.rms_eps${name}`), 2e-5, `norm ${i}, ${name}`)
    }
    assert.equal(rmsNorm(x, weight), rmsNorm(x, weight, { eps: 1e-5 }), 'the default')
  }
})

test('SwiGLU', async () => {
  const fixture = await openFixture('kernels-elementwise')
  for (let i = 0; i < 3; i++) {
    const gate = fixture.tensor(`act.${i}.gate`)
    const expected = fixture.floats(`act.${i}.swiglu`)
    const found = swiglu(gate.values, fixture.floats(`act.${i}.up`), shapeOf(gate))
    assertClose(found, expected, 1e-6, `case ${i}`, 2e-6)
  }
})

test('activations of a linear layer', async () => {
  const fixture = await openFixture('kernels-elementwise')
  const x = fixture.floats('act.x')
  const one = { dtype: 'f32', data: Float32Array.of(1), shape: [1, 1] } as const
  const apply = (activation: 'silu' | 'gelu' | 'gelu_tanh' | 'relu' | 'none') => gemm(x, one, { activation })
  for (const [activation, name] of [
    ['silu', 'silu'],
    ['gelu', 'gelu_erf'],
    ['gelu_tanh', 'gelu_tanh'],
  ] as const) {
    const found = apply(activation)
    const expected = fixture.floats(`act.${name}`)
    // The fixture allows an error in proportion to the argument.
    x.forEach((argument, i) => {
      assertClose(
        [found[i] as number],
        [expected[i] as number],
        1e-6 + 2e-6 * Math.abs(argument),
        `${name}(${argument})`,
      )
    })
  }
  assert.equal(
    apply('relu'),
    x.map((value) => Math.max(0, value)),
  )
  assert.equal(apply('none'), x)
})

test('softmax, log-softmax and log-sum-exp', async () => {
  const fixture = await openFixture('kernels-elementwise')
  const x = fixture.tensor('softmax.x')
  const shape = shapeOf(x)
  const [rows, cols] = shape
  const found = softmax(x.values, shape)
  assertClose(found, fixture.floats('softmax.y'), 1e-6, 'softmax')
  const expectedLog = fixture.floats('softmax.log')
  assertClose(logSoftmax(x.values, shape), expectedLog, 1e-6, 'log-softmax', 2e-6)
  const sums = logSumExp(x.values, shape)
  for (let row = 0; row < rows; row++) {
    const values = x.values.subarray(row * cols, (row + 1) * cols)
    const total = found.subarray(row * cols, (row + 1) * cols).reduce((sum, value) => sum + value, 0)
    if (!Number.isNaN(total)) assertClose([total], [1], 1e-6, `sum of row ${row}`)
    const most = Math.max(...values)
    if (!Number.isFinite(most)) continue
    const exact = most + Math.log(values.reduce((sum, value) => sum + Math.exp(value - most), 0))
    assertClose([sums[row] as number], [exact], 1e-6, `log-sum-exp of row ${row}`, 1e-6)
  }
})

test('softmax of one column, of many, and of a NaN', () => {
  assert.equal([...softmax(Float32Array.of(-3, 1e30), [2, 1])], [1, 1])
  const cols = 100003
  const even = softmax(new Float32Array(cols), [1, cols])
  assertClose(even, new Float32Array(cols).fill(1 / cols), 0, 'even', 1e-5)
  const spoiled = softmax(Float32Array.of(0, Number.NaN, 1, 0, 1, 2), [2, 3])
  assert.ok(spoiled.subarray(0, 3).every(Number.isNaN))
  assert.ok(spoiled.subarray(3).every(Number.isFinite))
})

/** The rotation in float64, by these frequencies. */
const rotated = (
  x: Float32Array,
  position: number,
  frequencies: Float32Array,
  headDim: number,
  layout: 'half-split' | 'adjacent',
): Float32Array => {
  const out = x.slice()
  for (let head = 0; head < x.length; head += headDim) {
    frequencies.forEach((frequency, i) => {
      const [first, second] = layout === 'adjacent' ? [2 * i, 2 * i + 1] : [i, i + frequencies.length]
      const a = x[head + first] as number
      const b = x[head + second] as number
      const cos = Math.cos(position * frequency)
      const sin = Math.sin(position * frequency)
      out[head + first] = a * cos - b * sin
      out[head + second] = a * sin + b * cos
    })
  }
  return out
}

for (const config of ['llama2', 'llama3_8b', 'llama31_8b', 'llama32_1b', 'hd80']) {
  test(`rotary positions of ${config}, both layouts`, async () => {
    const fixture = await openFixture('kernels-elementwise')
    const { shape, values } = fixture.tensor(`rope.${config}.x`)
    const [rows, heads, headDim] = shape as [number, number, number]
    const positions = new Int32Array(fixture.bytes('rope.positions').buffer)
    const frequencies = fixture.floats(`rope.${config}.inv_freq`)
    for (const [layout, name] of [
      ['half-split', 'half_split'],
      ['adjacent', 'interleaved'],
    ] as const) {
      const found = rope(values, positions, { heads, headDim, frequencies, layout })
      const expected = fixture.floats(`rope.${config}.${name}`)
      const size = heads * headDim
      for (let row = 0; row < rows; row++) {
        const position = positions[row] as number
        const slice = (data: Float32Array) => data.subarray(row * size, (row + 1) * size)
        const largest = slice(values).reduce((most, value) => Math.max(most, Math.abs(value)), 0)
        // Angles are float64, but frequencies are f32: half a unit in their last place, times the position, stays.
        const rounding = position * 2 ** -24 * largest * Math.SQRT2
        const tolerance = 1e-6 + (position < 8192 ? Math.min(1e-3, rounding) : rounding)
        assertClose(slice(found), slice(expected), tolerance, `${name} at ${position}`)
        assertClose(
          slice(found),
          rotated(slice(values), position, frequencies, headDim, layout),
          1e-6,
          `${name} itself`,
        )
      }
    }
  })
}

test('rotary positions from a base, and of a part of a head', async () => {
  const fixture = await openFixture('kernels-elementwise')
  const { shape, values } = fixture.tensor('rope.llama2.x')
  const [, heads, headDim] = shape as [number, number, number]
  const positions = new Int32Array(fixture.bytes('rope.positions').buffer)
  const options = { heads, headDim }
  const frequencies = fixture.floats('rope.llama2.inv_freq')
  const near = positions.map((position) => Math.min(position, 64))
  const found = rope(values, near, { ...options, theta: 10000 })
  assertClose(found, rope(values, near, { ...options, frequencies }), 2e-5, 'theta 10,000')
  const part = rope(values, near, { ...options, frequencies: frequencies.subarray(0, 3), layout: 'adjacent' })
  part.forEach((value, i) => {
    if (i % headDim >= 6) assert.is(value, values[i])
  })
})

test.run()
