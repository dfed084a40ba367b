import { join as joinPath } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { DroverError } from '../../lib/errors.js'
import { decodeRow } from '../../lib/format/decode/index.js'
import { fromBytes, memoryFolder, type ReadOptions, readTensor } from '../../lib/format/file.js'
import { type GgufArray, type GgufFile, readGguf, readGgufFrom } from '../../lib/format/gguf.js'
import {
  metadataBoolean,
  metadataInteger,
  metadataNumber,
  metadataNumberArray,
  metadataString,
  metadataStringArray,
  metadataStrings,
} from '../../lib/format/gguf-metadata.js'
import { ggmlTypes } from '../../lib/format/gguf-types.js'
import { type DTypeName, dtypes } from '../../lib/tensor.js'
import { root, shared } from '../support.js'
import { arrayValue, f32, ggufBytes, join, string, stringValue, typeId, u8, u32, u32Value, u64 } from './gguf-bytes.js'
import { assertRefused } from './refusals.js'
import { asFloats, readStored, storedTensor } from './stored.js'

const readBytes = (bytes: Uint8Array, options: ReadOptions = {}): Promise<GgufFile> =>
  readGgufFrom(memoryFolder(new Map([['m.gguf', bytes]])), 'm.gguf', options)

const values = (file: GgufFile, key: string): unknown => {
  const array = file.metadata.get(key) as Exclude<GgufArray, { type: 'array' }>
  return { type: array.type, length: array.length, values: [...array.values] }
}

test('a real file: metadata, tensors and the first weights', async () => {
  const file = await readGguf(joinPath(root, 'assets/stories260K.gguf'))
  assert.is(file.version, 3)
  assert.is(file.alignment, 32)
  assert.is(file.tensors.size, 48)
  assert.is(metadataString(file, 'general.architecture'), 'llama')
  assert.is(metadataInteger(file, 'llama.block_count'), 5)
  assert.is(metadataInteger(file, 'tokenizer.ggml.padding_token_id'), 4294967295)
  assert.is(metadataNumber(file, 'llama.attention.layer_norm_rms_epsilon'), Math.fround(1e-5))
  const tokens = metadataStrings(file, 'tokenizer.ggml.tokens')
  assert.is(tokens.length, 512)
  assert.equal([tokens.at(0), tokens.at(1), tokens.at(2), tokens.at(3)], ['<unk>', '<s>', '</s>', '<0x00>'])
  assert.is(metadataNumberArray(file, 'tokenizer.ggml.scores').length, 512)
  const embedding = file.tensors.get('token_embd.weight')!
  assert.equal([embedding.dtype, embedding.shape], ['f32', [512, 64]])
  const output = file.tensors.get('output.weight')!
  assert.equal(await readTensor(file, embedding), await readTensor(file, output), 'the tied head is a copy')
  const row = new Float32Array(64)
  decodeRow('f32', await readTensor(file, embedding), 64, row)
  assert.ok(row.every((weight) => Math.abs(weight) < 1) && row.some((weight) => weight !== 0))
})

test('versions 2 and 3 have the same layout', async () => {
  for (const version of [2, 3]) {
    const file = await readBytes(ggufBytes({ version, entries: [['k', u32Value(7)]] }))
    assert.is(file.version, version)
    assert.is(file.metadata.get('k'), 7)
    assert.is(file.tensors.get('t')!.bytes, 32)
  }
})

test('every metadata type, as a scalar and in arrays', async () => {
  const scalar = (type: Parameters<typeof typeId>[0], bytes: Uint8Array): Uint8Array => join(u32(typeId(type)), bytes)
  const signed = (bits: 8 | 16 | 32, value: number): Uint8Array =>
    new Uint8Array({ 8: Int8Array, 16: Int16Array, 32: Int32Array }[bits].of(value).buffer)
  const double = new Uint8Array(Float64Array.of(-0.1).buffer)
  const file = await readBytes(
    ggufBytes({
      entries: [
        ['u8', scalar('u8', u8(200))],
        ['i8', scalar('i8', signed(8, -100))],
        ['u16', scalar('u16', u32(60000).subarray(0, 2))],
        ['i16', scalar('i16', signed(16, -30000))],
        ['u32', scalar('u32', u32(4000000000))],
        ['i32', scalar('i32', signed(32, -2000000000))],
        ['f32', scalar('f32', f32(1.5))],
        ['true', scalar('bool', u8(1))],
        ['false', scalar('bool', u8(0))],
        ['string', stringValue('ünï')],
        ['u64', scalar('u64', u64(2n ** 53n - 1n))],
        ['big u64', scalar('u64', u64(2n ** 53n))],
        ['i64', scalar('i64', u64(BigInt.asUintN(64, -5n)))],
        ['big i64', scalar('i64', u64(2n ** 63n))],
        ['f64', scalar('f64', double)],
        ['[u8]', arrayValue(typeId('u8'), 2, Uint8Array.of(1, 255))],
        ['[i16]', arrayValue(typeId('i16'), 2, new Uint8Array(Int16Array.of(-1, 2).buffer))],
        ['[bool]', arrayValue(typeId('bool'), 2, Uint8Array.of(1, 0))],
        ['[string]', arrayValue(typeId('string'), 3, join(string('a'), string(''), string('ü')))],
        ['[u64]', arrayValue(typeId('u64'), 1, u64(2n ** 64n - 1n))],
        ['[f64]', arrayValue(typeId('f64'), 1, double)],
        ['[]', arrayValue(typeId('f32'), 0, new Uint8Array(0))],
        [
          '[[i8]]',
          arrayValue(
            typeId('array'),
            2,
            join(u32(typeId('i8')), u64(1), u8(255), u32(typeId('string')), u64(1), string('x')),
          ),
        ],
      ],
    }),
  )
  const scalars = { u8: 200, i8: -100, u16: 60000, i16: -30000, u32: 4000000000, i32: -2000000000, f32: 1.5, f64: -0.1 }
  for (const [key, value] of Object.entries(scalars)) {
    assert.is(file.metadata.get(key), value, key)
    assert.is(file.metadataTypes.get(key), key)
  }
  assert.is(file.metadata.get('true'), true)
  assert.is(file.metadata.get('false'), false)
  assert.is(file.metadata.get('string'), 'ünï')
  assert.is(file.metadata.get('u64'), Number.MAX_SAFE_INTEGER)
  assert.is(file.metadata.get('big u64'), 2n ** 53n)
  assert.is(file.metadata.get('i64'), -5)
  assert.is(file.metadata.get('big i64'), -(2n ** 63n))
  assert.equal(values(file, '[u8]'), { type: 'u8', length: 2, values: [1, 255] })
  assert.equal(values(file, '[i16]'), { type: 'i16', length: 2, values: [-1, 2] })
  assert.equal(values(file, '[bool]'), { type: 'bool', length: 2, values: [1, 0] })
  assert.equal(values(file, '[string]'), { type: 'string', length: 3, values: ['a', '', 'ü'] })
  assert.equal(values(file, '[u64]'), { type: 'u64', length: 1, values: [2n ** 64n - 1n] })
  assert.equal(values(file, '[f64]'), { type: 'f64', length: 1, values: [-0.1] })
  assert.equal(values(file, '[]'), { type: 'f32', length: 0, values: [] })
  const nested = file.metadata.get('[[i8]]') as Extract<GgufArray, { type: 'array' }>
  assert.equal(
    nested.values.map((inner) => [inner.type, ...(inner as Exclude<GgufArray, { type: 'array' }>).values]),
    [
      ['i8', -1],
      ['string', 'x'],
    ],
  )
})

test('every tensor type, with dimensions turned to slowest first', async () => {
  for (const [type, dtype] of ggmlTypes) {
    const { block, bytes } = dtypes[dtype]
    const tensors = [{ name: 't', dimensions: [block * 2, 3, 1, 2], type }]
    const file = await readBytes(ggufBytes({ tensors, data: bytes * 12 }))
    const { name, shape, ...info } = file.tensors.get('t')!
    assert.equal([name, info.dtype, shape, info.bytes], ['t', dtype, [2, 1, 3, block * 2], bytes * 12], dtype)
  }
})

test('alignment moves the data and the offsets', async () => {
  for (const alignment of [1, 8, 64, 4096]) {
    const second = Math.ceil(32 / alignment) * alignment
    const file = await readBytes(
      ggufBytes({
        entries: [['general.alignment', u32Value(alignment)]],
        tensors: [
          { name: 'a' },
          { name: 'b', dimensions: [2, 4], offset: second },
          { name: 'scalar', dimensions: [], offset: second * 2 },
        ],
        alignment,
        data: second * 2 + 4,
      }),
    )
    assert.is(file.alignment, alignment)
    const start = file.tensors.get('a')!.offset
    assert.is(start % alignment, 0)
    assert.is(file.tensors.get('b')!.offset - start, second)
    assert.equal(file.tensors.get('scalar')!.shape, [])
    assert.is(file.tensors.get('scalar')!.offset + 4, file.files[0]!.size)
  }
})

const splitName = (number: number, count: number): string =>
  `m-${String(number).padStart(5, '0')}-of-${String(count).padStart(5, '0')}.gguf`

const splitFiles = (count: number): Map<string, Uint8Array> =>
  new Map(
    Array.from({ length: count }, (_, i) => [
      splitName(i + 1, count),
      ggufBytes({
        entries: [
          ['split.no', u32Value(i)],
          ['split.count', u32Value(count)],
          ['split.tensors.count', u32Value(count)],
          ...(i === 0 ? [['general.name', stringValue('split')] as const] : []),
        ],
        tensors: [{ name: `t${i}`, dimensions: [i + 1] }],
      }),
    ]),
  )

test('a split model is read from any of its parts', async () => {
  const files = splitFiles(3)
  for (const name of files.keys()) {
    const seen: number[] = []
    const file = await readGgufFrom(memoryFolder(files), name, { onProgress: (fraction) => seen.push(fraction) })
    assert.equal(
      file.files.map(({ path, size }) => [path, size]),
      [...files].map(([path, bytes]) => [`memory/${path}`, bytes.length]),
    )
    assert.equal(
      [...file.tensors.values()].map(({ name, shape, file }) => [name, shape, file]),
      [0, 1, 2].map((i) => [`t${i}`, [i + 1], i]),
    )
    assert.is(metadataString(file, 'general.name'), 'split', 'metadata are those of the first part')
    assert.equal(seen, [1 / 3, 2 / 3, 1])
  }
})

test('a single part named as one of one is a whole model', async () => {
  const bytes = ggufBytes({ entries: [['split.count', u32Value(1)]] })
  const file = await readGgufFrom(memoryFolder(new Map([[splitName(1, 1), bytes]])), splitName(1, 1))
  assert.is(file.tensors.size, 1)
})

test('typed metadata: right values, fallbacks and refusals', async () => {
  const file = await readBytes(
    ggufBytes({
      entries: [
        ['count', u32Value(3)],
        ['name', stringValue('x')],
        ['flag', join(u32(typeId('bool')), u8(1))],
        ['ratio', join(u32(typeId('f32')), f32(2))],
        ['nan', join(u32(typeId('f32')), f32(Number.NaN))],
        ['huge', join(u32(typeId('u64')), u64(2n ** 60n))],
        ['names', arrayValue(typeId('string'), 1, string('a'))],
        ['numbers', arrayValue(typeId('u64'), 1, u64(9))],
        ['huge numbers', arrayValue(typeId('u64'), 1, u64(2n ** 60n))],
        ['flags', arrayValue(typeId('bool'), 1, u8(1))],
      ],
    }),
  )
  assert.is(metadataInteger(file, 'count', { maximum: 3 }), 3)
  assert.is(metadataInteger(file, 'none', { fallback: 5 }), 5)
  assert.is(metadataNumber(file, 'ratio'), 2)
  assert.is(metadataNumber(file, 'count'), 3)
  assert.is(metadataNumber(file, 'none', 1), 1)
  assert.is(metadataString(file, 'none', 'y'), 'y')
  assert.is(metadataBoolean(file, 'flag'), true)
  assert.is(metadataBoolean(file, 'none', false), false)
  assert.equal(metadataStringArray(file, 'names'), ['a'])
  assert.equal([...Array.from(metadataNumberArray(file, 'numbers'))], [9])
  const refusals: [string, () => unknown][] = [
    ['none', () => metadataInteger(file, 'none')],
    ['none', () => metadataString(file, 'none')],
    ['count', () => metadataInteger(file, 'count', { maximum: 2 })],
    ['count', () => metadataInteger(file, 'count', { minimum: 4, fallback: 5 })],
    ['ratio', () => metadataInteger(file, 'ratio')],
    ['huge', () => metadataInteger(file, 'huge')],
    ['name', () => metadataInteger(file, 'name')],
    ['nan', () => metadataNumber(file, 'nan')],
    ['count', () => metadataString(file, 'count')],
    ['count', () => metadataBoolean(file, 'count')],
    ['numbers', () => metadataStrings(file, 'numbers')],
    ['count', () => metadataStrings(file, 'count')],
    ['names', () => metadataNumberArray(file, 'names')],
    ['flags', () => metadataNumberArray(file, 'flags')],
    ['huge numbers', () => metadataNumberArray(file, 'huge numbers')],
    ['none', () => metadataNumberArray(file, 'none')],
  ]
  for (const [key, read] of refusals) {
    await assertRefused(key, 'E_FORMAT', key, async () => read())
  }
})

const vocabulary = (): Uint8Array => {
  const count = 1_000_000
  const one = join(string('token'), string('ü'))
  const content = new Uint8Array((one.length * count) / 2)
  for (let at = 0; at < content.length; at += one.length) content.set(one, at)
  return ggufBytes({ entries: [['tokens', arrayValue(typeId('string'), count, content)]] })
}

test('a large vocabulary is read in slices, and an abort ends the reading', async () => {
  const bytes = vocabulary()
  let turns = 0
  const count = (): void => {
    turns++
    timer = setImmediate(count)
  }
  let timer = setImmediate(count)
  const file = await readBytes(bytes)
  clearImmediate(timer)
  assert.ok(turns > 0, 'the event loop ran in between')
  const tokens = metadataStrings(file, 'tokens')
  assert.equal(
    [tokens.length, tokens.at(0), tokens.at(999_999), tokens.at(1_000_000)],
    [1_000_000, 'token', 'ü', undefined],
  )
  assert.equal(Buffer.from(tokens.bytesAt(1)!).toString(), 'ü')

  const controller = new AbortController()
  setImmediate(() => controller.abort())
  const failure = async (signal: AbortSignal): Promise<unknown> =>
    readBytes(bytes, { signal }).then(
      () => undefined,
      (error: unknown) => error,
    )
  for (const signal of [controller.signal, AbortSignal.abort()]) {
    const error = await failure(signal)
    assert.instance(error, DroverError)
    assert.is((error as DroverError).code, 'E_ABORTED')
  }
})

test('strings longer than one window, with characters across its edges', async () => {
  const text = 'x🦙'.repeat(150_000)
  const file = await readBytes(ggufBytes({ entries: [['template', stringValue(text)]] }))
  assert.ok(file.metadata.get('template') === text)
})

test('the source is closed after success and after failure', async () => {
  for (const bytes of [ggufBytes(), ggufBytes({ magic: 'NOPE' })]) {
    let open = 0
    const folder = {
      ...memoryFolder(new Map()),
      open: async (name: string) => {
        open++
        return { ...fromBytes(name, bytes), close: async () => void open-- }
      },
    }
    await readGgufFrom(folder, 'm.gguf').catch(() => {})
    assert.is(open, 0)
  }
})

const types = shared('fixtures/llama-gguf-types')
if (types !== undefined) {
  test('files of every type as published tools write them decode to the reference', async () => {
    const stored = await readStored(joinPath(types, 'expected.safetensors'))
    const suffix = '.dequant.blk.0.attn_k.weight'
    const names = [...stored.keys()]
      .filter((name) => name.endsWith(suffix))
      .map((name) => name.slice(0, -suffix.length))
    assert.ok(names.length > 10)
    for (const name of names) {
      const file = await readGguf(joinPath(types, `model.${name}.gguf`))
      const info = file.tensors.get('blk.0.attn_k.weight')!
      assert.is(info.dtype, name.toLowerCase() as DTypeName)
      const expected = asFloats(storedTensor(stored, `${name}${suffix}`))
      const found = new Float32Array(expected.length)
      decodeRow(info.dtype, await readTensor(file, info), expected.length, found)
      assert.equal(found, expected, name)
    }
  })
}

test.run()
