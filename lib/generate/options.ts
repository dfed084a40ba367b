/** What a caller may ask of a generation, checked and completed with the model's defaults. */
import { checkBoolean, checkInteger, checkNumber, checkOptions, checkSignal, checkString } from '../check.js'
import { DroverError } from '../errors.js'
import { plainSampling, type SamplingParameters } from '../program/step.js'

/** How tokens are drawn and when a generation ends. Defaults are the model's own, else temperature 1 and no cut. */
export interface GenerateOptions {
  /** Most tokens to write; default: what the context holds. */
  maxTokens?: number
  /** 0: always the likeliest token. */
  temperature?: number
  /** Only the k likeliest tokens (and those tied with the k-th); 0: off. */
  topK?: number
  /** Only the likeliest tokens that together reach this probability; 1: off. */
  topP?: number
  /** Only tokens at least this fraction as likely as the likeliest; 0: off. */
  minP?: number
  /** Only tokens whose surprise is nearest the expected one, up to this probability; 1: off. */
  typicalP?: number
  /** Divides (multiplies, when negative) logits of tokens seen in the window; 1: off. */
  repetitionPenalty?: number
  /** Subtracted from logits of tokens seen in the window. */
  presencePenalty?: number
  /** Subtracted once per occurrence in the window. */
  frequencyPenalty?: number
  /** Tokens, prompt included, that penalties look back on; default all. */
  penaltyWindow?: number
  /** Added to logits, by token; -Infinity is not a number here: use -1e9. */
  logitBias?: Record<number, number>
  /** Same seed, same text. Default: drawn by chance. */
  seed?: number
  /** Texts that end the generation; they are not part of it. */
  stop?: string | string[]
  /** Tokens that end the generation; default: the model's end tokens. [] turns them off. */
  stopTokens?: number[]
  /** true: each token's log-probability; a number: also that many likeliest tokens. */
  logprobs?: boolean | number
  signal?: AbortSignal
}

/** Defaults that a model brings. */
export interface SamplingDefaults {
  temperature?: number | undefined
  topK?: number | undefined
  topP?: number | undefined
  minP?: number | undefined
  typicalP?: number | undefined
  repetitionPenalty?: number | undefined
}

export interface GeneratePlan {
  maxTokens: number
  sampling: SamplingParameters
  /** Tokens that penalties look back on; 0: penalties are off. */
  penaltyWindow: number
  stop: string[]
  stopTokens: ReadonlySet<number>
  logprobs: boolean
  signal: AbortSignal | undefined
}

/** Most likeliest tokens that can be reported. */
export const mostTopLogprobs = 20

const names = [
  'maxTokens',
  'temperature',
  'topK',
  'topP',
  'minP',
  'typicalP',
  'repetitionPenalty',
  'presencePenalty',
  'frequencyPenalty',
  'penaltyWindow',
  'logitBias',
  'seed',
  'stop',
  'stopTokens',
  'logprobs',
  'signal',
]
const notYet = ['schema', 'grammar', 'tools']

const stopTexts = (value: unknown): string[] => {
  const list = value === undefined ? [] : Array.isArray(value) ? value : [value]
  return list.map((text, i) => {
    if (checkString(`options.stop[${i}]`, text) !== '') return text as string
    throw new DroverError('E_ARGUMENT', 'a stop text is empty', { field: `options.stop[${i}]` })
  })
}

/** Checks options against a vocabulary. `room` is how many tokens the context still holds. */
export const planGeneration = (
  input: GenerateOptions | undefined,
  defaults: SamplingDefaults,
  vocabulary: number,
  endTokens: readonly number[],
  room: number,
): GeneratePlan => {
  const options = checkOptions('options', input, [...names, ...notYet]) as GenerateOptions
  for (const name of notYet) {
    if ((options as Record<string, unknown>)[name] !== undefined) {
      throw new DroverError('E_UNSUPPORTED', `options.${name} is not built yet`, { field: `options.${name}` })
    }
  }
  const number = (name: keyof SamplingParameters & keyof GenerateOptions, minimum: number, maximum: number): number => {
    const value = options[name] ?? (defaults as Record<string, number | undefined>)[name] ?? plainSampling[name]
    return checkNumber(`options.${name}`, value, minimum, maximum)
  }
  const { logprobs = false } = options
  const top =
    logprobs === true || logprobs === false ? 0 : checkInteger('options.logprobs', logprobs, 0, mostTopLogprobs)
  const token = (name: string, value: unknown): number => checkInteger(name, value, 0, vocabulary - 1)
  const sampling: SamplingParameters = {
    temperature: number('temperature', 0, 1e6),
    topK: checkInteger('options.topK', options.topK ?? defaults.topK ?? 0, 0, 2 ** 31 - 1),
    topP: number('topP', 0, 1),
    minP: number('minP', 0, 1),
    typicalP: number('typicalP', 0, 1),
    repetitionPenalty: number('repetitionPenalty', 1e-6, 1e6),
    presencePenalty: number('presencePenalty', -1e6, 1e6),
    frequencyPenalty: number('frequencyPenalty', -1e6, 1e6),
    seed: BigInt(
      options.seed === undefined
        ? Math.floor(Math.random() * Number.MAX_SAFE_INTEGER)
        : checkInteger('options.seed', options.seed, 0),
    ),
    counter: 0,
    logprobs: logprobs !== false,
    topLogprobs: top,
    bias: Object.entries(options.logitBias ?? {}).map(
      ([id, value]) =>
        [token('options.logitBias', Number(id)), checkNumber(`options.logitBias[${id}]`, value, -1e9, 1e9)] as const,
    ),
    history: [],
  }
  const penalised =
    sampling.repetitionPenalty !== 1 || sampling.presencePenalty !== 0 || sampling.frequencyPenalty !== 0
  const window = checkInteger('options.penaltyWindow', options.penaltyWindow ?? 2 ** 31 - 1, 0, 2 ** 31 - 1)
  if (options.stopTokens !== undefined && !Array.isArray(options.stopTokens)) {
    throw new DroverError('E_ARGUMENT', 'expected an array of tokens for options.stopTokens', {
      field: 'options.stopTokens',
    })
  }
  return {
    maxTokens: Math.min(
      room,
      options.maxTokens === undefined ? room : checkInteger('options.maxTokens', options.maxTokens, 0),
    ),
    sampling,
    penaltyWindow: penalised ? window : 0,
    stop: stopTexts(options.stop),
    stopTokens: new Set(options.stopTokens?.map((id, i) => token(`options.stopTokens[${i}]`, id)) ?? endTokens),
    logprobs: typeof logprobs === 'boolean' ? checkBoolean('options.logprobs', logprobs) : true,
    signal: options.signal === undefined ? undefined : checkSignal('options.signal', options.signal),
  }
}
