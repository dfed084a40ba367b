/** The numbers of the GGUF format: metadata value types and tensor types. Reader and writer share these tables. */
import type { DTypeName } from '../tensor.js'

export const ggufScalarTypes = ['u8', 'i8', 'u16', 'i16', 'u32', 'i32', 'f32', 'bool', 'u64', 'i64', 'f64'] as const
export type GgufNumericType = (typeof ggufScalarTypes)[number]
export type GgufType = GgufNumericType | 'string' | 'array'

/** Metadata value types; the position is the number in the file. */
export const ggufTypes: readonly GgufType[] = [
  'u8',
  'i8',
  'u16',
  'i16',
  'u32',
  'i32',
  'f32',
  'bool',
  'string',
  'array',
  'u64',
  'i64',
  'f64',
]

export const ggufTypeBytes: Readonly<Record<GgufNumericType, number>> = {
  u8: 1,
  i8: 1,
  u16: 2,
  i16: 2,
  u32: 4,
  i32: 4,
  f32: 4,
  bool: 1,
  u64: 8,
  i64: 8,
  f64: 8,
}

/** Tensor types by the number that stands in the file. */
export const ggmlTypes: ReadonlyMap<number, DTypeName> = new Map<number, DTypeName>([
  [0, 'f32'],
  [1, 'f16'],
  [2, 'q4_0'],
  [3, 'q4_1'],
  [6, 'q5_0'],
  [7, 'q5_1'],
  [8, 'q8_0'],
  [10, 'q2_k'],
  [11, 'q3_k'],
  [12, 'q4_k'],
  [13, 'q5_k'],
  [14, 'q6_k'],
  [15, 'q8_k'],
  [16, 'iq2_xxs'],
  [17, 'iq2_xs'],
  [18, 'iq3_xxs'],
  [19, 'iq1_s'],
  [20, 'iq4_nl'],
  [21, 'iq3_s'],
  [22, 'iq2_s'],
  [23, 'iq4_xs'],
  [24, 'i8'],
  [25, 'i16'],
  [26, 'i32'],
  [27, 'i64'],
  [28, 'f64'],
  [29, 'iq1_m'],
  [30, 'bf16'],
  [34, 'tq1_0'],
  [35, 'tq2_0'],
  [39, 'mxfp4'],
])

/** Types that exist, or existed, under these numbers but are not read: refused by name. */
export const refusedGgmlTypes: ReadonlyMap<number, string> = new Map([
  [4, 'q4_2 (removed from the format)'],
  [5, 'q4_3 (removed from the format)'],
  [9, 'q8_1 (never stored in files)'],
  [31, 'q4_0_4_4 (removed from the format; convert the model to q4_0)'],
  [32, 'q4_0_4_8 (removed from the format; convert the model to q4_0)'],
  [33, 'q4_0_8_8 (removed from the format; convert the model to q4_0)'],
  [36, 'iq4_nl_4_4 (removed from the format; convert the model to iq4_nl)'],
  [37, 'iq4_nl_4_8 (removed from the format; convert the model to iq4_nl)'],
  [38, 'iq4_nl_8_8 (removed from the format; convert the model to iq4_nl)'],
  [40, 'nvfp4'],
  [41, 'q1_0'],
])

/** Alignment of tensor data where the metadata does not name another. */
export const defaultAlignment = 32
