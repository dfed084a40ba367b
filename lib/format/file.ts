/**
 * Where bytes come from: a folder on disk or in memory, opened one file at a time. Files are hostile: every read is
 * checked against the size the file had when it was opened, nothing but a regular file is opened, and parsers get
 * a {@link Pace} so that a large header neither blocks the event loop nor outlives an abort.
 */
import { constants } from 'node:fs'
import { type FileHandle, open, readdir, stat } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { DroverError, throwIfAborted } from '../errors.js'
import type { TensorInfo } from '../tensor.js'

/**
 * One opened file. `read` gives exactly `length` bytes or throws; the bytes may be a view, so do not write to them. They
 * may lie in `into`, where it is given: memory for readers that read on and on.
 */
export interface ByteSource {
  readonly path: string
  /** Bytes, as measured when the file was opened. */
  readonly size: number
  read(offset: number, length: number, into?: Uint8Array): Promise<Uint8Array>
  close(): Promise<void>
}

/** Files that lie side by side: the shards of a model, the parts of a Hugging Face folder. */
export interface Folder {
  readonly path: string
  /** Opens the file of this plain name. Throws E_IO when there is none or when it is not a regular file. */
  open(name: string): Promise<ByteSource>
  /** Plain names of the files in the folder, sorted. */
  list(): Promise<string[]>
}

export interface FileEntry {
  readonly path: string
  readonly size: number
}

/** What every weight format boils down to: files, and where in them the tensors lie. */
export interface TensorSource {
  readonly files: readonly FileEntry[]
  readonly tensors: ReadonlyMap<string, TensorInfo>
}

export interface ReadOptions {
  signal?: AbortSignal | undefined
  onProgress?: ((fraction: number, what: string) => void) | undefined
}

const ioError = (what: string, path: string, error: unknown): DroverError => {
  const code = (error as NodeJS.ErrnoException | null)?.code
  return new DroverError('E_IO', what, {
    file: path,
    found: code === 'ENOENT' ? 'no such file' : (code ?? String(error)),
    expected: 'a readable regular file',
    cause: error,
  })
}

const outOfRange = (path: string, size: number, offset: number, length: number): DroverError =>
  new DroverError('E_FORMAT', 'the file ends too early', {
    file: path,
    field: `bytes at ${offset}`,
    found: `${Math.max(0, size - offset)} bytes`,
    expected: `${length} bytes`,
  })

/** Largest single read; Node refuses lengths of 2 GiB and more. */
const largestRead = 1 << 30

class DiskSource implements ByteSource {
  constructor(
    readonly path: string,
    readonly size: number,
    private readonly handle: FileHandle,
  ) {}

  async read(offset: number, length: number, into?: Uint8Array): Promise<Uint8Array> {
    if (offset < 0 || length < 0 || offset + length > this.size) throw outOfRange(this.path, this.size, offset, length)
    const bytes = into?.subarray(0, length) ?? Buffer.allocUnsafeSlow(length)
    let done = 0
    while (done < length) {
      let count: number
      try {
        count = (await this.handle.read(bytes, done, Math.min(length - done, largestRead), offset + done)).bytesRead
      } catch (error) {
        throw ioError('the file could not be read', this.path, error)
      }
      if (count === 0) {
        throw new DroverError('E_IO', 'the file became shorter while it was read', {
          file: this.path,
          found: `${offset + done} bytes`,
          expected: `${this.size} bytes`,
        })
      }
      done += count
    }
    return bytes
  }

  async close(): Promise<void> {
    await this.handle.close()
  }
}

/** Opens one regular file. A pipe, device or folder is refused instead of waited for. */
export const openFile = async (path: string): Promise<ByteSource> => {
  let handle: FileHandle
  try {
    // Without O_NONBLOCK the open of a named pipe would wait for a writer, perhaps for ever.
    handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (error) {
    throw ioError('the file could not be opened', path, error)
  }
  try {
    const status = await handle.stat()
    if (status.isFile()) return new DiskSource(path, status.size, handle)
  } catch (error) {
    await handle.close()
    throw ioError('the file could not be examined', path, error)
  }
  await handle.close()
  throw new DroverError('E_IO', 'the path is not a regular file', {
    file: path,
    found: 'a folder, pipe or device',
    expected: 'a readable regular file',
  })
}

/** Whether a path leads to a folder; what is not there, or may not be looked at, is none. */
export const isFolder = (path: string): Promise<boolean> =>
  stat(path).then(
    (status) => status.isDirectory(),
    () => false,
  )

/** A folder on disk. */
export const diskFolder = (path: string): Folder => ({
  path: resolve(path),
  open: (name) => openFile(join(resolve(path), name)),
  list: async () => {
    try {
      const entries = await readdir(path, { withFileTypes: true })
      return entries
        .filter((entry) => !entry.isDirectory())
        .map((entry) => entry.name)
        .sort()
    } catch (error) {
      throw ioError('the folder could not be read', path, error)
    }
  },
})

/** Bytes in memory under a made-up path; `read` gives views. */
export const fromBytes = (path: string, bytes: Uint8Array): ByteSource => ({
  path,
  size: bytes.length,
  read: async (offset, length) => {
    if (offset < 0 || length < 0 || offset + length > bytes.length) {
      throw outOfRange(path, bytes.length, offset, length)
    }
    return bytes.subarray(offset, offset + length)
  },
  close: async () => {},
})

/** A folder in memory. */
export const memoryFolder = (files: ReadonlyMap<string, Uint8Array>, path = 'memory'): Folder => ({
  path,
  open: async (name) => {
    const bytes = files.get(name)
    const full = `${path}/${name}`
    if (bytes === undefined) throw ioError('the file could not be opened', full, { code: 'ENOENT' })
    return fromBytes(full, bytes)
  },
  list: async () => [...files.keys()].sort(),
})

/** True for the E_IO error that means "there is no such file". */
export const isMissing = (error: unknown): boolean =>
  error instanceof DroverError && error.code === 'E_IO' && error.found === 'no such file'

/** Lets the event loop breathe and an abort take effect inside long parses: slices of 5 ms. */
export class Pace {
  private last = performance.now()
  private calls = 0

  constructor(
    private readonly signal: AbortSignal | undefined,
    private readonly what: string,
  ) {
    throwIfAborted(signal, what)
  }

  /** Cheap enough for every element of a large array; when true, await {@link rest}. */
  due(): boolean {
    return (++this.calls & 63) === 0 && this.late()
  }

  /** The same behind work that takes longer than looking at the clock. */
  late(): boolean {
    return performance.now() - this.last > 5
  }

  async rest(): Promise<void> {
    await new Promise<void>((done) => setImmediate(done))
    throwIfAborted(this.signal, this.what)
    this.last = performance.now()
  }
}

/** Runs `body` on an opened file and closes it, whatever happens. */
export const withSource = async <T>(
  source: ByteSource | Promise<ByteSource>,
  body: (source: ByteSource) => Promise<T>,
): Promise<T> => {
  const opened = await source
  try {
    return await body(opened)
  } finally {
    await opened.close()
  }
}

/**
 * The stored bytes of one tensor, `info.bytes` of them. For small tensors and tests: models map their files instead.
 * Throws E_IO when the file changed its size since its header was read.
 */
export const readTensor = (source: TensorSource, info: TensorInfo): Promise<Uint8Array> => {
  const entry = source.files[info.file]
  if (entry === undefined) {
    throw new DroverError('E_ARGUMENT', 'the tensor belongs to another source', { field: info.name, found: info.file })
  }
  return withSource(openFile(entry.path), (opened) => {
    if (opened.size !== entry.size) {
      throw new DroverError('E_IO', 'the file changed since its header was read', {
        file: entry.path,
        found: `${opened.size} bytes`,
        expected: `${entry.size} bytes`,
      })
    }
    return opened.read(info.offset, info.bytes)
  })
}

/** True when bytes [start, end) are well-formed UTF-8 (no overlong forms, no surrogates, nothing past U+10FFFF). */
export const isUtf8 = (bytes: Uint8Array, start: number, end: number): boolean => {
  let i = start
  while (i < end) {
    const a = bytes[i]!
    if (a < 0x80) {
      i++
      continue
    }
    const length = a >= 0xc2 && a < 0xe0 ? 2 : a >= 0xe0 && a < 0xf0 ? 3 : a >= 0xf0 && a < 0xf5 ? 4 : 0
    if (length === 0 || i + length > end) return false
    const b = bytes[i + 1]!
    const lowest = a === 0xe0 ? 0xa0 : a === 0xf0 ? 0x90 : 0x80
    const highest = a === 0xed ? 0x9f : a === 0xf4 ? 0x8f : 0xbf
    if (b < lowest || b > highest) return false
    for (let k = 2; k < length; k++) if ((bytes[i + k]! & 0xc0) !== 0x80) return false
    i += length
  }
  return true
}
