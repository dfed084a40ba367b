/** `drover generate`: continues a prompt. */
import { readFile } from 'node:fs/promises'
import { DroverError } from '../../errors.js'
import { type Command, usageError } from '../command.js'
import { loadFrom, modelOptions, samplingFrom, samplingOptions, speeds } from '../load.js'
import { dim, json, line, note, write } from '../output.js'

export const generate: Command = {
  name: 'generate',
  usage: 'MODEL -p TEXT | --prompt-file FILE',
  summary: 'Continues a prompt. With --json: one object per token, then one for the whole.',
  options: {
    prompt: { type: 'string', short: 'p', value: 'TEXT', help: 'the prompt' },
    'prompt-file': { type: 'string', value: 'FILE', help: 'the prompt is in a file' },
    ...samplingOptions,
    ...modelOptions,
  },
  positionals: [1, 1],
  run: async (args) => {
    const [path] = args.positionals as [string]
    const file = args.text('prompt-file')
    if ((args.text('prompt') === undefined) === (file === undefined))
      throw usageError('a prompt is needed', 'give -p TEXT or --prompt-file FILE')
    const prompt =
      args.text('prompt') ??
      (await readFile(file as string, 'utf8').catch((cause: unknown) => {
        throw new DroverError('E_IO', 'the prompt cannot be read', { file: file as string, cause })
      }))
    const options = samplingFrom(args)
    const model = await loadFrom(path, args)
    const stop = new AbortController()
    const interrupt = (): void => stop.abort()
    process.once('SIGINT', interrupt)
    try {
      const generation = model.generate(prompt, { ...options, signal: stop.signal })
      for await (const item of generation) {
        if (args.flag('json')) json(item)
        else write(item.text)
      }
      const result = await generation.result()
      if (result.finishReason === 'aborted') process.exitCode = 130 // as a shell reports SIGINT
      if (args.flag('json')) json({ ...result, ...speeds(result) })
      else {
        line()
        const { promptPerSecond, generationPerSecond, firstTokenMs } = speeds(result)
        const speed = generationPerSecond === null ? '' : `, ${generationPerSecond.toFixed(1)} tokens/s`
        note(
          dim(
            `${result.usage.promptTokens} prompt tokens at ${promptPerSecond.toFixed(1)}/s, first token after ${firstTokenMs.toFixed(0)} ms; ${result.usage.completionTokens} tokens${speed}; ${result.finishReason}`,
          ),
        )
      }
    } finally {
      process.removeListener('SIGINT', interrupt)
      await model.close()
    }
  },
}
