/** Recommenders in other formats: the bytes of FBGEMM's quantisers, scores as those of conversion while loading, refusals. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { quantizeModel } from '../../lib/convert/quantize.js'
import { openRecommender } from '../../lib/model/open-recommender.js'
import { loadRecommender } from '../../lib/recommend/recommender.js'
import { asWords, readStored, storedTensor } from '../format/stored.js'
import { requestOf } from '../model/recommender.js'
import {
  randomRequest,
  readConfig,
  tinyRecommender,
  withFolder,
  withTiny,
  writeRecommender,
} from '../recommend/folders.js'
import { fixture, randomSource, rejectionOf, root } from '../support.js'

const dot = fixture('dlrm-dot')
const dcn = fixture('dlrm-dcnv2')

test('tables are the bytes that FBGEMM and PyTorch write', async () => {
  const expected = await readStored(`${dot}/expected.safetensors`)
  for (const [type, prefix, suffix] of [
    ['int8', 'int8', 'packed'],
    ['int8_f16', 'int8h', 'packed'],
    ['int4', 'int4', 'packed'],
    ['f16', 'fp16', 'table'],
  ] as const) {
    await withFolder(async (folder) => {
      const output = join(folder, 'out')
      const report = await quantizeModel(dot, output, { type })
      const written = await readStored(join(output, 'model.safetensors'))
      for (let t = 0; t < 7; t++) {
        const { info, bytes } = storedTensor(written, `emb_l.${t}.weight`)
        const wanted = storedTensor(expected, `${prefix}.t${t}.${suffix}`)
        assert.equal(info.shape, wanted.info.shape)
        assert.is(info.dtype, wanted.info.dtype)
        assert.ok(Buffer.compare(bytes, wanted.bytes) === 0, `${type}, table ${t}`)
      }
      assert.ok((report.formats[type] ?? 0) > 60_000 / (type === 'int4' ? 2 : 1), JSON.stringify(report.formats))
      assert.is(report.parameters, (await openRecommender(dot)).parameters)
    })
  }
})

test('a written folder scores as the source does when it is converted while loading; both architectures', async () => {
  for (const [source, tables] of [
    [dot, 7],
    [dcn, 5],
  ] as const) {
    const request = requestOf(await readStored(`${source}/expected.safetensors`), tables)
    const config = readConfig(source)
    const tensors = new Map(
      [...(await readStored(`${source}/model.safetensors`))].map(([name, { info, bytes }]) => [
        name,
        { dtype: info.dtype, shape: info.shape, bytes },
      ]),
    )
    for (const [type, layers] of [
      ['int8', undefined],
      ['int4', 'f32'],
      ['int2', 'bf16'],
      ['bf16', 'int8'],
      ['f16', undefined],
    ] as const) {
      await withFolder(async (folder) => {
        const output = join(folder, 'out')
        await quantizeModel(source, output, { type, ...(layers === undefined ? {} : { layers }) })
        const meant = layers ?? (type === 'f16' ? 'f16' : 'int8')
        await writeRecommender(folder, { ...config, quantization: { tables: type, layers: meant } }, tensors)
        await using written = await loadRecommender(output)
        await using converted = await loadRecommender(folder)
        const what = `${source} ${type} ${layers}`
        assert.equal([...written.scoreSync(request)], [...converted.scoreSync(request)], what)
        assert.equal(
          written.info.tables.map(({ format }) => format),
          new Array(tables).fill(type),
        )
        assert.equal(
          converted.info.tables.map(({ format }) => format),
          new Array(tables).fill(type),
        )
      })
    }
  }
})

test('what the config names for single tables and layers stays; shards stay shards', () =>
  withFolder(async (folder) => {
    const { config, tensors } = tinyRecommender({ dense: 3, dim: 8, rows: [50, 60, 70] })
    const quantization = { tables: { 1: 'f32', 'emb_l.2': 'bf16' }, layers: { 'top_l.2': 'f32' } }
    await writeRecommender(folder, { ...config, note: 'kept', quantization }, tensors, 3)
    const output = join(folder, 'out')
    await quantizeModel(folder, output, { type: 'int8' })
    const opened = await openRecommender(output)
    assert.equal(
      opened.tables.map(({ format }) => format),
      ['int8', 'f32', 'bf16'],
    )
    assert.is(opened.conversions.tables.size + opened.conversions.layers.size, 0)
    const written = readConfig(output)
    assert.is(written['note'], 'kept')
    assert.equal(written['quantization'], {
      tables: { default: 'int8', 1: 'f32', 'emb_l.2': 'bf16' },
      layers: { default: 'int8', 'top_l.2': 'f32' },
    })
    assert.is(opened.weights.source.tensors.get('top_l.2.weight')?.dtype, 'f32')
    assert.is(opened.weights.source.tensors.get('top_l.0.weight')?.dtype, 'i8')
    assert.ok(existsSync(join(output, 'model-00003-of-00003.safetensors')))
    // Once more: what is quantised already stays as it is.
    const again = join(folder, 'again')
    await quantizeModel(output, again, { type: 'int8' })
    assert.equal(
      readFileSync(join(again, 'model-00001-of-00003.safetensors')),
      readFileSync(join(output, 'model-00001-of-00003.safetensors')),
    )
    const error = await rejectionOf(quantizeModel(output, join(folder, 'other'), { type: 'int4' }))
    assert.is(error.code, 'E_FORMAT')
    assert.is(error.field, 'emb_l.0.weight')
  }))

test('what cannot be written is refused, and nothing is left behind', () =>
  withTiny({ dense: 3, dim: 8, rows: [50] }, async (folder) => {
    const output = join(folder, 'out')
    const cases: [string, string, () => Promise<unknown>][] = [
      ['E_UNSUPPORTED', 'options.type', () => quantizeModel(folder, output, { type: 'q4_0' })],
      ['E_UNSUPPORTED', 'options.pure', () => quantizeModel(folder, output, { type: 'int8', pure: true })],
      ['E_ARGUMENT', 'options.layers', () => quantizeModel(folder, output, { type: 'int8', layers: 'int4' })],
      [
        'E_UNSUPPORTED',
        'options.layers',
        () => quantizeModel(fixture('llama3-8b-like'), output, { type: 'int8', layers: 'f32' }),
      ],
      [
        'E_UNSUPPORTED',
        'options.layers',
        () =>
          quantizeModel(join(root, 'assets', 'stories260K.gguf'), `${output}.gguf`, { type: 'q8_0', layers: 'f32' }),
      ],
      ['E_ARGUMENT', 'output', () => quantizeModel(folder, folder, { type: 'int8' })],
    ]
    for (const [code, field, run] of cases) {
      const error = await rejectionOf(run())
      assert.is(error.code, code, String(error))
      assert.is(error.field, field, String(error))
    }
    const { config, tensors } = tinyRecommender({ dense: 3, dim: 8, rows: [50] })
    const table = tensors.get('emb_l.0.weight')
    asWords({ info: undefined as never, bytes: table?.bytes as Uint8Array }).fill(0x7fc00000, 24, 25)
    await withFolder(async (broken) => {
      await writeRecommender(broken, config, tensors)
      const error = await rejectionOf(quantizeModel(broken, join(broken, 'out'), { type: 'int8' }))
      assert.is(error.code, 'E_RANGE')
      assert.is(error.field, 'emb_l.0.weight')
      assert.not.ok(existsSync(join(broken, 'out')))
      await writeRecommender(broken, { ...config, quantization: { tables: 'int4' } }, tensors)
      assert.is((await rejectionOf(loadRecommender(broken))).code, 'E_RANGE')
    })
    const stop = new AbortController()
    stop.abort()
    assert.is(
      (await rejectionOf(quantizeModel(folder, output, { type: 'int8', signal: stop.signal }))).code,
      'E_ABORTED',
    )
    assert.not.ok(existsSync(output))
    await using recommender = await loadRecommender(folder)
    assert.is(recommender.scoreSync(randomRequest(randomSource(1), { dense: 3, rows: [50] }, 2)).length, 2)
  }))

test.run()
