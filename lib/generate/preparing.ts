/** What loading does around the preparation of weights: a folder for their files, and work for the time that it takes. */
import { mkdir } from 'node:fs/promises'
import { resolve } from 'node:path'
import type { DeviceProgram } from '../device/device.js'
import { DroverError } from '../errors.js'

/** What `body` gives, made while the device's threads prepare weights; when it fails, they stop and are freed again. */
export const meanwhile = async <T>(
  loading: Promise<DeviceProgram>,
  stop: AbortController,
  body: () => Promise<T>,
): Promise<T & { loaded: DeviceProgram }> => {
  // Its end is always heard of; what `body` says comes first.
  const freed = loading.then(
    (loaded) => () => loaded.close(),
    () => async () => {},
  )
  const made = await body().catch(async (error: unknown) => {
    stop.abort()
    await (await freed)()
    throw error
  })
  return { ...made, loaded: await loading }
}

/** The folder for prepared weights, for this user alone where it has yet to be made. */
export const preparedFolder = async (path: string): Promise<string> => {
  const folder = resolve(path)
  await mkdir(folder, { recursive: true, mode: 0o700 }).catch((cause: unknown) => {
    throw new DroverError('E_IO', 'the folder for prepared weights cannot be made', {
      field: 'options.preparedCache',
      file: folder,
      found: (cause as NodeJS.ErrnoException).code,
      cause,
    })
  })
  return folder
}
