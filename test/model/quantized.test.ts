/** Folders that hold int8, fp8 and int4 weights: what they predict, bit for bit, and what is refused. */
import { cpSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { FolderFormat } from '../../lib/convert/folder.js'
import { cpuDevice } from '../../lib/device/cpu.js'
import { referenceDevice } from '../../lib/device/reference.js'
import { readSafetensors } from '../../lib/format/safetensors.js'
import { type SafetensorsEntry, SafetensorsWriter } from '../../lib/format/safetensors-writer.js'
import { DroverError, loadLanguageModel, quantizeModel } from '../../lib/index.js'
import { openModel } from '../../lib/model/open.js'
import { withFolder } from '../cli/run.js'
import { cosine, fixture, randomSource } from '../support.js'
import { ModelRunner, range } from './runner.js'

// More workers than this machine may have cores; read when the pool starts.
process.env.DROVER_THREADS = '8'

/** Three layers, so that fp8 has one to quantise. */
const model = 'llama32-tied-like'
const length = 150

const tokensOf = (runner: ModelRunner): number[] => {
  const random = randomSource(3)
  return range(length).map(() => Math.floor(random() * runner.vocabulary))
}

const withRunner = async <T>(path: string, threads: number, body: (runner: ModelRunner) => Promise<T>): Promise<T> => {
  const runner = await ModelRunner.open(path, { kvType: 'f32', activations: 'auto', threads })
  try {
    return await body(runner)
  } finally {
    await runner.close()
  }
}

/** Mean Kullback-Leibler divergence of each row of logits from the right one, in nats. */
const divergence = (right: Float32Array, found: Float32Array, vocabulary: number): number => {
  let sum = 0
  const logs = (row: Float32Array): Float64Array => {
    const peak = row.reduce((most, value) => Math.max(most, value), Number.NEGATIVE_INFINITY)
    const total = row.reduce((total, value) => total + Math.exp(value - peak), 0)
    return Float64Array.from(row, (value) => value - peak - Math.log(total))
  }
  for (let from = 0; from < right.length; from += vocabulary) {
    const [p, q] = [right, found].map((all) => logs(all.subarray(from, from + vocabulary))) as [
      Float64Array,
      Float64Array,
    ]
    p.forEach((log, i) => {
      sum += Math.exp(log) * (log - (q[i] as number))
    })
  }
  return sum / (right.length / vocabulary)
}

const sameBits = (a: Float32Array, b: Float32Array): boolean =>
  Buffer.from(a.buffer, a.byteOffset, a.byteLength).equals(Buffer.from(b.buffer, b.byteOffset, b.byteLength))

/**
 * Divergence at most, in nats: twice what is found. Q8_0 and Q4_0 of the first model are 0.0016 and 0.24 from it: weights
 * that were never trained are sensitive.
 */
const bounds: [FolderFormat, string, number][] = [
  ['int8', 'llama31-rope8-like', 0.005],
  ['fp8', model, 0.014],
  ['int4', 'llama31-rope8-like', 0.3],
]

for (const [format, source, most] of bounds) {
  test(`${format}: near its source; bits do not depend on threads or chunks`, async () => {
    await withFolder(async (folder) => {
      const path = join(folder, format)
      await quantizeModel(fixture(source), path, { type: format })
      const right = await withRunner(fixture(source), 1, (runner) => runner.forward(tokensOf(runner)))
      const found = await withRunner(path, 1, (runner) => runner.forward(tokensOf(runner)))
      const far = divergence(right, found, right.length / length)
      assert.ok(far > 0 && far < most, `${format}: ${far} nats`)
      const reference = await ModelRunner.open(path, { device: referenceDevice, kvType: 'f32', activations: 'auto' })
      const few = tokensOf(reference).slice(0, 12)
      const plain = await reference.forward(few)
      await reference.close()
      assert.ok(cosine(plain, found.subarray(0, plain.length)) > 0.9999, `${cosine(plain, found)}`)
      for (const threads of [2, 8]) {
        await withRunner(path, threads, async (runner) => {
          const tokens = tokensOf(runner)
          assert.ok(sameBits(await runner.forward(tokens), found), `${threads} threads`)
        })
      }
      await withRunner(path, 3, async (runner) => {
        const tokens = tokensOf(runner)
        const random = randomSource(9)
        for (let done = 0; done < length; ) {
          const chunk = tokens.slice(done, done + (done === 0 ? 70 : 1 + Math.floor(random() * 9)))
          const part = await runner.forward(chunk, { start: done })
          const from = done * runner.vocabulary
          assert.ok(sameBits(part, found.slice(from, from + part.length)), `from ${done}`)
          done += chunk.length
        }
      })
    })
  })
}

test('which matrices are quantised, and what else the folder holds', async () => {
  await withFolder(async (folder) => {
    for (const [format] of bounds) {
      const path = join(folder, format)
      const report = await quantizeModel(fixture(model), path, { type: format })
      const names = [...(await readSafetensors(path)).tensors.values()]
      const quantized = names
        .filter(({ name }) => name.endsWith('.weight_scale'))
        .map(({ name }) => name.slice(13, -13))
      const [mlp, all] = [['down_proj', 'gate_proj', 'up_proj'].map((part) => `1.mlp.${part}`), 7 * 3]
      // int4: 330 columns of the down projections hold no whole groups.
      if (format === 'fp8') assert.equal(quantized.sort(), mlp)
      else assert.is(quantized.length, format === 'int4' ? all - 3 : all)
      assert.is(report.notes.length, format === 'int4' ? 3 : 0)
      assert.ok(report.bytes < report.sourceBytes)
      const opened = await openModel(path)
      const source = await openModel(fixture(model))
      assert.ok(opened.weightTypes.includes({ int8: 'i8', fp8: 'f8_e4m3', int4: 'i4' }[format as 'int8']))
      assert.is(opened.parameters, source.parameters)
      assert.equal(
        readFileSync(join(path, 'generation_config.json')),
        readFileSync(join(fixture(model), 'generation_config.json')),
      )
    }
  })
})

test('plain floats: the same bits where they hold the same numbers', async () => {
  await withFolder(async (folder) => {
    const path = join(folder, 'f32')
    await quantizeModel(fixture(model), path, { type: 'f32' })
    const logits = (from: string): Promise<Float32Array> =>
      withRunner(from, 2, (runner) => runner.forward(tokensOf(runner)))
    assert.ok(sameBits(await logits(path), await logits(fixture(model))))
    assert.is(JSON.parse(readFileSync(join(path, 'config.json'), 'utf8')).torch_dtype, 'float32')
  })
})

test('fp8 by compressed-tensors: the same tensors, and no bound on activations', async () => {
  await withFolder(async (folder) => {
    const path = join(folder, 'fp8')
    await quantizeModel(fixture(model), path, { type: 'fp8' })
    const logits = (): Promise<Float32Array> => withRunner(path, 2, (runner) => runner.forward(tokensOf(runner)))
    const right = await logits()
    const file = join(path, 'config.json')
    const config = JSON.parse(readFileSync(file, 'utf8'))
    const bounded = async (bound: number): Promise<Float32Array> => {
      writeFileSync(
        file,
        JSON.stringify({
          ...config,
          quantization_config: { ...config.quantization_config, activation_scale_ub: bound },
        }),
      )
      return logits()
    }
    assert.is(config.quantization_config.activation_scale_ub, 1200)
    assert.not.ok(sameBits(await bounded(0.5), right), 'a bound that cuts')
    // As published models have it, entries that say nothing included.
    const rounding = { num_bits: 8, type: 'float', symmetric: true, group_size: null, block_structure: null }
    const group = {
      targets: ['Linear'],
      output_activations: null,
      weights: {
        ...rounding,
        strategy: 'channel',
        dynamic: false,
        observer: 'minmax',
        observer_kwargs: {},
        actorder: null,
      },
      input_activations: { ...rounding, strategy: 'token', dynamic: true, observer: null, actorder: null },
    }
    const quantization = {
      quantization_status: 'frozen',
      kv_cache_scheme: null,
      sparsity_config: {},
      transform_config: {},
      global_compression_ratio: 1.2,
      quant_method: 'compressed-tensors',
      format: 'float-quantized',
      config_groups: { group_0: group },
      ignore: ['lm_head'],
    }
    writeFileSync(file, JSON.stringify({ ...config, quantization_config: quantization }))
    assert.ok(sameBits(await logits(), right)) // no activation reaches 1200
  })
})

/** A folder again, with the first number of an f32 tensor replaced by NaN. */
const spoil = async (path: string, name: string): Promise<void> => {
  const { tensors, files } = await readSafetensors(path)
  const info = tensors.get(name)
  assert.is(info?.dtype, 'f32')
  const file = files[info?.file ?? 0]?.path as string
  const bytes = readFileSync(file)
  bytes.writeFloatLE(Number.NaN, info?.offset)
  writeFileSync(file, bytes)
}

test('numbers that are not finite are found', async () => {
  await withFolder(async (folder) => {
    const [source, int8] = [join(folder, 'source'), join(folder, 'int8')]
    cpSync(fixture('llama31-rope8-like'), source, { recursive: true })
    await quantizeModel(source, int8, { type: 'int8' })
    await spoil(int8, 'model.layers.1.mlp.up_proj.weight_scale')
    const failed = (promise: Promise<unknown>, code: string): Promise<void> =>
      promise.then(
        () => assert.unreachable(),
        (error: unknown) => assert.is((error as DroverError).code, code, String(error)),
      )
    await failed(loadLanguageModel(int8, { verify: 'full' }), 'E_FORMAT')
    await spoil(source, 'model.layers.0.self_attn.q_proj.weight')
    for (const type of ['int8', 'int4']) {
      await failed(quantizeModel(source, join(folder, 'other'), { type }), 'E_RANGE')
      await failed(quantizeModel(source, int8, { type }), 'E_ARGUMENT') // which is there
    }
    assert.equal(readdirSync(folder).sort(), ['int8', 'source'])
  })
})

test('weights are converted while loading', async () => {
  const source = fixture('llama31-rope8-like')
  const tokens = range(60).map((i) => (i * 37 + 5) % 331)
  const logits = async (path: string, weights?: 'int8' | 'q8_0' | 'q4_0'): Promise<Float32Array> => {
    const loaded = await loadLanguageModel(path, weights === undefined ? {} : { weights })
    try {
      const stored = weights === 'int8' ? 'i8' : weights
      if (stored !== undefined) assert.ok(loaded.info.weightTypes.includes(stored), stored)
      return (await loaded.logits(tokens, { rows: 'all' })).data
    } finally {
      await loaded.close()
    }
  }
  await withFolder(async (folder) => {
    const path = join(folder, 'int8')
    await quantizeModel(source, path, { type: 'int8' })
    assert.ok(sameBits(await logits(source, 'int8'), await logits(path)))
  })
  const right = await logits(source)
  const [fine, coarse] = [await logits(source, 'q8_0'), await logits(source, 'q4_0')]
  const [near, far] = [divergence(right, fine, 331), divergence(right, coarse, 331)]
  assert.ok(near > 0 && near < 0.005 && near < far && far < 0.4, `${near} ${far}`)
})

interface Quantization {
  quant_method: string
  format: string
  kv_cache_scheme?: unknown
  transform_config?: unknown
  config_groups: { group_0?: { weights: Record<string, unknown>; input_activations: unknown } }
}

test('configs and tensors that say something else are refused by name', async () => {
  await withFolder(async (folder) => {
    const path = join(folder, 'int4')
    await quantizeModel(fixture(model), path, { type: 'int4' })
    const config = JSON.parse(readFileSync(join(path, 'config.json'), 'utf8'))
    const opening = async (change: (quantization: Quantization) => void): Promise<void> => {
      const changed = structuredClone(config)
      change(changed.quantization_config)
      writeFileSync(join(path, 'config.json'), JSON.stringify(changed))
      await openModel(path)
    }
    const refused = async (code: string, field: string, change: Parameters<typeof opening>[0]): Promise<void> => {
      try {
        await opening(change)
      } catch (error) {
        assert.ok(error instanceof DroverError, String(error))
        assert.equal([error.code, error.field], [code, field])
        return
      }
      assert.unreachable(`${field} is accepted`)
    }
    await opening(() => {})
    const group = 'quantization_config.config_groups.group_0'
    const weights = (q: Quantization): Record<string, unknown> => q.config_groups.group_0?.weights ?? {}
    await refused('E_UNSUPPORTED', 'quantization_config.quant_method', (q) => (q.quant_method = 'gptq'))
    await refused('E_UNSUPPORTED', 'quantization_config.format', (q) => (q.format = 'marlin-24'))
    await refused('E_UNSUPPORTED', `${group}.weights.symmetric`, (q) => (weights(q).symmetric = false))
    await refused('E_UNSUPPORTED', `${group}.weights.num_bits`, (q) => (weights(q).num_bits = 3))
    await refused('E_UNSUPPORTED', `${group}.weights.strategy`, (q) => (weights(q).strategy = 'block'))
    await refused('E_UNSUPPORTED', `${group}.weights.actorder`, (q) => (weights(q).actorder = 'group'))
    await refused('E_UNSUPPORTED', `${group}.weights.group_size`, (q) => (weights(q).group_size = 48))
    await refused('E_UNSUPPORTED', `${group}.input_activations.dynamic`, (q) => {
      const inputs = { num_bits: 8, type: 'int', symmetric: true, dynamic: false }
      q.config_groups.group_0 = { weights: weights(q), input_activations: inputs }
    })
    await refused('E_UNSUPPORTED', 'quantization_config.config_groups', (q) => (q.config_groups = {}))
    await refused('E_UNSUPPORTED', 'quantization_config.kv_cache_scheme', (q) => (q.kv_cache_scheme = { num_bits: 8 }))
    await refused('E_UNSUPPORTED', 'quantization_config.transform_config', (q) => {
      q.transform_config = { config_groups: { u: {} } }
    })
    await refused('E_FORMAT', 'quantization_config.activation_scale_ub', (q) => (q.quant_method = 'fbgemm_fp8'))
    // Groups of another size: the scales have the wrong shape.
    const scale = 'model.layers.0.mlp.gate_proj.weight_scale'
    await refused('E_FORMAT', scale, (q) => (weights(q).group_size = 64))
    await refused('E_FORMAT', 'model.layers.0.mlp.gate_proj.weight_packed', (q) => {
      q.format = 'int-quantized'
      const rounding = { num_bits: 8, type: 'int', symmetric: true }
      q.config_groups.group_0 = {
        weights: { ...rounding, strategy: 'channel' },
        input_activations: { ...rounding, dynamic: true, strategy: 'token' },
      }
    })
  })
})

test('tensors that compute otherwise, or lack their scales, are refused', async () => {
  await withFolder(async (folder) => {
    const source = join(folder, 'int8')
    await quantizeModel(fixture('llama31-rope8-like'), source, { type: 'int8' })
    const { tensors, files } = await readSafetensors(source)
    const bytes = readFileSync(files[0]?.path as string)
    const prefix = 'model.layers.1.mlp.up_proj'
    const refused = async (
      field: string,
      change: (entry: SafetensorsEntry) => readonly SafetensorsEntry[],
    ): Promise<void> => {
      const path = join(folder, 'changed')
      cpSync(source, path, { recursive: true })
      const entries = [...tensors.values()].flatMap(change)
      const writer = await SafetensorsWriter.create(join(path, 'model.safetensors'), entries)
      for (const { name, shape } of entries) {
        const info = tensors.get(name)
        if (info === undefined) await writer.write(name, new Uint8Array(shape.reduce((n, size) => n * size, 4)))
        else await writer.write(name, bytes.subarray(info.offset, info.offset + info.bytes))
      }
      await writer.finish()
      try {
        ;(await openModel(path)).build(cpuDevice.layout, {
          maxRows: 1,
          maxOutputs: 1,
          maxSequences: 1,
          maxPages: 1,
          kvType: 'f16',
          kvPages: 1,
          activations: 'auto',
          candidates: 1,
        })
      } catch (error) {
        assert.ok(error instanceof DroverError, String(error))
        assert.is(error.field, field)
        return
      }
      assert.unreachable(`${field} is accepted`)
    }
    const only =
      (name: string, change: (entry: SafetensorsEntry) => readonly SafetensorsEntry[]) =>
      (entry: SafetensorsEntry): readonly SafetensorsEntry[] =>
        entry.name === name ? change(entry) : [entry]
    await refused(
      `${prefix}.weight`,
      only(`${prefix}.weight_scale`, () => []),
    )
    await refused(
      `${prefix}.weight_scale`,
      only(`${prefix}.weight`, () => []),
    )
    await refused(
      `${prefix}.weight_scale`,
      only(`${prefix}.weight_scale`, (entry) => [{ ...entry, dtype: 'i32' }]),
    )
    await refused(
      `${prefix}.weight_scale`,
      only(`${prefix}.weight_scale`, (entry) => [{ ...entry, shape: [1, 300] }]),
    )
    for (const extra of ['weight_zero_point', 'input_scale', 'weight_g_idx']) {
      const name = `${prefix}.${extra}`
      await refused(
        name,
        only(`${prefix}.weight`, (entry) => [entry, { name, dtype: 'f32', shape: [1] }]),
      )
    }
  })
})

test.run()
