/**
 * Continuous batching: every step takes one row of each sequence that is writing and fills up with rows of prompts.
 * What runs beside a sequence never changes its result, so any mix will do.
 */
import type { DeviceProgram } from '../device/device.js'
import { DroverError } from '../errors.js'
import type { PagePool } from '../memory/pages.js'
import { pagePositions } from '../program/program.js'
import type { SamplingParameters, Step } from '../program/step.js'

export interface Drawn {
  token: number
  logprob: number
  top: { token: number; logprob: number }[]
}

/** A sequence as the scheduler needs it. */
export interface Sequence {
  /** Prompt and what has been drawn so far; the scheduler appends. */
  readonly tokens: number[]
  /** Positions in the cache. */
  cached: number
  readonly pages: number[]
  /** Parameters for drawing the next token. */
  sampling(): SamplingParameters
  /** Called with each drawn token, already appended; true ends the sequence. */
  drawn(token: Drawn): boolean
  failed(error: unknown): void
  /** Called once, when positions found in the cache are known. */
  started(cachedTokens: number): void
}

export interface SchedulerLimits {
  maxRows: number
  maxSequences: number
}

/** Where the program's tensors and ops for generation are. */
export interface ProgramPoints {
  /** The u32 tensor of op `sample`, and one past that op. */
  sample: number
  endOp: number
  sampleCols: number
}

interface Entry {
  sequence: Sequence
  rows: number
}

export class Scheduler {
  readonly #program: DeviceProgram
  readonly #pool: PagePool
  readonly #limits: SchedulerLimits
  readonly #points: ProgramPoints
  readonly #waiting: Sequence[] = []
  /** Oldest first. */
  #active: Sequence[] = []
  readonly #cancelled = new Set<Sequence>()
  readonly #jobs: (() => Promise<void>)[] = []
  #running: readonly Entry[] = []
  #loop: Promise<void> | undefined
  #closed = false

  constructor(program: DeviceProgram, pool: PagePool, limits: SchedulerLimits, points: ProgramPoints) {
    this.#program = program
    this.#pool = pool
    this.#limits = limits
    this.#points = points
  }

  add(sequence: Sequence): void {
    this.#check()
    this.#waiting.push(sequence)
    this.#start()
  }

  /** Takes a sequence out; a step that holds it is aborted and repeated for the others. */
  cancel(sequence: Sequence): void {
    const waiting = this.#waiting.indexOf(sequence)
    if (waiting !== -1) {
      this.#waiting.splice(waiting, 1)
      this.#release(sequence)
      return
    }
    if (!this.#active.includes(sequence)) return
    this.#cancelled.add(sequence)
    if (this.#running.some((entry) => entry.sequence === sequence)) this.#program.abort()
    else this.#start()
  }

  /** Runs `body` between steps, alone with the program. */
  exclusive<T>(body: () => Promise<T>): Promise<T> {
    this.#check()
    return new Promise((resolve, reject) => {
      this.#jobs.push(() => body().then(resolve, reject))
      this.#start()
    })
  }

  /** Ends everything in flight with `error` and waits for the current step. */
  async close(error: DroverError): Promise<void> {
    this.#closed = true
    const open = [...this.#waiting.splice(0), ...this.#active]
    for (const sequence of open) {
      sequence.failed(error)
      this.#cancelled.add(sequence)
    }
    this.#program.abort()
    await this.#loop
  }

  #check(): void {
    if (this.#closed) throw new DroverError('E_CLOSED', 'the model has been closed')
  }

  #start(): void {
    this.#loop ??= this.#run().finally(() => {
      this.#loop = undefined
      if (this.#hasWork()) this.#start()
    })
  }

  #hasWork(): boolean {
    return !this.#closed && (this.#jobs.length > 0 || this.#waiting.length > 0 || this.#active.length > 0)
  }

  async #run(): Promise<void> {
    await Promise.resolve() // several calls in one turn share their first step
    for (;;) {
      this.#sweep()
      const job = this.#jobs.shift()
      if (job !== undefined) {
        await job()
        continue
      }
      if (this.#closed) return
      const entries = this.#plan()
      if (entries.length === 0) return
      this.#running = entries
      try {
        await this.#program.run(this.#stepOf(entries))
        this.#running = []
        this.#take(entries)
      } catch (error) {
        this.#running = []
        // An aborted step is repeated without the sequences that were taken out.
        if (error instanceof DroverError && error.code === 'E_ABORTED') continue
        for (const { sequence } of entries) this.#end(sequence, () => sequence.failed(error))
      }
    }
  }

  #sweep(): void {
    for (const sequence of this.#cancelled) this.#end(sequence, () => {})
    this.#cancelled.clear()
  }

  #end(sequence: Sequence, notify: () => void): void {
    this.#active = this.#active.filter((other) => other !== sequence)
    this.#release(sequence)
    notify()
  }

  #release(sequence: Sequence): void {
    for (const page of sequence.pages.splice(0)) this.#pool.release(page)
    sequence.cached = 0
  }

  /** Rows of the next step: first one for each that is writing, then prompts in the order of their coming. */
  #plan(): Entry[] {
    while (this.#waiting.length > 0 && this.#active.length < this.#limits.maxSequences) {
      const sequence = this.#waiting.shift() as Sequence
      // At least one position is computed: its logits are needed.
      const most = Math.floor((sequence.tokens.length - 1) / pagePositions)
      sequence.pages.push(...this.#pool.match(sequence.tokens, most))
      sequence.cached = sequence.pages.length * pagePositions
      sequence.started(sequence.cached)
      this.#active.push(sequence)
    }
    const entries: Entry[] = []
    let room = this.#limits.maxRows
    const missing = (sequence: Sequence): number => sequence.tokens.length - sequence.cached
    const ordered = [...this.#active].sort((a, b) => Number(missing(a) > 1) - Number(missing(b) > 1))
    for (const sequence of ordered) {
      if (!this.#active.includes(sequence)) continue // it gave its pages to an older one
      const wanted = Math.min(missing(sequence), room)
      const rows = Math.min(wanted, this.#makeRoom(sequence, wanted, entries))
      if (rows === 0) continue
      entries.push({ sequence, rows })
      room -= rows
    }
    return entries
  }

  /** Gives `sequence` pages for `rows` more positions; returns how many of them have a page. */
  #makeRoom(sequence: Sequence, rows: number, entries: readonly Entry[]): number {
    while (sequence.pages.length * pagePositions < sequence.cached + rows) {
      const page = this.#pool.take()
      if (page !== undefined) {
        sequence.pages.push(page)
        continue
      }
      if (sequence.pages.length * pagePositions > sequence.cached) break
      // The youngest gives way and starts over when there is space again.
      const youngest = this.#active.findLast(
        (other) => other !== sequence && other.pages.length > 0 && !entries.some((entry) => entry.sequence === other),
      )
      if (youngest === undefined || this.#active.indexOf(youngest) < this.#active.indexOf(sequence)) break
      this.#active = this.#active.filter((other) => other !== youngest)
      this.#release(youngest)
      this.#waiting.unshift(youngest)
    }
    return Math.max(0, sequence.pages.length * pagePositions - sequence.cached)
  }

  #stepOf(entries: readonly Entry[]): Step {
    const tokens: number[] = []
    const positions: number[] = []
    const outputRows: number[] = []
    const sampling: SamplingParameters[] = []
    for (const { sequence, rows } of entries) {
      for (let i = sequence.cached; i < sequence.cached + rows; i++) {
        tokens.push(sequence.tokens[i] as number)
        positions.push(i)
      }
      if (sequence.cached + rows === sequence.tokens.length) {
        outputRows.push(tokens.length - 1)
        sampling.push(sequence.sampling())
      }
    }
    const sequences = entries.map(({ sequence, rows }) => ({
      rows,
      cacheStart: sequence.cached,
      pages: sequence.pages,
    }))
    return { tokens, positions, sequences, outputRows, sampling, endOp: this.#points.endOp }
  }

  #take(entries: readonly Entry[]): void {
    const outputs = entries.filter(({ sequence, rows }) => sequence.cached + rows === sequence.tokens.length)
    const { sample, sampleCols } = this.#points
    const words = this.#program.readWords(sample, 0, outputs.length)
    const floats = new Float32Array(words.buffer)
    for (const { sequence, rows } of entries) {
      const before = Math.floor(sequence.cached / pagePositions)
      sequence.cached += rows
      for (let page = before; (page + 1) * pagePositions <= sequence.cached; page++) {
        this.#pool.publish(
          sequence.pages[page] as number,
          sequence.pages[page - 1],
          sequence.tokens,
          page * pagePositions,
        )
      }
    }
    outputs.forEach(({ sequence }, i) => {
      if (this.#cancelled.has(sequence)) return
      const at = i * sampleCols
      const token = words[at] as number
      if (token === 0xffffffff) {
        const error = new DroverError('E_RANGE', 'no token can be drawn', {
          found: 'logits that are NaN, or none that the mask and the filters allow',
          hint: 'check the weights (verify: "full") and the logit bias',
        })
        this.#end(sequence, () => sequence.failed(error))
        return
      }
      const top = Array.from({ length: words[at + 2] as number }, (_, j) => ({
        token: words[at + 4 + 2 * j] as number,
        logprob: floats[at + 5 + 2 * j] as number,
      }))
      sequence.tokens.push(token)
      if (sequence.drawn({ token, logprob: floats[at + 1] as number, top })) this.#end(sequence, () => {})
    })
  }
}
