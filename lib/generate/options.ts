/** What a caller may ask of a generation, checked and completed with the model's defaults. */
import { checkInteger, checkNumber, checkOptions, checkSignal, checkString } from '../check.js'
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
  penaltyWindow?: number | undefined
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
  return Array.from(list, (text, i) => {
    if (checkString(`options.stop[${i}]`, text) !== '') return text as string
    throw new DroverError('E_ARGUMENT', 'a stop text is empty', {
      field: `options.stop[${i}]`,
      found: '',
      expected: 'at least one character',
    })
  })
}

/** Limits of the options that are plain numbers, for callers and for what model files bring. */
const limits = {
  temperature: [0, 1e6],
  topP: [0, 1],
  minP: [0, 1],
  typicalP: [0, 1],
  repetitionPenalty: [1e-6, 1e6],
  presencePenalty: [-1e6, 1e6],
  frequencyPenalty: [-1e6, 1e6],
} as const
const mostCount = 2 ** 31 - 1

/** Checks the defaults of a model file: throws E_FORMAT, where a caller's value would be E_ARGUMENT. */
export const checkDefaults = (file: string, defaults: SamplingDefaults): SamplingDefaults => {
  for (const [name, value] of Object.entries(defaults)) {
    if (value === undefined) continue
    const whole = name === 'topK' || name === 'penaltyWindow'
    const [minimum, maximum] = whole ? [0, mostCount] : limits[name as keyof typeof limits]
    if (value >= minimum && value <= maximum && (!whole || Number.isInteger(value))) continue
    throw new DroverError('E_FORMAT', 'a sampling default of the model is out of range', {
      file,
      field: name,
      found: value,
      expected: `${whole ? 'an integer' : 'a number'} from ${minimum} to ${maximum}`,
    })
  }
  return defaults
}

/** logitBias as pairs. A Map or an array would look like an object without tokens, or with the wrong ones. */
const checkBias = (value: unknown, vocabulary: number): (readonly [number, number])[] => {
  if (value === undefined) return []
  const field = 'options.logitBias'
  const plain = typeof value === 'object' && value !== null && !(Symbol.iterator in value)
  if (!plain) {
    throw new DroverError('E_ARGUMENT', `expected an object for ${field}`, {
      field,
      found: value,
      expected: '{ token: number to add }',
    })
  }
  return Object.entries(value).map(([key, added]) => {
    const token = /^\d+$/.test(key) ? Number(key) : Number.NaN
    if (!(token < vocabulary)) {
      throw new DroverError('E_ARGUMENT', `expected tokens as keys of ${field}`, {
        field: `${field}[${key}]`,
        found: key,
        expected: `an integer from 0 to ${vocabulary - 1}`,
      })
    }
    return [token, checkNumber(`${field}[${key}]`, added, -1e9, 1e9)] as const
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
      throw new DroverError('E_UNSUPPORTED', `options.${name} is not built yet`, {
        field: `options.${name}`,
        hint: 'leave it out',
      })
    }
  }
  const number = (name: keyof typeof limits): number => {
    // Not `??`: a null is no request for the default.
    const given = options[name]
    const value = given === undefined ? (defaults as GenerateOptions)[name] : given
    const [minimum, maximum] = limits[name]
    return checkNumber(`options.${name}`, value === undefined ? plainSampling[name] : value, minimum, maximum)
  }
  const count = (name: 'topK' | 'penaltyWindow', plain: number): number => {
    const value = options[name] === undefined ? defaults[name] : options[name]
    return checkInteger(`options.${name}`, value === undefined ? plain : value, 0, mostCount)
  }
  const { logprobs = false } = options
  const top =
    logprobs === true || logprobs === false ? 0 : checkInteger('options.logprobs', logprobs, 0, mostTopLogprobs)
  const token = (name: string, value: unknown): number => checkInteger(name, value, 0, vocabulary - 1)
  const sampling: SamplingParameters = {
    temperature: number('temperature'),
    topK: count('topK', 0),
    topP: number('topP'),
    minP: number('minP'),
    typicalP: number('typicalP'),
    repetitionPenalty: number('repetitionPenalty'),
    presencePenalty: number('presencePenalty'),
    frequencyPenalty: number('frequencyPenalty'),
    seed: BigInt(
      options.seed === undefined
        ? Math.floor(Math.random() * Number.MAX_SAFE_INTEGER)
        : checkInteger('options.seed', options.seed, 0),
    ),
    counter: 0,
    logprobs: logprobs !== false,
    topLogprobs: top,
    bias: checkBias(options.logitBias, vocabulary),
    history: [],
  }
  const penalised =
    sampling.repetitionPenalty !== 1 || sampling.presencePenalty !== 0 || sampling.frequencyPenalty !== 0
  const window = count('penaltyWindow', mostCount)
  if (options.stopTokens !== undefined && !Array.isArray(options.stopTokens)) {
    throw new DroverError('E_ARGUMENT', 'expected an array of tokens for options.stopTokens', {
      field: 'options.stopTokens',
      found: options.stopTokens,
      expected: 'an array of tokens',
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
    stopTokens: new Set(
      options.stopTokens === undefined
        ? endTokens
        : Array.from(options.stopTokens, (id, i) => token(`options.stopTokens[${i}]`, id)),
    ),
    logprobs: logprobs !== false,
    signal: options.signal === undefined ? undefined : checkSignal('options.signal', options.signal),
  }
}
