/** Memory after many loads: what grows at first (V8's heap, allocator pools) must stop growing. */
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { loadLanguageModel } from '../../lib/generate/model.js'
import { root } from '../support.js'
import { settledMegabytes } from './memory.js'

const path = join(root, 'assets', 'stories260K.gguf')

test('a thousand loads and closes leave memory flat', async () => {
  const sizes: number[] = []
  for (let i = 1; i <= 1000; i++) {
    const model = await loadLanguageModel(path, { contextLength: 256, maxSequences: 1 })
    await model.close()
    if (i % 25 === 0) sizes.push(await settledMegabytes())
  }
  // The middle tenths of the run against the last ones. What V8 keeps for a while comes and goes by some MB; a leak stays,
  // and lifts the least of them too.
  const growth = Math.min(...sizes.slice(-8)) - Math.min(...sizes.slice(16, 24))
  assert.ok(growth < 1, `${growth.toFixed(2)} MB from the middle on: ${sizes.map((size) => size.toFixed(1)).join(' ')}`)
})

test.run()
