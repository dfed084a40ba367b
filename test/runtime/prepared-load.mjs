// Loads a model with the built package, draws some tokens, prints what the process knows of itself as a line of JSON, and
// stays until its input ends.
//
//   node test/runtime/prepared-load.mjs MODEL [FOLDER for prepared weights]
import { readFileSync } from 'node:fs'

const status = (name) =>
  Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(readFileSync('/proc/self/status', 'utf8'))[1]) * 1024

const { loadLanguageModel } = await import('../../dist/index.mjs')
const [path, preparedCache] = process.argv.slice(2)
const before = status('VmRSS')
const options = { contextLength: 256, maxSequences: 1 }
const model = await loadLanguageModel(path, preparedCache === undefined ? options : { ...options, preparedCache })
const peak = status('VmHWM') - before
const { tokens } = await model.generate([1, 2, 3], { maxTokens: 4, temperature: 0, stopTokens: [] }).result()
console.log(JSON.stringify({ isa: model.info.isa, tokens, memory: model.memoryUsage(), peak }))
for await (const _ of process.stdin) {
  // until it ends
}
await model.close()
