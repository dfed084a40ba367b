/**
 * The text of tokens as they come. A character whose bytes are spread over tokens appears with its last one; bytes that
 * form no UTF-8 become U+FFFD. Text continues what stood before: a leading space of the first token is kept.
 */
import type { Tokenizer } from './tokenizer.js'

export class TextStream {
  readonly #tokenizer: Tokenizer
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true })
  /** The last bytes, at most three: as many as can wait for the rest of their character. */
  #tail: readonly number[] = []

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer
  }

  /** What this token completes; empty inside a character and for special tokens. */
  push(token: number): string {
    const bytes = this.#tokenizer.tokenBytes(token)
    this.#tail = [...this.#tail, ...bytes.subarray(-3)].slice(-3)
    return this.#decoder.decode(bytes, { stream: true })
  }

  /** Whether bytes may wait for the rest of their character: false means that {@link end} has nothing to add. */
  get pending(): boolean {
    return this.#tail.some((byte, i) => {
      const length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1
      const behind = this.#tail.slice(i + 1)
      return behind.length + 1 < length && behind.every((next) => (next & 0xc0) === 0x80)
    })
  }

  /** U+FFFD when a character was left incomplete, else nothing. */
  end(): string {
    return this.#decoder.decode()
  }
}
