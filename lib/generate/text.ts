/** The text of a generation's tokens: what a tokenizer's stream gives, at the ends of what it knows. */
import { TextStream } from '../text/stream.js'
import type { Tokenizer } from '../text/tokenizer.js'

/** Bytes of a token; none for those that pad a model's vocabulary beyond its tokenizer's. */
const knows = (tokenizer: Tokenizer, token: number): boolean => token < tokenizer.vocabularySize

/** Text of one token by itself; bytes that form no UTF-8 become U+FFFD. */
export const textOfToken = (tokenizer: Tokenizer, token: number): string =>
  knows(tokenizer, token) ? Buffer.from(tokenizer.tokenBytes(token)).toString() : ''

export class GeneratedText {
  readonly #tokenizer: Tokenizer
  readonly #stream: TextStream
  /** Nothing stands before the text: the space that some tokenizers put in front of every text is none of it. */
  #atStart: boolean

  constructor(tokenizer: Tokenizer, prompt: readonly number[]) {
    this.#tokenizer = tokenizer
    this.#stream = new TextStream(tokenizer)
    this.#atStart = prompt.every((token) => knows(tokenizer, token) && tokenizer.tokenBytes(token).length === 0)
  }

  get pending(): boolean {
    return this.#stream.pending
  }

  push(token: number): string {
    if (!knows(this.#tokenizer, token)) return ''
    const text = this.#stream.push(token)
    if (!this.#atStart) return text
    this.#atStart = this.#tokenizer.tokenBytes(token).length === 0
    return text.startsWith(' ') && this.#tokenizer.decode([token]) === text.slice(1) ? text.slice(1) : text
  }

  end(): string {
    return this.#stream.end()
  }
}
