/** Rows of embedding tables to f32: plain, slow, and what the native kernels are checked against. */
import { parameterBytes, type RowwiseDType } from '../../tensor.js'
import { halfToFloat } from './scalar.js'

const bits = { i8_rowwise: 8, i8h_rowwise: 8, i4_rowwise: 4, i2_rowwise: 2 }

/** scale · code + bias, both rounded, for `cols` codes of a row. */
export const decodeRowwise = (
  dtype: RowwiseDType,
  row: Uint8Array,
  cols: number,
  parameters: 'first' | 'last',
  out: Float32Array,
): void => {
  const width = bits[dtype]
  const view = new DataView(row.buffer, row.byteOffset, row.byteLength)
  const at = parameters === 'first' ? 0 : Math.ceil((cols * width) / 8)
  const codes = parameters === 'first' ? parameterBytes(dtype) : 0
  const [scale, bias] =
    dtype === 'i8_rowwise'
      ? [view.getFloat32(at, true), view.getFloat32(at + 4, true)]
      : [halfToFloat(view.getUint16(at, true)), halfToFloat(view.getUint16(at + 2, true))]
  for (let i = 0; i < cols; i++) {
    const bit = i * width
    const code = (view.getUint8(codes + Math.floor(bit / 8)) >> (bit % 8)) & (2 ** width - 1)
    out[i] = Math.fround(scale * code) + bias
  }
}
