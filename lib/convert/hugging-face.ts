/** A Llama in Hugging Face layout as a source of a GGUF file: names, order of rows, metadata, tokenizer. */
import { basename, resolve } from 'node:path'
import { DroverError } from '../errors.js'
import {
  generationDefaults,
  type HuggingFaceConfig,
  type HuggingFaceFolder,
  tokenizerSettings,
} from '../format/config.js'
import { diskFolder, type ReadOptions } from '../format/file.js'
import type { GgufEntry } from '../format/gguf-writer.js'
import type { SafetensorsFile } from '../format/safetensors.js'
import { ggufNames, huggingFaceNames, type LlamaNames } from '../model/llama.js'
import { inverseFrequencies, scaleFrequencies } from '../model/rope.js'
import { elementCount, type TensorInfo } from '../tensor.js'
import { chatTemplateOf } from '../text/chat-template.js'
import { asStored, type LlamaFolder, readLlamaFolder, type Source, type SourceTensor } from './source.js'
import { tokenizerEntries } from './tokenizer.js'

/**
 * Opens a folder; with `weightsOnly`, without its tokenizer and what else only a whole model needs. Throws E_UNSUPPORTED
 * for other architectures and for tokenizers that GGUF has no form for.
 */
export const huggingFaceSource = async (path: string, options: ReadOptions, weightsOnly: boolean): Promise<Source> => {
  const read = await readLlamaFolder(path, options)
  const { config, weights } = read
  const metadata = metadataOf(path, config)
  if (!weightsOnly) for (const [key, entry] of await textEntries(path, read)) metadata.set(key, entry)
  return {
    files: weights.files,
    tensors: tensorsOf(weights, config),
    made: ropeFactors(config),
    metadata,
    layers: config.layers,
    sharing: config.heads / config.keyValueHeads,
  }
}

/** Tokenizer, end tokens, sampling defaults, chat template. */
const textEntries = async (path: string, { folder, config }: LlamaFolder): Promise<Map<string, GgufEntry>> => {
  const tokenizer = await tokenizerEntries(diskFolder(path), config.vocabularySize)
  const entries = new Map(tokenizer.entries)
  for (const [key, id] of endTokens(folder, config, tokenizer.ids)) entries.set(key, { type: 'u32', value: id })
  for (const [key, value] of samplingOf(folder)) entries.set(`general.sampling.${key}`, value)
  const template = await chatTemplateOf({ folder })
  if (template !== undefined) entries.set('tokenizer.chat_template', { type: 'string', value: template })
  return entries
}

const metadataOf = (path: string, config: HuggingFaceConfig): Map<string, GgufEntry> => {
  const count = (value: number): GgufEntry => ({ type: 'u32', value })
  const real = (value: number): GgufEntry => ({ type: 'f32', value })
  const metadata = new Map<string, GgufEntry>([
    ['general.architecture', { type: 'string', value: 'llama' }],
    ['general.type', { type: 'string', value: 'model' }],
    ['general.name', { type: 'string', value: basename(resolve(path)) }],
    ['llama.vocab_size', count(config.vocabularySize)],
    ['llama.context_length', count(config.maxPositions)],
    ['llama.embedding_length', count(config.hiddenSize)],
    ['llama.block_count', count(config.layers)],
    ['llama.feed_forward_length', count(config.intermediateSize)],
    ['llama.attention.head_count', count(config.heads)],
    ['llama.attention.head_count_kv', count(config.keyValueHeads)],
    ['llama.attention.key_length', count(config.headSize)],
    ['llama.attention.value_length', count(config.headSize)],
    ['llama.attention.layer_norm_rms_epsilon', real(config.normEpsilon)],
    ['llama.rope.dimension_count', count(config.headSize)],
    ['llama.rope.freq_base', real(config.rope.theta)],
  ])
  if (config.rope.type === 'linear') {
    metadata.set('llama.rope.scaling.type', { type: 'string', value: 'linear' })
    metadata.set('llama.rope.scaling.factor', real(config.rope.factor ?? 1))
  }
  return metadata
}

/** Llama 3.1 and later: by what each frequency is divided. */
const ropeFactors = ({ rope, headSize, file }: HuggingFaceConfig): Map<string, Float32Array> => {
  if (rope.type !== 'llama3') return new Map()
  const plain = inverseFrequencies(rope.theta, headSize)
  const scaled = scaleFrequencies(plain, rope, file)
  return new Map([['rope_freqs.weight', plain.map((frequency, i) => frequency / scaled[i]!)]])
}

/** GGUF has a place for one token that ends a text, one for a turn and one for a message. */
const endTokens = (
  folder: HuggingFaceFolder,
  config: HuggingFaceConfig,
  ids: ReadonlyMap<string, number>,
): Map<string, number> => {
  const found = new Map<string, number>()
  const place = (key: string, id: number | undefined): void => {
    if (id !== undefined) found.set(`tokenizer.ggml.${key}_token_id`, id)
  }
  const [turn, message] = [ids.get('<|eot_id|>'), ids.get('<|eom_id|>')]
  const generation = folder.generation === undefined ? [] : generationDefaults(folder.generation).eosTokens
  const ends = [...generation, ...config.eosTokens]
  place('eos', ends.find((id) => id !== turn && id !== message) ?? ends[0])
  place('eot', turn)
  place('eom', message)
  const padding = folder.tokenizer === undefined ? undefined : tokenizerSettings(folder.tokenizer).padToken
  if (padding !== undefined) place('padding', ids.get(padding))
  return found
}

const samplingOf = (folder: HuggingFaceFolder): Map<string, GgufEntry> => {
  const entries = new Map<string, GgufEntry>()
  if (folder.generation === undefined) return entries
  const { doSample, temperature, topK, topP, minP, repetitionPenalty } = generationDefaults(folder.generation)
  const real = (key: string, value: number | undefined): void => {
    if (value !== undefined) entries.set(key, { type: 'f32', value })
  }
  real('temp', doSample === false ? 0 : temperature)
  real('top_p', topP)
  real('min_p', minP)
  real('penalty_repeat', repetitionPenalty)
  if (topK !== undefined) entries.set('top_k', { type: 'i32', value: topK })
  return entries
}

const tensorsOf = (weights: SafetensorsFile, config: HuggingFaceConfig): SourceTensor[] => {
  const { layers, headSize } = config
  const tensors: SourceTensor[] = []
  const take = (from: string, to: string, headRows?: number): void => {
    for (const part of ['weight', 'bias']) {
      const info = weights.tensors.get(`${from}.${part}`)
      if (info !== undefined) tensors.push(placed(`${to}.${part}`, info, headRows))
      else if (part === 'weight')
        throw new DroverError('E_FORMAT', 'a tensor is missing', {
          file: weights.files[0]?.path,
          field: `${from}.weight`,
          found: 'none',
          expected: 'a tensor',
        })
    }
  }
  const names = (part: keyof LlamaNames['layer'], layer: number): [string, string] => [
    huggingFaceNames.layer[part](layer),
    ggufNames.layer[part](layer),
  ]
  take(huggingFaceNames.model.embedding, ggufNames.model.embedding)
  for (let layer = 0; layer < layers; layer++) {
    for (const part of Object.keys(ggufNames.layer) as (keyof LlamaNames['layer'])[]) {
      take(...names(part, layer), part === 'q' || part === 'k' ? headSize : undefined)
    }
  }
  take(huggingFaceNames.model.norm, ggufNames.model.norm)
  if (!config.tieWordEmbeddings) take(huggingFaceNames.model.head, ggufNames.model.head)
  return tensors
}

/** A vector whose elements change places is a matrix of one column. */
const placed = (name: string, info: TensorInfo, headRows: number | undefined): SourceTensor => {
  if (headRows === undefined) return asStored(name, info)
  const cols = info.shape.length === 1 ? 1 : (info.shape.at(-1) as number)
  const rows = elementCount(info.shape) / cols
  if (rows % headRows === 0) return { name, info, rows, cols, headRows }
  throw new DroverError('E_FORMAT', 'a tensor has the wrong shape', {
    field: info.name,
    found: `[${info.shape.join(', ')}]`,
    expected: `a multiple of ${headRows} rows`,
  })
}
