/** What is converted, whatever form it has: weights under the names of GGUF, and metadata as GGUF keeps it. */

import { DroverError } from '../errors.js'
import { type HuggingFaceConfig, type HuggingFaceFolder, huggingFaceConfig, readHuggingFace } from '../format/config.js'
import type { FileEntry, ReadOptions } from '../format/file.js'
import type { GgufFile } from '../format/gguf.js'
import { metadataInteger, metadataString } from '../format/gguf-metadata.js'
import { entryOf, type GgufEntry } from '../format/gguf-writer.js'
import { readSafetensors, type SafetensorsFile } from '../format/safetensors.js'
import { llamaFromHuggingFace } from '../model/llama.js'
import { checkLlama } from '../model/open.js'
import { type DTypeName, elementCount, type TensorInfo } from '../tensor.js'

export interface SourceTensor {
  /** Its name in GGUF files. */
  readonly name: string
  readonly info: TensorInfo
  readonly rows: number
  readonly cols: number
  /**
   * Rows of a head, where the file pairs rotated elements half by half: row 2 i + s of each head comes from row
   * i + s · headRows / 2.
   */
  readonly headRows?: number
}

export interface Source {
  readonly files: readonly FileEntry[]
  readonly tensors: readonly SourceTensor[]
  /** Vectors that are in no file. */
  readonly made: ReadonlyMap<string, Float32Array>
  readonly metadata: Map<string, GgufEntry>
  readonly layers: number
  /** Query heads that share one key and value head. */
  readonly sharing: number
}

/** A tensor as it is: a vector is one row. */
export const asStored = (name: string, info: TensorInfo): SourceTensor => {
  const cols = info.shape.at(-1) ?? 1
  return { name, info, rows: cols === 0 ? 0 : elementCount(info.shape) / cols, cols }
}

const mostCols = 2 ** 24

/** Throws E_UNSUPPORTED for rows that are too long for a chunk. */
export const checkCols = ({ name, cols }: SourceTensor): void => {
  if (cols <= mostCols) return
  throw new DroverError('E_UNSUPPORTED', 'rows of this length are not quantised', {
    field: name,
    found: cols,
    expected: `at most ${mostCols}`,
  })
}

/** Formats of numbers that stand for themselves. */
export const plainFloats: readonly DTypeName[] = ['f32', 'f16', 'bf16', 'f64']

/** What is read of a folder in Hugging Face layout. */
export interface LlamaFolder {
  readonly folder: HuggingFaceFolder
  readonly config: HuggingFaceConfig
  readonly weights: SafetensorsFile
}

/** Opens a folder with the weights of a Llama as plain numbers. Throws E_UNSUPPORTED for others. */
export const readLlamaFolder = async (path: string, options: ReadOptions): Promise<LlamaFolder> => {
  const folder = await readHuggingFace(path, options)
  checkLlama(folder.config)
  const config = huggingFaceConfig(folder.config)
  if (config.quantization !== undefined) {
    throw new DroverError('E_UNSUPPORTED', 'weights that are quantised themselves are not converted', {
      file: config.file,
      field: 'quantization_config',
      found: config.quantization,
      expected: 'weights as plain numbers',
    })
  }
  llamaFromHuggingFace(config) // refuses variants that would be converted into something else
  return { folder, config, weights: await readSafetensors(path, options) }
}

/** A GGUF file as a source. Throws E_UNSUPPORTED for other architectures than llama. */
export const ggufSource = (gguf: GgufFile): Source => {
  const architecture = metadataString(gguf, 'general.architecture')
  if (architecture !== 'llama') {
    throw new DroverError('E_UNSUPPORTED', 'this architecture is not quantised', {
      file: gguf.files[0]?.path,
      field: 'general.architecture',
      found: architecture,
      expected: 'llama',
    })
  }
  const heads = metadataInteger(gguf, 'llama.attention.head_count', { minimum: 1 })
  const metadata = new Map<string, GgufEntry>()
  for (const [key, value] of gguf.metadata) {
    // What is no longer true of one file with other weights.
    if (/^split\.|^quantize\.imatrix\./.test(key)) continue
    metadata.set(key, entryOf(key, gguf.metadataTypes.get(key), value))
  }
  return {
    files: gguf.files,
    tensors: [...gguf.tensors.values()].map((info) => asStored(info.name, info)),
    made: new Map(),
    metadata,
    layers: metadataInteger(gguf, 'llama.block_count', { minimum: 1 }),
    sharing: heads / metadataInteger(gguf, 'llama.attention.head_count_kv', { minimum: 1, fallback: heads }),
  }
}
