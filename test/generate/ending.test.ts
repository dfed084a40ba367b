/** How generations and calls end early: abort, leaving the loop, close; and what callers may do with their arrays. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { GeneratedToken, Generation } from '../../lib/generate/generation.js'
import type { LanguageModel } from '../../lib/generate/model.js'
import { withStories } from './models.js'

const greedy = { temperature: 0, stopTokens: [] }

/** A signal that knows how many listen to it. */
const countingSignal = (): { controller: AbortController; listeners: () => number } => {
  const controller = new AbortController()
  const { signal } = controller
  const present = new Set<unknown>()
  const [add, remove] = [signal.addEventListener.bind(signal), signal.removeEventListener.bind(signal)]
  signal.addEventListener = (type: string, listener: never, options?: never) => {
    present.add(listener)
    add(type, listener, options)
  }
  signal.removeEventListener = (type: string, listener: never, options?: never) => {
    present.delete(listener)
    remove(type, listener, options)
  }
  return { controller, listeners: () => present.size }
}

const codeOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'no error',
    (error) => error.code ?? String(error),
  )

const take = async (generation: Generation, count: number): Promise<GeneratedToken[]> => {
  const items: GeneratedToken[] = []
  for await (const item of generation) if (items.push(item) === count) break
  return items
}

const idle = async (model: LanguageModel): Promise<void> => {
  const { finishReason } = await model.generate('Once', { ...greedy, maxTokens: 3 }).result()
  assert.is(finishReason, 'length')
}

test('abort ends the iterator, and result() gives what there is', () =>
  withStories(async (model) => {
    const whole = await model.generate('Once', { ...greedy, maxTokens: 400 }).result()
    const { controller, listeners } = countingSignal()
    const generation = model.generate('Once', { ...greedy, maxTokens: 400, signal: controller.signal })
    assert.is(listeners(), 1)
    const items: GeneratedToken[] = []
    for await (const item of generation) if (items.push(item) === 20) controller.abort()
    const result = await generation.result()
    assert.is(result.finishReason, 'aborted')
    assert.ok(result.tokens.length >= 20 && result.tokens.length < 400)
    assert.equal(result.tokens, whole.tokens.slice(0, result.tokens.length))
    assert.equal(
      items.map(({ token }) => token),
      result.tokens,
    )
    assert.is(items.map(({ text }) => text).join(''), result.text)
    assert.is(listeners(), 0)
    await idle(model)
  }))

test('abort before the call, before the first step, and while waiting for others', () =>
  withStories(
    async (model) => {
      const before = model.generate('Once', { ...greedy, signal: AbortSignal.abort() })
      const controller = new AbortController()
      const first = model.generate('Once', { ...greedy, maxTokens: 100 })
      const waiting = model.generate('Lily', { ...greedy, signal: controller.signal })
      const early = new AbortController()
      const started = model.generate('Tom', { ...greedy, signal: early.signal })
      early.abort()
      await take(first, 5)
      controller.abort()
      for (const generation of [before, waiting, started]) {
        const { tokens, text, finishReason, usage, timings } = await generation.result()
        assert.equal([tokens, text, finishReason], [[], '', 'aborted'])
        assert.ok(usage.promptTokens > 1)
        assert.is(timings.promptMs, 0, 'nothing was computed')
        for await (const _ of generation) assert.unreachable()
      }
      await idle(model)
    },
    { maxSequences: 1 },
  ))

test('listeners go, however a generation ends', () =>
  withStories(async (model) => {
    const { controller, listeners } = countingSignal()
    const { signal } = controller
    const first = (await model.generate('Once', { ...greedy, maxTokens: 1 }).result()).tokens[0]!
    await model.generate('Once', { ...greedy, maxTokens: 3, signal }).result()
    await model.generate('Once', { ...greedy, maxTokens: 0, signal }).result()
    await model.generate('Once', { temperature: 0, stopTokens: [first], signal }).result()
    await model.generate('Once', { ...greedy, stop: ['a', 'e'], signal }).result()
    await take(model.generate('Once', { ...greedy, signal }), 2)
    assert.throws(() => model.generate('Once', { signal, topP: 2 }), /E_ARGUMENT/)
    await model.logits([1, 2], { signal })
    await model.perplexity([1, 2, 3], { signal })
    assert.is(await codeOf(model.logits([1, 999], { signal })), 'E_ARGUMENT')
    assert.is(listeners(), 0)
    const pending = model.generate('Once', { ...greedy, signal })
    const logits = model.logits([1, 2], { signal })
    assert.ok(listeners() >= 2)
    await model.close()
    assert.equal([await codeOf(pending.result()), await codeOf(logits)], ['E_CLOSED', 'E_CLOSED'])
    assert.is(listeners(), 0)
  }))

test('leaving the loop ends the production', () =>
  withStories(async (model) => {
    for (const count of [1, 10]) {
      const generation = model.generate('Once', { ...greedy, maxTokens: 500 })
      assert.is((await take(generation, count)).length, count)
      const { finishReason, tokens } = await generation.result()
      assert.is(finishReason, 'aborted')
      assert.ok(tokens.length < 400, `${tokens.length} tokens`)
    }
    const generation = model.generate('Once', { ...greedy, maxTokens: 500 })
    try {
      for await (const _ of generation) throw new Error('on purpose')
    } catch (error) {
      assert.match(String(error), /on purpose/)
    }
    assert.is((await generation.result()).finishReason, 'aborted')
    await idle(model)
  }))

test('one that nobody reads comes to its end', () =>
  withStories(async (model) => {
    const generation = model.generate('Once', { ...greedy, maxTokens: 50 })
    const { tokens } = await generation.result()
    assert.is(tokens.length, 50)
    assert.is((await take(generation, 99)).length, 50, 'and can be read behind it')
    assert.is(await generation.result(), await generation.result())
  }))

test('cancelling one of a batch leaves the bits of the others', () =>
  withStories(async (model) => {
    const options = { seed: 4, maxTokens: 120, logprobs: 3, stopTokens: [] }
    const prompts = ['Once', 'Lily and Tom', 'The big red ball']
    const read = async (generation: Generation): Promise<GeneratedToken[]> => take(generation, 1e9)
    const alone: GeneratedToken[][] = []
    for (const prompt of prompts) alone.push(await read(model.generate(prompt, options)))
    const controllers = [1, 2, 3, 4].map(() => new AbortController())
    const others = controllers.map(({ signal }, i) =>
      model.generate(`${i} `.repeat(50), { ...options, maxTokens: 300, signal }),
    )
    const together = prompts.map((prompt) => read(model.generate(prompt, options)))
    for (const [i, controller] of controllers.entries()) {
      await take(model.generate('A', { ...options, maxTokens: 10 + i }), 1e9)
      controller.abort()
    }
    assert.equal(await Promise.all(together), alone)
    for (const other of others) assert.is((await other.result()).finishReason, 'aborted')
  }))

test('other calls reject when aborted: before, while they wait, and at work', () =>
  withStories(async (model) => {
    const tokens = new Int32Array(500).fill(7)
    const many = new Int32Array(20_000).fill(7)
    const signal = AbortSignal.abort()
    assert.is(await codeOf(model.logits(tokens, { signal })), 'E_ABORTED')
    assert.is(await codeOf(model.perplexity(tokens, { signal })), 'E_ABORTED')
    for (const delay of [0, 1, 5, 20]) {
      const controller = new AbortController()
      const calls = [
        model.perplexity(many, { signal: controller.signal, stride: 16 }),
        model.perplexity(many, { signal: controller.signal, stride: 32 }),
      ].map(codeOf)
      const other = model.logits(tokens)
      setTimeout(() => controller.abort(), delay)
      assert.equal(await Promise.all(calls), ['E_ABORTED', 'E_ABORTED'])
      assert.is((await other).rows, 1)
    }
    await idle(model)
  }))

test('close ends everything in flight with E_CLOSED, once and for all', async () => {
  for (const delay of [0, 1, 10]) {
    await withStories(
      async (model) => {
        const generations = [1, 2, 3, 4].map(() => model.generate('Once', { ...greedy, maxTokens: 500 }))
        model.generate('nobody looks at this one', greedy)
        const iterating = generations.map((generation) => codeOf(take(generation, 1e9)))
        const many = new Int32Array(20_000).fill(7)
        const calls = [
          model.perplexity(many, { stride: 8 }),
          model.logits(many.subarray(0, 500), { rows: 'all' }).then(() => model.logits(many.subarray(0, 500))),
          ...Array.from({ length: 30 }, () => model.perplexity(many)),
        ].map(codeOf)
        await new Promise((resolve) => setTimeout(resolve, delay))
        const closing = model.close()
        assert.is(model.close(), closing, 'closing twice')
        await closing
        for (const code of await Promise.all([...iterating, ...calls])) assert.is(code, 'E_CLOSED')
        for (const generation of generations) assert.is(await codeOf(generation.result()), 'E_CLOSED')
        for (const call of [() => model.generate('Once'), () => model.chat([]), () => model.memoryUsage()]) {
          assert.throws(call, /E_CLOSED/)
        }
        assert.is(await codeOf(model.logits([1])), 'E_CLOSED')
        assert.is(await codeOf(model.perplexity([1, 2])), 'E_CLOSED')
        assert.ok(model.info.contextLength > 0)
        assert.ok(model.tokenizer.encode('still there').length > 0)
        await model[Symbol.asyncDispose]()
      },
      { maxSequences: 2 },
    )
  }
})

test('arrays are copied at the call, shared ones too', () =>
  withStories(async (model) => {
    const prompt = new Int32Array(new SharedArrayBuffer(400)).fill(1)
    prompt.set(model.tokenizer.encode('Once upon a time there was a dog', { bos: true }))
    const options = () => ({
      temperature: 0,
      maxTokens: 20,
      stop: ['never'],
      stopTokens: [510],
      logitBias: { 300: 1 },
      presencePenalty: 0.5,
    })
    const expected = await model.generate([...prompt], options()).result()
    const logits = await model.logits([...prompt])
    const loss = await model.perplexity([...prompt])
    const given = options()
    const pending = model.generate(prompt, given)
    const pendingLogits = model.logits(prompt)
    const pendingLoss = model.perplexity(prompt)
    prompt.fill(99)
    given.stop[0] = ' '
    given.stopTokens.push(...expected.tokens)
    given.logitBias[300] = 100
    given.maxTokens = 1
    assert.equal((await pending.result()).tokens, expected.tokens)
    assert.equal(await pendingLogits, logits)
    assert.equal(await pendingLoss, loss)
  }))

test.run()
