/**
 * Plans the activation arena: every tensor lives from the op that first touches it to the op that last does; tensors
 * whose lives do not cross may share bytes. Largest first, each at the lowest offset that is free during its life.
 * Where rows run in blocks, inputs and outputs outlive a block: they come first and share nothing; all others hold the
 * rows of one block.
 */
import { type DeviceLayout, mostRows, type Program } from './program.js'

/** Unit of arena offsets, in bytes. */
export const arenaUnit = 64

export interface PlannedTensor {
  /** Bytes. */
  readonly offset: number
  readonly rowBytes: number
  readonly bytes: number
  /** First and last op that touch it; outputs live to the end, inputs from the start. */
  readonly first: number
  readonly last: number
}

export interface Plan {
  readonly tensors: readonly PlannedTensor[]
  readonly arenaBytes: number
  /** Where the tensors of a block begin, which every thread has its own of; 0 without blocks. */
  readonly keptBytes: number
  /** What the tensors would take if none shared. */
  readonly unsharedBytes: number
  readonly kvBytes: number
  readonly preparedBytes: number
}

const isTensorOperand = (kind: string): boolean => 'oibp'.includes(kind)

export const planProgram = (program: Program, layout: DeviceLayout): Plan => {
  const signatures = new Map(layout.ops.map(({ name, signature }) => [name, signature]))
  const first = new Array<number>(program.tensors.length).fill(-1)
  const last = new Array<number>(program.tensors.length).fill(-1)
  program.ops.forEach(({ op, args }, at) => {
    const signature = signatures.get(op) ?? ''
    const touch = (written: boolean): void =>
      args.forEach((arg, i) => {
        const kind = signature[i] ?? ''
        if (!isTensorOperand(kind) || (kind === 'o') !== written || arg >= program.tensors.length) return
        // What is read before any op has written it is an input, there from the start.
        if (first[arg] === -1) first[arg] = written ? at : 0
        last[arg] = at
      })
    touch(false)
    touch(true)
  })
  const kept = new Set<number>()
  for (const index of program.outputs.values()) {
    last[index] = program.ops.length
    if (program.blockRows !== undefined) kept.add(index)
  }
  const sized = program.tensors.map((tensor, index) => {
    const rowBytes = layout.activationRowBytes(tensor.dtype, tensor.cols)
    const bytes = rowBytes * mostRows(program, tensor, program.blockRows === undefined || kept.has(index))
    return { index, rowBytes, bytes, first: first[index]!, last: last[index]! }
  })
  const offsets = new Array<number>(sized.length).fill(0)
  let keptBytes = 0
  for (const { index, bytes } of sized) {
    if (!kept.has(index)) continue
    offsets[index] = keptBytes
    keptBytes += bytes
  }
  const placed: typeof sized = []
  const others = sized.filter(({ index }) => !kept.has(index))
  for (const tensor of others.sort((a, b) => b.bytes - a.bytes || a.index - b.index)) {
    const rivals = placed
      .filter((other) => other.first <= tensor.last && tensor.first <= other.last)
      .sort((a, b) => offsets[a.index]! - offsets[b.index]!)
    let offset = keptBytes
    for (const other of rivals) {
      if (offsets[other.index]! >= offset + tensor.bytes) break
      offset = Math.max(offset, offsets[other.index]! + other.bytes)
    }
    offsets[tensor.index] = offset
    placed.push(tensor)
  }
  const arenaBytes = sized.reduce((most, { index, bytes }) => Math.max(most, offsets[index]! + bytes), 0)
  const preparedBytes = program.weights.reduce((sum, { form, dtype, rows, cols }) => {
    if (form === 'prepared') return sum + layout.preparedBytes(dtype, rows, cols)
    return form === 'decoded' ? sum + Math.ceil((rows * cols * 4) / arenaUnit) * arenaUnit : sum
  }, 0)
  return {
    tensors: sized.map(({ index, rowBytes, bytes, first, last }) => ({
      offset: offsets[index]!,
      rowBytes,
      bytes,
      first,
      last,
    })),
    arenaBytes,
    keptBytes,
    unsharedBytes: sized.reduce((sum, { bytes }) => sum + bytes, 0),
    kvBytes: program.kv === undefined ? 0 : layout.kvPageBytes(program.kv) * program.kv.pages,
    preparedBytes,
  }
}
