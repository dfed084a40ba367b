/** `drover demo`: the models in the package write a story and rank dishes. */
import { join } from 'node:path'
import type { Command } from '../command.js'
import { loadFrom, modelOptions, samplingFrom, samplingOptions, speeds } from '../load.js'
import { json, line, table, write } from '../output.js'
import { rankDishes, rankingText } from '../ranking.js'

/** stories260K: 260 thousand parameters, trained on TinyStories; part of the package. */
export const model260K = join(__dirname, '..', '..', '..', 'assets', 'stories260K.gguf')

export const demo: Command = {
  name: 'demo',
  usage: '',
  summary:
    'A small model writes a story, another ranks dishes for somebody. Shows the speed and what was chosen for this machine.',
  options: {
    prompt: { type: 'string', short: 'p', value: 'TEXT', help: 'how the story begins' },
    person: { type: 'string', value: 'NAME', help: 'for whom dishes are ranked' },
    ...samplingOptions,
    ...modelOptions,
  },
  positionals: [0, 0],
  run: async (args) => {
    const ranking = await rankDishes(args)
    const model = await loadFrom(model260K, args)
    try {
      const prompt = args.text('prompt') ?? 'Once upon a time'
      if (!args.flag('json')) write(prompt)
      const generation = model.generate(prompt, { maxTokens: 200, temperature: 0.7, topP: 0.9, ...samplingFrom(args) })
      for await (const { text } of generation) if (!args.flag('json')) write(text)
      const result = await generation.result()
      const { isa, threads, threadsReason, parameters } = model.info
      const speed = speeds(result)
      if (args.flag('json'))
        json({ prompt, text: result.text, isa, threads, threadsReason, ...speed, usage: result.usage, ranking })
      else {
        line('\n')
        line(
          table([
            ['model', `stories260K, ${parameters} parameters`],
            ['prompt', `${speed.promptPerSecond.toFixed(0)} tokens/s (${result.usage.promptTokens} tokens)`],
            [
              'generation',
              `${speed.generationPerSecond?.toFixed(0) ?? '-'} tokens/s (${result.usage.completionTokens} tokens)`,
            ],
            ['first token', `after ${speed.firstTokenMs.toFixed(1)} ms`],
            ['instruction set', isa],
            ['threads', `${threads}: ${threadsReason}`],
          ]),
        )
        line(`\n${rankingText(ranking)}`)
      }
    } finally {
      await model.close()
    }
  },
}
