/** `drover quantize`: writes a model in another number format, and measures what that costs. */
import { readFile } from 'node:fs/promises'
import { folderFormats } from '../../convert/folder.js'
import { mixNames } from '../../convert/mixes.js'
import { type QuantizeModelOptions, type QuantizeModelReport, quantizeModel } from '../../convert/quantize.js'
import { recommenderTypes } from '../../convert/recommender.js'
import { DroverError } from '../../errors.js'
import { compareModels, type ModelComparison } from '../../generate/compare.js'
import { type LanguageModelOptions, loadLanguageModel } from '../../generate/model.js'
import { isRecommenderFolder } from '../../model/open-recommender.js'
import { type Arguments, type Command, usageError } from '../command.js'
import { bytes, count, json, line, note, progress, table } from '../output.js'

/** All types: GGUF takes the mixes, a folder those of its own. */
const typeNames = `${mixNames.join(', ')}; for a folder ${folderFormats.join(', ')}; for a recommender ${recommenderTypes.join(', ')}`

const optionsFrom = (args: Arguments, signal: AbortSignal): QuantizeModelOptions => {
  const type = args.text('type')
  if (type === undefined) throw usageError('a type is needed', `give --type T: ${typeNames}`)
  const options: QuantizeModelOptions = { type, signal }
  const importance = args.text('imatrix')
  const output = args.text('keep-output')
  const layers = args.text('layers')
  const threads = args.integer('threads', 1, 1024)
  if (importance !== undefined) options.importance = importance
  if (output !== undefined) options.output = output
  if (layers !== undefined) options.layers = layers
  if (threads !== undefined) options.threads = threads
  if (args.flag('pure')) options.pure = true
  return options
}

/** Runs source and result over a text. */
const compare = async (
  [source, result]: [string, string],
  text: string,
  args: Arguments,
  signal: AbortSignal,
): Promise<ModelComparison> => {
  const window = args.integer('window', 2)
  const threads = args.integer('threads', 1, 1024)
  const load: LanguageModelOptions = {
    maxSequences: 1,
    signal,
    ...(threads === undefined ? {} : { threads }),
    ...(window === undefined ? {} : { contextLength: window }),
  }
  const before = await loadLanguageModel(source, load)
  const bar = progress('comparing')
  try {
    const after = await loadLanguageModel(result, load)
    try {
      return await compareModels(before, after, before.tokenizer.encode(text, { bos: true }), {
        ...(window === undefined ? {} : { window }),
        onProgress: (fraction) => bar.update(fraction),
        signal,
      })
    } finally {
      await after.close()
    }
  } finally {
    bar.done()
    await before.close()
  }
}

const show = (path: string, report: QuantizeModelReport, seconds: number): void => {
  const rows = [
    ['file', path],
    ['weights', `${count(report.parameters)}, ${report.bitsPerWeight.toFixed(2)} bits each`],
    ['size', `${bytes(report.bytes)} of ${bytes(report.sourceBytes)}`],
    ...Object.entries(report.formats).map(([name, size]) => [name, bytes(size)]),
    ['time', `${seconds.toFixed(1)} s`],
  ]
  line(table(rows))
}

const showComparison = (found: ModelComparison): void => {
  line()
  line(
    table([
      ['divergence', `mean ${found.meanDivergence.toFixed(6)} nats over ${found.tokens} tokens`],
      ['', `median ${found.medianDivergence.toFixed(6)}, 99 % ${found.p99Divergence.toFixed(6)}`],
      ['same first token', `${(found.topAgreement * 100).toFixed(2)} %`],
      ['perplexity', `${found.perplexity.toFixed(4)}, source ${found.sourcePerplexity.toFixed(4)}`],
      ['ratio', found.perplexityRatio.toFixed(5)],
    ]),
  )
}

export const quantize: Command = {
  name: 'quantize',
  usage: 'IN OUT --type T',
  summary:
    'Writes a model in another number format: as a GGUF file, or a folder as a folder where OUT does not end in .gguf; a recommender as a folder. With --kld, what that costs: both models read a text, and their predictions are compared.',
  options: {
    type: { type: 'string', short: 't', value: 'T', help: typeNames },
    imatrix: { type: 'string', value: 'FILE', help: 'importance matrix of llama.cpp, .dat or .gguf' },
    'keep-output': { type: 'string', value: 'TYPE', help: 'number format of the head; default: what the type says' },
    layers: {
      type: 'string',
      value: 'TYPE',
      help: 'a recommender’s layers: f32, f16, bf16 or int8; default: as the tables',
    },
    pure: { type: 'boolean', help: 'every matrix in the same format' },
    threads: { type: 'string', value: 'N', help: 'workers; default: what the machine allows' },
    kld: { type: 'string', value: 'FILE', help: 'a text to compare source and result on' },
    window: { type: 'string', value: 'N', help: 'tokens of the text that are read at once; default 512' },
  },
  positionals: [2, 2],
  run: async (args) => {
    const [input, output] = args.positionals as [string, string]
    const stop = new AbortController()
    const options = optionsFrom(args, stop.signal)
    const file = args.text('kld')
    args.integer('window', 2)
    if (file !== undefined && (await isRecommenderFolder(input)))
      throw usageError('a recommender reads no text', 'leave --kld out')
    // Read first: a long conversion should not end in a text that is not there.
    const text =
      file === undefined
        ? undefined
        : await readFile(file, 'utf8').catch((cause: unknown) => {
            throw new DroverError('E_IO', 'the text cannot be read', { file, cause })
          })
    const interrupt = (): void => stop.abort()
    process.once('SIGINT', interrupt)
    const bar = progress('quantising')
    let written = false
    try {
      const started = performance.now()
      const report = await quantizeModel(input, output, { ...options, onProgress: (fraction) => bar.update(fraction) })
      written = true
      bar.done()
      const seconds = (performance.now() - started) / 1000
      for (const remark of report.notes) note(remark)
      if (!args.flag('json')) show(output, report, seconds)
      const comparison = text === undefined ? undefined : await compare([input, output], text, args, stop.signal)
      if (args.flag('json')) json({ source: input, file: output, type: options.type, ...report, seconds, comparison })
      else if (comparison !== undefined) showComparison(comparison)
    } catch (error) {
      if (!stop.signal.aborted) throw error
      bar.done()
      note(written ? `interrupted; ${output} is complete` : 'interrupted; nothing was left behind')
      process.exitCode = 130 // as a shell reports SIGINT
    } finally {
      bar.done()
      process.removeListener('SIGINT', interrupt)
    }
  },
}
