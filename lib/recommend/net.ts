/** One loaded version of a recommender: runs merged rows, on the pool's threads or on the caller's. */
import type { DeviceProgram } from '../device/device.js'
import { DroverError } from '../errors.js'
import type { Program } from '../program/program.js'
import { bagStep, type Step } from '../program/step.js'
import type { MergedRows } from './merge.js'
import type { RequestShape } from './request.js'
import { StepTime } from './step-time.js'

/** What a step gave. */
export interface Scored {
  /** One probability per row. */
  readonly scores: Float32Array
  readonly skipped: number
  readonly clamped: number
}

/** A synchronous call waits so long (ms) before it looks again whether a step has ended. */
const pollMs = 0.02

/** Steps that will be over in this time (ms) run where they are asked for: waking a thread takes longer than they do. */
const shortMs = 0.1

const sleeper = new Int32Array(new SharedArrayBuffer(4))

const isBusy = (error: unknown): boolean => error instanceof DroverError && error.code === 'E_BUSY'

export class Net {
  readonly shape: RequestShape
  readonly #loaded: DeviceProgram
  readonly #dense: number
  readonly #prob: number
  readonly #bounds: readonly [number, number] | undefined
  /** Undefined where a row may have to come from a disk, so that no step is sure to be short. */
  readonly #time: StepTime | undefined
  /** The step that was begun last and whose end JavaScript has not heard of yet. */
  #running: { rows: number; early?: Scored } | undefined
  #isClosed = false

  /**
   * @param lossThreshold above 0: scores are clamped to [it, 1 - it]
   * @param inMemory all tables are
   */
  constructor(
    program: Program,
    loaded: DeviceProgram,
    shape: RequestShape,
    { lossThreshold, inMemory }: { lossThreshold: number; inMemory: boolean },
  ) {
    this.shape = shape
    this.#loaded = loaded
    this.#dense = program.outputs.get('dense') as number
    this.#prob = program.outputs.get('prob') as number
    if (inMemory) this.#time = new StepTime(program)
    if (lossThreshold > 0) this.#bounds = [Math.fround(lossThreshold), Math.fround(1 - lossThreshold)]
  }

  /** One step at a time. Rejects with E_RANGE for an index out of range, E_ABORTED behind {@link abort}. */
  async run(merged: MergedRows): Promise<Scored> {
    const running: { rows: number; early?: Scored } = { rows: merged.rows }
    const step = this.#prepare(merged)
    this.#running = running
    try {
      await this.#loaded.run(step)
      // A synchronous call may have taken the results before it used the program for itself.
      return running.early ?? this.#take(merged.rows)
    } finally {
      this.#running = undefined
    }
  }

  /** Runs on the caller's thread; waits for a step in flight, whose results are kept for those that asked for it. */
  runSync(merged: MergedRows): Scored {
    if (this.#running !== undefined && this.#running.early === undefined)
      this.#running.early = this.#await(this.#running.rows)
    this.#loaded.runSync(this.#prepare(merged))
    return this.#take(merged.rows)
  }

  /**
   * Runs a short step on the caller's thread, if the pool's threads have nothing else to do; undefined, and nothing has
   * run, otherwise. Throws what {@link run} rejects with.
   */
  tryRun(merged: MergedRows): Scored | undefined {
    if (this.#time === undefined || this.#running !== undefined) return undefined
    const lookups = merged.bags.reduce((sum, { indices }) => sum + indices.length, 0)
    const predicted = this.#time.predict(merged.rows, lookups)
    if (predicted > shortMs) {
      this.#time.forget()
      return undefined
    }
    const began = performance.now()
    if (!this.#loaded.tryRunSync(this.#prepare(merged))) return undefined
    this.#time.took(predicted, performance.now() - began)
    return this.#take(merged.rows)
  }

  /** Ends the step in flight early. */
  abort(): void {
    this.#loaded.abort()
  }

  memoryUsage(): Record<string, number> {
    return this.#loaded.memoryUsage()
  }

  /** Bytes of mapped tables that are in memory at this moment; none after {@link close}. */
  residentBytes(): number {
    return this.#isClosed ? 0 : this.#loaded.residentBytes()
  }

  close(): Promise<void> {
    this.#isClosed = true
    return this.#loaded.close()
  }

  #prepare({ rows, dense, bags }: MergedRows): Step {
    this.#loaded.write(this.#dense, 0, dense)
    return bagStep(rows, bags, this.shape.policy)
  }

  #take(rows: number): Scored {
    const scores = this.#loaded.read(this.#prob, 0, rows)
    const bounds = this.#bounds
    if (bounds !== undefined) {
      for (let i = 0; i < rows; i++) scores[i] = Math.min(Math.max(scores[i] as number, bounds[0]), bounds[1])
    }
    return { scores, ...this.#loaded.bagCounts() }
  }

  /** The device refuses to be read until the step has ended, of which this thread cannot hear while it waits. */
  #await(rows: number): Scored {
    for (;;) {
      try {
        return this.#take(rows)
      } catch (error) {
        if (!isBusy(error)) throw error
        Atomics.wait(sleeper, 0, 0, pollMs)
      }
    }
  }
}
