/** Twenty worker threads with a model each, again and again: none crashes, and memory stops growing. */
import { Worker } from 'node:worker_threads'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { root } from '../support.js'
import { median, settledMegabytes } from './memory.js'

const workers = 20
const rounds = 24

// The built package: a worker does not inherit the loader that runs these tests.
const program = `
  const { parentPort } = require('node:worker_threads')
  const { loadLanguageModel } = require(${JSON.stringify(`${root}/dist/index.js`)})
  const main = async () => {
    const model = await loadLanguageModel(${JSON.stringify(`${root}/assets/stories260K.gguf`)}, {
      contextLength: 256, maxSequences: 1, threads: 2,
    })
    const { text } = await model.generate('Once upon a time', { temperature: 0, maxTokens: 16 }).result()
    await model.close()
    parentPort.postMessage(text)
  }
  main()
`

const runWorker = (): Promise<string> =>
  new Promise((resolve, reject) => {
    const worker = new Worker(program, { eval: true })
    let text: string | undefined
    worker.on('message', (message: string) => {
      text = message
    })
    worker.on('error', reject)
    worker.on('exit', (code) => {
      if (code === 0 && text !== undefined) resolve(text)
      else reject(new Error(`a worker ended with ${code}, ${text === undefined ? 'without a text' : 'too late'}`))
    })
  })

test('worker threads with a model each write the same text and leave memory flat', async () => {
  const sizes: number[] = []
  const texts = new Set<string>()
  for (let round = 0; round < rounds; round++) {
    for (const text of await Promise.all(Array.from({ length: workers }, runWorker))) texts.add(text)
    sizes.push(await settledMegabytes())
  }
  assert.is(texts.size, 1, [...texts].join('\n'))
  const half = rounds / 2
  const growth = median(sizes.slice(-half / 2)) - median(sizes.slice(half, half * 1.5))
  assert.ok(growth < 1, `${growth.toFixed(2)} MB in the second half: ${sizes.map((size) => size.toFixed(1)).join(' ')}`)
})

test.run()
