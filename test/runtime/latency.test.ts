/**
 * The event loop stays free while a model computes, and an abort takes effect at once: measured on a model of the
 * shape of Llama 3.2 1B. Other processes can only add to a time, so each measurement is repeated and its median counts.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { monitorEventLoopDelay, performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { writeModel } from '../../bench/peers/model.mjs'
import type { DroverError } from '../../lib/errors.js'
import { type LanguageModel, loadLanguageModel } from '../../lib/generate/model.js'
import { withBytesModel } from '../generate/models.js'
import { ModelRunner, range } from '../model/runner.js'
import { randomSource } from '../support.js'

const prefillTokens = 512
const vocabulary = 128_256
const abortMs = 50
const random = randomSource(1)

/** Prompts share no prefix: none is found in the cache. */
const prompt = (length: number): number[] =>
  Array.from({ length }, () => 300 + Math.floor(random() * (vocabulary - 300)))

const sorted = (values: readonly number[]): number[] => [...values].sort((a, b) => a - b)
const quantile = (values: readonly number[], share: number): number =>
  sorted(values)[Math.min(values.length - 1, Math.floor(values.length * share))] as number
const median = (values: readonly number[]): number => quantile(values, 0.5)
const show = (values: readonly number[]): string =>
  sorted(values)
    .map((value) => value.toFixed(1))
    .join(' ')

const report = (what: string, values: readonly number[]): void => console.log(`    ${what}: ${show(values)} ms`)

const folder = mkdtempSync(join(tmpdir(), 'drover-'))
process.on('exit', () => rmSync(folder, { recursive: true }))
const path = join(folder, '1b.gguf')

const device = suite('aborts on the device')

device.before(() => writeModel(path, '1b', 'Q4_0'))

/** Milliseconds from abort() until the step has rejected, which is when the device takes the next one. */
const timeAbort = async (runner: ModelRunner, tokens: number[], start: number, afterMs: number): Promise<number> => {
  const step = { ...runner.step(tokens, { start, outputRows: [tokens.length - 1] }), endOp: runner.after('logits') }
  const running = runner.loaded.run(step).then(
    () => 'ran to its end',
    (error: DroverError) => error.code,
  )
  await sleep(afterMs)
  const at = performance.now()
  runner.loaded.abort()
  assert.is(await running, 'E_ABORTED')
  return performance.now() - at
}

const timeStep = async (runner: ModelRunner, tokens: number[], start: number): Promise<number> => {
  const at = performance.now()
  await runner.forward(tokens, { start, outputRows: [tokens.length - 1] })
  return performance.now() - at
}

device('a step ends within 50 ms of its abort, long or short', async () => {
  const runner = await ModelRunner.open(path, { kvType: 'f16', activations: 'auto', maxRows: prefillTokens, pages: 16 })
  try {
    const prefill = median([await timeStep(runner, prompt(prefillTokens), 0), await timeStep(runner, prompt(512), 0)])
    const decodes: number[] = []
    for (const i of range(5)) decodes.push(await timeStep(runner, prompt(1), prefillTokens + i))
    const decode = median(decodes)
    report('prefill of 512 tokens, one decoded token', [prefill, decode])
    const inPrefill: number[] = []
    const inDecode: number[] = []
    for (const i of range(12)) {
      inPrefill.push(await timeAbort(runner, prompt(prefillTokens), 0, (prefill * (i + 0.5)) / 16))
      inDecode.push(await timeAbort(runner, prompt(1), prefillTokens, Math.floor((decode * i) / 24)))
    }
    report('abort in prefill', inPrefill)
    report('abort in decode', inDecode)
    assert.ok(quantile(inPrefill, 0.9) < abortMs, `in prefill: ${show(inPrefill)}`)
    assert.ok(quantile(inDecode, 0.9) < abortMs, `in decode: ${show(inDecode)}`)
  } finally {
    await runner.close()
  }
})

interface ModelContext {
  model: LanguageModel
}

const loop = suite<ModelContext>('a model of 1B')

loop.before(async (context) => {
  context.model = await loadLanguageModel(path, { contextLength: 2048, maxSequences: 2 })
})

loop.after(async ({ model }) => {
  await model?.close()
})

loop('the delay of the event loop stays under 5 ms (p99) while 512 tokens are prefilled', async ({ model }) => {
  const delays: number[] = []
  for (let round = 0; round < 5; round++) {
    const tokens = prompt(prefillTokens)
    await sleep(20)
    const histogram = monitorEventLoopDelay({ resolution: 1 })
    histogram.enable()
    const { timings, usage } = await model.generate(tokens, { maxTokens: 1, temperature: 0 }).result()
    histogram.disable()
    assert.is(usage.promptTokens, prefillTokens)
    assert.is(usage.cachedTokens, 0)
    // One sample per millisecond, or nearly: the histogram has seen the whole of the prefill.
    assert.ok(histogram.count > timings.promptMs / 5, `${histogram.count} samples in ${timings.promptMs} ms`)
    delays.push(histogram.percentile(99) / 1e6)
  }
  report('event loop delay, p99', delays)
  assert.ok(median(delays) < 5, show(delays))
})

/** Milliseconds until a generation of one token has ended: the device must be free for it to begin. */
const timeToken = async (model: LanguageModel): Promise<number> => {
  const at = performance.now()
  const { finishReason } = await model.generate([5], { maxTokens: 1, temperature: 0, stopTokens: [] }).result()
  assert.is(finishReason, 'length')
  return performance.now() - at
}

/** Aborts a generation when `ready` has resolved; gives the times until its result and until another has ended. */
const abortGeneration = async (
  model: LanguageModel,
  length: number,
  ready: (tokens: AsyncIterator<unknown>) => Promise<unknown>,
): Promise<{ result: number; next: number }> => {
  const controller = new AbortController()
  const { signal } = controller
  const generation = model.generate(prompt(length), { maxTokens: 1000, temperature: 0, stopTokens: [], signal })
  await ready(generation[Symbol.asyncIterator]())
  const at = performance.now()
  controller.abort()
  const { finishReason } = await generation.result()
  const result = performance.now() - at
  assert.is(finishReason, 'aborted')
  await timeToken(model)
  return { result, next: performance.now() - at }
}

loop('an aborted generation ends within 50 ms, and the next one begins', async ({ model }) => {
  const alone: number[] = []
  for (const _ of range(5)) alone.push(await timeToken(model))
  report('a token alone', alone)
  const { timings } = await model.generate(prompt(prefillTokens), { maxTokens: 1 }).result()
  const inPrefill: { result: number; next: number }[] = []
  const inDecode: { result: number; next: number }[] = []
  for (const i of range(8)) {
    inPrefill.push(await abortGeneration(model, prefillTokens, () => sleep((timings.promptMs * (i + 0.5)) / 12)))
    inDecode.push(
      await abortGeneration(model, 16, async (tokens) => {
        for (const _ of range(3)) await tokens.next()
        await sleep((median(alone) * i) / 12)
      }),
    )
  }
  for (const [what, times] of [
    ['in prefill', inPrefill],
    ['in decode', inDecode],
  ] as const) {
    const results = times.map(({ result }) => result)
    const begun = times.map(({ next }) => next - median(alone))
    report(`abort ${what} until its result`, results)
    report(`abort ${what} until the next generation, less its own time`, begun)
    assert.ok(quantile(results, 0.9) < abortMs, `${what}, result: ${show(results)}`)
    assert.ok(quantile(begun, 0.8) < abortMs, `${what}, next: ${show(begun)}`)
  }
})

const sampling = suite('32 rows of 128,256 logits')

sampling('a step of 32 draws holds the event loop for less than 2 ms', async () => {
  const steps = 120
  const run = async (model: LanguageModel): Promise<number[]> => {
    const generate = (seed: number) =>
      model.generate(prompt(4), {
        maxTokens: steps,
        temperature: 1,
        topP: 0.95,
        topK: 0,
        minP: 0.01,
        seed,
        stopTokens: [],
      })
    const generations = range(32).map(generate)
    const held: number[] = []
    let before = performance.eventLoopUtilization()
    // The first generation's tokens come once per step: time between them that the loop did not sleep is JavaScript's.
    for await (const _ of generations[0]!) {
      const now = performance.eventLoopUtilization()
      held.push(performance.eventLoopUtilization(now, before).active)
      before = now
    }
    for (const generation of generations) assert.is((await generation.result()).tokens.length, steps)
    return held
  }
  // One thread computes: with one on each core the system may take the core from the event loop, which is not measured here.
  const settings = { contextLength: 256, maxSequences: 32, threads: 1 }
  await withBytesModel({ shape: { vocabulary } }, settings, async (model) => {
    await run(model) // compiles
    globalThis.gc?.() // what building the model left behind is not collected in a step
    const held = (await run(model)).slice(8) // the first steps read prompts
    report(
      'event loop held per step, median, p90 and most',
      [0.5, 0.9, 1].map((share) => quantile(held, share)),
    )
    assert.ok(held.length >= steps - 10)
    assert.ok(quantile(held, 0.9) < 2, show(held))
  })
})

device.run()
loop.run()
sampling.run()
