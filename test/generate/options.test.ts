/** Every wrong option and argument is refused by name. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { GgufTensor } from '../../lib/format/gguf-writer.js'
import { loadLanguageModel } from '../../lib/generate/model.js'
import { checkDefaults, planGeneration } from '../../lib/generate/options.js'
import { withTinyModel } from '../model/tiny.js'
import { randomSource } from '../support.js'
import { storiesPath, tiny, withBytesModel, withStories } from './models.js'

interface Refusal {
  code: string
  field?: string
  message: string
}

const refusalOf = async (body: () => unknown, what: string): Promise<Refusal> => {
  try {
    await body()
  } catch (error) {
    return error as Refusal
  }
  return assert.unreachable(`${what} is taken`) as never
}

const numbers: Record<string, unknown[]> = {
  maxTokens: [-1, 1.5, Number.NaN, '5', null, 2 ** 60, 5n],
  temperature: [-0.1, Number.NaN, Number.POSITIVE_INFINITY, '1', null, [], 1e7, true],
  topK: [-1, 0.5, Number.NaN, '4', null, 2 ** 31],
  topP: [-0.1, 1.01, Number.NaN, '0.5', null],
  minP: [-0.1, 1.01, Number.NaN, {}, null],
  typicalP: [-0.1, 1.01, Number.NaN, false, null],
  repetitionPenalty: [0, -1, Number.NaN, Number.POSITIVE_INFINITY, '1', null],
  presencePenalty: [Number.NaN, Number.NEGATIVE_INFINITY, '0', null, 1e7],
  frequencyPenalty: [Number.NaN, Number.POSITIVE_INFINITY, '0', null, -1e7],
  penaltyWindow: [-1, 0.5, Number.NaN, '3', null],
  seed: [-1, 0.5, Number.NaN, 2 ** 53, '1', null, 3n],
  logprobs: [-1, 21, 0.5, 'yes', null],
  stop: ['', [''], [3], 3, null, {}, [null], ['a', '']],
  stopTokens: [3, 'a', null, {}, new Int32Array(1), [-1], [512], [0.5], ['1'], [null]],
  logitBias: [
    3,
    'a',
    null,
    [1, 2],
    new Map([[1, 2]]),
    { a: 1 },
    { '': 1 },
    { ' 1': 1 },
    { '0x1': 1 },
    { '1.5': 1 },
    { 512: 1 },
    { '-1': 1 },
    { 1: '1' },
    { 1: Number.NaN },
    { 1: Number.NEGATIVE_INFINITY },
    { 1: null },
  ],
  signal: [{}, 'abort', null, new AbortController()],
}

for (const [name, values] of Object.entries(numbers)) {
  test(`generate refuses wrong values of ${name}`, () =>
    withStories(async (model) => {
      for (const value of values) {
        const what = `${name}: ${typeof value} ${String(value)}`
        const { code, field, message } = await refusalOf(() => model.generate('Once', { [name]: value }), what)
        assert.ok(code === 'E_ARGUMENT' || code === 'E_RANGE', `${what}: ${message}`)
        assert.ok(field?.startsWith(`options.${name}`), `${what}: field ${field}`)
        assert.ok(message.includes('found'), `${what}: ${message}`)
      }
    }))
}

test('what is not built yet is refused, unknown names with those that exist', () =>
  withStories(async (model) => {
    for (const name of ['schema', 'grammar', 'tools']) {
      const { code, field } = await refusalOf(() => model.generate('Once', { [name]: {} }), name)
      assert.equal([code, field], ['E_UNSUPPORTED', `options.${name}`])
      const chat = await refusalOf(() => model.generate('Once', { [name]: null }), name)
      assert.is(chat.code, 'E_UNSUPPORTED')
    }
    for (const [wrong, right] of [
      ['temprature', 'temperature'],
      ['Temperature', 'temperature'],
      ['max_tokens', 'maxTokens'],
      ['topk', 'topK'],
      ['bananas', 'maxTokens'],
    ] as const) {
      const { code, field, message } = await refusalOf(() => model.generate('Once', { [wrong]: 1 }), wrong)
      assert.equal([code, field], ['E_ARGUMENT', `options.${wrong}`])
      assert.ok(message.includes(right), message)
    }
    for (const options of [null, 3, 'x', []]) {
      const { code, field } = await refusalOf(() => model.generate('Once', options as never), String(options))
      assert.equal([code, field], ['E_ARGUMENT', 'options'])
    }
    await model.generate('Once', { maxTokens: 1, temperature: undefined, schema: undefined } as never).result()
  }))

test('prompts and tokens that are none', () =>
  withStories(async (model) => {
    const wrong: [unknown, string, string][] = [
      [undefined, 'E_ARGUMENT', ''],
      [null, 'E_ARGUMENT', ''],
      [3, 'E_ARGUMENT', ''],
      [{}, 'E_ARGUMENT', ''],
      [{ length: -1 }, 'E_ARGUMENT', ''],
      [{ length: Number.NaN }, 'E_ARGUMENT', ''],
      [{ length: 1.5 }, 'E_ARGUMENT', ''],
      [{ length: 2 }, 'E_ARGUMENT', '[0]'],
      [[], 'E_RANGE', ''],
      [new Int32Array(600), 'E_RANGE', ''],
      [[1, 512], 'E_ARGUMENT', '[1]'],
      [[1, -1], 'E_ARGUMENT', '[1]'],
      [[1.5], 'E_ARGUMENT', '[0]'],
      [['1'], 'E_ARGUMENT', '[0]'],
      [new BigInt64Array(2), 'E_ARGUMENT', '[0]'],
      [Float32Array.of(1, 0.5), 'E_ARGUMENT', '[1]'],
    ]
    for (const [value, code, place] of wrong) {
      const what = `${Object.prototype.toString.call(value)} ${String(value)}`
      const calls: [string, () => unknown][] = [
        ['prompt', () => model.generate(value as never)],
        ['tokens', () => model.logits(value as never)],
      ]
      for (const [name, call] of calls) {
        const found = await refusalOf(call, what)
        assert.equal([found.code, found.field], [code, `${name}${place}`], `${what}: ${found.message}`)
      }
    }
    assert.is((await refusalOf(() => model.perplexity([1]), 'one token')).code, 'E_RANGE')
    const long = await refusalOf(() => model.generate('a '.repeat(2000)), 'a long text')
    assert.equal([long.code, long.field], ['E_RANGE', 'prompt'])
  }))

test('options of logits and perplexity', () =>
  withStories(async (model) => {
    const wrong: ['logits' | 'perplexity', string, unknown][] = [
      ['logits', 'rows', 'some'],
      ['logits', 'rows', null],
      ['logits', 'signal', {}],
      ['logits', 'row', 'all'],
      ['perplexity', 'window', 1],
      ['perplexity', 'window', 513],
      ['perplexity', 'window', null],
      ['perplexity', 'stride', 0],
      ['perplexity', 'stride', 513],
      ['perplexity', 'stride', '3'],
      ['perplexity', 'signal', 'abort'],
      ['perplexity', 'onProgress', 3],
      ['perplexity', 'strides', 3],
    ]
    for (const [method, name, value] of wrong) {
      const what = `${method} ${name} ${value}`
      const { code, field } = await refusalOf(() => model[method]([1, 2, 3], { [name]: value }), what)
      assert.equal([code, field], ['E_ARGUMENT', `options.${name}`], what)
    }
  }))

test('options of loading', async () => {
  const wrong: [string, unknown, string][] = [
    ['contextLength', 0, 'E_ARGUMENT'],
    ['contextLength', null, 'E_ARGUMENT'],
    ['contextLength', 1e9, 'E_ARGUMENT'],
    ['threads', 0, 'E_ARGUMENT'],
    ['threads', '2', 'E_ARGUMENT'],
    ['memoryBudget', -1, 'E_ARGUMENT'],
    ['maxSequences', 0, 'E_ARGUMENT'],
    ['maxSequences', 513, 'E_ARGUMENT'],
    ['kvType', 'f64', 'E_ARGUMENT'],
    ['kvType', 'f8_e4m3', 'E_ARGUMENT'],
    ['activations', 'f16', 'E_ARGUMENT'],
    ['weights', 'q9', 'E_ARGUMENT'],
    ['preparedCache', '', 'E_ARGUMENT'],
    ['verify', true, 'E_ARGUMENT'],
    ['signal', {}, 'E_ARGUMENT'],
    ['onProgress', 'yes', 'E_ARGUMENT'],
    ['gpu', true, 'E_ARGUMENT'],
  ]
  for (const [name, value, code] of wrong) {
    const what = `${name} ${value}`
    const found = await refusalOf(() => loadLanguageModel(storiesPath, { [name]: value }), what)
    assert.equal([found.code, found.field], [code, `options.${name}`], `${what}: ${found.message}`)
  }
  const aborted = await refusalOf(() => loadLanguageModel(storiesPath, { signal: AbortSignal.abort() }), 'aborted')
  assert.is(aborted.code, 'E_ABORTED')
})

test('what a tokenizer is refused for comes first, whatever becomes of the weights that load meanwhile', async () => {
  const unhandled: unknown[] = []
  const note = (error: unknown): void => void unhandled.push(error)
  process.on('unhandledRejection', note)
  for (const fill of [undefined, 255]) {
    // Weights of all ones are NaN, which verify refuses, too.
    const tensors = (tensor: GgufTensor): GgufTensor =>
      fill === undefined ? tensor : { ...tensor, chunks: () => [new Uint8Array(tensor.bytes).fill(fill)] }
    const metadata = { 'tokenizer.ggml.model': { type: 'string', value: 'other' } } as const
    await withTinyModel(
      randomSource(5),
      tiny,
      async (path) => {
        const { code, field } = await refusalOf(() => loadLanguageModel(path, { verify: 'full' }), `${fill}`)
        assert.equal([code, field], ['E_UNSUPPORTED', 'tokenizer.ggml.model'])
      },
      { metadata, tensors },
    )
  }
  process.off('unhandledRejection', note)
  assert.equal(unhandled, [])
})

test('logits of all rows are refused by their size, before they are allocated', () =>
  withBytesModel(
    { shape: { vocabulary: 70_000, tied: true }, metadata: { 'llama.context_length': { type: 'u32', value: 16_384 } } },
    { maxSequences: 1 },
    async (model) => {
      const tokens = new Int32Array(16_384).fill(5)
      const before = process.memoryUsage().arrayBuffers
      const found = await refusalOf(() => model.logits(tokens, { rows: 'all' }), '4.6 GB')
      assert.equal([found.code, found.field], ['E_RANGE', 'tokens'])
      assert.match(found.message, /16384 rows of 70000/)
      assert.ok(process.memoryUsage().arrayBuffers - before < 2 ** 20)
      assert.is((await model.logits(tokens.subarray(0, 20), { rows: 'all' })).rows, 20)
    },
  ))

test('limits include their ends', () => {
  const plan = (options: object) => planGeneration(options, {}, 100, [2], 10)
  for (const options of [
    { temperature: 0 },
    { temperature: 1e6 },
    { topP: 0, minP: 1, typicalP: 0 },
    { topK: 2 ** 31 - 1 },
    { seed: Number.MAX_SAFE_INTEGER },
    { logitBias: { 0: -1e9, 99: 1e9 } },
    { stopTokens: [0, 99] },
    { logprobs: 20 },
  ]) {
    plan(options)
  }
  assert.is(plan({ maxTokens: 99 }).maxTokens, 10, 'no more than there is room for')
  assert.equal([...plan({}).stopTokens], [2])
  assert.equal([...plan({ stopTokens: [] }).stopTokens], [])
  assert.is(plan({ penaltyWindow: 5 }).penaltyWindow, 0, 'nothing is counted without penalties')
  assert.is(plan({ penaltyWindow: 5, presencePenalty: 1 }).penaltyWindow, 5)
  const seeds = new Set(Array.from({ length: 20 }, () => plan({}).sampling.seed))
  assert.is(seeds.size, 20, 'without a seed every text is another')
  assert.throws(() => checkDefaults('model', { topK: 1.5 }), /E_FORMAT.*topK/)
  assert.throws(() => checkDefaults('model', { topP: 1.5 }), /E_FORMAT.*topP.*model/)
})

test.run()
