/** `drover perplexity`: how well a model predicts a text. */
import { readFile } from 'node:fs/promises'
import { DroverError } from '../../errors.js'
import { type Command, usageError } from '../command.js'
import { loadFrom, modelOptions } from '../load.js'
import { json, line, progress } from '../output.js'

export const perplexity: Command = {
  name: 'perplexity',
  usage: 'MODEL --file FILE',
  summary: 'How well a model predicts a text: nats per token and perplexity. The text starts with the model’s BOS.',
  options: {
    file: { type: 'string', short: 'f', value: 'FILE', help: 'the text' },
    window: { type: 'string', value: 'N', help: 'tokens per window; default: the context' },
    stride: { type: 'string', value: 'N', help: 'tokens from one window to the next; default: the window' },
    ...modelOptions,
  },
  positionals: [1, 1],
  run: async (args) => {
    const [path] = args.positionals as [string]
    const file = args.text('file')
    if (file === undefined) throw usageError('a text is needed', 'give --file FILE')
    const window = args.integer('window', 2)
    const stride = args.integer('stride', 1)
    const text = await readFile(file, 'utf8').catch((cause: unknown) => {
      throw new DroverError('E_IO', 'the text cannot be read', { file, cause })
    })
    const model = await loadFrom(path, args)
    const bar = progress('scoring')
    try {
      const result = await model.perplexity(model.tokenizer.encode(text, { bos: true }), {
        ...(window === undefined ? {} : { window }),
        ...(stride === undefined ? {} : { stride }),
        onProgress: (fraction) => bar.update(fraction),
      })
      bar.done()
      if (args.flag('json')) json(result)
      else
        line(
          `${result.meanLoss.toFixed(4)} nats per token, perplexity ${result.perplexity.toFixed(4)}, ${result.tokens} tokens`,
        )
    } finally {
      bar.done()
      await model.close()
    }
  },
}
