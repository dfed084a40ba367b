/** `drover validate`: a recommender in two precisions over labelled requests, and what to keep in the higher one. */
import { recommenderTypes } from '../../convert/recommender.js'
import { layerFormats } from '../../model/open-recommender.js'
import { checkNewFile, writeNewFile } from '../../recommend/new-file.js'
import { decibels, errorText, formatIn, percentText, reportHtml } from '../../recommend/report-html.js'
import { validateRecommender } from '../../recommend/validate.js'
import type { ValidatedNet, ValidateOptions, ValidationChoice, ValidationReport } from '../../recommend/validation.js'
import { type Arguments, type Command, usageError } from '../command.js'
import { json, line, note, noteOutOfRange, progress, table, toJson } from '../output.js'

const texts = { against: 'against', type: 'type', layers: 'layers', output: 'output', indices: 'indices' } as const

const optionsFrom = (args: Arguments, signal: AbortSignal): ValidateOptions => {
  const data = args.text('data')
  if (data === undefined)
    throw usageError('labelled requests are needed', 'give --data FILE, as drover rank reads it, with "label"')
  const given = Object.entries(texts).flatMap(([name, option]) => {
    const text = args.text(name)
    return text === undefined ? [] : [[option, text]]
  })
  const options: ValidateOptions = { data, signal, ...Object.fromEntries(given) }
  const threads = args.integer('threads', 1, 1024)
  const budget = args.number('budget', 0)
  if (threads !== undefined) options.threads = threads
  if (budget !== undefined) options.budget = budget / 100
  if (args.flag('choose')) options.choose = true
  if (args.flag('force')) options.overwrite = true
  if (options.output !== undefined && !args.flag('choose'))
    throw usageError('there is nothing to write', 'give --choose beside --output')
  return options
}

const qualityRows = (nets: readonly (readonly [string, ValidatedNet])[]): string[][] => [
  ['', 'AUC', 'log loss', 'NE'],
  ...nets.map(([name, { auc, logLoss, normalizedEntropy }]) => [
    name,
    ...[auc, logLoss, normalizedEntropy].map((value) => value.toFixed(6)),
  ]),
]

const changeRow = (name: string, { change }: Pick<ValidationReport, 'change'>): string[] => [
  name,
  ...[change.auc, change.logLoss, change.normalizedEntropy].map(
    (value) => `${value < 0 ? '' : '+'}${value.toFixed(6)}`,
  ),
  `NE ${percentText(change.relativeNormalizedEntropy)}`,
]

const show = (report: ValidationReport): void => {
  const { reference, result, layers, tables, choice } = report
  const formats = (kind: 'tables' | 'layers', name: string | undefined): string => {
    if (name === undefined) return ''
    const [from, to] = [formatIn(reference.quantization, kind, name), formatIn(result.quantization, kind, name)]
    return from === to ? from : `${from} → ${to}`
  }
  line(`${report.rows} rows, ${report.positives} positive (${(report.baseRate * 100).toFixed(2)} %)`)
  line()
  line(
    table([
      ['layer', 'SQNR, dB', 'max error', 'formats'],
      ...layers.map(({ name, role, module, sqnr, maxError }) => [
        role === undefined || role === name ? name : `${name} (${role})`,
        decibels(sqnr),
        errorText(maxError),
        formats('layers', module),
      ]),
      ...tables.map(({ name, sqnr, maxError }) => [
        `table ${name}`,
        decibels(sqnr),
        errorText(maxError),
        formats('tables', name),
      ]),
    ]),
  )
  line()
  line(
    table([
      ...qualityRows([
        ['reference', reference],
        ['judged', result],
      ]),
      changeRow('difference', report),
      ...(choice === undefined
        ? []
        : [...qualityRows([['chosen', choice.result]]).slice(1), changeRow('difference', choice)]),
    ]),
  )
  if (choice !== undefined) showChoice(choice)
}

const showChoice = ({ parts, kept, budget, output, result, change }: ValidationChoice): void => {
  line()
  line(
    table([
      ['part', '', 'NE when it alone is quantised', 'chosen'],
      ...parts.map(({ kind, name, from, to, change, kept: keeps }) => [
        name,
        kind,
        percentText(change),
        keeps ? from : to,
      ]),
    ]),
  )
  line()
  const isWithin = change.relativeNormalizedEntropy <= budget
  const outcome = `${isWithin ? 'within' : 'not within'} ${(budget * 100).toFixed(4)} %`
  line(`NE ${outcome}: ${kept.length} of ${parts.length} parts keep their precision`)
  line(output === undefined ? `"quantization": ${toJson(result.quantization)}` : `written: ${output}`)
}

export const validate: Command = {
  name: 'validate',
  usage: 'MODEL --data FILE',
  summary:
    'Runs a recommender in two precisions over labelled requests (lines as drover rank reads them, with "label": [0 or 1 per row]): SQNR and largest error of each layer; AUC, log loss and normalised entropy (NE) of both. The reference is --against, or the same weights as the files hold them. With --choose, which tables and layers must keep their precision for NE to stay within --budget.',
  options: {
    data: { type: 'string', short: 'd', value: 'FILE', help: 'a labelled request per line' },
    against: { type: 'string', value: 'MODEL', help: 'the model that counts as right' },
    type: {
      type: 'string',
      short: 't',
      value: 'T',
      help: `judge tables as ${recommenderTypes.join(', ')}; default: as the config says, and int8 where it says nothing`,
    },
    layers: {
      type: 'string',
      value: 'TYPE',
      help: `judge layers as ${layerFormats.join(', ')}; default: as --type, or as the config says`,
    },
    choose: { type: 'boolean', help: 'find what must keep its precision' },
    budget: {
      type: 'string',
      value: 'PERCENT',
      help: 'most that NE may grow, relatively; default 0.02. Without --choose: more is a failure',
    },
    output: {
      type: 'string',
      short: 'o',
      value: 'OUT',
      help: 'write the choice: a config (OUT.json), or a new folder with the weights',
    },
    report: { type: 'string', value: 'FILE', help: 'write everything as JSON' },
    html: { type: 'string', value: 'FILE', help: 'write everything as a page with charts' },
    force: { type: 'boolean', help: 'replace files that exist' },
    indices: { type: 'string', value: 'POLICY', help: 'out of range: error (default), skip or clamp' },
    threads: { type: 'string', value: 'N', help: 'workers of each step; default: what the machine allows' },
  },
  positionals: [1, 1],
  run: async (args) => {
    const [path] = args.positionals as [string]
    const stop = new AbortController()
    const options = optionsFrom(args, stop.signal)
    const overwrite = args.flag('force')
    const files = [
      ['report', (report: ValidationReport) => `${toJson(report)}\n`],
      ['html', reportHtml],
    ] as const
    for (const [name] of files) {
      const file = args.text(name)
      if (file !== undefined && !overwrite) await checkNewFile(`--${name}`, file)
    }
    const interrupt = (): void => stop.abort()
    process.once('SIGINT', interrupt)
    const bar = progress('validating')
    let validated = false
    try {
      const report = await validateRecommender(path, { ...options, onProgress: (fraction) => bar.update(fraction) })
      validated = true
      bar.done()
      for (const [name, text] of files) {
        const file = args.text(name)
        if (file !== undefined) await writeNewFile(`--${name}`, file, text(report), overwrite)
      }
      if (args.flag('json')) json(report)
      else show(report)
      noteOutOfRange(report, args.flag('json'))
      const { relativeNormalizedEntropy: change } = (report.choice ?? report).change
      const { budget } = report.choice ?? options
      if (budget === undefined || change <= budget) return
      note(`NE has grown by ${percentText(change)}, more than ${(budget * 100).toFixed(4)} %`)
      process.exitCode = 1
    } catch (error) {
      if (validated || !stop.signal.aborted) throw error
      bar.done()
      note('interrupted; nothing was written')
      process.exitCode = 130 // as a shell reports SIGINT
    } finally {
      bar.done()
      process.removeListener('SIGINT', interrupt)
    }
  },
}
