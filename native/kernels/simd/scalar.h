// The vocabulary in plain C++: 16-lane vectors as arrays. The contract of every operation is written here; the other
// vocabularies give the same bits with registers. Included once per ISA file, inside no namespace.
#ifndef DROVER_KERNELS_SIMD_SCALAR_H_
#define DROVER_KERNELS_SIMD_SCALAR_H_

#include <cstddef>
#include <cstdint>

#include "half.h"

#define DROVER_INLINE inline __attribute__((always_inline, unused))

namespace drover {
namespace {

struct F32x16 {
  float lane[16];
};
struct I32x16 {
  int32_t lane[16];
};

// What multiplies floats, for people.
inline constexpr char kFmaPath[] = "plain C++, fused multiply-adds one by one";

// Float lanes.
DROVER_INLINE F32x16 f_zero() { return F32x16{}; }
DROVER_INLINE F32x16 f_set(float value) {
  F32x16 r;
  for (int i = 0; i < 16; i++) r.lane[i] = value;
  return r;
}
// Files may hold numbers at any address.
DROVER_INLINE F32x16 f_load(const float* p) {
  F32x16 r;
  __builtin_memcpy(r.lane, p, sizeof r.lane);
  return r;
}
// The first `count` (0..16) lanes from memory, the rest 0; memory past them is not touched.
DROVER_INLINE F32x16 f_load_part(const float* p, uint32_t count) {
  F32x16 r{};
  for (uint32_t i = 0; i < count; i++) r.lane[i] = p[i];
  return r;
}
DROVER_INLINE void f_store(float* p, F32x16 a) {
  for (int i = 0; i < 16; i++) p[i] = a.lane[i];
}
DROVER_INLINE void f_store_part(float* p, F32x16 a, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) p[i] = a.lane[i];
}
DROVER_INLINE F32x16 f_load_half(const uint16_t* p) {
  F32x16 r;
  uint16_t half[16];
  __builtin_memcpy(half, p, sizeof half);
  for (int i = 0; i < 16; i++) r.lane[i] = half_to_float(half[i]);
  return r;
}
DROVER_INLINE F32x16 f_load_bfloat(const uint16_t* p) {
  F32x16 r;
  uint16_t bits[16];
  __builtin_memcpy(bits, p, sizeof bits);
  for (int i = 0; i < 16; i++) r.lane[i] = bfloat_to_float(bits[i]);
  return r;
}
DROVER_INLINE F32x16 f_load_i8(const int8_t* p) {
  F32x16 r;
  for (int i = 0; i < 16; i++) r.lane[i] = static_cast<float>(p[i]);
  return r;
}
// Finite e4m3 codes as numbers, divided by 256.
DROVER_INLINE F32x16 f_load_e4m3(const uint8_t* p) {
  F32x16 r;
  for (int i = 0; i < 16; i++) r.lane[i] = half_to_float(e4m3_as_half(p[i]));
  return r;
}
// Lane i: byte 4 i + kByte of the line (64 bytes) less 128.
template <int kByte>
DROVER_INLINE F32x16 f_load_line(const uint8_t* line) {
  F32x16 r;
  for (int i = 0; i < 16; i++) r.lane[i] = static_cast<float>(line[4 * i + kByte] - 128);
  return r;
}
// Lane i: the signed byte p[2 i + kByte].
template <int kByte>
DROVER_INLINE F32x16 f_load_pairs(const int8_t* p) {
  F32x16 r;
  for (int i = 0; i < 16; i++) r.lane[i] = static_cast<float>(p[2 * i + kByte]);
  return r;
}
#define DROVER_LANES(name, expression)            \
  DROVER_INLINE F32x16 name(F32x16 a, F32x16 b) { \
    F32x16 r;                                     \
    for (int i = 0; i < 16; i++) {                \
      const float x = a.lane[i], y = b.lane[i];   \
      r.lane[i] = (expression);                   \
    }                                             \
    return r;                                     \
  }
DROVER_LANES(f_add, x + y)
DROVER_LANES(f_sub, x - y)
DROVER_LANES(f_mul, x* y)
DROVER_LANES(f_div, x / y)
DROVER_LANES(f_max, x > y ? x : y)  // b where either is NaN, as x86 does
DROVER_LANES(f_min, x < y ? x : y)
#undef DROVER_LANES
// a * b + c with one rounding; f_fnma: -(a * b) + c.
DROVER_INLINE F32x16 f_fma(F32x16 a, F32x16 b, F32x16 c) {
  F32x16 r;
  for (int i = 0; i < 16; i++) r.lane[i] = __builtin_fmaf(a.lane[i], b.lane[i], c.lane[i]);
  return r;
}
DROVER_INLINE F32x16 f_fnma(F32x16 a, F32x16 b, F32x16 c) {
  F32x16 r;
  for (int i = 0; i < 16; i++) r.lane[i] = __builtin_fmaf(-a.lane[i], b.lane[i], c.lane[i]);
  return r;
}
DROVER_INLINE F32x16 f_abs(F32x16 a) {
  F32x16 r;
  for (int i = 0; i < 16; i++) r.lane[i] = __builtin_fabsf(a.lane[i]);
  return r;
}
// Round to nearest even integer, as float.
DROVER_INLINE F32x16 f_round(F32x16 a) {
  F32x16 r;
  for (int i = 0; i < 16; i++) r.lane[i] = __builtin_nearbyintf(a.lane[i]);
  return r;
}
// Lanes where a < b (ordered) take x, others y.
DROVER_INLINE F32x16 f_select_less(F32x16 a, F32x16 b, F32x16 x, F32x16 y) {
  F32x16 r;
  for (int i = 0; i < 16; i++) r.lane[i] = a.lane[i] < b.lane[i] ? x.lane[i] : y.lane[i];
  return r;
}
// Lanes [0, count) of a, the rest of b.
DROVER_INLINE F32x16 f_keep_first(F32x16 a, uint32_t count, F32x16 b) {
  F32x16 r;
  for (uint32_t i = 0; i < 16; i++) r.lane[i] = i < count ? a.lane[i] : b.lane[i];
  return r;
}
// Sum and maximum in the one order all ISAs use: halves of 8, 4, 2, 1.
DROVER_INLINE float f_sum(F32x16 a) {
  for (int half = 8; half >= 1; half /= 2)
    for (int i = 0; i < half; i++) a.lane[i] = a.lane[i] + a.lane[i + half];
  return a.lane[0];
}
DROVER_INLINE float f_largest(F32x16 a) {
  for (int half = 8; half >= 1; half /= 2)
    for (int i = 0; i < half; i++) a.lane[i] = a.lane[i] > a.lane[i + half] ? a.lane[i] : a.lane[i + half];
  return a.lane[0];
}
// a * 2^n for integral lanes of n in [-126, 127], by adding to the exponent field of 2^0.
DROVER_INLINE F32x16 f_scale_power(F32x16 a, F32x16 n) {
  F32x16 r;
  for (int i = 0; i < 16; i++) {
    r.lane[i] = a.lane[i] * bits_to_float(static_cast<uint32_t>(static_cast<int32_t>(n.lane[i]) + 127) << 23);
  }
  return r;
}

// Integer lanes.
DROVER_INLINE I32x16 i_zero() { return I32x16{}; }
DROVER_INLINE I32x16 i_set(int32_t value) {
  I32x16 r;
  for (int i = 0; i < 16; i++) r.lane[i] = value;
  return r;
}
DROVER_INLINE I32x16 i_load(const int32_t* p) {
  I32x16 r;
  for (int i = 0; i < 16; i++) r.lane[i] = p[i];
  return r;
}
DROVER_INLINE I32x16 i_add(I32x16 a, I32x16 b) {
  I32x16 r;
  for (int i = 0; i < 16; i++)
    r.lane[i] = static_cast<int32_t>(static_cast<uint32_t>(a.lane[i]) + static_cast<uint32_t>(b.lane[i]));
  return r;
}
DROVER_INLINE I32x16 i_sub(I32x16 a, I32x16 b) {
  I32x16 r;
  for (int i = 0; i < 16; i++)
    r.lane[i] = static_cast<int32_t>(static_cast<uint32_t>(a.lane[i]) - static_cast<uint32_t>(b.lane[i]));
  return r;
}
DROVER_INLINE I32x16 i_mul(I32x16 a, I32x16 b) {
  I32x16 r;
  for (int i = 0; i < 16; i++)
    r.lane[i] = static_cast<int32_t>(static_cast<uint32_t>(a.lane[i]) * static_cast<uint32_t>(b.lane[i]));
  return r;
}
DROVER_INLINE F32x16 f_from_i(I32x16 a) {
  F32x16 r;
  for (int i = 0; i < 16; i++) r.lane[i] = static_cast<float>(a.lane[i]);
  return r;
}
// Nearest even; lanes must be in range of int32.
DROVER_INLINE I32x16 i_from_f(F32x16 a) {
  I32x16 r;
  for (int i = 0; i < 16; i++) r.lane[i] = static_cast<int32_t>(__builtin_nearbyintf(a.lane[i]));
  return r;
}
// Stores lanes as int8; lanes must be in [-128, 127].
DROVER_INLINE void i_store_i8(int8_t* p, I32x16 a) {
  for (int i = 0; i < 16; i++) p[i] = static_cast<int8_t>(a.lane[i]);
}
// Stores lanes as int16; lanes must be in [-32768, 32767].
DROVER_INLINE void i_store_i16(int16_t* p, I32x16 a) {
  for (int i = 0; i < 16; i++) p[i] = static_cast<int16_t>(a.lane[i]);
}
DROVER_INLINE int32_t i_sum(I32x16 a) {
  uint32_t sum = 0;
  for (int i = 0; i < 16; i++) sum += static_cast<uint32_t>(a.lane[i]);
  return static_cast<int32_t>(sum);
}

}  // namespace
}  // namespace drover

#endif  // DROVER_KERNELS_SIMD_SCALAR_H_
