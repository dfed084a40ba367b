// node-llama-cpp as a user gets it: the prebuilt binary, CPU only, flash attention on.
import { readFileSync } from 'node:fs'
import { measure } from './measure.mjs'

const task = JSON.parse(process.argv[2])
const { version } = JSON.parse(readFileSync(new URL('node_modules/node-llama-cpp/package.json', import.meta.url)))

const adapter = {
  name: 'node-llama-cpp',
  version,
  open: async ({ path, threads, sequences, contextLength }) => {
    const { getLlama } = await import('node-llama-cpp')
    const llama = await getLlama({
      gpu: false,
      build: 'never',
      logLevel: 'disabled',
      progressLogs: false,
      maxThreads: 0,
    })
    const model = await llama.loadModel({ modelPath: path, gpuLayers: 0 })
    const context = await model.createContext({
      contextSize: contextLength,
      sequences,
      threads,
      batchSize: 512,
      flashAttention: true,
    })
    const idle = Array.from({ length: sequences }, () => context.getSequence())
    return {
      info: { threads, systemInfo: llama.systemInfo },
      async *tokens(prompt, count) {
        const sequence = idle.pop()
        try {
          await sequence.clearHistory()
          let written = 0
          for await (const token of sequence.evaluate(prompt, { temperature: 0, yieldEogToken: true })) {
            yield token
            if (++written === count) break
          }
        } finally {
          // Also when the consumer leaves its loop.
          idle.push(sequence)
        }
      },
      close: async () => {
        await context.dispose()
        await model.dispose()
      },
    }
  },
}

console.log(JSON.stringify(await measure(adapter, task)))
process.exit(0)
