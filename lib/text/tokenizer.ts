/** What every tokenizer gives, whatever file it came from. */

/** What {@link Tokenizer.encode} adds to a text or reads in it. */
export interface EncodeOptions {
  /** Put the tokens in front that the model expects at the start of a text. Default false. */
  bos?: boolean
  /** Turn the text of special tokens into those tokens. Never for text that a user wrote. Default false. */
  parseSpecial?: boolean
}

/** Text to tokens and back. */
export interface Tokenizer {
  readonly vocabularySize: number
  encode(text: string, options?: EncodeOptions): Int32Array
  /** Bytes that form no UTF-8 become U+FFFD. Special tokens are left out unless `special`. */
  decode(tokens: ArrayLike<number>, options?: { special?: boolean }): string
  decodeBytes(tokens: ArrayLike<number>): Uint8Array
  /** Special tokens by their text. */
  readonly specialTokens: ReadonlyMap<string, number>
  /** The token that starts a text, where the model has one. */
  readonly bos: number | undefined
  /** Tokens that end a text or a turn. */
  readonly endTokens: readonly number[]
  /** The bytes of one token; empty for special tokens. Throws E_RANGE outside the vocabulary. */
  tokenBytes(token: number): Uint8Array
}
