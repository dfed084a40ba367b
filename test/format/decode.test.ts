import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { DroverError } from '../../lib/errors.js'
import { decodeRow } from '../../lib/format/decode/index.js'
import { floatToBfloat, floatToE4m3, floatToE5m2, floatToHalf, halfToFloat } from '../../lib/format/decode/scalar.js'
import { type DTypeName, dtypes, rowBytes } from '../../lib/tensor.js'
import { fixture, randomSource } from '../support.js'
import { asFloats, asShorts, asWords, readStored, storedTensor } from './stored.js'

const bits = (values: Float32Array): Uint32Array => new Uint32Array(values.buffer, values.byteOffset, values.length)

/** Index of the first number that differs in any bit; NaN equals every NaN. */
const firstDifference = (found: Float32Array, expected: Float32Array): number => {
  assert.is(found.length, expected.length)
  const a = bits(found)
  const b = bits(expected)
  return a.findIndex((word, i) => word !== b[i] && !(Number.isNaN(found[i]) && Number.isNaN(expected[i])))
}

const decode = (dtype: DTypeName, bytes: Uint8Array, cols: number): Float32Array => {
  const out = new Float32Array(cols)
  decodeRow(dtype, bytes, cols, out)
  return out
}

const blockTypes = Object.values(dtypes)
  .filter(({ block, name }) => block > 1 && name !== 'i4') // which is no type of GGUF
  .map(({ name }) => name as DTypeName)

test('every block type of the reference decodes bit for bit', async () => {
  const stored = await readStored(fixture('gguf-blocks/expected.safetensors'))
  const types = [...stored.keys()].filter((name) => name.endsWith('.raw')).map((name) => name.slice(0, -4))
  assert.equal(types.map((type) => type.toLowerCase()).sort(), blockTypes.filter((type) => type !== 'q8_k').sort())
  for (const type of types) {
    const dtype = type.toLowerCase() as DTypeName
    const { bytes, info } = storedTensor(stored, `${type}.raw`)
    assert.is(info.shape[1], dtypes[dtype].bytes, dtype)
    const expected = asFloats(storedTensor(stored, `${type}.values`))
    assert.is(firstDifference(decode(dtype, bytes, expected.length), expected), -1, dtype)
  }
})

test('4-bit integers: two codes in a byte, the first in its low half', () => {
  const bytes = Uint8Array.from({ length: 16 }, (_, i) => i | ((15 - i) << 4))
  const found = decode('i4', bytes, 32)
  for (let i = 0; i < 16; i++) assert.equal([found[2 * i], found[2 * i + 1]], [i - 8, 7 - i])
})

test('the quantised bytes of the reference decode close to what was quantised', async () => {
  const stored = await readStored(fixture('gguf-blocks/expected.safetensors'))
  const input = asFloats(storedTensor(stored, 'quantize.input'))
  const steps = { bf16: 2 ** 9, q4_0: 8, q4_1: 15, q5_0: 16, q5_1: 31, q8_0: 127 }
  for (const [dtype, levels] of Object.entries(steps)) {
    const { bytes } = storedTensor(stored, `quantize.${dtype.toUpperCase()}.bytes`)
    const found = decode(dtype as DTypeName, bytes, input.length)
    for (let block = 0; block < input.length; block += 32) {
      const part = input.subarray(block, block + 32)
      const range = Math.max(...part.map(Math.abs)) * 2
      for (let i = block; i < block + 32; i++) {
        assert.ok(Math.abs(found[i]! - input[i]!) <= (range / levels) * 1.01, `${dtype} ${i}`)
      }
    }
  }
})

test('every code of the small floats decodes as the reference says', async () => {
  const stored = await readStored(fixture('kernels-formats/expected.safetensors'))
  const codes = Uint8Array.from({ length: 256 }, (_, i) => i)
  for (const [dtype, name] of [
    ['f8_e4m3', 'e4m3fn.codes_decoded'],
    ['f8_e5m2', 'e5m2.codes_decoded'],
  ] as const) {
    assert.is(firstDifference(decode(dtype, codes, 256), asFloats(storedTensor(stored, name))), -1, dtype)
  }
  const halves = asFloats(storedTensor(stored, 'f16.all_codes_decoded_bits'))
  const everySeventh = Uint16Array.from(halves, (_, i) => i * 7)
  assert.is(firstDifference(decode('f16', new Uint8Array(everySeventh.buffer), halves.length), halves), -1)
})

test('rounding to the small floats is to nearest even, as in the reference', async () => {
  const stored = await readStored(fixture('kernels-formats/expected.safetensors'))
  const input = asFloats(storedTensor(stored, 'input'))
  const shorts = (name: string): ArrayLike<number> => asShorts(storedTensor(stored, name))
  const codes = (name: string): ArrayLike<number> => storedTensor(stored, name).bytes
  const cases: [string, ArrayLike<number>, (value: number) => number, (code: number) => boolean][] = [
    ['f16', shorts('f16'), floatToHalf, (code) => (code & 0x7fff) > 0x7c00],
    ['bf16', shorts('bf16'), floatToBfloat, (code) => (code & 0x7fff) > 0x7f80],
    ['e5m2', codes('e5m2'), floatToE5m2, (code) => (code & 0x7f) > 0x7c],
    ['e4m3fn', codes('e4m3fn'), floatToE4m3, (code) => (code & 0x7f) === 0x7f],
    ['e4m3fn_saturated', codes('e4m3fn_saturated'), floatToE4m3, (code) => (code & 0x7f) === 0x7f],
  ]
  for (const [name, expected, convert, isNan] of cases) {
    for (let i = 0; i < input.length; i++) {
      const found = convert(input[i]!)
      const same = found === expected[i] || (isNan(found) && isNan(expected[i]!))
      assert.ok(same, `${name}: ${input[i]} becomes ${found}, expected ${expected[i]}`)
    }
  }
})

test('rounding undoes decoding for every finite half', () => {
  for (let code = 0; code < 65536; code++) {
    if ((code & 0x7fff) <= 0x7c00) assert.is(floatToHalf(halfToFloat(code)), code)
  }
})

test('bfloat16 is the upper half of an f32', async () => {
  const stored = await readStored(fixture('kernels-formats/expected.safetensors'))
  const { bytes } = storedTensor(stored, 'bf16')
  const words = Uint32Array.from(asShorts(storedTensor(stored, 'bf16')), (code) => code * 65536)
  assert.is(firstDifference(decode('bf16', bytes, words.length), new Float32Array(words.buffer)), -1)
})

test('f32 keeps every bit, even those of a NaN', async () => {
  const payload = Uint32Array.of(0x7f800001, 0xffc12345, 0x80000000, 1)
  assert.equal([...bits(decode('f32', new Uint8Array(payload.buffer), 4))], [...payload])
  const stored = await readStored(fixture('kernels-formats/expected.safetensors'))
  const input = storedTensor(stored, 'input')
  assert.equal(bits(decode('f32', input.bytes, asWords(input).length)), asWords(input))
})

test('integers and doubles are rounded to the nearest f32 once', () => {
  const from = (dtype: DTypeName, values: ArrayBufferView): number[] => {
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
    return [...decode(dtype, bytes, bytes.length / dtypes[dtype].bytes)]
  }
  assert.equal(from('i8', Int8Array.of(-128, -1, 0, 127)), [-128, -1, 0, 127])
  assert.equal(from('u8', Uint8Array.of(0, 128, 255)), [0, 128, 255])
  assert.equal(from('bool', Uint8Array.of(0, 1)), [0, 1])
  assert.equal(from('i16', Int16Array.of(-32768, 32767)), [-32768, 32767])
  assert.equal(from('u16', Uint16Array.of(0, 65535)), [0, 65535])
  assert.equal(from('i32', Int32Array.of(-(2 ** 31), 16777217, 16777219)), [-(2 ** 31), 16777216, 16777220])
  assert.equal(from('u32', Uint32Array.of(4294967295, 2147483648)), [4294967296, 2147483648])
  assert.equal(from('f64', Float64Array.of(0.1, 1e300, -1e-300, 1 + 2 ** -24)), [
    Math.fround(0.1),
    Number.POSITIVE_INFINITY,
    -0,
    1,
  ])
  // Past 2^53, a tie in f32 that f64 cannot tell from one: the last bit must still count.
  const tie = 2n ** 62n + 2n ** 38n
  assert.equal(from('i64', BigInt64Array.of(tie, tie + 1n, -tie - 1n, -(2n ** 63n), -7n)), [
    2 ** 62,
    2 ** 62 + 2 ** 39,
    -(2 ** 62) - 2 ** 39,
    -(2 ** 63),
    -7,
  ])
  assert.equal(from('u64', BigUint64Array.of(2n ** 63n, 2n ** 64n - 1n, tie + 1n)), [
    2 ** 63,
    2 ** 64,
    2 ** 62 + 2 ** 39,
  ])
})

test('q8_k multiplies signed bytes by an f32 scale and ignores the sums', () => {
  const block = new Uint8Array(292).fill(0xee)
  new DataView(block.buffer).setFloat32(0, 0.1, true)
  for (let i = 0; i < 256; i++) block[4 + i] = i
  const expected = Float32Array.from({ length: 256 }, (_, i) => Math.fround(0.1) * (i < 128 ? i : i - 256))
  assert.is(firstDifference(decode('q8_k', block, 256), expected), -1)
})

test('mxfp4 scales reach down to subnormal and up to infinity', () => {
  const block = (exponent: number): Uint8Array => new Uint8Array(17).fill(0x71).fill(exponent, 0, 1)
  assert.is(decode('mxfp4', block(127), 32)[0], 0.5)
  assert.is(decode('mxfp4', block(127), 32)[16], 6)
  assert.is(decode('mxfp4', block(0), 32)[0], 2 ** -128)
  assert.is(decode('mxfp4', block(1), 32)[0], 2 ** -127)
  assert.is(decode('mxfp4', block(2), 32)[0], 2 ** -126)
  assert.is(decode('mxfp4', block(255), 32)[16], Number.POSITIVE_INFINITY)
})

test('a row may end inside its last block, and starts at any byte', () => {
  const random = randomSource(7)
  for (const dtype of Object.keys(dtypes) as DTypeName[]) {
    const { block } = dtypes[dtype]
    const size = rowBytes(dtype, 3 * block)
    const shifted = Uint8Array.from({ length: size + 1 }, () => random() * 256)
    const whole = decode(dtype, shifted.slice(1), 3 * block)
    for (const cols of [0, 1, block, Math.floor(2.5 * block), 3 * block - 1]) {
      const out = new Float32Array(3 * block + 1).fill(42)
      decodeRow(dtype, shifted.subarray(1), cols, out)
      assert.is(firstDifference(out.subarray(0, cols), whole.subarray(0, cols)), -1, `${dtype} ${cols}`)
      assert.ok(
        out.subarray(cols).every((value) => value === 42),
        `${dtype} ${cols}: nothing is written past the row`,
      )
    }
  }
})

test('buffers that are too short are refused', () => {
  for (const dtype of Object.keys(dtypes) as DTypeName[]) {
    const { block, bytes } = dtypes[dtype]
    const refused = (code: string, run: () => void) =>
      assert.throws(run, (error: unknown) => error instanceof DroverError && error.code === code)
    refused('E_SHAPE', () => decodeRow(dtype, new Uint8Array(2 * bytes - 1), block + 1, new Float32Array(2 * block)))
    refused('E_SHAPE', () => decodeRow(dtype, new Uint8Array(2 * bytes), 2 * block, new Float32Array(2 * block - 1)))
    refused('E_ARGUMENT', () => decodeRow(dtype, new Uint8Array(bytes), -1, new Float32Array(block)))
    refused('E_ARGUMENT', () => decodeRow(dtype, new Uint8Array(bytes), 0.5, new Float32Array(block)))
  }
})

test.run()
