/**
 * Prints what this process finds about its machine, as JSON; a script of its own because the facts are read once per
 * process. With a model's path (and a number of threads) it also generates, and tells which threads did the work.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { cpu } from '../../lib/device/cpu.js'
import type { CpuInfo } from '../../lib/device/native.js'
import { DroverError } from '../../lib/errors.js'
import { type LanguageModelInfo, loadLanguageModel } from '../../lib/generate/model.js'

export interface Facts {
  cpu?: CpuInfo
  error?: { code: string; message: string }
  model?: LanguageModelInfo
  text?: string
  /** Processor time that each of drover's threads took while generating, in nanoseconds. */
  busy?: { name: string; ns: number }[]
}

const droverThreads = (): Map<string, { name: string; ns: number }> => {
  const found = new Map<string, { name: string; ns: number }>()
  for (const id of readdirSync('/proc/self/task')) {
    const name = readFileSync(`/proc/self/task/${id}/comm`, 'utf8').trim()
    if (!name.startsWith('drover')) continue
    found.set(id, { name, ns: Number(readFileSync(`/proc/self/task/${id}/schedstat`, 'utf8').split(' ')[0]) })
  }
  return found
}

const main = async (): Promise<Facts> => {
  const [path, threads] = process.argv.slice(2)
  const facts: Facts = { cpu: cpu() }
  if (path === undefined) return facts
  const model = await loadLanguageModel(path, threads === undefined ? {} : { threads: Number(threads) })
  await model.generate('Once upon a time', { maxTokens: 1, temperature: 0 }).result()
  const before = droverThreads()
  const { text } = await model.generate('One day', { maxTokens: 100, temperature: 0, stopTokens: [] }).result()
  const busy = [...droverThreads()].map(([id, { name, ns }]) => ({ name, ns: ns - (before.get(id)?.ns ?? 0) }))
  const { info } = model
  await model.close()
  return { ...facts, model: info, text, busy }
}

main()
  .catch((error: unknown): Facts => {
    if (!(error instanceof DroverError)) throw error
    return { error: { code: error.code, message: error.message } }
  })
  .then((facts) => console.log(JSON.stringify(facts)))
