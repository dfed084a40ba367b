/** Stored rows to f32, every number format: plain, slow, and what the native decoders are checked against. */
import { DroverError } from '../../errors.js'
import { type DTypeName, dtypes } from '../../tensor.js'
import * as blocks from './blocks.js'
import * as bookBlocks from './book-blocks.js'
import * as kBlocks from './k-blocks.js'
import { bfloatToFloat, f8E4m3, f8E5m2, halfToFloat } from './scalar.js'

/** The f64 that rounds to the same f32 as the integer does: digits that f64 has no room for become one sticky bit. */
const stickyNumber = (value: bigint): number => {
  const magnitude = value < 0n ? -value : value
  if (magnitude < 1n << 53n) return Number(value)
  const kept = Number(magnitude >> 12n) * 4096 + (magnitude & 4095n ? 2048 : 0)
  return value < 0n ? -kept : kept
}

const numbers: Partial<Record<DTypeName, (view: DataView, at: number) => number>> = {
  f64: (view, at) => view.getFloat64(at, true),
  f16: (view, at) => halfToFloat(view.getUint16(at, true)),
  bf16: (view, at) => bfloatToFloat(view.getUint16(at, true)),
  f8_e4m3: (view, at) => f8E4m3[view.getUint8(at)]!,
  f8_e5m2: (view, at) => f8E5m2[view.getUint8(at)]!,
  i64: (view, at) => stickyNumber(view.getBigInt64(at, true)),
  i32: (view, at) => view.getInt32(at, true),
  i16: (view, at) => view.getInt16(at, true),
  i8: (view, at) => view.getInt8(at),
  u64: (view, at) => stickyNumber(view.getBigUint64(at, true)),
  u32: (view, at) => view.getUint32(at, true),
  u16: (view, at) => view.getUint16(at, true),
  u8: (view, at) => view.getUint8(at),
  bool: (view, at) => (view.getUint8(at) === 0 ? 0 : 1),
}

const blockDecoders: Partial<Record<DTypeName, blocks.BlockDecoder>> = {
  q4_0: blocks.q4_0,
  q4_1: blocks.q4_1,
  q5_0: blocks.q5_0,
  q5_1: blocks.q5_1,
  q8_0: blocks.q8_0,
  q2_k: kBlocks.q2_k,
  q3_k: kBlocks.q3_k,
  q4_k: kBlocks.q4_k,
  q5_k: kBlocks.q5_k,
  q6_k: kBlocks.q6_k,
  q8_k: kBlocks.q8_k,
  iq2_xxs: bookBlocks.iq2_xxs,
  iq2_xs: bookBlocks.iq2_xs,
  iq2_s: bookBlocks.iq2_s,
  iq3_xxs: bookBlocks.iq3_xxs,
  iq3_s: bookBlocks.iq3_s,
  iq1_s: bookBlocks.iq1_s,
  iq1_m: bookBlocks.iq1_m,
  iq4_nl: blocks.iq4_nl,
  iq4_xs: blocks.iq4_xs,
  tq1_0: blocks.tq1_0,
  tq2_0: blocks.tq2_0,
  mxfp4: blocks.mxfp4,
  i4: blocks.i4,
}

const tooShort = (field: string, found: number, expected: number): DroverError =>
  new DroverError('E_SHAPE', 'a buffer is too short for the row', { field, found, expected: `at least ${expected}` })

/**
 * Decodes the first `cols` elements of a stored row into `out[0..cols)`, each rounded to the nearest f32. The row holds
 * whole blocks; `cols` may end inside the last one. Throws E_SHAPE when `bytes` or `out` is too short, E_ARGUMENT when
 * `cols` is no count. Equal, bit for bit but for NaN payloads, to decode_row of native/kernels/decode.cc.
 */
export const decodeRow = (dtype: DTypeName, bytes: Uint8Array, cols: number, out: Float32Array): void => {
  const { block, bytes: size } = dtypes[dtype]
  if (!Number.isSafeInteger(cols) || cols < 0) {
    throw new DroverError('E_ARGUMENT', 'the number of columns is impossible', { field: 'cols', found: cols })
  }
  const needed = Math.ceil(cols / block) * size
  if (bytes.length < needed) throw tooShort('bytes', bytes.length, needed)
  if (out.length < cols) throw tooShort('out', out.length, cols)
  if (dtype === 'f32') {
    // As bytes: reading and storing numbers could change the payload of a NaN.
    new Uint8Array(out.buffer, out.byteOffset, cols * 4).set(bytes.subarray(0, cols * 4))
    return
  }
  const number = numbers[dtype]
  if (number !== undefined) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    for (let i = 0; i < cols; i++) out[i] = number(view, i * size)
    return
  }
  const decode = blockDecoders[dtype] as blocks.BlockDecoder
  const whole = Math.floor(cols / block)
  for (let i = 0; i < whole; i++) decode(bytes, i * size, out, i * block)
  const rest = cols - whole * block
  if (rest === 0) return
  const last = new Float32Array(block)
  decode(bytes, whole * size, last, 0)
  out.set(last.subarray(0, rest), whole * block)
}
