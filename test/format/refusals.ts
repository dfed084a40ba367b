/** What every refusal of a file must look like. */
import * as assert from 'uvu/assert'
import { DroverError, type ErrorCode } from '../../lib/errors.js'

/** Runs `read`, which must throw a DroverError of this code that names the file and what was found and expected there. */
export const assertRefused = async (
  what: string,
  code: ErrorCode,
  field: string | RegExp | undefined,
  read: () => Promise<unknown>,
): Promise<DroverError> => {
  let error: unknown
  await read().then(
    () => assert.unreachable(`${what}: was accepted`),
    (caught) => (error = caught),
  )
  if (!(error instanceof DroverError)) throw error
  assert.is(error.code, code, `${what}: ${error.message}`)
  assert.type(error.file, 'string', `${what}: names the file`)
  assert.ok(error.found !== undefined && error.expected !== undefined, `${what}: found and expected: ${error.message}`)
  if (typeof field === 'string') assert.is(error.field, field, `${what}: ${error.message}`)
  else if (field !== undefined) assert.match(error.field ?? '', field, `${what}: ${error.message}`)
  assert.ok(error.message.length < 2000, `${what}: the message stays readable`)
  return error
}
