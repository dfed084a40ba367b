/** Options that all commands with a model share, and its loading with a progress bar. */

import { type LanguageModel, type LanguageModelOptions, loadLanguageModel } from '../generate/model.js'
import type { GenerateOptions } from '../generate/options.js'
import type { Arguments, Option } from './command.js'
import { progress } from './output.js'

export const modelOptions: Record<string, Option> = {
  threads: { type: 'string', value: 'N', help: 'workers of each step; default: what the machine allows' },
  context: { type: 'string', value: 'N', help: 'positions per sequence; default: the model’s, cut to memory' },
  memory: { type: 'string', value: 'BYTES', help: 'refuse to allocate more than this' },
  kv: { type: 'string', value: 'TYPE', help: 'cache of f32, f16 (default), bf16, q8_0 or fp8' },
  activations: {
    type: 'string',
    value: 'MODE',
    help: 'auto (default), f32: never round activations, or bf16: round them so',
  },
  verify: { type: 'boolean', help: 'read every weight and refuse NaN and infinite ones' },
  'prepared-cache': { type: 'string', value: 'FOLDER', help: 'keep prepared weights there: the next start is fast' },
}

export const samplingOptions: Record<string, Option> = {
  tokens: { type: 'string', short: 'n', value: 'N', help: 'most tokens to write' },
  temperature: { type: 'string', short: 't', value: 'X', help: '0: always the likeliest token' },
  'top-k': { type: 'string', value: 'N', help: 'only the N likeliest tokens' },
  'top-p': { type: 'string', value: 'X', help: 'only the likeliest tokens that together reach X' },
  'min-p': { type: 'string', value: 'X', help: 'only tokens at least X times as likely as the likeliest' },
  'typical-p': { type: 'string', value: 'X', help: 'locally typical sampling' },
  'repetition-penalty': { type: 'string', value: 'X', help: 'divides logits of tokens already seen' },
  'presence-penalty': { type: 'string', value: 'X', help: 'subtracted from logits of tokens already seen' },
  'frequency-penalty': { type: 'string', value: 'X', help: 'subtracted once per occurrence' },
  'penalty-window': { type: 'string', value: 'N', help: 'tokens that penalties look back on; default all' },
  seed: { type: 'string', short: 's', value: 'N', help: 'same seed, same text' },
  stop: { type: 'string', value: 'TEXT', help: 'ends the text; not part of it' },
  'ignore-end': { type: 'boolean', help: 'write on behind the model’s end tokens' },
  logprobs: { type: 'string', value: 'N', help: 'with --json: log-probabilities, and the N likeliest tokens' },
}

export const loadFrom = async (path: string, args: Arguments, signal?: AbortSignal): Promise<LanguageModel> => {
  const bar = progress('loading')
  const options: LanguageModelOptions = { onProgress: (fraction) => bar.update(fraction) }
  const threads = args.integer('threads', 1, 1024)
  const contextLength = args.integer('context', 1, 2 ** 24)
  const memoryBudget = args.integer('memory', 1)
  if (threads !== undefined) options.threads = threads
  if (contextLength !== undefined) options.contextLength = contextLength
  if (memoryBudget !== undefined) options.memoryBudget = memoryBudget
  if (args.text('kv') !== undefined) options.kvType = args.text('kv') as 'f16'
  if (args.text('activations') !== undefined) options.activations = args.text('activations') as 'auto'
  if (args.flag('verify')) options.verify = 'full'
  const preparedCache = args.text('prepared-cache')
  if (preparedCache !== undefined) options.preparedCache = preparedCache
  if (signal !== undefined) options.signal = signal
  try {
    return await loadLanguageModel(path, options)
  } finally {
    bar.done()
  }
}

export const samplingFrom = (args: Arguments): GenerateOptions => {
  const options: GenerateOptions = {}
  const set = <K extends keyof GenerateOptions>(name: K, value: GenerateOptions[K] | undefined): void => {
    if (value !== undefined) options[name] = value
  }
  set('maxTokens', args.integer('tokens', 0))
  set('temperature', args.number('temperature', 0))
  set('topK', args.integer('top-k', 0))
  set('topP', args.number('top-p', 0, 1))
  set('minP', args.number('min-p', 0, 1))
  set('typicalP', args.number('typical-p', 0, 1))
  set('repetitionPenalty', args.number('repetition-penalty', 1e-6))
  set('presencePenalty', args.number('presence-penalty'))
  set('frequencyPenalty', args.number('frequency-penalty'))
  set('penaltyWindow', args.integer('penalty-window', 0))
  set('seed', args.integer('seed', 0))
  set('stop', args.text('stop'))
  set('logprobs', args.integer('logprobs', 0, 20))
  if (args.flag('ignore-end')) options.stopTokens = []
  return options
}

/** Tokens per second of a finished generation: prompt, and writing behind the first token. */
export const speeds = (result: {
  usage: { promptTokens: number; cachedTokens: number; completionTokens: number }
  timings: { promptMs: number; firstTokenMs: number; completionMs: number }
}): { promptPerSecond: number; generationPerSecond: number | null; firstTokenMs: number } => {
  const { usage, timings } = result
  return {
    promptPerSecond: ((usage.promptTokens - usage.cachedTokens) * 1000) / timings.promptMs,
    generationPerSecond:
      usage.completionTokens > 1 ? ((usage.completionTokens - 1) * 1000) / timings.completionMs : null,
    firstTokenMs: timings.firstTokenMs,
  }
}
