/**
 * config.json of recommenders: the flags of facebookresearch/dlrm (architecture "dlrm") and of TorchRec's DLRMs
 * (architecture "dlrm_dcn", also with interaction_type "original"), lists as JSON or as the flags write them; the arguments
 * of TorchRec's SimpleDeepFMNN (architecture "deepfm"). What a flag asks for that would be computed otherwise is refused.
 */
import { DroverError } from '../errors.js'
import type { ConfigRecord } from '../format/config.js'
import { type Pairs, type Pooling, pairCount, poolings } from '../program/tables.js'
import type { TableShape } from './tables.js'

interface CommonConfig {
  /** Where it was read, for errors. */
  readonly file: string
  /** Whose state-dict names the weights have. */
  readonly names: 'dlrm' | 'torchrec'
  readonly denseFeatures: number
  readonly tables: readonly TableShape[]
  readonly pooling: Pooling
  /** Outputs of each layer of the MLP over the dense features; ReLU follows every layer. */
  readonly bottom: readonly number[]
  /** Outputs of each layer of the last MLP; the last one gives the logit. */
  readonly top: readonly number[]
  /** What the last MLP reads. */
  readonly topInputs: number
  /** Above 0: probabilities are clamped to [threshold, 1 - threshold]. */
  readonly lossThreshold: number
}

/** DLRM (arXiv 1906.00091): products of all pairs of embeddings, or all embeddings as they are. */
export interface DotConfig extends CommonConfig {
  readonly architecture: 'dlrm'
  readonly interaction: 'dot' | 'cat'
  /** 'dot': which products, in which order. */
  readonly pairs: Pairs
}

/** DLRM-DCNv2: a low-rank cross network (arXiv 2008.13535). */
export interface CrossConfig extends CommonConfig {
  readonly architecture: 'dlrm_dcn'
  readonly crossLayers: number
  readonly crossRank: number
}

/** DeepFM (arXiv 1703.04247): a factorization machine beside a layer over all embeddings. */
export interface FactorConfig extends CommonConfig {
  readonly architecture: 'deepfm'
  /** Outputs of the layer over all embeddings. */
  readonly deepWidth: number
}

export type RecommenderConfig = DotConfig | CrossConfig | FactorConfig

export const recommenderArchitectures = ['dlrm', 'dlrm_dcn', 'deepfm'] as const

const mostTables = 4096
const mostLayers = 64
const mostWidth = 2 ** 20
/** Rows of a table: indices are 32-bit integers. */
const mostRows = 2 ** 31 - 1
export const mostDim = 1024

interface SizeLimits {
  /** Entries of the list. */
  readonly entries: number
  readonly maximum: number
}

/** A list of sizes: `[13, 512, 64]`, or `"13-512-64"` or `"13,512,64"` as command lines have it. */
const sizes = (config: ConfigRecord, key: string, { entries, maximum }: SizeLimits): number[] => {
  const value = config.get(key)
  const refusal = (found?: unknown): DroverError =>
    config.refuse(key, `1 to ${entries} integers from 1 to ${maximum}`, ...(found === undefined ? [] : [found]))
  // Longer texts hold more numbers than are allowed.
  const text = typeof value === 'string' && value.length <= entries * 11
  const list = text ? value.split(/[-,]/).map((part) => (/^\s*\d+\s*$/.test(part) ? Number(part) : Number.NaN)) : value
  if (!Array.isArray(list) || list.length === 0 || list.length > entries) throw refusal()
  const wrong = list.findIndex((n) => typeof n !== 'number' || !Number.isInteger(n) || n < 1 || n > maximum)
  if (wrong !== -1) throw refusal(`${typeof list[wrong] === 'object' ? 'an object' : list[wrong]} at position ${wrong}`)
  return list as number[]
}

const layerSizes = (config: ConfigRecord, key: string): number[] =>
  sizes(config, key, { entries: mostLayers, maximum: mostWidth })

/** Tables of these rows; `tables` of the config may name them. */
const tableShapes = (
  config: ConfigRecord,
  rows: readonly number[],
  dim: number,
  tensor: (index: number) => string,
  name: (index: number) => string,
): TableShape[] => {
  const names = config.strings('tables')
  if (names.length > 0 && (names.length !== rows.length || new Set(names).size !== names.length)) {
    throw config.refuse('tables', `${rows.length} different names, one per table`)
  }
  return rows.map((count, i) => ({ name: names[i] ?? name(i), tensor: tensor(i), rows: count, dim }))
}

/** Entries that must be absent or have one of these values: others would be computed differently. */
const expectAll = (config: ConfigRecord, entries: Readonly<Record<string, readonly unknown[]>>): void => {
  for (const [key, allowed] of Object.entries(entries)) {
    const found = config.get(key)
    if (found === undefined || allowed.includes(found)) continue
    throw new DroverError('E_UNSUPPORTED', 'a recommender of this kind is not supported', {
      file: config.file,
      field: key,
      found: typeof found === 'object' ? 'an object' : found,
      expected: allowed.length === 0 ? 'no such entry' : `${allowed.join(' or ')}, or no such entry`,
    })
  }
}

const choice = <T extends string>(config: ConfigRecord, key: string, allowed: readonly T[], fallback: T): T => {
  const value = config.string(key, fallback)
  if (allowed.includes(value as T)) return value as T
  throw config.refuse(key, allowed.join(' or '), value)
}

const lossThreshold = (config: ConfigRecord): number => {
  const threshold = config.number('loss_threshold', { minimum: 0, fallback: 0 })
  // As in the original, a threshold of 1 or more has no effect; between the two, the bounds would cross.
  if (threshold > 0.5 && threshold < 1) throw config.refuse('loss_threshold', 'a number from 0 to 0.5')
  return threshold < 1 ? threshold : 0
}

/** Width of what the last MLP of a DLRM reads. */
const interactionWidth = (bottom: number, tables: number, dim: number, op: 'dot' | 'cat', pairs: Pairs): number =>
  bottom + (op === 'cat' ? tables * dim : pairCount(pairs, tables + 1))

/**
 * arch_mlp_top with or without its input: the flag of the original is given without, its network and the configs of this
 * project have it in front. Where both could be meant, the number of layers that the file holds decides.
 */
const topSizes = (config: ConfigRecord, width: number, has: (tensor: string) => boolean): number[] => {
  const given = layerSizes(config, 'arch_mlp_top')
  const isInFront = given[0] === width && given.length > 1 && !has(`top_l.${2 * (given.length - 1)}.weight`)
  const top = isInFront ? given.slice(1) : given
  if (top.at(-1) === 1) return top
  throw config.refuse('arch_mlp_top', 'a last layer of one output', `${top.at(-1)} outputs`)
}

const dotConfig = (config: ConfigRecord, has: (tensor: string) => boolean): DotConfig => {
  expectAll(config, {
    qr_flag: [false],
    md_flag: [false],
    activation_function: ['relu'],
    weighted_pooling: [''],
    arch_project_size: [0],
  })
  const dim = config.integer('arch_sparse_feature_size', { minimum: 1, maximum: mostDim })
  const rows = sizes(config, 'arch_embedding_size', { entries: mostTables, maximum: mostRows })
  const [denseFeatures, ...bottom] = layerSizes(config, 'arch_mlp_bot') as [number, ...number[]]
  if (bottom.length === 0)
    throw config.refuse('arch_mlp_bot', 'the dense features and at least one layer', 'one number')
  const interaction = choice(config, 'arch_interaction_op', ['dot', 'cat'], 'dot')
  const pairs = config.boolean('arch_interaction_itself', false) ? 'lower-and-itself' : 'lower'
  const last = bottom.at(-1) as number
  if (interaction === 'dot' && last !== dim) {
    throw config.refuse('arch_mlp_bot', `a last layer of arch_sparse_feature_size ${dim}`, `${last} outputs`)
  }
  const topInputs = interactionWidth(last, rows.length, dim, interaction, pairs)
  if (topInputs > mostWidth) {
    throw config.refuse('arch_embedding_size', `an interaction of at most ${mostWidth} numbers`, topInputs)
  }
  return {
    architecture: 'dlrm',
    names: 'dlrm',
    file: config.file,
    denseFeatures,
    tables: tableShapes(
      config,
      rows,
      dim,
      (i) => `emb_l.${i}.weight`,
      (i) => `emb_l.${i}`,
    ),
    pooling: choice(config, 'pooling', poolings, 'sum'),
    bottom,
    top: topSizes(config, topInputs, has),
    topInputs,
    interaction,
    pairs,
    lossThreshold: lossThreshold(config),
  }
}

/** A width of the network. */
const width = (config: ConfigRecord, key: string, fallback?: number): number =>
  config.integer(key, { minimum: 1, maximum: mostWidth, ...(fallback === undefined ? {} : { fallback }) })

/** The tables of an EmbeddingBagCollection: called t_cat_<i>, or as `tables` of the config names them. */
const torchrecTables = (
  config: ConfigRecord,
  has: (tensor: string) => boolean,
): { dim: number; tables: TableShape[] } => {
  const dim = config.integer('embedding_dim', { minimum: 1, maximum: mostDim })
  const rows = sizes(config, 'num_embeddings_per_feature', { entries: mostTables, maximum: mostRows })
  const names = config.strings('tables')
  const tensorOf = (name: string): string => `sparse_arch.embedding_bag_collection.embedding_bags.${name}.weight`
  const tensor = (i: number): string => {
    const [own, usual] = [tensorOf(names[i] ?? `t_cat_${i}`), tensorOf(`t_cat_${i}`)]
    return !has(own) && has(usual) ? usual : own
  }
  return { dim, tables: tableShapes(config, rows, dim, tensor, (i) => `t_cat_${i}`) }
}

const torchrecConfig = (config: ConfigRecord, has: (tensor: string) => boolean): DotConfig | CrossConfig => {
  expectAll(config, { interaction_type: ['dcn', 'original'] })
  const isCross = config.get('interaction_type') !== 'original'
  const { dim, tables } = torchrecTables(config, has)
  const bottom = layerSizes(config, 'dense_arch_layer_sizes')
  const top = layerSizes(config, 'over_arch_layer_sizes')
  if (top.length < 2 || top.at(-1) !== 1) {
    throw config.refuse('over_arch_layer_sizes', 'at least two layers, the last of one output', top.join(', '))
  }
  if (bottom.at(-1) !== dim) {
    throw config.refuse('dense_arch_layer_sizes', `a last layer of embedding_dim ${dim}`, `${bottom.at(-1)} outputs`)
  }
  // TorchRec takes the upper triangle.
  const pairs = 'upper'
  const topInputs = isCross ? dim * (tables.length + 1) : interactionWidth(dim, tables.length, dim, 'dot', pairs)
  if (topInputs > mostWidth) {
    throw config.refuse('num_embeddings_per_feature', `an interaction of at most ${mostWidth} numbers`, topInputs)
  }
  const common: CommonConfig = {
    names: 'torchrec',
    file: config.file,
    denseFeatures: width(config, 'in_features', 13),
    tables,
    pooling: choice(config, 'pooling', poolings, 'sum'),
    bottom,
    top,
    topInputs,
    lossThreshold: lossThreshold(config),
  }
  if (!isCross) return { ...common, architecture: 'dlrm', interaction: 'dot', pairs }
  return {
    ...common,
    architecture: 'dlrm_dcn',
    crossLayers: config.integer('dcn_num_layers', { minimum: 1, maximum: mostLayers }),
    crossRank: width(config, 'dcn_low_rank_dim'),
  }
}

const deepfmConfig = (config: ConfigRecord, has: (tensor: string) => boolean): FactorConfig => {
  const { dim, tables } = torchrecTables(config, has)
  const deepWidth = width(config, 'deep_fm_dimension')
  const inputs = dim * (tables.length + 1)
  if (inputs > mostWidth) {
    throw config.refuse('num_embeddings_per_feature', `embeddings of at most ${mostWidth} numbers together`, inputs)
  }
  return {
    architecture: 'deepfm',
    names: 'torchrec',
    file: config.file,
    denseFeatures: width(config, 'num_dense_features'),
    tables,
    pooling: choice(config, 'pooling', poolings, 'sum'),
    bottom: [width(config, 'hidden_layer_size'), dim],
    deepWidth,
    top: [1],
    topInputs: dim + deepWidth + 1,
    lossThreshold: lossThreshold(config),
  }
}

/** True for a config.json of a recommender, whatever else it says. */
export const isRecommender = (config: ConfigRecord): boolean =>
  recommenderArchitectures.some((name) => name === config.get('architecture'))

/**
 * The checked config. `has` tells which tensors there are. Throws E_FORMAT with file and field when an entry is missing,
 * impossible or contradicts another; E_UNSUPPORTED for other architectures and for variants that are not computed.
 */
export const recommenderConfig = (config: ConfigRecord, has: (tensor: string) => boolean): RecommenderConfig => {
  const architecture = config.get('architecture')
  if (architecture === 'dlrm') return dotConfig(config, has)
  if (architecture === 'dlrm_dcn') return torchrecConfig(config, has)
  if (architecture === 'deepfm') return deepfmConfig(config, has)
  throw new DroverError('E_UNSUPPORTED', 'this is no recommender', {
    file: config.file,
    field: 'architecture',
    found: typeof architecture === 'string' ? architecture : 'none named',
    expected: recommenderArchitectures.join(' or '),
    ...(config.has('model_type') ? { hint: 'language models are loaded by loadLanguageModel' } : {}),
  })
}
