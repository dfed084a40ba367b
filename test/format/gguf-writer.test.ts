import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { DroverError, type ErrorCode } from '../../lib/errors.js'
import { readTensor } from '../../lib/format/file.js'
import { type GgufArray, type GgufValue, readGguf } from '../../lib/format/gguf.js'
import { ggmlTypes } from '../../lib/format/gguf-types.js'
import { type GgufEntry, type GgufTensor, writeGguf } from '../../lib/format/gguf-writer.js'
import { dtypes, rowBytes } from '../../lib/tensor.js'
import { randomSource } from '../support.js'

const folder = mkdtempSync(join(tmpdir(), 'drover-gguf-writer-'))
const path = join(folder, 'model.gguf')
const test = suite('gguf writer')
test.after(() => rmSync(folder, { recursive: true }))
test.after.each(() => {
  for (const name of readdirSync(folder)) rmSync(join(folder, name))
})

/** A metadata value as plain JavaScript. */
const plain = (value: GgufValue | undefined): unknown =>
  typeof value === 'object' ? [...(value as Exclude<GgufArray, { type: 'array' }>).values] : value

const tensor = (name: string, type: string, shape: number[], bytes: Uint8Array, pieces = 1): GgufTensor => ({
  name,
  type,
  shape,
  bytes: bytes.length,
  *chunks() {
    const size = Math.ceil(bytes.length / pieces)
    for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
  },
})

const zeros = (name: string, columns = 4): GgufTensor => tensor(name, 'F32', [columns], new Uint8Array(columns * 4))

const refused = async (code: ErrorCode, field: string, run: () => Promise<void>): Promise<void> => {
  let error: unknown
  await run().catch((caught) => (error = caught))
  assert.instance(error, DroverError)
  assert.is((error as DroverError).code, code, (error as DroverError).message)
  assert.is((error as DroverError).field, field)
  assert.equal(readdirSync(folder), [], 'nothing is left behind')
}

test('all metadata types come back as written', async () => {
  const entries: [string, GgufEntry, unknown?][] = [
    ['u8', { type: 'u8', value: 255 }],
    ['i8', { type: 'i8', value: -128 }],
    ['u16', { type: 'u16', value: 65535 }],
    ['i16', { type: 'i16', value: -32768 }],
    ['u32', { type: 'u32', value: 4294967295 }],
    ['i32', { type: 'i32', value: -2147483648 }],
    ['u64', { type: 'u64', value: 2n ** 64n - 1n }],
    ['u64 that is safe', { type: 'u64', value: 7n }, 7],
    ['i64', { type: 'i64', value: -(2n ** 63n) }],
    ['i64 that is safe', { type: 'i64', value: Number.MIN_SAFE_INTEGER }],
    ['f32', { type: 'f32', value: 0.1 }, Math.fround(0.1)],
    ['f64', { type: 'f64', value: 0.1 }],
    ['f32 infinite', { type: 'f32', value: Number.NEGATIVE_INFINITY }],
    ['bool', { type: 'bool', value: true }],
    ['string', { type: 'string', value: 'naïve 🦙\0' }],
    ['empty string', { type: 'string', value: '' }],
    ['u8[]', { type: 'u8[]', value: Uint8Array.of(0, 255) }, [0, 255]],
    ['i8[]', { type: 'i8[]', value: [-128, 127] }],
    ['u16[]', { type: 'u16[]', value: [0, 65535] }],
    ['i16[]', { type: 'i16[]', value: [-32768, 32767] }],
    ['u32[]', { type: 'u32[]', value: [0, 4294967295] }],
    ['i32[]', { type: 'i32[]', value: Int32Array.of(-1, 3) }, [-1, 3]],
    ['u64[]', { type: 'u64[]', value: [1, 2n ** 64n - 1n] }, [1n, 2n ** 64n - 1n]],
    ['i64[]', { type: 'i64[]', value: [-1n, 1] }, [-1n, 1n]],
    ['f32[]', { type: 'f32[]', value: [0.5, -2] }],
    ['f64[]', { type: 'f64[]', value: [0.1, Number.MAX_VALUE] }],
    ['bool[]', { type: 'bool[]', value: [true, false] }, [1, 0]],
    ['string[]', { type: 'string[]', value: ['', 'ü', 'long '.repeat(100)] }],
    ['empty[]', { type: 'string[]', value: [] }],
  ]
  await writeGguf(path, new Map(entries.map(([key, entry]) => [key, entry])), [])
  const file = await readGguf(path)
  assert.is(file.version, 3)
  assert.is(file.alignment, 32)
  assert.is(file.tensors.size, 0)
  assert.equal(
    [...file.metadata.keys()],
    entries.map(([key]) => key),
  )
  for (const [key, { type, value }, expected = value] of entries) {
    assert.equal(plain(file.metadata.get(key)), expected, key)
    assert.is(file.metadataTypes.get(key), type.endsWith('[]') ? 'array' : type)
  }
})

test('every tensor type comes back with shape and bytes, wherever the chunks are cut', async () => {
  const random = randomSource(3)
  const tensors = [...ggmlTypes.values()].map((dtype, i) => {
    const shape = [[5], [3, 2], [2, 1, 3], [1, 2, 1, 2]][i % 4]!.slice()
    shape[shape.length - 1]! *= dtypes[dtype].block
    const rows = shape.slice(0, -1).reduce((product, size) => product * size, 1)
    const bytes = Uint8Array.from({ length: rows * rowBytes(dtype, shape.at(-1)!) }, () => random() * 256)
    return { dtype, bytes, tensor: tensor(`t.${i}`, i % 2 ? dtype : dtype.toUpperCase(), shape, bytes, 1 + (i % 5)) }
  })
  for (const alignment of [undefined, 1, 64, 4096]) {
    const metadata = new Map<string, GgufEntry>()
    if (alignment !== undefined) metadata.set('general.alignment', { type: 'u32', value: alignment })
    await writeGguf(
      path,
      metadata,
      tensors.map((entry) => entry.tensor),
    )
    const file = await readGguf(path)
    assert.is(file.alignment, alignment ?? 32)
    assert.is(file.files[0]!.size % file.alignment, 0)
    for (const { dtype, bytes, tensor } of tensors) {
      const info = file.tensors.get(tensor.name)!
      assert.is(info.dtype, dtype)
      assert.equal(info.shape, tensor.shape)
      assert.is(info.offset % file.alignment, 0)
      assert.equal(Uint8Array.from(await readTensor(file, info)), bytes, dtype)
    }
  }
})

test('a file is replaced as a whole, and kept when the new one fails', async () => {
  writeFileSync(path, 'before')
  const broken = { ...zeros('t'), chunks: (): Iterable<Uint8Array> => [new Uint8Array(15)] }
  let error: unknown
  await writeGguf(path, new Map(), [broken]).catch((caught) => (error = caught))
  assert.instance(error, DroverError)
  assert.is(readFileSync(path, 'utf8'), 'before')
  await writeGguf(path, new Map(), [zeros('t')])
  assert.is((await readGguf(path)).tensors.size, 1)
  assert.equal(readdirSync(folder), ['model.gguf'])
})

test('an error of the producer of chunks comes through and leaves nothing', async () => {
  const broken: GgufTensor = {
    ...zeros('t'),
    // biome-ignore lint/correctness/useYield: it fails before the first piece
    *chunks() {
      throw new RangeError('out of weights')
    },
  }
  let error: unknown
  await writeGguf(path, new Map(), [broken]).catch((caught) => (error = caught))
  assert.instance(error, RangeError)
  assert.equal(readdirSync(folder), [])
})

test('values that do not fit their type are refused', async () => {
  const bad: [GgufEntry['type'] | 'array' | 'u128', unknown][] = [
    ['u8', 256],
    ['u8', -1],
    ['i8', 128],
    ['u16', 65536],
    ['i32', 2 ** 31],
    ['u32', 1.5],
    ['u32', Number.NaN],
    ['u64', 2 ** 53],
    ['u64', 2n ** 64n],
    ['i64', 2n ** 63n],
    ['f32', 1n],
    ['f32', '1'],
    ['bool', 1],
    ['string', 1],
    ['string', 'half of a pair: \ud83e'],
    ['string', ['a']],
    ['string[]', 'a'],
    ['string[]', ['a', 1]],
    ['u8[]', [1, 256]],
    ['array', [1]],
    ['u128', 1],
  ]
  for (const [type, value] of bad) {
    await refused('E_ARGUMENT', 'key', () => writeGguf(path, new Map([['key', { type, value } as GgufEntry]]), []))
  }
})

test('tensors that no reader would take are refused', async () => {
  const write = (...tensors: GgufTensor[]) => writeGguf(path, new Map(), tensors)
  await refused('E_ARGUMENT', 't', () => write(zeros('t'), zeros('t')))
  await refused('E_ARGUMENT', 't', () => write({ ...zeros('t'), type: 'Q9_K' }))
  await refused('E_ARGUMENT', 't', () => write({ ...zeros('t'), type: 'u8' }))
  await refused('E_ARGUMENT', 't', () => write({ ...zeros('t'), shape: [] }))
  await refused('E_ARGUMENT', 't', () => write({ ...zeros('t'), shape: [1, 1, 1, 1, 4] }))
  await refused('E_ARGUMENT', 't', () => write({ ...zeros('t'), shape: [2, 4] }))
  await refused('E_ARGUMENT', 't', () => write({ ...zeros('t'), bytes: 17 }))
  await refused('E_ARGUMENT', 'a dimension of t', () => write({ ...zeros('t'), shape: [0] }))
  await refused('E_ARGUMENT', 't', () => write({ ...zeros('t'), chunks: () => [new Uint8Array(15)] }))
  await refused('E_ARGUMENT', 't', () => write({ ...zeros('t'), chunks: () => [new Uint8Array(8), new Uint8Array(9)] }))
  let error: unknown
  await write({ ...zeros('t'), type: 'Q4_0', shape: [33], bytes: 36 }).catch((caught) => (error = caught))
  assert.is((error as DroverError).code, 'E_SHAPE')
})

test('alignments that are no power of two are refused', async () => {
  for (const [type, value] of [
    ['u32', 0],
    ['u32', 48],
    ['u32', 2 ** 31],
    ['u64', 64],
    ['string', '64'],
  ] as const) {
    await refused('E_ARGUMENT', 'general.alignment', () =>
      writeGguf(path, new Map([['general.alignment', { type, value }]]), []),
    )
  }
})

test('strings survive wherever the header outgrows its buffer', async () => {
  // One byte more each time, so that some string lies across every size that the buffer can have had.
  const strings = Array.from({ length: 20000 }, (_, i) => `${'x'.repeat(i % 29)}${i}`)
  for (let shift = 0; shift < 12; shift++) {
    const metadata = new Map<string, GgufEntry>([
      ['list', { type: 'string[]', value: ['y'.repeat(shift), ...strings] }],
    ])
    await writeGguf(path, metadata, [])
    const read = plain((await readGguf(path)).metadata.get('list')) as string[]
    assert.equal(read.slice(1), strings)
  }
})

test('a folder that does not exist is an E_IO with the path', async () => {
  const missing = join(folder, 'none', 'model.gguf')
  let error: unknown
  await writeGguf(missing, new Map(), []).catch((caught) => (error = caught))
  assert.instance(error, DroverError)
  assert.is((error as DroverError).code, 'E_IO')
  assert.is((error as DroverError).file, missing)
})

test.run()
