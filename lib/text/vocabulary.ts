/** What all tokenizers share: special tokens in text, and the way from tokens back to bytes and text. */
import { DroverError } from '../errors.js'
import { classOf, isSpace } from './unicode.js'

/** A token whose text is matched as a whole before anything else looks at it. */
export interface AddedToken {
  readonly id: number
  readonly text: string
  /** Special: matched only when the caller asks to parse special tokens, and left out when decoding. */
  readonly special: boolean
  /** Space before or behind it belongs to it. */
  readonly stripLeft?: boolean
  readonly stripRight?: boolean
}

export type Span = { text: string } | { token: number }

const escaped = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')

// White_Space lies in the basic plane. String.trim means other characters: U+FEFF too, U+0085 not.
const spaceAt = (text: string, at: number): boolean => (classOf(text.charCodeAt(at)) & isSpace) !== 0

/** Where the space at the end of a text starts. */
const spaceStart = (text: string): number => {
  let at = text.length
  while (at > 0 && spaceAt(text, at - 1)) at--
  return at
}

/** Where the space from `at` on ends. */
const spaceEnd = (text: string, at: number): number => {
  let end = at
  while (end < text.length && spaceAt(text, end)) end++
  return end
}

/** Finds added tokens in text, the longest first where several fit. */
export class AddedTokens {
  readonly all: readonly AddedToken[]
  readonly special: ReadonlyMap<string, number>
  readonly #byText: ReadonlyMap<string, AddedToken>
  readonly #always: RegExp | undefined
  readonly #withSpecial: RegExp | undefined

  constructor(tokens: readonly AddedToken[]) {
    this.all = tokens.filter(({ text }) => text !== '')
    this.#byText = new Map(this.all.map((token) => [token.text, token]))
    this.special = new Map(this.all.filter(({ special }) => special).map(({ text, id }) => [text, id]))
    const pattern = (wanted: readonly AddedToken[]): RegExp | undefined =>
      wanted.length === 0
        ? undefined
        : new RegExp(
            [...wanted]
              .sort((a, b) => b.text.length - a.text.length)
              .map(({ text }) => escaped(text))
              .join('|'),
            'g',
          )
    this.#always = pattern(this.all.filter(({ special }) => !special))
    this.#withSpecial = pattern(this.all)
  }

  /** Cuts text at added tokens. */
  split(text: string, parseSpecial: boolean): Span[] {
    const pattern = parseSpecial ? this.#withSpecial : this.#always
    if (pattern === undefined) return text === '' ? [] : [{ text }]
    const spans: Span[] = []
    let from = 0
    for (const match of text.matchAll(pattern)) {
      const token = this.#byText.get(match[0]) as AddedToken
      if (match.index < from) continue // inside what the last token took with it
      const before = text.slice(from, match.index)
      const kept = token.stripLeft ? before.slice(0, spaceStart(before)) : before
      if (kept !== '') spans.push({ text: kept })
      spans.push({ token: token.id })
      from = match.index + match[0].length
      if (token.stripRight) from = spaceEnd(text, from)
    }
    if (from < text.length) spans.push({ text: text.slice(from) })
    return spans
  }
}

/** Tokens back to bytes. */
export class TokenTable {
  readonly size: number
  readonly #bytesOf: (token: number) => Uint8Array | undefined
  readonly #added = new Map<number, Uint8Array>()
  readonly #special: ReadonlySet<number>

  /** @param bytesOf the bytes of a token that is not an added one; undefined where a number stands for nothing */
  constructor(size: number, bytesOf: (token: number) => Uint8Array | undefined, added: AddedTokens) {
    for (const { id, text } of added.all) this.#added.set(id, Buffer.from(text))
    this.size = added.all.reduce((most, { id }) => Math.max(most, id + 1), size)
    this.#bytesOf = bytesOf
    this.#special = new Set(added.special.values())
  }

  /** Bytes of a token; a special one's text only with `special`. */
  bytes(token: number, special: boolean): Uint8Array {
    if (!Number.isInteger(token) || token < 0 || token >= this.size) {
      throw new DroverError('E_RANGE', 'no such token', { found: token, expected: `0 to ${this.size - 1}` })
    }
    if (!special && this.#special.has(token)) return empty
    return this.#added.get(token) ?? this.#bytesOf(token) ?? empty
  }

  concat(tokens: ArrayLike<number>, special: boolean): Uint8Array {
    if (typeof tokens !== 'object' || tokens === null || !Number.isInteger(tokens.length)) {
      throw new DroverError('E_ARGUMENT', 'expected token numbers', { field: 'tokens', found: tokens })
    }
    const parts: Uint8Array[] = []
    for (let i = 0; i < tokens.length; i++) parts.push(this.bytes(tokens[i] as number, special))
    return Buffer.concat(parts)
  }
}

const empty = new Uint8Array(0)

/** Text of bytes; what is no UTF-8 becomes U+FFFD, a byte order mark stays. */
export const decodeUtf8 = (bytes: Uint8Array): string => new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes)
