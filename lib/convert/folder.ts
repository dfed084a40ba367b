/**
 * Writes a model folder in Hugging Face layout in another number format: tensor by tensor, in chunks of rows. int8 and
 * int4 are written as compressed-tensors, fp8 as fbgemm_fp8 with what Llama 3 quantises: the feed-forward matrices of all
 * layers but the first and the last (arXiv 2407.21783, section 6.2).
 */
import { randomBytes } from 'node:crypto'
import { copyFile, mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import { DroverError } from '../errors.js'
import { type FileEntry, Pace } from '../format/file.js'
import type { SafetensorsFile } from '../format/safetensors.js'
import { type SafetensorsEntry, SafetensorsWriter } from '../format/safetensors-writer.js'
import { type DTypeName, dtypes, elementCount, type TensorInfo } from '../tensor.js'
import { convertRows } from './rows.js'
import { isScaledFormat, type ScaledFormat, scaledFormats, scaledRows } from './scaled.js'
import { asStored, checkCols, plainFloats, readLlamaFolder } from './source.js'

/** What a folder is written in. */
export const folderFormats = ['int8', 'fp8', 'int4', 'f32', 'f16', 'bf16'] as const
export type FolderFormat = (typeof folderFormats)[number]

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

/** Bound on the maximum of an activation's row that Llama 3 sets. */
const llamaActivationBound = 1200

const matrixName = /^model\.layers\.(\d+)\.(?:mlp|self_attn)\.\w+_proj\.weight$/

/** Whether a tensor is one of the matrices that the recipe quantises. */
const isQuantized = (format: ScaledFormat, name: string, layers: number): boolean => {
  const match = matrixName.exec(name)
  if (match === null) return false
  const layer = Number(match[1])
  return format !== 'fp8' || (name.includes('.mlp.') && layer > 0 && layer < layers - 1)
}

/** One tensor of the source and what becomes of it. */
type Plan =
  | { readonly info: TensorInfo; readonly to: DTypeName }
  | { readonly info: TensorInfo; readonly scaled: ScaledFormat }

const planOf = (info: TensorInfo, format: FolderFormat, layers: number, notes: string[]): Plan => {
  if (!plainFloats.includes(info.dtype)) return { info, to: info.dtype }
  checkCols(asStored(info.name, info))
  if (!isScaledFormat(format)) return { info, to: format }
  const kept = { info, to: info.dtype }
  if (!isQuantized(format, info.name, layers)) return kept
  const cols = info.shape[1] ?? 0
  const group = scaledFormats[format].group ?? 1
  if (info.shape.length === 2 && cols > 0 && cols % group === 0) return { info, scaled: format }
  notes.push(`${info.name}: left as it is, ${cols} columns are not a multiple of ${group}`)
  return kept
}

/** A tensor as the file will hold it, and its scales where it has some. */
const entriesOf = (plan: Plan): SafetensorsEntry[] => {
  const { name, shape } = plan.info
  if ('to' in plan) return [{ name, dtype: plan.to, shape }]
  const { dtype, scale, group } = scaledFormats[plan.scaled]
  const [rows, cols] = shape as [number, number]
  const base = name.slice(0, -'.weight'.length)
  const scales: SafetensorsEntry = {
    name: `${base}.weight_scale`,
    dtype: scale,
    shape: [rows, group === undefined ? 1 : cols / group],
  }
  if (dtype !== 'i4') return [{ name, dtype, shape }, scales]
  return [
    { name: `${base}.weight_packed`, dtype: 'i32', shape: [rows, cols / 8] },
    scales,
    { name: `${base}.weight_shape`, dtype: 'i64', shape: [2] },
  ]
}

/** Elements that are encoded before others get their turn. */
const sliceElements = 2 ** 18

const writePlan = async (
  writer: SafetensorsWriter,
  file: FileEntry,
  plan: Plan,
  { threads, signal }: FolderOptions,
  done: (bytes: number) => void,
): Promise<void> => {
  const { info } = plan
  const tensor = asStored(info.name, info)
  const [codes, scales, shape] = entriesOf(plan).map(({ name }) => name) as [string, string, string?]
  const to = 'to' in plan ? plan.to : 'f32'
  const settings = { ...(threads === undefined ? {} : { threads }), ...(signal === undefined ? {} : { signal }) }
  const pace = new Pace(signal, 'quantising')
  const { cols } = tensor
  const most = Math.max(1, Math.floor(sliceElements / cols))
  let row = 0
  for await (const chunk of convertRows(file, { tensor, to, importance: undefined }, settings, done)) {
    if ('to' in plan) {
      await writer.write(codes, chunk)
      continue
    }
    const values = new Float32Array(chunk.buffer, chunk.byteOffset, chunk.length / 4)
    for (let start = 0; start < values.length; start += most * cols) {
      const slice = values.subarray(start, start + most * cols)
      const rows = slice.length / cols
      const encoded = await encode(plan.scaled, slice, rows, cols, threads, file, info, row)
      await writer.write(codes, encoded.codes)
      await writer.write(scales, encoded.scales)
      row += rows
      if (pace.late()) await pace.rest()
    }
  }
  if (shape !== undefined) {
    await writer.write(shape, new Uint8Array(BigInt64Array.of(BigInt(tensor.rows), BigInt(tensor.cols)).buffer))
  }
}

const encode = async (
  format: ScaledFormat,
  values: Float32Array,
  rows: number,
  cols: number,
  threads: number | undefined,
  { path: file }: FileEntry,
  { name: field }: TensorInfo,
  row: number,
) => {
  try {
    return await scaledRows(format, values, rows, cols, threads)
  } catch (error) {
    if (!(error instanceof DroverError) || error.code !== 'E_RANGE') throw error
    throw new DroverError('E_RANGE', `a weight cannot be stored as ${format}: it is not finite`, {
      file,
      field,
      found: `in row ${row + Math.floor(Number(error.found) / cols)}`,
      expected: 'finite numbers',
      cause: error,
    })
  }
}

/** `quantization_config` of what is written. */
const quantizationConfig = (format: ScaledFormat, unconverted: readonly string[]): unknown => {
  const modules = unconverted.map((name) => name.slice(0, -'.weight'.length))
  if (format === 'fp8') {
    return {
      quant_method: 'fbgemm_fp8',
      activation_scale_ub: llamaActivationBound,
      modules_to_not_convert: modules,
    }
  }
  const { group } = scaledFormats[format]
  const rounding = { symmetric: true, type: 'int' }
  return {
    quant_method: 'compressed-tensors',
    quantization_status: 'compressed',
    format: group === undefined ? 'int-quantized' : 'pack-quantized',
    ignore: modules,
    config_groups: {
      group_0: {
        targets: ['Linear'],
        weights:
          group === undefined
            ? { ...rounding, num_bits: 8, strategy: 'channel', dynamic: false }
            : { ...rounding, num_bits: 4, strategy: 'group', group_size: group, dynamic: false },
        input_activations: group === undefined ? { ...rounding, num_bits: 8, strategy: 'token', dynamic: true } : null,
        output_activations: null,
      },
    },
  }
}

const dtypeNames: Partial<Record<FolderFormat, string>> = { f32: 'float32', f16: 'float16', bf16: 'bfloat16' }

/** config.json of the source, with what is no longer true of it changed. */
const newConfig = async (path: string, format: FolderFormat, unconverted: readonly string[]): Promise<string> => {
  const config = JSON.parse(await readFile(join(path, 'config.json'), 'utf8')) as Record<string, unknown>
  if (isScaledFormat(format)) config['quantization_config'] = quantizationConfig(format, unconverted)
  const name = dtypeNames[format]
  if (name !== undefined) config['dtype' in config ? 'dtype' : 'torch_dtype'] = name
  return `${JSON.stringify(config, undefined, 2)}\n`
}

/** Everything of a model but its weights and config.json: tokenizer, chat template, sampling defaults, licence. */
const copyRest = async (from: string, to: string): Promise<void> => {
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const { name } = entry
    const belongs = /\.(json|model|jinja|txt|md)$/i.test(name) && !/^config\.json$|\.index\.json$/.test(name)
    if (belongs && (await stat(join(from, name))).isFile()) await copyFile(join(from, name), join(to, name))
  }
}

/** Files as they are called in the source, each with its share of the tensors; an index where there are several. */
const writeWeights = async (
  to: string,
  weights: SafetensorsFile,
  plans: readonly Plan[],
  options: FolderOptions,
): Promise<void> => {
  const total = plans.reduce((sum, { info }) => sum + info.bytes, 0)
  const map: Record<string, string> = Object.create(null) // any name may be that of a tensor
  let size = 0
  let converted = 0
  for (const [i, file] of weights.files.entries()) {
    const own = plans.filter(({ info }) => info.file === i)
    const name = weights.files.length === 1 ? 'model.safetensors' : basename(file.path)
    const entries = own.flatMap(entriesOf)
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
  if (weights.files.length === 1) return
  const index = { metadata: { total_size: size }, weight_map: map }
  await writeFile(join(to, 'model.safetensors.index.json'), `${JSON.stringify(index, undefined, 2)}\n`)
}

/**
 * Writes the folder `input` as `output`, which must not exist and appears when it is complete. Throws E_ARGUMENT,
 * E_UNSUPPORTED, E_FORMAT, E_RANGE (a weight that the format cannot hold), E_IO, E_ABORTED.
 */
export const quantizeFolder = async (
  input: string,
  output: string,
  format: FolderFormat,
  options: FolderOptions,
): Promise<WrittenFolder> => {
  const { config, weights } = await readLlamaFolder(input, { signal: options.signal })
  const exists = await stat(output).catch(() => undefined)
  if (exists !== undefined) {
    throw new DroverError('E_ARGUMENT', 'the output exists', {
      field: 'output',
      found: output,
      expected: 'a new folder',
    })
  }
  const notes: string[] = []
  const plans = [...weights.tensors.values()].map((info) => planOf(info, format, config.layers, notes))
  const unconverted = plans.flatMap((plan) =>
    'to' in plan && (matrixName.test(plan.info.name) || plan.info.name === 'lm_head.weight') ? [plan.info.name] : [],
  )
  const temporary = `${resolve(output)}.${randomBytes(6).toString('hex')}.tmp`
  try {
    await mkdir(temporary)
    await writeWeights(temporary, weights, plans, options)
    await writeFile(join(temporary, 'config.json'), await newConfig(input, format, unconverted))
    await copyRest(input, temporary)
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
  const formats: Record<string, number> = {}
  for (const plan of plans) {
    const name = 'to' in plan ? plan.to : plan.scaled
    const bytes = entriesOf(plan).reduce((sum, { dtype, shape }) => sum + elementCount(shape) * dtypes[dtype].bytes, 0)
    formats[name] = (formats[name] ?? 0) + bytes
  }
  return {
    sourceBytes: plans.reduce((sum, { info }) => sum + info.bytes, 0),
    parameters: plans.reduce((sum, { info }) => sum + elementCount(info.shape), 0),
    formats,
    notes,
  }
}
