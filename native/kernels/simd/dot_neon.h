// The dot-product vocabulary with NEON: 8 columns, half a panel, in two registers. With the dot product instructions
// (DROVER_NEONDOT) four products are one step; without, they are multiplied to 16 bits, where two of them fit, and
// added up to 32. Sums have 32 bits in both. Contracts: dot_scalar.h.
//
// Instructions for 4 columns x 4 k:   SDOT 1   |   SMULL, SMULL2, ADDP, SADALP
#ifndef DROVER_KERNELS_SIMD_DOT_NEON_H_
#define DROVER_KERNELS_SIMD_DOT_NEON_H_

#include "neon.h"

namespace drover {
namespace {

inline constexpr uint32_t kColumns = 8;
inline constexpr int32_t kByteZero = 0;
// As many as share a scale in each format: 32-bit sums never bound them.
inline constexpr uint32_t kGroups15 = 8, kGroups31 = 8, kGroups63 = 4;
inline constexpr bool kDot32 = false;
#if defined(DROVER_MATRIX)
inline constexpr char kDotPath[] = "smmla, 128 bits; sdot for up to 3 rows";
#elif defined(DROVER_NEONDOT)
inline constexpr char kDotPath[] = "sdot, 128 bits";
#else
inline constexpr char kDotPath[] = "smull and sadalp, 128 bits";
#endif

struct ColF {
  float32x4_t low, high;
};
struct ColI {
  int32x4_t low, high;
};
using Bytes = ColI;  // as bytes: 4 columns x 4 codes in each register
using Sum = ColI;
using Scale = ColI;
using ScalePair = ColI;  // as 16-bit numbers: two per column
using ByteCodes = ColI;

DROVER_INLINE ColF c_set(float value) { return {vdupq_n_f32(value), vdupq_n_f32(value)}; }
DROVER_INLINE ColF c_zero() { return c_set(0); }
DROVER_INLINE ColF c_half(const uint16_t* p) {
  const float16x8_t halves = vreinterpretq_f16_u16(vld1q_u16(p));
  return {vcvt_f32_f16(vget_low_f16(halves)), vcvt_high_f32_f16(halves)};
}
DROVER_INLINE ColF c_bfloat(const uint16_t* p) {
  const uint16x8_t halves = vld1q_u16(p);
  return {vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(halves), 16)),
          vreinterpretq_f32_u32(vshll_high_n_u16(halves, 16))};
}
DROVER_INLINE ColF c_bytes(const uint8_t* p) {
  const int16x8_t wide = vmovl_s8(vreinterpret_s8_u8(vld1_u8(p)));
  return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))), vcvtq_f32_s32(vmovl_high_s16(wide))};
}
DROVER_INLINE ColF c_mul(ColF a, ColF b) { return {vmulq_f32(a.low, b.low), vmulq_f32(a.high, b.high)}; }
DROVER_INLINE ColF c_fma(ColF a, ColF b, ColF c) {
  return {vfmaq_f32(c.low, a.low, b.low), vfmaq_f32(c.high, a.high, b.high)};
}
DROVER_INLINE ColF c_fnma(ColF a, ColF b, ColF c) {
  return {vfmsq_f32(c.low, a.low, b.low), vfmsq_f32(c.high, a.high, b.high)};
}
DROVER_INLINE ColF c_from(ColI a) { return {vcvtq_f32_s32(a.low), vcvtq_f32_s32(a.high)}; }
DROVER_INLINE ColF c_load(const float* p) { return {vld1q_f32(p), vld1q_f32(p + 4)}; }
DROVER_INLINE void c_store(float* p, ColF a) {
  vst1q_f32(p, a.low);
  vst1q_f32(p + 4, a.high);
}
DROVER_INLINE ColI i_columns(int32_t value) { return {vdupq_n_s32(value), vdupq_n_s32(value)}; }
DROVER_INLINE ColI i_columns_load(const int32_t* p) { return {vld1q_s32(p), vld1q_s32(p + 4)}; }
DROVER_INLINE void i_columns_store(int32_t* p, ColI a) {
  vst1q_s32(p, a.low);
  vst1q_s32(p + 4, a.high);
}

DROVER_INLINE uint8x16_t as_bytes(int32x4_t a) { return vreinterpretq_u8_s32(a); }
DROVER_INLINE Bytes from_bytes(uint8x16_t low, uint8x16_t high) {
  return {vreinterpretq_s32_u8(low), vreinterpretq_s32_u8(high)};
}
DROVER_INLINE int32_t four_of(const void* x) {
  int32_t four;
  __builtin_memcpy(&four, x, 4);
  return four;
}
DROVER_INLINE Bytes b_load(const uint8_t* p) { return from_bytes(vld1q_u8(p), vld1q_u8(p + 16)); }
DROVER_INLINE void b_store(uint8_t* p, Bytes a) {
  vst1q_u8(p, as_bytes(a.low));
  vst1q_u8(p + 16, as_bytes(a.high));
}
DROVER_INLINE Bytes b_opaque(Bytes a) {
  __asm__("" : "+w"(a.low), "+w"(a.high));
  return a;
}
DROVER_INLINE Bytes b_low(Bytes a) {
  const uint8x16_t mask = vdupq_n_u8(15);
  return from_bytes(vandq_u8(as_bytes(a.low), mask), vandq_u8(as_bytes(a.high), mask));
}
DROVER_INLINE Bytes b_high(Bytes a) {
  return from_bytes(vshrq_n_u8(as_bytes(a.low), 4), vshrq_n_u8(as_bytes(a.high), 4));
}
template <int kShift, int kMask, int kTo>
DROVER_INLINE uint8x16_t field_of(uint8x16_t plane) {
  const uint8x16_t moved = kShift <= kTo ? vshlq_n_u8(plane, kShift <= kTo ? kTo - kShift : 0)
                                         : vshrq_n_u8(plane, kShift > kTo ? kShift - kTo : 1);
  return vandq_u8(moved, vdupq_n_u8(kMask << kTo));
}
template <int kShift, int kMask, int kTo>
DROVER_INLINE Bytes b_field(Bytes plane) {
  return from_bytes(field_of<kShift, kMask, kTo>(as_bytes(plane.low)),
                    field_of<kShift, kMask, kTo>(as_bytes(plane.high)));
}
DROVER_INLINE Bytes b_or(Bytes a, Bytes b) { return {vorrq_s32(a.low, b.low), vorrq_s32(a.high, b.high)}; }
template <int kShift, int kMask>
DROVER_INLINE Bytes b_bits(Bytes a, Bytes plane) {
  return b_or(a, b_field<kShift, kMask, 4>(plane));
}
DROVER_INLINE Bytes b_plus(Bytes a, uint8_t value) {
  const uint8x16_t added = vdupq_n_u8(value);
  return from_bytes(vaddq_u8(as_bytes(a.low), added), vaddq_u8(as_bytes(a.high), added));
}
DROVER_INLINE Bytes b_lookup(Bytes a, const uint8_t* book) {
  const uint8x16_t table = vld1q_u8(book);
  return from_bytes(vqtbl1q_u8(table, as_bytes(a.low)), vqtbl1q_u8(table, as_bytes(a.high)));
}
DROVER_INLINE Bytes l_field(Bytes a, uint32_t shift, uint32_t mask) {
  const int32x4_t by = vdupq_n_s32(-static_cast<int32_t>(shift));
  const uint32x4_t low = vshlq_u32(vreinterpretq_u32_s32(a.low), by),
                   high = vshlq_u32(vreinterpretq_u32_s32(a.high), by);
  return {vreinterpretq_s32_u32(vandq_u32(low, vdupq_n_u32(mask))),
          vreinterpretq_s32_u32(vandq_u32(high, vdupq_n_u32(mask)))};
}
DROVER_INLINE Bytes l_above(Bytes a, Bytes b) {
  return {vorrq_s32(a.low, vshlq_n_s32(b.low, 8)), vorrq_s32(a.high, vshlq_n_s32(b.high, 8))};
}
// There is no gather.
DROVER_INLINE uint32x4x2_t grid_vectors(int32x4_t index, const uint64_t* grid) {
  const uint64x2_t first = {grid[vgetq_lane_s32(index, 0)], grid[vgetq_lane_s32(index, 1)]};
  const uint64x2_t second = {grid[vgetq_lane_s32(index, 2)], grid[vgetq_lane_s32(index, 3)]};
  return vuzpq_u32(vreinterpretq_u32_u64(first), vreinterpretq_u32_u64(second));
}
DROVER_INLINE void b_grid8(Bytes index, const uint64_t* grid, Bytes* low, Bytes* high) {
  const uint32x4x2_t first = grid_vectors(index.low, grid), second = grid_vectors(index.high, grid);
  *low = {vreinterpretq_s32_u32(first.val[0]), vreinterpretq_s32_u32(second.val[0])};
  *high = {vreinterpretq_s32_u32(first.val[1]), vreinterpretq_s32_u32(second.val[1])};
}
DROVER_INLINE int32x4_t grid_quarters(int32x4_t index, const uint32_t* grid) {
  const uint32x4_t vectors = {grid[vgetq_lane_s32(index, 0)], grid[vgetq_lane_s32(index, 1)],
                              grid[vgetq_lane_s32(index, 2)], grid[vgetq_lane_s32(index, 3)]};
  return vreinterpretq_s32_u32(vectors);
}
DROVER_INLINE Bytes b_grid4(Bytes index, const uint32_t* grid) {
  return {grid_quarters(index.low, grid), grid_quarters(index.high, grid)};
}
template <int kByte, int kFirst>
DROVER_INLINE uint8x16_t negated(uint8x16_t a, uint8x16_t signs) {
  const uint8x16_t spread = {kByte,      kByte,      kByte,      kByte,     kByte + 4, kByte + 4,
                             kByte + 4,  kByte + 4,  kByte + 8,  kByte + 8, kByte + 8, kByte + 8,
                             kByte + 12, kByte + 12, kByte + 12, kByte + 12};
  const uint8x16_t bits = vreinterpretq_u8_u32(vdupq_n_u32(0x08040201u << kFirst));
  const uint8x16_t minus = vtstq_u8(vqtbl1q_u8(signs, spread), bits);
  return vsubq_u8(veorq_u8(a, minus), minus);
}
template <int kByte, int kFirst>
DROVER_INLINE Bytes b_negate(Bytes a, Bytes signs) {
  return from_bytes(negated<kByte, kFirst>(as_bytes(a.low), as_bytes(signs.low)),
                    negated<kByte, kFirst>(as_bytes(a.high), as_bytes(signs.high)));
}
DROVER_INLINE uint8x16_t less_two(int32x4_t a, int32x4_t flags, uint32_t bit) {
  const uint32x4_t set = vtstq_s32(flags, vreinterpretq_s32_u32(vdupq_n_u32(1u << bit)));
  return vsubq_u8(as_bytes(a), vandq_u8(vreinterpretq_u8_u32(set), vdupq_n_u8(2)));
}
DROVER_INLINE Bytes b_less_two(Bytes a, Bytes flags, uint32_t bit) {
  return from_bytes(less_two(a.low, flags.low, bit), less_two(a.high, flags.high, bit));
}

// sum + w · x, 4 products per column; |w| up to 128 and |x| up to 127: 128 · 127 · 2 just fits 16 bits.
DROVER_INLINE int32x4_t dot_four(int32x4_t sum, int32x4_t w, int8x16_t x) {
  const int8x16_t codes = vreinterpretq_s8_s32(w);
#ifdef DROVER_NEONDOT
  return vdotq_s32(sum, codes, x);
#else
  const int16x8_t first = vmull_s8(vget_low_s8(codes), vget_low_s8(x)), second = vmull_high_s8(codes, x);
  return vpadalq_s16(sum, vpaddq_s16(first, second));
#endif
}
DROVER_INLINE ColI dot_columns(ColI sum, ColI w, const int8_t* x) {
  const int8x16_t four = vreinterpretq_s8_s32(vdupq_n_s32(four_of(x)));
  return {dot_four(sum.low, w.low, four), dot_four(sum.high, w.high, four)};
}
// Codes up to 63 are the same number with a sign.
DROVER_INLINE Sum s_dot(Sum sum, Bytes codes, const int8_t* x) { return dot_columns(sum, codes, x); }
DROVER_INLINE Sum s_begin(ColI start) { return start; }
DROVER_INLINE ColI s_total(Sum sum, ColI) { return sum; }
DROVER_INLINE Scale scale_unsigned(const uint8_t* p) {
  const uint16x8_t wide = vmovl_u8(vld1_u8(p));
  return {vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(wide))), vreinterpretq_s32_u32(vmovl_high_u16(wide))};
}
DROVER_INLINE Scale scale_signed(const uint8_t* p) {
  const int16x8_t wide = vmovl_s8(vreinterpret_s8_u8(vld1_u8(p)));
  return {vmovl_s16(vget_low_s16(wide)), vmovl_high_s16(wide)};
}
DROVER_INLINE ColI s_scaled(ColI total, Sum sum, Scale scale) {
  return {vmlaq_s32(total.low, sum.low, scale.low), vmlaq_s32(total.high, sum.high, scale.high)};
}
DROVER_INLINE ScalePair pair_of(Scale first, Scale second) {
  return {vsliq_n_s32(first.low, second.low, 16), vsliq_n_s32(first.high, second.high, 16)};
}
DROVER_INLINE int32x4_t dot_two(int32x4_t total, int32x4_t pair, int16x8_t x) {
  const int16x8_t scales = vreinterpretq_s16_s32(pair);
  const int32x4_t first = vmull_s16(vget_low_s16(scales), vget_low_s16(x)), second = vmull_high_s16(scales, x);
  return vaddq_s32(total, vpaddq_s32(first, second));
}
DROVER_INLINE ScalePair pair_load(const int8_t* p) {
  const int8x16_t codes = vld1q_s8(p);
  return {vreinterpretq_s32_s16(vmovl_s8(vget_low_s8(codes))), vreinterpretq_s32_s16(vmovl_high_s8(codes))};
}
DROVER_INLINE ColI i_dot_pair(ColI total, ScalePair pair, const int16_t* x) {
  const int16x8_t two = vreinterpretq_s16_s32(vdupq_n_s32(four_of(x)));
  return {dot_two(total.low, pair.low, two), dot_two(total.high, pair.high, two)};
}
template <int kShift>
DROVER_INLINE ColI i_minus_shifted(ColI a, ColI b) {
  return {vsubq_s32(a.low, vshlq_n_s32(b.low, kShift)), vsubq_s32(a.high, vshlq_n_s32(b.high, kShift))};
}
DROVER_INLINE ByteCodes byte_codes(Bytes codes) {
  const uint8x16_t zero = vdupq_n_u8(128);
  return from_bytes(veorq_u8(as_bytes(codes.low), zero), veorq_u8(as_bytes(codes.high), zero));
}
DROVER_INLINE ColI i_dot_byte(ColI sum, ByteCodes w, const int8_t* x) { return dot_columns(sum, w, x); }

}  // namespace
}  // namespace drover

#endif  // DROVER_KERNELS_SIMD_DOT_NEON_H_
