/** What an op of a step has to do: operations, and bytes that it moves. */
import { rowBytes } from '../tensor.js'
import {
  type ActivationDType,
  absent,
  type DeviceLayout,
  type OpSpec,
  type Program,
  pagePositions,
  type WeightSpec,
} from './program.js'
import type { Step } from './step.js'
import { bagArguments } from './tables.js'

/** Which of a machine's peaks bounds a computation: fused multiply-adds on f32, products of bf16 or products of bytes. */
export type Arithmetic = 'f32' | 'bf16' | 'int8'

/** What multiplies activations of a dtype. */
export const arithmeticOf = (activations: ActivationDType | undefined): Arithmetic =>
  activations?.startsWith('a8') ? 'int8' : activations === 'bf16' ? 'bf16' : 'f32'

/** A piece of work, as far as a machine's limits apply to it. */
export interface Work {
  /** Operations, two per multiply-add. */
  readonly flops?: number | undefined
  /** Default f32. */
  readonly arithmetic?: Arithmetic | undefined
  /** Bytes that must come from memory. */
  readonly bytes?: number | undefined
}

export interface OpCost extends Work {
  readonly flops: number
  readonly arithmetic: Arithmetic
  /** Weights and cached keys and values. */
  readonly bytes: number
  /** Activations read and written: what one op leaves in the processor's caches for the next. */
  readonly activationBytes: number
}

/** Operations per element of the tensor that an op works through; an exponential or a cosine counts as one. */
const perElement: Record<string, { tensor: number; flops: number }> = {
  rms_norm: { tensor: 1, flops: 4 },
  quantize: { tensor: 1, flops: 3 },
  round_bf16: { tensor: 1, flops: 1 },
  swiglu: { tensor: 1, flops: 5 },
  rope_table: { tensor: 0, flops: 2 },
  rope: { tensor: 0, flops: 3 },
  token_nll: { tensor: 1, flops: 4 },
  softmax: { tensor: 1, flops: 5 },
  log_softmax: { tensor: 1, flops: 5 },
  log_sum_exp: { tensor: 1, flops: 4 },
  sample: { tensor: 1, flops: 2 },
  sample_probabilities: { tensor: 1, flops: 2 },
  dequantize: { tensor: 0, flops: 1 },
  cross: { tensor: 0, flops: 2 },
  factorization: { tensor: 1, flops: 3 },
  sigmoid: { tensor: 0, flops: 4 },
}

/** Lookups of an embedding_bag: the bytes of their rows, and two operations for each of their elements. */
const bagWork = (program: Program, step: Step, args: readonly number[]): { bytes: number; flops: number } => {
  const { firstTable, count, firstBag } = bagArguments(args)
  let bytes = 0
  let flops = 0
  for (let t = 0; t < count; t++) {
    const { dtype, cols } = program.weights[firstTable + t]!
    const lookups = step.bags?.[firstBag + t]?.indices.length ?? 0
    bytes += lookups * rowBytes(dtype, cols)
    flops += 2 * lookups * cols
  }
  return { bytes, flops }
}

const weightBytes = (weight: WeightSpec, layout: DeviceLayout): number => {
  const { form, dtype, rows, cols } = weight
  if (form === 'prepared') return layout.preparedBytes(dtype, rows, cols)
  return form === 'decoded' ? rows * cols * 4 : rows * rowBytes(dtype, cols)
}

/** Of one op in one step; zeros for an op that the step's range leaves out are the caller's business. */
export const opCost = (program: Program, layout: DeviceLayout, step: Step, { op, args }: OpSpec): OpCost => {
  const { kv } = program
  const signature = layout.ops.find(({ name }) => name === op)?.signature ?? ''
  const rowsOf = (tensor: number): number => {
    const spec = program.tensors[tensor]
    if (spec === undefined) return 0
    if (spec.dimension === 'fixed') return spec.fixedRows
    return spec.dimension === 'rows' ? step.tokens.length : step.outputRows.length
  }
  const elements = (tensor: number): number => rowsOf(tensor) * (program.tensors[tensor]?.cols ?? 0)
  let activationBytes = 0
  let bytes = 0
  args.forEach((arg, i) => {
    const kind = signature[i] ?? ''
    if (arg === absent) return
    const spec = 'oibp'.includes(kind) ? program.tensors[arg] : undefined
    if (spec !== undefined)
      activationBytes += rowsOf(arg) * layout.activationRowBytes(spec.dtype, spec.cols) * (kind === 'b' ? 2 : 1)
    const weight = 'wq'.includes(kind) ? program.weights[arg] : undefined
    if (weight !== undefined && op !== 'embedding_bag')
      bytes += op === 'embed' ? rowsOf(args[0]!) * rowBytes(weight.dtype, weight.cols) : weightBytes(weight, layout)
  })
  const cost = { arithmetic: 'f32' as Arithmetic, bytes, activationBytes }
  if (op === 'gemm') {
    const [out = 0, x = 0, weight = 0] = args
    const flops = 2 * elements(out) * (program.weights[weight]?.cols ?? 0)
    return { ...cost, flops, arithmetic: arithmeticOf(program.tensors[x]?.dtype) }
  }
  if (op === 'embedding_bag') return { ...cost, ...bagWork(program, step, args) }
  if (op === 'interaction') {
    const [out = 0, dense = 0] = args
    const { cols = 0 } = program.tensors[dense] ?? {}
    return { ...cost, flops: 2 * cols * (elements(out) - elements(dense)) }
  }
  if (kv !== undefined && (op === 'attention' || op === 'kv_write')) {
    const positionBytes = layout.kvPageBytes({ ...kv, layers: 1 }) / pagePositions
    if (op === 'kv_write') return { ...cost, flops: 0, bytes: bytes + step.tokens.length * positionBytes }
    const [, , , heads = 0, , causal] = args
    let pairs = 0
    let positions = 0
    for (const { rows, cacheStart } of step.sequences) {
      positions += cacheStart + rows
      pairs += causal === 1 ? rows * cacheStart + (rows * (rows + 1)) / 2 : rows * (cacheStart + rows)
    }
    return { ...cost, flops: 4 * heads * kv.headDim * pairs, bytes: bytes + positions * positionBytes }
  }
  // Neither sampling without parameters nor a loss without targets does anything.
  const idle =
    (op.startsWith('sample') && step.sampling === undefined) || (op === 'token_nll' && step.targets === undefined)
  const each = perElement[op]
  return { ...cost, flops: each === undefined || idle ? 0 : each.flops * elements(args[each.tensor] ?? 0) }
}
