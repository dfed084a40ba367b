/** Writes a folder of safetensors files that appears when it is complete: tensor by tensor, in chunks of rows. */
import { randomBytes } from 'node:crypto'
import { mkdir, rename, rm, stat, writeFile } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import { DroverError } from '../errors.js'
import type { FileEntry } from '../format/file.js'
import { type SafetensorsEntry, SafetensorsWriter } from '../format/safetensors-writer.js'
import { type DTypeName, dtypes, elementCount, type RowwiseDType, type TensorInfo } from '../tensor.js'
import { convertRows } from './rows.js'
import { type ScaledFormat, scaledFormats } from './scaled.js'
import { scaledTensor } from './scaled-tensor.js'
import { asStored } from './source.js'

export interface FolderOptions {
  threads?: number
  onProgress?: (fraction: number, what: string) => void
  signal?: AbortSignal
}

/** What was written: bytes by format, and how many numbers the weights are. */
export interface WrittenFolder {
  readonly sourceBytes: number
  readonly parameters: number
  readonly formats: Readonly<Record<string, number>>
  readonly notes: readonly string[]
}

/** One tensor of the source and what becomes of it: rows in another format, or codes with scales beside them. */
export interface TensorPlan {
  readonly info: TensorInfo
  /** What the file will hold of it: rows or codes, scales where it has some, its shape where codes are packed. */
  readonly entries: readonly SafetensorsEntry[]
  readonly to: { readonly rows: DTypeName | RowwiseDType } | { readonly scaled: ScaledFormat }
}

/** Codes and scales of a matrix [rows, cols] as the file will hold them; `base` is its name without `.weight`. */
export const scaledEntries = (base: string, format: ScaledFormat, rows: number, cols: number): SafetensorsEntry[] => {
  const { dtype, scale, group } = scaledFormats[format]
  const scales: SafetensorsEntry = {
    name: `${base}.weight_scale`,
    dtype: scale,
    shape: [rows, group === undefined ? 1 : cols / group],
  }
  if (dtype !== 'i4') return [{ name: `${base}.weight`, dtype, shape: [rows, cols] }, scales]
  return [
    { name: `${base}.weight_packed`, dtype: 'i32', shape: [rows, cols / 8] },
    scales,
    { name: `${base}.weight_shape`, dtype: 'i64', shape: [2] },
  ]
}

const writePlan = async (
  writer: SafetensorsWriter,
  file: FileEntry,
  { info, entries, to }: TensorPlan,
  { threads, signal }: FolderOptions,
  done: (bytes: number) => void,
): Promise<void> => {
  const tensor = asStored(info.name, info)
  const [codes, scales, shape] = entries.map(({ name }) => name) as [string, string, string?]
  const settings = { ...(threads === undefined ? {} : { threads }), ...(signal === undefined ? {} : { signal }) }
  if ('rows' in to) {
    const planned = { tensor, to: to.rows, importance: undefined }
    for await (const chunk of convertRows(file, planned, settings, done)) await writer.write(codes, chunk)
    return
  }
  for await (const encoded of scaledTensor(file, info, to.scaled, settings, done)) {
    await writer.write(codes, encoded.codes)
    await writer.write(scales, encoded.scales)
  }
  if (shape !== undefined) {
    await writer.write(shape, new Uint8Array(BigInt64Array.of(BigInt(tensor.rows), BigInt(tensor.cols)).buffer))
  }
}

/** Files as they are called in the source, each with its share of the tensors; an index where there are several. */
export const writeWeights = async (
  to: string,
  files: readonly FileEntry[],
  plans: readonly TensorPlan[],
  options: FolderOptions,
): Promise<void> => {
  const total = plans.reduce((sum, { info }) => sum + info.bytes, 0)
  const map: Record<string, string> = Object.create(null) // any name may be that of a tensor
  let size = 0
  let converted = 0
  for (const [i, file] of files.entries()) {
    const own = plans.filter(({ info }) => info.file === i)
    const name = files.length === 1 ? 'model.safetensors' : basename(file.path)
    const entries = own.flatMap(({ entries: all }) => all)
    for (const { name: tensor, dtype, shape } of entries) {
      map[tensor] = name
      size += elementCount(shape) * dtypes[dtype].bytes
    }
    const writer = await SafetensorsWriter.create(join(to, name), entries)
    try {
      for (const plan of own) {
        await writePlan(writer, file, plan, options, (bytes) => {
          converted += bytes
          options.onProgress?.(converted / total, plan.info.name)
        })
      }
      await writer.finish()
    } catch (error) {
      await writer.discard()
      throw error
    }
  }
  if (files.length === 1) return
  const index = { metadata: { total_size: size }, weight_map: map }
  await writeFile(join(to, 'model.safetensors.index.json'), `${JSON.stringify(index, undefined, 2)}\n`)
}

/** Calls `write` with a folder that becomes `output`, which must not exist, when it has ended. Throws E_ARGUMENT, E_IO. */
export const intoNewFolder = async (output: string, write: (folder: string) => Promise<void>): Promise<void> => {
  const exists = await stat(output).catch(() => undefined)
  if (exists !== undefined) {
    throw new DroverError('E_ARGUMENT', 'the output exists', {
      field: 'output',
      found: output,
      expected: 'a new folder',
    })
  }
  const temporary = `${resolve(output)}.${randomBytes(6).toString('hex')}.tmp`
  try {
    await mkdir(temporary)
    await write(temporary)
    await rename(temporary, output)
  } catch (error) {
    await rm(temporary, { recursive: true, force: true })
    if (error instanceof DroverError || (error as NodeJS.ErrnoException).syscall === undefined) throw error
    throw new DroverError('E_IO', 'the folder could not be written', {
      file: output,
      found: (error as NodeJS.ErrnoException).code,
      cause: error,
    })
  }
}

/** What plans write. @param formatOf name of a plan's format. @param parameters numbers of one tensor. */
export const writtenOf = (
  plans: readonly TensorPlan[],
  formatOf: (plan: TensorPlan) => string,
  parameters: (info: TensorInfo) => number,
  notes: readonly string[],
): WrittenFolder => {
  const formats: Record<string, number> = {}
  for (const plan of plans) {
    const name = formatOf(plan)
    const bytes = plan.entries.reduce((sum, { dtype, shape }) => sum + elementCount(shape) * dtypes[dtype].bytes, 0)
    formats[name] = (formats[name] ?? 0) + bytes
  }
  return {
    sourceBytes: plans.reduce((sum, { info }) => sum + info.bytes, 0),
    parameters: plans.reduce((sum, { info }) => sum + parameters(info), 0),
    formats,
    notes,
  }
}
