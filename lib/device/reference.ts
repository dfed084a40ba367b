/**
 * The reference device: the programs of the CPU device, interpreted in TypeScript. Slow and exact; what the native
 * kernels are checked against. Weights are decoded to f32 at load, each tensor has memory of its own.
 */
import { closeSync, openSync, readSync } from 'node:fs'
import { aborted, DroverError, throwIfAborted } from '../errors.js'
import { decodeRow } from '../format/decode/index.js'
import { decodeRowwise } from '../format/decode/rowwise.js'
import {
  type DeviceLayout,
  mostRows,
  type Program,
  pagePositions,
  type RegionSource,
  type WeightSpec,
} from '../program/program.js'
import type { Step } from '../program/step.js'
import { isRowwise, rowBytes } from '../tensor.js'
import { cpuDevice } from './cpu.js'
import type { BagCounts, Device, DeviceLoadOptions, DeviceProgram, DeviceSettings, OpTime } from './device.js'
import { checkBags } from './reference-bags.js'
import { cachePlace, codesPerScale, type Machine, type ReferenceTensor, referenceOps } from './reference-ops.js'
import { checkStep } from './reference-step.js'

const readBytes = (source: RegionSource, offset: number, length: number): Uint8Array => {
  if ('data' in source) return source.data.slice(offset, offset + length)
  const bytes = new Uint8Array(length)
  const file = openSync(source.path, 'r')
  try {
    for (let done = 0; done < length; ) {
      const read = readSync(file, bytes, done, length - done, offset + done)
      if (read === 0) {
        throw new DroverError('E_IO', 'a file ends inside a weight', { file: source.path, found: offset + done })
      }
      done += read
    }
  } finally {
    closeSync(file)
  }
  return bytes
}

/** A weight as f32 [rows, cols], times its scales where it has some. */
const weightOf = (program: Program, weight: WeightSpec, sources: readonly RegionSource[], verify: boolean) => {
  const values = decodeWeight(weight, sources, verify)
  const scales = weight.scales === undefined ? undefined : program.weights[weight.scales]
  if (scales === undefined) return values
  const size = weight.cols / scales.cols
  const factors = decodeWeight(scales, sources, verify)
  return values.map((value, i) => value * factors[Math.floor(i / size)]!)
}

const decodeWeight = (weight: WeightSpec, sources: readonly RegionSource[], verify: boolean): Float32Array => {
  const source = sources[weight.region]
  const { dtype, cols, parameters = 'last' } = weight
  const row = rowBytes(dtype, cols)
  const stride = weight.stride ?? row
  const length = stride * (weight.rows - 1) + row
  const size = source === undefined ? 0 : 'data' in source ? source.data.length : source.bytes
  if (source === undefined || weight.offset + length > size) {
    throw new DroverError('E_PROGRAM', 'a weight ends past its region', {
      field: weight.name,
      found: weight.offset + length,
      expected: size,
    })
  }
  const bytes = readBytes(source, weight.offset, length)
  const values = new Float32Array(weight.rows * weight.cols)
  for (let at = 0; at < weight.rows; at++) {
    const out = values.subarray(at * cols, (at + 1) * cols)
    const data = bytes.subarray(at * stride, at * stride + row)
    if (isRowwise(dtype)) decodeRowwise(dtype, data, cols, parameters, out)
    else decodeRow(dtype, data, cols, out)
  }
  if (verify && !values.every(Number.isFinite)) {
    throw new DroverError('E_FORMAT', 'a weight holds NaN or infinite values', { field: weight.name })
  }
  return values
}

const makeTensor = (program: Program, spec: Program['tensors'][number]): ReferenceTensor => {
  const rows = mostRows(program, spec)
  const quantized = !['f32', 'bf16', 'u32'].includes(spec.dtype)
  const integers = quantized && spec.dtype !== 'f8_row'
  const floats = new Float32Array(integers ? 0 : rows * spec.cols)
  return {
    spec,
    floats,
    words: new Uint32Array(floats.buffer),
    codes: new Int8Array(integers ? rows * spec.cols : 0),
    scales: new Float32Array(quantized ? rows * Math.ceil(spec.cols / codesPerScale(spec)) : 0),
  }
}

const idle: OpTime = { start: 0n, end: 0n, busy: [0n] }

class ReferenceProgram implements DeviceProgram {
  readonly #program: Program
  readonly #memory: Omit<Machine, 'step' | 'program' | 'bags'>
  readonly #profile: OpTime[]
  #bagCounts: BagCounts = { skipped: 0, clamped: 0 }
  #busy = false
  #closed = false
  #cancelled = false
  #running: Promise<void> | undefined

  constructor(program: Program, weights: readonly Float32Array[], memoryBudget = Number.POSITIVE_INFINITY) {
    this.#program = program
    const { kv } = program
    const cached = kv === undefined ? 0 : kv.layers * kv.heads * kv.pages * pagePositions * kv.headDim
    this.#memory = {
      tensors: program.tensors.map((spec) => makeTensor(program, spec)),
      weights,
      cache: { keys: new Float32Array(cached), values: new Float32Array(cached) },
    }
    this.#profile = program.ops.map(() => idle)
    const bytes = Object.values(this.memoryUsage()).reduce((sum, part) => sum + part, 0)
    if (memoryBudget > 0 && bytes > memoryBudget) {
      throw new DroverError('E_MEMORY', 'the program needs more than its budget', {
        found: bytes,
        expected: memoryBudget,
      })
    }
  }

  run(step: Step): Promise<void> {
    this.#claim()
    this.#running = this.#run(step)
    return this.#running
  }

  async #run(step: Step): Promise<void> {
    try {
      for (const op of this.#ops(step)) {
        op()
        // Between ops the event loop goes on, and an abort takes effect.
        await new Promise<void>((resolve) => setImmediate(resolve))
        if (this.#cancelled) throw aborted('the step')
      }
    } finally {
      this.#busy = false
    }
  }

  runSync(step: Step): void {
    this.#claim()
    try {
      for (const op of this.#ops(step)) op()
    } finally {
      this.#busy = false
    }
  }

  tryRunSync(step: Step): boolean {
    if (this.#busy) return false
    this.runSync(step)
    return true
  }

  /** The ops of a checked step, each as a function that runs it. */
  #ops(step: Step): (() => void)[] {
    checkStep(this.#program, step)
    const bags = checkBags(this.#program, step)
    this.#bagCounts = bags.counts
    const machine: Machine = { program: this.#program, ...this.#memory, step, bags }
    const { firstOp = 0, endOp = this.#program.ops.length, profile = false } = step
    if (profile) this.#profile.fill(idle)
    return this.#program.ops.slice(firstOp, endOp).map(({ op, args, name }, i) => () => {
      const implementation = referenceOps[op]
      // Sampling ops without parameters do nothing, here as there.
      if (implementation === undefined && step.sampling !== undefined) {
        throw new DroverError('E_UNSUPPORTED', 'the reference device has no such op', { field: name, found: op })
      }
      const start = process.hrtime.bigint()
      implementation?.(machine, args)
      if (!profile) return
      const end = process.hrtime.bigint()
      this.#profile[firstOp + i] = { start, end, busy: [end - start] }
    })
  }

  abort(): void {
    this.#cancelled = true
  }

  read(tensor: number, row: number, rows: number): Float32Array {
    const { floats, from, to } = this.#rows(tensor, row, rows)
    return floats.slice(from, to)
  }

  readWords(tensor: number, row: number, rows: number): Uint32Array {
    const { words, from, to } = this.#rows(tensor, row, rows)
    return words.slice(from, to)
  }

  write(tensor: number, row: number, data: Float32Array): void {
    const cols = this.#program.tensors[tensor]?.cols ?? 1
    if (data.length % cols !== 0) {
      throw new DroverError('E_SHAPE', 'wrong number of values', { found: data.length, expected: `rows of ${cols}` })
    }
    const { floats, from } = this.#rows(tensor, row, data.length / cols)
    floats.set(data, from)
  }

  #rows(tensor: number, row: number, rows: number) {
    this.#check()
    const found = this.#memory.tensors[tensor]
    if (found === undefined || row < 0 || rows < 0 || row + rows > mostRows(this.#program, found.spec)) {
      throw new DroverError('E_RANGE', 'no such rows', { found: `tensor ${tensor}, rows ${row} to ${row + rows}` })
    }
    const { cols } = found.spec
    return { ...found, from: row * cols, to: (row + rows) * cols }
  }

  readKv(
    layer: number,
    kvHead: number,
    what: 'keys' | 'values',
    pages: ArrayLike<number>,
    positions: number,
  ): Float32Array {
    this.#check()
    const { kv } = this.#program
    const short = pages.length * pagePositions < positions
    if (kv === undefined || layer >= kv.layers || kvHead >= kv.heads || short) {
      throw new DroverError('E_RANGE', 'no such part of the cache', {
        found: `layer ${layer}, head ${kvHead}, ${positions} positions`,
      })
    }
    const out = new Float32Array(positions * kv.headDim)
    for (let position = 0; position < positions; position++) {
      const at = cachePlace(kv, layer, kvHead, this.#page(pages[Math.floor(position / pagePositions)]), position)
      out.set(this.#memory.cache[what].subarray(at, at + kv.headDim), position * kv.headDim)
    }
    return out
  }

  copyPage(from: number, to: number): void {
    this.#check()
    const { kv } = this.#program
    this.#page(Math.max(from, to))
    if (kv === undefined) return
    for (let layer = 0; layer < kv.layers; layer++) {
      for (let head = 0; head < kv.heads; head++) {
        const [source, target] = [from, to].map((page) => cachePlace(kv, layer, head, page, 0)) as [number, number]
        for (const cache of [this.#memory.cache.keys, this.#memory.cache.values]) {
          cache.copyWithin(target, source, source + pagePositions * kv.headDim)
        }
      }
    }
  }

  #page(page: number | undefined): number {
    const pages = this.#program.kv?.pages ?? 0
    if (page !== undefined && page >= 0 && page < pages) return page
    throw new DroverError('E_RANGE', 'page out of range', { found: page, expected: pages })
  }

  profile(): readonly OpTime[] {
    this.#check()
    return this.#profile.slice()
  }

  bagCounts(): BagCounts {
    this.#check()
    return this.#bagCounts
  }

  /** Tables are copied, whatever their placement. */
  residentBytes(): number {
    this.#check()
    return 0
  }

  memoryUsage(): Record<string, number> {
    this.#check()
    const { tensors, weights, cache } = this.#memory
    const sum = (arrays: readonly ArrayBufferView[]): number =>
      arrays.reduce((total, { byteLength }) => total + byteLength, 0)
    return {
      activations: sum(tensors.flatMap(({ floats, codes, scales }) => [floats, codes, scales])),
      kv: sum([cache.keys, cache.values]),
      prepared: sum(weights),
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#cancelled = true
    await this.#running?.catch(() => {})
  }

  #check(): void {
    if (this.#closed) throw new DroverError('E_CLOSED', 'the program has been closed')
    if (this.#busy) throw new DroverError('E_BUSY', 'a step of this program is running')
  }

  #claim(): void {
    this.#check()
    this.#busy = true
    this.#cancelled = false
  }
}

class ReferenceDevice implements Device {
  readonly name = 'reference'

  /** Of the CPU device: the two run the same programs. */
  get layout(): DeviceLayout {
    return cpuDevice.layout
  }

  supportsOp(name: string): boolean {
    return name in referenceOps
  }

  async load(
    program: Program,
    sources: readonly RegionSource[],
    options: DeviceLoadOptions = {},
  ): Promise<DeviceProgram> {
    const weights: Float32Array[] = []
    for (const weight of program.weights) {
      throwIfAborted(options.signal, 'loading')
      weights.push(weightOf(program, weight, sources, options.verifyWeights ?? false))
      options.onProgress?.(weights.length / program.weights.length)
      await new Promise<void>((resolve) => setImmediate(resolve))
    }
    return new ReferenceProgram(program, weights, options.memoryBudget)
  }

  loadSync(program: Program, sources: readonly RegionSource[], options: DeviceSettings = {}): DeviceProgram {
    const { verifyWeights = false, memoryBudget } = options
    const weights = program.weights.map((weight) => weightOf(program, weight, sources, verifyWeights))
    return new ReferenceProgram(program, weights, memoryBudget)
  }
}

export const referenceDevice: Device = new ReferenceDevice()
