/** Files that appear when they are complete, and replace others only when that is asked for. */
import { randomBytes } from 'node:crypto'
import { rename, rm, stat, writeFile } from 'node:fs/promises'
import { DroverError } from '../errors.js'

/**
 * Throws E_ARGUMENT when there is something at `path` already: before a long calculation, not behind it. `replaceable`: a
 * file would give way if that were asked for.
 */
export const checkNewFile = async (field: string, path: string, replaceable = true): Promise<void> => {
  const exists = await stat(path).catch(() => undefined)
  if (exists === undefined) return
  throw new DroverError('E_ARGUMENT', 'the output exists', {
    field,
    found: path,
    expected: 'a new name',
    ...(exists.isDirectory() || !replaceable ? {} : { hint: 'overwrite: true (--force) replaces a file' }),
  })
}

/** Writes a file, or replaces one as a whole. Throws E_ARGUMENT when it exists and `overwrite` is false, E_IO. */
export const writeNewFile = async (field: string, path: string, text: string, overwrite: boolean): Promise<void> => {
  if (!overwrite) await checkNewFile(field, path)
  const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`
  try {
    await writeFile(temporary, text, { flag: 'wx' })
    await rename(temporary, path)
  } catch (cause) {
    await rm(temporary, { force: true })
    throw new DroverError('E_IO', 'the file could not be written', {
      file: path,
      found: (cause as NodeJS.ErrnoException).code,
      cause,
    })
  }
}
