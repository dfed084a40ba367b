/** DLRM, DLRM-DCNv2 and DeepFM give what PyTorch, FBGEMM and TorchRec give, layer by layer, on both devices, from every form of tables. */
import { basename } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { cpuDevice } from '../../lib/device/cpu.js'
import type { Device } from '../../lib/device/device.js'
import { referenceDevice } from '../../lib/device/reference.js'
import { loadRecommender } from '../../lib/recommend/recommender.js'
import { asFloats, readStored, type Stored, storedTensor } from '../format/stored.js'
import { readConfig, type Tensor, withFolder, writeRecommender } from '../recommend/folders.js'
import { assertClose, fixture, shared } from '../support.js'
import { requestOf, runRecommender } from './recommender.js'

const dot = fixture('dlrm-dot')
const dcn = fixture('dlrm-dcnv2')
const torchrec = fixture('dlrm-torchrec')
const deepfm = fixture('deepfm-torchrec')
const devices: readonly Device[] = [cpuDevice, referenceDevice]

const toTensor = ({ info, bytes }: Stored): Tensor => ({ dtype: info.dtype, shape: info.shape, bytes })

/** The folder of dlrm-dot with tables taken from its expected tensors: `<prefix>.tN.<suffix>`. */
const withTables = (
  prefix: string,
  suffix: string,
  body: (folder: string) => Promise<void>,
  quantization?: unknown,
  shards = 1,
): Promise<void> =>
  withFolder(async (folder) => {
    const expected = await readStored(`${dot}/expected.safetensors`)
    const tensors = new Map([...(await readStored(`${dot}/model.safetensors`))].map(([n, s]) => [n, toTensor(s)]))
    for (let t = 0; t < 7; t++)
      tensors.set(`emb_l.${t}.weight`, toTensor(storedTensor(expected, `${prefix}.t${t}.${suffix}`)))
    const config = readConfig(dot)
    await writeRecommender(folder, quantization === undefined ? config : { ...config, quantization }, tensors, shards)
    await body(folder)
  })

/** Compares a run over dlrm-dot's request with what the fixture has for these tables. */
const checkDot = async (folder: string, tables: string, device: Device, placement: 'mapped' | 'copied') => {
  const expected = await readStored(`${dot}/expected.safetensors`)
  for (const weighted of [false, true]) {
    const prefix = `${tables}.${weighted ? 'weighted' : 'sum'}`
    const what = `${device.name} ${prefix} ${placement}`
    const run = await runRecommender(folder, requestOf(expected, 7, weighted), { device, tables: placement })
    const check = (role: string, absolute: number, relative = 0): void => {
      const name = `${prefix}.${role}`
      if (!expected.has(name) && ['bottom', 'interaction'].includes(role)) return
      assertClose(run.role(role), asFloats(storedTensor(expected, name)), absolute, `${what} ${role}`, relative)
    }
    check('pooled', 1e-5, 1e-5)
    check('bottom', 1e-5, 1e-5)
    check('interaction', 1e-4, 1e-5)
    check('logit', 1e-4)
    check('prob', 2e-5)
    await run.close()
  }
}

for (const device of devices) {
  test(`dlrm-dot, f32 tables (${device.name})`, async () => {
    await checkDot(dot, 'fp32', device, 'mapped')
    await checkDot(dot, 'fp32', device, 'copied')
  })

  for (const [prefix, suffix] of [
    ['fp16', 'table'],
    ['int8', 'packed'],
    ['int8h', 'packed'],
    ['int4', 'packed'],
  ] as const) {
    test(`dlrm-dot, ${prefix} tables (${device.name})`, () =>
      withTables(prefix, suffix, async (folder) => {
        await checkDot(folder, prefix, device, 'mapped')
        await checkDot(folder, prefix, device, 'copied')
      }))
  }

  test(`dlrm-dot, mean and maximum of bags (${device.name})`, async () => {
    const expected = await readStored(`${dot}/expected.safetensors`)
    const tensors = new Map([...(await readStored(`${dot}/model.safetensors`))].map(([n, s]) => [n, toTensor(s)]))
    for (const pooling of ['mean', 'max']) {
      await withFolder(async (folder) => {
        await writeRecommender(folder, { ...readConfig(dot), pooling }, tensors)
        const run = await runRecommender(folder, requestOf(expected, 7), { device })
        const wanted = asFloats(storedTensor(expected, `fp32.${pooling}.pooled`))
        assertClose(run.role('pooled'), wanted, 1e-5, `${device.name} ${pooling}`, 1e-5)
        await run.close()
      })
    }
  })

  for (const [folder, tables] of [
    [torchrec, 5],
    [deepfm, 4],
  ] as const) {
    test(`${basename(folder)} (${device.name})`, async () => {
      const expected = await readStored(`${folder}/expected.safetensors`)
      const run = await runRecommender(folder, requestOf(expected, tables), { device })
      for (const [role, name, absolute] of [
        ['pooled', 'pooled', 1e-5],
        ['bottom', 'dense_out', 1e-5],
        ['interaction', 'interaction', 1e-5],
        ['logit', 'logit', 5e-5],
        ['prob', 'prob', 1e-5],
      ] as const) {
        assertClose(run.role(role), asFloats(storedTensor(expected, name)), absolute, `${device.name} ${role}`, 1e-5)
      }
      await run.close()
    })
  }

  test(`dlrm-dcnv2 (${device.name})`, async () => {
    const expected = await readStored(`${dcn}/expected.safetensors`)
    const run = await runRecommender(dcn, requestOf(expected, 5), { device })
    const wanted = (name: string): Float32Array => asFloats(storedTensor(expected, name))
    assertClose(run.role('pooled'), wanted('pooled'), 1e-5, 'pooled')
    assertClose(run.role('bottom'), wanted('dense_out'), 1e-5, 'dense_out')
    assertClose(run.role('x0'), wanted('x0'), 1e-5, 'x0')
    assertClose(run.role('logit'), wanted('logit'), 2e-4, 'logit')
    assertClose(run.role('prob'), wanted('prob'), 5e-5, 'prob')
    for (const layer of [0, 1, 2]) {
      const values = wanted(`cross.${layer}`)
      const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
      assertClose(run.op(`cross.${layer}`), values, 2e-5 * largest, `cross.${layer}`)
    }
    await run.close()
  })
}

test('rows of the table-batched operator are read where the config says so, padded or not', async () => {
  const expected = await readStored(`${dot}/expected.safetensors`)
  const model = await readStored(`${dot}/model.safetensors`)
  const wanted = (name: string): Float32Array => asFloats(storedTensor(expected, name))
  for (const [format, padding] of [
    ['tbe_int8', 0],
    ['tbe_int8', 8],
    ['tbe_int4', 0],
    ['tbe_int4', 2],
  ] as const) {
    await withFolder(async (folder) => {
      const tensors = new Map([...model].map(([n, s]) => [n, toTensor(s)]))
      const rows = toTensor(storedTensor(expected, `${format}.t3.rows`))
      const [count = 0, width = 0] = rows.shape
      const bytes = new Uint8Array(count * (width + padding)).fill(0xff)
      for (let i = 0; i < count; i++) bytes.set(rows.bytes.subarray(i * width, (i + 1) * width), i * (width + padding))
      tensors.set('emb_l.3.weight', { dtype: 'u8', shape: [count, width + padding], bytes })
      await writeRecommender(folder, { ...readConfig(dot), quantization: { tables: { 3: format } } }, tensors)
      for (const device of devices) {
        const run = await runRecommender(folder, requestOf(expected, 7), { device })
        const pooled = run.role('pooled')
        const all = wanted(`${format}.sum.pooled`)
        const own = (values: Float32Array): number[] =>
          Array.from({ length: 17 * 20 }, (_, i) => values[Math.floor(i / 20) * 140 + 60 + (i % 20)] as number)
        assertClose(own(pooled), own(all), 2e-3, `${device.name} ${format} padded by ${padding}`)
        await run.close()
      }
    })
  }
})

test('a model in shards is the model', () =>
  withTables(
    'int8',
    'packed',
    async (folder) => {
      await checkDot(folder, 'int8', cpuDevice, 'copied')
      const fractions: number[] = []
      const recommender = await loadRecommender(folder, { onProgress: (fraction) => fractions.push(fraction) })
      await recommender.close()
      assert.ok(fractions.length > 3, `${fractions}`)
      assert.equal(
        fractions,
        [...fractions].sort((a, b) => a - b),
      )
      assert.is(fractions.at(-1), 1)
    },
    undefined,
    3,
  ))

/** Share of pairs of one row of each label that scores put in the right order. */
const areaUnderCurve = (scores: Float32Array, labels: Uint8Array): number => {
  const order = Array.from(scores, (_, i) => i).sort((a, b) => scores[a]! - scores[b]!)
  let rank = 0
  let sum = 0
  while (rank < order.length) {
    let end = rank
    while (end < order.length && scores[order[end]!] === scores[order[rank]!]) end++
    for (let i = rank; i < end; i++) if (labels[order[i]!]) sum += (rank + end - 1) / 2
    rank = end
  }
  const positives = labels.reduce((count, label) => count + label, 0)
  return (sum - (positives * (positives - 1)) / 2) / (positives * (labels.length - positives))
}

const movielens = shared('fixtures/dlrm-movielens')

if (movielens !== undefined) {
  test('dlrm-movielens: probabilities, and the same AUC from int8 and int4 tables', async () => {
    const expected = await readStored(`${movielens}/expected.safetensors`)
    const tensors = new Map([...(await readStored(`${movielens}/model.safetensors`))].map(([n, s]) => [n, toTensor(s)]))
    const labels = storedTensor(expected, 'label').bytes
    const request = requestOf(expected, 6)
    const scoresOf = async (quantization: unknown): Promise<Float32Array> =>
      withFolder(async (folder) => {
        await writeRecommender(folder, { ...readConfig(movielens), quantization }, tensors)
        await using recommender = await loadRecommender(folder)
        return await recommender.score(request)
      })
    const plain = await scoresOf(null)
    assertClose(plain, asFloats(storedTensor(expected, 'prob')), 2e-5, 'prob')
    assert.ok(Math.abs(areaUnderCurve(plain, labels) - 0.7391) < 1e-4, `${areaUnderCurve(plain, labels)}`)
    for (const [format, name, auc, tolerance] of [
      ['int8', 'prob_int8_tables', 0.7391, 0.001],
      ['int4', 'prob_int4_tables', 0.739, 0.005],
    ] as const) {
      const scores = await scoresOf({ tables: format })
      assertClose(scores, asFloats(storedTensor(expected, name)), 2e-5, format)
      assert.ok(Math.abs(areaUnderCurve(scores, labels) - auc) < tolerance, format)
    }
    const layers = await scoresOf({ tables: 'int8', layers: 'int8' })
    assert.ok(Math.abs(areaUnderCurve(layers, labels) - 0.7391) < 0.002, `layers: ${areaUnderCurve(layers, labels)}`)
  })
}

test.run()
