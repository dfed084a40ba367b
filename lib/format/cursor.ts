/** Little-endian reading of a header through a window over a {@link ByteSource}, each read checked against the file. */
import { DroverError } from '../errors.js'
import { type ByteSource, isUtf8, type Pace } from './file.js'

const windowBytes = 1 << 18
/** Longer strings are decoded piece by piece, so that the event loop can run in between. */
const pieceBytes = 1 << 19

export class Cursor {
  /** Offset in the file of the next byte. */
  position = 0
  /** Bytes from `position` that the window holds start at `window[at]`. */
  private window: Buffer = Buffer.alloc(0)
  private view = new DataView(this.window.buffer, 0, 0)
  private at = 0

  /** @param limit bytes that may be read in all; more of a header is absurd whatever the size of the file. */
  constructor(
    readonly source: ByteSource,
    readonly pace: Pace,
    private readonly limit: number,
  ) {}

  /** Bytes between here and the end of the file. */
  get remaining(): number {
    return this.source.size - this.position
  }

  has(length: number): boolean {
    return this.at + length <= this.window.length
  }

  /** Throws unless `length` more bytes exist. Call before anything of that size is allocated. */
  expect(length: number, field: string): void {
    if (length > this.remaining) {
      throw new DroverError('E_FORMAT', 'the file ends too early', {
        file: this.source.path,
        field,
        found: `${this.remaining} bytes`,
        expected: `at least ${length} bytes`,
      })
    }
    if (this.position + length > this.limit) {
      throw new DroverError('E_FORMAT', 'the header is absurdly large', {
        file: this.source.path,
        field,
        found: `at least ${this.position + length} bytes`,
        expected: `at most ${this.limit} bytes`,
      })
    }
  }

  /** Makes the window hold the next `length` bytes (fewer than the window's size or one string piece). */
  async fill(length: number, field: string): Promise<void> {
    if (this.has(length)) return
    this.expect(length, field)
    const bytes = await this.source.read(this.position, Math.min(this.remaining, Math.max(length, windowBytes)))
    this.window = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    this.at = 0
  }

  private advance(length: number): number {
    const at = this.at
    this.at += length
    this.position += length
    return at
  }

  // The scalar reads need a window that holds them: call fill first.
  u8 = (): number => this.view.getUint8(this.advance(1))
  i8 = (): number => this.view.getInt8(this.advance(1))
  u16 = (): number => this.view.getUint16(this.advance(2), true)
  i16 = (): number => this.view.getInt16(this.advance(2), true)
  u32 = (): number => this.view.getUint32(this.advance(4), true)
  i32 = (): number => this.view.getInt32(this.advance(4), true)
  f32 = (): number => this.view.getFloat32(this.advance(4), true)
  f64 = (): number => this.view.getFloat64(this.advance(8), true)

  /** A number when it is a safe integer, else a bigint. */
  u64 = (): number | bigint => {
    const at = this.advance(8)
    const high = this.view.getUint32(at + 4, true)
    if (high < 0x200000) return high * 4294967296 + this.view.getUint32(at, true)
    return this.view.getBigUint64(at, true)
  }

  i64 = (): number | bigint => {
    const at = this.advance(8)
    const high = this.view.getInt32(at + 4, true)
    if (high >= -0x200000 && high < 0x200000) {
      const value = high * 4294967296 + this.view.getUint32(at, true)
      if (Number.isSafeInteger(value)) return value
    }
    return this.view.getBigInt64(at, true)
  }

  /** A u64 that counts things of at least `least` bytes each, checked against the bytes that remain. */
  async count(field: string, least: number, most: number): Promise<number> {
    await this.fill(8, field)
    const value = this.u64()
    const fits = Math.floor(this.remaining / least)
    if (typeof value === 'bigint' || value > Math.min(fits, most)) {
      throw new DroverError('E_FORMAT', 'a count in the header is impossible', {
        file: this.source.path,
        field,
        found: value,
        expected: value > most ? `at most ${most}` : `at most ${fits}: ${this.remaining} bytes remain`,
      })
    }
    this.expect(value * least, field)
    return value
  }

  /** The next `length` bytes of the window (call fill first): the window itself and where they start and end. */
  take(length: number): { bytes: Buffer; start: number; end: number } {
    const start = this.advance(length)
    return { bytes: this.window, start, end: start + length }
  }

  /** All that the window holds from here on, as {@link take} gives it; nothing is taken. */
  ahead(): { bytes: Buffer; start: number; end: number } {
    return { bytes: this.window, start: this.at, end: this.window.length }
  }

  /** A u64 length and that many bytes of UTF-8. */
  async string(field: string, longest: number): Promise<string> {
    const length = await this.count(field, 1, longest)
    if (length <= pieceBytes) {
      if (!this.has(length)) await this.fill(length, field)
      const { bytes, start, end } = this.take(length)
      if (!isUtf8(bytes, start, end)) throw this.notUtf8(field)
      return bytes.toString('utf8', start, end)
    }
    this.expect(length, field)
    const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
    const pieces: string[] = []
    try {
      for (let rest = length; rest > 0; ) {
        const piece = Math.min(rest, pieceBytes)
        await this.fill(piece, field)
        const { bytes, start, end } = this.take(piece)
        rest -= piece
        pieces.push(decoder.decode(bytes.subarray(start, end), { stream: rest > 0 }))
        if (this.pace.due()) await this.pace.rest()
      }
    } catch (error) {
      throw error instanceof TypeError ? this.notUtf8(field) : error
    }
    return pieces.join('')
  }

  /** The error for text that is not UTF-8. */
  notUtf8(field: string): DroverError {
    return new DroverError('E_FORMAT', 'text is not valid UTF-8', {
      file: this.source.path,
      field,
      found: 'bytes that are not UTF-8',
      expected: 'UTF-8',
    })
  }

  /** Copies the next `length` bytes out, window by window. */
  async copy(length: number, field: string): Promise<Uint8Array> {
    this.expect(length, field)
    const out = new Uint8Array(length)
    for (let done = 0; done < length; ) {
      const part = Math.min(length - done, windowBytes)
      if (!this.has(part)) await this.fill(part, field)
      const { bytes, start, end } = this.take(part)
      out.set(bytes.subarray(start, end), done)
      done += part
      if (this.pace.due()) await this.pace.rest()
    }
    return out
  }
}
