/** Where a model's weights lie: tensors of a file by name, each checked for the shape that the config gives it. */
import { DroverError } from '../errors.js'
import type { TensorSource } from '../format/file.js'
import type { WeightSource } from '../program/builder.js'
import { type DTypeName, dtypes, elementCount, rowBytes, type TensorInfo } from '../tensor.js'

/** Gives the weight of this name with this shape, or undefined when it is absent. */
export type WeightLookup = (name: string, rows: number, cols: number) => WeightSource | undefined

/** A lookup of weights that must be there. @param file the config that asks for them, for errors. */
export const requiredFrom =
  (weights: WeightLookup, file: string) =>
  (name: string, rows: number, cols: number): WeightSource => {
    const weight = weights(name, rows, cols)
    if (weight !== undefined) return weight
    throw new DroverError('E_FORMAT', 'a tensor is missing', { file, field: name, expected: `[${rows}, ${cols}]` })
  }

/** Weights from a file's tensors, each checked for shape and for a dtype that can be computed with. */
export const weightsOf =
  (source: TensorSource, scales?: ReadonlyMap<string, TensorInfo>, activationBound?: number): WeightLookup =>
  (name, rows, cols) => {
    const info = source.tensors.get(name)
    if (info === undefined) return undefined
    const shape: readonly number[] = info.shape.length === 1 ? [1, info.shape[0] as number] : info.shape
    const file = source.files[info.file]?.path
    if (shape.length !== 2 || shape[0] !== rows || shape[1] !== cols) {
      throw new DroverError('E_FORMAT', 'a tensor has the wrong shape', {
        file,
        field: name,
        found: `[${info.shape.join(', ')}]`,
        expected: rows === 1 ? `[${cols}]` : `[${rows}, ${cols}]`,
      })
    }
    const weight = { name, dtype: computable(info, file), rows, cols, region: info.file, offset: info.offset }
    const beside = scales?.get(name)
    if (beside === undefined) return weight
    const { dtype, file: region, offset } = beside
    const floats = { name: beside.name, dtype, rows, cols: elementCount(beside.shape) / rows, region, offset }
    return { ...weight, scales: floats, ...(activationBound === undefined ? {} : { activationBound }) }
  }

const computable = (info: TensorInfo, file: string | undefined): DTypeName => {
  if (['u8', 'u16', 'u32', 'u64', 'bool'].includes(info.dtype)) {
    throw new DroverError('E_UNSUPPORTED', 'weights of this dtype are not supported', {
      file,
      field: info.name,
      found: info.dtype,
    })
  }
  return info.dtype
}

/** Weights of the right shapes that lie nowhere: for plans from a config alone. */
export const imaginaryWeights = (dtype: DTypeName): WeightLookup => {
  let offset = 0
  const placed = new Map<string, WeightSource>()
  return (name, rows, cols) => {
    const known = placed.get(name)
    if (known !== undefined) return known
    const type = rows === 1 || cols % dtypes[dtype].block !== 0 ? 'f32' : dtype
    const weight = { name, dtype: type, rows, cols, region: 0, offset }
    offset += rowBytes(type, cols) * rows
    placed.set(name, weight)
    return weight
  }
}
