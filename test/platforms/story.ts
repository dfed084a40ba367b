/** Prints, as JSON, the greedy text of the model that comes with drover, and where it was made. */
import { join } from 'node:path'
import { loadLanguageModel } from '../../lib/index.js'
import { cpu } from '../../lib/kernels.js'

export interface Story {
  text: string
  isa: string
  threads: number
}

const main = async (): Promise<Story> => {
  const assets = join(__dirname, '..', 'node_modules', 'drover', 'assets')
  const model = await loadLanguageModel(join(assets, 'stories260K.gguf'))
  const { text } = await model.generate('', { temperature: 0, maxTokens: 200 }).result()
  await model.close()
  const { isa, threads } = cpu()
  return { text, isa, threads }
}

void main().then((story) => process.stdout.write(JSON.stringify(story)))
