/** Number formats through the native decoders, and what the quantisers write. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { weightDTypes } from '../../lib/kernels/operands.js'
import {
  DroverError,
  dequantize,
  dequantizeAsync,
  quantizableDTypes,
  quantize,
  quantizeAsync,
} from '../../lib/kernels.js'
import { dtypes } from '../../lib/tensor.js'
import { assertClose, randomSource } from '../support.js'
import { encode, encodedDTypes } from './encoders.js'
import { openFixture } from './fixture.js'

/** Equal as numbers; any NaN is as good as another. */
const assertSame = (found: ArrayLike<number>, expected: ArrayLike<number>, what: string): void => {
  assert.is(found.length, expected.length)
  for (let i = 0; i < found.length; i++) assert.ok(Object.is(found[i], expected[i]), `${what}: [${i}] is ${found[i]}`)
}

const shorts = (bytes: Uint8Array): Uint16Array => new Uint16Array(bytes.slice().buffer)

test('floats of 8 and 16 bits, both ways', async () => {
  const fixture = await openFixture('kernels-formats')
  for (const [type, name] of [
    ['f8_e4m3', 'e4m3fn'],
    ['f8_e5m2', 'e5m2'],
  ] as const) {
    const all = Uint8Array.from({ length: 256 }, (_, code) => code)
    assertSame(dequantize(type, all, [1, 256]), fixture.floats(`${name}.codes_decoded`), name)
  }
  const bits = new Int32Array(fixture.bytes('f16.all_codes_decoded_bits').buffer)
  const codes = Uint16Array.from(bits, (_, i) => i * 7)
  const decoded = dequantize('f16', new Uint8Array(codes.buffer), [1, codes.length])
  assertSame(decoded, new Float32Array(bits.buffer), 'f16')

  const input = fixture.floats('input')
  const shape = [1, input.length] as const
  const isNaNCode = { bf16: 0x7f80, f16: 0x7c00, f8_e4m3: 0x7e, f8_e5m2: 0x7c }
  for (const [type, name] of [
    ['bf16', 'bf16'],
    ['f16', 'f16'],
    ['f8_e4m3', 'e4m3fn_saturated'],
    ['f8_e5m2', 'e5m2'],
  ] as const) {
    const wide = dtypes[type].bytes === 2
    const found = quantize(type, input, shape)
    const expected = fixture.bytes(name)
    const [a, b] = wide ? [shorts(found), shorts(expected)] : [found, expected]
    const magnitude = wide ? 0x7fff : 0x7f
    input.forEach((value, i) => {
      if (Number.isNaN(value)) assert.ok(((a[i] as number) & magnitude) > isNaNCode[type], `${type} of NaN`)
      else assert.is(a[i], b[i], `${type} of ${value}`)
    })
  }
  assertSame(dequantize('f32', quantize('f32', input, shape), shape), input, 'f32')
})

test('every block format decodes, every bit of it', async () => {
  const fixture = await openFixture('gguf-blocks')
  let checked = 0
  for (const type of weightDTypes) {
    const key = type.toUpperCase()
    if (!fixture.has(`${key}.raw`)) continue
    const expected = fixture.tensor(`${key}.values`)
    const [rows, cols] = expected.shape as [number, number]
    const raw = fixture.bytes(`${key}.raw`)
    const found = dequantize(type, raw, [rows, cols])
    for (let row = 0; row < rows; row++) {
      const wanted = expected.values.subarray(row * cols, (row + 1) * cols)
      const largest = wanted.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
      assertClose(found.subarray(row * cols, (row + 1) * cols), wanted, 1e-6 * largest, `${type}, block ${row}`)
    }
    assert.equal(await dequantizeAsync(type, raw, [rows, cols]), found)
    checked++
  }
  assert.is(checked, 22)
})

test('quantisers write what the reference writes, byte for byte', async () => {
  const fixture = await openFixture('gguf-blocks')
  const { values, shape } = fixture.tensor('quantize.input')
  const [rows, cols] = shape as [number, number]
  let checked = 0
  for (const type of quantizableDTypes) {
    const key = `quantize.${type.toUpperCase()}.bytes`
    if (!fixture.has(key)) continue
    assert.equal(quantize(type, values, [rows, cols]), fixture.bytes(key), type)
    assert.equal(await quantizeAsync(type, values, [rows, cols]), fixture.bytes(key), type)
    checked++
  }
  assert.is(checked, 6)
})

test('there and back: the error is that of the format', () => {
  const random = randomSource(4)
  const shape = [7, 96] as const
  const values = Float32Array.from({ length: 7 * 96 }, () => random() * 2 - 1)
  const steps = { q8_0: 1 / 127, q4_0: 1 / 7, q5_0: 1 / 15, q4_1: 2 / 15, q5_1: 2 / 31, f16: 2 ** -11, bf16: 2 ** -8 }
  for (const [type, step] of Object.entries(steps) as [keyof typeof steps, number][]) {
    const back = dequantize(type, quantize(type, values, shape), shape)
    assertClose(back, values, step * 1.01, type)
    // What has been rounded once stays.
    if (!type.endsWith('_1')) assert.equal(dequantize(type, quantize(type, back, shape), shape), back, type)
  }
})

test('native encoders write what the plain ones write, byte for byte', () => {
  const random = randomSource(8)
  const values = Float32Array.from({ length: 64 * 96 }, (_, i) => {
    const scale = 2 ** (Math.floor(i / 96) - 50)
    return (random() + random() + random() - 1.5) * scale
  })
  // Ties: halves of a scale that is a power of two.
  const ties = Float32Array.from({ length: 32 }, (_, i) => (i === 7 ? -127 : i - 15.5))
  for (const type of encodedDTypes) {
    assert.equal(quantize(type, values, [64, 96]), encode(type, values), type)
    assert.equal(quantize(type, ties, [1, 32]), encode(type, ties), `${type}, ties`)
  }
})

/** Normal numbers, as weights nearly are. */
const normals = (length: number, seed: number): Float32Array => {
  const random = randomSource(seed)
  return Float32Array.from({ length }, () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random()))
}

const rootMeanSquare = (a: Float32Array, b: Float32Array, weight: (i: number) => number): number => {
  let sum = 0
  let total = 0
  for (let i = 0; i < a.length; i++) {
    sum += weight(i) * (a[i]! - b[i]!) ** 2
    total += weight(i)
  }
  return Math.sqrt(sum / total)
}

// Of normal numbers with deviation 1.
const errors = {
  q2_k: 0.265,
  q3_k: 0.146,
  q4_k: 0.071,
  q5_k: 0.0353,
  q6_k: 0.0173,
  iq4_nl: 0.075,
  iq4_xs: 0.0755,
  mxfp4: 0.114,
} as const

test('searched formats: the error of normal numbers, and less of it where it counts', () => {
  const cols = 1024
  const shape = [64, cols] as const
  const values = normals(64 * cols, 12)
  const importance = Float32Array.from(normals(cols, 13), (value) => Math.exp(2 * value))
  for (const [type, bound] of Object.entries(errors) as [keyof typeof errors, number][]) {
    const plain = dequantize(type, quantize(type, values, shape), shape)
    const error = rootMeanSquare(values, plain, () => 1)
    assert.ok(error < bound && error > bound * 0.9, `${type}: ${error}`)
    const weighted = dequantize(type, quantize(type, values, shape, { importance }), shape)
    const weight = (i: number): number => importance[i % cols] as number
    const [blind, seeing] = [rootMeanSquare(values, plain, weight), rootMeanSquare(values, weighted, weight)]
    // All that mxfp4 can choose is a power of two.
    assert.ok(
      seeing < (type === 'mxfp4' ? 0.995 : 0.97) * blind,
      `${type}: ${seeing} with importance, ${blind} without`,
    )
  }
})

test('an abort ends a large conversion', async () => {
  const controller = new AbortController()
  const values = normals(4096 * 1024, 5)
  const pending = quantizeAsync('q4_k', values, [4096, 1024], { signal: controller.signal })
  setTimeout(() => controller.abort(), 5)
  const error = await pending.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  assert.ok(error instanceof DroverError && error.code === 'E_ABORTED', String(error))
})

test('blocks of equal numbers, of zeros, of the smallest numbers', () => {
  for (const type of ['q8_0', 'q4_0', 'q4_1', 'q5_0', 'q5_1'] as const) {
    for (const value of [0, 1, -2.5, 1e-40]) {
      const back = dequantize(type, quantize(type, new Float32Array(32).fill(value), [1, 32]), [1, 32])
      assertClose(back, new Float32Array(32).fill(Math.abs(value) < 1e-30 ? 0 : value), 0.002 * Math.abs(value), type)
    }
  }
})

test('what cannot be stored is refused', () => {
  const refused = (code: string, body: () => unknown): void => {
    assert.throws(body, (error: unknown) => error instanceof DroverError && error.code === code, code)
  }
  refused('E_UNSUPPORTED', () => quantize('iq2_s', new Float32Array(256), [1, 256]))
  refused('E_SHAPE', () => quantize('q4_k', new Float32Array(128), [1, 128]))
  refused('E_RANGE', () => quantize('q4_k', new Float32Array(256).fill(1e30), [1, 256]))
  refused('E_SHAPE', () => quantize('q4_k', new Float32Array(256), [1, 256], { importance: new Float32Array(255) }))
  const negative = { importance: new Float32Array(256).fill(-1) }
  refused('E_RANGE', () => quantize('q4_k', new Float32Array(256), [1, 256], negative))
  refused('E_ARGUMENT', () => quantize('q4_k', new Float32Array(256), [1, 256], { weights: 1 } as object))
  refused('E_RANGE', () => quantize('q8_0', new Float32Array(32).fill(Number.NaN), [1, 32]))
  refused('E_RANGE', () => quantize('q4_1', new Float32Array(32).fill(Number.POSITIVE_INFINITY), [1, 32]))
  refused('E_SHAPE', () => quantize('q8_0', new Float32Array(33), [1, 33]))
  refused('E_SHAPE', () => quantize('q8_0', new Float32Array(32), [2, 32]))
  refused('E_ARGUMENT', () => quantize('u8' as 'i8', new Float32Array(32), [1, 32]))
  refused('E_ARGUMENT', () => quantize('q8_0', new Float64Array(32) as unknown as Float32Array, [1, 32]))
  refused('E_SHAPE', () => dequantize('q8_0', new Uint8Array(33), [1, 32]))
  refused('E_ARGUMENT', () => dequantize('q8_0', new Uint8Array(34), [1] as unknown as [number, number]))
})

test.run()
