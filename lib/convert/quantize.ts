/**
 * Writes a model in another number format: tensor by tensor, in chunks of rows, so that memory holds a few chunks of it
 * and never the model.
 */
import { realpath } from 'node:fs/promises'
import {
  checkBoolean,
  checkFunction,
  checkInteger,
  checkOneOf,
  checkOptions,
  checkSignal,
  checkString,
} from '../check.js'
import { type WritableDType, writableDTypes } from '../device/quantize.js'
import { DroverError } from '../errors.js'
import { type FileEntry, isFolder } from '../format/file.js'
import { readGguf } from '../format/gguf.js'
import { type GgufEntry, type GgufTensor, writeGguf } from '../format/gguf-writer.js'
import { type ImportanceMatrix, readImportance } from '../format/imatrix.js'
import { isRecommenderFolder, layerFormats } from '../model/open-recommender.js'
import { type DTypeName, dtypes, elementCount } from '../tensor.js'
import { folderFormats, quantizeFolder } from './folder.js'
import { huggingFaceSource } from './hugging-face.js'
import { fitting, formatOf, isHead, type Mix, type ModelFacts, mixOf } from './mixes.js'
import { quantizeRecommender, recommenderTypes } from './recommender.js'
import { convertRows, type Planned } from './rows.js'
import type { WrittenFolder } from './shards.js'
import { checkCols, ggufSource, plainFloats, type Source } from './source.js'

/** Options of {@link quantizeModel}. */
export interface QuantizeModelOptions {
  /**
   * A format or a mix: q8_0, q6_k, q5_k_m, q4_k_m, q4_k_s, q3_k_m, q2_k, iq4_xs, f16, …; for a folder int8, fp8, int4,
   * f32, f16 or bf16; for a recommender int8, int8_f16, int4, int2, f32, f16 or bf16.
   */
  type: string
  /** A file with an importance matrix, of either form that llama.cpp writes. */
  importance?: string
  /** Format of the head (of the embedding, where it serves as the head); default: what the mix says. */
  output?: string
  /** Every matrix in the same format. */
  pure?: boolean
  /** Recommenders: format of the layers; default: int8 for tables of integers, else the type. */
  layers?: string
  threads?: number
  onProgress?: (fraction: number, what: string) => void
  signal?: AbortSignal
}

/** What {@link quantizeModel} wrote. */
export interface QuantizeModelReport {
  readonly sourceBytes: number
  readonly bytes: number
  readonly parameters: number
  readonly bitsPerWeight: number
  /** Bytes by format, most first. */
  readonly formats: Readonly<Record<string, number>>
  /** What differs from what was asked for, or should be known: one sentence each. */
  readonly notes: readonly string[]
}

const planOf = (
  source: Source,
  mix: Mix,
  options: QuantizeModelOptions,
  matrix: ImportanceMatrix | undefined,
): { plan: Planned[]; notes: string[] } => {
  const facts: ModelFacts = { layers: source.layers, sharing: source.sharing, hasImportance: matrix !== undefined }
  const tied = !source.tensors.some(({ name }) => name === 'output.weight')
  const head = options.output === undefined ? undefined : formatNamed('options.output', options.output)
  const notes: string[] = []
  const requantised = new Set<string>()
  let used = 0
  const plan = source.tensors.map((tensor): Planned => {
    const { name, info, cols } = tensor
    const { dtype, shape } = info
    // Integers are no weights; vectors (norms, biases, frequencies) are small and stay exact.
    if (/^[iu]\d|^bool$/.test(dtype)) return { tensor, to: dtype, importance: undefined }
    checkCols(tensor)
    if (shape.length < 2) return { tensor, to: 'f32', importance: undefined }
    const chosen = isHead(name, tied) ? head : undefined
    const wanted = chosen ?? (options.pure ? mix.base : formatOf(mix, name, tied, facts))
    const to = fitting(wanted, cols)
    if (to !== wanted) notes.push(`${name}: ${to} instead of ${wanted}, whose blocks do not fill ${cols} columns`)
    if (!plainFloats.includes(dtype) && dtype !== to) requantised.add(dtype)
    const importance = matrix?.get(name)
    if (importance === undefined) return { tensor, to, importance }
    used++
    if (importance.length !== cols) throw otherModel(name, `${importance.length} columns`, cols)
    return { tensor, to, importance }
  })
  if (matrix !== undefined && used === 0)
    throw otherModel('', [...matrix.keys()].slice(0, 3).join(', '), 'names of weights')
  if (matrix !== undefined) {
    const matrices = plan.filter(({ tensor }) => tensor.info.shape.length > 1).length
    notes.push(`importance: for ${used} of ${matrices} matrices`)
  }
  if (requantised.size > 0)
    notes.push(`the source is quantised itself (${[...requantised].join(', ')}): its errors and the new ones add up`)
  return { plan, notes }
}

const otherModel = (field: string, found: unknown, expected: unknown): DroverError =>
  new DroverError('E_FORMAT', 'the importance matrix belongs to another model', { field, found, expected })

const formatNamed = (field: string, name: string): WritableDType => {
  const found = writableDTypes.find((candidate) => candidate === name.toLowerCase())
  if (found !== undefined) return found
  throw new DroverError('E_ARGUMENT', 'there is no such format', {
    field,
    found: name,
    expected: writableDTypes.join(', '),
  })
}

const openSource = async (path: string, signal: AbortSignal | undefined, weightsOnly: boolean): Promise<Source> =>
  (await isFolder(path))
    ? huggingFaceSource(path, { signal }, weightsOnly)
    : ggufSource(await readGguf(path, { signal }))

/** Of what was written: bytes by format, and how many numbers they are. */
const reportOf = ({ sourceBytes, parameters, formats, notes }: WrittenFolder): QuantizeModelReport => {
  const bytes = Object.values(formats).reduce((sum, size) => sum + size, 0)
  return {
    sourceBytes,
    bytes,
    parameters,
    bitsPerWeight: (bytes * 8) / parameters,
    formats: Object.fromEntries(Object.entries(formats).sort((a, b) => b[1] - a[1])),
    notes,
  }
}

/** A folder from a folder. */
const quantizeToFolder = async (
  input: string,
  output: string,
  type: string,
  { importance, output: head, pure, layers, ...options }: QuantizeModelOptions,
): Promise<QuantizeModelReport> => {
  const recommender = await isRecommenderFolder(input)
  const refuse = (field: string, found: unknown, expected: string): DroverError =>
    new DroverError('E_UNSUPPORTED', 'a folder is not written like this', { field, found, expected })
  const others = { importance, output: head, pure, ...(recommender ? {} : { layers }) }
  for (const [name, value] of Object.entries(others)) {
    if (value !== undefined) throw refuse(`options.${name}`, value, 'nothing: the type says it all')
  }
  if (recommender) {
    const tables = recommenderTypes.find((name) => name === type.toLowerCase())
    if (tables === undefined) throw refuse('options.type', type, recommenderTypes.join(', '))
    const format = layers === undefined ? undefined : checkOneOf('options.layers', layers, layerFormats)
    return reportOf(await quantizeRecommender(input, output, tables, format, options))
  }
  const format = folderFormats.find((name) => name === type.toLowerCase())
  if (format === undefined) {
    throw refuse('options.type', type, `${folderFormats.join(', ')}; other types go to a name that ends in .gguf`)
  }
  if (!(await isFolder(input))) throw refuse('input', input, 'a folder in Hugging Face layout')
  return reportOf(await quantizeFolder(input, output, format, options))
}

/** No part of a source is replaced while it is read, nor lost afterwards. */
const checkOutput = async ({ files }: Source, output: string): Promise<void> => {
  const there = await realpath(output).catch(() => undefined)
  for (const { path } of files) {
    if ((await realpath(path)) !== there) continue
    throw new DroverError('E_ARGUMENT', 'the output would replace its own source', { field: 'output', found: output })
  }
}

/**
 * Writes a model (a GGUF file, the first when split, or a folder in Hugging Face layout) with weights in another format:
 * as one GGUF file, or a folder as a folder where `output` does not end in .gguf. Either appears under its name when it
 * is complete. Throws E_ARGUMENT, E_UNSUPPORTED, E_FORMAT, E_RANGE (a weight that the format cannot hold), E_IO, E_ABORTED.
 */
export const quantizeModel = async (
  input: string,
  output: string,
  options: QuantizeModelOptions,
): Promise<QuantizeModelReport> => {
  checkString('input', input)
  checkString('output', output)
  const names = ['type', 'importance', 'output', 'pure', 'layers', 'threads', 'onProgress', 'signal']
  const checked = checkOptions('options', options, names) as unknown as QuantizeModelOptions
  const { signal, onProgress } = checked
  const type = checkString('options.type', checked.type)
  if (checked.output !== undefined) checkString('options.output', checked.output)
  if (checked.layers !== undefined) checkString('options.layers', checked.layers)
  if (checked.pure !== undefined) checkBoolean('options.pure', checked.pure)
  if (checked.threads !== undefined) checkInteger('options.threads', checked.threads, 1, 1024)
  if (signal !== undefined) checkSignal('options.signal', signal)
  if (onProgress !== undefined) checkFunction('options.onProgress', onProgress)

  if (checked.importance !== undefined) checkString('options.importance', checked.importance)
  return convertModel(input, output, { ...checked, type }, false)
}

/** {@link quantizeModel} with checked options; `weightsOnly`: a GGUF file of a folder needs no tokenizer. */
export const convertModel = async (
  input: string,
  output: string,
  options: QuantizeModelOptions,
  weightsOnly: boolean,
): Promise<QuantizeModelReport> => {
  const { type, importance, signal, onProgress } = options
  if (!/\.gguf$/i.test(output)) return quantizeToFolder(input, output, type, options)
  if (options.layers !== undefined) {
    throw new DroverError('E_UNSUPPORTED', 'only recommenders have layers beside tables', {
      field: 'options.layers',
      found: options.layers,
      expected: 'nothing: the type says it all',
    })
  }
  const mix = mixOf(type)
  const source = await openSource(input, signal, weightsOnly)
  await checkOutput(source, output)
  const matrix = importance === undefined ? undefined : await readImportance(importance, { signal })
  const { plan, notes } = planOf(source, mix, options, matrix)

  const sourceBytes = plan.reduce((sum, { tensor }) => sum + tensor.info.bytes, 0)
  const formats: Record<string, number> = {}
  let parameters = 0
  const count = (to: DTypeName, elements: number): number => {
    const size = (elements / dtypes[to].block) * dtypes[to].bytes
    formats[to] = (formats[to] ?? 0) + size
    parameters += elements
    return size
  }
  let converted = 0
  const tensors = plan.map((planned): GgufTensor => {
    const { tensor, to } = planned
    const { shape, file } = tensor.info
    const done = (read: number): void => {
      converted += read
      onProgress?.(converted / sourceBytes, tensor.name)
    }
    const chunks = (): AsyncIterable<Uint8Array> => convertRows(source.files[file] as FileEntry, planned, options, done)
    return { name: tensor.name, type: to, shape, bytes: count(to, elementCount(shape)), chunks }
  })
  for (const [name, values] of source.made) {
    const chunks = (): Iterable<Uint8Array> => [new Uint8Array(values.buffer, values.byteOffset, values.byteLength)]
    tensors.push({ name, type: 'f32', shape: [values.length], bytes: count('f32', values.length), chunks })
  }
  const metadata = new Map<string, GgufEntry>([
    ...source.metadata,
    ['general.file_type', { type: 'u32', value: mix.fileType }],
    ['general.quantization_version', { type: 'u32', value: 2 }],
  ])
  await writeGguf(output, metadata, tensors)
  return reportOf({ sourceBytes, parameters, formats, notes })
}
