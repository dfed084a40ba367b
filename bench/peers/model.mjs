// Synthetic GGUF files: true shapes, real vocabulary size, random weights of a spread that keeps activations finite.
// The values are noise; sizes, types and the mix of types are those of published files.
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'

const require = createRequire(import.meta.url)

export const shapes = {
  '1b': {
    hidden: 2048,
    layers: 16,
    heads: 32,
    kvHeads: 8,
    headDim: 64,
    intermediate: 8192,
    vocabulary: 128256,
    tied: true,
  },
  '8b': {
    hidden: 4096,
    layers: 32,
    heads: 32,
    kvHeads: 8,
    headDim: 128,
    intermediate: 14336,
    vocabulary: 128256,
    tied: false,
  },
}

// bytes per block, elements per block, and how a block gets its scales (the rest of its bytes is random)
const half = (value) => {
  const float = new Float32Array([value])
  const bits = new Uint32Array(float.buffer)[0]
  const exponent = ((bits >>> 23) & 255) - 112
  if (exponent > 0) return (exponent << 10) | ((bits >>> 13) & 1023)
  return Math.round(value / 2 ** -24)
}
const putHalf = (block, at, value) => {
  const bits = half(value)
  block[at] = bits & 255
  block[at + 1] = bits >>> 8
}
const types = {
  F16: { elements: 1, bytes: 2 },
  Q8_0: { elements: 32, bytes: 34, scales: (block) => putHalf(block, 0, 2.7e-4) },
  Q4_0: { elements: 32, bytes: 18, scales: (block) => putHalf(block, 0, 4.4e-3) },
  Q4_K: {
    elements: 256,
    bytes: 144,
    scales: (block) => {
      putHalf(block, 0, 1e-4)
      putHalf(block, 2, 7.5e-4)
    },
  },
  Q6_K: { elements: 256, bytes: 210, scales: (block) => putHalf(block, 208, 1.5e-5) },
}

/** 16 MiB or so of whole random blocks; tensors are cut from it at different places. */
const poolOf = (type) => {
  const { bytes, scales } = types[type]
  const count = Math.floor((16 << 20) / bytes)
  const pool = new Uint8Array(count * bytes)
  const words = new Uint32Array(pool.buffer, 0, pool.length >>> 2)
  let state = 0x9e3779b9
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    words[i] = state
  }
  if (type === 'F16') {
    // sign and mantissa random, exponent of 2^-6: |w| in [1/64, 1/32)
    for (let i = 1; i < pool.length; i += 2) pool[i] = (pool[i] & 0x83) | 0x24
  } else {
    for (let i = 0; i < count; i++) scales(pool.subarray(i * bytes, (i + 1) * bytes))
  }
  return pool
}

/** llama.cpp's rule for which layers of a Q4_K_M file keep attn_v and ffn_down in Q6_K. */
const moreBits = (layer, layers) =>
  layer < Math.floor(layers / 8) || layer >= Math.floor((7 * layers) / 8) || (layer - Math.floor(layers / 8)) % 3 === 2

const typeOf = (mix, role, layer, shape) => {
  const big = mix === 'F16' || mix === 'Q8_0' || mix === 'Q6_K'
  if (big) return mix
  if (role === 'head') return 'Q6_K'
  if (mix === 'Q4_0') return 'Q4_0'
  if (role === 'embedding') return 'Q4_K'
  return (role === 'v' || role === 'down') && moreBits(layer, shape.layers) ? 'Q6_K' : 'Q4_K'
}

/** A SentencePiece-form vocabulary of the right size: control tokens, 256 byte tokens, then made-up words. */
const vocabularyOf = (size) => {
  const tokens = ['<unk>', '<s>', '</s>']
  const kinds = [2, 3, 3]
  for (let byte = 0; byte < 256; byte++) {
    tokens.push(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`)
    kinds.push(6)
  }
  while (tokens.length < size) {
    tokens.push(`▁w${tokens.length.toString(36)}`)
    kinds.push(1)
  }
  return { tokens, kinds, scores: tokens.map((_, index) => -index) }
}

export const writeModel = async (path, name, mix) => {
  if (existsSync(path)) return
  const { writeGguf } = require('../../dist/format/gguf-writer.js')
  const shape = shapes[name]
  const { tokens, kinds, scores } = vocabularyOf(shape.vocabulary)
  const metadata = new Map([
    ['general.architecture', { type: 'string', value: 'llama' }],
    ['general.name', { type: 'string', value: `synthetic ${name} ${mix}` }],
    ['llama.vocab_size', { type: 'u32', value: shape.vocabulary }],
    ['llama.context_length', { type: 'u32', value: 131072 }],
    ['llama.embedding_length', { type: 'u32', value: shape.hidden }],
    ['llama.block_count', { type: 'u32', value: shape.layers }],
    ['llama.feed_forward_length', { type: 'u32', value: shape.intermediate }],
    ['llama.rope.dimension_count', { type: 'u32', value: shape.headDim }],
    ['llama.rope.freq_base', { type: 'f32', value: 500000 }],
    ['llama.attention.head_count', { type: 'u32', value: shape.heads }],
    ['llama.attention.head_count_kv', { type: 'u32', value: shape.kvHeads }],
    ['llama.attention.layer_norm_rms_epsilon', { type: 'f32', value: 1e-5 }],
    ['tokenizer.ggml.model', { type: 'string', value: 'llama' }],
    ['tokenizer.ggml.tokens', { type: 'string[]', value: tokens }],
    ['tokenizer.ggml.scores', { type: 'f32[]', value: scores }],
    ['tokenizer.ggml.token_type', { type: 'i32[]', value: kinds }],
    ['tokenizer.ggml.bos_token_id', { type: 'u32', value: 1 }],
    ['tokenizer.ggml.eos_token_id', { type: 'u32', value: 2 }],
  ])
  const pools = new Map()
  const tensors = []
  let cut = 0
  const matrix = (tensorName, type, rows, cols) => {
    if (!pools.has(type)) pools.set(type, poolOf(type))
    const pool = pools.get(type)
    const { elements, bytes } = types[type]
    const total = (rows * cols * bytes) / elements
    const start = ((cut += 7919) % (pool.length / bytes)) * bytes
    tensors.push({
      name: tensorName,
      type,
      shape: [rows, cols],
      bytes: total,
      *chunks() {
        for (let written = 0, at = start; written < total; ) {
          const size = Math.min(total - written, pool.length - at)
          yield pool.subarray(at, at + size)
          written += size
          at = 0
        }
      },
    })
  }
  const vector = (tensorName, values) =>
    tensors.push({
      name: tensorName,
      type: 'F32',
      shape: [values.length],
      bytes: values.length * 4,
      *chunks() {
        yield new Uint8Array(Float32Array.from(values).buffer)
      },
    })
  const ones = Array.from({ length: shape.hidden }, () => 1)
  const { hidden, heads, kvHeads, headDim, intermediate, vocabulary } = shape
  matrix('token_embd.weight', typeOf(mix, shape.tied ? 'head' : 'embedding', 0, shape), vocabulary, hidden)
  vector(
    'rope_freqs.weight',
    Array.from({ length: headDim / 2 }, (_, i) => (i < headDim / 4 ? 1 : 32)),
  )
  for (let layer = 0; layer < shape.layers; layer++) {
    const add = (part, role, rows, cols) =>
      matrix(`blk.${layer}.${part}.weight`, typeOf(mix, role, layer, shape), rows, cols)
    vector(`blk.${layer}.attn_norm.weight`, ones)
    add('attn_q', 'q', heads * headDim, hidden)
    add('attn_k', 'k', kvHeads * headDim, hidden)
    add('attn_v', 'v', kvHeads * headDim, hidden)
    add('attn_output', 'o', hidden, heads * headDim)
    vector(`blk.${layer}.ffn_norm.weight`, ones)
    add('ffn_gate', 'gate', intermediate, hidden)
    add('ffn_up', 'up', intermediate, hidden)
    add('ffn_down', 'down', hidden, intermediate)
  }
  vector('output_norm.weight', ones)
  if (!shape.tied) matrix('output.weight', typeOf(mix, 'head', 0, shape), vocabulary, hidden)
  await writeGguf(path, metadata, tensors)
}

const cacheBytesPerElement = 2 // f16, in all engines

/** What one token costs, by shape and mix. */
export const costs = (name) => {
  const shape = shapes[name]
  const { hidden, layers, heads, kvHeads, headDim, intermediate, vocabulary } = shape
  const parts = [
    ['q', heads * headDim * hidden],
    ['k', kvHeads * headDim * hidden],
    ['v', kvHeads * headDim * hidden],
    ['o', heads * headDim * hidden],
    ['gate', intermediate * hidden],
    ['up', intermediate * hidden],
    ['down', intermediate * hidden],
  ]
  return {
    /** Operations of the layers per token, two per multiply-add; the head works for the last token alone. */
    layerOperations: 2 * layers * parts.reduce((total, [, count]) => total + count, 0),
    /** Operations of attention for a prompt of that many tokens. */
    attentionOperations: (tokens) => 2 * layers * heads * headDim * tokens * (tokens + 1),
    /** Bytes of keys and values that one token reads behind that many others. */
    cacheBytes: (positions) => 2 * layers * kvHeads * headDim * cacheBytesPerElement * positions,
    /** Bytes of weights that one token reads: all matrices and the head, of the embedding table only a row. */
    weightBytes: (mix) => {
      let total = 0
      const add = (role, layer, count) => {
        const { elements, bytes: size } = types[typeOf(mix, role, layer, shape)]
        total += (count * size) / elements
      }
      for (let layer = 0; layer < layers; layer++) for (const [role, count] of parts) add(role, layer, count)
      add('head', 0, vocabulary * hidden)
      return total
    },
  }
}
