// drover through its public API.
import { measure } from './measure.mjs'

const task = JSON.parse(process.argv[2])

const adapter = {
  name: 'drover',
  open: async ({ path, threads, sequences, contextLength }) => {
    const { loadLanguageModel, version } = await import('../../dist/index.mjs')
    adapter.version = version
    const cache = task.preparedCache === undefined ? {} : { preparedCache: task.preparedCache }
    const model = await loadLanguageModel(path, { threads, contextLength, maxSequences: sequences, ...cache })
    return {
      info: { threads: model.info.threads, isa: model.info.isa, reason: model.info.threadsReason },
      async *tokens(prompt, count) {
        for await (const { token } of model.generate(prompt, { maxTokens: count, temperature: 0, stopTokens: [] }))
          yield token
      },
      close: () => model.close(),
    }
  },
}

console.log(JSON.stringify(await measure(adapter, task)))
process.exit(0)
