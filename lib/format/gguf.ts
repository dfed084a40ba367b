/**
 * GGUF: header to metadata and tensor descriptions. Versions 2 and 3, little endian, single or split files. The weights
 * themselves are not read. Every count is checked against the bytes that remain before anything is allocated for it.
 */
import { basename, dirname } from 'node:path'
import { DroverError, type ErrorDetails } from '../errors.js'
import type { TensorInfo } from '../tensor.js'
import { Cursor } from './cursor.js'
import {
  diskFolder,
  type FileEntry,
  type Folder,
  isMissing,
  Pace,
  type ReadOptions,
  type TensorSource,
  withSource,
} from './file.js'
import { defaultAlignment, type GgufType, ggmlTypes, refusedGgmlTypes } from './gguf-types.js'
import { type GgufValue, ValueReader } from './gguf-values.js'
import { checkDisjoint, mostTensors, tensorBytes } from './layout.js'

export type { GgufArray, GgufNumbers, GgufValue } from './gguf-values.js'

export interface GgufFile extends TensorSource {
  readonly version: number
  readonly alignment: number
  /** All files of a split model, the first first. */
  readonly files: readonly FileEntry[]
  /** Metadata of the first file. */
  readonly metadata: ReadonlyMap<string, GgufValue>
  /** The type each metadata value was stored in. */
  readonly metadataTypes: ReadonlyMap<string, GgufType>
  readonly tensors: ReadonlyMap<string, TensorInfo>
}

/** A header beyond this is no header; the largest known vocabularies need a tenth of it. */
const largestHeader = 1 << 28
const longestName = 65535
const mostEntries = 1 << 16
const mostDimensions = 4
const splitName = /^(.*)-(\d{5})-of-(\d{5})\.gguf$/

/**
 * Reads the header of a GGUF file, and of its siblings when it is split. Throws E_FORMAT, E_UNSUPPORTED (version 1, big
 * endian, a tensor type that is not read), E_IO or E_ABORTED, with file, field, found and expected.
 */
export const readGguf = (path: string, options: ReadOptions = {}): Promise<GgufFile> =>
  readGgufFrom(diskFolder(dirname(path)), basename(path), options)

/** {@link readGguf} from any folder. */
export const readGgufFrom = async (folder: Folder, name: string, options: ReadOptions = {}): Promise<GgufFile> => {
  const pace = new Pace(options.signal, 'reading a GGUF file')
  const given = await readHeader(folder, name, 0, pace)
  const count = splitInteger(given, 'split.count') ?? 1
  const match = splitName.exec(name)
  if (count <= 1) {
    if (match !== null && match[3] !== '00001') {
      throw new DroverError('E_FORMAT', 'the name says that the file is part of a split model, its metadata does not', {
        file: given.entry.path,
        field: 'split.count',
        found: given.metadata.get('split.count') ?? 'missing',
        expected: Number(match[3]),
      })
    }
    options.onProgress?.(1, 'header')
    return finish(given, [given.entry], new Map(given.tensors.map((tensor) => [tensor.name, tensor])))
  }
  if (match === null || Number(match[3]) !== count) {
    throw new DroverError('E_FORMAT', 'a part of a split model has the wrong name', {
      file: given.entry.path,
      field: 'split.count',
      found: name,
      expected: `a name ending in -00001-of-${String(count).padStart(5, '0')}.gguf`,
    })
  }
  const total = splitInteger(given, 'split.tensors.count')
  const tensors = new Map<string, TensorInfo>()
  const files: FileEntry[] = []
  let first: Header | undefined
  for (let number = 0; number < count; number++) {
    const shard = `${match[1]}-${String(number + 1).padStart(5, '0')}-of-${match[3]}.gguf`
    const header = await readShard(folder, shard, number, count, pace)
    first ??= header
    const shardTotal = splitInteger(header, 'split.tensors.count')
    if (shardTotal !== total) throw disagree(header, 'split.tensors.count', shardTotal, total)
    files.push(header.entry)
    for (const tensor of header.tensors) {
      if (tensors.has(tensor.name)) {
        const other = files[tensors.get(tensor.name)!.file]!
        throw new DroverError('E_FORMAT', 'a tensor is in two parts of a split model', {
          file: header.entry.path,
          field: tensor.name,
          found: `also in ${other.path}`,
          expected: 'every tensor once',
        })
      }
      tensors.set(tensor.name, tensor)
    }
    options.onProgress?.((number + 1) / count, 'header')
  }
  if (total !== undefined && tensors.size !== total) {
    throw new DroverError('E_FORMAT', 'a split model has the wrong number of tensors', {
      file: files[0]!.path,
      field: 'split.tensors.count',
      found: tensors.size,
      expected: total,
    })
  }
  return finish(first as Header, files, tensors)
}

interface Header {
  readonly entry: FileEntry
  readonly version: number
  readonly alignment: number
  readonly metadata: Map<string, GgufValue>
  readonly types: Map<string, GgufType>
  readonly tensors: TensorInfo[]
}

const finish = (header: Header, files: FileEntry[], tensors: Map<string, TensorInfo>): GgufFile => ({
  version: header.version,
  alignment: header.alignment,
  files,
  metadata: header.metadata,
  metadataTypes: header.types,
  tensors,
})

const disagree = (header: Header, field: string, found: unknown, expected: unknown): DroverError =>
  new DroverError('E_FORMAT', 'the parts of a split model contradict each other', {
    file: header.entry.path,
    field,
    found: found ?? 'missing',
    expected: expected ?? 'missing',
  })

const splitInteger = (header: Header, key: string): number | undefined => {
  const value = header.metadata.get(key)
  if (value === undefined) return undefined
  if (typeof value === 'number' && Number.isInteger(value) && value >= 0) return value
  throw new DroverError('E_FORMAT', 'a metadata value has the wrong type', {
    file: header.entry.path,
    field: key,
    found: typeof value === 'object' ? 'an array' : value,
    expected: 'an integer of 0 or more',
  })
}

const readShard = async (folder: Folder, name: string, number: number, count: number, pace: Pace): Promise<Header> => {
  let header: Header
  try {
    header = await readHeader(folder, name, number, pace)
  } catch (error) {
    if (!isMissing(error)) throw error
    throw new DroverError('E_IO', 'a part of a split model is missing', {
      file: (error as DroverError).file,
      field: 'split.count',
      found: 'no such file',
      expected: `${count} files, of which this is number ${number + 1}`,
      hint: 'all parts must lie in one folder under their original names',
      cause: error,
    })
  }
  const shardCount = splitInteger(header, 'split.count')
  if (shardCount !== count) throw disagree(header, 'split.count', shardCount, count)
  const shardNumber = splitInteger(header, 'split.no')
  if (shardNumber !== number) throw disagree(header, 'split.no', shardNumber, number)
  return header
}

const readHeader = (folder: Folder, name: string, file: number, pace: Pace): Promise<Header> =>
  withSource(folder.open(name), async (source) => {
    const cursor = new Cursor(source, pace, largestHeader)
    await cursor.fill(Math.min(8, Math.max(source.size, 1)), 'magic')
    cursor.expect(8, 'magic')
    const version = readVersion(cursor)
    const tensorCount = await cursor.count('tensor count', 24, mostTensors)
    const entryCount = await cursor.count('metadata count', 13, mostEntries)
    const metadata = new Map<string, GgufValue>()
    const types = new Map<string, GgufType>()
    const values = new ValueReader(cursor)
    for (let i = 0; i < entryCount; i++) {
      const key = await cursor.string(`metadata key ${i}`, longestName)
      if (metadata.has(key)) throw duplicate(source.path, key, 'metadata key')
      const { type, value } = await values.read(key)
      metadata.set(key, value)
      types.set(key, type)
      if (pace.due()) await pace.rest()
    }
    const alignment = readAlignment(source.path, metadata, types)
    const tensors: TensorInfo[] = []
    const names = new Set<string>()
    for (let i = 0; i < tensorCount; i++) {
      const tensor = await readTensorInfo(cursor, i, file, alignment)
      if (names.has(tensor.name)) throw duplicate(source.path, tensor.name, 'tensor name')
      names.add(tensor.name)
      tensors.push(tensor)
      if (pace.due()) await pace.rest()
    }
    const start = Math.ceil(cursor.position / alignment) * alignment
    const placed = tensors.map((tensor) => ({ ...tensor, offset: start + tensor.offset }))
    for (const tensor of placed) {
      if (tensor.offset + tensor.bytes > source.size) {
        throw new DroverError('E_FORMAT', 'a tensor lies beyond the end of the file', {
          file: source.path,
          field: tensor.name,
          found: `bytes ${tensor.offset} to ${tensor.offset + tensor.bytes}`,
          expected: `an end of at most ${source.size}`,
        })
      }
    }
    checkDisjoint(placed, source.path)
    return { entry: { path: source.path, size: source.size }, version, alignment, metadata, types, tensors: placed }
  })

const duplicate = (path: string, name: string, what: string): DroverError =>
  new DroverError('E_FORMAT', `a ${what} occurs twice`, {
    file: path,
    field: name,
    found: 'two of this name',
    expected: 'every name once',
  })

const legacyMagics = ['lmgg', 'fmgg', 'tjgg', 'algg']

const readVersion = (cursor: Cursor): number => {
  const { bytes, start, end } = cursor.take(4)
  const magic = bytes.toString('latin1', start, end)
  const where = { file: cursor.source.path, field: 'magic' }
  if (legacyMagics.includes(magic)) {
    throw new DroverError('E_UNSUPPORTED', 'the file has a format from before GGUF', {
      ...where,
      found: [...magic].reverse().join(''),
      expected: 'GGUF',
    })
  }
  if (magic !== 'GGUF')
    throw new DroverError('E_FORMAT', 'this is not a GGUF file', { ...where, found: magic, expected: 'GGUF' })
  const version = cursor.u32()
  if (version === 2 || version === 3) return version
  // A version has small numbers: one in the upper half of the word was written on a big-endian machine.
  const bigEndian = version !== 0 && (version & 0xffff) === 0
  throw new DroverError(
    'E_UNSUPPORTED',
    bigEndian ? 'the GGUF file is big endian' : 'the GGUF version is not supported',
    {
      file: cursor.source.path,
      field: 'version',
      found: bigEndian ? 'big endian' : version,
      expected: bigEndian ? 'little endian' : '2 or 3',
      hint: 'convert the model again with a current converter',
    },
  )
}

const readAlignment = (
  path: string,
  metadata: ReadonlyMap<string, GgufValue>,
  types: ReadonlyMap<string, GgufType>,
): number => {
  const value = metadata.get('general.alignment')
  if (value === undefined) return defaultAlignment
  // Powers of two up to 2^30 are exactly the positive int32 with one bit.
  const power = typeof value === 'number' && value > 0 && value <= 1 << 30 && (value & (value - 1)) === 0
  if (power && Number.isInteger(value) && types.get('general.alignment') === 'u32') return value
  throw new DroverError('E_FORMAT', 'the alignment is impossible', {
    file: path,
    field: 'general.alignment',
    found: typeof value === 'object' ? 'an array' : value,
    expected: 'a u32 that is a power of two of at most 2^30',
  })
}

/** Offset is still relative to the data section. */
const readTensorInfo = async (cursor: Cursor, i: number, file: number, alignment: number): Promise<TensorInfo> => {
  const name = await cursor.string(`tensor name ${i}`, longestName)
  const where: ErrorDetails = { file: cursor.source.path, field: name }
  await cursor.fill(4, name)
  const dimensions = cursor.u32()
  if (dimensions > mostDimensions) {
    throw new DroverError('E_FORMAT', 'a tensor has too many dimensions', {
      ...where,
      found: dimensions,
      expected: `at most ${mostDimensions}`,
    })
  }
  await cursor.fill(8 * dimensions + 12, name)
  const shape: number[] = []
  for (let d = 0; d < dimensions; d++) {
    const size = cursor.u64()
    if (typeof size === 'bigint' || size === 0) {
      throw new DroverError('E_FORMAT', 'a tensor has an impossible dimension', {
        ...where,
        found: size,
        expected: 'from 1 to 2^53 - 1',
      })
    }
    shape.unshift(size)
  }
  const id = cursor.u32()
  const dtype = ggmlTypes.get(id)
  if (dtype === undefined) {
    const refused = refusedGgmlTypes.get(id)
    throw new DroverError(
      refused === undefined ? 'E_FORMAT' : 'E_UNSUPPORTED',
      refused === undefined ? 'a tensor has an unknown type' : 'a tensor has a type that is not read',
      { ...where, found: refused ?? `type ${id}`, expected: [...ggmlTypes.values()].join(', ') },
    )
  }
  const offset = cursor.u64()
  if (typeof offset === 'bigint' || offset > cursor.source.size) {
    throw new DroverError('E_FORMAT', 'a tensor lies beyond the end of the file', {
      ...where,
      found: `offset ${offset}`,
      expected: `less than ${cursor.source.size}`,
    })
  }
  if (offset % alignment !== 0) {
    throw new DroverError('E_FORMAT', 'a tensor is not aligned', {
      ...where,
      found: `offset ${offset}`,
      expected: `a multiple of ${alignment}`,
    })
  }
  return { name, dtype, shape, file, offset, bytes: tensorBytes(dtype, shape, where) }
}
