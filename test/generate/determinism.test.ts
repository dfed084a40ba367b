/** Same seed, same text: whatever runs beside it, whether its start is in the cache, and when it gave way to others. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { GeneratedToken, Generation } from '../../lib/generate/generation.js'
import { type LanguageModel, loadLanguageModel } from '../../lib/generate/model.js'
import { storiesPath, withStories } from './models.js'

const options = { seed: 77, maxTokens: 90, logprobs: 4, stopTokens: [], temperature: 0.9, presencePenalty: 0.2 }
const prompts = Array.from({ length: 10 }, (_, i) => `${'Once upon a time '.repeat(i)}there was number ${i}`)

const read = async (generation: Generation): Promise<GeneratedToken[]> => {
  const items: GeneratedToken[] = []
  for await (const item of generation) items.push(item)
  return items
}

/** Each prompt's tokens and log-probabilities in a model that has seen nothing else. */
const alone = async (): Promise<GeneratedToken[][]> => {
  const all: GeneratedToken[][] = []
  for (const prompt of prompts) all.push(await withStories((model) => read(model.generate(prompt, options))))
  return all
}

test('the same seed gives the same text, another one another', () =>
  withStories(async (model) => {
    const text = async (seed?: number): Promise<string> =>
      (await model.generate('Once', { ...options, ...(seed === undefined ? {} : { seed }) }).result()).text
    assert.is(await text(1), await text(1))
    assert.is.not(await text(1), await text(2))
    const free = { maxTokens: 60, temperature: 1.5 }
    const [a, b] = await Promise.all([1, 2].map(() => model.generate('Once', free).result()))
    assert.is.not(a!.text, b!.text, 'without a seed chance decides')
  }))

for (const settings of [{ maxSequences: 10 }, { maxSequences: 3, threads: 1 }, { maxSequences: 1 }]) {
  test(`ten at once give what each gives alone, ${JSON.stringify(settings)}`, async () => {
    const expected = await alone()
    await withStories(async (model) => {
      assert.equal(await Promise.all(prompts.map((prompt) => read(model.generate(prompt, options)))), expected)
    }, settings)
  })
}

test('a start that is in the cache changes no bit, and is counted', () =>
  withStories(async (model) => {
    const prompt = model.tokenizer.encode('Lily and Tom went to the park. '.repeat(12), { bos: true })
    assert.ok(prompt.length > 130)
    const first = model.generate(prompt, options)
    const items = await read(first)
    assert.is((await first.result()).usage.cachedTokens, 0)
    for (const cut of [prompt.length, 129, 128, 65, 64, 20]) {
      const fresh = await withStories((other) => read(other.generate(prompt.slice(0, cut), options)))
      const again = model.generate(prompt.slice(0, cut), options)
      assert.equal(await read(again), cut === prompt.length ? items : fresh, `${cut} tokens`)
      const { cachedTokens, promptTokens } = (await again.result()).usage
      // At least one position is computed: its logits are needed.
      assert.equal([cachedTokens, promptTokens], [64 * Math.floor((cut - 1) / 64), cut])
    }
    const other = Int32Array.from(prompt, (token, i) => (i === 70 ? token ^ 1 : token))
    const half = model.generate(other, options)
    const fresh = await withStories((empty) => read(empty.generate(other, options)))
    assert.equal(await read(half), fresh)
    assert.is((await half.result()).usage.cachedTokens, 64)
  }))

/** A model with few pages: the smallest budget that still holds one whole context. */
const tightModel = async (): Promise<LanguageModel> => {
  const load = (memoryBudget: number): Promise<LanguageModel> =>
    loadLanguageModel(storiesPath, { contextLength: 512, maxSequences: 6, memoryBudget, threads: 2 })
  let [low, high] = [0, 2 ** 28]
  while (high - low > 4096) {
    const middle = Math.floor((low + high) / 2)
    try {
      await (await load(middle)).close()
      high = middle
    } catch (error) {
      assert.is((error as { code: string }).code, 'E_MEMORY', String(error))
      low = middle
    }
  }
  return load(high)
}

test('with room for one context six give way to each other, and lose nothing', async () => {
  const model = await tightModel()
  try {
    const roomy = await withStories(async (other) => other.memoryUsage().kv, { maxSequences: 6 })
    assert.ok(model.memoryUsage().kv! * 5 < roomy!, 'the cache holds one context, not six')
    const long = { ...options, maxTokens: 250 }
    const starts = prompts.slice(0, 6)
    const expected: GeneratedToken[][] = []
    for (const prompt of starts) expected.push(await withStories((other) => read(other.generate(prompt, long))))
    const generations = starts.map((prompt) => model.generate(prompt, long))
    // Jobs take pages too.
    const tokens = model.tokenizer.encode('the end of the day '.repeat(20), { bos: true })
    const logits = await withStories((other) => other.logits(tokens))
    const jobs = [1, 2, 3].map(() => model.logits(tokens))
    assert.equal(await Promise.all(generations.map(read)), expected)
    for (const job of jobs) assert.equal(await job, logits)
    for (const generation of generations) {
      const { usage } = await generation.result()
      assert.ok(usage.cachedTokens < usage.promptTokens, 'what it wrote itself is no cached prompt')
    }
  } finally {
    await model.close()
  }
})

test.run()
