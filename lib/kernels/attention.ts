/** Grouped-query attention over a cache of its own. */
import { checkBoolean, checkInteger, checkNumber, checkOneOf, checkOptions } from '../check.js'
import { DroverError } from '../errors.js'
import { type KvType, kvTypeNames, kvTypes, pagePositions } from '../program/program.js'
import type { Step } from '../program/step.js'
import { type AsyncOptions, type Call, mostCols, mostRows, run, runAsync, takeSignal } from './eager.js'
import { checkMatrix, checkRows } from './operands.js'

/** Shape of the heads, and who sees whom. */
export interface AttentionOptions {
  /** Query heads; a multiple of kvHeads. */
  heads: number
  /** Heads of keys and values; default: heads. Query head h reads head ⌊h · kvHeads / heads⌋. */
  kvHeads?: number
  headDim: number
  /** true (default): query i of M sees keys 0 … N - M + i; false: all of them. */
  causal?: boolean
  /** Of the scores q · k; default 1 / √headDim. */
  scale?: number
  /** How keys and values are kept while they are attended to; default 'f32'. */
  kvType?: KvType
  /** 'auto' (default): the keys of a q8_0 cache multiply queries rounded to 8 bits in blocks of 32; 'f32': as they are. */
  activations?: 'auto' | 'f32'
}

/** Rows of one step. */
const chunkRows = 1024

interface Part {
  op: 'cache' | 'scores'
  /** Key rows, or query rows, [from, to). */
  from: number
  to: number
  /** Cache position of the first row. */
  start: number
}

/**
 * Keys and values go in first, then queries in chunks. A row sees the cache up to its own position, so a chunk of
 * queries is placed where causal rows belong; those that see everything end where the cache ends.
 */
const partsOf = (queries: number, keys: number, causal: boolean): Part[] => {
  const parts: Part[] = []
  for (let from = 0; from < keys; from += chunkRows) {
    parts.push({ op: 'cache', from, to: Math.min(keys, from + chunkRows), start: from })
  }
  const together = Math.min(chunkRows, keys)
  for (let from = 0; from < queries; from += together) {
    const to = Math.min(queries, from + together)
    parts.push({ op: 'scores', from, to, start: causal ? keys - queries + from : keys - (to - from) })
  }
  return parts
}

const attentionCall = (q: unknown, k: unknown, v: unknown, input: unknown): Call<Float32Array> => {
  const options = checkOptions('options', input, [
    'heads',
    'kvHeads',
    'headDim',
    'causal',
    'scale',
    'kvType',
    'activations',
  ])
  const heads = checkInteger('options.heads', options.heads, 1, 4096)
  const kvHeads = checkInteger('options.kvHeads', options.kvHeads ?? heads, 1, heads)
  const headDim = checkInteger('options.headDim', options.headDim, 1, Math.min(4096, Math.floor(mostCols / heads)))
  const causal = checkBoolean('options.causal', options.causal ?? true)
  const scale = checkNumber('options.scale', options.scale ?? 1 / Math.sqrt(headDim), 1e-30, 999999)
  const kvType = checkOneOf('options.kvType', options.kvType ?? 'f32', kvTypeNames) as KvType
  const activations = checkOneOf('options.activations', options.activations ?? 'auto', ['auto', 'f32'])
  if (heads % kvHeads !== 0) {
    throw new DroverError('E_SHAPE', 'query heads are a multiple of key heads', {
      field: 'options.kvHeads',
      found: kvHeads,
      expected: `a divisor of ${heads}`,
    })
  }
  const width = heads * headDim
  const kvWidth = kvHeads * headDim
  const queries = checkRows('q', q, width)
  const keys = checkRows('k', k, kvWidth)
  const count = queries.length / width
  const positions = keys.length / kvWidth
  const values = checkMatrix('v', v, [positions, kvWidth])
  if (causal && count > positions) {
    throw new DroverError('E_SHAPE', 'causal attention has a key for every query', {
      field: 'k',
      found: positions,
      expected: `at least ${count}`,
    })
  }
  const parts = partsOf(count, positions, causal)
  const pages = Math.ceil(positions / pagePositions)
  const rows = parts.reduce((most, { from, to }) => Math.max(most, to - from), 0)
  return {
    recipe: {
      key: `attention ${heads} ${kvHeads} ${headDim} ${causal} ${scale} ${kvType} ${activations} ${pages}`,
      rows: Math.min(rows, mostRows),
      kv: { layers: 1, heads: kvHeads, headDim, dtype: kvTypes[kvType], pages },
      activations,
      build: (b) => {
        const keyRows = b.input('k', 'rows', kvWidth)
        b.kvWrite('cache', keyRows, b.input('v', 'rows', kvWidth), 0)
        b.output('out', b.attention('scores', b.input('q', 'rows', width), { layer: 0, heads, scale, causal }))
      },
    },
    *work(operands) {
      const out = new Float32Array(count * width)
      const table = Uint32Array.from({ length: pages }, (_, page) => page)
      for (const { op, from, to, start } of parts) {
        if (op === 'cache') {
          operands.write('k', keys.subarray(from * kvWidth, to * kvWidth))
          operands.write('v', values.subarray(from * kvWidth, to * kvWidth))
        } else {
          operands.write('q', queries.subarray(from * width, to * width))
        }
        const first = op === 'cache' ? 0 : 1
        const step: Step = {
          tokens: new Uint32Array(to - from),
          positions: new Uint32Array(to - from),
          sequences: [{ rows: to - from, cacheStart: start, pages: table }],
          outputRows: [],
          firstOp: first,
          endOp: first + 1,
        }
        yield step
        if (op === 'scores') out.set(operands.read('out', to - from), from * width)
      }
      return out
    },
  }
}

/**
 * softmax(scale · q kᵀ) v per head, without forming the scores of more than a tile.
 * @param q f32 [M, heads · headDim]
 * @param k f32 [N, kvHeads · headDim]; positions are turned already, if at all (see `rope`)
 * @param v f32 [N, kvHeads · headDim]
 * @returns f32 [M, heads · headDim]
 * @throws DroverError E_ARGUMENT, E_SHAPE, E_MEMORY
 */
export const attention = (q: Float32Array, k: Float32Array, v: Float32Array, options: AttentionOptions): Float32Array =>
  run(attentionCall(q, k, v, options))

/** {@link attention} off the event loop. */
export const attentionAsync = async (
  q: Float32Array,
  k: Float32Array,
  v: Float32Array,
  options: AttentionOptions & AsyncOptions,
): Promise<Float32Array> => {
  const [signal, rest] = takeSignal(options)
  return runAsync(attentionCall(q, k, v, rest), signal)
}
