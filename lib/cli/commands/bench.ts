/** `drover bench`: how fast a model runs here. */
import type { Command } from '../command.js'
import { loadFrom, modelOptions, speeds } from '../load.js'
import { json, line, table } from '../output.js'
import { model260K } from './demo.js'

const median = (values: number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1] as number

export const bench: Command = {
  name: 'bench',
  usage: '[MODEL]',
  summary:
    'Speed of a model on this machine. Prompt, generation, time to the first token: medians of several rounds. Without MODEL: the model of the demo.',
  options: {
    prompt: { type: 'string', value: 'N', help: 'tokens of the prompt; default 512' },
    generate: { type: 'string', value: 'N', help: 'tokens to write; default 64' },
    rounds: { type: 'string', value: 'N', help: 'default 3' },
    ...modelOptions,
  },
  positionals: [0, 1],
  run: async (args) => {
    const [path = model260K] = args.positionals
    const most = args.integer('rounds', 1, 1000) ?? 3
    const started = performance.now()
    const model = await loadFrom(path, args)
    const loadMs = performance.now() - started
    try {
      const { contextLength, vocabularySize, isa, threads } = model.info
      const written = args.integer('generate', 2, contextLength - 1) ?? Math.min(64, contextLength >> 1)
      const length = args.integer('prompt', 1, contextLength - written) ?? Math.min(512, contextLength - written)
      const rounds: ReturnType<typeof speeds>[] = []
      for (let round = 0; round < most; round++) {
        // Other tokens each time: a prompt that the cache holds would not be computed.
        const prompt = Array.from({ length }, (_, i) => (i * 7919 + round * 104729 + 3) % vocabularySize)
        const result = await model.generate(prompt, { maxTokens: written, temperature: 0, stopTokens: [] }).result()
        rounds.push(speeds(result))
      }
      const report = {
        model: path,
        isa,
        threads,
        promptTokens: length,
        generatedTokens: written,
        loadMs,
        promptPerSecond: median(rounds.map((round) => round.promptPerSecond)),
        generationPerSecond: median(rounds.map((round) => round.generationPerSecond ?? 0)),
        firstTokenMs: median(rounds.map((round) => round.firstTokenMs)),
      }
      if (args.flag('json')) json(report)
      else {
        line(
          table([
            ['instruction set', `${isa}, ${threads} threads`],
            ['load', `${loadMs.toFixed(0)} ms`],
            ['prompt', `${report.promptPerSecond.toFixed(1)} tokens/s (${length} tokens)`],
            ['generation', `${report.generationPerSecond.toFixed(1)} tokens/s (${written} tokens)`],
            ['first token', `${report.firstTokenMs.toFixed(1)} ms`],
          ]),
        )
      }
    } finally {
      await model.close()
    }
  },
}
