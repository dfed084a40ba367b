/** Bits do not depend on threads, on how a prompt is cut, on neighbours, or on which pages hold the cache. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { cpu } from '../../lib/device/cpu.js'
import type { ActivationMode, KvDType } from '../../lib/program/program.js'
import { fixture, randomSource } from '../support.js'
import { ModelRunner, type RunnerOptions, range } from './runner.js'

// More workers than this machine may have cores; read when the pool starts.
process.env.DROVER_THREADS = '8'

interface Case {
  model: string
  kvType: KvDType
  activations: ActivationMode
}

const cases: Case[] = [
  { model: 'llama3-8b-like-bf16', kvType: 'f32', activations: 'f32' },
  { model: 'llama-bias-hd80', kvType: 'f16', activations: 'auto' },
  { model: 'llama31-rope8-like', kvType: 'q8_0', activations: 'auto' },
  { model: 'llama3-8b-like-bf16', kvType: 'bf16', activations: 'bf16' },
  { model: 'llama-gguf-types/model.Q8_0.gguf', kvType: 'f16', activations: 'auto' },
  { model: 'llama-gguf-types/model.Q4_K.gguf', kvType: 'f8_e4m3', activations: 'auto' },
  { model: 'llama-gguf-types/model.Q4_K.gguf', kvType: 'q8_0', activations: 'auto' },
  { model: 'llama-gguf-q4km/model.Q4_K_M.gguf', kvType: 'f32', activations: 'auto' },
]

const length = 150
const tokensOf = (runner: ModelRunner, seed: number): number[] => {
  const random = randomSource(seed)
  return range(length).map(() => Math.floor(random() * runner.vocabulary))
}

const assertSame = (found: Float32Array, expected: Float32Array, what: string): void => {
  const bytes = (values: Float32Array): Buffer => Buffer.from(values.buffer, values.byteOffset, values.byteLength)
  assert.ok(bytes(found).equals(bytes(expected)), what)
}

/** Feeds the tokens in chunks; all logits. */
const chunked = async (
  runner: ModelRunner,
  tokens: readonly number[],
  chunkOf: (done: number) => number,
  pages: ArrayLike<number> = runner.pages,
): Promise<Float32Array> => {
  const out = new Float32Array(tokens.length * runner.vocabulary)
  for (let done = 0; done < tokens.length; ) {
    const chunk = tokens.slice(done, done + chunkOf(done))
    out.set(await runner.forward(chunk, { start: done, pages }), done * runner.vocabulary)
    done += chunk.length
  }
  return out
}

for (const { model, ...settings } of cases) {
  const name = `${model}, ${settings.kvType} cache, activations ${settings.activations}`
  const opened = async (options: RunnerOptions, body: (runner: ModelRunner) => Promise<void>): Promise<void> => {
    const runner = await ModelRunner.open(fixture(model), { ...settings, ...options })
    try {
      await body(runner)
    } finally {
      await runner.close()
    }
  }
  const reference = async (seed: number): Promise<Float32Array> => {
    let logits: Float32Array = new Float32Array()
    await opened({ threads: 1 }, async (runner) => {
      logits = await runner.forward(tokensOf(runner, seed))
    })
    return logits
  }

  test(`${name}: 1, 2, 3 and 8 threads`, async () => {
    assert.is(cpu().threads, 8)
    const expected = await reference(1)
    for (const threads of [2, 3, 8]) {
      await opened({ threads }, async (runner) => {
        const tokens = tokensOf(runner, 1)
        assertSame(await runner.forward(tokens), expected, `${threads} threads`)
        const decoded = await chunked(runner, tokens, (done) => (done === 0 ? length - 3 : 1))
        assertSame(decoded, expected, `${threads} threads, last tokens one by one`)
      })
    }
  })

  test(`${name}: any cut of the prompt, any pages`, async () => {
    const expected = await reference(2)
    await opened({ threads: 3, pages: 12 }, async (runner) => {
      const tokens = tokensOf(runner, 2)
      const random = randomSource(11)
      for (const size of [1, 2, 7, 16, 63, 64, 65, 149]) {
        assertSame(await chunked(runner, tokens, () => size), expected, `chunks of ${size}`)
      }
      for (const trial of range(6)) {
        const shuffled = range(12)
          .map((page) => ({ page, key: random() }))
          .sort((a, b) => a.key - b.key)
          .map(({ page }) => page)
        const found = await chunked(runner, tokens, () => 1 + Math.floor(random() * 40), shuffled.slice(0, 3))
        assertSame(found, expected, `random chunks ${trial}`)
      }
    })
  })

  test(`${name}: alone or beside others in one step`, async () => {
    const seeds = [3, 4, 5]
    const expected = await Promise.all(seeds.map(reference))
    await opened({ threads: 2, pages: 9, maxSequences: 3 }, async (runner) => {
      const tokens = seeds.map((seed) => tokensOf(runner, seed))
      const random = randomSource(5)
      const done = seeds.map(() => 0)
      const vocabulary = runner.vocabulary
      while (done.some((count) => count < length)) {
        // Prompts and single tokens of different sequences side by side, in changing order.
        const parts = seeds
          .map((_, s) => ({
            s,
            count: Math.min(length - (done[s] as number), random() < 0.3 ? 1 : Math.ceil(random() * 60)),
          }))
          .filter(({ count }) => count > 0 && random() < 0.8)
          .sort(() => random() - 0.5)
        if (parts.length === 0) continue
        const ids = parts.flatMap(({ s, count }) => (tokens[s] as number[]).slice(done[s], (done[s] as number) + count))
        await runner.loaded.run({
          tokens: ids,
          positions: parts.flatMap(({ s, count }) => range(count, done[s])),
          sequences: parts.map(({ s, count }) => ({
            rows: count,
            cacheStart: done[s] as number,
            pages: range(3, s * 3),
          })),
          outputRows: range(ids.length),
          endOp: runner.after('logits'),
        })
        const logits = runner.loaded.read(runner.role('logits'), 0, ids.length)
        let row = 0
        for (const { s, count } of parts) {
          const from = done[s] as number
          assertSame(
            logits.subarray(row * vocabulary, (row + count) * vocabulary),
            (expected[s] as Float32Array).subarray(from * vocabulary, (from + count) * vocabulary),
            `sequence ${s}, positions ${from} to ${from + count}`,
          )
          row += count
          done[s] = from + count
        }
      }
    })
  })
}

test.run()
