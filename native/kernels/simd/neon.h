// The vocabulary with NEON, as every 64-bit ARM CPU has it: a 16-lane vector is four registers. Contracts: scalar.h.
#ifndef DROVER_KERNELS_SIMD_NEON_H_
#define DROVER_KERNELS_SIMD_NEON_H_

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#include "half.h"

#define DROVER_INLINE inline __attribute__((always_inline, unused))

namespace drover {
namespace {

struct F32x16 {
  float32x4_t v[4];
};
struct I32x16 {
  int32x4_t v[4];
};

inline constexpr char kFmaPath[] = "fmla, 128 bits";

// ~0 in the first `count` (0..16) of 16 lanes, at offset 16 - count.
alignas(64) [[maybe_unused]] constexpr uint32_t kFirstLanes[32] = {
    ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u,
    0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0};

// The same operation on each of the four registers.
#define DROVER_EACH(name, expression)             \
  DROVER_INLINE F32x16 name(F32x16 a, F32x16 b) { \
    F32x16 r;                                     \
    for (int i = 0; i < 4; i++) {                 \
      const float32x4_t x = a.v[i], y = b.v[i];   \
      r.v[i] = (expression);                      \
    }                                             \
    return r;                                     \
  }
#define DROVER_EACH_ONE(name, expression) \
  DROVER_INLINE F32x16 name(F32x16 a) {   \
    F32x16 r;                             \
    for (int i = 0; i < 4; i++) {         \
      const float32x4_t x = a.v[i];       \
      r.v[i] = (expression);              \
    }                                     \
    return r;                             \
  }
#define DROVER_EACH_INTEGER(name, expression)     \
  DROVER_INLINE I32x16 name(I32x16 a, I32x16 b) { \
    I32x16 r;                                     \
    for (int i = 0; i < 4; i++) {                 \
      const int32x4_t x = a.v[i], y = b.v[i];     \
      r.v[i] = (expression);                      \
    }                                             \
    return r;                                     \
  }

// FMAX and FMIN let a NaN win; the contract is to take the second operand then.
DROVER_INLINE float32x4_t larger_or_second(float32x4_t x, float32x4_t y) { return vbslq_f32(vcgtq_f32(x, y), x, y); }
DROVER_INLINE float32x4_t smaller_or_second(float32x4_t x, float32x4_t y) { return vbslq_f32(vcltq_f32(x, y), x, y); }

DROVER_INLINE F32x16 f_set(float value) {
  const float32x4_t four = vdupq_n_f32(value);
  return {{four, four, four, four}};
}
DROVER_INLINE F32x16 f_zero() { return f_set(0); }
DROVER_INLINE F32x16 f_load(const float* p) {
  return {{vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}};
}
DROVER_INLINE void f_store(float* p, F32x16 a) {
  for (int i = 0; i < 4; i++) vst1q_f32(p + i * 4, a.v[i]);
}
// There are no masked loads and stores: a part goes through the stack.
DROVER_INLINE F32x16 f_load_part(const float* p, uint32_t count) {
  float lane[16] = {};
  for (uint32_t i = 0; i < count; i++) lane[i] = p[i];
  return f_load(lane);
}
DROVER_INLINE void f_store_part(float* p, F32x16 a, uint32_t count) {
  float lane[16];
  f_store(lane, a);
  for (uint32_t i = 0; i < count; i++) p[i] = lane[i];
}
DROVER_INLINE F32x16 f_load_half(const uint16_t* p) {
  const float16x8_t low = vreinterpretq_f16_u16(vld1q_u16(p)), high = vreinterpretq_f16_u16(vld1q_u16(p + 8));
  return {{vcvt_f32_f16(vget_low_f16(low)), vcvt_high_f32_f16(low), vcvt_f32_f16(vget_low_f16(high)),
           vcvt_high_f32_f16(high)}};
}
DROVER_INLINE F32x16 f_load_bfloat(const uint16_t* p) {
  F32x16 r;
  for (int i = 0; i < 4; i++) r.v[i] = vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + i * 4), 16));
  return r;
}
DROVER_INLINE F32x16 f_load_i8(const int8_t* p) {
  const int8x16_t codes = vld1q_s8(p);
  const int16x8_t low = vmovl_s8(vget_low_s8(codes)), high = vmovl_high_s8(codes);
  return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_high_s16(low)),
           vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_high_s16(high))}};
}
DROVER_INLINE F32x16 f_load_e4m3(const uint8_t* p) {
  uint16_t halves[16];
  const int8x16_t codes = vreinterpretq_s8_u8(vld1q_u8(p));
  const uint16x8_t mask = vdupq_n_u16(0xbfff);
  vst1q_u16(halves, vandq_u16(vreinterpretq_u16_s16(vshlq_n_s16(vmovl_s8(vget_low_s8(codes)), 7)), mask));
  vst1q_u16(halves + 8, vandq_u16(vreinterpretq_u16_s16(vshlq_n_s16(vmovl_high_s8(codes), 7)), mask));
  return f_load_half(halves);
}
template <int kByte>
DROVER_INLINE F32x16 f_load_line(const uint8_t* line) {
  F32x16 r;
  for (int i = 0; i < 4; i++) {
    const uint32x4_t lanes = vreinterpretq_u32_u8(vld1q_u8(line + i * 16));
    const uint32x4_t codes = vandq_u32(vshlq_u32(lanes, vdupq_n_s32(-8 * kByte)), vdupq_n_u32(255));
    r.v[i] = vcvtq_f32_s32(vsubq_s32(vreinterpretq_s32_u32(codes), vdupq_n_s32(128)));
  }
  return r;
}
template <int kByte>
DROVER_INLINE F32x16 f_load_pairs(const int8_t* p) {
  int8_t codes[16];
  vst1q_s8(codes, vld2q_s8(p).val[kByte]);
  return f_load_i8(codes);
}
DROVER_EACH(f_add, vaddq_f32(x, y))
DROVER_EACH(f_sub, vsubq_f32(x, y))
DROVER_EACH(f_mul, vmulq_f32(x, y))
DROVER_EACH(f_div, vdivq_f32(x, y))
DROVER_EACH(f_max, larger_or_second(x, y))
DROVER_EACH(f_min, smaller_or_second(x, y))
DROVER_INLINE F32x16 f_fma(F32x16 a, F32x16 b, F32x16 c) {
  for (int i = 0; i < 4; i++) c.v[i] = vfmaq_f32(c.v[i], a.v[i], b.v[i]);
  return c;
}
DROVER_INLINE F32x16 f_fnma(F32x16 a, F32x16 b, F32x16 c) {
  for (int i = 0; i < 4; i++) c.v[i] = vfmsq_f32(c.v[i], a.v[i], b.v[i]);
  return c;
}
DROVER_EACH_ONE(f_abs, vabsq_f32(x))
DROVER_EACH_ONE(f_round, vrndnq_f32(x))
DROVER_INLINE F32x16 f_select_less(F32x16 a, F32x16 b, F32x16 x, F32x16 y) {
  for (int i = 0; i < 4; i++) y.v[i] = vbslq_f32(vcltq_f32(a.v[i], b.v[i]), x.v[i], y.v[i]);
  return y;
}
DROVER_INLINE F32x16 f_keep_first(F32x16 a, uint32_t count, F32x16 b) {
  for (uint32_t i = 0; i < 4; i++) b.v[i] = vbslq_f32(vld1q_u32(kFirstLanes + 16 - count + i * 4), a.v[i], b.v[i]);
  return b;
}
DROVER_INLINE float f_sum(F32x16 a) {
  const float32x4_t four = vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3]));
  const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
DROVER_INLINE float f_largest(F32x16 a) {
  const float32x4_t four = larger_or_second(larger_or_second(a.v[0], a.v[2]), larger_or_second(a.v[1], a.v[3]));
  const float32x4_t two = larger_or_second(four, vextq_f32(four, four, 2));
  const float x = vgetq_lane_f32(two, 0), y = vgetq_lane_f32(two, 1);
  return x > y ? x : y;
}
DROVER_INLINE float32x4_t power_of_two(float32x4_t n) {
  return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23));
}
DROVER_EACH(f_scale_power, vmulq_f32(x, power_of_two(y)))

DROVER_INLINE I32x16 i_set(int32_t value) {
  const int32x4_t four = vdupq_n_s32(value);
  return {{four, four, four, four}};
}
DROVER_INLINE I32x16 i_zero() { return i_set(0); }
DROVER_INLINE I32x16 i_load(const int32_t* p) {
  return {{vld1q_s32(p), vld1q_s32(p + 4), vld1q_s32(p + 8), vld1q_s32(p + 12)}};
}
DROVER_EACH_INTEGER(i_add, vaddq_s32(x, y))
DROVER_INLINE F32x16 f_from_i(I32x16 a) {
  F32x16 r;
  for (int i = 0; i < 4; i++) r.v[i] = vcvtq_f32_s32(a.v[i]);
  return r;
}
DROVER_INLINE I32x16 i_from_f(F32x16 a) {
  I32x16 r;
  for (int i = 0; i < 4; i++) r.v[i] = vcvtnq_s32_f32(a.v[i]);
  return r;
}
DROVER_INLINE void i_store_i8(int8_t* p, I32x16 a) {
  const int16x8_t low = vcombine_s16(vmovn_s32(a.v[0]), vmovn_s32(a.v[1]));
  const int16x8_t high = vcombine_s16(vmovn_s32(a.v[2]), vmovn_s32(a.v[3]));
  vst1q_s8(p, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
}
DROVER_INLINE void i_store_i16(int16_t* p, I32x16 a) {
  vst1q_s16(p, vcombine_s16(vmovn_s32(a.v[0]), vmovn_s32(a.v[1])));
  vst1q_s16(p + 8, vcombine_s16(vmovn_s32(a.v[2]), vmovn_s32(a.v[3])));
}
DROVER_INLINE int32_t i_sum(I32x16 a) {
  return vaddvq_s32(vaddq_s32(vaddq_s32(a.v[0], a.v[1]), vaddq_s32(a.v[2], a.v[3])));
}

#undef DROVER_EACH
#undef DROVER_EACH_ONE
#undef DROVER_EACH_INTEGER

}  // namespace
}  // namespace drover

#endif  // DROVER_KERNELS_SIMD_NEON_H_
