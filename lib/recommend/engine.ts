/**
 * Merges the calls that wait into steps. One loop takes as many rows as a step holds, runs them and hands each caller its
 * own; what comes meanwhile waits for the next step. Rows never influence each other, so a caller gets the same bits
 * whatever they are merged with.
 */
import { aborted, DroverError } from '../errors.js'
import { findIndexError, lookupsOf, type MergedRows, mergeParts, type Part } from './merge.js'
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
  settled: boolean
  settle(outcome: Float32Array | DroverError): void
}

interface Share extends Part {
  readonly call: Call
}

/** So long (ms) short steps may keep the thread before whatever else waits for it gets its turn. */
const turnMs = 0.5

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

export const lateError = (deadlineMs: number): DroverError =>
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
  #loop: Promise<void> | undefined
  /** Ends the time for which calls are held. */
  #release: (() => void) | undefined
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

  /** Scores of all rows. Throws E_CLOSED, E_ABORTED, E_BUSY; rejects with E_RANGE, E_ABORTED, E_DEADLINE, E_CLOSED. */
  score(request: OwnRequest, { signal, deadlineMs }: CallOptions): Promise<Float32Array> {
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
    if (request.batch === 0) return Promise.resolve(new Float32Array(0))
    return new Promise((resolve, reject) => {
      const arrived = performance.now()
      const call: Call = {
        request,
        arrived,
        deadlineMs: deadlineMs ?? Number.POSITIVE_INFINITY,
        scores: undefined,
        taken: 0,
        done: 0,
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
      if (this.#waitingRows >= this.#limits.maxBatch) this.#release?.()
      this.#start()
    })
  }

  /** Scores on the caller's thread. Throws E_RANGE. */
  scoreSync(request: OwnRequest): Float32Array {
    if (this.#end !== undefined) throw this.#end
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
      throw findIndexError(part, this.#net.shape) ?? error
    }
  }

  /** Waits until the last call has its answer; no more may come. */
  async drained(): Promise<void> {
    while (this.#loop !== undefined) await this.#loop
  }

  /** Ends everything with `error` and waits for the step in flight. */
  async close(error: DroverError): Promise<void> {
    this.#end = error
    for (const call of [...this.#waiting, ...this.#running.map((share) => share.call)]) call.settle(error)
    this.#waiting.length = 0
    this.#waitingRows = 0
    this.#release?.()
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
    const { maxBatch, maxDelayMs } = this.#limits
    const [oldest] = this.#waiting
    if (maxDelayMs === 0 || oldest === undefined || this.#waitingRows >= maxBatch) return
    const left = oldest.arrived + maxDelayMs - performance.now()
    if (left <= 0) return
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, left)
      this.#release = () => {
        clearTimeout(timer)
        resolve()
      }
    })
    this.#release = undefined
  }

  async #step(): Promise<void> {
    const shares = this.#take()
    if (shares.length === 0) return
    this.#running = shares
    const outcome = await this.#attempt(shares)
    this.#running = []
    if ('scores' in outcome) this.#deliver(shares, outcome)
    else this.#fail(shares, outcome.error)
  }

  async #attempt(shares: readonly Share[]): Promise<Scored | { error: unknown }> {
    const merged = mergeParts(shares, this.#net.shape.denseFeatures)
    try {
      const scored = this.#here(merged) ?? (await this.#net.run(merged))
      this.#stats.step(
        shares.reduce((sum, { rows }) => sum + rows, 0),
        scored,
      )
      return scored
    } catch (error) {
      return { error }
    }
  }

  /** Runs a short step on this thread. */
  #here(merged: MergedRows): Scored | undefined {
    const began = performance.now()
    const scored = this.#net.tryRun(merged)
    if (scored !== undefined) this.#taken += performance.now() - began
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
    }
    if (this.#running.length > 0 && this.#running.every((share) => share.call.settled)) this.#net.abort()
  }
}

const translated = (error: unknown): DroverError =>
  error instanceof DroverError
    ? error
    : new DroverError('E_INTERNAL', 'a step failed', { found: String(error), cause: error })
