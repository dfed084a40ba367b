/** Configs of recommenders: every form is read, every impossible one refused by file and field, whatever the tensors are. */

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { DroverError, type ErrorCode } from '../../lib/errors.js'
import { ConfigRecord } from '../../lib/format/config.js'
import { Pace } from '../../lib/format/file.js'
import { parseJson } from '../../lib/format/json.js'
import { layerNames } from '../../lib/model/dlrm.js'
import { type CrossConfig, type DotConfig, type FactorConfig, recommenderConfig } from '../../lib/model/dlrm-config.js'
import { openRecommender } from '../../lib/model/open-recommender.js'
import { loadRecommender } from '../../lib/recommend/recommender.js'
import { caseRandom, mutateBytes, mutateJson } from '../format/mutate.js'
import {
  type Config,
  floatTensor,
  type Tensor,
  tinyRecommender,
  withFolder,
  writeRecommender,
} from '../recommend/folders.js'
import { fixture } from '../support.js'

const recordOf = async (config: Config): Promise<ConfigRecord> => {
  const bytes = Buffer.from(JSON.stringify(config))
  const value = await parseJson(bytes, 'config.json', new Pace(undefined, 'reading'))
  if (!(value instanceof Map)) throw new Error('no object')
  return new ConfigRecord('config.json', value)
}

const read = async (config: Config, has: (tensor: string) => boolean = () => false) =>
  recommenderConfig(await recordOf(config), has)

const dot: Config = {
  architecture: 'dlrm',
  arch_sparse_feature_size: 4,
  arch_embedding_size: [10, 20, 30],
  arch_mlp_bot: [5, 8, 4],
  arch_mlp_top: [10, 16, 1],
  arch_interaction_op: 'dot',
  arch_interaction_itself: false,
}

const dcn: Config = {
  architecture: 'dlrm_dcn',
  embedding_dim: 4,
  num_embeddings_per_feature: [10, 20],
  dense_arch_layer_sizes: [8, 4],
  over_arch_layer_sizes: [6, 1],
  dcn_num_layers: 2,
  dcn_low_rank_dim: 3,
  in_features: 5,
}

test('lists as JSON and as command lines write them', async () => {
  const wanted = await read(dot)
  const flags = { arch_embedding_size: '10-20-30', arch_mlp_bot: '5-8-4', arch_mlp_top: '16-1' }
  assert.equal(await read({ ...dot, ...flags }), wanted)
  assert.equal(await read({ ...dot, arch_embedding_size: '10,20,30' }), wanted)
  const config = wanted as DotConfig
  assert.is(config.denseFeatures, 5)
  assert.equal(config.bottom, [8, 4])
  assert.equal(config.top, [16, 1])
  assert.is(config.topInputs, 10)
  assert.is(config.pooling, 'sum')
  assert.equal(
    config.tables.map(({ name, tensor }) => [name, tensor]),
    [0, 1, 2].map((i) => [`emb_l.${i}`, `emb_l.${i}.weight`]),
  )
  assert.equal(layerNames(config), ['bot_l.0', 'bot_l.2', 'top_l.0', 'top_l.2'])
})

test('a first layer as wide as the interaction: the tensors tell which is meant', async () => {
  const config = { ...dot, arch_mlp_top: [10, 1] }
  assert.equal((await read(config, (name) => name === 'top_l.0.weight')).top, [1])
  assert.equal((await read(config, (name) => ['top_l.0.weight', 'top_l.2.weight'].includes(name))).top, [10, 1])
})

test('interactions: width with the diagonal, and of everything side by side', async () => {
  assert.is((await read({ ...dot, arch_interaction_itself: true, arch_mlp_top: [14, 1] })).topInputs, 14)
  const cat = await read({ ...dot, arch_interaction_op: 'cat', arch_mlp_bot: [5, 7], arch_mlp_top: [19, 1] })
  assert.is(cat.topInputs, 19)
})

test("TorchRec's DLRM with products of pairs", async () => {
  const { dcn_num_layers: _, dcn_low_rank_dim: __, ...flags } = dcn
  const config = (await read({ ...flags, interaction_type: 'original' })) as DotConfig
  assert.equal([config.architecture, config.interaction, config.pairs], ['dlrm', 'dot', 'upper'])
  assert.is(config.topInputs, 4 + 3)
  assert.equal(
    config.tables.map(({ tensor }) => tensor),
    [0, 1].map((i) => `sparse_arch.embedding_bag_collection.embedding_bags.t_cat_${i}.weight`),
  )
  assert.equal(layerNames(config), [
    'dense_arch.model._mlp.0._linear',
    'dense_arch.model._mlp.1._linear',
    'over_arch.model.0._mlp.0._linear',
    'over_arch.model.1',
  ])
})

test('DLRM-DCNv2', async () => {
  const config = (await read(dcn)) as CrossConfig
  assert.is(config.topInputs, 12)
  assert.is(config.crossRank, 3)
  assert.equal(layerNames(config).slice(2, 6), [
    'inter_arch.crossnet.V_kernels.0',
    'inter_arch.crossnet.W_kernels.0',
    'inter_arch.crossnet.V_kernels.1',
    'inter_arch.crossnet.W_kernels.1',
  ])
  assert.is(layerNames(config).at(-1), 'over_arch.model.1')
})

const fm: Config = {
  architecture: 'deepfm',
  num_dense_features: 5,
  embedding_dim: 4,
  num_embeddings_per_feature: [10, 20],
  hidden_layer_size: 8,
  deep_fm_dimension: 6,
}

test("TorchRec's DeepFM, tables under the names that they have", async () => {
  const config = (await read(fm)) as FactorConfig
  assert.equal([config.denseFeatures, config.bottom, config.deepWidth, config.top], [5, [8, 4], 6, [1]])
  assert.is(config.topInputs, 4 + 6 + 1)
  assert.equal(layerNames(config), [
    'dense_arch.model.0',
    'dense_arch.model.2',
    'inter_arch.deep_fm.dense_module.0',
    'over_arch.model.0',
  ])
  const bags = 'sparse_arch.embedding_bag_collection.embedding_bags'
  const named = { ...fm, tables: ['user', 'item'] }
  const tensorsOf = async (file: readonly string[]) =>
    (await read(named, (name) => file.includes(name))).tables.map(({ name, tensor }) => [name, tensor])
  assert.equal(await tensorsOf([`${bags}.user.weight`, `${bags}.item.weight`]), [
    ['user', `${bags}.user.weight`],
    ['item', `${bags}.item.weight`],
  ])
  assert.equal(await tensorsOf([`${bags}.t_cat_0.weight`, `${bags}.t_cat_1.weight`]), [
    ['user', `${bags}.t_cat_0.weight`],
    ['item', `${bags}.t_cat_1.weight`],
  ])
  // What is missed is called by the name that was given.
  assert.is((await tensorsOf([]))[0]?.[1], `${bags}.user.weight`)
})

const refused: readonly [ErrorCode, string, Config][] = [
  ['E_UNSUPPORTED', 'architecture', { model_type: 'llama' }],
  ['E_UNSUPPORTED', 'architecture', { ...dot, architecture: 'dlrm_v3' }],
  ['E_FORMAT', 'arch_sparse_feature_size', { ...dot, arch_sparse_feature_size: 0 }],
  ['E_FORMAT', 'arch_sparse_feature_size', { ...dot, arch_sparse_feature_size: 1025 }],
  ['E_FORMAT', 'arch_sparse_feature_size', { ...dot, arch_sparse_feature_size: '4' }],
  ['E_FORMAT', 'arch_embedding_size', { ...dot, arch_embedding_size: [] }],
  ['E_FORMAT', 'arch_embedding_size', { ...dot, arch_embedding_size: [10, -1] }],
  ['E_FORMAT', 'arch_embedding_size', { ...dot, arch_embedding_size: [10, 0.5] }],
  ['E_FORMAT', 'arch_embedding_size', { ...dot, arch_embedding_size: [10, 2 ** 31] }],
  ['E_FORMAT', 'arch_embedding_size', { ...dot, arch_embedding_size: new Array(4097).fill(1) }],
  ['E_FORMAT', 'arch_embedding_size', { ...dot, arch_embedding_size: new Array(1500).fill(1) }],
  ['E_FORMAT', 'arch_embedding_size', { ...dot, arch_embedding_size: '10--20' }],
  ['E_FORMAT', 'arch_embedding_size', { ...dot, arch_embedding_size: '1e3-2' }],
  ['E_FORMAT', 'arch_embedding_size', { ...dot, arch_embedding_size: [[10], 20, 30] }],
  ['E_FORMAT', 'arch_mlp_bot', { ...dot, arch_mlp_bot: [5] }],
  ['E_FORMAT', 'arch_mlp_bot', { ...dot, arch_mlp_bot: [5, 8] }],
  ['E_FORMAT', 'arch_mlp_bot', { ...dot, arch_mlp_bot: new Array(65).fill(4) }],
  ['E_FORMAT', 'arch_mlp_top', { ...dot, arch_mlp_top: [10, 16, 2] }],
  ['E_FORMAT', 'arch_mlp_top', { ...dot, arch_mlp_top: undefined }],
  ['E_FORMAT', 'arch_interaction_op', { ...dot, arch_interaction_op: 'outer' }],
  ['E_FORMAT', 'arch_interaction_itself', { ...dot, arch_interaction_itself: 1 }],
  ['E_FORMAT', 'pooling', { ...dot, pooling: 'last' }],
  ['E_FORMAT', 'loss_threshold', { ...dot, loss_threshold: 0.7 }],
  ['E_FORMAT', 'tables', { ...dot, tables: ['a', 'b'] }],
  ['E_FORMAT', 'tables', { ...dot, tables: ['a', 'b', 'a'] }],
  ['E_UNSUPPORTED', 'qr_flag', { ...dot, qr_flag: true }],
  ['E_UNSUPPORTED', 'md_flag', { ...dot, md_flag: true }],
  ['E_UNSUPPORTED', 'weighted_pooling', { ...dot, weighted_pooling: 'learned' }],
  ['E_UNSUPPORTED', 'interaction_type', { ...dcn, interaction_type: 'projection' }],
  ['E_FORMAT', 'dense_arch_layer_sizes', { ...dcn, dense_arch_layer_sizes: [8, 5] }],
  ['E_FORMAT', 'over_arch_layer_sizes', { ...dcn, over_arch_layer_sizes: [1] }],
  ['E_FORMAT', 'dcn_num_layers', { ...dcn, dcn_num_layers: 0 }],
  ['E_FORMAT', 'dcn_low_rank_dim', { ...dcn, dcn_low_rank_dim: null }],
  ['E_FORMAT', 'num_embeddings_per_feature', { ...dcn, num_embeddings_per_feature: { 0: 1 } }],
  ['E_FORMAT', 'num_dense_features', { ...fm, num_dense_features: undefined }],
  ['E_FORMAT', 'hidden_layer_size', { ...fm, hidden_layer_size: 0 }],
  ['E_FORMAT', 'deep_fm_dimension', { ...fm, deep_fm_dimension: 2 ** 20 + 1 }],
  [
    'E_FORMAT',
    'num_embeddings_per_feature',
    { ...fm, embedding_dim: 1024, num_embeddings_per_feature: Array(1024).fill(1) },
  ],
]

test('impossible configs are refused by file and field', async () => {
  for (const [code, field, config] of refused) {
    const error = await read(config).then(
      () => undefined,
      (reason: unknown) => reason,
    )
    const what = `${field}: ${JSON.stringify(config).slice(0, 300)}`
    assert.instance(error, DroverError, what)
    assert.is((error as DroverError).code, code, `${what}: ${error}`)
    assert.is((error as DroverError).field, field, `${what}: ${error}`)
    assert.is((error as DroverError).file, 'config.json', what)
  }
})

const tiny = { dense: 3, dim: 4, rows: [6, 9] }

/** Opens a tiny recommender whose config and tensors are changed. */
const opening = (changes: Config, change: (tensors: Map<string, Tensor>) => void = () => {}): Promise<DroverError> =>
  withFolder(async (folder) => {
    const { config, tensors } = tinyRecommender(tiny)
    change(tensors)
    await writeRecommender(folder, { ...config, ...changes }, tensors)
    return loadRecommender(folder).then(
      async (recommender) => {
        await recommender.close()
        throw new Error('a refusal was expected')
      },
      (error: DroverError) => error,
    )
  })

const bytesTensor = (rows: number, width: number): Tensor => ({
  dtype: 'u8',
  shape: [rows, width],
  bytes: new Uint8Array(rows * width),
})

test('tensors that do not fit the config are refused by name', async () => {
  const cases: [string, string, (tensors: Map<string, Tensor>) => void][] = [
    ['E_FORMAT', 'emb_l.1.weight', (all) => all.delete('emb_l.1.weight')],
    ['E_FORMAT', 'emb_l.1.weight', (all) => all.set('emb_l.1.weight', floatTensor([8, 4], new Float32Array(32)))],
    ['E_FORMAT', 'emb_l.1.weight', (all) => all.set('emb_l.1.weight', floatTensor([9, 5], new Float32Array(45)))],
    ['E_FORMAT', 'emb_l.1.weight', (all) => all.set('emb_l.1.weight', floatTensor([36], new Float32Array(36)))],
    ['E_FORMAT', 'emb_l.1.weight', (all) => all.set('emb_l.1.weight', bytesTensor(9, 11))],
    ['E_FORMAT', 'bot_l.2.weight', (all) => all.delete('bot_l.2.weight')],
    ['E_FORMAT', 'bot_l.2.bias', (all) => all.delete('bot_l.2.bias')],
    ['E_FORMAT', 'top_l.0.weight', (all) => all.set('top_l.0.weight', floatTensor([16, 8], new Float32Array(128)))],
    [
      'E_FORMAT',
      'top_l.0.weight',
      (all) => all.set('top_l.0.weight', { dtype: 'i8', shape: [16, 7], bytes: new Uint8Array(112) }),
    ],
  ]
  for (const [code, field, change] of cases) {
    const error = await opening({}, change)
    assert.is(error.code, code, String(error))
    assert.is(error.field, field, String(error))
    assert.ok(error.file !== undefined, String(error))
  }
})

/** Stores a tensor as float64. */
const asDoubles =
  (name: string) =>
  (tensors: Map<string, Tensor>): void => {
    const { shape } = tensors.get(name) as Tensor
    const count = shape.reduce((product, n) => product * n, 1)
    tensors.set(name, { dtype: 'f64', shape, bytes: new Uint8Array(8 * count) })
  }

test('quantization: numbers are tables that are not called by numbers', async () => {
  const { config, tensors } = tinyRecommender({ dense: 3, dim: 4, rows: [6, 9, 5] })
  await withFolder(async (folder) => {
    await writeRecommender(
      folder,
      { ...config, tables: ['1', 'users', 'items'], quantization: { tables: { 1: 'int8', 2: 'int4' } } },
      tensors,
    )
    const { conversions } = await openRecommender(folder)
    assert.equal(
      [...conversions.tables],
      [
        [0, 'int8'],
        [2, 'int4'],
      ],
    )
  })
})

test('quantization: what is named must be there, and be what it is named', async () => {
  const cases: [string, Config, ((tensors: Map<string, Tensor>) => void)?][] = [
    ['quantization.table', { table: 'int8' }],
    ['quantization.tables', { tables: 'int3' }],
    ['quantization.tables.default', { tables: { default: 8 } }],
    ['quantization.tables.emb_l.2', { tables: { 'emb_l.2': 'int8' } }],
    ['quantization.layers.bot_l.1', { layers: { 'bot_l.1': 'int8' } }],
    ['quantization.layers', { layers: 'int4' }],
    ['quantization.layers', { layers: ['int8'] }],
    ['emb_l.1.weight', { tables: { 1: 'int4' } }, (all) => all.set('emb_l.1.weight', bytesTensor(9, 12))],
    ['emb_l.1.weight', { tables: { 1: 'tbe_int8' } }, (all) => all.set('emb_l.1.weight', bytesTensor(9, 7))],
    ['emb_l.1.weight', { tables: { 1: 'f16' } }, (all) => all.set('emb_l.1.weight', bytesTensor(9, 8))],
    ['quantization.tables: emb_l.1', { tables: { 1: 'tbe_int4' } }],
    ['quantization.layers: bot_l.0', { layers: { 'bot_l.0': 'int8' } }, asDoubles('bot_l.0.weight')],
  ]
  for (const [field, quantization, change] of cases) {
    const error = await opening({ quantization }, change)
    assert.ok(['E_FORMAT', 'E_UNSUPPORTED'].includes(error.code), String(error))
    assert.is(error.field, field, String(error))
  }
})

test('rows of two elements fit several formats: the config must choose', async () => {
  const narrow = { dense: 3, dim: 2, rows: [6] }
  const { config, tensors } = tinyRecommender(narrow)
  tensors.set('emb_l.0.weight', bytesTensor(6, 5))
  await withFolder(async (folder) => {
    await writeRecommender(folder, config, tensors)
    const error = await openRecommender(folder).then(
      () => undefined,
      (reason: DroverError) => reason,
    )
    assert.is(error?.code, 'E_FORMAT')
    assert.match(error?.message ?? '', /several formats.*int4, int2.*quantization\.tables/)
    await writeRecommender(folder, { ...config, quantization: { tables: 'int2' } }, tensors)
    assert.is((await openRecommender(folder)).tables[0]?.format, 'int2')
  })
})

test('mutated folders are refused with a DroverError or open', async () => {
  const config = readFileSync(join(fixture('dlrm-dcnv2'), 'config.json'), 'utf8')
  const { tensors } = tinyRecommender(tiny)
  const weights = readFileSync(join(fixture('dlrm-dcnv2'), 'model.safetensors'))
  let opened = 0
  for (let number = 0; number < 400; number++) {
    const random = caseRandom(20261125, number)
    const error = await withFolder(async (folder) => {
      const isCross = number % 2 === 0
      const own = isCross ? config : JSON.stringify(tinyRecommender(tiny).config)
      await writeRecommender(folder, {}, tensors)
      const path = join(folder, 'model.safetensors')
      if (isCross) writeFileSync(path, weights)
      writeFileSync(
        join(folder, 'config.json'),
        random() < 0.7 ? mutateJson(own, random) : mutateBytes(Buffer.from(own), random),
      )
      if (random() < 0.3) writeFileSync(path, mutateBytes(readFileSync(path), random))
      return openRecommender(folder).then(
        () => undefined,
        (reason: unknown) => reason,
      )
    })
    if (error === undefined) opened++
    else assert.instance(error, DroverError, `case ${number}: ${error}`)
  }
  assert.ok(opened > 20 && opened < 380, `${opened} of 400 opened`)
})

test.run()
