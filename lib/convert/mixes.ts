/**
 * Which number format each weight of a Llama gets. The names and rules are those of llama.cpp's files: the head and
 * parts of the value and down projections, where errors cost most, get more bits than the rest.
 */

import type { WritableDType } from '../device/quantize.js'
import { DroverError } from '../errors.js'
import { dtypes } from '../tensor.js'

/** The format of one weight, when it has more bits than the base; by its layer and what is known of the model. */
type Rule = WritableDType | ((at: Place) => WritableDType | undefined)

interface Place extends ModelFacts {
  readonly layer: number
}

/** What rules look at. */
export interface ModelFacts {
  readonly layers: number
  /** Query heads that share one key and value head. */
  readonly sharing: number
  readonly hasImportance: boolean
}

export interface Mix {
  /** What `general.file_type` says. */
  readonly fileType: number
  readonly base: WritableDType
  /** The head, or the embedding where it serves as the head; default q6_k, or the base when that is q8_0 or a float. */
  readonly head?: WritableDType
  readonly attn_v?: Rule
  readonly attn_output?: Rule
  readonly ffn_down?: Rule
}

/** The first and last eighth of the layers, and every third between them. */
const moreBits = ({ layer, layers }: Place): boolean => {
  const eighth = Math.floor(layers / 8)
  return layer < eighth || layer >= Math.floor((7 * layers) / 8) || (layer - eighth) % 3 === 2
}
const firstEighth = ({ layer, layers }: Place): boolean => layer < Math.floor(layers / 8)

const sixWhereItCosts: Rule = (at) => (moreBits(at) ? 'q6_k' : undefined)
const fiveWhenShared: Rule = ({ sharing }) => (sharing >= 4 ? 'q5_k' : undefined)
const fiveAtFirst: Rule = (at) => (firstEighth(at) && !at.hasImportance ? 'q5_k' : undefined)

const mixes = {
  f32: { fileType: 0, base: 'f32' },
  f16: { fileType: 1, base: 'f16' },
  bf16: { fileType: 32, base: 'bf16' },
  q8_0: { fileType: 7, base: 'q8_0' },
  q4_0: { fileType: 2, base: 'q4_0', ffn_down: (at) => (firstEighth(at) && at.hasImportance ? 'q4_1' : undefined) },
  q4_1: { fileType: 3, base: 'q4_1' },
  q5_0: { fileType: 8, base: 'q5_0', ffn_down: (at) => (firstEighth(at) && at.hasImportance ? 'q5_1' : undefined) },
  q5_1: { fileType: 9, base: 'q5_1' },
  q2_k: {
    fileType: 10,
    base: 'q2_k',
    attn_v: ({ sharing }) => (sharing >= 4 ? 'q4_k' : 'q3_k'),
    attn_output: 'q3_k',
    ffn_down: 'q3_k',
  },
  q3_k_s: { fileType: 11, base: 'q3_k' },
  q3_k_m: {
    fileType: 12,
    base: 'q3_k',
    attn_v: ({ layer }) => (layer < 2 ? 'q5_k' : 'q4_k'),
    attn_output: 'q4_k',
    ffn_down: ({ layer, layers }) => (layer < Math.floor(layers / 16) ? 'q5_k' : 'q4_k'),
  },
  q3_k_l: { fileType: 13, base: 'q3_k', attn_v: 'q5_k', attn_output: 'q5_k', ffn_down: 'q5_k' },
  q4_k_s: {
    fileType: 14,
    base: 'q4_k',
    attn_v: ({ layer }) => (layer < 4 ? 'q5_k' : undefined),
    ffn_down: (at) => (firstEighth(at) ? 'q5_k' : undefined),
  },
  q4_k_m: { fileType: 15, base: 'q4_k', attn_v: sixWhereItCosts, ffn_down: sixWhereItCosts },
  q5_k_s: { fileType: 16, base: 'q5_k' },
  q5_k_m: { fileType: 17, base: 'q5_k', attn_v: sixWhereItCosts, ffn_down: sixWhereItCosts },
  q6_k: { fileType: 18, base: 'q6_k' },
  iq4_nl: { fileType: 25, base: 'iq4_nl', attn_v: fiveWhenShared, ffn_down: fiveAtFirst },
  iq4_xs: { fileType: 30, base: 'iq4_xs', attn_v: fiveWhenShared, ffn_down: fiveAtFirst },
  mxfp4: { fileType: 38, base: 'mxfp4', head: 'q8_0' },
} as const satisfies Record<string, Mix>

/** Names that {@link mixOf} knows. */
export const mixNames = Object.keys(mixes) as readonly (keyof typeof mixes)[]

const short: Readonly<Record<string, keyof typeof mixes>> = { q3_k: 'q3_k_m', q4_k: 'q4_k_m', q5_k: 'q5_k_m' }

/** The mix of a name in any case; q3_k, q4_k and q5_k mean the M mixes. Throws E_ARGUMENT. */
export const mixOf = (name: string): Mix => {
  const lower = name.toLowerCase()
  const mix = (mixes as Record<string, Mix>)[short[lower] ?? lower]
  if (mix !== undefined && Object.hasOwn(mixes, short[lower] ?? lower)) return mix
  throw new DroverError('E_ARGUMENT', 'there is no such type', {
    field: 'type',
    found: name,
    expected: mixNames.join(', '),
  })
}

const headOf = ({ head, base }: Mix): WritableDType =>
  head ?? (dtypes[base].block === 1 || base === 'q8_0' ? base : 'q6_k')

/** The head's bits are kept high: a row that q6_k does not fit gets q8_0. */
const narrower: Partial<Record<WritableDType, WritableDType>> = {
  q2_k: 'q4_0',
  q3_k: 'q4_0',
  iq4_xs: 'iq4_nl',
  q4_k: 'q5_0',
  q5_k: 'q5_1',
  q6_k: 'q8_0',
}

/** `wanted`, or the nearest format whose blocks fill rows of `cols`. */
export const fitting = (wanted: WritableDType, cols: number): WritableDType => {
  if (cols % dtypes[wanted].block === 0) return wanted
  const other = narrower[wanted]
  return other !== undefined && cols % dtypes[other].block === 0 ? other : 'f16'
}

/** Whether a weight is the head. `tied`: the embedding is the head, too. */
export const isHead = (name: string, tied: boolean): boolean =>
  name === 'output.weight' || (tied && name === 'token_embd.weight')

/** What the mix gives the weight of this name. */
export const formatOf = (mix: Mix, name: string, tied: boolean, facts: ModelFacts): WritableDType => {
  if (isHead(name, tied)) return headOf(mix)
  const match = /^blk\.(\d+)\.(attn_v|attn_output|ffn_down)\.weight$/.exec(name)
  if (match === null) return mix.base
  const place: Place = { ...facts, layer: Number(match[1]) }
  const rule = mix[match[2] as 'attn_v' | 'attn_output' | 'ffn_down']
  const chosen = (typeof rule === 'function' ? rule(place) : rule) ?? mix.base
  // In models of 80 layers eight query heads share the values: more bits for them cost next to nothing.
  const large = facts.layers >= 80 && match[2] === 'attn_v' && (chosen === 'q3_k' || chosen === 'q4_k')
  return large ? 'q5_k' : chosen
}
