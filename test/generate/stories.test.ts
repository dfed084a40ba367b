/** The model that comes with drover: golden text, loss, prompts, log-probabilities, and every option's effect. */
import { readFileSync } from 'node:fs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { distribution, draw, logProbabilities } from '../../lib/device/reference-sampling.js'
import type { GeneratedToken, Generation, GenerationResult } from '../../lib/generate/generation.js'
import type { GenerateOptions } from '../../lib/generate/options.js'
import { type KvType, kvTypeNames } from '../../lib/program/program.js'
import { plainSampling } from '../../lib/program/step.js'
import { between, pick } from '../program/random-programs.js'
import { assertClose, fixture, randomSource } from '../support.js'
import { withStories } from './models.js'

const golden = readFileSync(fixture('stories260K/expected_greedy_200.txt'), 'utf8')
const story = readFileSync(fixture('stories260K/tinystories_first.txt'), 'utf8')

const read = async (generation: Generation): Promise<{ items: GeneratedToken[]; result: GenerationResult }> => {
  const items: GeneratedToken[] = []
  for await (const item of generation) items.push(item)
  const result = await generation.result()
  assert.equal(
    items.map(({ token }) => token),
    result.tokens,
    'one item per token',
  )
  assert.is(items.map(({ text }) => text).join(''), result.text)
  assert.is(result.usage.completionTokens, result.tokens.length)
  return { items, result }
}

for (const options of [{}, { threads: 1, kvType: 'f32' }, { activations: 'f32', maxSequences: 1 }] as const) {
  test(`the golden greedy text, ${JSON.stringify(options)}`, () =>
    withStories(async (model) => {
      const { result } = await read(model.generate('', { temperature: 0, maxTokens: 200 }))
      assert.is(result.text, golden)
      assert.is(result.finishReason, 'length')
      assert.equal(result.usage, { promptTokens: 1, cachedTokens: 0, completionTokens: 200 })
      // From the middle on.
      const half = result.tokens.slice(0, 100)
      const rest = await model.generate([1, ...half], { temperature: 0, maxTokens: 100 }).result()
      assert.equal(rest.tokens, result.tokens.slice(100))
    }, options))
}

test('the loss on a story', () =>
  withStories(async (model) => {
    const tokens = model.tokenizer.encode(story, { bos: true })
    const { meanLoss, perplexity, tokens: scored } = await model.perplexity(tokens)
    assertClose([meanLoss], [1.316], 0.0005, 'nats per token')
    assertClose([perplexity], [Math.exp(meanLoss)], 1e-9, 'perplexity')
    assert.is(scored, tokens.length - 1)
  }))

test('the perplexity that caches of fewer bits cost', async () => {
  const tokens = await withStories(async (model) => model.tokenizer.encode(story, { bos: true }))
  const perplexityOf = (kvType: KvType): Promise<number> =>
    withStories(async (model) => (await model.perplexity(tokens)).perplexity, { kvType })
  const exact = await perplexityOf('f32')
  // Each a little above what was measured. Three bits of mantissa cost most in a model whose heads have 8 elements.
  const most = { f32: 0, f16: 0.0005, bf16: 0.002, q8_0: 0.01, fp8: 0.3 }
  for (const kvType of kvTypeNames) {
    const difference = Math.abs((await perplexityOf(kvType)) - exact)
    assert.ok(difference <= most[kvType], `${kvType}: ${difference} from ${exact}`)
    if (kvType !== 'f32') assert.ok(difference > 0, `${kvType} rounds`)
  }
})

test('perplexity scores each token once, behind what its window holds', () =>
  withStories(async (model) => {
    const tokens = Array.from(model.tokenizer.encode(story, { bos: true })).slice(0, 150)
    const losses = async (from: number, to: number): Promise<number[]> => {
      const part = tokens.slice(from, to)
      const { data, vocabularySize } = await model.logits(part, { rows: 'all' })
      return part.slice(1).map((token, i) => {
        return -logProbabilities(data.subarray(i * vocabularySize, (i + 1) * vocabularySize))[token]!
      })
    }
    for (const [window, stride] of [
      [150, 150],
      [512, 3],
      [64, 64],
      [50, 20],
      [50, 49],
      [2, 2],
      [2, 1],
      [149, 149],
    ] as const) {
      const expected: number[] = []
      let scored = 1
      for (let from = 0; scored < tokens.length; from += stride) {
        const to = Math.min(tokens.length, from + window)
        const all = await losses(from, to)
        expected.push(...all.slice(Math.max(0, scored - 1 - from)))
        scored = stride === window ? to + 1 : to
      }
      const { meanLoss, tokens: count } = await model.perplexity(tokens, { window, stride })
      assert.is(count, expected.length, `window ${window}, stride ${stride}`)
      const mean = expected.reduce((sum, loss) => sum + loss, 0) / expected.length
      assertClose([meanLoss], [mean], 1e-5, `window ${window}, stride ${stride}`)
    }
  }))

test('logits of all rows end with those of the last', () =>
  withStories(async (model) => {
    const tokens = model.tokenizer.encode(story, { bos: true }).slice(0, 200)
    const all = await model.logits(tokens, { rows: 'all' })
    const last = await model.logits(tokens)
    assert.equal([all.rows, last.rows, all.vocabularySize], [200, 1, 512])
    assert.equal(last.data, all.data.slice(-512))
    const start = await model.logits(tokens.slice(0, 100))
    assert.equal(start.data, all.data.slice(99 * 512, 100 * 512))
  }))

test('a text gets BOS and no special tokens; tokens are taken as they are', () =>
  withStories(async (model) => {
    const options = { temperature: 0, maxTokens: 8 }
    for (const text of ['Once', '<s>', 'a </s> b', '']) {
      const tokens = [1, ...model.tokenizer.encode(text)]
      assert.is(tokens.lastIndexOf(1), 0)
      assert.not(tokens.includes(2))
      const { result } = await read(model.generate(text, options))
      assert.is(result.usage.promptTokens, tokens.length)
      for (const list of [tokens, Int32Array.from(tokens), { ...tokens, length: tokens.length }]) {
        assert.equal((await model.generate(list, options).result()).tokens, result.tokens, text)
      }
    }
    const bare = await model.generate([403], options).result()
    assert.is(bare.usage.promptTokens, 1, 'no BOS')
  }))

test('text goes on where the prompt ends', () =>
  withStories(async (model) => {
    const { result } = await read(model.generate('Once upon a', { temperature: 0, maxTokens: 20 }))
    assert.is(`Once upon a${result.text}`, golden.slice(0, 11 + result.text.length))
    assert.ok(result.text.startsWith(' time'))
  }))

/** What the options must lead to, token by token, by the reference sampler on the logits of each start. */
const assertFollows = async (options: GenerateOptions, prompt: readonly number[], window: number): Promise<void> => {
  await withStories(async (model) => {
    const { result } = await read(model.generate(prompt, { stopTokens: [], ...options }))
    const tokens = [...prompt]
    for (const [i, found] of result.tokens.entries()) {
      const { data } = await model.logits(tokens)
      const history = new Map<number, number>()
      for (const token of tokens.slice(Math.max(0, tokens.length - window))) {
        history.set(token, (history.get(token) ?? 0) + 1)
      }
      const parameters = {
        ...Object.fromEntries(Object.entries(options).filter(([name]) => name in plainSampling)),
        bias: Object.entries(options.logitBias ?? {}).map(([token, value]) => [Number(token), value] as const),
        history: [...history],
        seed: BigInt(options.seed ?? 0),
        counter: i,
        logprobs: false,
      }
      assert.is(found, draw(distribution(data, parameters)!, parameters), `token ${i} of ${JSON.stringify(options)}`)
      tokens.push(found)
    }
  })
}

const single: GenerateOptions[] = [
  { temperature: 1.7 },
  { temperature: 0.3 },
  { topK: 4 },
  { topP: 0.7 },
  { minP: 0.1 },
  { typicalP: 0.6 },
  { temperature: 0, repetitionPenalty: 1.4 },
  { temperature: 0, presencePenalty: 1.5 },
  { temperature: 0, frequencyPenalty: 0.8, penaltyWindow: 9 },
  { repetitionPenalty: 1.3, penaltyWindow: 3 },
  { frequencyPenalty: 1, penaltyWindow: 0 },
  { logitBias: { 403: 4, 261: -100 } },
]
for (const options of single) {
  test(`each token follows from its options: ${JSON.stringify(options)}`, () =>
    assertFollows({ maxTokens: 24, seed: 12, ...options }, [1, 403, 407], options.penaltyWindow ?? 1e9))
}

test('each token follows from its options, at random', async () => {
  const random = randomSource(8)
  for (let round = 0; round < 12; round++) {
    const maybe = <T>(value: T): [T] | [] => (random() < 0.5 ? [value] : [])
    const window = between(random, 0, 30)
    const entries = [
      ...maybe(['temperature', 0.3 + 1.5 * random()]),
      ...maybe(['topK', between(random, 2, 60)]),
      ...maybe(['topP', 0.5 + 0.5 * random()]),
      ...maybe(['minP', 0.1 * random()]),
      ...maybe(['typicalP', 0.4 + 0.6 * random()]),
      ...maybe(['repetitionPenalty', 1 + random()]),
      ...maybe(['presencePenalty', random()]),
      ...maybe(['frequencyPenalty', random()]),
      ...maybe(['logitBias', { [between(random, 3, 511)]: 8 * random() - 4 }]),
    ]
    const options = { ...Object.fromEntries(entries), penaltyWindow: window, seed: round, maxTokens: 15 }
    await assertFollows(options, [1, pick(random, [403, 300, 410])], window)
  }
})

test('log-probabilities are those of the model, not of what the options make of them', () =>
  withStories(async (model) => {
    const prompt = [1, 403, 407]
    for (const logprobs of [true, 0, 1, 20] as const) {
      const { items } = await read(
        model.generate(prompt, { maxTokens: 12, seed: 3, temperature: 2, topK: 30, presencePenalty: 1, logprobs }),
      )
      const tokens = [...prompt]
      for (const { token, logprob, topLogprobs } of items) {
        const expected = logProbabilities((await model.logits(tokens)).data)
        assertClose([logprob!], [expected[token]!], 2e-6, 'logprob', 1e-6)
        if (Number(logprobs) === 0 || logprobs === true) assert.is(topLogprobs, undefined)
        else {
          const best = Array.from(expected).sort((a, b) => b - a)
          assert.is(topLogprobs!.length, logprobs)
          topLogprobs!.forEach((top, i) => {
            assertClose([top.logprob], [best[i]!], 2e-6, `best ${i}`, 1e-6)
            assertClose([top.logprob], [expected[top.token]!], 2e-6, `best ${i}`, 1e-6)
            assert.is(top.text, Buffer.from(model.tokenizer.tokenBytes(top.token)).toString())
          })
        }
        tokens.push(token)
      }
    }
    const { items } = await read(model.generate(prompt, { maxTokens: 3, seed: 3 }))
    assert.equal(Object.keys(items[0]!), ['token', 'text'], 'nothing that was not asked for')
  }))

test('stop texts end the text before them, wherever tokens end', () =>
  withStories(async (model) => {
    const options = { temperature: 0, maxTokens: 60 }
    const { result: whole } = await read(model.generate('', options))
    const random = randomSource(4)
    for (let round = 0; round < 60; round++) {
      const from = between(random, 0, whole.text.length - 12)
      const stops = [whole.text.slice(from, from + between(random, 1, 12))]
      if (random() < 0.5) {
        const other = between(random, 0, whole.text.length - 5)
        stops.push(whole.text.slice(other, other + 4))
      }
      // Too early to be seen: the first place where any of them is whole.
      const { result } = await read(model.generate('', { ...options, stop: round % 2 === 0 ? stops : stops[0]! }))
      const wanted = round % 2 === 0 ? stops : stops.slice(0, 1)
      assert.is(result.finishReason, 'stop', JSON.stringify(wanted))
      for (const stop of wanted) assert.not(result.text.includes(stop), JSON.stringify(wanted))
      assert.ok(whole.text.startsWith(result.text))
      assert.ok(
        wanted.some((stop) => whole.text.startsWith(result.text + stop)),
        JSON.stringify(wanted),
      )
      assert.equal(result.tokens, whole.tokens.slice(0, result.tokens.length))
      // What could still become a stop text is not handed out.
    }
    const { result } = await read(model.generate('', { ...options, stop: ['never in it', ''.padEnd(999, 'x')] }))
    assert.is(result.text, whole.text, 'what was held back comes in the end')
    assert.is(result.finishReason, 'length')
  }))

test('stop tokens end the text and are no part of it', () =>
  withStories(async (model) => {
    const options = { temperature: 0, maxTokens: 60 }
    const { result: whole } = await read(model.generate('', options))
    for (const at of [0, 1, 17]) {
      const stop = whole.tokens[at]!
      const first = whole.tokens.indexOf(stop)
      const { result } = await read(model.generate('', { ...options, stopTokens: [511, stop] }))
      assert.equal(result.tokens, whole.tokens.slice(0, first))
      assert.is(result.finishReason, 'stop')
      assert.is(result.usage.completionTokens, first)
    }
  }))

test('a prompt as long as the context, and options that ask for nothing', () =>
  withStories(async (model) => {
    const full = new Int32Array(512).fill(1)
    const { result } = await read(model.generate(full, { temperature: 0 }))
    assert.equal([result.finishReason, result.text, result.usage.completionTokens], ['length', '', 0])
    const { result: none } = await read(model.generate('Once', { maxTokens: 0 }))
    assert.equal([none.finishReason, none.tokens], ['length', []])
    const { result: last } = await read(model.generate(full.slice(0, 510), { temperature: 0, stopTokens: [] }))
    assert.is(last.tokens.length, 2, 'up to the end of the context')
    assert.throws(() => model.generate(new Int32Array(513)), /E_RANGE.*513/)
  }))

test('timings: the prompt counts from its first step, the first token from the call', () =>
  withStories(
    async (model) => {
      const options = { temperature: 0, maxTokens: 100 }
      const [first, second] = await Promise.all([
        model.generate('Once', options).result(),
        model.generate('Lily', options).result(),
      ])
      for (const { timings } of [first, second]) {
        assert.ok(timings.promptMs > 0 && timings.completionMs > 0)
        assert.ok(timings.firstTokenMs >= timings.promptMs)
      }
      // Sequences run one by one here.
      const waited = second.timings.firstTokenMs - second.timings.promptMs
      assert.ok(waited >= first.timings.completionMs, `${waited} ms against ${first.timings.completionMs} ms`)
    },
    { maxSequences: 1 },
  ))

test.run()
