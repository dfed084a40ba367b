/**
 * The text of tokens as they come. A character whose bytes are spread over tokens appears with its last one; bytes that
 * form no UTF-8 become U+FFFD. Text continues what stood before: a leading space of the first token is kept.
 */
import type { Tokenizer } from './tokenizer.js'

export class TextStream {
  readonly #tokenizer: Tokenizer
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true })

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer
  }

  /** What this token completes; empty inside a character and for special tokens. */
  push(token: number): string {
    return this.#decoder.decode(this.#tokenizer.tokenBytes(token), { stream: true })
  }

  /** U+FFFD when a character was left incomplete, else nothing. */
  end(): string {
    return this.#decoder.decode()
  }
}
