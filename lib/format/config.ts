/**
 * The JSON files of a Hugging Face folder as typed records: config.json in its transformers 4 and 5 forms becomes one
 * {@link HuggingFaceConfig}. Which architectures can run is not decided here; look at {@link architectureOf} first.
 */
import { DroverError } from '../errors.js'
import { diskFolder, type Folder, isMissing, Pace, type ReadOptions, withSource } from './file.js'
import { type JsonObject, type JsonValue, parseJson } from './json.js'

const describe = (value: JsonValue | undefined): unknown =>
  value === undefined
    ? 'missing'
    : value instanceof Map
      ? 'an object'
      : Array.isArray(value)
        ? `an array of ${value.length}`
        : value

export interface NumberLimits<F> {
  minimum?: number
  maximum?: number
  /** Stands for a missing or null entry; without it such an entry is an error. */
  fallback?: F
}

/** One JSON object with typed, checked access. A null entry counts as missing, as it does in transformers. */
export class ConfigRecord {
  /** @param file for errors. @param prefix path of this object inside the file, for errors, like `rope_scaling.`. */
  constructor(
    readonly file: string,
    readonly values: JsonObject,
    private readonly prefix = '',
  ) {}

  has(key: string): boolean {
    return this.get(key) !== undefined
  }

  get(key: string): Exclude<JsonValue, null> | undefined {
    return this.values.get(key) ?? undefined
  }

  /** The error for an entry that is not `expected`. */
  refuse(key: string, expected: string, found: unknown = describe(this.values.get(key))): DroverError {
    return new DroverError('E_FORMAT', this.has(key) ? 'a config entry does not fit' : 'a config entry is missing', {
      file: this.file,
      field: `${this.prefix}${key}`,
      found,
      expected,
    })
  }

  /** An integer in [minimum, maximum], by default from 0 to 2^53 - 1. */
  integer<F = never>(
    key: string,
    { minimum = 0, maximum = Number.MAX_SAFE_INTEGER, fallback }: NumberLimits<F> = {},
  ): number | F {
    const value = this.get(key)
    if (value === undefined && fallback !== undefined) return fallback
    if (typeof value === 'number' && Number.isSafeInteger(value) && value >= minimum && value <= maximum) return value
    throw this.refuse(key, `an integer from ${minimum} to ${maximum}`)
  }

  /** A number in [minimum, maximum]. */
  number<F = never>(
    key: string,
    { minimum = -Number.MAX_VALUE, maximum = Number.MAX_VALUE, fallback }: NumberLimits<F> = {},
  ): number | F {
    const value = this.get(key)
    if (value === undefined && fallback !== undefined) return fallback
    if (typeof value === 'number' && value >= minimum && value <= maximum) return value
    throw this.refuse(key, minimum === 0 ? 'a number of 0 or more' : 'a number')
  }

  boolean<F = never>(key: string, fallback?: F): boolean | F {
    const value = this.get(key)
    if (value === undefined && fallback !== undefined) return fallback
    if (typeof value === 'boolean') return value
    throw this.refuse(key, 'true or false')
  }

  string<F = never>(key: string, fallback?: F): string | F {
    const value = this.get(key)
    if (value === undefined && fallback !== undefined) return fallback
    if (typeof value === 'string') return value
    throw this.refuse(key, 'a string')
  }

  strings(key: string): string[] {
    const value = this.get(key)
    if (value === undefined) return []
    if (Array.isArray(value) && value.every((entry) => typeof entry === 'string')) return value
    throw this.refuse(key, 'an array of strings')
  }

  /** Token ids: one, several or none. */
  tokens(key: string): number[] {
    const value = this.get(key)
    if (value === undefined) return []
    const list = Array.isArray(value) ? value : [value]
    if (list.every((id): id is number => typeof id === 'number' && Number.isInteger(id) && id >= 0 && id < 2 ** 31)) {
      return list
    }
    throw this.refuse(key, 'a token id or an array of them')
  }

  /** A nested object; undefined when there is none. */
  record(key: string): ConfigRecord | undefined {
    const value = this.get(key)
    if (value === undefined) return undefined
    if (value instanceof Map) return new ConfigRecord(this.file, value, `${this.prefix}${key}.`)
    throw this.refuse(key, 'an object')
  }
}

/** The JSON files of a model folder. */
export interface HuggingFaceFolder {
  readonly path: string
  readonly config: ConfigRecord
  readonly generation?: ConfigRecord | undefined
  readonly tokenizer?: ConfigRecord | undefined
}

/** How positions are rotated. Fields that the type does not use are undefined. */
export interface RopeConfig {
  readonly theta: number
  /** `default`, `linear`, `dynamic`, `yarn`, `longrope`, `llama3`, or whatever the file says. */
  readonly type: string
  readonly factor?: number | undefined
  readonly lowFrequencyFactor?: number | undefined
  readonly highFrequencyFactor?: number | undefined
  readonly originalMaxPositions?: number | undefined
}

/** What a decoder of Llama's form needs to know. Defaults are those of transformers' LlamaConfig. */
export interface HuggingFaceConfig {
  readonly file: string
  readonly architectures: readonly string[]
  readonly modelType: string
  readonly hiddenSize: number
  readonly intermediateSize: number
  readonly layers: number
  readonly heads: number
  readonly keyValueHeads: number
  readonly headSize: number
  readonly vocabularySize: number
  readonly normEpsilon: number
  readonly maxPositions: number
  readonly tieWordEmbeddings: boolean
  readonly attentionBias: boolean
  readonly mlpBias: boolean
  readonly hiddenActivation: string
  readonly rope: RopeConfig
  /** The number format the weights were saved in, like `bfloat16`, when the file says. */
  readonly dtype?: string | undefined
  /** How the weights were quantised (`gptq`, `awq`, `fp8`, …), when they were. */
  readonly quantization?: string | undefined
  readonly bosTokens: readonly number[]
  readonly eosTokens: readonly number[]
}

/** Sampling defaults and end tokens of generation_config.json; undefined where the file is silent. */
export interface GenerationDefaults {
  readonly bosTokens: readonly number[]
  readonly eosTokens: readonly number[]
  readonly doSample?: boolean | undefined
  readonly temperature?: number | undefined
  readonly topK?: number | undefined
  readonly topP?: number | undefined
  readonly minP?: number | undefined
  readonly typicalP?: number | undefined
  readonly repetitionPenalty?: number | undefined
}

export interface TokenizerSettings {
  readonly tokenizerClass?: string | undefined
  readonly addBos?: boolean | undefined
  readonly addEos?: boolean | undefined
  readonly bosToken?: string | undefined
  readonly eosToken?: string | undefined
  readonly unknownToken?: string | undefined
  readonly padToken?: string | undefined
  /** Chat templates by name; a single unnamed one is `default`. */
  readonly chatTemplates: ReadonlyMap<string, string>
  readonly addedTokens: ReadonlyMap<number, { readonly content: string; readonly special: boolean }>
}

/** A config.json has some kilobytes; a tokenizer_config.json may list all special tokens. */
const largestJson = 8_000_000

/** Reads one JSON file that holds an object; undefined when there is no such file and it is optional. */
const readRecord = async (
  folder: Folder,
  name: string,
  optional: boolean,
  pace: Pace,
): Promise<ConfigRecord | undefined> => {
  try {
    return await withSource(folder.open(name), async (source) => {
      if (source.size > largestJson) {
        throw new DroverError('E_FORMAT', 'a config file is absurdly large', {
          file: source.path,
          field: 'file size',
          found: source.size,
          expected: `at most ${largestJson} bytes`,
        })
      }
      const value = await parseJson(await source.read(0, source.size), source.path, pace)
      if (value instanceof Map) return new ConfigRecord(source.path, value)
      throw new DroverError('E_FORMAT', 'a config file holds no object', {
        file: source.path,
        field: 'JSON',
        found: describe(value),
        expected: 'an object',
      })
    })
  } catch (error) {
    if (optional && isMissing(error)) return undefined
    throw error
  }
}

/** Reads config.json and, where present, generation_config.json and tokenizer_config.json. Throws E_FORMAT or E_IO. */
export const readHuggingFace = (path: string, options: ReadOptions = {}): Promise<HuggingFaceFolder> =>
  readHuggingFaceFrom(diskFolder(path), options)

/** {@link readHuggingFace} from any folder. */
export const readHuggingFaceFrom = async (folder: Folder, options: ReadOptions = {}): Promise<HuggingFaceFolder> => {
  const pace = new Pace(options.signal, 'reading a model folder')
  const config = (await readRecord(folder, 'config.json', false, pace)) as ConfigRecord
  const generation = await readRecord(folder, 'generation_config.json', true, pace)
  const tokenizer = await readRecord(folder, 'tokenizer_config.json', true, pace)
  return { path: folder.path, config, generation, tokenizer }
}

/** What the model calls itself. Needs no other entry, so that an unknown architecture can be refused by name. */
export const architectureOf = (config: ConfigRecord): { architectures: string[]; modelType: string } => ({
  architectures: config.strings('architectures'),
  modelType: config.string('model_type', ''),
})

/**
 * The fields of a Llama-like config.json, whichever version of transformers wrote it. Throws E_FORMAT with file and
 * field when an entry is missing, has the wrong type or contradicts another.
 */
export const huggingFaceConfig = (config: ConfigRecord): HuggingFaceConfig => {
  const most = 2 ** 31 - 1
  const size = (key: string): number => config.integer(key, { minimum: 1, maximum: most })
  const hiddenSize = size('hidden_size')
  const heads = size('num_attention_heads')
  const keyValueHeads = config.integer('num_key_value_heads', { minimum: 1, maximum: heads, fallback: heads })
  if (heads % keyValueHeads !== 0) throw config.refuse('num_key_value_heads', `a divisor of ${heads}`)
  if (!config.has('head_dim') && hiddenSize % heads !== 0) {
    throw config.refuse('num_attention_heads', `a divisor of hidden_size ${hiddenSize}, as there is no head_dim`)
  }
  const maxPositions = config.integer('max_position_embeddings', { minimum: 1, maximum: most, fallback: 2048 })
  return {
    file: config.file,
    ...architectureOf(config),
    hiddenSize,
    intermediateSize: size('intermediate_size'),
    layers: config.integer('num_hidden_layers', { minimum: 1, maximum: 65535 }),
    heads,
    keyValueHeads,
    headSize: config.integer('head_dim', { minimum: 1, maximum: most, fallback: hiddenSize / heads }),
    vocabularySize: size('vocab_size'),
    normEpsilon: config.number('rms_norm_eps', { minimum: 0, fallback: 1e-6 }),
    maxPositions,
    tieWordEmbeddings: config.boolean('tie_word_embeddings', false),
    attentionBias: config.boolean('attention_bias', false),
    mlpBias: config.boolean('mlp_bias', false),
    hiddenActivation: config.string('hidden_act', 'silu'),
    rope: ropeConfig(config),
    dtype: storedDtype(config),
    quantization: config.record('quantization_config')?.string('quant_method', 'unknown'),
    bosTokens: config.tokens('bos_token_id'),
    eosTokens: config.tokens('eos_token_id'),
  }
}

/** transformers 5 says `dtype`, 4 `torch_dtype`, and a few files `torch.bfloat16`. */
const storedDtype = (config: ConfigRecord): string | undefined => {
  const key = config.has('dtype') ? 'dtype' : 'torch_dtype'
  return config.has(key) ? config.string(key).replace(/^torch\./, '') : undefined
}

/** transformers 5 has `rope_parameters` with everything; 4 has `rope_theta` beside `rope_scaling`, whose type was once `type`. */
const ropeConfig = (config: ConfigRecord): RopeConfig => {
  const record = config.record('rope_parameters') ?? config.record('rope_scaling')
  const holder = record?.has('rope_theta') ? record : config
  const theta = holder.number('rope_theta', { fallback: 10000 })
  if (!(theta > 0)) throw holder.refuse('rope_theta', 'a number above 0', theta)
  if (record === undefined) return { theta, type: 'default' }
  const type = record.has('rope_type') ? record.string('rope_type') : record.string('type', 'default')
  const positive = (key: string, required: boolean): number | undefined => {
    if (!required && !record.has(key)) return undefined
    const value = record.number(key)
    if (value > 0) return value
    throw record.refuse(key, 'a number above 0')
  }
  const llama3 = type === 'llama3'
  const rope = {
    theta,
    type,
    factor: positive('factor', llama3 || type === 'linear' || type === 'dynamic'),
    lowFrequencyFactor: positive('low_freq_factor', llama3),
    highFrequencyFactor: positive('high_freq_factor', llama3),
    originalMaxPositions:
      llama3 || record.has('original_max_position_embeddings')
        ? record.integer('original_max_position_embeddings', { minimum: 1, maximum: 2 ** 31 - 1 })
        : undefined,
  }
  if (llama3 && (rope.highFrequencyFactor as number) <= (rope.lowFrequencyFactor as number)) {
    throw record.refuse('high_freq_factor', `more than low_freq_factor ${rope.lowFrequencyFactor}`)
  }
  return rope
}

/** The typed form of generation_config.json. */
export const generationDefaults = (record: ConfigRecord): GenerationDefaults => {
  const number = (key: string): number | undefined => (record.has(key) ? record.number(key, { minimum: 0 }) : undefined)
  return {
    bosTokens: record.tokens('bos_token_id'),
    eosTokens: record.tokens('eos_token_id'),
    doSample: record.has('do_sample') ? record.boolean('do_sample') : undefined,
    temperature: number('temperature'),
    topK: record.has('top_k') ? record.integer('top_k') : undefined,
    topP: number('top_p'),
    minP: number('min_p'),
    typicalP: number('typical_p'),
    repetitionPenalty: number('repetition_penalty'),
  }
}

/** The typed form of tokenizer_config.json. */
export const tokenizerSettings = (record: ConfigRecord): TokenizerSettings => {
  // A token is a string, or an object that describes it.
  const token = (key: string): string | undefined => {
    const value = record.get(key)
    if (value === undefined || typeof value === 'string') return value
    return value instanceof Map ? record.record(key)?.string('content') : record.string(key)
  }
  const flag = (key: string): boolean | undefined => (record.has(key) ? record.boolean(key) : undefined)
  return {
    tokenizerClass: record.has('tokenizer_class') ? record.string('tokenizer_class') : undefined,
    addBos: flag('add_bos_token'),
    addEos: flag('add_eos_token'),
    bosToken: token('bos_token'),
    eosToken: token('eos_token'),
    unknownToken: token('unk_token'),
    padToken: token('pad_token'),
    chatTemplates: chatTemplates(record),
    addedTokens: addedTokens(record),
  }
}

const chatTemplates = (record: ConfigRecord): Map<string, string> => {
  const value = record.get('chat_template')
  const templates = new Map<string, string>()
  if (value === undefined) return templates
  if (!Array.isArray(value)) return templates.set('default', record.string('chat_template'))
  for (const [i, entry] of value.entries()) {
    if (!(entry instanceof Map)) throw record.refuse('chat_template', 'a string, or objects with name and template')
    const template = new ConfigRecord(record.file, entry, `chat_template[${i}].`)
    templates.set(template.string('name'), template.string('template'))
  }
  return templates
}

const addedTokens = (record: ConfigRecord): Map<number, { content: string; special: boolean }> => {
  const tokens = new Map<number, { content: string; special: boolean }>()
  const decoder = record.record('added_tokens_decoder')
  for (const id of decoder?.values.keys() ?? []) {
    const entry = decoder?.record(id)
    if (!/^\d{1,9}$/.test(id) || entry === undefined) {
      throw record.refuse('added_tokens_decoder', 'token ids and what they stand for', id)
    }
    tokens.set(Number(id), { content: entry.string('content'), special: entry.boolean('special', false) })
  }
  return tokens
}
