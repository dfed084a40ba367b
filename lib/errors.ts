/**
 * Every error that drover throws is a {@link DroverError}; its `code` is stable and belongs to this one registry.
 * Callers switch on `code`, people read `message`.
 */
export const errorCodes = {
  E_ABORTED: 'the caller aborted the operation through its AbortSignal',
  E_ARGUMENT: 'an argument or option has the wrong type, an unknown name or an impossible value',
  E_BUSY: 'the object is already running a step, or its queue is full',
  E_CLOSED: 'the object has been closed',
  E_DEADLINE: 'the answer to a request was not there in the time that its caller allowed',
  E_FORMAT: 'a file is not what its format says: truncated, overlapping, out of range, inconsistent',
  E_INTERNAL: 'drover broke a promise to itself; please report it',
  E_IO: 'a file could not be opened, read, mapped or written',
  E_ISA: 'the instruction set that DROVER_ISA names is unknown or not available on this CPU',
  E_MEMORY: 'the operation would go over the memory budget, or the system refused the memory',
  E_NATIVE: 'the native addon could not be loaded',
  E_PROGRAM: 'a program was refused by the verifier',
  E_RANGE: 'an index, token, position or page is out of range',
  E_SHAPE: 'the shapes or dtypes of tensors do not fit each other',
  E_UNSUPPORTED: 'the input is valid but asks for something drover does not do (yet)',
} as const

/** One of the codes of {@link errorCodes}. */
export type ErrorCode = keyof typeof errorCodes

/** Where something was wrong, what was found and what would have been right. All parts are optional and machine-readable. */
export interface ErrorDetails {
  /** Path of the file that was being read. */
  file?: string
  /** The tensor, metadata key, config entry or argument at fault. */
  field?: string
  /** What was found there. */
  found?: unknown
  /** What would have been accepted. */
  expected?: unknown
  /** What the caller can do about it. */
  hint?: string
  cause?: unknown
}

/** Characters of a value that messages show. */
const mostShown = 200

const cut = (text: string): string => (text.length > mostShown ? `${text.slice(0, mostShown)}…` : text)

/** A list in few words: what it holds may be large. Undefined for what is no list. */
export const listKind = (value: unknown): string | undefined => {
  if (Array.isArray(value)) return `an array of ${value.length} entries`
  if (!ArrayBuffer.isView(value)) return undefined
  return `${Object.prototype.toString.call(value).slice(8, -1)} of ${value.byteLength} bytes`
}

/** Leaves out what would be cut off: each value that is kept has at least one character. */
const shortened = (): ((key: string, value: unknown) => unknown) => {
  let left = mostShown
  return (_, value) => {
    if (left-- < 0) return undefined
    if (Array.isArray(value)) return value.slice(0, mostShown)
    return typeof value === 'string' ? cut(value) : ArrayBuffer.isView(value) ? listKind(value) : value
  }
}

const show = (value: unknown): string => {
  if (typeof value === 'string') return cut(value)
  if (typeof value === 'bigint') return cut(value.toString())
  try {
    const text = ArrayBuffer.isView(value) ? listKind(value) : JSON.stringify(value, shortened())
    return cut(text === undefined ? String(value) : text)
  } catch {
    return `a value of type ${typeof value}` // whatever it is, it may refuse to be text as well
  }
}

/** What drover throws and rejects with: a stable `code`, and the parts of its message one by one. */
export class DroverError extends Error {
  override readonly name = 'DroverError'
  readonly code: ErrorCode
  /** The message without its parts. */
  readonly what: string
  readonly file?: string
  readonly field?: string
  readonly found?: unknown
  readonly expected?: unknown
  readonly hint?: string

  /** @param what one sentence without a full stop; file, field, found, expected and hint are appended from `details`. */
  constructor(code: ErrorCode, what: string, details: ErrorDetails = {}) {
    const parts = [what]
    if (details.field !== undefined) parts.push(`field: ${details.field}`)
    if (details.found !== undefined) parts.push(`found: ${show(details.found)}`)
    if (details.expected !== undefined) parts.push(`expected: ${show(details.expected)}`)
    if (details.file !== undefined) parts.push(`file: ${details.file}`)
    if (details.hint !== undefined) parts.push(details.hint)
    super(`${code}: ${parts.join('; ')}`, details.cause === undefined ? undefined : { cause: details.cause })
    this.code = code
    this.what = what
    if (details.file !== undefined) this.file = details.file
    if (details.field !== undefined) this.field = details.field
    if (details.found !== undefined) this.found = details.found
    if (details.expected !== undefined) this.expected = details.expected
    if (details.hint !== undefined) this.hint = details.hint
  }
}

/** The error of an operation that its caller aborted. */
export const aborted = (what: string): DroverError => new DroverError('E_ABORTED', `${what} was aborted`)

/** The error of an allocation that JavaScript has refused with a RangeError. */
export const refusedMemory = (what: string, cause: RangeError): DroverError =>
  new DroverError('E_MEMORY', `there is no memory for ${what}`, { found: cause.message, cause })

/** Throws E_ABORTED when `signal` has fired. */
export const throwIfAborted = (signal: AbortSignal | undefined, what: string): void => {
  if (signal?.aborted) throw aborted(what)
}
