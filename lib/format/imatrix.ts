/**
 * Importance matrices as llama.cpp writes them: for each weight the mean squares of the activations that meet its
 * columns. The older form is a plain list of entries, the newer one a GGUF file with sums and counts. Both are hostile
 * input: counts are checked against the bytes that remain, numbers must be finite and not negative.
 */
import { basename, dirname } from 'node:path'
import { DroverError } from '../errors.js'
import { elementCount, type TensorInfo } from '../tensor.js'
import { Cursor } from './cursor.js'
import { decodeRow } from './decode/index.js'
import { diskFolder, type Folder, isUtf8, Pace, type ReadOptions, withSource } from './file.js'
import { readGgufFrom } from './gguf.js'

/** Importances of the columns of each weight, by the weight's name in GGUF files. */
export type ImportanceMatrix = ReadonlyMap<string, Float32Array>

const longestName = 1024
const mostEntries = 1 << 16
const mostColumns = 1 << 24
/** All entries together; the largest models have some 10^7 columns. */
const largestFile = 1 << 30

/** Reads an importance matrix of either form. Throws E_FORMAT, E_IO or E_ABORTED, with file, field, found and expected. */
export const readImportance = (path: string, options: ReadOptions = {}): Promise<ImportanceMatrix> =>
  readImportanceFrom(diskFolder(dirname(path)), basename(path), options)

/** {@link readImportance} from any folder. */
export const readImportanceFrom = async (
  folder: Folder,
  name: string,
  options: ReadOptions = {},
): Promise<ImportanceMatrix> => {
  const start = await withSource(folder.open(name), (source) => source.read(0, Math.min(4, source.size)))
  return Buffer.from(start).toString('latin1') === 'GGUF'
    ? readGgufForm(folder, name, options)
    : readListForm(folder, name, options)
}

const refuse = (what: string, file: string, field: string, found: unknown, expected: unknown): DroverError =>
  new DroverError('E_FORMAT', what, { file, field, found, expected })

/** Throws unless all values are finite and not negative. */
const checkValues = (file: string, field: string, values: Float32Array): Float32Array => {
  const bad = values.findIndex((value) => !(value >= 0 && value < Number.POSITIVE_INFINITY))
  if (bad === -1) return values
  throw refuse('an importance is impossible', file, `${field}[${bad}]`, values[bad], 'a finite number, not negative')
}

/** i32 count of entries; each: i32 length and name, i32 calls, i32 columns, f32 sums. What follows is about the text. */
const readListForm = (folder: Folder, name: string, { signal }: ReadOptions): Promise<ImportanceMatrix> =>
  withSource(folder.open(name), async (source) => {
    const cursor = new Cursor(source, new Pace(signal, 'reading an importance matrix'), largestFile)
    const { path: file } = source
    const count = async (field: string, least: number, most: number, lowest: number): Promise<number> => {
      await cursor.fill(4, field)
      const value = cursor.i32()
      if (value < lowest || value > most)
        throw refuse('this is no importance matrix', file, field, value, `${lowest} to ${most}`)
      cursor.expect(value * least, field)
      return value
    }
    const entries = await count('entries', 13, mostEntries, 1)
    const matrix = new Map<string, Float32Array>()
    for (let i = 0; i < entries; i++) {
      const length = await count(`entry ${i}`, 1, longestName, 1)
      const text = await cursor.copy(length, `entry ${i}`)
      if (!isUtf8(text, 0, length)) throw cursor.notUtf8(`entry ${i}`)
      const key = Buffer.from(text).toString('utf8')
      if (matrix.has(key))
        throw refuse('an entry occurs twice', file, key, 'two entries of this name', 'every name once')
      const calls = await count(key, 0, 0x7fffffff, 0)
      const columns = await count(key, 4, mostColumns, 1)
      const values = new Float32Array((await cursor.copy(columns * 4, key)).buffer as ArrayBuffer)
      if (calls > 0) for (let k = 0; k < columns; k++) values[k]! /= calls
      matrix.set(key, checkValues(file, key, values))
      if (cursor.pace.late()) await cursor.pace.rest()
    }
    return matrix
  })

const sumsSuffix = '.in_sum2'

/** Tensors `<weight>.in_sum2` [columns] with the sums of squares, `<weight>.counts` with how many they are. */
const readGgufForm = async (folder: Folder, name: string, options: ReadOptions): Promise<ImportanceMatrix> => {
  const gguf = await readGgufFrom(folder, name, options)
  const file = gguf.files[0]!.path
  const type = gguf.metadata.get('general.type')
  if (type !== 'imatrix')
    throw refuse('this is no importance matrix', file, 'general.type', type ?? 'missing', 'imatrix')
  return withSource(folder.open(name), async (source) => {
    const floats = async (info: TensorInfo): Promise<Float32Array> => {
      const length = elementCount(info.shape)
      if (info.dtype !== 'f32' || length > mostColumns)
        throw refuse(
          'an importance matrix has a wrong tensor',
          file,
          info.name,
          `${length} ${info.dtype}`,
          `f32, at most ${mostColumns}`,
        )
      const values = new Float32Array(length)
      decodeRow('f32', await source.read(info.offset, info.bytes), length, values)
      return checkValues(file, info.name, values)
    }
    const pace = new Pace(options.signal, 'reading an importance matrix')
    const matrix = new Map<string, Float32Array>()
    for (const info of gguf.tensors.values()) {
      if (!info.name.endsWith(sumsSuffix)) continue
      const key = info.name.slice(0, -sumsSuffix.length)
      const counts = gguf.tensors.get(`${key}.counts`)
      if (counts === undefined)
        throw refuse('an importance matrix lacks a tensor', file, `${key}.counts`, 'missing', 'a tensor')
      const values = await floats(info)
      const times = await floats(counts)
      if (times.length === 0 || values.length % times.length !== 0)
        throw refuse(
          'an importance matrix has a wrong tensor',
          file,
          counts.name,
          `${times.length} counts`,
          `a divisor of ${values.length}`,
        )
      // One count for each matrix of a stack.
      const columns = values.length / times.length
      for (let k = 0; k < values.length; k++) {
        const n = times[Math.floor(k / columns)]!
        values[k] = n > 0 ? values[k]! / n : 0
      }
      matrix.set(key, checkValues(file, key, values)) // a count may be so small that the quotient is none
      if (pace.late()) await pace.rest()
    }
    if (matrix.size === 0)
      throw refuse('an importance matrix lacks a tensor', file, sumsSuffix, 'no such tensor', 'at least one')
    return matrix
  })
}
