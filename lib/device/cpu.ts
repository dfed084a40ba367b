/** The CPU device: programs run by the native addon on its own threads. */
import { toNamespacedPath } from 'node:path'
import { DroverError, type ErrorCode, errorCodes, throwIfAborted } from '../errors.js'
import { encodeProgram } from '../program/encode.js'
import { planProgram } from '../program/plan.js'
import {
  type ActivationDType,
  type DeviceLayout,
  mostRows,
  type Program,
  pagePositions,
  type RegionSource,
} from '../program/program.js'
import { encodeStep, type Step } from '../program/step.js'
import { tableOfBags } from '../program/tables.js'
import type { BagCounts, Device, DeviceLoadOptions, DeviceProgram, DeviceSettings, OpTime } from './device.js'
import { type CpuInfo, type NativeLoadOptions, type NativeProgram, type NativeRegion, nativeAddon } from './native.js'
import { tuneFor, useTuning } from './tuning.js'

/** Turns what the addon throws into a DroverError that names the op. */
export const translate = (error: unknown, program?: Program): unknown => {
  if (!(error instanceof Error) || error instanceof DroverError || !('code' in error)) return error
  const { code, op, bags, found, expected } = error as Error &
    Record<'op' | 'bags' | 'found' | 'expected', number> & {
      code: string
    }
  if (!(code in errorCodes)) return error
  const table = bags >= 0 && program !== undefined ? tableOfBags(program, bags)?.name : undefined
  const name = op >= 0 ? program?.ops[op]?.name : table
  return new DroverError(code as ErrorCode, error.message, {
    field: name,
    ...(found === 0 && expected === 0 ? {} : { found, expected }),
  })
}

/** Runs `body`; what the addon throws becomes a DroverError. */
export const guarded = <T>(program: Program | undefined, body: () => T): T => {
  try {
    return body()
  } catch (error) {
    throw translate(error, program)
  }
}

const makeLayout = (): DeviceLayout => {
  const addon = guarded(undefined, () => {
    const loaded = nativeAddon()
    loaded.cpu() // an impossible DROVER_ISA is refused here
    return loaded
  })
  const dtypes = addon.dtypes()
  const ids = new Map(dtypes.map(({ name }, id) => [name, id]))
  const dtypeId = (name: string): number => {
    const id = ids.get(name)
    if (id === undefined) throw new DroverError('E_UNSUPPORTED', 'the CPU device has no such dtype', { found: name })
    return id
  }
  return {
    ops: addon.ops(),
    dtypeId,
    activationRowBytes: (dtype, cols) => addon.activationRowBytes(dtypeId(dtype), cols),
    gemmActivations: (dtype) => {
      const { activations } = dtypes[dtypeId(dtype)]!
      return activations < 0 ? undefined : (dtypes[activations]!.name as ActivationDType)
    },
    kvPageBytes: ({ dtype, layers, heads, headDim }) => addon.kvPageBytes(dtypeId(dtype), layers, heads, headDim),
    preparedBytes: (dtype, rows, cols) => addon.preparedBytes(dtypeId(dtype), rows, cols),
  }
}

/** Words of a step whose memory is kept for the next: 16 MiB. */
const mostKept = 2 ** 22

/** For so many numbers, all of which will be written. Zeroing many takes longer than a Buffer takes to be made. */
const unwritten = (length: number): Float32Array =>
  length < 2048 ? new Float32Array(length) : new Float32Array(Buffer.allocUnsafeSlow(length * 4).buffer)

class CpuProgram implements DeviceProgram {
  readonly #program: Program
  readonly #native: NativeProgram
  /** Of an earlier step, unless that was large: the addon has its own copy before a call returns. */
  #words: Uint32Array = new Uint32Array(0)
  #running: Promise<void> | undefined
  #closing: Promise<void> | undefined

  constructor(program: Program, native: NativeProgram) {
    this.#program = program
    this.#native = native
  }

  async run(step: Step): Promise<void> {
    this.#check()
    const words = this.#encode(step)
    // The native side may have ended a step that JavaScript has yet to hear of: it is over when its promise is.
    if (this.#running !== undefined) {
      throw new DroverError('E_BUSY', 'the program is running a step', { hint: 'await the first, or abort it' })
    }
    this.#running = this.#run(words).finally(() => {
      this.#running = undefined
    })
    return this.#running
  }

  async #run(words: Uint32Array): Promise<void> {
    try {
      await this.#native.run(words)
    } catch (error) {
      throw translate(error, this.#program)
    }
  }

  runSync(step: Step): void {
    this.#guard(() => this.#native.runSync(this.#encode(step)))
  }

  tryRunSync(step: Step): boolean {
    return this.#guard(() => this.#native.tryRunSync(this.#encode(step)))
  }

  #encode(step: Step): Uint32Array {
    const words = encodeStep(step, this.#program.ops.length, this.#words)
    if (words.length > this.#words.length && words.length <= mostKept) this.#words = words
    return words
  }

  abort(): void {
    if (this.#closing === undefined) this.#native.abort()
  }

  read(tensor: number, row: number, rows: number): Float32Array {
    const out = unwritten(this.#size(tensor, row, rows))
    this.#guard(() => this.#native.read(tensor, row, rows, out))
    return out
  }

  readWords(tensor: number, row: number, rows: number): Uint32Array {
    const out = new Uint32Array(this.#size(tensor, row, rows))
    this.#guard(() => this.#native.read(tensor, row, rows, out))
    return out
  }

  write(tensor: number, row: number, data: Float32Array): void {
    const cols = this.#program.tensors[tensor]?.cols ?? 1
    this.#guard(() => this.#native.write(tensor, row, data.length / cols, data))
  }

  readKv(
    layer: number,
    kvHead: number,
    what: 'keys' | 'values',
    pages: ArrayLike<number>,
    positions: number,
  ): Float32Array {
    const headDim = this.#program.kv?.headDim ?? 0
    if (pages.length * pagePositions < positions) {
      throw new DroverError('E_RANGE', 'the page table holds fewer positions than asked for', {
        found: pages.length * pagePositions,
        expected: positions,
      })
    }
    const out = new Float32Array(positions * headDim)
    this.#guard(() =>
      this.#native.readKv(layer, kvHead, what === 'keys' ? 0 : 1, Uint32Array.from(pages), positions, headDim, out),
    )
    return out
  }

  copyPage(from: number, to: number): void {
    this.#guard(() => this.#native.copyPage(from, to))
  }

  profile(): readonly OpTime[] {
    return this.#guard(() => {
      const words = 2 + this.#native.threads()
      const out = new BigUint64Array(this.#program.ops.length * words)
      this.#native.profile(out)
      return this.#program.ops.map((_, i) => {
        const [start = 0n, end = 0n, ...busy] = out.subarray(i * words, (i + 1) * words)
        return { start, end, busy }
      })
    })
  }

  bagCounts(): BagCounts {
    return this.#guard(() => this.#native.bagCounts())
  }

  residentBytes(): number {
    return this.#guard(() => this.#native.residentBytes())
  }

  memoryUsage(): Record<string, number> {
    return this.#guard(() => this.#native.memory())
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    this.#native.abort()
    // Without a step in flight the memory goes at once: a caller that never yields may load and close in a loop.
    if (this.#running !== undefined) await this.#running.catch(() => {})
    this.#native.release()
  }

  #check(): void {
    if (this.#closing !== undefined) throw new DroverError('E_CLOSED', 'the program has been closed')
  }

  #guard<T>(body: () => T): T {
    this.#check()
    return guarded(this.#program, body)
  }

  #size(tensor: number, row: number, rows: number): number {
    const spec = this.#program.tensors[tensor]
    if (spec === undefined || row < 0 || rows < 0 || row + rows > mostRows(this.#program, spec)) {
      throw new DroverError('E_RANGE', 'no such rows', {
        field: spec?.name,
        found: `tensor ${tensor}, rows ${row} to ${row + rows}`,
      })
    }
    return rows * spec.cols
  }
}

const nativeSettings = (settings: DeviceSettings): NativeLoadOptions => {
  const { threads = 0, memoryBudget = 0, verifyWeights = false, preparedCache } = settings
  return {
    threads,
    memoryBudget,
    verifyWeights: verifyWeights ? 1 : 0,
    ...(preparedCache === undefined ? {} : { preparedCache: toNamespacedPath(preparedCache) }),
  }
}

/** Opens each source into `regions`, so that those opened before one fails can be released. */
const openRegions = (sources: readonly RegionSource[], regions: NativeRegion[]): NativeRegion[] => {
  const { Region } = nativeAddon()
  for (const source of sources) {
    // Windows takes long paths only in its own form; elsewhere this changes nothing.
    regions.push('data' in source ? new Region(source.data) : new Region(toNamespacedPath(source.path), source.bytes))
  }
  return regions
}

class CpuDevice implements Device {
  readonly name = 'cpu'
  #layout: DeviceLayout | undefined
  #supported: Set<string> | undefined

  get layout(): DeviceLayout {
    this.#layout ??= makeLayout()
    return this.#layout
  }

  supportsOp(name: string): boolean {
    this.#supported ??= new Set(this.layout.ops.map((op) => op.name))
    return this.#supported.has(name)
  }

  async load(
    program: Program,
    sources: readonly RegionSource[],
    options: DeviceLoadOptions = {},
  ): Promise<DeviceProgram> {
    throwIfAborted(options.signal, 'loading')
    const plan = planProgram(program, this.layout)
    const words = encodeProgram(program, plan, this.layout)
    const { onProgress, signal } = options
    const searching = tuneFor(this, plan.preparedBytes)
    if (searching !== undefined) {
      await searching
      throwIfAborted(signal, 'loading')
    }
    const regions: NativeRegion[] = []
    try {
      const { promise, abort } = guarded(program, () =>
        nativeAddon().loadProgram(
          words,
          openRegions(sources, regions),
          nativeSettings(options),
          onProgress === undefined ? undefined : (done, total) => onProgress(total === 0 ? 1 : done / total),
        ),
      )
      signal?.addEventListener('abort', abort, { once: true })
      try {
        return new CpuProgram(program, await promise)
      } catch (error) {
        throw translate(error, program)
      } finally {
        signal?.removeEventListener('abort', abort)
      }
    } finally {
      for (const region of regions) region.release()
    }
  }

  loadSync(program: Program, sources: readonly RegionSource[], options: DeviceSettings = {}): DeviceProgram {
    useTuning()
    const words = encodeProgram(program, planProgram(program, this.layout), this.layout)
    const regions: NativeRegion[] = []
    try {
      return guarded(program, () => {
        const loaded = nativeAddon().loadProgramSync(words, openRegions(sources, regions), nativeSettings(options))
        return new CpuProgram(program, loaded)
      })
    } finally {
      for (const region of regions) region.release()
    }
  }
}

export const cpuDevice: Device = new CpuDevice()

/** Instruction set, caches, threads and why that many. Throws E_ISA when DROVER_ISA names an impossible set. */
export const cpu = (): CpuInfo => guarded(undefined, () => nativeAddon().cpu())
