// Two rows at a time with the matrix instructions of NEON: SMMLA multiplies 2 rows x 8 k by 8 k x 2 columns, twice the
// products of SDOT. A vector of a tile then holds 8 columns of two rows, in four registers: register i has columns 2 i
// and 2 i + 1 of the first row, then of the second. All that happens to sums keeps that order; they are sorted by rows
// once, when they are read (TwoRows::row). What columns share is in both halves of a register, what rows share twice in
// its half.
#ifndef DROVER_KERNELS_SIMD_MATRIX_NEON_H_
#define DROVER_KERNELS_SIMD_MATRIX_NEON_H_

#define DROVER_MATRIX 1
#include "dot_neon.h"

namespace drover {
namespace {

struct TwoF {
  float32x4_t at[4];
};
struct TwoI {
  int32x4_t at[4];
};
// 8 numbers of each of 8 columns, two columns in a register.
struct TwoBytes {
  int8x16_t at[4];
};
// 8 codes of each of 4 columns, less 128 where they are byte codes.
struct TwoCodes {
  int8x16_t at[2];
};
// 8 codes of each of two rows, for the first or the last 4 of 8 columns.
template <int kHalf>
struct TwoCodesOfRows {
  int8x16_t at;
};
// 8 sums of codes of each of two rows: 128 high + low.
struct TwoSumsOfRows {
  int8x16_t high, low;
};

#define DROVER_EACH(Type, name, parameters, expression)  \
  DROVER_INLINE Type name parameters {                   \
    Type to;                                             \
    for (int i = 0; i < 4; i++) to.at[i] = (expression); \
    return to;                                           \
  }
DROVER_EACH(TwoF, c_mul, (TwoF a, TwoF b), vmulq_f32(a.at[i], b.at[i]))
DROVER_EACH(TwoF, c_fma, (TwoF a, TwoF b, TwoF c), vfmaq_f32(c.at[i], a.at[i], b.at[i]))
DROVER_EACH(TwoF, c_fnma, (TwoF a, TwoF b, TwoF c), vfmsq_f32(c.at[i], a.at[i], b.at[i]))
DROVER_EACH(TwoF, c_from, (TwoI a), vcvtq_f32_s32(a.at[i]))
DROVER_EACH(TwoI, s_scaled, (TwoI total, TwoI sum, TwoI scale), vmlaq_s32(total.at[i], sum.at[i], scale.at[i]))
template <int kShift>
DROVER_EACH(TwoI, i_minus_shifted, (TwoI a, TwoI b), vsubq_s32(a.at[i], vshlq_n_s32(b.at[i], kShift)))
#undef DROVER_EACH

DROVER_INLINE void c_store(float* p, TwoF a) {
  for (int i = 0; i < 4; i++) vst1q_f32(p + i * 4, a.at[i]);
}
DROVER_INLINE void i_columns_store(int32_t* p, TwoI a) {
  for (int i = 0; i < 4; i++) vst1q_s32(p + i * 4, a.at[i]);
}
DROVER_INLINE TwoI s_begin(TwoI start) { return start; }
DROVER_INLINE TwoI s_total(TwoI sum, TwoI) { return sum; }
DROVER_INLINE TwoCodes byte_codes(TwoCodes codes) { return codes; }
template <int kHalf>
DROVER_INLINE TwoI s_dot(TwoI sum, TwoCodes codes, TwoCodesOfRows<kHalf> x) {
  for (int i = 0; i < 2; i++) sum.at[kHalf * 2 + i] = vmmlaq_s32(sum.at[kHalf * 2 + i], x.at, codes.at[i]);
  return sum;
}
template <int kHalf>
DROVER_INLINE TwoI i_dot_byte(TwoI sum, TwoCodes codes, TwoCodesOfRows<kHalf> x) {
  return s_dot(sum, codes, x);
}

// Codes of 8 columns x 4 k, twice, as 4 columns x 8 k, twice.
DROVER_INLINE void m_turn(Bytes* low, Bytes* high) {
  const Bytes a = *low, b = *high;
  *low = {vzip1q_s32(a.low, b.low), vzip2q_s32(a.low, b.low)};
  *high = {vzip1q_s32(a.high, b.high), vzip2q_s32(a.high, b.high)};
}
// Bytes [8][stride] of 8 columns, as [8 columns][8].
DROVER_INLINE void m_transpose(const uint8_t* p, uint32_t stride, uint8_t* out) {
  uint16x8_t two[4];
  for (int i = 0; i < 4; i++) {
    const uint8x8x2_t zipped = vzip_u8(vld1_u8(p + 2 * i * stride), vld1_u8(p + (2 * i + 1) * stride));
    two[i] = vreinterpretq_u16_u8(vcombine_u8(zipped.val[0], zipped.val[1]));
  }
  const uint16x8x2_t first = vzipq_u16(two[0], two[1]), last = vzipq_u16(two[2], two[3]);
  for (int i = 0; i < 2; i++) {
    const uint32x4x2_t whole = vzipq_u32(vreinterpretq_u32_u16(first.val[i]), vreinterpretq_u32_u16(last.val[i]));
    vst1q_u8(out + i * 32, vreinterpretq_u8_u32(whole.val[0]));
    vst1q_u8(out + i * 32 + 16, vreinterpretq_u8_u32(whole.val[1]));
  }
}
// Codes of two rows, a multiple of 16 each, by turns of 8.
DROVER_INLINE void m_pair(const int8_t* first, const int8_t* second, uint32_t count, int8_t* out) {
  for (uint32_t i = 0; i < count; i += 16) {
    const int64x2_t a = vreinterpretq_s64_s8(vld1q_s8(first + i)), b = vreinterpretq_s64_s8(vld1q_s8(second + i));
    vst1q_s8(out + i * 2, vreinterpretq_s8_s64(vzip1q_s64(a, b)));
    vst1q_s8(out + i * 2 + 16, vreinterpretq_s8_s64(vzip2q_s64(a, b)));
  }
}
// Sums of up to 32 codes, 8 of each row.
DROVER_INLINE TwoSumsOfRows m_sums(const int16_t* first, const int16_t* second) {
  const int16x8_t a = vld1q_s16(first), b = vld1q_s16(second), mask = vdupq_n_s16(127);
  return {vshrn_high_n_s16(vshrn_n_s16(a, 7), b, 7), vmovn_high_s16(vmovn_s16(vandq_s16(a, mask)), vandq_s16(b, mask))};
}

// What a tile's vectors are: the contract is OneRow's (int_formats.inl).
struct TwoRows {
  static constexpr uint32_t kRows = 2, kZeros = 8, kZeroBytes = 8;
  using F = TwoF;
  using I = TwoI;
  using Sums = TwoI;
  using Scales = TwoI;
  using Zeros = TwoBytes;
  using Codes = TwoCodes;
  using Signed = TwoCodes;
  static DROVER_INLINE I none() { return {{vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)}}; }
  static DROVER_INLINE F load(const float* p) {
    return {{vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}};
  }
  static DROVER_INLINE I load(const int32_t* p) {
    return {{vld1q_s32(p), vld1q_s32(p + 4), vld1q_s32(p + 8), vld1q_s32(p + 12)}};
  }
  static DROVER_INLINE Codes codes(const uint8_t* p) {
    // GCC would load the codes of a whole block first, and spill them.
    __asm__ volatile("" ::: "memory");
    return {{vreinterpretq_s8_u8(vld1q_u8(p)), vreinterpretq_s8_u8(vld1q_u8(p + 16))}};
  }
  static DROVER_INLINE Scales scales(const uint8_t* p) {
    Scales to;
    for (int i = 0; i < 4; i++) {
      int64_t two;
      __builtin_memcpy(&two, p + i * 8, 8);
      to.at[i] = vreinterpretq_s32_s64(vdupq_n_s64(two));
    }
    return to;
  }
  static DROVER_INLINE F columns(const float* p) {
    const Scales same = scales(reinterpret_cast<const uint8_t*>(p));
    F to;
    for (int i = 0; i < 4; i++) to.at[i] = vreinterpretq_f32_s32(same.at[i]);
    return to;
  }
  static DROVER_INLINE Zeros zeros(const uint8_t* p) {
    Zeros to;
    for (int i = 0; i < 4; i++) to.at[i] = vreinterpretq_s8_u8(vld1q_u8(p + i * 16));
    return to;
  }
  static DROVER_INLINE I dot_zeros(I total, Zeros zeros, TwoSumsOfRows x) {
    for (int i = 0; i < 4; i++) {
      const int32x4_t high = vmmlaq_s32(vdupq_n_s32(0), x.high, zeros.at[i]);
      total.at[i] = vmmlaq_s32(vaddq_s32(total.at[i], vshlq_n_s32(high, 7)), x.low, zeros.at[i]);
    }
    return total;
  }
  static DROVER_INLINE F32x16 row(const float* sums, uint32_t stride, uint32_t r, uint32_t column) {
    const float* p = sums + (r / 2 * stride + column) * 2 + r % 2 * 2;
    F32x16 to;
    for (int i = 0; i < 4; i++) to.v[i] = vcombine_f32(vld1_f32(p + i * 8), vld1_f32(p + i * 8 + 4));
    return to;
  }
  static DROVER_INLINE I32x16 row(const int32_t* sums, uint32_t stride, uint32_t r, uint32_t column) {
    const int32_t* p = sums + (r / 2 * stride + column) * 2 + r % 2 * 2;
    I32x16 to;
    for (int i = 0; i < 4; i++) to.v[i] = vcombine_s32(vld1_s32(p + i * 8), vld1_s32(p + i * 8 + 4));
    return to;
  }
};

}  // namespace
}  // namespace drover

#endif  // DROVER_KERNELS_SIMD_MATRIX_NEON_H_
