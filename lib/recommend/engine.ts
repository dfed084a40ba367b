/**
 * Merges the calls that wait into steps. One loop takes as many rows as a step holds, runs them and hands each caller its
 * own; what comes meanwhile waits for the next step. Rows never influence each other, so a caller gets the same bits
 * whatever they are merged with.
 */
import { aborted, DroverError, refusedMemory } from '../errors.js'
import { findIndexError, lookupsOf, mergeParts, type Part } from './merge.js'
import type { Net, Scored } from './net.js'
import type { OwnRequest } from './request.js'
import type { Stats } from './stats.js'

export interface EngineLimits {
  /** Rows of a step. */
  readonly maxBatch: number
  /** How long calls that came during a step may be held behind it, so that others can join. */
  readonly maxDelayMs: number
  /** Calls that may wait. */
  readonly queueLimit: number
}

export interface CallOptions {
  readonly signal?: AbortSignal | undefined
  /** Milliseconds from the call on. */
  readonly deadlineMs?: number | undefined
}

/** A caller's request on its way. */
interface Call {
  readonly request: OwnRequest
  readonly arrived: number
  readonly deadlineMs: number
  /** Scores so far; undefined until a step holds only a part of the request. */
  scores: Float32Array | undefined
  /** Rows that steps have taken, and rows that have their score. */
  taken: number
  done: number
  /** It is never held: it found the engine idle, or a step has had rows of it. */
  prompt: boolean
  settled: boolean
  settle(outcome: Float32Array | DroverError): void
}

interface Share extends Part {
  readonly call: Call
}

/** So long (ms) short steps may keep the thread before whatever else waits for it gets its turn. */
const turnMs = 0.5

/** How much of the longest time of a step is left in the next. */
const forgetting = 0.9

/** Timers may be late by this (ms). */
const timerMs = 1

/** A step looks up not much more: copying indices for it keeps the thread, as does everything else of a step. */
const mostLookups = 2 ** 19

/** The part with as many rows as have at most so many lookups; at least one row. */
const bounded = (part: Part, most: number): Part => {
  let { rows } = part
  while (rows > 1 && lookupsOf({ ...part, rows }) > most) rows = Math.ceil(rows / 2)
  return { ...part, rows }
}

/** What the engine needs of a loaded version. */
export type Runner = Pick<Net, 'shape' | 'run' | 'tryRun' | 'runSync' | 'abort'>

const lateError = (deadlineMs: number): DroverError =>
  new DroverError('E_DEADLINE', 'the answer was not there in time', {
    field: 'options.deadlineMs',
    expected: `within ${deadlineMs} ms`,
    hint: 'allow more time, or send fewer requests at once',
  })

export class Engine {
  readonly #net: Runner
  readonly #limits: EngineLimits
  readonly #stats: Stats
  /** Calls of which rows are still to be taken, in the order in which they get their turn. */
  readonly #waiting: Call[] = []
  #waitingRows = 0
  #running: readonly Share[] = []
  #inFlight = 0
  /** Milliseconds that short steps have taken since others had a turn. */
  #taken = 0
  /** Milliseconds that a step will take at most, as the last ones tell. */
  #stepMs = 0
  #loop: Promise<void> | undefined
  /** Has the calls that are held looked at again. */
  #release: (() => void) | undefined
  #isDraining = false
  #end: DroverError | undefined

  constructor(net: Runner, limits: EngineLimits, stats: Stats) {
    this.#net = net
    this.#limits = limits
    this.#stats = stats
  }

  /** Calls that wait or run. */
  get inFlight(): number {
    return this.#inFlight
  }

  /** Throws E_CLOSED, E_ABORTED, E_BUSY where {@link score} would, before anything is done for the call. */
  admit({ signal }: CallOptions): void {
    const { queueLimit } = this.#limits
    const found = this.#waiting.length
    if (this.#end !== undefined) throw this.#end
    if (signal?.aborted) throw aborted('the request')
    if (found >= queueLimit) {
      throw new DroverError('E_BUSY', 'too many requests wait', {
        field: 'options.queueLimit',
        found,
        expected: `fewer than ${queueLimit}`,
        hint: 'try again later, or raise the limit',
      })
    }
  }

  /** Scores of all rows. Throws what {@link admit} does; rejects with E_RANGE, E_ABORTED, E_DEADLINE, E_CLOSED, E_MEMORY. */
  score(request: OwnRequest, options: CallOptions): Promise<Float32Array> {
    this.admit(options)
    const { signal, deadlineMs } = options
    if (request.batch === 0) {
      this.#stats.answered(0, 0)
      return Promise.resolve(new Float32Array(0))
    }
    return new Promise((resolve, reject) => {
      const arrived = performance.now()
      const call: Call = {
        request,
        arrived,
        deadlineMs: deadlineMs ?? Number.POSITIVE_INFINITY,
        scores: undefined,
        taken: 0,
        done: 0,
        prompt: this.#waiting.length === 0 && this.#running.length === 0,
        settled: false,
        settle: (outcome) => {
          if (call.settled) return
          call.settled = true
          this.#inFlight--
          clearTimeout(timer)
          signal?.removeEventListener('abort', abort)
          if (outcome instanceof DroverError) {
            this.#stats.failed(outcome.code)
            reject(outcome)
          } else {
            this.#stats.answered(request.batch, performance.now() - arrived)
            resolve(outcome)
          }
        },
      }
      const abort = (): void => this.#cancel(call, aborted('the request'))
      const timer =
        deadlineMs === undefined ? undefined : setTimeout(() => this.#cancel(call, lateError(deadlineMs)), deadlineMs)
      signal?.addEventListener('abort', abort, { once: true })
      this.#inFlight++
      this.#waiting.push(call)
      this.#waitingRows += request.batch
      if (deadlineMs !== undefined || this.#waitingRows >= this.#limits.maxBatch) this.#release?.()
      this.#start()
    })
  }

  /** Scores on the caller's thread. Throws E_RANGE. */
  scoreSync(request: OwnRequest): Float32Array {
    if (this.#end !== undefined) throw this.#end
    const began = performance.now()
    const scores = this.#scoreParts(request)
    this.#stats.answered(request.batch, performance.now() - began)
    return scores
  }

  #scoreParts(request: OwnRequest): Float32Array {
    const { maxBatch } = this.#limits
    const { batch } = request
    const { denseFeatures } = this.#net.shape
    const all = new Float32Array(batch)
    for (let from = 0; from < batch; ) {
      const part = bounded({ request, from, rows: Math.min(maxBatch, batch - from) }, mostLookups)
      const scored = this.#scoreSync(part, denseFeatures)
      if (part.rows === batch) return scored
      all.set(scored, from)
      from += part.rows
    }
    return all
  }

  #scoreSync(part: Part, features: number): Float32Array {
    try {
      const scored = this.#net.runSync(mergeParts([part], features))
      this.#stats.step(part.rows, scored)
      return scored.scores
    } catch (error) {
      const isRange = error instanceof DroverError && error.code === 'E_RANGE'
      throw (isRange ? findIndexError(part, this.#net.shape) : undefined) ?? error
    }
  }

  /** Waits until the last call has its answer; no more may come. */
  async drained(): Promise<void> {
    this.#isDraining = true
    this.#release?.()
    while (this.#loop !== undefined) await this.#loop
  }

  /** Ends everything with `error` and waits for the step in flight. */
  async close(error: DroverError): Promise<void> {
    this.#end = error
    for (const call of [...this.#waiting, ...this.#running.map((share) => share.call)]) call.settle(error)
    this.#waiting.length = 0
    this.#waitingRows = 0
    if (this.#running.length > 0) this.#net.abort()
    await this.drained()
  }

  #start(): void {
    this.#loop ??= this.#run().finally(() => {
      this.#loop = undefined
      if (this.#waiting.length > 0) this.#start()
    })
  }

  async #run(): Promise<void> {
    await Promise.resolve() // calls of one turn share their first step
    while (this.#waiting.length > 0) {
      await this.#rest()
      await this.#step()
      await this.#hold()
    }
  }

  /** Gives the calls that came during a step some time in which others can join; an idle engine never comes here. */
  async #hold(): Promise<void> {
    if (this.#limits.maxDelayMs === 0) return
    for (let left = this.#holdFor(); left > 0; left = this.#holdFor()) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left)
        this.#release = () => {
          clearTimeout(timer)
          resolve()
        }
      })
      this.#release = undefined
    }
  }

  /** Milliseconds for which the calls that wait may be held; none if one of them may not, or would come too late. */
  #holdFor(): number {
    const { maxBatch, maxDelayMs } = this.#limits
    if (this.#waiting.length === 0 || this.#waitingRows >= maxBatch || this.#isDraining) return 0
    if (this.#waiting.some(({ prompt }) => prompt)) return 0
    const latest = this.#stepMs + timerMs
    const end = this.#waiting.reduce(
      (least, { arrived, deadlineMs }) => Math.min(least, arrived + Math.min(maxDelayMs, deadlineMs - latest)),
      Number.POSITIVE_INFINITY,
    )
    return end - performance.now()
  }

  async #step(): Promise<void> {
    const shares = this.#take()
    if (shares.length === 0) return
    this.#running = shares
    try {
      const scored = await this.#attempt(shares)
      this.#running = []
      this.#deliver(shares, scored)
    } catch (error) {
      this.#running = []
      this.#fail(shares, error)
    }
  }

  /** A short step runs on this thread, and counts for its turn. */
  async #attempt(shares: readonly Share[]): Promise<Scored> {
    const began = performance.now()
    const merged = mergeParts(shares, this.#net.shape.denseFeatures)
    const here = this.#net.tryRun(merged)
    const scored = here ?? (await this.#net.run(merged))
    this.#stats.step(merged.rows, scored)
    const ms = performance.now() - began
    if (here !== undefined) this.#taken += ms
    this.#stepMs = Math.max(ms, forgetting * this.#stepMs)
    return scored
  }

  /** Callers that ask again as soon as they are answered must not keep timers and sockets waiting. */
  async #rest(): Promise<void> {
    if (this.#taken < turnMs) return
    this.#taken = 0
    await new Promise<void>((resolve) => setImmediate(resolve))
  }

  /** Rows of the next step. A request that does not fit goes behind the others, so that none waits for a long one. */
  #take(): Share[] {
    const shares: Share[] = []
    const { maxBatch } = this.#limits
    let room = maxBatch
    let lookups = 0
    const now = performance.now()
    while (room > 0 && lookups < mostLookups) {
      const call = this.#waiting.shift()
      if (call === undefined) break
      const from = call.taken
      const left = call.request.batch - from
      if (now - call.arrived > call.deadlineMs) {
        // Its timer has not come to it yet.
        this.#waitingRows -= left
        call.settle(lateError(call.deadlineMs))
        continue
      }
      const part = bounded({ request: call.request, from, rows: Math.min(room, left) }, mostLookups - lookups)
      const { rows } = part
      lookups += lookupsOf(part)
      shares.push({ call, ...part })
      call.taken += rows
      call.prompt = true
      room -= rows
      if (rows === left) continue
      this.#waiting.push(call)
      break // a call has one part of a step
    }
    this.#waitingRows -= maxBatch - room
    return shares
  }

  #deliver(shares: readonly Share[], { scores }: Scored): void {
    let row = 0
    for (const { call, from, rows } of shares) {
      const own = rows === scores.length ? scores : scores.slice(row, row + rows)
      row += rows
      call.done += rows
      if (rows === call.request.batch) call.settle(own)
      else {
        call.scores ??= new Float32Array(call.request.batch)
        call.scores.set(own, from)
        if (call.done === call.request.batch) call.settle(call.scores)
      }
    }
  }

  /** A bad index is its own caller's business: the others run again. */
  #fail(shares: readonly Share[], error: unknown): void {
    const code = error instanceof DroverError ? error.code : 'E_INTERNAL'
    const errors = shares.map((share) => (code === 'E_RANGE' ? findIndexError(share, this.#net.shape) : undefined))
    const wasAborted = code === 'E_ABORTED'
    const found = errors.some((own) => own !== undefined)
    const again: Share[] = []
    for (const [i, share] of shares.entries()) {
      const own = errors[i]
      if (own !== undefined) this.#cancel(share.call, own)
      else if (found || wasAborted) again.push(share)
      else this.#cancel(share.call, translated(error))
    }
    for (const { call, from, rows } of again.reverse()) {
      if (call.settled) continue
      const place = this.#waiting.indexOf(call)
      if (place !== -1) this.#waiting.splice(place, 1)
      call.taken = from
      this.#waiting.unshift(call)
      this.#waitingRows += rows
    }
  }

  /** Takes a call out and settles it. A step that nobody waits for any more ends early. */
  #cancel(call: Call, error: DroverError): void {
    if (call.settled) return
    call.settle(error)
    const place = this.#waiting.indexOf(call)
    if (place !== -1) {
      this.#waiting.splice(place, 1)
      this.#waitingRows -= call.request.batch - call.taken
      this.#release?.()
    }
    if (this.#running.length > 0 && this.#running.every((share) => share.call.settled)) this.#net.abort()
  }
}

const translated = (error: unknown): DroverError =>
  error instanceof DroverError
    ? error
    : error instanceof RangeError
      ? refusedMemory('a step', error)
      : new DroverError('E_INTERNAL', 'a step failed', { found: String(error), cause: error })
