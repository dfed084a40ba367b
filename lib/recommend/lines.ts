/** Text as lines of a bounded length, split at line feeds alone: JSON may hold the other separators of Unicode. */
import type { Readable } from 'node:stream'
import { DroverError, throwIfAborted } from '../errors.js'

/** Characters of a line: JSON is read in one go. */
const longestLine = 2 ** 24

/**
 * Lines with their numbers, from 1; the stream is destroyed at the end. `file` is what errors call it. Throws E_IO, E_ABORTED
 * (where the stream ends because `signal` has fired), E_FORMAT with the line when it is too long.
 */
export async function* linesOf(
  input: Readable,
  file: string,
  signal?: AbortSignal,
): AsyncGenerator<{ text: string; line: number }> {
  let rest = ''
  let line = 0
  const checked = (text: string): string => {
    if (text.length <= longestLine) return text
    throw new DroverError('E_FORMAT', `line ${line + 1} is too long`, {
      file,
      field: `line ${line + 1}`,
      found: `more than ${longestLine} characters`,
      expected: 'a request',
      hint: 'cut the request into several lines',
    })
  }
  try {
    for await (const chunk of input.setEncoding('utf8')) {
      const [first = '', ...others] = (chunk as string).split('\n')
      rest = checked(rest + first)
      for (const next of others) {
        yield { text: rest, line: ++line }
        rest = checked(next)
      }
    }
  } catch (cause) {
    if (cause instanceof DroverError) throw cause
    throwIfAborted(signal, 'reading requests')
    throw new DroverError('E_IO', 'the requests cannot be read', { file, cause })
  } finally {
    input.destroy()
  }
  if (rest !== '') yield { text: rest, line: line + 1 }
}
