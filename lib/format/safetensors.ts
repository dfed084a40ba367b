/**
 * safetensors: one file, or a folder or index of shards, to metadata and tensor descriptions. The header is JSON of at
 * most 100 MB; tensors must fill the rest of the file exactly, without gaps or overlaps, as the format demands.
 */
import { basename, dirname } from 'node:path'
import { DroverError, type ErrorDetails } from '../errors.js'
import type { DTypeName, TensorInfo } from '../tensor.js'
import {
  diskFolder,
  type FileEntry,
  type Folder,
  isFolder,
  isMissing,
  Pace,
  type ReadOptions,
  type TensorSource,
  withSource,
} from './file.js'
import { type JsonObject, JsonReader, parseJson } from './json.js'
import { checkDisjoint, mostTensors, tensorBytes } from './layout.js'

export interface SafetensorsFile extends TensorSource {
  readonly files: readonly FileEntry[]
  /** The `__metadata__` of the file, or of all shards together. */
  readonly metadata: ReadonlyMap<string, string>
  readonly tensors: ReadonlyMap<string, TensorInfo>
}

const largestHeader = 100_000_000
const largestIndex = 64_000_000
const mostShards = 1 << 14
const mostDimensions = 16
const indexName = 'model.safetensors.index.json'
const singleName = 'model.safetensors'

/** Names of the format. */
export const safetensorTypes: ReadonlyMap<string, DTypeName> = new Map<string, DTypeName>([
  ['F64', 'f64'],
  ['F32', 'f32'],
  ['F16', 'f16'],
  ['BF16', 'bf16'],
  ['F8_E4M3', 'f8_e4m3'],
  ['F8_E5M2', 'f8_e5m2'],
  ['I64', 'i64'],
  ['I32', 'i32'],
  ['I16', 'i16'],
  ['I8', 'i8'],
  ['U64', 'u64'],
  ['U32', 'u32'],
  ['U16', 'u16'],
  ['U8', 'u8'],
  ['BOOL', 'bool'],
])

/** Types of the format that are not read: refused by name rather than as nonsense. */
const refusedTypes = ['F4', 'F6_E2M3', 'F6_E3M2', 'F8_E8M0', 'F8_E4M3FNUZ', 'F8_E5M2FNUZ', 'C64']

/**
 * Reads the header of a `.safetensors` file, of all shards that an `*.index.json` names, or of the model in a folder
 * (`model.safetensors`, else `model.safetensors.index.json`, else its only `.safetensors` file). Throws E_FORMAT,
 * E_UNSUPPORTED, E_IO or E_ABORTED with file, field, found and expected.
 */
export const readSafetensors = async (path: string, options: ReadOptions = {}): Promise<SafetensorsFile> =>
  (await isFolder(path))
    ? readSafetensorsFrom(diskFolder(path), undefined, options)
    : readSafetensorsFrom(diskFolder(dirname(path)), basename(path), options)

/** {@link readSafetensors} from any folder; without `name`, the model that the folder holds. */
export const readSafetensorsFrom = async (
  folder: Folder,
  name?: string,
  options: ReadOptions = {},
): Promise<SafetensorsFile> => {
  const pace = new Pace(options.signal, 'reading a safetensors file')
  const chosen = name ?? (await choose(folder))
  if (chosen.endsWith('.json')) return readShards(folder, chosen, pace, options)
  const header = await readHeader(folder, chosen, 0, pace)
  options.onProgress?.(1, 'header')
  return { files: [header.entry], metadata: header.metadata, tensors: header.tensors }
}

const choose = async (folder: Folder): Promise<string> => {
  const names = await folder.list()
  if (names.includes(singleName)) return singleName
  if (names.includes(indexName)) return indexName
  const files = names.filter((name) => name.endsWith('.safetensors'))
  if (files.length === 1) return files[0] as string
  throw new DroverError('E_IO', 'the folder holds no safetensors model', {
    file: folder.path,
    found: files.length === 0 ? 'no .safetensors file' : `${files.length} .safetensors files without an index`,
    expected: `${singleName} or ${indexName}`,
  })
}

interface Header {
  readonly entry: FileEntry
  readonly metadata: Map<string, string>
  readonly tensors: Map<string, TensorInfo>
}

const readHeader = (folder: Folder, name: string, file: number, pace: Pace): Promise<Header> =>
  withSource(folder.open(name), async (source) => {
    const where = { file: source.path, field: 'header length' }
    if (source.size < 8) {
      throw new DroverError('E_FORMAT', 'the file ends too early', {
        ...where,
        found: `${source.size} bytes`,
        expected: 'at least 8 bytes',
      })
    }
    const first = await source.read(0, 8)
    const length = new DataView(first.buffer, first.byteOffset, 8).getBigUint64(0, true)
    const most = Math.min(largestHeader, source.size - 8)
    if (length < 2n || length > BigInt(most)) {
      throw new DroverError('E_FORMAT', 'the header length is impossible', {
        ...where,
        found: length,
        expected: `from 2 to ${most} bytes`,
      })
    }
    const bytes = await source.read(8, Number(length))
    if (bytes[0] !== 0x7b) throw new JsonReader(bytes, source.path, 'header').fail('an object')
    const start = 8 + Number(length)
    const { metadata, tensors } = await parseHeader(bytes, source.path, file, start, source.size, pace)
    checkDisjoint([...tensors.values()], source.path, { from: start, to: source.size })
    return { entry: { path: source.path, size: source.size }, metadata, tensors }
  })

const parseHeader = async (
  bytes: Uint8Array,
  path: string,
  file: number,
  start: number,
  size: number,
  pace: Pace,
): Promise<{ metadata: Map<string, string>; tensors: Map<string, TensorInfo> }> => {
  const reader = new JsonReader(bytes, path, 'header')
  let metadata: Map<string, string> | undefined
  const tensors = new Map<string, TensorInfo>()
  reader.open('{')
  while (reader.more('{')) {
    const name = reader.key()
    if (pace.due()) await pace.rest()
    if (name === '__metadata__') {
      if (metadata !== undefined) throw reader.duplicate(name)
      metadata = await readMetadata(reader, pace)
      continue
    }
    if (tensors.has(name)) throw reader.duplicate(name)
    if (tensors.size === mostTensors) throw reader.fail(`at most ${mostTensors} tensors`)
    tensors.set(name, readTensorInfo(reader, name, path, file, start, size))
  }
  reader.end()
  return { metadata: metadata ?? new Map(), tensors }
}

const readMetadata = async (reader: JsonReader, pace: Pace): Promise<Map<string, string>> => {
  const metadata = new Map<string, string>()
  reader.open('{', '__metadata__')
  while (reader.more('{', '__metadata__')) {
    const key = reader.key()
    if (metadata.has(key)) throw reader.duplicate(`__metadata__.${key}`)
    if (metadata.size === mostTensors) throw reader.fail(`at most ${mostTensors} entries`, '__metadata__')
    metadata.set(key, reader.string(`__metadata__.${key}`))
    if (pace.due()) await pace.rest()
  }
  return metadata
}

const readTensorInfo = (
  reader: JsonReader,
  name: string,
  path: string,
  file: number,
  start: number,
  size: number,
): TensorInfo => {
  const where: ErrorDetails = { file: path, field: name }
  let type: string | undefined
  let shape: number[] | undefined
  let offsets: number[] | undefined
  reader.open('{', name)
  while (reader.more('{', name)) {
    const key = reader.key(name)
    const field = `${name}.${key}`
    if (key === 'dtype' && type === undefined) type = reader.string(field)
    else if (key === 'shape' && shape === undefined) shape = readCounts(reader, field, mostDimensions)
    else if (key === 'data_offsets' && offsets === undefined) offsets = readCounts(reader, field, 2)
    else {
      throw new DroverError('E_FORMAT', 'a tensor has an unexpected entry', {
        file: path,
        field,
        found: key,
        expected: 'dtype, shape and data_offsets, once each',
      })
    }
  }
  if (type === undefined || shape === undefined || offsets?.length !== 2) {
    throw new DroverError('E_FORMAT', 'a tensor is not fully described', {
      ...where,
      found: [type !== undefined && 'dtype', shape && 'shape', offsets && `${offsets.length} data_offsets`]
        .filter(Boolean)
        .join(', '),
      expected: 'dtype, shape and 2 data_offsets',
    })
  }
  const dtype = safetensorTypes.get(type)
  if (dtype === undefined) {
    const known = refusedTypes.includes(type)
    throw new DroverError(known ? 'E_UNSUPPORTED' : 'E_FORMAT', 'a tensor has a type that is not read', {
      file: path,
      field: `${name}.dtype`,
      found: type,
      expected: [...safetensorTypes.keys()].join(', '),
    })
  }
  const [begin, end] = offsets as [number, number]
  if (begin > end || end > size - start) {
    throw new DroverError('E_FORMAT', 'a tensor lies beyond the end of the file', {
      file: path,
      field: `${name}.data_offsets`,
      found: `[${begin}, ${end}]`,
      expected: `ascending, at most ${size - start}`,
    })
  }
  const bytes = tensorBytes(dtype, shape, { file: path, field: `${name}.shape` })
  if (bytes !== end - begin) {
    throw new DroverError('E_FORMAT', 'the bytes of a tensor do not match its shape', {
      file: path,
      field: `${name}.data_offsets`,
      found: `${end - begin} bytes`,
      expected: `${bytes} bytes: ${type} [${shape.join(', ')}]`,
    })
  }
  return { name, dtype, shape, file, offset: start + begin, bytes }
}

const readCounts = (reader: JsonReader, field: string, most: number): number[] => {
  const counts: number[] = []
  reader.open('[', field)
  while (reader.more('[', field)) {
    if (counts.length === most) throw reader.fail(`at most ${most} numbers`, field)
    counts.push(reader.count(field))
  }
  return counts
}

/** weight_map of an index: tensor name to shard name. */
const readIndex = (folder: Folder, name: string, pace: Pace): Promise<{ path: string; map: JsonObject }> =>
  withSource(folder.open(name), async (source) => {
    const refuse = (field: string, found: unknown, expected: string): DroverError =>
      new DroverError('E_FORMAT', 'the index of the shards is malformed', { file: source.path, field, found, expected })
    if (source.size > largestIndex) throw refuse('file size', source.size, `at most ${largestIndex} bytes`)
    const index = await parseJson(await source.read(0, source.size), source.path, pace)
    if (!(index instanceof Map)) throw refuse('JSON', 'no object', 'an object')
    const map = index.get('weight_map')
    if (!(map instanceof Map)) throw refuse('weight_map', map === undefined ? 'missing' : 'no object', 'an object')
    if (map.size === 0) throw refuse('weight_map', 'no entries', 'at least one tensor')
    for (const [tensor, shard] of map) {
      if (typeof shard !== 'string') throw refuse(`weight_map.${tensor}`, 'no string', 'the name of a file')
      if (!/^[^/\\\0]+\.safetensors$/.test(shard)) {
        throw refuse(`weight_map.${tensor}`, shard, 'a plain .safetensors file name in the folder of the index')
      }
    }
    return { path: source.path, map }
  })

const readShards = async (folder: Folder, name: string, pace: Pace, options: ReadOptions): Promise<SafetensorsFile> => {
  const { path, map } = await readIndex(folder, name, pace)
  const shards = [...new Set(map.values() as Iterable<string>)].sort()
  if (shards.length > mostShards) {
    throw new DroverError('E_FORMAT', 'the index names too many shards', {
      file: path,
      field: 'weight_map',
      found: shards.length,
      expected: `at most ${mostShards}`,
    })
  }
  const files: FileEntry[] = []
  const metadata = new Map<string, string>()
  const tensors = new Map<string, TensorInfo>()
  for (const shard of shards) {
    const header = await readShard(folder, shard, files.length, path, pace)
    files.push(header.entry)
    for (const [key, value] of header.metadata) if (!metadata.has(key)) metadata.set(key, value)
    for (const [tensor, info] of header.tensors) {
      const expected = map.get(tensor)
      if (expected !== shard) {
        throw new DroverError('E_FORMAT', 'a shard holds a tensor that the index does not place there', {
          file: header.entry.path,
          field: tensor,
          found: shard,
          expected: expected ?? `no such tensor in ${path}`,
        })
      }
      tensors.set(tensor, info)
    }
    options.onProgress?.(files.length / shards.length, 'header')
  }
  for (const [tensor, shard] of map) {
    if (!tensors.has(tensor)) {
      throw new DroverError('E_FORMAT', 'a shard lacks a tensor that the index places there', {
        file: files[shards.indexOf(shard as string)]?.path,
        field: tensor,
        found: 'missing',
        expected: `present, as ${path} says`,
      })
    }
  }
  return { files, metadata, tensors }
}

const readShard = async (folder: Folder, shard: string, file: number, index: string, pace: Pace): Promise<Header> => {
  try {
    return await readHeader(folder, shard, file, pace)
  } catch (error) {
    if (!isMissing(error)) throw error
    throw new DroverError('E_IO', 'a shard is missing', {
      file: (error as DroverError).file,
      field: 'weight_map',
      found: 'no such file',
      expected: `a file, as ${index} names it`,
      cause: error,
    })
  }
}
