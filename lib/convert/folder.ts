/**
 * Writes a model folder in Hugging Face layout in another number format: tensor by tensor, in chunks of rows. int8 and
 * int4 are written as compressed-tensors, fp8 as fbgemm_fp8 with what Llama 3 quantises: the feed-forward matrices of all
 * layers but the first and the last (arXiv 2407.21783, section 6.2).
 */
import { copyFile, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type DTypeName, elementCount, type TensorInfo } from '../tensor.js'
import { isScaledFormat, type ScaledFormat, scaledFormats } from './scaled.js'
import {
  type FolderOptions,
  intoNewFolder,
  scaledEntries,
  type TensorPlan,
  type WrittenFolder,
  writeWeights,
  writtenOf,
} from './shards.js'
import { asStored, checkCols, plainFloats, readLlamaFolder } from './source.js'

/** What a folder is written in. */
export const folderFormats = ['int8', 'fp8', 'int4', 'f32', 'f16', 'bf16'] as const
export type FolderFormat = (typeof folderFormats)[number]

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

const planOf = (info: TensorInfo, format: FolderFormat, layers: number, notes: string[]): TensorPlan => {
  const rows = (to: DTypeName): TensorPlan => ({
    info,
    entries: [{ name: info.name, dtype: to, shape: info.shape }],
    to: { rows: to },
  })
  if (!plainFloats.includes(info.dtype)) return rows(info.dtype)
  checkCols(asStored(info.name, info))
  if (!isScaledFormat(format)) return rows(format)
  if (!isQuantized(format, info.name, layers)) return rows(info.dtype)
  const cols = info.shape[1] ?? 0
  const group = scaledFormats[format].group ?? 1
  if (info.shape.length === 2 && cols > 0 && cols % group === 0) {
    const base = info.name.slice(0, -'.weight'.length)
    return { info, entries: scaledEntries(base, format, info.shape[0] as number, cols), to: { scaled: format } }
  }
  notes.push(`${info.name}: left as it is, ${cols} columns are not a multiple of ${group}`)
  return rows(info.dtype)
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
export const copyRest = async (from: string, to: string): Promise<void> => {
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const { name } = entry
    const belongs = /\.(json|model|jinja|txt|md)$/i.test(name) && !/^config\.json$|\.index\.json$/.test(name)
    if (belongs && (await stat(join(from, name))).isFile()) await copyFile(join(from, name), join(to, name))
  }
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
  const notes: string[] = []
  const plans = [...weights.tensors.values()].map((info) => planOf(info, format, config.layers, notes))
  const unconverted = plans.flatMap(({ info: { name }, to }) =>
    'rows' in to && (matrixName.test(name) || name === 'lm_head.weight') ? [name] : [],
  )
  await intoNewFolder(output, async (folder) => {
    await writeWeights(folder, weights.files, plans, options)
    await writeFile(join(folder, 'config.json'), await newConfig(input, format, unconverted))
    await copyRest(input, folder)
  })
  const formatOf = ({ to }: TensorPlan): string => ('rows' in to ? to.rows : to.scaled)
  return writtenOf(plans, formatOf, ({ shape }) => elementCount(shape), notes)
}
