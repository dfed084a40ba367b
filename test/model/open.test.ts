/** Models of any shape run alike on both devices; what is no Llama, or a broken one, is refused by name. */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { cpuDevice } from '../../lib/device/cpu.js'
import { referenceDevice } from '../../lib/device/reference.js'
import { DroverError, type ErrorCode } from '../../lib/errors.js'
import { openModel } from '../../lib/model/open.js'
import { kvTypes } from '../../lib/program/program.js'
import { between, pick } from '../program/random-programs.js'
import { assertClose, cosine, fixture, randomSource } from '../support.js'
import { ModelRunner, range } from './runner.js'
import { type TinyChanges, type TinyModel, withTinyModel } from './tiny.js'

const plain: TinyModel = {
  hidden: 64,
  intermediate: 96,
  layers: 2,
  heads: 4,
  kvHeads: 2,
  headDim: 16,
  vocabulary: 50,
  tied: false,
  bias: false,
  ropeFactors: false,
  rotated: 16,
  types: ['f32'],
}

test('random shapes: both devices agree', async () => {
  for (let seed = 1; seed <= 16; seed++) {
    const random = randomSource(seed)
    const kvHeads = between(random, 1, 3)
    const headDim = pick(random, [6, 16, 20, 32])
    const quantized = random() < 0.5
    const model: TinyModel = {
      hidden: quantized ? pick(random, [64, 256]) : between(random, 5, 90),
      intermediate: quantized ? pick(random, [96, 256]) : between(random, 5, 120),
      layers: between(random, 1, 3),
      heads: kvHeads * between(random, 1, 4),
      kvHeads,
      headDim,
      vocabulary: between(random, 3, 80),
      tied: random() < 0.5,
      bias: random() < 0.3,
      ropeFactors: random() < 0.4,
      rotated: random() < 0.7 ? headDim : 4,
      types: quantized ? ['q8_0', 'q4_0', 'q4_k', 'q6_k', 'q5_k', 'iq4_nl', 'q5_1'] : ['f32', 'f16', 'bf16'],
    }
    await withTinyModel(random, model, async (path) => {
      const settings = { maxRows: 24, pages: 2, maxSequences: 1, kvType: pick(random, Object.values(kvTypes)) }
      const cpu = await ModelRunner.open(path, settings)
      const reference = await ModelRunner.open(path, { ...settings, device: referenceDevice })
      const rounded = await ModelRunner.open(path, { ...settings, activations: 'auto' })
      const ids = range(20).map(() => between(random, 0, model.vocabulary - 1))
      for (const [from, to] of [
        [0, 17],
        [17, 18],
        [18, 20],
      ] as const) {
        const chunk = ids.slice(from, to)
        const expected = await reference.forward(chunk, { start: from })
        const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
        // A cache of fewer bits may round the other way where the last bits differ.
        const tolerance = { f32: 1e-4, f16: 2e-3, bf16: 1e-2, q8_0: 2e-2, f8_e4m3: 5e-2 }[settings.kvType]
        const what = `seed ${seed}, ${JSON.stringify(model)}`
        assertClose(await cpu.forward(chunk, { start: from }), expected, tolerance * largest, what)
        const near = cosine(await rounded.forward(chunk, { start: from }), expected)
        assert.ok(near > 0.99, `${what}: cosine ${near}`)
      }
      await Promise.all([cpu.close(), reference.close(), rounded.close()])
    })
  }
})

const refusal = async (code: ErrorCode, field: string | undefined, promise: Promise<unknown>): Promise<void> => {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  assert.instance(error, DroverError, `${code} for ${field} was expected`)
  assert.is((error as DroverError).code, code, String(error))
  assert.is((error as DroverError).field, field, String(error))
  assert.ok((error as DroverError).file !== undefined, 'the error names the file')
}

/** Opens a changed model and builds its program. */
const build = (changes: TinyChanges, model: TinyModel = plain): Promise<unknown> =>
  withTinyModel(
    randomSource(1),
    model,
    async (path) => {
      const opened = await openModel(path)
      return opened.build(cpuDevice.layout, {
        maxRows: 4,
        maxOutputs: 4,
        maxSequences: 1,
        maxPages: 1,
        kvType: 'f32',
        kvPages: 1,
        activations: 'auto',
        candidates: 1,
      })
    },
    changes,
  )

test('GGUF files that are no Llama, or not all of one, are refused', async () => {
  await build({})
  const u32 = (value: number) => ({ type: 'u32', value }) as const
  const text = (value: string) => ({ type: 'string', value }) as const
  const set = (key: string, entry: TinyChanges['metadata'] extends infer T | undefined ? T[keyof T] : never) =>
    build({ metadata: { [key]: entry } })
  await refusal('E_UNSUPPORTED', 'general.architecture', set('general.architecture', text('llama4')))
  await refusal('E_FORMAT', 'general.architecture', set('general.architecture', undefined))
  for (const key of [
    'embedding_length',
    'block_count',
    'attention.head_count',
    'feed_forward_length',
    'context_length',
  ]) {
    await refusal('E_FORMAT', `llama.${key}`, set(`llama.${key}`, undefined))
    await refusal('E_FORMAT', `llama.${key}`, set(`llama.${key}`, u32(0)))
    await refusal('E_FORMAT', `llama.${key}`, set(`llama.${key}`, text('many')))
  }
  await refusal('E_UNSUPPORTED', 'llama.expert_count', set('llama.expert_count', u32(8)))
  await refusal('E_UNSUPPORTED', 'llama.attention.head_count', set('llama.attention.value_length', u32(8)))
  await refusal('E_UNSUPPORTED', 'rope_scaling.rope_type', set('llama.rope.scaling.type', text('yarn')))
  await refusal(
    'E_FORMAT',
    'rope_freqs.weight',
    build({ metadata: { 'llama.rope.dimension_count': u32(8) } }, { ...plain, ropeFactors: true }),
  )
  const without = (name: string) => build({ tensors: (tensor) => (tensor.name === name ? undefined : tensor) })
  for (const name of ['token_embd.weight', 'output_norm.weight', 'blk.1.attn_q.weight', 'blk.0.ffn_down.weight']) {
    await refusal('E_FORMAT', name, without(name))
  }
  const reshaped = (name: string, shape: readonly number[]) =>
    build({ tensors: (tensor) => (tensor.name === name ? { ...tensor, shape } : tensor) })
  await refusal('E_FORMAT', 'blk.0.attn_k.weight', reshaped('blk.0.attn_k.weight', [64, 32]))
  await refusal('E_FORMAT', 'output_norm.weight', reshaped('output_norm.weight', [32, 2]))
  await refusal('E_FORMAT', 'blk.0.attn_v.weight', reshaped('blk.0.attn_v.weight', [2048]))
})

test('Hugging Face folders that are no Llama are refused', async () => {
  const source = fixture('llama3-8b-like')
  const original = JSON.parse(readFileSync(join(source, 'config.json'), 'utf8')) as Record<string, unknown>
  const opening = async (changes: Record<string, unknown>): Promise<void> => {
    const folder = mkdtempSync(join(tmpdir(), 'drover-'))
    try {
      cpSync(source, folder, { recursive: true })
      writeFileSync(join(folder, 'config.json'), JSON.stringify({ ...original, ...changes }))
      await openModel(folder)
    } finally {
      rmSync(folder, { recursive: true })
    }
  }
  await opening({})
  for (const [model, architecture] of [
    ['llama4', 'Llama4ForConditionalGeneration'],
    ['mllama', 'MllamaForConditionalGeneration'],
    ['qwen2', 'Qwen2ForCausalLM'],
    ['llama', 'LlamaForSequenceClassification'],
  ]) {
    await refusal('E_UNSUPPORTED', 'model_type', opening({ model_type: model, architectures: [architecture] }))
  }
  await refusal('E_UNSUPPORTED', 'hidden_act', opening({ hidden_act: 'gelu' }))
  const quantized = { quantization_config: { quant_method: 'gptq' } }
  await refusal('E_UNSUPPORTED', 'quantization_config.quant_method', opening(quantized))
  await refusal('E_IO', undefined, openModel(join(source, 'absent.gguf')))
})

test.run()
