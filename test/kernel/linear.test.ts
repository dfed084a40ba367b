/** Linear layers in every number format. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { cpuDevice } from '../../lib/device/cpu.js'
import { decodeRow } from '../../lib/format/decode/index.js'
import { weightDTypes } from '../../lib/kernels/operands.js'
import { dequantize, gemm, PreparedLinear, quantize, type WeightDType } from '../../lib/kernels.js'
import { dtypes, rowBytes } from '../../lib/tensor.js'
import { assertClose, cosine, randomSource } from '../support.js'
import { openFixture, pickRows, type Tensor } from './fixture.js'

const pair = ({ shape }: Tensor): [number, number] => [shape[0] as number, shape[1] as number]

/** x · weightᵀ in float64. */
const product = (x: ArrayLike<number>, weight: ArrayLike<number>, depth: number): Float64Array => {
  const rows = x.length / depth
  const cols = weight.length / depth
  const out = new Float64Array(rows * cols)
  for (let m = 0; m < rows; m++) {
    for (let n = 0; n < cols; n++) {
      let sum = 0
      for (let k = 0; k < depth; k++) sum += (x[m * depth + k] as number) * (weight[n * depth + k] as number)
      out[m * cols + n] = sum
    }
  }
  return out
}

const rounded = (type: WeightDType, { values, shape }: Tensor): Float32Array => {
  const matrix = [shape[0] as number, shape[1] as number] as const
  return dequantize(type, quantize(type, values, matrix), matrix)
}

/** Each row within `relative` of the row's largest expected magnitude. */
const assertRowsClose = (
  found: Float32Array,
  expected: Float32Array,
  cols: number,
  relative: number,
  what: string,
): void => {
  for (let row = 0; row * cols < expected.length; row++) {
    const wanted = expected.subarray(row * cols, (row + 1) * cols)
    const largest = wanted.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
    assertClose(found.subarray(row * cols, (row + 1) * cols), wanted, relative * largest, `${what}, row ${row}`)
  }
}

test('float weights, float activations, bias', async () => {
  const fixture = await openFixture('kernels-linear')
  for (let i = 0; i < 5; i++) {
    const a = fixture.tensor(`gemm.${i}.a`)
    const bias = fixture.floats(`gemm.${i}.bias`)
    for (const [type, key, once, both] of [
      ['f32', 'w', 'y', undefined],
      ['bf16', 'w_bf16', 'y_bf16w', 'y_bf16_both'],
      ['f16', 'w_f16', 'y_f16w', 'y_f16_both'],
    ] as const) {
      const { bytes, ...w } = fixture.tensor(`gemm.${i}.${key}`)
      const weight = { dtype: type, data: bytes, shape: pair({ ...w, bytes }) }
      assertClose(gemm(a.values, weight, { bias }), fixture.floats(`gemm.${i}.${once}`), 2e-4, `${i} ${type}`)
      if (both === undefined) continue
      const expected = fixture.floats(`gemm.${i}.${both}`)
      const found = gemm(rounded(type, a), weight, { bias })
      assertClose(found, expected, 2e-4, `${i} ${type}, activations too`)
      if (type !== 'bf16') continue
      assert.equal(gemm(a.values, weight, { bias, activations: 'bf16' }), found, `${i}, activations: bf16`)
    }
  }
})

test('8-bit floats with scales per row', async () => {
  const fixture = await openFixture('kernels-linear')
  const wq = fixture.tensor('fp8.wq')
  const shape = pair(wq)
  const weight = { dtype: 'f8_e4m3', data: wq.bytes, shape } as const
  const scales = fixture.floats('fp8.wscale')
  for (const name of ['fp8', 'fp8_cap100', 'fp8_cap1200']) {
    const xq = fixture.tensor(`${name}.xq`)
    const x = dequantize('f8_e4m3', xq.bytes, pair(xq))
    const rowScales = fixture.floats(`${name}.xscale`)
    const found = gemm(x, weight).map((value, i) => {
      return value * (rowScales[Math.floor(i / shape[0])] as number) * (scales[i % shape[0]] as number)
    })
    assertRowsClose(found, fixture.floats(`${name}.y`), shape[0], 1e-5, name)
  }
})

test('8-bit integers, exact where 16-bit sums would saturate', async () => {
  const fixture = await openFixture('kernels-linear')
  const integers = (key: string) => Float32Array.from(new Int32Array(fixture.bytes(key).buffer))
  for (const [x, w, acc] of [
    ['int8.xq', 'int8.wq', 'int8.acc'],
    ['int8.trap.x', 'int8.trap.w', 'int8.trap.acc'],
    ['u8i8.xq', 'int8.wq', undefined],
    ['u8i8.trap.x', 'int8.trap.w', undefined],
  ] as const) {
    const weight = { dtype: 'i8', data: fixture.bytes(w), shape: pair(fixture.tensor(w)) } as const
    const found = gemm(fixture.floats(x), weight)
    const exact = product(fixture.floats(x), fixture.floats(w), weight.shape[1])
    assert.equal([...found], [...exact], `${x} · ${w}`)
    if (acc !== undefined) assert.equal(found, integers(acc), acc)
  }
  const trap = { dtype: 'i8', data: fixture.bytes('u8i8.trap.w'), shape: pair(fixture.tensor('u8i8.trap.w')) } as const
  assert.equal(gemm(fixture.floats('u8i8.trap.x'), trap), integers('u8i8.trap.acc'))
})

test('scales per row: 8-bit floats, the activations rounded as well, with and without a bound', async () => {
  const fixture = await openFixture('kernels-linear')
  const wq = fixture.tensor('fp8.wq')
  const shape = pair(wq)
  const weight = { dtype: 'f8_e4m3', data: wq.bytes, shape, scales: fixture.floats('fp8.wscale') } as const
  const x = fixture.floats('q.x')
  for (const [name, bound] of [
    ['fp8', {}],
    ['fp8_cap100', { activationBound: 100 }],
    ['fp8_cap1200', { activationBound: 1200 }],
  ] as const) {
    assertRowsClose(gemm(x, { ...weight, ...bound }), fixture.floats(`${name}.y`), shape[0], 1e-5, name)
  }
  // A bound that cuts is seen: row 3 has an outlier of 5000.
  const free = gemm(x, weight)
  const bounded = gemm(x, { ...weight, activationBound: 100 })
  assert.is.not(free[3 * shape[0]], bounded[3 * shape[0]])
  const plain = product(x, dequantize('f8_e4m3', wq.bytes, shape), shape[1])
  const scaled = Float32Array.from(plain, (value, i) => value * (weight.scales[i % shape[0]] as number))
  assertRowsClose(gemm(x, weight, { activations: 'f32' }), scaled, shape[0], 1e-5, 'f32 activations')
})

test('scales per row: 8-bit integers, exact to the last sum', async () => {
  const fixture = await openFixture('kernels-linear')
  const data = fixture.bytes('int8.wq')
  const shape = pair(fixture.tensor('int8.wq'))
  const scales = fixture.floats('int8.wscale')
  const x = fixture.floats('q.x')
  const sums = new Int32Array(fixture.bytes('int8.acc').slice().buffer)
  const rowScales = fixture.floats('int8.xscale')
  const exact = Float32Array.from(sums, (sum, i) =>
    Math.fround(Math.fround(sum * (rowScales[Math.floor(i / shape[0])] as number)) * (scales[i % shape[0]] as number)),
  )
  const found = gemm(x, { dtype: 'i8', data, shape, scales })
  assert.equal([...found], [...exact])
  assertRowsClose(found, fixture.floats('int8.y'), shape[0], 1e-5, 'int8')
  // Alone, in a batch, and in one of another size a row gives the same bits.
  for (let row = 0; row < x.length / shape[1]; row++) {
    const one = gemm(x.subarray(row * shape[1], (row + 1) * shape[1]), { dtype: 'i8', data, shape, scales })
    assert.equal(one, found.subarray(row * shape[0], (row + 1) * shape[0]), `row ${row}`)
  }
  // Where 16-bit sums of pairs saturate; activations of 127 have the scale 1.
  const trap = pair(fixture.tensor('int8.trap.w'))
  const trapped = gemm(fixture.floats('int8.trap.x'), {
    dtype: 'i8',
    data: fixture.bytes('int8.trap.w'),
    shape: trap,
    scales: new Float32Array(trap[0]).fill(1),
  })
  assert.equal(trapped, Float32Array.from(new Int32Array(fixture.bytes('int8.trap.acc').slice().buffer)))
})

test('scales per group: 4-bit integers', async () => {
  const fixture = await openFixture('kernels-linear')
  const codes = fixture.tensor('int4sym.codes')
  const shape = pair(codes)
  const data = new Uint8Array(codes.values.length / 2)
  for (let i = 0; i < data.length; i++) {
    data[i] = ((codes.values[2 * i] as number) + 8) | (((codes.values[2 * i + 1] as number) + 8) << 4)
  }
  const scales = fixture.floats('int4sym.scales')
  const weight = { dtype: 'i4', data, shape, scales } as const
  const x = fixture.floats('int4sym.x')
  assertRowsClose(gemm(x, weight, { activations: 'f32' }), fixture.floats('int4sym.y'), shape[0], 1e-5, 'f32')
  // Activations with a scale per 32 are nearer to the truth than those with one per row.
  const distance = (y: Float32Array): number => {
    const right = fixture.floats('int4sym.y')
    return Math.hypot(...y.map((value, i) => value - (right[i] as number)))
  }
  const found = gemm(x, weight)
  assert.ok(distance(found) < distance(fixture.floats('int4sym.y_8da4w')), 'blocks of 32')
  // One scale for the whole row, as for equal ones per group.
  const same = new Float32Array(shape[0]).map((_, i) => 0.01 * (i + 1))
  const repeated = Float32Array.from(scales, (_, i) => same[Math.floor(i / 3)] as number)
  assert.equal(gemm(x, { ...weight, scales: same }), gemm(x, { ...weight, scales: repeated }))
})

test('scales that do not fit are refused', () => {
  const data = new Uint8Array(4 * 64)
  const x = new Float32Array(64)
  for (const [dtype, bytes, count] of [
    ['i8', 4 * 64, 8],
    ['i8', 4 * 64, 3],
    ['f8_e4m3', 4 * 64, 0],
    ['i4', 4 * 32, 16],
    ['i4', 4 * 32, 12],
    ['q8_0', 4 * 68, 4],
  ] as const) {
    const weight = { dtype, data: new Uint8Array(bytes), shape: [4, 64], scales: new Float32Array(count) } as const
    assert.throws(() => gemm(x, weight), /scales/, `${dtype} ${count}`)
  }
  assert.throws(
    () => gemm(x, { dtype: 'f8_e4m3', data, shape: [4, 64], scales: new Float32Array(4), activationBound: -1 }),
    /activationBound/,
  )
  // Where it would be ignored: without scales, and for codes of other formats.
  assert.throws(() => gemm(x, { dtype: 'f8_e4m3', data, shape: [4, 64], activationBound: 9 }), /activationBound/)
  assert.throws(
    () => gemm(x, { dtype: 'i8', data, shape: [4, 64], scales: new Float32Array(4), activationBound: 9 }),
    /activationBound/,
  )
})

test('integer kernels are exact on whole numbers, at the ends of their range', () => {
  const random = randomSource(21)
  const depth = 512
  const outputs = 37
  // Blocks whose scale is 1: codes are the values, where the largest activation is 127.
  const one = Float32Array.of(127)
  const codes = (type: WeightDType) => (type === 'q8_0' ? [-127, 127] : [-8, 7])
  for (const type of ['q8_0', 'q4_0'] as const) {
    const [low, high] = codes(type) as [number, number]
    for (const kind of ['extreme', 'random'] as const) {
      const draw = (from: number, to: number) =>
        kind === 'extreme' ? (random() < 0.9 ? from : to) : from + Math.floor(random() * (to - from + 1))
      // Every block holds the extreme code that gives it the scale 1.
      const w = Float32Array.from({ length: outputs * depth }, (_, i) => (i % 32 === 0 ? low : draw(low, high)))
      const data = quantize(type, w, [outputs, depth])
      assert.equal(dequantize(type, data, [outputs, depth]), w)
      for (const rows of [1, 2, 3, 4, 7, 16, 33]) {
        const x = Float32Array.from({ length: rows * depth }, (_, i) =>
          i % 32 === 5 ? (one[0] as number) : draw(-127, 127),
        )
        const found = gemm(x, { dtype: type, data, shape: [outputs, depth] })
        assert.equal([...found], [...product(x, w, depth)], `${type}, ${kind}, ${rows} rows`)
      }
    }
  }
})

test('4-bit groups, symmetric and with zero points', async () => {
  const fixture = await openFixture('kernels-linear')
  for (const name of ['int4sym', 'int4asym']) {
    const weights = fixture.tensor(`${name}.dequant`)
    const shape = pair(weights)
    const found = gemm(fixture.floats('int4sym.x'), { dtype: 'f32', data: weights.values, shape })
    assertRowsClose(found, fixture.floats(`${name}.y`), shape[0], 1e-5, name)
  }
  // Codes around 8 with f16 scales are Q4_0; its integer kernel rounds activations in blocks.
  const codes = fixture.tensor('int4sym.codes')
  const [rows, cols] = pair(codes)
  const scales = rounded('f16', fixture.tensor('int4sym.scales'))
  const values = codes.values.map((code, i) => code * (scales[Math.floor(i / 32)] as number))
  const bytes = new Uint8Array(rowBytes('q4_0', cols) * rows)
  for (let block = 0; block < values.length / 32; block++) {
    bytes.set(quantize('f16', scales.subarray(block, block + 1), [1, 1]), block * 18)
    for (let i = 0; i < 16; i++) {
      const [low, high] = [codes.values[block * 32 + i], codes.values[block * 32 + i + 16]] as [number, number]
      bytes[block * 18 + 2 + i] = (low + 8) | ((high + 8) << 4)
    }
  }
  const weight = { dtype: 'q4_0', data: bytes, shape: [rows, cols] } as const
  assert.equal(dequantize('q4_0', bytes, [rows, cols]), values)
  const x = fixture.floats('int4sym.x')
  const plain = product(x, values, cols)
  assertRowsClose(gemm(x, weight, { activations: 'f32' }), Float32Array.from(plain), rows, 1e-5, 'q4_0')
  assertRowsClose(gemm(x, weight), Float32Array.from(plain), rows, 0.02, 'q4_0, 8-bit activations')
})

/** Stored rows with every bit pattern that a fixture has for this format, or random plain numbers. */
const storedRows = async (type: WeightDType, rows: number, cols: number): Promise<Uint8Array> => {
  const blocks = await openFixture('gguf-blocks')
  const random = randomSource(5)
  const key = `${type.toUpperCase()}.raw`
  const { block, bytes } = dtypes[type]
  if (!blocks.has(key)) {
    const values = Float32Array.from({ length: rows * cols }, () => Math.round(random() * 200 - 100) / 8)
    if (type === 'q8_k')
      return new Uint8Array(rowBytes(type, cols) * rows).map((_, i) =>
        i % bytes < 4 ? [0, 0, 128, 59][i % bytes]! : i * 31,
      )
    if (type === 'f64') return new Uint8Array(Float64Array.from(values).buffer)
    if (type === 'i64') return new Uint8Array(BigInt64Array.from(values, (value) => BigInt(Math.round(value))).buffer)
    if (type === 'i32') return new Uint8Array(Int32Array.from(values).buffer)
    if (type === 'i16') return new Uint8Array(Int16Array.from(values).buffer)
    if (type === 'i8') return new Uint8Array(Int8Array.from(values).buffer)
    if (type === 'i4') return new Uint8Array((rows * cols) / 2).map(() => Math.floor(random() * 256))
    return quantize(type, values, [rows, cols])
  }
  const raw = blocks.bytes(key)
  const count = raw.length / bytes
  const out = new Uint8Array(rowBytes(type, cols) * rows)
  for (let i = 0; i < (rows * cols) / block; i++) {
    const from = Math.floor(random() * count) * bytes
    out.set(raw.subarray(from, from + bytes), i * bytes)
  }
  return out
}

for (const type of weightDTypes) {
  test(`${type} weights: float and 8-bit activations, epilogues, any number of rows`, async () => {
    const random = randomSource(9)
    const { block } = dtypes[type]
    const cols = block === 1 ? 157 : block === 32 ? 160 : 768
    const outputs = 53
    const data = await storedRows(type, outputs, cols)
    const values = new Float32Array(outputs * cols)
    for (let row = 0; row < outputs; row++) {
      const from = row * rowBytes(type, cols)
      decodeRow(type, data.subarray(from), cols, values.subarray(row * cols, (row + 1) * cols))
    }
    // The largest weight counts: random bit patterns have blocks that dwarf all others.
    const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-30)
    const x = Float32Array.from({ length: 33 * cols }, () => (random() - 0.5) / largest)
    const bias = Float32Array.from({ length: outputs }, () => random() - 0.5)
    const residual = Float32Array.from({ length: 33 * outputs }, () => random() - 0.5)
    const weight = { dtype: type, data, shape: [outputs, cols] } as const
    const exact = product(x, values, cols)
    for (const rows of [1, 2, 5, 16, 33]) {
      const part = x.subarray(0, rows * cols)
      const wanted = Float32Array.from(exact.subarray(0, rows * outputs))
      const size = Math.sqrt(cols)
      assertClose(gemm(part, weight, { activations: 'f32' }), wanted, 2e-6 * size, `${rows} rows, f32`)
      const auto = gemm(part, weight)
      if (cpuDevice.layout.gemmActivations(type) === undefined || cpuDevice.layout.gemmActivations(type) === 'f32') {
        assertClose(auto, wanted, 2e-6 * size, `${rows} rows`)
      } else {
        assert.ok(cosine(auto, wanted) > 0.999, `${rows} rows, 8-bit: cosine ${cosine(auto, wanted)}`)
      }
      const sum = gemm(part, weight, { activation: 'relu', bias, residual: residual.subarray(0, rows * outputs) })
      const plain = gemm(part, weight)
      const expected = plain.map((value, i) => {
        return Math.fround(Math.max(0, Math.fround(value + (bias[i % outputs] as number)))) + (residual[i] as number)
      })
      assertClose(sum, expected, 1e-6, `${rows} rows, epilogue`)
      // A row's result does not depend on the rows beside it.
      assert.equal(plain, gemm(x, weight).subarray(0, rows * outputs), `${rows} rows of 33`)
    }
  })
}

test('a prepared layer gives what single calls give', async () => {
  const fixture = await openFixture('kernels-linear')
  const w = fixture.tensor('gemm.3.w_bf16')
  const a = fixture.tensor('gemm.3.a')
  const bias = fixture.floats('gemm.3.bias')
  const weight = { dtype: 'bf16', data: w.bytes, shape: pair(w) } as const
  const q8 = { dtype: 'q8_0', data: quantize('q8_0', w.values, pair(w)), shape: pair(w) } as const
  const [rows, cols] = pair(a)
  const residual = Float32Array.from({ length: rows * weight.shape[0] }, (_, i) => i / 100)
  for (const stored of [weight, q8]) {
    const options = { bias, activation: 'silu' } as const
    const layer = PreparedLinear.prepare(stored, rows, options)
    const later = await PreparedLinear.prepareAsync(stored, rows, options)
    for (const count of [1, 5, rows]) {
      const x = pickRows(
        a.values,
        cols,
        Array.from({ length: count }, (_, i) => rows - 1 - i),
      )
      const added = residual.subarray(0, count * weight.shape[0])
      assert.equal(layer.apply(x), gemm(x, stored, options))
      assert.equal(layer.apply(x, added), gemm(x, stored, { ...options, residual: added }))
      assert.equal(await later.applyAsync(x, added), layer.apply(x, added))
    }
    await layer.close()
    await later.close()
  }
})

test.run()
