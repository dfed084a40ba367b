/** Tensors of a kernel fixture, as numbers in the shape they are stored in. */
import { decodeRow } from '../../lib/format/decode/index.js'
import { readStored, storedTensor } from '../format/stored.js'
import { fixture } from '../support.js'

export interface Tensor {
  readonly shape: readonly number[]
  readonly bytes: Uint8Array
  /** Every element as f32. */
  readonly values: Float32Array
}

export const openFixture = async (name: string) => {
  const stored = await readStored(fixture(`${name}/expected.safetensors`))
  const tensor = (key: string): Tensor => {
    const { info, bytes } = storedTensor(stored, key)
    const values = new Float32Array(info.shape.reduce((product, n) => product * n, 1))
    decodeRow(info.dtype, bytes, values.length, values)
    return { shape: info.shape, bytes, values }
  }
  return {
    names: [...stored.keys()],
    has: (key: string) => stored.has(key),
    tensor,
    floats: (key: string) => tensor(key).values,
    bytes: (key: string) => tensor(key).bytes,
  }
}

export type Fixture = Awaited<ReturnType<typeof openFixture>>

/** [heads, rows, dim] -> [rows, heads · dim] */
export const headsLast = ({ shape, values }: Pick<Tensor, 'shape' | 'values'>): Float32Array => {
  const [heads, rows, dim] = shape as [number, number, number]
  const out = new Float32Array(values.length)
  for (let head = 0; head < heads; head++) {
    for (let row = 0; row < rows; row++) {
      const from = (head * rows + row) * dim
      out.set(values.subarray(from, from + dim), (row * heads + head) * dim)
    }
  }
  return out
}

/** Rows of a matrix, in the order given. */
export const pickRows = (values: Float32Array, cols: number, rows: readonly number[]): Float32Array => {
  const out = new Float32Array(rows.length * cols)
  rows.forEach((row, i) => {
    out.set(values.subarray(row * cols, (row + 1) * cols), i * cols)
  })
  return out
}
