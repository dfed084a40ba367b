/** Opens a model file or folder: finds the family, reads the config, finds the weights. Nothing is loaded yet. */
import { stat } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import { DroverError } from '../errors.js'
import {
  architectureOf,
  type ConfigRecord,
  type GenerationDefaults,
  generationDefaults,
  type HuggingFaceFolder,
  huggingFaceConfig,
  readHuggingFace,
  readHuggingFaceFrom,
} from '../format/config.js'
import { decodeRow } from '../format/decode/index.js'
import { diskFolder, type Folder, isFolder, type ReadOptions, readTensor, type TensorSource } from '../format/file.js'
import { type GgufFile, readGguf } from '../format/gguf.js'
import { metadataString } from '../format/gguf-metadata.js'
import { type QuantizedSource, quantizedSource, type WeightScheme, weightSchemeOf } from '../format/quantization.js'
import { readSafetensors } from '../format/safetensors.js'
import type { DeviceLayout, Program, RegionSource } from '../program/program.js'
import { elementCount, type TensorInfo } from '../tensor.js'
import {
  buildLlama,
  ggufNames,
  huggingFaceNames,
  type LlamaConfig,
  type LlamaNames,
  type LlamaProgramOptions,
  llamaFromGguf,
  llamaFromHuggingFace,
} from './llama.js'
import { weightsOf } from './weights.js'

export interface OpenedModel {
  readonly path: string
  readonly architecture: string
  readonly config: LlamaConfig
  /** Parameters of all tensors. */
  readonly parameters: number
  /** dtypes of the weights, commonest bytes first. */
  readonly weightTypes: readonly string[]
  readonly weightBytes: number
  /** As the files name and store them. */
  readonly tensors: readonly TensorInfo[]
  readonly regions: readonly RegionSource[]
  /** Where the rest of the model's description is: one of the two. */
  readonly gguf?: GgufFile
  readonly folder?: HuggingFaceFolder
  readonly generation: GenerationDefaults
  build(layout: DeviceLayout, options: Omit<LlamaProgramOptions, 'ropeRegion'>): Program
}

const noDefaults: GenerationDefaults = { bosTokens: [], eosTokens: [] }

const refuse = (file: string, field: string, found: string): never => {
  throw new DroverError('E_UNSUPPORTED', 'this architecture is not supported', {
    file,
    field,
    found: found === '' ? 'none named' : found,
    expected: 'llama (Llama 2, 3, 3.1, 3.2 and 3.3 text models)',
  })
}

/** Opens a .gguf file (the first of several when split) or a folder in Hugging Face layout. */
export const openModel = async (path: string, options: ReadOptions = {}): Promise<OpenedModel> => {
  const status = await stat(path).catch((cause: unknown) => {
    throw new DroverError('E_IO', 'the model cannot be opened', {
      file: path,
      expected: 'a .gguf file or a folder',
      cause,
    })
  })
  return status.isDirectory() ? openFolder(path, options) : openGguf(path, options)
}

const openGguf = async (path: string, options: ReadOptions): Promise<OpenedModel> => {
  const gguf = await readGguf(path, options)
  const architecture = metadataString(gguf, 'general.architecture')
  if (architecture !== 'llama') refuse(path, 'general.architecture', architecture)
  const info = gguf.tensors.get('rope_freqs.weight')
  let factors: Float32Array | undefined
  if (info !== undefined) {
    factors = new Float32Array(elementCount(info.shape))
    decodeRow(info.dtype, await readTensor(gguf, info), factors.length, factors)
  }
  return opened(path, architecture, llamaFromGguf(gguf, factors), ggufNames, gguf, { gguf, generation: noDefaults })
}

/** Refuses other architectures by name, before any other entry is looked at. */
export const checkLlama = (config: ConfigRecord): void => {
  const { architectures, modelType } = architectureOf(config)
  if (modelType !== 'llama' || (architectures.length > 0 && !architectures.includes('LlamaForCausalLM'))) {
    refuse(config.file, 'model_type', [modelType, ...architectures].filter(Boolean).join(', '))
  }
}

const llamaOfFolder = (folder: HuggingFaceFolder): LlamaConfig => {
  checkLlama(folder.config)
  weightSchemeOf(folder.config)
  return llamaFromHuggingFace(huggingFaceConfig(folder.config))
}

/** What describes a model whose weights need not be there: a folder with a config.json, or such a file of any name. */
export const openDescription = async (path: string, options: ReadOptions = {}): Promise<HuggingFaceFolder> => {
  if (await isFolder(path)) return readHuggingFace(path, options)
  const folder = diskFolder(dirname(path))
  const open: Folder['open'] = (name) => folder.open(name === 'config.json' ? basename(path) : name)
  return readHuggingFaceFrom({ ...folder, open }, options)
}

/** The config of such a model. */
export const openConfig = async (path: string, options: ReadOptions = {}): Promise<LlamaConfig> =>
  llamaOfFolder(await openDescription(path, options))

const openFolder = async (path: string, options: ReadOptions): Promise<OpenedModel> => {
  const folder = await readHuggingFace(path, options)
  const config = llamaOfFolder(folder)
  const source = await readSafetensors(path, options)
  const generation = folder.generation === undefined ? noDefaults : generationDefaults(folder.generation)
  const { modelType } = architectureOf(folder.config)
  const scheme = weightSchemeOf(folder.config)
  return opened(path, modelType, config, huggingFaceNames, source, { folder, generation }, scheme)
}

const opened = (
  path: string,
  architecture: string,
  config: LlamaConfig,
  names: LlamaNames,
  source: TensorSource,
  rest: Pick<OpenedModel, 'gguf' | 'folder' | 'generation'>,
  scheme?: WeightScheme,
): OpenedModel => {
  const weights: QuantizedSource =
    scheme === undefined ? { source, scales: new Map() } : quantizedSource(source, scheme)
  const bytesByType = new Map<string, number>()
  let parameters = 0
  for (const { dtype, shape, bytes } of weights.source.tensors.values()) {
    parameters += elementCount(shape)
    bytesByType.set(dtype, (bytesByType.get(dtype) ?? 0) + bytes)
  }
  const { ropeFrequencies } = config
  const ropeBytes = new Uint8Array(ropeFrequencies.buffer, ropeFrequencies.byteOffset, ropeFrequencies.byteLength)
  const regions: RegionSource[] = [
    ...source.files.map((file) => ({ path: file.path, bytes: file.size })),
    { data: ropeBytes },
  ]
  return {
    path,
    architecture,
    config,
    parameters,
    weightTypes: [...bytesByType].sort((a, b) => b[1] - a[1]).map(([dtype]) => dtype),
    weightBytes: [...source.tensors.values()].reduce((sum, { bytes }) => sum + bytes, 0),
    tensors: [...source.tensors.values()],
    regions,
    ...rest,
    build: (layout, options) => {
      const lookup = weightsOf(weights.source, weights.scales, scheme?.activationBound)
      return buildLlama(layout, config, names, lookup, { ...options, ropeRegion: regions.length - 1 })
    },
  }
}
