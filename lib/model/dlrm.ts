/**
 * DLRM, DLRM-DCNv2 and DeepFM: an MLP over dense features, embedding bags, an interaction of both, and an MLP that gives the
 * logit of a click. Weights have the state-dict names of facebookresearch/dlrm and of TorchRec.
 */
import { ProgramBuilder, type Value, type WeightSource } from '../program/builder.js'
import type { ActivationMode, DeviceLayout, Program } from '../program/program.js'
import type { CrossConfig, DotConfig, RecommenderConfig } from './dlrm-config.js'
import type { StoredTable } from './tables.js'
import { requiredFrom, type WeightLookup } from './weights.js'

export interface RecommenderProgramOptions {
  maxRows: number
  activations: ActivationMode
  /** Tables are read where they are in the file, or from copies in huge pages. */
  tables: 'mapped' | 'copied'
  /** What can be read after a step: `prob` alone, for which rows run in blocks, or the outputs of all layers. */
  keeps: 'scores' | 'layers'
}

/**
 * Rows of a block: few enough for their values to stay in a second-level cache, many enough to read weights for. With steps
 * of 64, 128, 256, 512 and 2048 rows and no blocks, one thread took, in µs per row of a DLRM (26 tables x 64) with int8 / f32
 * layers: 6.3 / 13.6, 5.4 / 12.1, 5.6 / 12.5, 6.5 / 13.1, 6.2 / 13.0 (Zen 4, caches of 1 MiB).
 */
const blockRows = 128

const dlrmLayers = {
  bottom: (i: number) => `bot_l.${2 * i}`,
  top: (i: number) => `top_l.${2 * i}`,
}

/** TorchRec keeps the last layer of the over arch beside the MLP of the others. */
const torchrecLayers = (layers: number): typeof dlrmLayers => ({
  bottom: (i) => `dense_arch.model._mlp.${i}._linear`,
  top: (i) => (i === layers - 1 ? 'over_arch.model.1' : `over_arch.model.0._mlp.${i}._linear`),
})

const deepfmLayers: typeof dlrmLayers = {
  bottom: (i) => `dense_arch.model.${2 * i}`,
  top: () => 'over_arch.model.0',
}
const deepName = 'inter_arch.deep_fm.dense_module.0'

const crossNames = (layer: number) => ({
  v: `inter_arch.crossnet.V_kernels.${layer}`,
  w: `inter_arch.crossnet.W_kernels.${layer}`,
  bias: `inter_arch.crossnet.bias.${layer}`,
})

const layersOf = (config: RecommenderConfig) => {
  if (config.architecture === 'deepfm') return deepfmLayers
  return config.names === 'dlrm' ? dlrmLayers : torchrecLayers(config.top.length)
}

/** Modules of the interaction that multiply. */
const interactionNames = (config: RecommenderConfig): string[] => {
  if (config.architecture === 'dlrm') return []
  if (config.architecture === 'deepfm') return [deepName]
  return Array.from({ length: config.crossLayers }, (_, i) => crossNames(i)).flatMap(({ v, w }) => [v, w])
}

/** Names of the modules that multiply, without `.weight`: what `quantization.layers` may name. */
export const layerNames = (config: RecommenderConfig): string[] => {
  const layers = layersOf(config)
  const bottom = config.bottom.map((_, i) => layers.bottom(i))
  return [...bottom, ...interactionNames(config), ...config.top.map((_, i) => layers.top(i))]
}

/**
 * The forward pass. Input: `dense` [rows, features]; the step brings the bags. Roles of outputs: `prob` [rows, 1], and where
 * layers are kept `bottom`, `pooled` [rows, tables x dim], `interaction` and `logit` [rows, 1]. Ops are named `bottom.<i>`,
 * `pooled`, `interaction` (DCNv2: `x0` and `cross.<i>`; DeepFM: `x0`, `deep` and `factors` before it), `top.<i>`, `prob`.
 */
export const buildRecommender = (
  layout: DeviceLayout,
  config: RecommenderConfig,
  tables: readonly StoredTable[],
  weights: WeightLookup,
  options: RecommenderProgramOptions,
): Program => {
  const { maxRows, activations, keeps } = options
  const b = new ProgramBuilder(layout, {
    maxRows,
    maxOutputs: 0,
    maxSequences: 0,
    maxPages: 0,
    vocabulary: 0,
    activations,
    ...(keeps === 'scores' ? { blockRows } : {}),
  })
  const layer = (role: string, value: Value): void => {
    if (keeps === 'layers') b.output(role, value)
  }
  const required = requiredFrom(weights, config.file)
  const layers = layersOf(config)
  const linear = (name: string, x: Value, module: string, outputs: number, activation: 'relu' | 'none'): Value =>
    b.linear(name, x, required(`${module}.weight`, outputs, x.cols), {
      bias: required(`${module}.bias`, 1, outputs),
      activation,
    })

  let x = b.input('dense', 'rows', config.denseFeatures)
  config.bottom.forEach((outputs, i) => {
    x = linear(`bottom.${i}`, x, layers.bottom(i), outputs, 'relu')
  })
  layer('bottom', x)
  const pooled = b.embeddingBag('pooled', tables, { pooling: config.pooling, placement: options.tables })
  layer('pooled', pooled)
  if (config.architecture === 'dlrm') {
    x = interact(b, config, x, pooled)
  } else {
    const x0 = b.concat('x0', [x, pooled])
    layer('x0', x0)
    x =
      config.architecture === 'deepfm'
        ? b.concat('interaction', [
            x,
            linear('deep', x0, deepName, config.deepWidth, 'relu'),
            b.factorization('factors', x0),
          ])
        : cross(b, config, x0, weights, required)
  }
  layer('interaction', x)
  const last = config.top.length - 1
  config.top.forEach((outputs, i) => {
    x = linear(`top.${i}`, x, layers.top(i), outputs, i === last ? 'none' : 'relu')
  })
  layer('logit', x)
  b.output('prob', b.sigmoid('prob', x))
  return b.finish()
}

const interact = (b: ProgramBuilder, { interaction, pairs }: DotConfig, bottom: Value, pooled: Value): Value =>
  interaction === 'dot'
    ? b.interaction('interaction', bottom, pooled, pairs)
    : b.concat('interaction', [bottom, pooled])

/** x(l+1) = x0 · (W (V x(l)) + b) + x(l). */
const cross = (
  b: ProgramBuilder,
  { crossLayers, crossRank }: CrossConfig,
  x0: Value,
  weights: WeightLookup,
  required: (name: string, rows: number, cols: number) => WeightSource,
): Value => {
  // A kernel is a tensor of its module's name; quantised ones have scales beside them, and `.weight` like all others.
  const kernel = (name: string, rows: number, cols: number): WeightSource =>
    weights(`${name}.weight`, rows, cols) ?? required(name, rows, cols)
  let x = x0
  for (let layer = 0; layer < crossLayers; layer++) {
    const names = crossNames(layer)
    const narrow = b.linear(`cross.${layer}.v`, x, kernel(names.v, crossRank, x0.cols))
    const wide = b.linear(`cross.${layer}.w`, narrow, kernel(names.w, x0.cols, crossRank), {
      bias: required(names.bias, 1, x0.cols),
    })
    x = b.cross(`cross.${layer}`, x0, wide, x)
  }
  return x
}
