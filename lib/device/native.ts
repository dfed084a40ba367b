/** Loads the addon: the only file that does. */
import { join } from 'node:path'
import { DroverError } from '../errors.js'

export interface NativeRegion {
  release(): void
}

export interface NativeProgram {
  run(step: Uint32Array): Promise<void>
  runSync(step: Uint32Array): void
  /** False, and nothing has run, when the pool's threads are busy. */
  tryRunSync(step: Uint32Array): boolean
  abort(): void
  read(tensor: number, row: number, rows: number, out: Float32Array | Uint32Array | Uint8Array): void
  write(tensor: number, row: number, rows: number, data: Float32Array | Uint32Array): void
  readKv(
    layer: number,
    head: number,
    what: 0 | 1,
    pages: Uint32Array,
    positions: number,
    headDim: number,
    out: Float32Array,
  ): void
  copyPage(from: number, to: number): void
  profile(out: BigUint64Array): void
  threads(): number
  bagCounts(): { skipped: number; clamped: number }
  residentBytes(): number
  memory(): Record<'activations' | 'kv' | 'prepared' | 'scratch' | 'tables' | 'mapped' | 'preparedMapped', number>
  release(): void
}

/** Facts of the machine and the choices made from them. */
export interface CpuInfo {
  /** Kernel set in use: scalar; avx2, avxvnni, avx512 or avx512bf16 on x64; neon, neondot or neoni8mm on arm64. */
  isa: string
  /** The best set that this CPU can run. */
  isaBest: string
  /** Comma separated CPU features. */
  features: string
  logicalCpus: number
  physicalCores: number
  /** CPUs that the cpuset allows. */
  affinityCpus: number
  /** cgroup quota in CPUs; 0: none. */
  quotaCpus: number
  threads: number
  threadsReason: string
  l1dBytes: number
  l2Bytes: number
  l3Bytes: number
  /** The instructions that multiply floats and bytes in the kernel set in use. */
  floatPath: string
  bytePath: string
}

/** What the machine can do at most, measured. Operations count two per multiply-add. */
export interface Limits {
  /** What each loop of the reading read. */
  bufferBytes: number
  readBytesPerSecond: number
  /** Fused multiply-adds on f32. */
  f32PerSecond: number
  /** Products of bytes, summed as the integer kernels do. */
  int8PerSecond: number
  /** BF16 dot products; 0 where the CPU or the kernel set has none. */
  bf16PerSecond: number
}

/** Choices that change how fast the GEMM is, never a bit of what it gives; native/include/drover.h says more. */
export interface Tuning {
  /** Requests to memory, 1 or 2, for each line of weights that a row by itself reads. */
  requests: number
  /** Rows, and panels of 16 columns, of a block of the float GEMM. */
  floatRows: number
  floatPanels: number
  /** Bytes of 8-bit rows that a task of the integer GEMM takes at most. */
  byteRows: number
}

export interface NativeLoadOptions {
  /** 0: the pool's. */
  threads: number
  /** 0: unlimited. */
  memoryBudget: number
  /** 1: read all of them. */
  verifyWeights: number
  preparedCache?: string
}

export interface NativeQuantizeOptions {
  /** Cap on workers; 0: the pool's. */
  threads: number
  /** Refuse numbers that the format cannot hold, in float formats too. */
  finite: boolean
  /** [cols] */
  importance?: Float32Array
}

export interface NativeAddon {
  Region: { new (path: string, bytes: number): NativeRegion; new (data: Uint8Array): NativeRegion }
  loadProgram(
    words: Uint32Array,
    regions: readonly NativeRegion[],
    options: NativeLoadOptions,
    onProgress?: (done: number, total: number) => void,
  ): { promise: Promise<NativeProgram>; abort(): void }
  loadProgramSync(words: Uint32Array, regions: readonly NativeRegion[], options: NativeLoadOptions): NativeProgram
  cpu(): CpuInfo
  tuning(): Tuning
  /** For steps that begin later. Throws E_RANGE, and sets nothing, for what no kernel does. */
  setTuning(requests: number, floatRows: number, floatPanels: number, byteRows: number): void
  ops(): { name: string; signature: string }[]
  dtypes(): { name: string; elements: number; bytes: number; activations: number }[]
  activationRowBytes(dtype: number, cols: number): number
  kvPageBytes(dtype: number, layers: number, heads: number, headDim: number): number
  preparedBytes(dtype: number, rows: number, cols: number): number
  /** Stored rows of one format into another; source and importance are copied before it returns, `out` is written at the end. */
  quantize(
    from: number,
    source: Uint8Array,
    to: number,
    rows: number,
    cols: number,
    options: NativeQuantizeOptions,
    out: Uint8Array<ArrayBuffer>,
  ): { promise: Promise<Uint8Array<ArrayBuffer>>; abort(): void }
  quantizeSync(...args: Parameters<NativeAddon['quantize']>): void
  /** Measures rows read at random for about a second, off the event loop. */
  probeGather(
    threads: number,
    rows: number,
    stride: number,
    rowBytes: number,
  ): Promise<{ rowsPerSecond: number; distance: number }>
  /** Measures the machine for some seconds, off the event loop. */
  probe(threads: number, bufferBytes: number): Promise<Limits>
}

let addon: NativeAddon | undefined

/** The addon; loaded on first use. Throws E_NATIVE when no build fits. */
export const nativeAddon = (): NativeAddon => {
  if (addon !== undefined) return addon
  const root = join(__dirname, '..', '..')
  try {
    addon = (require('node-gyp-build') as (folder: string) => NativeAddon)(root)
  } catch (cause) {
    throw new DroverError('E_NATIVE', 'the native addon could not be loaded', {
      found: cause instanceof Error ? cause.message.split('\n')[0] : cause,
      expected: `a build for ${process.platform}-${process.arch}`,
      hint: `build it from source with: node ${join(root, 'scripts', 'rebuild.mjs')}`,
      cause,
    })
  }
  return addon
}
