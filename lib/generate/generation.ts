/** One generation as its caller sees it: an async iterable of tokens, and a promise of the whole. */
import type { TextStream } from '../text/stream.js'
import { StopFinder } from './stops.js'

/** One of the likeliest tokens at a place, whether it was drawn or not. */
export interface TopLogprob {
  token: number
  text: string
  logprob: number
}

/** One token. Its text may be empty: half a character, or text that may turn out to be the start of a stop text. */
export interface GeneratedToken {
  text: string
  token: number
  logprob?: number
  topLogprobs?: TopLogprob[]
}

/** 'stop': an end token or stop text; 'length': maxTokens or the context is used up; 'aborted': the caller's signal. */
export type FinishReason = 'stop' | 'length' | 'aborted'

/** A whole generation, ended by itself or aborted. */
export interface GenerationResult {
  text: string
  tokens: number[]
  finishReason: FinishReason
  usage: { promptTokens: number; cachedTokens: number; completionTokens: number }
  timings: {
    /** Milliseconds from the first step that held this prompt to the first token: what computing the prompt took. */
    promptMs: number
    /** From the call to the first token, waiting for others included. */
    firstTokenMs: number
    /** From the first token to the last. */
    completionMs: number
  }
}

/** A generation that is running: iterate over its tokens, await the whole, or both. */
export interface Generation extends AsyncIterable<GeneratedToken> {
  /** Resolves when the generation has ended, aborted or not; rejects only when it failed. */
  result(): Promise<GenerationResult>
}

/** The producer's side. */
export class GenerationStream implements Generation {
  readonly #stream: Pick<TextStream, 'push' | 'end' | 'pending'>
  readonly #stops: StopFinder
  /** All that has been handed out: each reader starts at the first. */
  readonly #items: GeneratedToken[] = []
  readonly #calledAt = performance.now()
  readonly #tokens: number[] = []
  readonly #result: Promise<GenerationResult>
  #resolve!: (result: GenerationResult) => void
  #reject!: (error: unknown) => void
  /** A token whose text is not certain yet: it is handed out with the next one. */
  #waiting: GeneratedToken | undefined
  #text = ''
  #ended = false
  #error: unknown
  #wake: (() => void)[] = []
  #readers = 0
  #onCancel: (() => void) | undefined
  #startedAt: number | undefined
  #firstTokenAt = 0
  #lastTokenAt = 0
  readonly #usage = { promptTokens: 0, cachedTokens: 0, completionTokens: 0 }

  constructor(stream: Pick<TextStream, 'push' | 'end' | 'pending'>, stops: readonly string[], promptTokens: number) {
    this.#stream = stream
    this.#stops = new StopFinder(stops)
    this.#usage.promptTokens = promptTokens
    this.#result = new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
    this.#result.catch(() => {}) // an iterating caller need not look at result()
  }

  get ended(): boolean {
    return this.#ended
  }

  /** What stops the production when the consumer leaves its loop. */
  set onCancel(cancel: () => void) {
    this.#onCancel = cancel
  }

  /** The first step with this prompt begins. One that gives way and begins again has started all the same. */
  started(cachedTokens: number): void {
    if (this.#startedAt !== undefined) return
    this.#startedAt = performance.now()
    this.#usage.cachedTokens = cachedTokens
  }

  /** Takes a token; true when a stop text ends the generation here. */
  push(item: Omit<GeneratedToken, 'text'>): boolean {
    const now = performance.now()
    if (this.#tokens.length === 0) this.#firstTokenAt = now
    this.#lastTokenAt = now
    this.#tokens.push(item.token)
    const { text, stopped } = this.#stops.push(this.#stream.push(item.token))
    this.#release()
    this.#waiting = { ...item, text }
    this.#text += text
    // Bytes or text that wait may yet become text of this token, should it be the last.
    if (!stopped && this.#stops.held === '' && !this.#stream.pending) this.#release()
    return stopped
  }

  finish(reason: FinishReason, stopped = false): void {
    if (this.#ended) return
    let ending = reason
    if (!stopped) {
      const tail = this.#stops.push(this.#stream.end())
      if (tail.stopped && reason === 'length') ending = 'stop'
      const text = tail.text + this.#stops.end()
      this.#text += text
      if (this.#waiting !== undefined) this.#waiting.text += text
    }
    this.#release()
    this.#ended = true
    const completionTokens = this.#tokens.length
    const first = completionTokens === 0 ? performance.now() : this.#firstTokenAt
    this.#resolve({
      text: this.#text,
      tokens: this.#tokens,
      finishReason: ending,
      usage: { ...this.#usage, completionTokens },
      timings: {
        promptMs: first - (this.#startedAt ?? first),
        firstTokenMs: first - this.#calledAt,
        completionMs: completionTokens === 0 ? 0 : this.#lastTokenAt - first,
      },
    })
    this.#wakeAll()
  }

  fail(error: unknown): void {
    if (this.#ended) return
    this.#release()
    this.#ended = true
    this.#error = error
    this.#reject(error)
    this.#wakeAll()
  }

  result(): Promise<GenerationResult> {
    return this.#result
  }

  /**
   * Every reader gets every token. Not a generator: those look at return() only between two tokens, and never before
   * the first; the last reader that leaves ends the production at once.
   */
  [Symbol.asyncIterator](): AsyncIterator<GeneratedToken, undefined> {
    let at = 0
    let left = false
    this.#readers++
    const leave = (): void => {
      if (left) return
      left = true
      this.#readers--
    }
    return {
      next: async () => {
        const mine = at++
        while (mine >= this.#items.length && !this.#ended && !left) {
          await new Promise<void>((resolve) => this.#wake.push(resolve))
        }
        const item = left ? undefined : this.#items[mine]
        if (item !== undefined) return { value: item, done: false }
        const failed = !left && this.#error !== undefined
        leave()
        if (failed) throw this.#error
        return { value: undefined, done: true }
      },
      return: async () => {
        leave()
        if (this.#readers === 0 && !this.#ended) this.#onCancel?.()
        this.#wakeAll()
        return { value: undefined, done: true }
      },
    }
  }

  #release(): void {
    if (this.#waiting === undefined) return
    this.#items.push(this.#waiting)
    this.#waiting = undefined
    this.#wakeAll()
  }

  #wakeAll(): void {
    const wake = this.#wake
    this.#wake = []
    for (const resolve of wake) resolve()
  }
}
