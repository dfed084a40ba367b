/**
 * The vendor interface: what a device must do to run programs. Two exist, the CPU (native addon) and the TypeScript
 * interpreter; another accelerator adds a file and answers `supportsOp`.
 */
import type { DeviceLayout, Program, RegionSource } from '../program/program.js'
import type { Step } from '../program/step.js'

export interface DeviceSettings {
  /** Caps the workers of this program's steps. */
  threads?: number
  /** Bytes that may be allocated: arenas, cache, prepared weights in memory, scratch. */
  memoryBudget?: number
  /** Read every weight and refuse NaN or infinite values and scales. */
  verifyWeights?: boolean
  /** Folder of files with prepared weights, mapped and shared between processes; of no use to devices that prepare none. */
  preparedCache?: string
}

export interface DeviceLoadOptions extends DeviceSettings {
  onProgress?: (fraction: number) => void
  signal?: AbortSignal
}

/** When an op began and ended, and how long each worker was busy with it: nanoseconds, by the monotonic clock. */
export interface OpTime {
  readonly start: bigint
  readonly end: bigint
  readonly busy: readonly bigint[]
}

/** Indices out of range that a step's policy skipped, or took for the nearest row. */
export interface BagCounts {
  skipped: number
  clamped: number
}

export interface DeviceProgram {
  /** Runs a step; rejects with E_ABORTED after abort(). One at a time: E_BUSY otherwise. */
  run(step: Step): Promise<void>
  /** Runs a step and blocks the thread; for steps shorter than a thread hop. */
  runSync(step: Step): void
  /** The same where that needs no waiting: false, and nothing has run, while the device is busy with other steps. */
  tryRunSync(step: Step): boolean
  /** Ends the step in flight at its next tile. */
  abort(): void
  /** Rows [row, row + rows) of an f32 tensor, as [rows, cols]. */
  read(tensor: number, row: number, rows: number): Float32Array
  /** The same of a u32 tensor. */
  readWords(tensor: number, row: number, rows: number): Uint32Array
  /** Writes f32 rows of an input tensor. */
  write(tensor: number, row: number, data: Float32Array): void
  /** One head of a sequence's cache as f32 [positions, headDim]: keys after RoPE, or values. */
  readKv(
    layer: number,
    kvHead: number,
    what: 'keys' | 'values',
    pages: ArrayLike<number>,
    positions: number,
  ): Float32Array
  copyPage(from: number, to: number): void
  /** Times of each op in the last step that asked for a profile; zeros for ops that did not run. */
  profile(): readonly OpTime[]
  /** What the last step did to indices out of range. */
  bagCounts(): BagCounts
  /** Bytes of tables read from files that are in memory now. */
  residentBytes(): number
  /** Bytes by arena. */
  memoryUsage(): Record<string, number>
  /** Aborts what runs, waits for its end, frees. Idempotent. */
  close(): Promise<void>
}

export interface Device {
  readonly name: string
  readonly layout: DeviceLayout
  supportsOp(name: string): boolean
  load(program: Program, regions: readonly RegionSource[], options?: DeviceLoadOptions): Promise<DeviceProgram>
  /** Loads and blocks the thread; for programs without large weights. */
  loadSync(program: Program, regions: readonly RegionSource[], options?: DeviceSettings): DeviceProgram
}
