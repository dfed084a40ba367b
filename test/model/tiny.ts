/** Writes small random Llama models as GGUF, of any shape and form. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type GgufEntry, type GgufTensor, writeGguf } from '../../lib/format/gguf-writer.js'
import { quantize, type WeightDType } from '../../lib/kernels.js'
import { dtypes } from '../../lib/tensor.js'
import { type Random, storedWeight } from '../program/random-programs.js'

export interface TinyModel {
  hidden: number
  intermediate: number
  layers: number
  heads: number
  kvHeads: number
  headDim: number
  vocabulary: number
  tied: boolean
  bias: boolean
  /** Factors on the inverse frequencies. */
  ropeFactors: boolean
  /** Elements of each head that turn. */
  rotated: number
  /** One of these per matrix, where its columns allow. */
  types: readonly WeightDType[]
}

/** Changes to what is written: metadata to set, or to leave out (undefined); tensors to rename or leave out. */
export interface TinyChanges {
  metadata?: Readonly<Record<string, GgufEntry | undefined>>
  tensors?: (tensor: GgufTensor) => GgufTensor | undefined
}

const tensorOf = (name: string, dtype: WeightDType, shape: readonly number[], bytes: Uint8Array): GgufTensor => ({
  name,
  type: dtype,
  shape,
  bytes: bytes.length,
  chunks: () => [bytes],
})

const tensorsOf = (random: Random, model: TinyModel): GgufTensor[] => {
  const { hidden, intermediate, heads, kvHeads, headDim, vocabulary, types } = model
  const matrix = (name: string, rows: number, cols: number): GgufTensor => {
    const fitting = types.filter((type) => cols % dtypes[type].block === 0)
    const dtype = fitting[Math.floor(random() * fitting.length)] ?? 'f32'
    return tensorOf(`${name}.weight`, dtype, [rows, cols], storedWeight(random, dtype, rows, cols, 1 / Math.sqrt(cols)))
  }
  const vector = (name: string, cols: number, middle: number): GgufTensor => {
    const values = Float32Array.from({ length: cols }, () => middle + (random() - 0.5) / 2)
    return tensorOf(name, 'f32', [cols], quantize('f32', values, [1, cols]))
  }
  const tensors = [matrix('token_embd', vocabulary, hidden), vector('output_norm.weight', hidden, 1)]
  if (!model.tied) tensors.push(matrix('output', vocabulary, hidden))
  if (model.ropeFactors) tensors.push(vector('rope_freqs.weight', model.rotated / 2, 2))
  for (let i = 0; i < model.layers; i++) {
    const linear = (name: string, rows: number, cols: number): void => {
      tensors.push(matrix(`blk.${i}.${name}`, rows, cols))
      if (model.bias) tensors.push(vector(`blk.${i}.${name}.bias`, rows, 0))
    }
    tensors.push(vector(`blk.${i}.attn_norm.weight`, hidden, 1), vector(`blk.${i}.ffn_norm.weight`, hidden, 1))
    linear('attn_q', heads * headDim, hidden)
    linear('attn_k', kvHeads * headDim, hidden)
    linear('attn_v', kvHeads * headDim, hidden)
    linear('attn_output', hidden, heads * headDim)
    linear('ffn_gate', intermediate, hidden)
    linear('ffn_up', intermediate, hidden)
    linear('ffn_down', hidden, intermediate)
  }
  return tensors
}

const metadataOf = (model: TinyModel): Map<string, GgufEntry> =>
  new Map<string, GgufEntry>([
    ['general.architecture', { type: 'string', value: 'llama' }],
    ['llama.context_length', { type: 'u32', value: 512 }],
    ['llama.embedding_length', { type: 'u32', value: model.hidden }],
    ['llama.feed_forward_length', { type: 'u32', value: model.intermediate }],
    ['llama.block_count', { type: 'u32', value: model.layers }],
    ['llama.attention.head_count', { type: 'u32', value: model.heads }],
    ['llama.attention.head_count_kv', { type: 'u32', value: model.kvHeads }],
    ['llama.attention.key_length', { type: 'u32', value: model.headDim }],
    ['llama.attention.value_length', { type: 'u32', value: model.headDim }],
    ['llama.attention.layer_norm_rms_epsilon', { type: 'f32', value: 1e-5 }],
    ['llama.rope.dimension_count', { type: 'u32', value: model.rotated }],
    ['llama.rope.freq_base', { type: 'f32', value: 10000 }],
    ['llama.vocab_size', { type: 'u32', value: model.vocabulary }],
  ])

/** Gives the body the path of a file that holds the model; the file goes when the body has ended. */
export const withTinyModel = async <T>(
  random: Random,
  model: TinyModel,
  body: (path: string) => Promise<T>,
  changes: TinyChanges = {},
): Promise<T> => {
  const folder = mkdtempSync(join(tmpdir(), 'drover-'))
  try {
    const metadata = metadataOf(model)
    for (const [key, entry] of Object.entries(changes.metadata ?? {})) {
      if (entry === undefined) metadata.delete(key)
      else metadata.set(key, entry)
    }
    const tensors = tensorsOf(random, model).flatMap((tensor) => (changes.tensors ?? ((same) => same))(tensor) ?? [])
    const path = join(folder, 'model.gguf')
    await writeGguf(path, metadata, tensors)
    return await body(path)
  } finally {
    rmSync(folder, { recursive: true })
  }
}
