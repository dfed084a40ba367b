/** Twenty worker threads with a model each, again and again: none crashes, and memory stops growing. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { root } from '../support.js'

const rounds = 80 // heaps and caches reach their largest in the first half
/** One heap for all threads, which gives back what is free: else what dead threads leave behind changes by megabytes. */
const tidyHeap = { MALLOC_ARENA_MAX: '1', MALLOC_TRIM_THRESHOLD_: '65536', MALLOC_MMAP_THRESHOLD_: '65536' }

test('worker threads with a model each write the same text and leave memory flat', () => {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['--expose-gc', join(root, 'test', 'runtime', 'worker-rounds.mjs'), String(rounds)],
    { encoding: 'utf8', env: { ...process.env, ...tidyHeap }, timeout: 1_200_000, killSignal: 'SIGKILL' },
  )
  assert.is(status, 0, stderr)
  const { texts, sizes } = JSON.parse(stdout) as { texts: string[]; sizes: number[] }
  assert.is(texts.length, 1, texts.join('\n'))
  assert.is(sizes.length, rounds / 2)
  // The least of some rounds: what threads have not yet given back comes on top, what leaks lies below. And the median of
  // what each quarter adds to the one before: a leak adds to all of them, a heap that takes another block to one. (Such
  // blocks have 1 to 1.5 MB.)
  const quarter = rounds / 8
  const least = [0, 1, 2, 3].map((i) => Math.min(...sizes.slice(i * quarter, (i + 1) * quarter)))
  const added = least.slice(1).map((size, i) => size - (least[i] as number))
  const [, median = 0, most = 0] = added.sort((a, b) => a - b)
  const shown = sizes.map((size) => size.toFixed(1)).join(' ')
  assert.ok(2 * median < 1, `${(2 * median).toFixed(2)} MB per half: ${shown}`)
  assert.ok(most < 3, `${most.toFixed(2)} MB at once: ${shown}`)
})

test.run()
