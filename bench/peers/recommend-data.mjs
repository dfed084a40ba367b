// What all engines read: a table of embeddings, streams of indices, folders of whole models. The same bytes for every
// one of them, from a fixed seed. Rows are FBGEMM's: scale and bias behind the codes.
import { closeSync, existsSync, fsyncSync, mkdirSync, openSync, renameSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { rowBytesOf } from './recommend-plan.mjs'

/** A 32-bit generator (xorshift). */
const generator = (seed) => {
  let state = seed | 1
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return state >>> 0
  }
}

/** Different rows before a table repeats: a prime, and with 64 elements more bytes than second-level caches have. */
const blockRows = 65_537

/** So many rows of a table. Scales and biases are numbers that f16 has too, so that every layout can hold them. */
const rowsOf = (format, rows, dim, seed) => {
  const next = generator(seed)
  const stride = rowBytesOf[format](dim)
  const bytes = new Uint8Array(rows * stride)
  const view = new DataView(bytes.buffer)
  if (format === 'f32') {
    const values = new Float32Array(bytes.buffer)
    for (let i = 0; i < values.length; i++) values[i] = (next() / 2 ** 32 - 0.5) / 8
  } else if (format === 'f16') {
    // +-2^-5 to 2^-4.
    const values = new Uint16Array(bytes.buffer)
    for (let i = 0; i < values.length; i++) values[i] = (next() & 0x83ff) | (10 << 10)
  } else {
    for (let i = 0; i < bytes.length; i++) bytes[i] = next() >>> 24
    for (let row = 0; row < rows; row++) {
      const at = (row + 1) * stride
      // int8: steps of 2^-11 and more from -2^-4; int4: of 2^-7 and more.
      if (format === 'int8') {
        view.setFloat32(at - 8, (1 + (next() & 255) / 1024) / 2048, true)
        view.setFloat32(at - 4, -(1 + (next() & 255) / 1024) / 16, true)
      } else {
        view.setUint16(at - 4, (8 << 10) | (next() & 255), true)
        view.setUint16(at - 2, 0x8000 | (11 << 10) | (next() & 255), true)
      }
    }
  }
  return bytes
}

/** Writes to `path` by way of a file beside it, and to the disk: nothing is written back while others measure. */
const writeWhole = (path, write) => {
  if (existsSync(path)) return
  const file = openSync(`${path}.tmp`, 'w')
  write(file)
  fsyncSync(file)
  closeSync(file)
  renameSync(`${path}.tmp`, path)
}

const writeAll = (file, bytes) => {
  for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at, Math.min(2 ** 26, bytes.length - at))
}

/** A table from repeated rows, beginning somewhere among them. */
const writeRows = (file, block, stride, rows, first) => {
  const known = block.length / stride
  for (let row = 0; row < rows; ) {
    const from = (first + row) % known
    const count = Math.min(known - from, rows - row)
    writeAll(file, block.subarray(from * stride, (from + count) * stride))
    row += count
  }
}

export const writeTable = (path, format, rows, dim) =>
  writeWhole(path, (file) => {
    writeRows(file, rowsOf(format, Math.min(rows, blockRows), dim, 1), rowBytesOf[format](dim), rows, 0)
  })

/** int32 [count]: uniform, or Zipf with exponent 1.05 over rows in no order. */
export const indicesOf = (distribution, rows, count, seed = 7) => {
  const next = generator(seed)
  const uniform = () => (next() * 2 ** 21 + (next() >>> 11)) / 2 ** 53
  const indices = new Int32Array(count)
  if (distribution === 'uniform') {
    for (let i = 0; i < count; i++) indices[i] = Math.floor(uniform() * rows)
    return indices
  }
  const upTo = new Float64Array(rows)
  let sum = 0
  for (let rank = 0; rank < rows; rank++) {
    sum += (rank + 1) ** -1.05
    upTo[rank] = sum
  }
  // Ranks to rows: multiplied by a prime that no number of rows here is divisible by.
  const spread = 2_654_435_761n % BigInt(rows)
  for (let i = 0; i < count; i++) {
    const wanted = uniform() * sum
    let [low, high] = [0, rows - 1]
    while (low < high) {
      const middle = (low + high) >> 1
      if (upTo[middle] < wanted) low = middle + 1
      else high = middle
    }
    indices[i] = Number((BigInt(low) * spread) % BigInt(rows))
  }
  return indices
}

export const writeIndices = (path, distribution, rows, count) =>
  writeWhole(path, (file) => writeAll(file, new Uint8Array(indicesOf(distribution, rows, count).buffer)))

// Criteo's 26 features as MLPerf's DLRM-DCNv2 has them: rows (here cut to a million) and lookups per sample.
const mlperfRows = [
  40000000, 39060, 17295, 7424, 20265, 3, 7122, 1543, 63, 40000000, 3067956, 405282, 10, 2209, 11938, 155, 4, 976, 14,
  40000000, 40000000, 40000000, 590152, 12973, 108, 36,
]
const mlperfLookups = [3, 2, 1, 2, 6, 1, 1, 1, 1, 7, 3, 8, 1, 6, 9, 5, 1, 1, 1, 12, 100, 27, 10, 3, 1, 1]
const mostRows = 1_000_000

const dlrm = (rows) => ({
  architecture: 'dlrm',
  dim: 64,
  dense: 13,
  rows: Array(26).fill(rows),
  lookups: Array(26).fill(1),
  bottom: [512, 256, 64],
  top: [512, 256, 1],
})

export const models = {
  dlrm: dlrm(mostRows),
  // 6.7 MB of f32 tables: they stay in caches.
  'dlrm-cached': dlrm(1000),
  dcnv2: {
    architecture: 'dlrm_dcn',
    dim: 128,
    dense: 13,
    rows: mlperfRows.map((rows) => Math.min(rows, mostRows)),
    lookups: mlperfLookups,
    bottom: [512, 256, 128],
    top: [1024, 1024, 512, 256, 1],
    crossLayers: 3,
    crossRank: 512,
  },
  // For trying the benchmark out.
  tiny: { ...dlrm(500), rows: [500, 7], lookups: [2, 1], bottom: [32, 64], top: [16, 1] },
}

/** Linear layers by module name: [outputs, inputs]. */
const layersOf = ({ architecture, dim, dense, rows, bottom, top, crossLayers, crossRank }) => {
  const width = dim * (rows.length + 1)
  const interaction = architecture === 'dlrm' ? dim + (rows.length * (rows.length + 1)) / 2 : width
  const layers = {}
  const chain = (sizes, input, name) => {
    sizes.forEach((outputs, i) => {
      layers[name(i)] = [outputs, i === 0 ? input : sizes[i - 1]]
    })
  }
  const isDot = architecture === 'dlrm'
  chain(bottom, dense, (i) => (isDot ? `bot_l.${2 * i}` : `dense_arch.model._mlp.${i}._linear`))
  chain(top, interaction, (i) => {
    if (isDot) return `top_l.${2 * i}`
    return i === top.length - 1 ? 'over_arch.model.1' : `over_arch.model.0._mlp.${i}._linear`
  })
  const crosses = Array.from({ length: crossLayers ?? 0 }, (_, i) => ({
    [`inter_arch.crossnet.V_kernels.${i}`]: [crossRank, width],
    [`inter_arch.crossnet.W_kernels.${i}`]: [width, crossRank],
    [`inter_arch.crossnet.bias.${i}`]: [width],
  }))
  return { layers, crosses: Object.assign({}, ...crosses) }
}

const configOf = ({ architecture, dim, dense, rows, bottom, top, crossLayers, crossRank, lookups }, format) => ({
  ...(architecture === 'dlrm'
    ? {
        architecture,
        arch_sparse_feature_size: dim,
        arch_embedding_size: rows,
        arch_mlp_bot: [dense, ...bottom],
        arch_mlp_top: [dim + (rows.length * (rows.length + 1)) / 2, ...top],
        arch_interaction_op: 'dot',
        arch_interaction_itself: false,
      }
    : {
        architecture,
        embedding_dim: dim,
        num_embeddings_per_feature: rows,
        dense_arch_layer_sizes: bottom,
        over_arch_layer_sizes: top,
        dcn_num_layers: crossLayers,
        dcn_low_rank_dim: crossRank,
        in_features: dense,
      }),
  pooling: 'sum',
  lookups,
  ...(format === 'int8' ? { quantization: { layers: 'int8' } } : {}),
})

/**
 * A folder with config.json and model.safetensors, unless it is there. format: of the tables; 'int8' also asks for layers
 * of 8 bits. Weights keep the size of what flows through, so that logits are of order 1.
 */
export const writeModel = (folder, name, format) => {
  const shape = models[name]
  const { layers, crosses } = layersOf(shape)
  const stride = rowBytesOf[format](shape.dim)
  const tableName = (i) =>
    shape.architecture === 'dlrm'
      ? `emb_l.${i}.weight`
      : `sparse_arch.embedding_bag_collection.embedding_bags.t_cat_${i}.weight`
  const tensors = shape.rows.map((rows, i) => ({
    name: tableName(i),
    dtype: format === 'int8' ? 'U8' : 'F32',
    shape: [rows, format === 'int8' ? stride : shape.dim],
    bytes: rows * stride,
    rows,
  }))
  const floats = (tensor, size) =>
    tensors.push({ name: tensor, dtype: 'F32', shape: size, bytes: 4 * size.reduce((a, b) => a * b), size })
  for (const [module, [outputs, inputs]] of Object.entries(layers)) {
    floats(`${module}.weight`, [outputs, inputs])
    floats(`${module}.bias`, [outputs])
  }
  for (const [tensor, size] of Object.entries(crosses)) floats(tensor, size)
  const header = {}
  let end = 0
  for (const { name: tensor, dtype, shape: size, bytes } of tensors) {
    header[tensor] = { dtype, shape: size, data_offsets: [end, (end += bytes)] }
  }
  const text = JSON.stringify(header)
  const json = Buffer.from(text.padEnd(Math.ceil((text.length + 8) / 64) * 64 - 8))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(json.length))
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'config.json'), `${JSON.stringify(configOf(shape, format), null, 1)}\n`)
  const block = rowsOf(format, Math.min(Math.max(...shape.rows), blockRows), shape.dim, 3)
  writeWhole(join(folder, 'model.safetensors'), (file) => {
    writeAll(file, length)
    writeAll(file, json)
    tensors.forEach(({ rows, size }, i) => {
      if (rows !== undefined) {
        writeRows(file, block, stride, rows, i * 977)
        return
      }
      const next = generator(1000 + i)
      const values = new Float32Array(size.reduce((a, b) => a * b))
      // Uniform with the deviation that ReLU layers need, biases small.
      const half = size.length === 2 ? Math.sqrt(6 / size[1]) : 0.05
      for (let k = 0; k < values.length; k++) values[k] = (2 * (next() / 2 ** 32) - 1) * half
      writeAll(file, new Uint8Array(values.buffer))
    })
  })
}

/** Samples per stream of a model's requests: each engine takes a batch behind the other, from the start again at the end. */
export const streamSamples = 2 ** 15

/** Files in `folder`: dense.f32 [samples, features], t<i>.i32 [samples * lookups]. */
export const writeRequests = (folder, name) => {
  const { dense, rows, lookups } = models[name]
  mkdirSync(folder, { recursive: true })
  const next = generator(11)
  const features = Float32Array.from({ length: streamSamples * dense }, () => next() / 2 ** 31 - 1)
  writeWhole(join(folder, 'dense.f32'), (file) => writeAll(file, new Uint8Array(features.buffer)))
  rows.forEach((count, i) => {
    const indices = indicesOf('uniform', count, streamSamples * lookups[i], 100 + i)
    writeWhole(join(folder, `t${i}.i32`), (file) => writeAll(file, new Uint8Array(indices.buffer)))
  })
}
