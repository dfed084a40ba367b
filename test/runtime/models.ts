/**
 * Writes models of any size quickly, with a tokenizer: weights are cut from one pool of random blocks. The values are
 * noise; sizes and types are those of real files.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type GgufEntry, type GgufTensor, writeGguf } from '../../lib/format/gguf-writer.js'
import { quantize } from '../../lib/kernels.js'
import { randomSource } from '../support.js'

export interface ModelShape {
  hidden: number
  layers: number
  heads: number
  kvHeads: number
  headDim: number
  intermediate: number
  vocabulary: number
}

/** Llama 3.2 1B. */
export const oneBillion: ModelShape = {
  hidden: 2048,
  layers: 16,
  heads: 32,
  kvHeads: 8,
  headDim: 64,
  intermediate: 8192,
  vocabulary: 128256,
}

/** As little as a model can be. */
export const smallest: ModelShape = {
  hidden: 64,
  layers: 2,
  heads: 2,
  kvHeads: 1,
  headDim: 32,
  intermediate: 128,
  vocabulary: 512,
}

const block = { elements: 32, bytes: 18 } // Q4_0

/** Whole random blocks of Q4_0. */
const makePool = (blocks: number): Uint8Array => {
  const random = randomSource(7)
  const values = Float32Array.from({ length: 4096 * block.elements }, () => (random() - 0.5) * 0.07)
  const bytes = quantize('q4_0', values, [4096, block.elements])
  const pool = new Uint8Array(blocks * block.bytes)
  for (let at = 0; at < blocks; at++) {
    const from = Math.floor(random() * 4096) * block.bytes
    pool.set(bytes.subarray(from, from + block.bytes), at * block.bytes)
  }
  return pool
}

const tensorsOf = (shape: ModelShape): GgufTensor[] => {
  const { hidden, layers, heads, kvHeads, headDim, intermediate, vocabulary } = shape
  const pool = makePool(1 << 18)
  let cut = 0
  const matrix = (name: string, rows: number, cols: number): GgufTensor => {
    const bytes = ((rows * cols) / block.elements) * block.bytes
    const start = (cut += 7919 * block.bytes) % pool.length
    return {
      name: `${name}.weight`,
      type: 'Q4_0',
      shape: [rows, cols],
      bytes,
      *chunks() {
        for (let written = 0, at = start; written < bytes; at = 0) {
          const size = Math.min(bytes - written, pool.length - at)
          yield pool.subarray(at, at + size)
          written += size
        }
      },
    }
  }
  const ones = (name: string): GgufTensor => ({
    name: `${name}.weight`,
    type: 'F32',
    shape: [hidden],
    bytes: hidden * 4,
    chunks: () => [new Uint8Array(new Float32Array(hidden).fill(1).buffer)],
  })
  const tensors = [matrix('token_embd', vocabulary, hidden), ones('output_norm')]
  for (let i = 0; i < layers; i++) {
    tensors.push(
      ones(`blk.${i}.attn_norm`),
      matrix(`blk.${i}.attn_q`, heads * headDim, hidden),
      matrix(`blk.${i}.attn_k`, kvHeads * headDim, hidden),
      matrix(`blk.${i}.attn_v`, kvHeads * headDim, hidden),
      matrix(`blk.${i}.attn_output`, hidden, heads * headDim),
      ones(`blk.${i}.ffn_norm`),
      matrix(`blk.${i}.ffn_gate`, intermediate, hidden),
      matrix(`blk.${i}.ffn_up`, intermediate, hidden),
      matrix(`blk.${i}.ffn_down`, hidden, intermediate),
    )
  }
  return tensors
}

/** A SentencePiece vocabulary: control tokens, one token per byte, then made-up words. */
const tokenizerOf = (vocabulary: number): [string, GgufEntry][] => {
  const tokens = ['<unk>', '<s>', '</s>']
  const kinds = [2, 3, 3]
  for (let byte = 0; byte < 256; byte++) {
    tokens.push(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`)
    kinds.push(6)
  }
  while (tokens.length < vocabulary) {
    tokens.push(`▁w${tokens.length.toString(36)}`)
    kinds.push(1)
  }
  return [
    ['tokenizer.ggml.model', { type: 'string', value: 'llama' }],
    ['tokenizer.ggml.tokens', { type: 'string[]', value: tokens }],
    ['tokenizer.ggml.scores', { type: 'f32[]', value: tokens.map((_, i) => -i) }],
    ['tokenizer.ggml.token_type', { type: 'i32[]', value: kinds }],
    ['tokenizer.ggml.bos_token_id', { type: 'u32', value: 1 }],
    ['tokenizer.ggml.eos_token_id', { type: 'u32', value: 2 }],
  ]
}

const metadataOf = (shape: ModelShape): Map<string, GgufEntry> => {
  const number = (key: string, value: number): [string, GgufEntry] => [`llama.${key}`, { type: 'u32', value }]
  return new Map<string, GgufEntry>([
    ['general.architecture', { type: 'string', value: 'llama' }],
    number('vocab_size', shape.vocabulary),
    number('context_length', 4096),
    number('embedding_length', shape.hidden),
    number('block_count', shape.layers),
    number('feed_forward_length', shape.intermediate),
    number('rope.dimension_count', shape.headDim),
    number('attention.head_count', shape.heads),
    number('attention.head_count_kv', shape.kvHeads),
    ['llama.attention.layer_norm_rms_epsilon', { type: 'f32', value: 1e-5 }],
    ['llama.rope.freq_base', { type: 'f32', value: 500000 }],
    ...tokenizerOf(shape.vocabulary),
  ])
}

/** A model file in a folder of its own; `remove` deletes both. */
export const writeModel = async (shape: ModelShape): Promise<{ path: string; remove: () => void }> => {
  const folder = mkdtempSync(join(tmpdir(), 'drover-'))
  const path = join(folder, 'model.gguf')
  const remove = (): void => rmSync(folder, { recursive: true, force: true })
  try {
    await writeGguf(path, metadataOf(shape), tensorsOf(shape))
  } catch (error) {
    remove()
    throw error
  }
  return { path, remove }
}
