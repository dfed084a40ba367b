/**
 * The ops of native/core/ops.def in plain loops: sums in float64, each output element rounded to f32 once. What the
 * native kernels are checked against, so nothing here is clever and nothing is shared with them.
 */
import { DroverError } from '../errors.js'
import { floatToHalf, halfToFloat } from '../format/decode/scalar.js'
import { absent, type KvSpec, type Program, pagePositions, type TensorSpec } from '../program/program.js'
import type { Step } from '../program/step.js'
import { pairKinds, partners } from '../program/tables.js'
import { type CheckedBags, embeddingBag } from './reference-bags.js'

/** A tensor has storage of its own: nothing is shared, whatever the plan says. */
export interface ReferenceTensor {
  readonly spec: TensorSpec
  /** f32 and u32 rows, as the same bytes. */
  readonly floats: Float32Array
  readonly words: Uint32Array
  /** Rows of 8-bit codes, and one scale per block of them; f8_row has floats for codes. */
  readonly codes: Int8Array
  readonly scales: Float32Array
}

/** Keys or values by [layer][kv head][page and slot][element], as the cache's format rounds them. */
export interface ReferenceCache {
  readonly keys: Float32Array
  readonly values: Float32Array
}

/** What an op sees while a step runs. */
export interface Machine {
  readonly program: Program
  readonly tensors: readonly ReferenceTensor[]
  /** Decoded to f32 [rows, cols]. */
  readonly weights: readonly Float32Array[]
  readonly cache: ReferenceCache
  readonly step: Step
  readonly bags: CheckedBags
}

type Op = (machine: Machine, args: readonly number[]) => void

const smallestQuantized = 2 ** -100
const f = Math.fround
const floatOf = (bits: number): number => new Float32Array(Uint32Array.of(bits).buffer)[0]!

/** Elements that share a scale in an 8-bit activation dtype. */
export const codesPerScale = ({ dtype, cols }: TensorSpec): number =>
  dtype === 'a8_32' ? 32 : dtype === 'a8_256' ? 256 : Math.max(1, cols)

/** To the nearest whole number, halves to the even one. */
const roundEven = (value: number): number => {
  const down = Math.floor(value)
  const rest = value - down
  return rest > 0.5 || (rest === 0.5 && down % 2 !== 0) ? down + 1 : down
}

/** 8-bit codes of x and their scale; the scale is NaN when x holds anything that is not finite. */
const quantizeBlock = (x: Float32Array): { codes: number[]; scale: number } => {
  const peak = x.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
  if (!Number.isFinite(peak)) return { codes: new Array<number>(x.length).fill(0), scale: Number.NaN }
  if (peak < smallestQuantized) return { codes: new Array<number>(x.length).fill(0), scale: 0 }
  const inverse = f(127 / peak)
  return { codes: Array.from(x, (value) => roundEven(f(value * inverse))), scale: f(peak / 127) }
}

/** As a8_row: one scale for all of x. */
const quantizeRow = (x: Float32Array): { codes: number[]; scale: number } => {
  const peak = x.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
  if (!Number.isFinite(peak)) return { codes: new Array<number>(x.length).fill(0), scale: Number.NaN }
  const scale = f(Math.max(peak, f(1e-8)) / 127)
  return { codes: Array.from(x, (value) => roundEven(f(value / scale))), scale }
}

/** To `bits` significant bits, halves to the even one; exponents below `lowest` share its unit. */
const roundMantissa = (value: number, bits: number, lowest: number): number => {
  if (value === 0 || !Number.isFinite(value)) return value
  let exponent = Math.floor(Math.log2(Math.abs(value)))
  if (2 ** exponent > Math.abs(value)) exponent-- // Math.log2 may round up to the next power
  const unit = 2 ** (Math.max(exponent, lowest) - bits + 1)
  return roundEven(value / unit) * unit
}

/** The nearest e4m3 number; |value| at most 448. */
const nearestE4m3 = (value: number): number => roundMantissa(value, 4, -6)

/** As f8_row: values that e4m3 has, and their scale. */
const quantizeFloats = (x: Float32Array, bound: number): { codes: number[]; scale: number } => {
  const peak = x.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
  if (!Number.isFinite(peak)) return { codes: new Array<number>(x.length).fill(0), scale: Number.NaN }
  const counted = Math.min(Math.max(peak, f(1e-12)), bound)
  const factor = f(448 / counted)
  const cut = (value: number): number => Math.min(Math.max(value, -448), 448)
  return { codes: Array.from(x, (value) => nearestE4m3(cut(f(value * factor)))), scale: f(counted / 448) }
}

const activate: readonly ((x: number) => number)[] = [
  (x) => x,
  (x) => x / (1 + Math.exp(-x)),
  (x) => 0.5 * x * (1 + erf(x * Math.SQRT1_2)),
  (x) => x / (1 + Math.exp(-2 * Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  (x) => Math.max(0, x),
]

/** Error function: its Taylor series near zero, the continued fraction of its complement further out. */
const erf = (x: number): number => {
  const z = Math.abs(x)
  if (Number.isNaN(x) || z > 6) return Number.isNaN(x) ? x : Math.sign(x)
  if (z < 2.5) {
    let term = x
    let sum = x
    for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
      term *= (-x * x) / n
      sum += term / (2 * n + 1)
    }
    return (2 / Math.sqrt(Math.PI)) * sum
  }
  let fraction = 0
  for (let n = 60; n > 0; n--) fraction = n / 2 / (z + fraction)
  return Math.sign(x) * (1 - Math.exp(-z * z) / Math.sqrt(Math.PI) / (z + fraction))
}

export const rowsOf = ({ step }: Pick<Machine, 'step'>, spec: TensorSpec): number =>
  spec.dimension === 'rows'
    ? step.tokens.length
    : spec.dimension === 'outputs'
      ? step.outputRows.length
      : spec.fixedRows

/** Row `row` of an f32 tensor, not a copy. */
const rowOf = ({ floats, spec: { cols } }: ReferenceTensor, row: number): Float32Array =>
  floats.subarray(row * cols, (row + 1) * cols)

/** Maps each row of x, by its number, to a row of out. */
const mapRows =
  (body: (x: Float32Array, row: number, machine: Machine, args: readonly number[]) => ArrayLike<number>): Op =>
  (machine, args) => {
    const out = machine.tensors[args[0]!]!
    const x = machine.tensors[args[1]!]!
    for (let row = 0; row < rowsOf(machine, out.spec); row++)
      rowOf(out, row).set(body(rowOf(x, row), row, machine, args))
  }

const logSumExp = (x: Float32Array): number => {
  const peak = x.reduce((most, value) => (value > most || Number.isNaN(value) ? value : most), Number.NEGATIVE_INFINITY)
  if (!Number.isFinite(peak)) return peak
  return peak + Math.log(x.reduce((sum, value) => sum + Math.exp(value - peak), 0))
}

/** x as numbers, whether it is f32 or 8-bit codes with scales. */
const valueAt = ({ spec, floats, codes, scales }: ReferenceTensor, row: number, col: number): number => {
  if (spec.dtype === 'f32' || spec.dtype === 'bf16') return floats[row * spec.cols + col]!
  const block = codesPerScale(spec)
  const code = spec.dtype === 'f8_row' ? floats : codes
  return code[row * spec.cols + col]! * scales[row * Math.ceil(spec.cols / block) + Math.floor(col / block)]!
}

const gemm: Op = (machine, [outIndex, xIndex, weightIndex, biasIndex, residualIndex, activation]) => {
  const out = machine.tensors[outIndex!]!
  const x = machine.tensors[xIndex!]!
  const weight = machine.weights[weightIndex!]!
  const bias = biasIndex === absent ? undefined : machine.weights[biasIndex!]!
  const residual = residualIndex === absent ? undefined : machine.tensors[residualIndex!]!
  const { cols: depth } = x.spec
  const { cols } = out.spec
  const act = activate[activation!]!
  const input = new Float64Array(depth)
  for (let row = 0; row < rowsOf(machine, out.spec); row++) {
    for (let k = 0; k < depth; k++) input[k] = valueAt(x, row, k)
    for (let n = 0; n < cols; n++) {
      let sum = 0
      for (let k = 0; k < depth; k++) sum += input[k]! * weight[n * depth + k]!
      const added = residual === undefined ? 0 : residual.floats[row * cols + n]!
      out.floats[row * cols + n] = act(sum + (bias === undefined ? 0 : bias[n]!)) + added
    }
  }
}

const quantize: Op = (machine, [outIndex, xIndex, bound]) => {
  const out = machine.tensors[outIndex!]!
  const x = machine.tensors[xIndex!]!
  const { cols, dtype } = out.spec
  const block = codesPerScale(out.spec)
  const rounded =
    dtype === 'a8_row'
      ? quantizeRow
      : dtype === 'f8_row'
        ? (part: Float32Array) => quantizeFloats(part, floatOf(bound!))
        : quantizeBlock
  const kept = dtype === 'f8_row' ? out.floats : out.codes
  for (let row = 0; row < rowsOf(machine, out.spec); row++) {
    for (let from = 0, b = 0; from < cols; from += block, b++) {
      const { codes, scale } = rounded(rowOf(x, row).subarray(from, from + block))
      kept.set(codes, row * cols + from)
      out.scales[row * Math.ceil(cols / block) + b] = scale
    }
  }
}

const ropeTable: Op = (machine, [outIndex, weightIndex]) => {
  const out = machine.tensors[outIndex!]!
  const frequencies = machine.weights[weightIndex!]!
  const n = frequencies.length
  for (let row = 0; row < machine.step.tokens.length; row++) {
    frequencies.forEach((frequency, i) => {
      const angle = machine.step.positions[row]! * frequency
      rowOf(out, row)[i] = Math.cos(angle)
      rowOf(out, row)[n + i] = Math.sin(angle)
    })
  }
}

const rope: Op = (machine, [xIndex, tableIndex, heads, headDim, layout]) => {
  const x = machine.tensors[xIndex!]!
  const table = machine.tensors[tableIndex!]!
  const n = table.spec.cols / 2
  for (let row = 0; row < rowsOf(machine, x.spec); row++) {
    const turn = rowOf(table, row)
    for (let head = 0; head < heads!; head++) {
      const part = rowOf(x, row).subarray(head * headDim!, (head + 1) * headDim!)
      for (let i = 0; i < n; i++) {
        const [first, second] = layout === 1 ? [2 * i, 2 * i + 1] : [i, i + n]
        const a = part[first]!
        const b = part[second]!
        part[first] = a * turn[i]! - b * turn[n + i]!
        part[second] = a * turn[n + i]! + b * turn[i]!
      }
    }
  }
}

const roundToBf16 = (value: number): number => f(roundMantissa(value, 8, -126))

/** e4m3 codes times a power of two that puts the largest of them between 224 and 448. */
const storedE4m3 = (x: Float32Array): Float32Array => {
  const peak = x.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
  if (!Number.isFinite(peak)) return x.map(() => Number.NaN)
  if (peak < smallestQuantized) return x.map(() => 0)
  const scale = 2 ** Math.min(119, Math.ceil(Math.log2(peak / 448)))
  return x.map((value) => Math.max(-448, Math.min(448, nearestE4m3(value / scale))) * scale)
}

/** x as 8-bit codes in blocks of 32, turned back; `kept` is what becomes of a scale. */
const throughBytes = (x: Float32Array, kept: (scale: number) => number): Float32Array => {
  const out = new Float32Array(x.length)
  for (let from = 0; from < x.length; from += 32) {
    const { codes, scale } = quantizeBlock(x.subarray(from, from + 32))
    const factor = kept(scale)
    out.set(
      codes.map((code) => code * factor),
      from,
    )
  }
  return out
}

/** A head's vector as the cache's format keeps it. */
const stored = (dtype: KvSpec['dtype'], x: Float32Array): Float32Array => {
  const throughHalf = (value: number): number => halfToFloat(floatToHalf(value))
  if (dtype === 'f32') return x
  if (dtype === 'f16') return x.map(throughHalf)
  if (dtype === 'bf16') return x.map(roundToBf16)
  if (dtype === 'f8_e4m3') return storedE4m3(x)
  return throughBytes(x, throughHalf)
}

/** Where a position of a head lies in the cache's arrays. */
export const cachePlace = (kv: KvSpec, layer: number, head: number, page: number, position: number): number =>
  (((layer * kv.heads + head) * kv.pages + page) * pagePositions + (position % pagePositions)) * kv.headDim

const kvOf = (program: Program): KvSpec => {
  if (program.kv === undefined) throw new DroverError('E_PROGRAM', 'the program has no cache')
  return program.kv
}

const kvWrite: Op = (machine, [kIndex, vIndex, layer]) => {
  const kv = kvOf(machine.program)
  let row = 0
  for (const { rows, cacheStart, pages } of machine.step.sequences) {
    for (let i = 0; i < rows; i++, row++) {
      const position = cacheStart + i
      const page = pages[Math.floor(position / pagePositions)]!
      for (let head = 0; head < kv.heads; head++) {
        const at = cachePlace(kv, layer!, head, page, position)
        const part = (index: number): Float32Array =>
          rowOf(machine.tensors[index]!, row).subarray(head * kv.headDim, (head + 1) * kv.headDim)
        machine.cache.keys.set(stored(kv.dtype, part(kIndex!)), at)
        machine.cache.values.set(stored(kv.dtype, part(vIndex!)), at)
      }
    }
  }
}

const attention: Op = (machine, [outIndex, qIndex, layer, heads, scaleBits, causal, byteQueries]) => {
  const kv = kvOf(machine.program)
  const { headDim } = kv
  const scale = floatOf(scaleBits!)
  let row = 0
  for (const { rows, cacheStart, pages } of machine.step.sequences) {
    for (let i = 0; i < rows; i++, row++) {
      const seen = causal === 1 ? cacheStart + i + 1 : cacheStart + rows
      for (let head = 0; head < heads!; head++) {
        const kvHead = Math.floor((head * kv.heads) / heads!)
        const at = (position: number): number =>
          cachePlace(kv, layer!, kvHead, pages[Math.floor(position / pagePositions)]!, position)
        const part = rowOf(machine.tensors[qIndex!]!, row).subarray(head * headDim, (head + 1) * headDim)
        const q = byteQueries === 1 ? throughBytes(part, (scale) => scale) : part
        const scores = Float64Array.from({ length: seen }, (_, position) => {
          let sum = 0
          for (let d = 0; d < headDim; d++) sum += q[d]! * machine.cache.keys[at(position) + d]!
          return sum * scale
        })
        const peak = scores.reduce((most, score) => Math.max(most, score), Number.NEGATIVE_INFINITY)
        const weights = scores.map((score) => Math.exp(score - peak))
        const total = weights.reduce((sum, weight) => sum + weight, 0)
        const out = rowOf(machine.tensors[outIndex!]!, row)
        for (let d = 0; d < headDim; d++) {
          let sum = 0
          weights.forEach((weight, position) => {
            sum += weight * machine.cache.values[at(position) + d]!
          })
          out[head * headDim + d] = sum / total
        }
      }
    }
  }
}

/** By name in ops.def. */
export const referenceOps: Readonly<Record<string, Op>> = {
  embed: (machine, [outIndex, weightIndex]) => {
    const out = machine.tensors[outIndex!]!
    const table = machine.weights[weightIndex!]!
    const { cols } = out.spec
    for (let row = 0; row < machine.step.tokens.length; row++) {
      const token = machine.step.tokens[row]!
      rowOf(out, row).set(table.subarray(token * cols, (token + 1) * cols))
    }
  },
  rms_norm: mapRows((x, _row, { weights }, [, , weight, eps]) => {
    const mean = x.reduce((sum, value) => sum + value * value, 0) / x.length
    const factor = 1 / Math.sqrt(mean + floatOf(eps!))
    return x.map((value, i) => value * factor * weights[weight!]![i]!)
  }),
  quantize,
  round_bf16: mapRows((x) => x.map(roundToBf16)),
  gemm,
  swiglu: mapRows((gate, row, { tensors }, [, , up]) => {
    return gate.map((value, i) => (value / (1 + Math.exp(-value))) * rowOf(tensors[up!]!, row)[i]!)
  }),
  rope_table: ropeTable,
  rope,
  kv_write: kvWrite,
  attention,
  gather: mapRows((_x, row, { tensors, step }, [, from]) => rowOf(tensors[from!]!, step.outputRows[row]!)),
  token_nll: (machine, [outIndex, xIndex]) => {
    const { targets } = machine.step
    if (targets === undefined) return
    for (let row = 0; row < machine.step.outputRows.length; row++) {
      const logits = rowOf(machine.tensors[xIndex!]!, row)
      machine.tensors[outIndex!]!.floats[row] = logSumExp(logits) - logits[targets[row]!]!
    }
  },
  softmax: mapRows((x) => {
    const total = logSumExp(x)
    return x.map((value) => Math.exp(value - total))
  }),
  log_softmax: mapRows((x) => {
    const total = logSumExp(x)
    return x.map((value) => value - total)
  }),
  log_sum_exp: mapRows((x) => [logSumExp(x)]),
  embedding_bag: embeddingBag,
  interaction: (machine, [outIndex, denseIndex, pooledIndex, kind]) => {
    const [out, dense, pooled] = [outIndex, denseIndex, pooledIndex].map((index) => machine.tensors[index!]!) as [
      ReferenceTensor,
      ReferenceTensor,
      ReferenceTensor,
    ]
    const { cols } = dense.spec
    for (let row = 0; row < rowsOf(machine, out.spec); row++) {
      const vectors = [rowOf(dense, row)]
      for (let at = 0; at < pooled.spec.cols; at += cols) vectors.push(rowOf(pooled, row).subarray(at, at + cols))
      const products = vectors.flatMap((a, i) =>
        vectors
          .slice(...partners(pairKinds[kind!]!, vectors.length, i))
          .map((b) => a.reduce((sum, value, k) => sum + value * b[k]!, 0)),
      )
      rowOf(out, row).set([...vectors[0]!, ...products])
    }
  },
  concat: (machine, [outIndex, ...inputs]) => {
    const out = machine.tensors[outIndex!]!
    for (let row = 0; row < rowsOf(machine, out.spec); row++) {
      let at = 0
      for (const input of inputs) {
        if (input === absent) continue
        const part = rowOf(machine.tensors[input]!, row)
        rowOf(out, row).set(part, at)
        at += part.length
      }
    }
  },
  cross: mapRows((x0, row, { tensors }, [, , y, x]) =>
    x0.map((value, i) => value * rowOf(tensors[y!]!, row)[i]! + rowOf(tensors[x!]!, row)[i]!),
  ),
  factorization: mapRows((x) => {
    const sum = x.reduce((total, value) => total + value, 0)
    return [(sum * sum - x.reduce((total, value) => total + value * value, 0)) / 2]
  }),
  sigmoid: mapRows((x) => x.map((value) => 1 / (1 + Math.exp(-value)))),
  dequantize: (machine, [outIndex, weightIndex]) => {
    const out = machine.tensors[outIndex!]!
    out.floats.set(machine.weights[weightIndex!]!.subarray(0, out.floats.length))
  },
}
