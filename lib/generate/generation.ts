/** One generation as its caller sees it: an async iterable of tokens, and a promise of the whole. */
import { aborted, type DroverError } from '../errors.js'
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
  /** Milliseconds: prompt (start to the step that gave the first token), first token, and the tokens after it. */
  timings: { promptMs: number; firstTokenMs: number; completionMs: number }
}

/** A generation that is running: iterate over its tokens, await the whole, or both. */
export interface Generation extends AsyncIterable<GeneratedToken> {
  /** Resolves when the generation has ended, aborted or not; rejects only when it failed. */
  result(): Promise<GenerationResult>
}

/** The producer's side. */
export class GenerationStream implements Generation {
  readonly #stream: TextStream
  readonly #stops: StopFinder
  readonly #queue: GeneratedToken[] = []
  readonly #started = performance.now()
  readonly #tokens: number[] = []
  readonly #result: Promise<GenerationResult>
  #resolve!: (result: GenerationResult) => void
  #reject!: (error: unknown) => void
  /** A token whose text is not certain yet: it is handed out with the next one. */
  #waiting: GeneratedToken | undefined
  #text = ''
  #ended = false
  #error: unknown
  #wake: (() => void) | undefined
  #onCancel: (() => void) | undefined
  #firstTokenAt = 0
  #lastTokenAt = 0
  readonly #usage = { promptTokens: 0, cachedTokens: 0, completionTokens: 0 }

  constructor(stream: TextStream, stops: readonly string[]) {
    this.#stream = stream
    this.#stops = new StopFinder(stops)
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

  setUsage(promptTokens: number, cachedTokens: number): void {
    this.#usage.promptTokens = promptTokens
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
    if (!stopped && this.#stops.held === '') this.#release()
    return stopped
  }

  finish(reason: FinishReason, stopped = false): void {
    if (this.#ended) return
    if (!stopped) {
      const tail = this.#stops.push(this.#stream.end()).text + this.#stops.end()
      this.#text += tail
      if (this.#waiting !== undefined) this.#waiting.text += tail
      else if (tail !== '' && this.#queue.length > 0) this.#queue.at(-1)!.text += tail
    }
    this.#release()
    this.#ended = true
    const completionTokens = this.#tokens.length
    const first = completionTokens === 0 ? performance.now() : this.#firstTokenAt
    this.#resolve({
      text: this.#text,
      tokens: this.#tokens,
      finishReason: reason,
      usage: { ...this.#usage, completionTokens },
      timings: {
        promptMs: first - this.#started,
        firstTokenMs: first - this.#started,
        completionMs: completionTokens === 0 ? 0 : this.#lastTokenAt - first,
      },
    })
    this.#wake?.()
  }

  fail(error: DroverError | unknown): void {
    if (this.#ended) return
    this.#release()
    this.#ended = true
    this.#error = error ?? aborted('the generation')
    this.#reject(this.#error)
    this.#wake?.()
  }

  result(): Promise<GenerationResult> {
    return this.#result
  }

  async *[Symbol.asyncIterator](): AsyncIterator<GeneratedToken> {
    try {
      for (;;) {
        const item = this.#queue.shift()
        if (item !== undefined) yield item
        else if (this.#ended) break
        else await new Promise<void>((resolve) => (this.#wake = resolve))
      }
      if (this.#error !== undefined) throw this.#error
    } finally {
      if (!this.#ended) this.#onCancel?.()
    }
  }

  #release(): void {
    if (this.#waiting === undefined) return
    this.#queue.push(this.#waiting)
    this.#waiting = undefined
    this.#wake?.()
  }
}
