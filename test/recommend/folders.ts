/** Folders of recommenders for the tests: fixtures with other tables, and small made-up ones. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SafetensorsWriter } from '../../lib/format/safetensors-writer.js'
import type { Bags } from '../../lib/program/bags.js'
import type { ScoreRequest } from '../../lib/recommend/request.js'
import type { DTypeName } from '../../lib/tensor.js'
import { randomSource } from '../support.js'

export interface Tensor {
  readonly dtype: DTypeName
  readonly shape: readonly number[]
  readonly bytes: Uint8Array
}

export type Config = Record<string, unknown>

export const readConfig = (folder: string): Config =>
  JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')) as Config

const writeTensors = async (path: string, tensors: ReadonlyMap<string, Tensor>): Promise<void> => {
  const writer = await SafetensorsWriter.create(
    path,
    [...tensors].map(([name, { dtype, shape }]) => ({ name, dtype, shape })),
  )
  for (const [name, { bytes }] of tensors) await writer.write(name, bytes)
  await writer.finish()
}

/** Writes config.json and one file, or `shards` files with an index. */
export const writeRecommender = async (
  folder: string,
  config: Config,
  tensors: ReadonlyMap<string, Tensor>,
  shards = 1,
): Promise<void> => {
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config))
  if (shards === 1) return writeTensors(join(folder, 'model.safetensors'), tensors)
  const map: Record<string, string> = {}
  const names = [...tensors.keys()]
  for (let shard = 0; shard < shards; shard++) {
    const file = `model-${`${shard + 1}`.padStart(5, '0')}-of-${`${shards}`.padStart(5, '0')}.safetensors`
    const own = names.filter((_, i) => i % shards === shard)
    await writeTensors(join(folder, file), new Map(own.map((name) => [name, tensors.get(name) as Tensor])))
    for (const name of own) map[name] = file
  }
  writeFileSync(join(folder, 'model.safetensors.index.json'), JSON.stringify({ weight_map: map }))
}

/** A folder that is gone when the body has ended. */
export const withFolder = async <T>(body: (folder: string) => Promise<T>): Promise<T> => {
  const folder = mkdtempSync(join(tmpdir(), 'drover-recommend-'))
  try {
    return await body(folder)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

export const floatTensor = (shape: readonly number[], values: Float32Array): Tensor => ({
  dtype: 'f32',
  shape,
  bytes: new Uint8Array(values.buffer, values.byteOffset, values.byteLength),
})

export interface TinyRecommender {
  dense: number
  dim: number
  rows: readonly number[]
  bottom?: readonly number[]
  top?: readonly number[]
  seed?: number
  changes?: Config
}

/** A DLRM with dot interaction and random weights. */
export const tinyRecommender = (tiny: TinyRecommender): { config: Config; tensors: Map<string, Tensor> } => {
  const { dense, dim, rows, bottom = [8], top = [16], seed = 1, changes = {} } = tiny
  const random = randomSource(seed)
  const vectors = rows.length + 1
  const bot = [dense, ...bottom, dim]
  const head = [dim + (vectors * (vectors - 1)) / 2, ...top, 1]
  const tensors = new Map<string, Tensor>()
  const add = (name: string, shape: readonly number[], scale: number): void => {
    const count = shape.reduce((product, n) => product * n, 1)
    const values = Float32Array.from({ length: count }, () => (random() - 0.5) * 2 * scale)
    tensors.set(name, floatTensor(shape, values))
  }
  rows.forEach((count, t) => {
    add(`emb_l.${t}.weight`, [count, dim], 1)
  })
  for (const [prefix, sizes] of [
    ['bot_l', bot],
    ['top_l', head],
  ] as const) {
    for (let i = 0; i + 1 < sizes.length; i++) {
      const [inputs, outputs] = [sizes[i] as number, sizes[i + 1] as number]
      add(`${prefix}.${2 * i}.weight`, [outputs, inputs], 1 / Math.sqrt(inputs))
      add(`${prefix}.${2 * i}.bias`, [outputs], 0.1)
    }
  }
  const config = {
    architecture: 'dlrm',
    arch_sparse_feature_size: dim,
    arch_embedding_size: rows,
    arch_mlp_bot: bot,
    arch_mlp_top: head,
    arch_interaction_op: 'dot',
    arch_interaction_itself: false,
    ...changes,
  }
  return { config, tensors }
}

/** Runs `body` with the folder of such a recommender. */
export const withTiny = <T>(tiny: TinyRecommender, body: (folder: string) => Promise<T>): Promise<T> =>
  withFolder(async (folder) => {
    const { config, tensors } = tinyRecommender(tiny)
    await writeRecommender(folder, config, tensors)
    return body(folder)
  })

/** A request of random rows; about a third of the bags are empty. */
export const randomRequest = (
  random: () => number,
  { dense, rows }: Pick<TinyRecommender, 'dense' | 'rows'>,
  batch: number,
  weighted = false,
): ScoreRequest => ({
  dense: Float32Array.from({ length: batch * dense }, () => random() * 2 - 1),
  sparse: rows.map((count): Bags => {
    const offsets = new Int32Array(batch + 1)
    const indices: number[] = []
    for (let i = 0; i < batch; i++) {
      const length = Math.max(0, Math.floor(random() * 6) - 1)
      for (let k = 0; k < length; k++) indices.push(Math.floor(random() * count))
      offsets[i + 1] = indices.length
    }
    const bags = { indices: Int32Array.from(indices), offsets }
    return weighted ? { ...bags, weights: Float32Array.from(indices, () => random() * 2) } : bags
  }),
})
