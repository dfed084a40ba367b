/** safetensors files and indexes made to hurt: refused with an error that says where and why, at once, in little memory. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { DroverError, ErrorCode } from '../../lib/errors.js'
import { readSafetensorsFrom } from '../../lib/format/safetensors.js'
import { assertRefused } from './refusals.js'
import { entry, folderOf, type RawEntry, readBytes, safetensorsBytes, sparseFolder } from './safetensors-bytes.js'

const refuse = (
  what: string,
  code: ErrorCode,
  field: string | RegExp | undefined,
  bytes: Uint8Array,
): Promise<DroverError> => assertRefused(what, code, field, () => readBytes(bytes))

const refuseText = (text: string, field?: string | RegExp): Promise<DroverError> =>
  refuse(text.slice(0, 100), 'E_FORMAT', field, safetensorsBytes(text, 8))

const t = JSON.stringify(entry(0, 2))

test('a file cut anywhere', async () => {
  const bytes = safetensorsBytes({ a: entry(0, 2), b: entry(8, 1), __metadata__: { k: 'v' } }, 12)
  for (let length = 0; length < bytes.length; length++) {
    await refuse(`${length} of ${bytes.length} bytes`, 'E_FORMAT', undefined, bytes.slice(0, length))
  }
})

test('header lengths that are impossible', async () => {
  for (const length of [0n, 1n, 1000n, 2n ** 32n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n]) {
    await refuse(`${length}`, 'E_FORMAT', 'header length', safetensorsBytes('{}', 0, length))
  }
  const long = safetensorsBytes('{}', 0, 100_000_001n)
  await assertRefused('a long header in a sparse file', 'E_FORMAT', 'header length', () =>
    readSafetensorsFrom(sparseFolder(long, 2 ** 40)),
  )
})

test('headers that are no JSON object', async () => {
  for (const text of [
    '[]',
    'null',
    '"{}"',
    '17',
    ' {}',
    '\ufeff{}',
    '{',
    '{]',
    '{"a"',
    '{"a":',
    `{"a":${t}`,
    `{"a":${t},}`,
  ]) {
    await refuseText(text)
  }
  for (const rest of ['x', '}', ',', '{}', '\0']) await refuseText(`{"a":${t}}${rest}`)
  for (const text of [
    `{a:${t}}`,
    `{'a':${t}}`,
    `{"a":${t} "b":${t}}`,
    `{,"a":${t}}`,
    `{"a":${t},,"b":${t}}`,
    `{/**/"a":${t}}`,
  ]) {
    await refuseText(text)
  }
})

test('names that are not proper text', async () => {
  for (const name of ['\\x', '\\u12', '\\u12g4', '\\ud800', '\\udc00', '\\ud800\\u0041', 'a\nb', 'a\0', '\\']) {
    await refuseText(`{"${name}":${t}}`)
  }
  for (const bytes of [[0xff], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xf5, 0x80, 0x80, 0x80], [0xe2, 0x82]]) {
    const header = Buffer.concat([Buffer.from('{"'), Uint8Array.from(bytes), Buffer.from(`":${t}}`)])
    const error = await refuse(`${bytes}`, 'E_FORMAT', 'header', safetensorsBytes(header, 8))
    assert.match(error.message, 'UTF-8')
    const escaped = Buffer.concat([Buffer.from('{"\\n'), Uint8Array.from(bytes), Buffer.from(`":${t}}`)])
    await refuse(`${bytes} after an escape`, 'E_FORMAT', 'header', safetensorsBytes(escaped, 8))
  }
})

test('keys that occur twice', async () => {
  await refuseText(`{"a":${t},"a":${t}}`, 'a')
  await refuseText(`{"a":${t},"\\u0061":${t}}`, 'a')
  await refuseText(`{"__metadata__":{},"a":${t},"__metadata__":{}}`, '__metadata__')
  await refuseText(`{"__metadata__":{"k":"v","k":"v"},"a":${t}}`, '__metadata__.k')
  await refuseText(`{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 'a.dtype')
  await refuseText(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"shape":[2]}}`, 'a.shape')
})

test('entries that are missing, unknown or of the wrong kind', async () => {
  for (const metadata of ['[]', '1', '"x"', '{"k":1}', '{"k":null}', '{"k":{}}', 'null']) {
    await refuseText(`{"__metadata__":${metadata},"a":${t}}`, /^__metadata__/)
  }
  for (const value of ['1', '[]', 'null', '"F32"', '{}', '{"dtype":"F32"}']) await refuseText(`{"a":${value}}`, 'a')
  const wrong: RawEntry[] = [
    { ...entry(0, 2), dtype: 1 },
    { ...entry(0, 2), dtype: 'f32' },
    { ...entry(0, 2), dtype: 'FLOAT' },
    { ...entry(0, 2), dtype: '__proto__' },
    { ...entry(0, 2), shape: 2 },
    { ...entry(0, 2), shape: {} },
    { ...entry(0, 2), shape: ['2'] },
    { ...entry(0, 2), shape: [[2]] },
    { ...entry(0, 2), shape: [-2] },
    { ...entry(0, 2), shape: [2.5] },
    { ...entry(0, 2), shape: Array.from({ length: 17 }, () => 1) },
    { ...entry(0, 2), data_offsets: [0] },
    { ...entry(0, 2), data_offsets: [0, 8, 8] },
    { ...entry(0, 2), data_offsets: [-8, 8] },
    { ...entry(0, 2), data_offsets: '0,8' },
    { ...entry(0, 2), offsets: [0, 8] } as RawEntry,
  ]
  for (const value of wrong) await refuseText(JSON.stringify({ a: value }), /^a(\.|$)/)
  for (const dtype of ['F4', 'F6_E2M3', 'F8_E8M0', 'C64']) {
    await refuse(dtype, 'E_UNSUPPORTED', 'a.dtype', safetensorsBytes({ a: { ...entry(0, 2), dtype } }, 8))
  }
})

test('numbers that are impossible', async () => {
  const numbers = ['1e1', '2.0', '02', '+2', '-0', '.5', '2.', '0x2', 'NaN', 'Infinity', '1e999', '9007199254740992']
  numbers.push('18446744073709551616', '9'.repeat(1_000_000), `1${'0'.repeat(300)}`)
  for (const number of numbers) {
    await refuseText(`{"a":{"dtype":"F32","shape":[${number}],"data_offsets":[0,8]}}`, 'a.shape')
    await refuseText(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,${number}]}}`, 'a.data_offsets')
  }
})

test('tensors whose bytes do not fit', async () => {
  const shape = (...sizes: number[]) => refuseText(JSON.stringify({ a: { ...entry(0, 2), shape: sizes } }), /^a\./)
  await shape()
  await shape(3)
  await shape(0)
  await shape(2 ** 32, 2 ** 32)
  await shape(2 ** 51)
  await shape(...Array.from({ length: 16 }, () => 2 ** 50))
  for (const offsets of [
    [8, 0],
    [0, 9],
    [1, 9],
    [8, 16],
    [2 ** 52, 2 ** 52 + 8],
  ]) {
    await refuseText(JSON.stringify({ a: { ...entry(0, 2), data_offsets: offsets } }), 'a.data_offsets')
  }
})

test('overlaps, gaps and bytes that belong to nothing', async () => {
  const cases: [Record<string, RawEntry>, number, RegExp][] = [
    [{ a: entry(0, 2), b: entry(0, 2) }, 8, /^[ab]$/],
    [{ a: entry(0, 2), b: entry(4, 2) }, 12, /^b$/],
    [{ a: entry(0, 4), b: entry(4, 2), c: entry(16, 1) }, 20, /^b$/],
    [{ a: entry(4, 1) }, 8, /^a$/],
    [{ a: entry(0, 1), b: entry(8, 1) }, 12, /^b$/],
    [{ a: entry(0, 1) }, 8, /^data_offsets$/],
    [{}, 1, /^data_offsets$/],
  ]
  for (const [header, data, field] of cases) {
    await refuse(JSON.stringify(header), 'E_FORMAT', field, safetensorsBytes(header, data))
  }
})

test('headers deep, wide and long', async () => {
  for (const text of ['{"a":', '[', '{"__metadata__":{"k":', '{"a":{"shape":[']) await refuseText(text.repeat(100_000))
  const wide = Array.from({ length: 65_537 }, (_, i) => `"${i}":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}`)
  await refuse('65,537 tensors', 'E_FORMAT', 'header', safetensorsBytes(`{${wide.join()}}`))
  const pairs = Array.from({ length: 65_537 }, (_, i) => `"${i}":""`)
  await refuse('65,537 metadata', 'E_FORMAT', '__metadata__', safetensorsBytes(`{"__metadata__":{${pairs.join()}}}`))
})

const indexName = 'model.safetensors.index.json'
const readIndex = (index: string | object | Uint8Array, files: Record<string, Uint8Array> = {}) =>
  readSafetensorsFrom(folderOf({ [indexName]: index, ...files }))
const refuseIndex = (
  what: string,
  field: string | RegExp | undefined,
  index: string | object | Uint8Array,
  files: Record<string, Uint8Array> = {},
  code: ErrorCode = 'E_FORMAT',
) => assertRefused(what, code, field, () => readIndex(index, files))

const one = safetensorsBytes({ a: entry(0, 1) }, 4)
const two = safetensorsBytes({ b: entry(0, 1) }, 4)
const both = { a: 'x.safetensors', b: 'y.safetensors' }

test('indexes that are malformed', async () => {
  for (const text of ['', '[]', 'null', '{', '{"weight_map":', '{"weight_map":{"a":"x.safetensors"}}}', '\ufeff{}']) {
    await refuseIndex(text, undefined, text)
  }
  for (const map of [undefined, null, [], 'x.safetensors', {}]) {
    await refuseIndex(JSON.stringify(map) ?? 'none', 'weight_map', { weight_map: map })
  }
  await refuseIndex('twice', 'a', '{"weight_map":{"a":"x.safetensors","a":"x.safetensors"}}')
  await refuseIndex(
    'bad text',
    'JSON',
    Uint8Array.from([...Buffer.from('{"weight_map":{"'), 0xff, ...Buffer.from('":1}}')]),
  )
  await refuseIndex('deep', 'JSON', '{"a":'.repeat(100_000))
  await refuseIndex('deep arrays', 'JSON', '['.repeat(100_000))
  await refuseIndex('wide', 'JSON', `{"a":[${'0,'.repeat(1_100_000)}0]}`)
})

test('shards outside the folder, of another kind, or the index itself', async () => {
  const names = ['../x.safetensors', '/etc/x.safetensors', 'sub/x.safetensors', '..\\x.safetensors', 'x\0.safetensors']
  for (const shard of [...names, '.safetensors/', indexName, 'x.bin', '', '..', 1, null, {}, ['x.safetensors']]) {
    const error = await refuseIndex(JSON.stringify(shard), 'weight_map.a', { weight_map: { a: shard } })
    assert.match(error.file ?? '', indexName)
  }
})

test('shards that are missing, broken or hold other tensors', async () => {
  const missing = await refuseIndex('missing', 'weight_map', { weight_map: both }, { 'x.safetensors': one }, 'E_IO')
  assert.match(missing.file ?? '', 'y.safetensors')
  const files = (x: Uint8Array, y: Uint8Array) => ({ 'x.safetensors': x, 'y.safetensors': y })
  await refuseIndex('broken', undefined, { weight_map: both }, files(one, one.slice(0, 20)))
  await refuseIndex(
    'an index as a shard',
    undefined,
    { weight_map: both },
    files(one, Buffer.from('{"weight_map":{}}')),
  )
  await refuseIndex('exchanged', /^[ab]$/, { weight_map: both }, files(two, one))
  await refuseIndex('tensor in two shards', 'a', { weight_map: both }, files(one, one))
  const more = safetensorsBytes({ b: entry(0, 1), c: entry(4, 1) }, 8)
  await refuseIndex('tensor not in the index', 'c', { weight_map: both }, files(one, more))
  await refuseIndex('tensor not in the shard', 'b', { weight_map: { ...both, b: 'x.safetensors' } }, files(one, two))
  const none = safetensorsBytes({})
  await refuseIndex('empty shard', 'b', { weight_map: both }, files(one, none))
})

test('indexes with too many shards or too many bytes', async () => {
  const map = Object.fromEntries(Array.from({ length: 16_385 }, (_, i) => [`t${i}`, `${i}.safetensors`]))
  await refuseIndex('16,385 shards', 'weight_map', { weight_map: map })
  const folder = { ...sparseFolder(Buffer.from('{'), 2 ** 40), list: async () => [indexName] }
  await assertRefused('a sparse index', 'E_FORMAT', 'file size', () => readSafetensorsFrom(folder))
})

test.run()
