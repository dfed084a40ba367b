/** `drover inspect`: what a file holds, and what a config alone will take. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { fixture } from '../support.js'
import { output, outputJson, refused, storiesPath, withFolder } from './run.js'

interface Plan {
  contextLength: number
  sequences: number
  kvType: string
  weightType: string
  preparedBytes: number
  kvBytesPerPosition: number
  kvBytes: number
  arenaBytes: number
  unsharedBytes: number
  totalBytes: number
  parameters: number
  ops: number
}
interface Report {
  config: Record<string, unknown>
  parameters?: number
  weightTypes?: string[]
  weightBytes?: number
  metadata?: Record<string, unknown>
  tensors?: { name: string; dtype: string; shape: number[]; bytes: number }[]
  plan: Plan
  program?: string[]
}

const llama31 = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  vocab_size: 128256,
  num_key_value_heads: 8,
  max_position_embeddings: 131072,
  rms_norm_eps: 1e-5,
  rope_theta: 500000,
  rope_scaling: {
    factor: 8,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 8192,
    rope_type: 'llama3',
  },
  tie_word_embeddings: false,
  hidden_act: 'silu',
}
const size = (hidden: number, intermediate: number, layers: number, heads: number) => ({
  ...llama31,
  hidden_size: hidden,
  intermediate_size: intermediate,
  num_hidden_layers: layers,
  num_attention_heads: heads,
})
// Parameters as Meta counts them; bytes of keys and values per position: 2 × layers × 8 heads × 128 × 2.
const sizes = [
  { name: '8B', config: size(4096, 14336, 32, 32), parameters: 8_030_261_248, kvPerPosition: 131_072, hidden: 4096 },
  { name: '70B', config: size(8192, 28672, 80, 64), parameters: 70_553_706_496, kvPerPosition: 327_680, hidden: 8192 },
  {
    name: '405B',
    config: size(16384, 53248, 126, 128),
    parameters: 405_853_388_800,
    kvPerPosition: 516_096,
    hidden: 16384,
  },
]

test('8B, 70B and 405B at 128K are planned from the config alone', async () => {
  await withFolder(async (folder) => {
    for (const { name, config, parameters, kvPerPosition, hidden } of sizes) {
      const path = join(folder, `llama-3.1-${name}.json`)
      writeFileSync(path, JSON.stringify(config))
      const { plan } = await outputJson<Report>(['inspect', path])
      assert.is(plan.parameters, parameters, name)
      assert.is(plan.contextLength, 131_072)
      assert.is(plan.kvBytesPerPosition, kvPerPosition)
      assert.is(plan.kvBytes, kvPerPosition * 131_072)
      assert.is(plan.weightType, 'bf16')
      // Prepared: every matrix at two bytes a weight, up to padding; the embedding stays in its file.
      const prepared = plan.preparedBytes / (2 * (parameters - 128_256 * hidden))
      assert.ok(prepared > 0.999 && prepared < 1.01, `${name}: ${prepared}`)
      assert.is(plan.totalBytes, plan.preparedBytes + plan.kvBytes + plan.arenaBytes)
      assert.ok(
        plan.arenaBytes * 8 < plan.unsharedBytes,
        `${name}: sharing gains ${plan.unsharedBytes / plan.arenaBytes}`,
      )
      const text = await output(['inspect', path])
      assert.match(text, /^KV cache +[\d.]+ GiB as f16: 1 × 131072 positions of [\d.]+ KiB$/m)
      assert.match(text, /^activations +[\d.]+ MiB \([\d.]+ [MG]iB without sharing\)$/m)
      const quantised = await outputJson<Report>([
        'inspect',
        path,
        '--type',
        'q4_k',
        '--kv',
        'q8_0',
        '--sequences',
        '4',
      ])
      const bitsPerWeight = (quantised.plan.preparedBytes * 8) / (parameters - 128_256 * hidden)
      assert.ok(bitsPerWeight > 4.4 && bitsPerWeight < 5.2, `${name}: ${bitsPerWeight} bits per weight of q4_k`)
      assert.is(quantised.plan.sequences, 4)
      const kv = quantised.plan.kvBytesPerPosition / kvPerPosition
      assert.ok(kv > 0.5 && kv < 0.57, `${name}: q8_0 takes ${kv} of f16`)
    }
  })
})

test('a folder with only a config.json gives the same plan as the file', async () => {
  const folder = fixture('hf-configs/llama3-8b-like')
  const report = await outputJson<Report>(['inspect', folder])
  const fromFile = await outputJson<Report>(['inspect', join(folder, 'config.json')])
  assert.equal(fromFile.plan, report.plan)
  assert.equal(fromFile.config, report.config)
  assert.is(report.parameters, undefined, 'there are no weights')
  assert.is(report.config['hidden'], 192)
  const short = await outputJson<Report>(['inspect', folder, '--context', '1000', '--kv', 'f32'])
  assert.is(short.plan.contextLength, 1000)
  assert.is(short.plan.kvBytesPerPosition, 2 * report.plan.kvBytesPerPosition)
})

test('a GGUF file: metadata, tensors, program', async () => {
  const report = await outputJson<Report>(['inspect', storiesPath, '--tensors', '--program'])
  assert.is(report.parameters, 292_800)
  assert.equal(report.weightTypes, ['f32'])
  assert.is(report.weightBytes, 4 * 292_800)
  assert.is(report.metadata?.['general.architecture'], 'llama')
  assert.is(report.metadata?.['tokenizer.ggml.tokens'], '[512 string]')
  assert.is(report.tensors?.length, 48)
  const embedding = report.tensors?.find(({ name }) => name === 'token_embd.weight')
  assert.equal([embedding?.shape, embedding?.dtype, embedding?.bytes], [[512, 64], 'f32', 131_072])
  assert.ok((report.program?.length ?? 0) >= report.plan.ops)
  assert.ok(report.program?.some((op) => /layers\.3\.attention\.q +gemm /.test(op)))
  const text = await output(['inspect', storiesPath, '--tensors', '--program'])
  assert.match(text, /^blk\.4\.ffn_down\.weight +f32 +\[64, 172\] +43\.0 KiB$/m)
  assert.match(text, /layers\.4\.mlp\.down +gemm/)
  assert.match(text, /^llama\.embedding_length +64$/m)
})

test('a Hugging Face folder: tensors of its safetensors', async () => {
  const report = await outputJson<Report>(['inspect', fixture('llama3-8b-like-bf16'), '--tensors'])
  assert.ok(report.weightTypes?.includes('bf16'))
  assert.ok(report.tensors?.some(({ name }) => name === 'model.embed_tokens.weight'))
  assert.is(
    report.tensors?.reduce((sum, { bytes }) => sum + bytes, 0),
    report.weightBytes,
  )
  assert.match(
    await output(['inspect', fixture('llama3-8b-like'), '--tensors']),
    /^lm_head\.weight +f32 +\[515, 192\]/m,
  )
})

test('wrong options are refused', async () => {
  await refused(['inspect', storiesPath, '--type', 'q3'], /^drover: E_ARGUMENT: no such number format; .*found: q3/)
  await refused(['inspect', storiesPath, '--type', 'constructor'], /^drover: E_ARGUMENT: no such number format/)
  await refused(['inspect', storiesPath, '--type', 'bool'], /^drover: E_\w+: /)
  await refused(['inspect', storiesPath, '--kv', 'q4_0'], /^drover: E_ARGUMENT: no such cache/)
  await refused(['inspect', storiesPath, '--context', '0'], /--context is not a whole number from 1 to/)
})

test('broken configs are refused with file and field', async () => {
  await withFolder(async (folder) => {
    const path = join(folder, 'config.json')
    writeFileSync(path, '{"model_type": "llama", "hidden_size": 1')
    await refused(['inspect', path], /^drover: E_FORMAT: .*config\.json/)
    writeFileSync(path, JSON.stringify({ ...sizes[0]!.config, hidden_size: undefined }))
    await refused(['inspect', folder], /^drover: E_FORMAT: .*field: hidden_size.*config\.json/)
    writeFileSync(path, JSON.stringify({ ...sizes[0]!.config, model_type: 'llama4', architectures: [] }))
    await refused(['inspect', folder], /^drover: E_UNSUPPORTED: .*found: llama4/)
  })
})

test.run()
