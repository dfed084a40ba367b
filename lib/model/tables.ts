/**
 * Embedding tables as files hold them: plain floats, FBGEMM's fused rows (codes, then scale and bias), or rows of its
 * table-batched operator (scale and bias first, rows padded). A u8 tensor does not say which of these it is: the width of its
 * rows does, or `quantization.tables` of the config where that leaves a choice.
 */
import { DroverError } from '../errors.js'
import type { ConfigRecord } from '../format/config.js'
import type { TensorSource } from '../format/file.js'
import type { TableSource } from '../program/tables.js'
import { type RowwiseDType, rowBytes, type TableDType, type TensorInfo } from '../tensor.js'

/** What the config says of one table. */
export interface TableShape {
  /** What people call it; errors and reports do. */
  readonly name: string
  /** Name of its tensor. */
  readonly tensor: string
  readonly rows: number
  readonly dim: number
}

/** Formats of packed rows by the names that configs have for them: number format, and where scale and bias are. */
export const packedFormats = {
  int8: { dtype: 'i8_rowwise', parameters: 'last' },
  int8_f16: { dtype: 'i8h_rowwise', parameters: 'last' },
  int4: { dtype: 'i4_rowwise', parameters: 'last' },
  int2: { dtype: 'i2_rowwise', parameters: 'last' },
  tbe_int8: { dtype: 'i8h_rowwise', parameters: 'first' },
  tbe_int4: { dtype: 'i4_rowwise', parameters: 'first' },
  tbe_int2: { dtype: 'i2_rowwise', parameters: 'first' },
} as const satisfies Record<string, { dtype: RowwiseDType; parameters: 'first' | 'last' }>

export type PackedFormat = keyof typeof packedFormats
export const floatFormats = ['f32', 'f16', 'bf16'] as const
/** How the rows of a table are stored. */
export type TableFormat = PackedFormat | (typeof floatFormats)[number]
export const tableFormats: readonly TableFormat[] = [...floatFormats, ...(Object.keys(packedFormats) as PackedFormat[])]

const isPacked = (format: TableFormat): format is PackedFormat => format in packedFormats

/** How rows of a format are stored. */
export const storageOf = (format: TableFormat): { dtype: TableDType; parameters?: 'first' | 'last' } =>
  isPacked(format) ? packedFormats[format] : { dtype: format }

/** Bytes of a row without padding. */
const packedRowBytes = (format: PackedFormat, dim: number): number => rowBytes(packedFormats[format].dtype, dim)

/** A table and where its rows are. */
export interface StoredTable extends TableSource {
  readonly format: TableFormat
  readonly bytes: number
}

/** The format that an entry of `quantization.tables` or `.layers` names for one item, if any: by one of its names, or for all. */
export const formatFor = <F extends string>(
  config: ConfigRecord,
  key: 'tables' | 'layers',
  names: readonly string[],
  allowed: readonly F[],
): F | undefined => {
  const quantization = config.record('quantization')
  const entry = quantization?.get(key)
  if (quantization === undefined || entry === undefined) return undefined
  const [record, found] =
    entry instanceof Map
      ? [quantization.record(key) as ConfigRecord, [...names, 'default'].find((name) => entry.has(name))]
      : [quantization, key]
  if (found === undefined) return undefined
  const format = record.string(found)
  if (allowed.includes(format as F)) return format as F
  throw record.refuse(found, allowed.join(', '))
}

/** An entry for a table or layer that is not there would be believed to have an effect. */
export const checkFormatNames = (config: ConfigRecord, key: 'tables' | 'layers', known: ReadonlySet<string>): void => {
  const record = config.record('quantization')
  if (!(record?.get(key) instanceof Map)) return
  const entries = record.record(key) as ConfigRecord
  for (const name of entries.values.keys()) {
    if (name !== 'default' && !known.has(name)) throw entries.refuse(name, `the name of one of the ${key}`, name)
  }
}

const shapeText = (info: TensorInfo): string => `${info.dtype} [${info.shape.join(', ')}]`

/** Formats that rows of this width can have; scales that come first are never guessed. */
const formatsOfWidth = (width: number, dim: number): PackedFormat[] =>
  (Object.keys(packedFormats) as PackedFormat[]).filter(
    (format) => packedFormats[format].parameters === 'last' && packedRowBytes(format, dim) === width,
  )

/**
 * The table of this shape as it is stored; one of floats may have another format than `wanted`, into which it is then
 * converted while loading. Throws E_FORMAT when its tensor is missing, or its dtype and shape fit no format or not the one
 * that the config names.
 */
export const storedTable = (source: TensorSource, shape: TableShape, wanted: TableFormat | undefined): StoredTable => {
  const info = source.tensors.get(shape.tensor)
  const file = source.files[info?.file ?? 0]?.path
  const refuse = (what: string, found: string, expected: string, hint?: string): DroverError =>
    new DroverError('E_FORMAT', what, { file, field: shape.tensor, found, expected, ...(hint && { hint }) })
  if (info === undefined) throw refuse('a table is missing', 'no such tensor', `[${shape.rows}, ${shape.dim}]`)
  const [rows, width = 0] = info.shape
  if (info.shape.length !== 2 || rows !== shape.rows) {
    throw refuse('a table has the wrong shape', shapeText(info), `[${shape.rows}, ${shape.dim}]`)
  }
  const { file: region, offset, bytes } = info
  const place = { name: shape.name, rows: shape.rows, cols: shape.dim, region, offset, bytes }
  if (info.dtype !== 'u8') {
    const format = floatFormats.find((name) => name === info.dtype)
    if (format === undefined || width !== shape.dim) {
      throw refuse(
        'a table has the wrong shape',
        shapeText(info),
        `f32, f16 or bf16 [${shape.rows}, ${shape.dim}], or u8`,
      )
    }
    return { ...place, format, dtype: format }
  }
  const candidates = wanted === undefined ? formatsOfWidth(width, shape.dim) : [wanted]
  const [format] = candidates
  if (format === undefined || candidates.length > 1) {
    throw refuse(
      format === undefined ? 'the rows of a table fit no format' : 'the rows of a table fit several formats',
      `rows of ${width} bytes for ${shape.dim} elements`,
      candidates.length > 0 ? `one of ${candidates.join(', ')}` : widthsText(shape.dim),
      'name the format in quantization.tables of config.json',
    )
  }
  if (!isPacked(format)) throw refuse('a table has another format', shapeText(info), format)
  const needed = packedRowBytes(format, shape.dim)
  // Only rows of the table-batched operator are padded.
  if (packedFormats[format].parameters === 'first' ? width < needed : width !== needed) {
    throw refuse(`rows of ${format} have another width`, `${width} bytes`, `${needed} bytes for ${shape.dim} elements`)
  }
  return { ...place, ...packedFormats[format], format, stride: width }
}

const widthsText = (dim: number): string =>
  (Object.keys(packedFormats) as PackedFormat[])
    .filter((format) => packedFormats[format].parameters === 'last')
    .map((format) => `${packedRowBytes(format, dim)} (${format})`)
    .join(', ')
