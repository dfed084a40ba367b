/**
 * Weights that a model in Hugging Face layout holds quantised: what `quantization_config` says of them, and the tensors
 * that hold them. Two methods are read: compressed-tensors (int-quantized, float-quantized and pack-quantized) and
 * fbgemm_fp8, the form of Llama 3.1 in FP8. Whatever their entries say that would be computed otherwise is refused.
 */
import { DroverError } from '../errors.js'
import type { TensorInfo } from '../tensor.js'
import type { ConfigRecord } from './config.js'
import type { TensorSource } from './file.js'

/** How the quantised matrices of a model are stored; which ones they are, its tensors tell. */
export interface WeightScheme {
  readonly method: 'compressed-tensors' | 'fbgemm_fp8'
  readonly dtype: 'i8' | 'f8_e4m3' | 'i4'
  /** i4: elements of a row that share a scale; the others have one scale per row. */
  readonly group?: number
  /** f8_e4m3: what the maximum of an activation's row counts as at most. */
  readonly activationBound?: number
}

const methods = ['compressed-tensors', 'fbgemm_fp8'] as const

/** Reads `quantization_config`; undefined without one. Throws E_UNSUPPORTED or E_FORMAT with the entry's path. */
export const weightSchemeOf = (config: ConfigRecord): WeightScheme | undefined => {
  const record = config.record('quantization_config')
  if (record === undefined) return undefined
  const method = record.string('quant_method', 'unknown')
  if (method === 'fbgemm_fp8') {
    const activationBound = record.number('activation_scale_ub')
    if (activationBound > 0) return { method, dtype: 'f8_e4m3', activationBound }
    throw record.refuse('activation_scale_ub', 'a number above 0')
  }
  if (method === 'compressed-tensors') return compressedTensors(record)
  throw unsupported(config.file, 'quantization_config.quant_method', method, methods.join(' or '))
}

const unsupported = (file: string, field: string, found: unknown, expected: string): DroverError =>
  new DroverError('E_UNSUPPORTED', 'weights quantised like this are not supported', { file, field, found, expected })

/** An entry must have one of these values; `undefined` stands for one that is missing or null. */
const expectEntry = (
  record: ConfigRecord,
  path: string,
  key: string,
  allowed: readonly (string | number | boolean | undefined)[],
): void => {
  const found = record.get(key)
  if (allowed.includes(found as string)) return
  const field = `quantization_config.${path}${key}`
  const described = typeof found === 'object' ? 'an object' : found
  throw unsupported(record.file, field, described, allowed.map((value) => value ?? 'nothing').join(' or '))
}

/** Formats of compressed-tensors by name, and how they round weights and activations. */
const formats = {
  'int-quantized': { dtype: 'i8', type: 'int', bits: 8, activations: true },
  'float-quantized': { dtype: 'f8_e4m3', type: 'float', bits: 8, activations: true },
  'pack-quantized': { dtype: 'i4', type: 'int', bits: 4, activations: false },
} as const

const compressedTensors = (record: ConfigRecord): WeightScheme => {
  const name = record.string('format')
  expectEntry(record, '', 'format', Object.keys(formats))
  const format = formats[name as keyof typeof formats]
  expectEntry(record, '', 'kv_cache_scheme', [undefined])
  expectEntry(record, '', 'quantization_status', ['compressed', 'frozen', undefined])
  const sparsity = record.record('sparsity_config')
  if (sparsity?.has('format')) expectEntry(sparsity, 'sparsity_config.', 'format', ['dense'])
  const transforms = record.record('transform_config')?.record('config_groups')
  if (transforms !== undefined && transforms.values.size > 0) {
    throw unsupported(record.file, 'quantization_config.transform_config', 'rotations', 'none')
  }
  const groups = record.record('config_groups')
  const names = [...(groups?.values.keys() ?? [])]
  if (groups === undefined || names.length !== 1) {
    const field = 'quantization_config.config_groups'
    throw unsupported(record.file, field, `${names.length} groups`, 'one group for all quantised matrices')
  }
  const path = `config_groups.${names[0]}.`
  const group = groups.record(names[0] as string)
  const weights = group?.record('weights')
  if (group === undefined || weights === undefined) throw record.refuse(`${path}weights`, 'an object', 'missing')
  if (group.has('format')) expectEntry(group, path, 'format', [name])
  expectEntry(group, path, 'output_activations', [undefined])
  expectEntry(weights, `${path}weights.`, 'num_bits', [format.bits])
  expectEntry(weights, `${path}weights.`, 'type', [format.type])
  expectEntry(weights, `${path}weights.`, 'symmetric', [true])
  expectEntry(weights, `${path}weights.`, 'dynamic', [false, undefined])
  // The others move columns about, and say where in a tensor of their own.
  expectEntry(weights, `${path}weights.`, 'actorder', [undefined, 'weight', 'static'])
  expectEntry(weights, `${path}weights.`, 'strategy', format.dtype === 'i4' ? ['group'] : ['channel'])
  const inputs = group.record('input_activations')
  if (inputs === undefined) {
    if (format.activations)
      throw unsupported(record.file, `quantization_config.${path}input_activations`, 'nothing', 'one scale per token')
  } else {
    expectEntry(inputs, `${path}input_activations.`, 'num_bits', [8])
    expectEntry(inputs, `${path}input_activations.`, 'type', [format.type])
    expectEntry(inputs, `${path}input_activations.`, 'symmetric', [true])
    expectEntry(inputs, `${path}input_activations.`, 'dynamic', [true])
    expectEntry(inputs, `${path}input_activations.`, 'strategy', ['token'])
  }
  const { dtype } = format
  if (dtype !== 'i4') return { method: 'compressed-tensors', dtype }
  const size = weights.integer('group_size', { minimum: 1, maximum: 2 ** 24 })
  if (size % 32 === 0) return { method: 'compressed-tensors', dtype, group: size }
  throw unsupported(record.file, `quantization_config.${path}weights.group_size`, size, 'a multiple of 32')
}

/** Beside `<module>.weight`. */
const scaleSuffix = '.weight_scale'
const packedSuffix = '.weight_packed'
/** What such modules have when they compute in a way that the config does not say. */
const refusedSuffixes = ['.weight_zero_point', '.weight_g_idx', '.input_scale', '.input_zero_point']

/** Quantised matrices under the names of plain ones, and which floats they are multiplied by. */
export interface QuantizedSource {
  readonly source: TensorSource
  /** By name of a weight: its scales [rows, groups]. */
  readonly scales: ReadonlyMap<string, TensorInfo>
}

/**
 * Gives every tensor the name of what it is: `<module>.weight_packed` becomes an i4 `<module>.weight`, scales leave the
 * list of weights. Throws E_FORMAT when a matrix and its scales do not fit each other or the config.
 */
export const quantizedSource = (source: TensorSource, scheme: WeightScheme): QuantizedSource => {
  const tensors = new Map<string, TensorInfo>()
  const scales = new Map<string, TensorInfo>()
  const fileOf = (info: TensorInfo): string | undefined => source.files[info.file]?.path
  const refuse = (info: TensorInfo, found: unknown, expected: string): DroverError =>
    new DroverError('E_FORMAT', 'a quantised weight does not fit its config', {
      file: fileOf(info),
      field: info.name,
      found,
      expected,
    })
  for (const info of source.tensors.values()) {
    const refused = refusedSuffixes.find((suffix) => info.name.endsWith(suffix))
    if (refused !== undefined) throw unsupported(fileOf(info) ?? '', info.name, info.name, `no tensors ${refused}`)
    if (info.name.endsWith(scaleSuffix)) {
      scales.set(`${info.name.slice(0, -scaleSuffix.length)}.weight`, info)
    } else if (info.name.endsWith(packedSuffix)) {
      if (scheme.dtype !== 'i4') throw refuse(info, 'a packed weight', `weights of ${scheme.dtype}`)
      const [rows, words] = info.shape
      if (info.dtype !== 'i32' || info.shape.length !== 2) {
        throw refuse(info, `${info.dtype} [${info.shape.join(', ')}]`, 'i32 [rows, columns / 8]')
      }
      const name = `${info.name.slice(0, -packedSuffix.length)}.weight`
      if (source.tensors.has(name)) throw refuse(info, `${name} as well`, 'one of the two')
      tensors.set(name, { ...info, name, dtype: 'i4', shape: [rows as number, (words as number) * 8] })
    } else if (!info.name.endsWith('.weight_shape')) tensors.set(info.name, info)
  }
  for (const [name, info] of scales) {
    const weight = tensors.get(name)
    if (weight === undefined) throw refuse(info, 'scales without a weight', name)
    const [rows = 0, cols = 0] = weight.shape
    if (weight.dtype !== scheme.dtype || weight.shape.length !== 2) {
      throw refuse(weight, `${weight.dtype} [${weight.shape.join(', ')}]`, `${scheme.dtype} [rows, columns]`)
    }
    const group = scheme.group ?? cols
    if (group === 0 || cols % group !== 0) {
      throw refuse(weight, `${cols} columns`, `a multiple of the group size ${group}`)
    }
    const wanted = [rows, cols / group]
    const flat = info.shape.length === 1 && group === cols
    const fits = (flat ? [...info.shape, 1] : info.shape).join() === wanted.join()
    if (!fits || !['f32', 'f16', 'bf16'].includes(info.dtype)) {
      throw refuse(info, `${info.dtype} [${info.shape.join(', ')}]`, `f32, f16 or bf16 [${wanted.join(', ')}]`)
    }
  }
  for (const weight of tensors.values()) {
    const quantized = ['i4', 'i8', 'f8_e4m3'].includes(weight.dtype)
    if (quantized && !scales.has(weight.name))
      throw refuse(weight, `${weight.dtype} without scales`, `${weight.name}_scale`)
  }
  return { source: { ...source, tensors }, scales }
}
