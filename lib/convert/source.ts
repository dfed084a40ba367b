/** What is converted, whatever form it has: weights under the names of GGUF, and metadata as GGUF keeps it. */

import { DroverError } from '../errors.js'
import type { FileEntry } from '../format/file.js'
import type { GgufFile } from '../format/gguf.js'
import { metadataInteger, metadataString } from '../format/gguf-metadata.js'
import { entryOf, type GgufEntry } from '../format/gguf-writer.js'
import { elementCount, type TensorInfo } from '../tensor.js'

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
