import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { readTensor } from '../../lib/format/file.js'
import { readSafetensors, readSafetensorsFrom } from '../../lib/format/safetensors.js'
import { dtypes } from '../../lib/tensor.js'
import { fixture, shared } from '../support.js'
import { assertRefused } from './refusals.js'
import { entry, folderOf, readBytes, safetensorsBytes } from './safetensors-bytes.js'

const test = suite('safetensors')
const folder = mkdtempSync(join(tmpdir(), 'drover-safetensors-'))
test.after(() => rmSync(folder, { recursive: true }))

test('a real file: metadata, order, shapes and bytes', async () => {
  const file = await readSafetensors(fixture('kernels-formats/expected.safetensors'))
  assert.equal([...file.metadata], [['format', 'pt']])
  const described = [...file.tensors.values()].map(({ name, dtype, shape }) => `${name} ${dtype} [${shape}]`)
  assert.equal(described.sort(), [
    'bf16 i16 [339]',
    'e4m3fn u8 [339]',
    'e4m3fn.codes_decoded f32 [256]',
    'e4m3fn_saturated u8 [339]',
    'e5m2 u8 [339]',
    'e5m2.codes_decoded f32 [256]',
    'f16 i16 [339]',
    'f16.all_codes_decoded_bits i32 [9363]',
    'input f32 [339]',
  ])
  const decoded = await readTensor(file, file.tensors.get('e4m3fn.codes_decoded')!)
  assert.is(Buffer.from(decoded).readFloatLE(0x38 * 4), 1)
})

test('every dtype', async () => {
  const names = {
    F64: 'f64',
    F32: 'f32',
    F16: 'f16',
    BF16: 'bf16',
    F8_E4M3: 'f8_e4m3',
    F8_E5M2: 'f8_e5m2',
    I64: 'i64',
    I32: 'i32',
    I16: 'i16',
    I8: 'i8',
    U64: 'u64',
    U32: 'u32',
    U16: 'u16',
    U8: 'u8',
    BOOL: 'bool',
  } as const
  for (const [name, dtype] of Object.entries(names)) {
    const bytes = dtypes[dtype].bytes * 6
    const header = { t: { dtype: name, shape: [2, 3], data_offsets: [0, bytes] } }
    const info = (await readBytes(safetensorsBytes(header, bytes))).tensors.get('t')!
    assert.equal([info.dtype, info.shape, info.bytes, info.file], [dtype, [2, 3], bytes, 0], name)
  }
})

test('headers in every form that JSON allows', async () => {
  const text = ` \n"\\u0061\\n\\ud83e\\udd99/": {"data_offsets" :[0,\t8], "shape":[ 2 ],\r\n"dtype":"F32"} ,
    "__metadata__":{"k\\"":"v", "": "\\b\\f\\/"}, "scalar":{"dtype":"U8","shape":[],"data_offsets":[8,9]}  `
  const file = await readBytes(safetensorsBytes(`{${text}}     `, 9))
  assert.equal([...file.tensors.keys()], ['a\n🦙/', 'scalar'])
  assert.equal([...file.metadata].sort(), [
    ['', '\b\f/'],
    ['k"', 'v'],
  ])
  assert.equal(file.tensors.get('scalar')!.shape, [])
  assert.is(file.tensors.get('scalar')!.bytes, 1)
})

test('names that objects inherit are names like any other', async () => {
  const names = ['__proto__', 'constructor', 'toString', 'hasOwnProperty']
  const entries = names.map((name, i) => `${JSON.stringify(name)}:${JSON.stringify(entry(i * 4, 1))}`)
  const metadata = '"__metadata__":{"__proto__":"x"}'
  const file = await readBytes(safetensorsBytes(`{${[...entries, metadata].join()}}`, 16))
  assert.equal([...file.tensors.keys()], names)
  assert.equal([...file.metadata], [['__proto__', 'x']])
})

test('empty files, empty tensors and tensors in any order', async () => {
  assert.is((await readBytes(safetensorsBytes('{}'))).tensors.size, 0)
  const header = {
    second: entry(8, 1),
    empty: { dtype: 'F32', shape: [0, 5], data_offsets: [8, 8] },
    'empty and wide': { dtype: 'F32', shape: [0, Number.MAX_SAFE_INTEGER], data_offsets: [12, 12] },
    first: entry(0, 2),
  }
  const file = await readBytes(safetensorsBytes(header, 12))
  assert.equal(
    [...file.tensors.values()].map(({ name, bytes }) => [name, bytes]),
    [
      ['second', 4],
      ['empty', 0],
      ['empty and wide', 0],
      ['first', 8],
    ],
  )
})

const shards = {
  'model-00001-of-00002.safetensors': safetensorsBytes({ a: entry(0, 1), __metadata__: { format: 'pt' } }, 4),
  'model-00002-of-00002.safetensors': safetensorsBytes({ b: entry(0, 2), c: entry(8, 1) }, 12),
  'model.safetensors.index.json': {
    metadata: { total_size: 16 },
    weight_map: {
      c: 'model-00002-of-00002.safetensors',
      a: 'model-00001-of-00002.safetensors',
      b: 'model-00002-of-00002.safetensors',
    },
  },
}

test('shards: by index, and by the folder that holds it', async () => {
  for (const name of [undefined, 'model.safetensors.index.json']) {
    const seen: number[] = []
    const file = await readSafetensorsFrom(folderOf(shards), name, { onProgress: (fraction) => seen.push(fraction) })
    assert.equal(
      file.files.map(({ path }) => path),
      ['memory/model-00001-of-00002.safetensors', 'memory/model-00002-of-00002.safetensors'],
    )
    assert.equal(
      [...file.tensors.values()].map(({ name, file }) => [name, file]),
      [
        ['a', 0],
        ['b', 1],
        ['c', 1],
      ],
    )
    assert.is(file.metadata.get('format'), 'pt')
    assert.equal(seen, [0.5, 1])
  }
})

test('what a folder holds: one file, an index, or the only file of another name', async () => {
  const single = safetensorsBytes({ single: entry(0, 1) }, 4)
  const first = async (files: Record<string, Uint8Array | object>): Promise<string | undefined> =>
    [...(await readSafetensorsFrom(folderOf(files))).tensors.keys()][0]
  assert.is(await first({ ...shards, 'model.safetensors': single }), 'single')
  assert.is(await first(shards), 'a')
  assert.is(await first({ 'other.safetensors': single, 'config.json': {} }), 'single')
  const without: Record<string, Uint8Array>[] = [
    {},
    { 'a.safetensors': single, 'b.safetensors': single },
    { 'model.bin': single },
  ]
  for (const files of without) {
    await assertRefused(Object.keys(files).join(), 'E_IO', undefined, () => readSafetensorsFrom(folderOf(files)))
  }
})

test('paths: a file, a folder, an index, and what does not exist', async () => {
  cpSync(fixture('kernels-formats/expected.safetensors'), join(folder, 'model.safetensors'))
  writeFileSync(join(folder, 'model.safetensors.index.json'), '{}')
  for (const path of [folder, join(folder, 'model.safetensors')]) {
    assert.is((await readSafetensors(path)).tensors.size, 9)
  }
  const index = join(folder, 'model.safetensors.index.json')
  await assertRefused('index', 'E_FORMAT', 'weight_map', () => readSafetensors(index))
  const missing = await assertRefused('missing', 'E_IO', undefined, () => readSafetensors(join(folder, 'none')))
  assert.is(missing.found, 'no such file')
})

test('a tensor is not read from a file that has changed', async () => {
  const path = join(folder, 'changes.safetensors')
  writeFileSync(path, safetensorsBytes({ a: entry(0, 1) }, 4))
  const file = await readSafetensors(path)
  assert.equal([...(await readTensor(file, file.tensors.get('a')!))], [0, 1, 2, 3])
  writeFileSync(path, safetensorsBytes({ a: entry(0, 2) }, 8))
  await assertRefused('changed', 'E_IO', undefined, () => readTensor(file, file.tensors.get('a')!))
})

const sharded = shared('fixtures/llama32-tied-like')
if (sharded !== undefined) {
  test('the shards of a model as published tools write them', async () => {
    const file = await readSafetensors(sharded)
    assert.is(file.files.length, 3)
    assert.equal(file.tensors.get('model.embed_tokens.weight')!.shape, [1027, 192])
    const total = [...file.tensors.values()].reduce((sum, { bytes }) => sum + bytes, 0)
    const sizes = file.files.reduce((sum, { size }) => sum + size, 0)
    assert.ok(total < sizes && total > sizes - 30_000)
  })
}

test.run()
