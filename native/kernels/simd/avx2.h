// The vocabulary with AVX2, FMA and F16C: a 16-lane vector is two registers. Contracts: scalar.h.
#ifndef DROVER_KERNELS_SIMD_AVX2_H_
#define DROVER_KERNELS_SIMD_AVX2_H_

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "half.h"

#define DROVER_INLINE inline __attribute__((always_inline, unused))

namespace drover {
namespace {

struct F32x16 {
  __m256 low, high;
};
struct I32x16 {
  __m256i low, high;
};

inline constexpr char kFmaPath[] = "vfmadd, 256 bits";

// -1 in the first `count` (0..16) of 16 lanes, at offset 16 - count.
alignas(64) [[maybe_unused]] constexpr int32_t kFirstLanes[32] = {
    -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
DROVER_INLINE __m256i first_lanes_low(uint32_t count) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kFirstLanes + 16 - count));
}
DROVER_INLINE __m256i first_lanes_high(uint32_t count) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kFirstLanes + 24 - count));
}

DROVER_INLINE F32x16 f_zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
DROVER_INLINE F32x16 f_set(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
DROVER_INLINE F32x16 f_load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
DROVER_INLINE F32x16 f_load_part(const float* p, uint32_t count) {
  return {_mm256_maskload_ps(p, first_lanes_low(count)), _mm256_maskload_ps(p + 8, first_lanes_high(count))};
}
DROVER_INLINE void f_store(float* p, F32x16 a) {
  _mm256_storeu_ps(p, a.low);
  _mm256_storeu_ps(p + 8, a.high);
}
DROVER_INLINE void f_store_part(float* p, F32x16 a, uint32_t count) {
  _mm256_maskstore_ps(p, first_lanes_low(count), a.low);
  _mm256_maskstore_ps(p + 8, first_lanes_high(count), a.high);
}
DROVER_INLINE F32x16 f_load_half(const uint16_t* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
          _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}
DROVER_INLINE __m256 widen_bfloat(const uint16_t* p) {
  return _mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16));
}
DROVER_INLINE F32x16 f_load_bfloat(const uint16_t* p) { return {widen_bfloat(p), widen_bfloat(p + 8)}; }
DROVER_INLINE F32x16 f_load_e4m3(const uint8_t* p) {
  const __m256i words = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  const __m256i halves = _mm256_and_si256(_mm256_slli_epi16(words, 7), _mm256_set1_epi16(~0x4000));
  return {_mm256_cvtph_ps(_mm256_castsi256_si128(halves)), _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1))};
}
template <int kByte>
DROVER_INLINE __m256 line_bytes(const uint8_t* line) {
  const __m256i lanes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(line));
  const __m256i codes = _mm256_and_si256(_mm256_srli_epi32(lanes, 8 * kByte), _mm256_set1_epi32(255));
  return _mm256_cvtepi32_ps(_mm256_sub_epi32(codes, _mm256_set1_epi32(128)));
}
template <int kByte>
DROVER_INLINE F32x16 f_load_line(const uint8_t* line) {
  return {line_bytes<kByte>(line), line_bytes<kByte>(line + 32)};
}
template <int kByte>
DROVER_INLINE __m256 pair_bytes(const int8_t* p) {
  const __m256i words = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_cvtepi32_ps(_mm256_srai_epi32(kByte == 0 ? _mm256_slli_epi32(words, 16) : words, 16));
}
template <int kByte>
DROVER_INLINE F32x16 f_load_pairs(const int8_t* p) {
  return {pair_bytes<kByte>(p), pair_bytes<kByte>(p + 16)};
}
DROVER_INLINE F32x16 f_add(F32x16 a, F32x16 b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
DROVER_INLINE F32x16 f_sub(F32x16 a, F32x16 b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
DROVER_INLINE F32x16 f_mul(F32x16 a, F32x16 b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
DROVER_INLINE F32x16 f_div(F32x16 a, F32x16 b) { return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)}; }
DROVER_INLINE F32x16 f_max(F32x16 a, F32x16 b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
DROVER_INLINE F32x16 f_min(F32x16 a, F32x16 b) { return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)}; }
DROVER_INLINE F32x16 f_fma(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
DROVER_INLINE F32x16 f_fnma(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm256_fnmadd_ps(a.low, b.low, c.low), _mm256_fnmadd_ps(a.high, b.high, c.high)};
}
DROVER_INLINE F32x16 f_abs(F32x16 a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, a.low), _mm256_andnot_ps(sign, a.high)};
}
DROVER_INLINE F32x16 f_round(F32x16 a) {
  return {_mm256_round_ps(a.low, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
          _mm256_round_ps(a.high, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
DROVER_INLINE F32x16 f_select_less(F32x16 a, F32x16 b, F32x16 x, F32x16 y) {
  return {_mm256_blendv_ps(y.low, x.low, _mm256_cmp_ps(a.low, b.low, _CMP_LT_OQ)),
          _mm256_blendv_ps(y.high, x.high, _mm256_cmp_ps(a.high, b.high, _CMP_LT_OQ))};
}
DROVER_INLINE F32x16 f_keep_first(F32x16 a, uint32_t count, F32x16 b) {
  return {_mm256_blendv_ps(b.low, a.low, _mm256_castsi256_ps(first_lanes_low(count))),
          _mm256_blendv_ps(b.high, a.high, _mm256_castsi256_ps(first_lanes_high(count)))};
}
DROVER_INLINE float f_sum(F32x16 a) {
  const __m256 eight = _mm256_add_ps(a.low, a.high);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
DROVER_INLINE float f_largest(F32x16 a) {
  const __m256 eight = _mm256_max_ps(a.low, a.high);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}
DROVER_INLINE __m256 power_of_two(__m256 n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvttps_epi32(n), _mm256_set1_epi32(127)), 23));
}
DROVER_INLINE F32x16 f_scale_power(F32x16 a, F32x16 n) {
  return {_mm256_mul_ps(a.low, power_of_two(n.low)), _mm256_mul_ps(a.high, power_of_two(n.high))};
}

DROVER_INLINE I32x16 i_zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
DROVER_INLINE I32x16 i_load(const int32_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 8))};
}
DROVER_INLINE I32x16 i_add(I32x16 a, I32x16 b) {
  return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)};
}
DROVER_INLINE F32x16 f_from_i(I32x16 a) { return {_mm256_cvtepi32_ps(a.low), _mm256_cvtepi32_ps(a.high)}; }
DROVER_INLINE I32x16 i_from_f(F32x16 a) { return {_mm256_cvtps_epi32(a.low), _mm256_cvtps_epi32(a.high)}; }
DROVER_INLINE void i_store_i8(int8_t* p, I32x16 a) {
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a.low, a.high), 0xd8);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}
DROVER_INLINE void i_store_i16(int16_t* p, I32x16 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(_mm256_packs_epi32(a.low, a.high), 0xd8));
}
DROVER_INLINE int32_t i_sum(I32x16 a) {
  const __m256i eight = _mm256_add_epi32(a.low, a.high);
  const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  const __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
}

}  // namespace
}  // namespace drover

#endif  // DROVER_KERNELS_SIMD_AVX2_H_
