/**
 * Continuous batching: every step takes one row of each sequence that is writing and fills up with rows of prompts.
 * What runs beside a sequence never changes its result, so any mix will do.
 */
import type { DeviceProgram } from '../device/device.js'
import { aborted, DroverError } from '../errors.js'
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
  /** A step will hold the sequence's first rows; called again when it gave way to others and starts over. */
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

/** What a job may do with the program while it has it alone. */
export interface Exclusive {
  /** Pages for so many positions; sequences give way for them. They go back when the job ends. */
  pages(positions: number): readonly number[]
  /** Runs a step. Rejects with E_ABORTED or E_CLOSED when the job's signal or the scheduler's end has come. */
  run(step: Step): Promise<void>
}

interface Entry {
  sequence: Sequence
  rows: number
}

interface Job {
  run(): Promise<void>
  refuse(error: DroverError): void
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
  /** Active ones that no step has held yet. */
  readonly #fresh = new Set<Sequence>()
  readonly #jobs: Job[] = []
  /** Jobs and steps take turns. */
  #jobWasLast = false
  #running: readonly Entry[] = []
  /** The step that runs repeats one that was aborted. */
  #repeats = false
  /** Called behind every step of sequences, which it makes the device measure. */
  onStep: ((step: Step) => void) | undefined
  #loop: Promise<void> | undefined
  #end: DroverError | undefined

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

  /** Takes a sequence out. Its last step's result is dropped; the step ends early where that is worth more than it costs. */
  cancel(sequence: Sequence): void {
    const waiting = this.#waiting.indexOf(sequence)
    if (waiting !== -1) {
      this.#waiting.splice(waiting, 1)
      return
    }
    if (!this.#active.includes(sequence)) return
    this.#cancelled.add(sequence)
    if (this.#running.length === 0) this.#start()
    else if (this.#isWorthAborting()) this.#program.abort()
  }

  /**
   * Runs `body` between steps, alone with the program. Throws E_CLOSED; rejects with E_ABORTED when `signal` fires and
   * E_CLOSED when the scheduler closes, before or while it runs.
   */
  exclusive<T>(body: (exclusive: Exclusive) => Promise<T>, signal?: AbortSignal): Promise<T> {
    this.#check()
    if (signal?.aborted) return Promise.reject(aborted('the computation'))
    return new Promise<T>((resolve, reject) => {
      const forget = (): void => signal?.removeEventListener('abort', abort)
      const job: Job = {
        run: () => {
          forget() // from here on it looks at the signal itself
          return this.#runJob(body, signal).then(resolve, reject)
        },
        refuse: (error) => {
          forget()
          reject(error)
        },
      }
      const abort = (): void => {
        this.#jobs.splice(this.#jobs.indexOf(job), 1)
        job.refuse(aborted('the computation'))
      }
      signal?.addEventListener('abort', abort)
      this.#jobs.push(job)
      this.#start()
    })
  }

  /** Ends everything in flight with `error` and waits for the current step. */
  async close(error: DroverError): Promise<void> {
    this.#end = error
    for (const job of this.#jobs.splice(0)) job.refuse(error)
    for (const sequence of this.#waiting.splice(0)) sequence.failed(error)
    for (const sequence of this.#active) {
      this.#cancelled.add(sequence)
      sequence.failed(error)
    }
    this.#program.abort()
    await this.#loop
  }

  #check(): void {
    if (this.#end !== undefined) throw new DroverError('E_CLOSED', 'the model has been closed')
  }

  #start(): void {
    this.#loop ??= this.#run().finally(() => {
      this.#loop = undefined
      if (this.#hasWork()) this.#start()
    })
  }

  #hasWork(): boolean {
    if (this.#end !== undefined) return false
    return this.#jobs.length > 0 || this.#waiting.length > 0 || this.#active.length > 0
  }

  async #run(): Promise<void> {
    await Promise.resolve() // several calls in one turn share their first step
    while (true) {
      this.#sweep()
      if (this.#end !== undefined) return
      const generates = this.#active.length > 0 || this.#waiting.length > 0
      const job = this.#jobWasLast && generates ? undefined : this.#jobs.shift()
      this.#jobWasLast = job !== undefined
      if (job !== undefined) await job.run()
      else if (generates) await this.#step()
      else if (this.#jobs.length === 0) return
    }
  }

  async #step(): Promise<void> {
    try {
      const entries = this.#plan()
      this.#running = entries
      const step = this.#stepOf(entries)
      await this.#program.run(step)
      if (step.profile) this.onStep?.(step)
      this.#repeats = false
      this.#take(entries)
    } catch (error) {
      // An aborted step is repeated without the sequences that were taken out.
      this.#repeats = error instanceof DroverError && error.code === 'E_ABORTED'
      if (this.#repeats) return
      const held = this.#running.map(({ sequence }) => sequence)
      // Without a plan nobody can go on.
      for (const sequence of held.length > 0 ? held : [...this.#waiting.splice(0), ...this.#active]) {
        this.#drop(sequence)
        sequence.failed(error)
      }
    } finally {
      this.#running = []
    }
  }

  /**
   * What an aborted step has done for others is lost, and who cancels often must not keep them waiting: only a step that
   * works mostly for cancelled sequences is ended early, and its repetition only when nobody is left in it.
   */
  #isWorthAborting(): boolean {
    let rows = 0
    let lost = 0
    for (const entry of this.#running) {
      rows += entry.rows
      if (this.#cancelled.has(entry.sequence)) lost += entry.rows
    }
    return lost === rows || (!this.#repeats && 2 * lost > rows)
  }

  async #runJob<T>(body: (exclusive: Exclusive) => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    const pages: number[] = []
    const abort = (): void => this.#program.abort()
    const check = (): void => {
      if (this.#end !== undefined) throw this.#end
      if (signal?.aborted) throw aborted('the computation')
    }
    signal?.addEventListener('abort', abort)
    try {
      return await body({
        pages: (positions) => {
          while (pages.length * pagePositions < positions) pages.push(this.#takePage())
          return pages
        },
        run: async (step) => {
          check()
          await this.#program.run(step)
        },
      })
    } catch (error) {
      check()
      throw error
    } finally {
      signal?.removeEventListener('abort', abort)
      this.#pool.releaseAll(pages)
    }
  }

  /** A page for a job; the youngest sequence that holds any gives way. */
  #takePage(): number {
    for (;;) {
      const page = this.#pool.take()
      if (page !== undefined) return page
      const youngest = this.#active.findLast(({ pages }) => pages.length > 0)
      if (youngest === undefined) {
        throw new DroverError('E_RANGE', 'the cache holds fewer positions', {
          found: this.#pool.count * pagePositions,
        })
      }
      this.#giveWay(youngest)
    }
  }

  #giveWay(sequence: Sequence): void {
    this.#drop(sequence)
    // One that was cancelled is not to come back.
    if (!this.#cancelled.delete(sequence)) this.#waiting.unshift(sequence)
  }

  #sweep(): void {
    for (const sequence of this.#cancelled) this.#drop(sequence)
    this.#cancelled.clear()
  }

  #drop(sequence: Sequence): void {
    this.#active = this.#active.filter((other) => other !== sequence)
    this.#fresh.delete(sequence)
    this.#pool.releaseAll(sequence.pages)
    sequence.cached = 0
  }

  /** Rows of the next step: first one for each that is writing, then prompts in the order of their coming. */
  #plan(): Entry[] {
    this.#running = []
    while (this.#waiting.length > 0 && this.#active.length < this.#limits.maxSequences) {
      const sequence = this.#waiting.shift() as Sequence
      // At least one position is computed: its logits are needed.
      const most = Math.floor((sequence.tokens.length - 1) / pagePositions)
      sequence.pages.push(...this.#pool.match(sequence.tokens, most))
      sequence.cached = sequence.pages.length * pagePositions
      this.#active.push(sequence)
      this.#fresh.add(sequence)
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
      if (this.#fresh.delete(sequence)) sequence.started(sequence.cached)
      entries.push({ sequence, rows })
      room -= rows
    }
    if (entries.length === 0) throw new DroverError('E_INTERNAL', 'no sequence can go on')
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
      this.#giveWay(youngest)
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
    const profile = this.onStep !== undefined
    return { tokens, positions, sequences, outputRows, sampling, endOp: this.#points.endOp, profile }
  }

  #take(entries: readonly Entry[]): void {
    const outputs = entries.filter(({ sequence, rows }) => sequence.cached + rows === sequence.tokens.length)
    const { sample, sampleCols } = this.#points
    const words = this.#program.readWords(sample, 0, outputs.length)
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
      try {
        if (this.#draw(sequence, words.slice(i * sampleCols, (i + 1) * sampleCols))) this.#drop(sequence)
      } catch (error) {
        // Whatever is wrong with one is none of the others' business.
        this.#drop(sequence)
        sequence.failed(error)
      }
    })
  }

  /** Hands a sequence its token; true when that was its last. */
  #draw(sequence: Sequence, words: Uint32Array): boolean {
    const [token, , count] = words as unknown as [number, number, number]
    if (token === 0xffffffff) {
      throw new DroverError('E_RANGE', 'no token can be drawn', {
        found: 'logits that are NaN, or none that the mask and the filters allow',
        hint: 'check the weights (verify: "full") and the logit bias',
      })
    }
    const floats = new Float32Array(words.buffer)
    const top = Array.from({ length: count }, (_, j) => ({
      token: words[4 + 2 * j] as number,
      logprob: floats[5 + 2 * j] as number,
    }))
    sequence.tokens.push(token)
    return sequence.drawn({ token, logprob: floats[1] as number, top })
  }
}
