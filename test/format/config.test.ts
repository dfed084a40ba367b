import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { DroverError } from '../../lib/errors.js'
import {
  architectureOf,
  type ConfigRecord,
  generationDefaults,
  type HuggingFaceConfig,
  type HuggingFaceFolder,
  huggingFaceConfig,
  readHuggingFace,
  readHuggingFaceFrom,
  type TokenizerSettings,
  tokenizerSettings,
} from '../../lib/format/config.js'
import { fixture, shared } from '../support.js'
import { assertRefused } from './refusals.js'
import { folderOf, sparseFolder } from './safetensors-bytes.js'

const read = (files: Record<string, Uint8Array | string | object>): Promise<HuggingFaceFolder> =>
  readHuggingFaceFrom(folderOf(files))

const recordOf = async (config: string | object): Promise<ConfigRecord> =>
  (await read({ 'config.json': config })).config

/** The least that describes a model. */
const least = {
  model_type: 'llama',
  hidden_size: 64,
  intermediate_size: 128,
  num_hidden_layers: 2,
  num_attention_heads: 8,
  vocab_size: 100,
}
const configOf = async (changes: object): Promise<HuggingFaceConfig> =>
  huggingFaceConfig(await recordOf({ ...least, ...changes }))

const stored = async (name: string): Promise<HuggingFaceConfig> =>
  huggingFaceConfig((await readHuggingFace(fixture(`hf-configs/${name}`))).config)

test('files of transformers 4', async () => {
  const { file, ...plain } = await stored('llama3-8b-like')
  assert.match(file, /llama3-8b-like.config\.json$/)
  assert.equal(plain, {
    architectures: ['LlamaForCausalLM'],
    modelType: 'llama',
    hiddenSize: 192,
    intermediateSize: 344,
    layers: 2,
    heads: 4,
    keyValueHeads: 1,
    headSize: 48,
    vocabularySize: 515,
    normEpsilon: 1e-5,
    maxPositions: 8192,
    tieWordEmbeddings: false,
    attentionBias: false,
    mlpBias: false,
    hiddenActivation: 'silu',
    rope: { theta: 500000, type: 'default' },
    dtype: 'float32',
    quantization: undefined,
    bosTokens: [506],
    eosTokens: [507],
  })
  const scaled = await stored('llama31-rope8-like')
  assert.equal(scaled.rope, {
    theta: 500000,
    type: 'llama3',
    factor: 8,
    lowFrequencyFactor: 1,
    highFrequencyFactor: 4,
    originalMaxPositions: 64,
  })
  const tied = await stored('llama32-tied-like')
  assert.equal([tied.tieWordEmbeddings, tied.headSize, tied.dtype], [true, 64, 'bfloat16'])
})

test('files of transformers 5', async () => {
  const biased = await stored('llama-bias-hd80')
  assert.equal([biased.attentionBias, biased.mlpBias, biased.headSize, biased.dtype], [true, true, 80, 'float32'])
  assert.equal([biased.rope.theta, biased.rope.type], [10000, 'default'])
  const { config } = await readHuggingFace(fixture('hf-configs/mllama'))
  assert.equal(architectureOf(config), { architectures: ['MllamaForConditionalGeneration'], modelType: 'mllama' })
  const text = huggingFaceConfig(config.record('text_config')!)
  assert.equal([text.hiddenSize, text.layers, text.keyValueHeads, text.headSize], [96, 5, 2, 24])
  assert.equal([text.rope.type, text.rope.theta, text.rope.originalMaxPositions], ['llama3', 500000, 64])
})

test('both forms of one model mean the same', async () => {
  const factors = { factor: 32, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 8192 }
  const four = await configOf({
    rope_theta: 500000,
    rope_scaling: { rope_type: 'llama3', ...factors },
    torch_dtype: 'bfloat16',
  })
  const five = await configOf({
    rope_parameters: { rope_type: 'llama3', rope_theta: 500000, ...factors },
    dtype: 'bfloat16',
  })
  assert.equal(four, five)
  const outside = await configOf({ rope_theta: 500000, rope_parameters: { rope_type: 'llama3', ...factors } })
  assert.equal(outside.rope, five.rope)
  const old = await configOf({ rope_scaling: { type: 'linear', factor: 2 }, torch_dtype: 'torch.float16' })
  assert.equal([old.rope.type, old.rope.factor, old.rope.theta, old.dtype], ['linear', 2, 10000, 'float16'])
})

test('what a file leaves out is what transformers would assume; null counts as left out', async () => {
  const { file: _, ...config } = await configOf({ head_dim: null, rope_scaling: null, num_key_value_heads: null })
  assert.equal(config, {
    architectures: [],
    modelType: 'llama',
    hiddenSize: 64,
    intermediateSize: 128,
    layers: 2,
    heads: 8,
    keyValueHeads: 8,
    headSize: 8,
    vocabularySize: 100,
    normEpsilon: 1e-6,
    maxPositions: 2048,
    tieWordEmbeddings: false,
    attentionBias: false,
    mlpBias: false,
    hiddenActivation: 'silu',
    rope: { theta: 10000, type: 'default' },
    dtype: undefined,
    quantization: undefined,
    bosTokens: [],
    eosTokens: [],
  })
})

test('several end tokens, and how a model was quantised', async () => {
  const config = await configOf({
    eos_token_id: [128001, 128008],
    quantization_config: { quant_method: 'awq', bits: 4 },
  })
  assert.equal(config.eosTokens, [128001, 128008])
  assert.is(config.quantization, 'awq')
  assert.is((await configOf({ quantization_config: {} })).quantization, 'unknown')
})

test('entries that are missing, of the wrong type, out of range or contradictory', async () => {
  const llama3 = {
    rope_type: 'llama3',
    factor: 8,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 8192,
  }
  const sizes = ['hidden_size', 'intermediate_size', 'num_hidden_layers', 'num_attention_heads', 'vocab_size']
  const wrong: [string, unknown][] = [
    ...sizes.flatMap((key) =>
      [undefined, null, 0, -1, 1.5, 2 ** 31, 2 ** 53, 1e300, '64', [64], {}, true].map((value): [string, unknown] => [
        key,
        value,
      ]),
    ),
    ['num_hidden_layers', 65536],
    ['num_key_value_heads', 0],
    ['num_key_value_heads', 3],
    ['num_key_value_heads', 16],
    ['head_dim', 0],
    ['head_dim', 7.5],
    ['max_position_embeddings', 0],
    ['rms_norm_eps', -1e-6],
    ['rms_norm_eps', '1e-6'],
    ['tie_word_embeddings', 1],
    ['attention_bias', 'false'],
    ['hidden_act', 3],
    ['torch_dtype', 16],
    ['architectures', 'LlamaForCausalLM'],
    ['architectures', [1]],
    ['model_type', 1],
    ['bos_token_id', -1],
    ['bos_token_id', 1.5],
    ['eos_token_id', [1, '2']],
    ['eos_token_id', 2 ** 31],
    ['quantization_config', 'awq'],
    ['rope_theta', 0],
    ['rope_theta', -10000],
    ['rope_scaling', 'llama3'],
    ['rope_scaling', []],
  ]
  for (const [key, value] of wrong) {
    await assertRefused(`${key}: ${JSON.stringify(value)}`, 'E_FORMAT', key, () => configOf({ [key]: value }))
  }
  const nested: [string, object][] = [
    ['rope_theta', { rope_theta: 0 }],
    ['rope_type', { rope_type: 3 }],
    ['factor', { ...llama3, factor: undefined }],
    ['factor', { ...llama3, factor: 0 }],
    ['factor', { type: 'linear' }],
    ['factor', { type: 'dynamic', factor: -1 }],
    ['low_freq_factor', { ...llama3, low_freq_factor: undefined }],
    ['high_freq_factor', { ...llama3, high_freq_factor: '4' }],
    ['high_freq_factor', { ...llama3, high_freq_factor: 1 }],
    ['original_max_position_embeddings', { ...llama3, original_max_position_embeddings: undefined }],
    ['original_max_position_embeddings', { ...llama3, original_max_position_embeddings: 0 }],
  ]
  for (const form of ['rope_scaling', 'rope_parameters']) {
    for (const [key, value] of nested) {
      await assertRefused(JSON.stringify(value), 'E_FORMAT', `${form}.${key}`, () => configOf({ [form]: value }))
    }
  }
  const odd = { hidden_size: 60 }
  await assertRefused('hidden size', 'E_FORMAT', 'num_attention_heads', () => configOf(odd))
  assert.is((await configOf({ ...odd, head_dim: 16 })).headSize, 16)
})

test('an unknown architecture can be named although nothing else fits', async () => {
  const config = await recordOf({ architectures: ['MambaForCausalLM'], model_type: 'mamba', hidden_size: 'many' })
  assert.equal(architectureOf(config), { architectures: ['MambaForCausalLM'], modelType: 'mamba' })
})

test('generation defaults', async () => {
  const { generation } = await readHuggingFace(fixture('hf-configs/llama-bias-hd80'))
  assert.equal([generationDefaults(generation!).bosTokens, generationDefaults(generation!).eosTokens], [[290], [291]])
  const of = async (content: object) =>
    generationDefaults((await read({ 'config.json': least, 'generation_config.json': content })).generation!)
  assert.equal(
    await of({
      eos_token_id: [1, 2],
      do_sample: true,
      temperature: 0.6,
      top_k: 50,
      top_p: 0.9,
      min_p: 0,
      typical_p: 1,
    }),
    {
      bosTokens: [],
      eosTokens: [1, 2],
      doSample: true,
      temperature: 0.6,
      topK: 50,
      topP: 0.9,
      minP: 0,
      typicalP: 1,
      repetitionPenalty: undefined,
    },
  )
  for (const [key, value] of Object.entries({ do_sample: 1, temperature: -1, top_k: 1.5, top_p: '0.9' })) {
    await assertRefused(key, 'E_FORMAT', key, () => of({ [key]: value }))
  }
})

const settingsOf = async (content: object): Promise<TokenizerSettings> =>
  tokenizerSettings((await read({ 'config.json': least, 'tokenizer_config.json': content })).tokenizer!)

test('tokenizer settings: tokens as text or objects, one chat template or several', async () => {
  const settings = await settingsOf({
    tokenizer_class: 'PreTrainedTokenizerFast',
    add_bos_token: true,
    bos_token: '<s>',
    eos_token: { content: '</s>', lstrip: false },
    unk_token: null,
    chat_template: '{{ messages }}',
    added_tokens_decoder: { 0: { content: '<s>', special: true }, 7: { content: 'x' } },
  })
  assert.equal(
    [settings.tokenizerClass, settings.addBos, settings.addEos],
    ['PreTrainedTokenizerFast', true, undefined],
  )
  assert.equal([settings.bosToken, settings.eosToken, settings.unknownToken], ['<s>', '</s>', undefined])
  assert.equal([...settings.chatTemplates], [['default', '{{ messages }}']])
  assert.equal(
    [...settings.addedTokens],
    [
      [0, { content: '<s>', special: true }],
      [7, { content: 'x', special: false }],
    ],
  )
  const named = await settingsOf({
    chat_template: [
      { name: 'default', template: 'a' },
      { name: 'tool_use', template: 'b' },
    ],
  })
  assert.equal(
    [...named.chatTemplates],
    [
      ['default', 'a'],
      ['tool_use', 'b'],
    ],
  )
  const wrong: [string | RegExp, object][] = [
    ['bos_token', { bos_token: 1 }],
    ['bos_token.content', { bos_token: {} }],
    ['add_bos_token', { add_bos_token: 'yes' }],
    ['chat_template', { chat_template: {} }],
    ['chat_template', { chat_template: ['a'] }],
    ['chat_template[0].name', { chat_template: [{ template: 'a' }] }],
    ['added_tokens_decoder', { added_tokens_decoder: [] }],
    ['added_tokens_decoder', { added_tokens_decoder: { x: { content: 'a' } } }],
    [/^added_tokens_decoder/, { added_tokens_decoder: { 1: 'a' } }],
    ['added_tokens_decoder.1.content', { added_tokens_decoder: { 1: {} } }],
  ]
  for (const [field, content] of wrong) {
    await assertRefused(JSON.stringify(content), 'E_FORMAT', field, () => settingsOf(content))
  }
})

test('folders: optional files may be missing, config.json may not', async () => {
  const folder = await read({ 'config.json': least })
  assert.equal([folder.generation, folder.tokenizer], [undefined, undefined])
  const missing = await assertRefused('no config', 'E_IO', undefined, () => read({ 'generation_config.json': {} }))
  assert.is(missing.found, 'no such file')
  await assertRefused('no folder', 'E_IO', undefined, () => readHuggingFace(fixture('hf-configs/none')))
  const broken = { 'config.json': least, 'tokenizer_config.json': '{"a":' }
  await assertRefused('broken', 'E_FORMAT', 'JSON', () => read(broken))
  let error: unknown
  await readHuggingFaceFrom(folderOf({ 'config.json': least }), { signal: AbortSignal.abort() }).catch(
    (caught) => (error = caught),
  )
  assert.is((error as DroverError).code, 'E_ABORTED')
  assert.instance(error, DroverError)
})

test('texts that are no JSON object', async () => {
  const bad = [
    '',
    ' ',
    '[]',
    'null',
    '1',
    '"x"',
    '{',
    '{"a":1,}',
    "{'a':1}",
    '{"a":1}{}',
    '{"a":NaN}',
    '{"a":01}',
    '{"a":\0}',
  ]
  for (const text of [
    ...bad,
    '{"a":1,"a":2}',
    '\ufeff{}',
    '{"a":"\\ud800"}',
    '{"a":'.repeat(100_000),
    '['.repeat(100_000),
  ]) {
    await assertRefused(text.slice(0, 40), 'E_FORMAT', undefined, () => recordOf(text))
  }
  const notUtf8 = Uint8Array.from([...Buffer.from('{"a":"'), 0xff, ...Buffer.from('"}')])
  await assertRefused('not UTF-8', 'E_FORMAT', 'JSON', () => read({ 'config.json': notUtf8 }))
  await assertRefused('a sparse file', 'E_FORMAT', 'file size', () =>
    readHuggingFaceFrom(sparseFolder(Buffer.from('{}'), 2 ** 40)),
  )
  const record = await recordOf('{"__proto__":{"hidden_size":1},"constructor":2}')
  assert.is(record.integer('constructor'), 2)
  assert.not.ok(record.has('hidden_size'))
})

const llama3 = shared('data/tokenizers/llama3')
if (llama3 !== undefined) {
  test('the published tokenizer_config.json of Llama 3', async () => {
    const files = {
      'config.json': least,
      'tokenizer_config.json': await readFile(join(llama3, 'tokenizer_config.json')),
    }
    const settings = tokenizerSettings((await read(files)).tokenizer!)
    assert.is(settings.bosToken, '<|begin_of_text|>')
    assert.is(settings.chatTemplates.has('default'), true)
    assert.equal(settings.addedTokens.get(128000), { content: '<|begin_of_text|>', special: true })
  })
}

test.run()
