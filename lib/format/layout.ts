/** Checks that both weight formats share: how many bytes a shape takes, and that tensors do not overlap. */
import { DroverError, type ErrorDetails } from '../errors.js'
import { type DTypeName, dtypes, type TensorInfo } from '../tensor.js'

/** Tensors in one file. Mixture models of today have some ten thousand in all their files together. */
export const mostTensors = 1 << 16

/**
 * Bytes of a tensor, from dimensions a file claims. Throws E_FORMAT when a row does not hold whole blocks or when a
 * product passes 2^53: such a tensor exists in no file, and beyond it numbers would silently lose digits.
 */
export const tensorBytes = (dtype: DTypeName, shape: readonly number[], where: ErrorDetails): number => {
  const { block, bytes } = dtypes[dtype]
  const columns = shape.at(-1) ?? 1
  if (columns % block !== 0) {
    throw new DroverError('E_FORMAT', `a row of ${dtype} holds whole blocks`, {
      ...where,
      found: `${columns} columns`,
      expected: `a multiple of ${block}`,
    })
  }
  let elements = 1
  // An empty tensor is empty even when another dimension is huge.
  if (shape.includes(0)) elements = 0
  else {
    for (const dimension of shape) {
      if (dimension > Number.MAX_SAFE_INTEGER / elements) throw tooLarge(shape, where)
      elements *= dimension
    }
  }
  const blocks = elements / block
  if (blocks > Number.MAX_SAFE_INTEGER / bytes) throw tooLarge(shape, where)
  return blocks * bytes
}

const tooLarge = (shape: readonly number[], where: ErrorDetails): DroverError =>
  new DroverError('E_FORMAT', 'the tensor is larger than any file', {
    ...where,
    found: `shape [${shape.join(', ')}]`,
    expected: 'fewer than 2^53 bytes',
  })

/**
 * Throws E_FORMAT when two tensors of one file share bytes. With `contiguous`, also when bytes in [from, to) belong to
 * no tensor. Starts and ends are sorted apart, as numbers: intervals are disjoint exactly when the n-th smallest end
 * is not beyond the (n+1)-th smallest start.
 */
export const checkDisjoint = (
  tensors: readonly TensorInfo[],
  path: string,
  contiguous?: { from: number; to: number },
): void => {
  const filled = tensors.filter((tensor) => tensor.bytes > 0)
  const starts = Float64Array.from(filled, (tensor) => tensor.offset).sort()
  const ends = Float64Array.from(filled, (tensor) => tensor.offset + tensor.bytes).sort()
  for (let i = 0; i < starts.length; i++) {
    if (i + 1 < starts.length && ends[i]! > starts[i + 1]!) throw overlap(filled, path)
    const before = i === 0 ? contiguous?.from : ends[i - 1]
    if (contiguous !== undefined && starts[i] !== before) {
      const after = filled.find((tensor) => tensor.offset === starts[i])
      throw new DroverError('E_FORMAT', 'there is a gap before a tensor', {
        file: path,
        field: after?.name,
        found: `offset ${starts[i]}`,
        expected: `offset ${before}`,
      })
    }
  }
  const last = ends.at(-1) ?? contiguous?.from
  if (contiguous !== undefined && last !== contiguous.to) {
    throw new DroverError('E_FORMAT', 'the tensors do not fill the file', {
      file: path,
      field: 'data_offsets',
      found: `data ends at ${last}`,
      expected: `the end of the file, ${contiguous.to}`,
    })
  }
}

const overlap = (tensors: readonly TensorInfo[], path: string): DroverError => {
  const sorted = [...tensors].sort((a, b) => a.offset - b.offset)
  let before = sorted[0] as TensorInfo
  for (const tensor of sorted.slice(1)) {
    if (tensor.offset < before.offset + before.bytes) {
      return new DroverError('E_FORMAT', 'two tensors share bytes', {
        file: path,
        field: tensor.name,
        found: `offset ${tensor.offset}`,
        expected: `at least ${before.offset + before.bytes}, where ${before.name} ends`,
      })
    }
    before = tensor
  }
  return new DroverError('E_INTERNAL', 'overlap without a culprit', { file: path })
}
