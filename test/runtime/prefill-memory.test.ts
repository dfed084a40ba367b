/** A long prompt is read in chunks: memory does not grow with its length, beyond the cache that holds it. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { withModel } from '../generate/models.js'
import { root } from '../support.js'
import { settledMegabytes } from './memory.js'

const length = 16384

test('a long prompt leaves memory flat', () =>
  withModel(
    `${root}/assets/stories260K.gguf`,
    { contextLength: length, maxSequences: 1, activations: 'f32' },
    async (model) => {
      const tokens = Int32Array.from({ length }, (_, i) => 3 + ((i * 7919) % 500))
      /** Largest growth of resident memory while a prompt of `count` tokens is read. */
      const growth = async (count: number): Promise<number> => {
        const before = await settledMegabytes()
        let most = 0
        const timer = setInterval(() => {
          most = Math.max(most, process.memoryUsage.rss() / 1e6 - before)
        }, 2)
        await model.logits(tokens.subarray(0, count))
        clearInterval(timer)
        return most
      }
      await growth(512) // arenas and stacks are touched
      const { kv = 0 } = model.memoryUsage()
      const first = await growth(length)
      // The scores of all pairs alone would be a gigabyte per head; arenas that follow the prompt, tens of megabytes.
      assert.ok(first < kv / 1e6 + 4, `${first.toFixed(1)} MB, of which ${(kv / 1e6).toFixed(1)} may be the cache`)
      const second = await growth(length)
      assert.ok(second < 4, `${second.toFixed(1)} MB once the cache is touched`)
    },
  ))

test.run()
