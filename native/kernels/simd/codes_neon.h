// Small codes and halves with NEON. Contracts: codes_scalar.h.
#ifndef DROVER_KERNELS_SIMD_CODES_NEON_H_
#define DROVER_KERNELS_SIMD_CODES_NEON_H_

#include <cstring>

#include "neon.h"

namespace drover {
namespace {

inline constexpr uint32_t kSumVectors = 4;

DROVER_INLINE F32x16 widen_codes(uint8x16_t codes) {
  const uint16x8_t low = vmovl_u8(vget_low_u8(codes)), high = vmovl_u8(vget_high_u8(codes));
  return {{vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(low))),
           vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(high)))}};
}
DROVER_INLINE F32x16 f_load_u8(const uint8_t* p) { return widen_codes(vld1q_u8(p)); }
DROVER_INLINE F32x16 f_load_u4(const uint8_t* p) {
  const uint8x8_t bytes = vld1_u8(p);
  const uint8x8x2_t codes = vzip_u8(vand_u8(bytes, vdup_n_u8(15)), vshr_n_u8(bytes, 4));
  return widen_codes(vcombine_u8(codes.val[0], codes.val[1]));
}
DROVER_INLINE F32x16 f_load_u4_mixed(const uint8_t* p) { return f_load_u4(p); }
DROVER_INLINE F32x16 f_unmix_u4(F32x16 a) { return a; }
DROVER_INLINE F32x16 f_load_u2(const uint8_t* p) {
  uint8_t codes[16];
  for (uint32_t i = 0; i < 16; i++) codes[i] = p[i / 4] >> (i % 4 * 2) & 3;
  return widen_codes(vld1q_u8(codes));
}
DROVER_INLINE void load_two_halves(const uint8_t* p, float* first, float* second) {
  uint32_t word;
  memcpy(&word, p, sizeof word);
  const float32x4_t two = vcvt_f32_f16(vreinterpret_f16_u32(vdup_n_u32(word)));
  *first = vgetq_lane_f32(two, 0);
  *second = vgetq_lane_f32(two, 1);
}
DROVER_INLINE void f_store_half(uint16_t* p, F32x16 a) {
  for (int i = 0; i < 4; i++) vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(a.v[i])));
}
DROVER_INLINE F32x16 f_sums(const F32x16* a) {
  F32x16 r;
  for (int group = 0; group < 4; group++) {
    float32x4_t four[4];
    for (int i = 0; i < 4; i++) {
      const F32x16& x = a[4 * group + i];
      four[i] = vaddq_f32(vaddq_f32(x.v[0], x.v[2]), vaddq_f32(x.v[1], x.v[3]));
    }
    // Lanes i and i + 2 of each, then the two that are left.
    const float32x4_t first = vaddq_f32(vcombine_f32(vget_low_f32(four[0]), vget_low_f32(four[1])),
                                        vcombine_f32(vget_high_f32(four[0]), vget_high_f32(four[1])));
    const float32x4_t second = vaddq_f32(vcombine_f32(vget_low_f32(four[2]), vget_low_f32(four[3])),
                                         vcombine_f32(vget_high_f32(four[2]), vget_high_f32(four[3])));
    r.v[group] = vaddq_f32(vuzp1q_f32(first, second), vuzp2q_f32(first, second));
  }
  return r;
}
DROVER_INLINE bool all_words_below(const uint32_t* p, uint32_t limit) {
  const uint32x4_t most = vdupq_n_u32(limit);
  uint32x4_t below = vcltq_u32(vld1q_u32(p), most);
  for (int i = 1; i < 4; i++) below = vandq_u32(below, vcltq_u32(vld1q_u32(p + 4 * i), most));
  return vminvq_u32(below) != 0;
}

}  // namespace
}  // namespace drover

#endif  // DROVER_KERNELS_SIMD_CODES_NEON_H_
