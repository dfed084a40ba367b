// Twenty worker threads with a model each, round after round, with the built package: prints the texts that they wrote and
// the resident megabytes after each round of the second half, as JSON.
//
//   node --expose-gc test/runtime/worker-rounds.mjs ROUNDS
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { isMainThread, parentPort, Worker } from 'node:worker_threads'

const file = fileURLToPath(import.meta.url)
const model = fileURLToPath(new URL('../../assets/stories260K.gguf', import.meta.url))

const work = async () => {
  const { loadLanguageModel } = await import('../../dist/index.mjs')
  const loaded = await loadLanguageModel(model, { contextLength: 256, maxSequences: 1, threads: 2 })
  const { text } = await loaded.generate('Once upon a time', { temperature: 0, maxTokens: 16 }).result()
  await loaded.close()
  parentPort.postMessage(text)
}

const run = () =>
  new Promise((resolve, reject) => {
    const worker = new Worker(file)
    let text
    worker.on('message', (message) => {
      text = message
    })
    worker.on('error', reject)
    worker.on('exit', (code) => {
      if (code === 0 && text !== undefined) resolve(text)
      else reject(new Error(`a worker ended with ${code} and ${text === undefined ? 'no' : 'a'} text`))
    })
  })

const main = async () => {
  const texts = new Set()
  const sizes = []
  const rounds = Number(process.argv[2])
  for (let round = 0; round < rounds; round++) {
    for (const text of await Promise.all(Array.from({ length: 20 }, run))) texts.add(text)
    if (round < rounds / 2) continue
    for (let i = 0; i < 5; i++) {
      globalThis.gc()
      await sleep(60)
    }
    sizes.push(process.memoryUsage.rss() / 1e6)
  }
  console.log(JSON.stringify({ texts: [...texts], sizes }))
}

await (isMainThread ? main() : work())
