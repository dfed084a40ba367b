/**
 * Llama 2, 3, 3.1, 3.2 and 3.3 text models, and whatever has their form: RMSNorm, grouped-query attention with rotary
 * positions, SwiGLU, tied or separate head, optional biases. arXiv 2407.21783, section 3.2.
 */
import { DroverError } from '../errors.js'
import type { HuggingFaceConfig } from '../format/config.js'
import type { GgufFile } from '../format/gguf.js'
import { metadataInteger, metadataNumber, metadataString } from '../format/gguf-metadata.js'
import { ProgramBuilder, type Value, type WeightSource } from '../program/builder.js'
import type { ActivationMode, DeviceLayout, KvSpec, Program } from '../program/program.js'
import { inverseFrequencies, scaleFrequencies } from './rope.js'
import { requiredFrom, type WeightLookup } from './weights.js'

export interface LlamaConfig {
  /** Where it was read, for errors. */
  readonly file: string
  readonly hidden: number
  readonly intermediate: number
  readonly layers: number
  readonly heads: number
  readonly kvHeads: number
  readonly headDim: number
  readonly vocabulary: number
  readonly normEps: number
  /** Positions the model was trained for. */
  readonly contextLength: number
  readonly tied: boolean
  readonly attentionBias: boolean
  readonly mlpBias: boolean
  /** Inverse frequencies [n]; 2 n elements of each head are rotated. */
  readonly ropeFrequencies: Float32Array
  /** Half-split: i with i + n (Hugging Face); adjacent: 2 i with 2 i + 1 (GGUF permutes q and k so). */
  readonly ropeLayout: 'half-split' | 'adjacent'
}

type LayerPart = 'attention_norm' | 'q' | 'k' | 'v' | 'o' | 'ffn_norm' | 'gate' | 'up' | 'down'
type Part = 'embedding' | 'norm' | 'head'

/** Tensor names, without `.weight` or `.bias`. */
export interface LlamaNames {
  readonly model: Readonly<Record<Part, string>>
  readonly layer: Readonly<Record<LayerPart, (layer: number) => string>>
}

export const huggingFaceNames: LlamaNames = {
  model: { embedding: 'model.embed_tokens', norm: 'model.norm', head: 'lm_head' },
  layer: {
    attention_norm: (i) => `model.layers.${i}.input_layernorm`,
    q: (i) => `model.layers.${i}.self_attn.q_proj`,
    k: (i) => `model.layers.${i}.self_attn.k_proj`,
    v: (i) => `model.layers.${i}.self_attn.v_proj`,
    o: (i) => `model.layers.${i}.self_attn.o_proj`,
    ffn_norm: (i) => `model.layers.${i}.post_attention_layernorm`,
    gate: (i) => `model.layers.${i}.mlp.gate_proj`,
    up: (i) => `model.layers.${i}.mlp.up_proj`,
    down: (i) => `model.layers.${i}.mlp.down_proj`,
  },
}

export const ggufNames: LlamaNames = {
  model: { embedding: 'token_embd', norm: 'output_norm', head: 'output' },
  layer: {
    attention_norm: (i) => `blk.${i}.attn_norm`,
    q: (i) => `blk.${i}.attn_q`,
    k: (i) => `blk.${i}.attn_k`,
    v: (i) => `blk.${i}.attn_v`,
    o: (i) => `blk.${i}.attn_output`,
    ffn_norm: (i) => `blk.${i}.ffn_norm`,
    gate: (i) => `blk.${i}.ffn_gate`,
    up: (i) => `blk.${i}.ffn_up`,
    down: (i) => `blk.${i}.ffn_down`,
  },
}

/** Reads a GGUF file's metadata. `ropeFactors` is the content of `rope_freqs.weight`, where the file has it. */
export const llamaFromGguf = (file: GgufFile, ropeFactors?: Float32Array): LlamaConfig => {
  const path = file.files[0]?.path ?? ''
  const key = (name: string): string => `llama.${name}`
  const size = (name: string): number => metadataInteger(file, key(name), { minimum: 1, maximum: 2 ** 31 - 1 })
  const hidden = size('embedding_length')
  const heads = size('attention.head_count')
  const kvHeads = metadataInteger(file, key('attention.head_count_kv'), { minimum: 1, maximum: heads, fallback: heads })
  const headDim = metadataInteger(file, key('attention.key_length'), {
    minimum: 1,
    maximum: 4096,
    fallback: hidden / heads,
  })
  const valueDim = metadataInteger(file, key('attention.value_length'), { minimum: 1, fallback: headDim })
  if (heads % kvHeads !== 0 || !Number.isInteger(headDim) || valueDim !== headDim) {
    throw new DroverError('E_UNSUPPORTED', 'heads of this shape are not supported', {
      file: path,
      field: key('attention.head_count'),
      found: `${heads} heads, ${kvHeads} for keys, of ${headDim} and ${valueDim} elements`,
      expected: 'a whole number of query heads per key head, keys and values of one size',
    })
  }
  if (metadataInteger(file, key('expert_count'), { fallback: 0 }) > 0) {
    throw new DroverError('E_UNSUPPORTED', 'mixture-of-experts models are not supported', {
      file: path,
      field: key('expert_count'),
    })
  }
  const rotated = metadataInteger(file, key('rope.dimension_count'), {
    minimum: 2,
    maximum: headDim,
    fallback: headDim,
  })
  const scaling = metadataString(file, key('rope.scaling.type'), 'none')
  const plain = inverseFrequencies(metadataNumber(file, key('rope.freq_base'), 10000), rotated)
  const factor = metadataNumber(file, key('rope.scaling.factor'), 1)
  const scaled = scaleFrequencies(plain, { type: scaling === 'none' ? 'default' : scaling, factor }, path)
  if (ropeFactors !== undefined && ropeFactors.length !== scaled.length) {
    throw new DroverError('E_FORMAT', 'rope_freqs.weight has the wrong length', {
      file: path,
      field: 'rope_freqs.weight',
      found: ropeFactors.length,
      expected: scaled.length,
    })
  }
  const embedding = file.tensors.get('token_embd.weight')
  return {
    file: path,
    hidden,
    intermediate: size('feed_forward_length'),
    layers: metadataInteger(file, key('block_count'), { minimum: 1, maximum: 4096 }),
    heads,
    kvHeads,
    headDim,
    vocabulary: embedding?.shape[0] ?? size('vocab_size'),
    normEps: metadataNumber(file, key('attention.layer_norm_rms_epsilon')),
    contextLength: size('context_length'),
    tied: !file.tensors.has('output.weight'),
    attentionBias: file.tensors.has('blk.0.attn_q.bias'),
    mlpBias: file.tensors.has('blk.0.ffn_gate.bias'),
    ropeFrequencies:
      ropeFactors === undefined ? scaled : scaled.map((value, i) => Math.fround(value / (ropeFactors[i] as number))),
    ropeLayout: 'adjacent',
  }
}

/** Reads a Hugging Face config. */
export const llamaFromHuggingFace = (config: HuggingFaceConfig): LlamaConfig => {
  const refuse = (field: string, found: unknown, expected: string): never => {
    throw new DroverError('E_UNSUPPORTED', 'this variant of Llama is not supported', {
      file: config.file,
      field,
      found,
      expected,
    })
  }
  if (config.hiddenActivation !== 'silu') refuse('hidden_act', config.hiddenActivation, 'silu')
  if (config.headSize % 2 !== 0) refuse('head_dim', config.headSize, 'an even number')
  return {
    file: config.file,
    hidden: config.hiddenSize,
    intermediate: config.intermediateSize,
    layers: config.layers,
    heads: config.heads,
    kvHeads: config.keyValueHeads,
    headDim: config.headSize,
    vocabulary: config.vocabularySize,
    normEps: config.normEpsilon,
    contextLength: config.maxPositions,
    tied: config.tieWordEmbeddings,
    attentionBias: config.attentionBias,
    mlpBias: config.mlpBias,
    ropeFrequencies: scaleFrequencies(inverseFrequencies(config.rope.theta, config.headSize), config.rope, config.file),
    ropeLayout: 'half-split',
  }
}

export interface LlamaProgramOptions {
  maxRows: number
  maxOutputs: number
  maxSequences: number
  /** Page table entries of one step. */
  maxPages: number
  kvType: KvSpec['dtype']
  kvPages: number
  activations: ActivationMode
  /** Room for top log-probabilities per sampled token. */
  candidates: number
  /** Region of `ropeFrequencies`, an f32 array at offset 0. */
  ropeRegion: number
}

/**
 * The forward pass. Roles of outputs: `logits` [outputs, V], `nll` [outputs, 1] (needs targets), `sample` (needs
 * sampling parameters). Ops are named `layers.<i>.attention.q`, …; the residual stream after layer i is `layers.<i>.mlp.down`.
 */
export const buildLlama = (
  layout: DeviceLayout,
  config: LlamaConfig,
  names: LlamaNames,
  weights: WeightLookup,
  options: LlamaProgramOptions,
): Program => {
  const { hidden, intermediate, heads, kvHeads, headDim, vocabulary } = config
  const { kvType, kvPages, candidates, ropeRegion, ...limits } = options
  const required = requiredFrom(weights, config.file)
  const matrix = (name: string, rows: number, cols: number): WeightSource => required(`${name}.weight`, rows, cols)
  const vector = (name: string, cols: number): WeightSource => required(`${name}.weight`, 1, cols)
  const bias = (wanted: boolean, name: string, cols: number): WeightSource | undefined =>
    wanted ? required(`${name}.bias`, 1, cols) : undefined

  const b = new ProgramBuilder(layout, {
    ...limits,
    vocabulary,
    kv: { layers: config.layers, heads: kvHeads, headDim, dtype: kvType, pages: kvPages },
  })
  const embedding = matrix(names.model.embedding, vocabulary, hidden)
  const frequencies = {
    name: 'rope_frequencies',
    dtype: 'f32' as const,
    rows: 1,
    cols: config.ropeFrequencies.length,
    region: ropeRegion,
    offset: 0,
  }
  const table = b.ropeTable('rope', frequencies)

  const attention = (x: Value, layer: number): Value => {
    const part = (name: LayerPart): string => names.layer[name](layer)
    const linear = (name: 'q' | 'k' | 'v', cols: number): Value => {
      const biasVector = bias(config.attentionBias, part(name), cols)
      return b.linear(name, x, matrix(part(name), cols, hidden), biasVector === undefined ? {} : { bias: biasVector })
    }
    const q = linear('q', heads * headDim)
    const k = linear('k', kvHeads * headDim)
    const v = linear('v', kvHeads * headDim)
    b.rope('rope_q', q, table, heads, config.ropeLayout)
    b.rope('rope_k', k, table, kvHeads, config.ropeLayout)
    b.kvWrite('cache', k, v, layer)
    return b.attention('scores', q, { layer, heads, scale: 1 / Math.sqrt(headDim), causal: true })
  }

  let x = b.embed('embedding', embedding)
  for (let layer = 0; layer < config.layers; layer++) {
    const part = (name: LayerPart): string => names.layer[name](layer)
    x = b.scope(`layers.${layer}`, () => {
      let mixed = b.scope('attention', () =>
        attention(b.rmsNorm('norm', x, vector(part('attention_norm'), hidden), config.normEps), layer),
      )
      let residual = x
      if (layer === config.layers - 1) {
        // Behind the last attention only the rows that reach the head are needed.
        mixed = b.gather('attention.outputs', mixed)
        residual = b.gather('outputs', residual)
      }
      const middle = b.linear('attention.o', mixed, matrix(part('o'), hidden, heads * headDim), {
        residual,
        ...biased(bias(config.attentionBias, part('o'), hidden)),
      })
      return b.scope('mlp', () => {
        const h = b.rmsNorm('norm', middle, vector(part('ffn_norm'), hidden), config.normEps)
        const up = (name: 'gate' | 'up'): Value =>
          b.linear(
            name,
            h,
            matrix(part(name), intermediate, hidden),
            biased(bias(config.mlpBias, part(name), intermediate)),
          )
        const gated = b.swiglu('gated', up('gate'), up('up'))
        return b.linear('down', gated, matrix(part('down'), hidden, intermediate), {
          residual: middle,
          ...biased(bias(config.mlpBias, part('down'), hidden)),
        })
      })
    })
  }
  const normed = b.rmsNorm('norm', x, vector(names.model.norm, hidden), config.normEps)
  b.output('hidden', normed)
  const head = config.tied ? embedding : matrix(names.model.head, vocabulary, hidden)
  const logits = b.linear('logits', normed, head)
  b.output('logits', logits)
  b.output('nll', b.tokenNll('nll', logits))
  b.output('sample', b.sample('sample', logits, candidates))
  return b.finish()
}

const biased = (bias: WeightSource | undefined): { bias?: WeightSource } => (bias === undefined ? {} : { bias })
