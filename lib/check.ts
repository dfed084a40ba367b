/**
 * The one grammar in which arguments are refused: `expected <what> for <name>, found <value>`.
 * Each check returns its value, narrowed, so that callers validate and assign in one line.
 */
import { DroverError, listKind } from './errors.js'

const refuse = (name: string, expected: string, found: unknown): never => {
  throw new DroverError('E_ARGUMENT', `expected ${expected} for ${name}`, { field: name, found, expected })
}

export const checkString = (name: string, value: unknown): string =>
  typeof value === 'string' ? value : refuse(name, 'a string', value)

/** A path: text, but not none, and without the character that ends texts for the system. */
export const checkPath = (name: string, value: unknown): string =>
  typeof value === 'string' && value !== '' && !value.includes('\0') ? value : refuse(name, 'a path', value)

export const checkBoolean = (name: string, value: unknown): boolean =>
  typeof value === 'boolean' ? value : refuse(name, 'true or false', value)

export const checkFunction = <T>(name: string, value: T): T =>
  typeof value === 'function' ? value : refuse(name, 'a function', value)

/** A safe integer in [minimum, maximum]. */
export const checkInteger = (
  name: string,
  value: unknown,
  minimum = Number.MIN_SAFE_INTEGER,
  maximum = Number.MAX_SAFE_INTEGER,
): number =>
  typeof value === 'number' && Number.isSafeInteger(value) && value >= minimum && value <= maximum
    ? value
    : refuse(name, `an integer from ${minimum} to ${maximum}`, value)

/** A finite number in [minimum, maximum]. */
export const checkNumber = (
  name: string,
  value: unknown,
  minimum = Number.NEGATIVE_INFINITY,
  maximum = Number.POSITIVE_INFINITY,
): number =>
  typeof value === 'number' && Number.isFinite(value) && value >= minimum && value <= maximum
    ? value
    : refuse(name, `a finite number from ${minimum} to ${maximum}`, value)

export const checkOneOf = <T extends string>(name: string, value: unknown, allowed: readonly T[]): T =>
  allowed.includes(value as T) ? (value as T) : refuse(name, `one of ${allowed.join(', ')}`, value)

export const checkSignal = (name: string, value: unknown): AbortSignal =>
  value instanceof AbortSignal ? value : refuse(name, 'an AbortSignal', value)

export const checkInstance = <T>(name: string, value: unknown, type: new (...args: never[]) => T): T =>
  value instanceof type ? value : refuse(name, `a ${type.name}`, value)

/** A copy of tokens of a vocabulary: at least one, at most `most`. Throws E_ARGUMENT, E_RANGE. */
export const checkTokens = (name: string, input: unknown, vocabulary: number, most: number): Int32Array => {
  const tokens = input as ArrayLike<unknown>
  // Read once: a view of a shared buffer may change while it is looked at.
  const length = typeof input === 'object' && input !== null ? tokens.length : undefined
  if (length === undefined || !Number.isSafeInteger(length) || length < 0) {
    throw new DroverError('E_ARGUMENT', `expected tokens for ${name}`, { field: name, found: input })
  }
  if (length === 0)
    throw new DroverError('E_RANGE', 'there are no tokens', { field: name, found: 0, expected: 'at least 1' })
  if (length > most) {
    throw new DroverError('E_RANGE', 'more tokens than the context holds', {
      field: name,
      found: length,
      expected: most,
    })
  }
  return Int32Array.from({ length }, (_, i) => checkInteger(`${name}[${i}]`, tokens[i], 0, vocabulary - 1))
}

/** A plain object whose keys are all in `allowed`; a misspelled option is named with the nearest right one. */
export const checkOptions = (name: string, value: unknown, allowed: readonly string[]): Record<string, unknown> => {
  if (value === undefined) return {}
  if (typeof value !== 'object' || value === null) return refuse(name, 'an object', value)
  const list = listKind(value)
  if (list !== undefined) return refuse(name, 'an object', list)
  for (const key of Object.keys(value)) {
    if (allowed.includes(key)) continue
    const near = allowed.find((other) => other.toLowerCase() === key.toLowerCase())
    throw new DroverError('E_ARGUMENT', `unknown option ${key} in ${name}`, {
      field: `${name}.${key}`,
      found: key,
      expected: near ?? allowed.join(', '),
    })
  }
  return value as Record<string, unknown>
}
