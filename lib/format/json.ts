/**
 * Strict JSON over bytes, pulled value by value, so that a header of 100 MB needs no copy and no long pause. Unlike
 * JSON.parse it refuses duplicate keys, and objects become Maps: a key named `__proto__` is a key like any other.
 */
import { DroverError } from '../errors.js'
import { isUtf8, type Pace } from './file.js'

export type JsonValue = null | boolean | number | string | JsonValue[] | JsonObject
export type JsonObject = Map<string, JsonValue>

const deepest = 64
/** A value of two bytes takes some hundred in memory, so their number is bounded, not only the size of the text. */
const mostValues = 1 << 20
const digit = (byte: number | undefined): boolean => byte !== undefined && byte >= 0x30 && byte <= 0x39
const escapes = new Map([...'"\\/bfnrt'].map((letter, i) => [letter.charCodeAt(0), '"\\/\b\f\n\r\t'[i] as string]))
const closing = { '{': '}', '[': ']' } as const

/** A cursor over JSON text. Every method throws E_FORMAT with file and place when the text is something else. */
export class JsonReader {
  private at = 0
  /** Whether the container that was opened last has had an element. */
  private fresh = false
  private readonly text: Buffer

  /** @param field what the errors call the text as a whole. */
  constructor(
    bytes: Uint8Array,
    private readonly file: string,
    private readonly field = 'JSON',
  ) {
    this.text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  }

  fail(expected: string, field = this.field): DroverError {
    const near = this.text.toString('latin1', this.at, this.at + 16)
    return new DroverError('E_FORMAT', `the JSON is malformed at byte ${this.at}`, {
      file: this.file,
      field,
      found: near === '' ? 'the end of the text' : near,
      expected,
    })
  }

  private peek(): number | undefined {
    let byte = this.text[this.at]
    while (byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09) byte = this.text[++this.at]
    return byte
  }

  /** The kind of the next value, without reading it. */
  kind(): 'object' | 'array' | 'string' | 'number' | 'literal' {
    const byte = this.peek()
    if (byte === 0x7b) return 'object'
    if (byte === 0x5b) return 'array'
    if (byte === 0x22) return 'string'
    if (byte === 0x2d || digit(byte)) return 'number'
    return 'literal'
  }

  /** Enters an object or array. */
  open(bracket: '{' | '[', field?: string): void {
    if (this.peek() !== bracket.charCodeAt(0)) throw this.fail(bracket === '{' ? 'an object' : 'an array', field)
    this.at++
    this.fresh = true
  }

  /** True when another element follows in the container opened with `bracket`; false when it has been left. */
  more(bracket: '{' | '[', field?: string): boolean {
    const byte = this.peek()
    if (byte === closing[bracket].charCodeAt(0)) {
      this.at++
      this.fresh = false
      return false
    }
    if (!this.fresh) {
      if (byte !== 0x2c) throw this.fail(`a comma or ${closing[bracket]}`, field)
      this.at++
      if (this.peek() === closing[bracket].charCodeAt(0)) throw this.fail('another element after the comma', field)
    }
    this.fresh = false
    return true
  }

  /** The next key of an object and its colon. */
  key(field?: string): string {
    const key = this.string(field)
    if (this.peek() !== 0x3a) throw this.fail('a colon', field ?? key)
    this.at++
    return key
  }

  string(field?: string): string {
    if (this.peek() !== 0x22) throw this.fail('a string', field)
    const start = this.at + 1
    let end = start
    for (let byte = this.text[end]; byte !== 0x22; byte = this.text[end]) {
      if (byte === undefined || byte < 0x20) {
        this.at = end
        throw this.fail('the rest of a string', field)
      }
      if (byte === 0x5c) return this.escaped(start, end, field)
      end++
    }
    this.at = end + 1
    return this.plain(start, end, field)
  }

  private plain(start: number, end: number, field?: string): string {
    if (!isUtf8(this.text, start, end)) {
      throw new DroverError('E_FORMAT', 'text is not valid UTF-8', {
        file: this.file,
        field: field ?? this.field,
        found: `bytes that are not UTF-8 in the string at byte ${start}`,
        expected: 'UTF-8',
      })
    }
    return this.text.toString('utf8', start, end)
  }

  private escaped(start: number, backslash: number, field?: string): string {
    const parts = [this.plain(start, backslash, field)]
    let at = backslash
    for (;;) {
      const byte = this.text[at]
      if (byte === 0x22) break
      if (byte === undefined || byte < 0x20) {
        this.at = at
        throw this.fail('the rest of a string', field)
      }
      if (byte !== 0x5c) {
        let end = at
        while (
          end < this.text.length &&
          this.text[end] !== 0x22 &&
          this.text[end] !== 0x5c &&
          this.text[end]! >= 0x20
        ) {
          end++
        }
        parts.push(this.plain(at, end, field))
        at = end
        continue
      }
      const letter = this.text[at + 1]
      const simple = letter === undefined ? undefined : escapes.get(letter)
      if (simple !== undefined) {
        parts.push(simple)
        at += 2
        continue
      }
      const unit = this.unit(at, field)
      at += 6
      if (unit < 0xd800 || unit > 0xdfff) {
        parts.push(String.fromCharCode(unit))
        continue
      }
      const low = unit < 0xdc00 ? this.unit(at, field) : 0
      if (low < 0xdc00 || low > 0xdfff) {
        this.at = at - 6
        throw this.fail('a whole surrogate pair', field)
      }
      parts.push(String.fromCharCode(unit, low))
      at += 6
    }
    this.at = at + 1
    return parts.join('')
  }

  /** The UTF-16 unit of the \uXXXX at `at`. */
  private unit(at: number, field?: string): number {
    const text = this.text.toString('latin1', at, at + 6)
    if (!/^\\u[0-9a-fA-F]{4}$/.test(text)) {
      this.at = at
      throw this.fail('an escape sequence', field)
    }
    return Number.parseInt(text.slice(2), 16)
  }

  private numberText(field?: string): string {
    this.peek()
    const start = this.at
    let at = start
    if (this.text[at] === 0x2d) at++
    const first = this.text[at]
    if (!digit(first)) throw this.fail('a number', field)
    at++
    if (first !== 0x30) while (digit(this.text[at])) at++
    if (this.text[at] === 0x2e) {
      if (!digit(this.text[++at])) throw this.fail('a number', field)
      while (digit(this.text[at])) at++
    }
    if (this.text[at] === 0x65 || this.text[at] === 0x45) {
      at++
      if (this.text[at] === 0x2b || this.text[at] === 0x2d) at++
      if (!digit(this.text[at])) throw this.fail('a number', field)
      while (digit(this.text[at])) at++
    }
    // Neither bigger numbers nor longer digits mean anything in a header; and Number() is not linear in them.
    if (at - start > 400) throw this.fail('a number of at most 400 characters', field)
    this.at = at
    return this.text.toString('latin1', start, at)
  }

  number(field?: string): number {
    const value = Number(this.numberText(field))
    if (Number.isFinite(value)) return value
    throw this.fail('a finite number', field)
  }

  /** A safe integer of 0 or more, written as plain digits. */
  count(field: string): number {
    const text = this.numberText(field)
    const value = Number(text)
    if (/^\d+$/.test(text) && Number.isSafeInteger(value)) return value
    throw new DroverError('E_FORMAT', 'a number in the JSON is impossible', {
      file: this.file,
      field,
      found: text,
      expected: 'an integer from 0 to 2^53 - 1',
    })
  }

  literal(field?: string): null | boolean {
    this.peek()
    for (const [text, value] of [
      ['null', null],
      ['true', true],
      ['false', false],
    ] as const) {
      if (this.text.toString('latin1', this.at, this.at + text.length) === text) {
        this.at += text.length
        return value
      }
    }
    throw this.fail('a value', field)
  }

  scalar(field?: string): null | boolean | number | string {
    const kind = this.kind()
    return kind === 'string' ? this.string(field) : kind === 'number' ? this.number(field) : this.literal(field)
  }

  /** Throws unless nothing but white space follows. */
  end(): void {
    if (this.peek() !== undefined) throw this.fail('the end of the text')
  }

  duplicate(key: string): DroverError {
    return new DroverError('E_FORMAT', 'a key occurs twice in one JSON object', {
      file: this.file,
      field: key,
      found: 'two of this name',
      expected: 'every name once',
    })
  }
}

/** The whole of a JSON text as values. */
export const parseJson = async (bytes: Uint8Array, file: string, pace: Pace): Promise<JsonValue> => {
  const reader = new JsonReader(bytes, file)
  type Frame = { array: JsonValue[] } | { object: JsonObject }
  const stack: Frame[] = []
  let result: JsonValue = null
  let key = ''
  let values = 0
  const place = (value: JsonValue): void => {
    const frame = stack.at(-1)
    if (frame === undefined) result = value
    else if ('array' in frame) frame.array.push(value)
    else frame.object.set(key, value)
  }
  const enter = (): void => {
    const kind = reader.kind()
    if (++values > mostValues) throw reader.fail(`at most ${mostValues} values`)
    if (kind !== 'object' && kind !== 'array') {
      place(reader.scalar())
      return
    }
    if (stack.length === deepest) throw reader.fail(`at most ${deepest} levels`)
    reader.open(kind === 'object' ? '{' : '[')
    const frame: Frame = kind === 'object' ? { object: new Map() } : { array: [] }
    place('object' in frame ? frame.object : frame.array)
    stack.push(frame)
  }
  enter()
  for (let frame = stack.at(-1); frame !== undefined; frame = stack.at(-1)) {
    if (pace.due()) await pace.rest()
    if ('array' in frame) {
      if (reader.more('[')) enter()
      else stack.pop()
    } else if (reader.more('{')) {
      key = reader.key()
      if (frame.object.has(key)) throw reader.duplicate(key)
      enter()
    } else stack.pop()
  }
  reader.end()
  return result
}
