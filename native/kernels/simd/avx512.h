// The vocabulary with AVX-512 (F, BW, DQ, VL): a 16-lane vector is one register. Contracts: scalar.h.
#ifndef DROVER_KERNELS_SIMD_AVX512_H_
#define DROVER_KERNELS_SIMD_AVX512_H_

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "half.h"

#define DROVER_INLINE inline __attribute__((always_inline, unused))

namespace drover {
namespace {

struct F32x16 {
  __m512 v;
};
struct I32x16 {
  __m512i v;
};

inline constexpr char kFmaPath[] = "vfmadd, 512 bits";

DROVER_INLINE __mmask16 first_lanes(uint32_t count) { return static_cast<__mmask16>((1u << count) - 1u); }

DROVER_INLINE F32x16 f_zero() { return {_mm512_setzero_ps()}; }
DROVER_INLINE F32x16 f_set(float value) { return {_mm512_set1_ps(value)}; }
DROVER_INLINE F32x16 f_load(const float* p) { return {_mm512_loadu_ps(p)}; }
DROVER_INLINE F32x16 f_load_part(const float* p, uint32_t count) {
  return {_mm512_maskz_loadu_ps(first_lanes(count), p)};
}
DROVER_INLINE void f_store(float* p, F32x16 a) { _mm512_storeu_ps(p, a.v); }
DROVER_INLINE void f_store_part(float* p, F32x16 a, uint32_t count) {
  _mm512_mask_storeu_ps(p, first_lanes(count), a.v);
}
DROVER_INLINE F32x16 f_load_half(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
DROVER_INLINE F32x16 f_load_bfloat(const uint16_t* p) {
  return {_mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16))};
}
DROVER_INLINE F32x16 f_load_i8(const int8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
DROVER_INLINE F32x16 f_load_e4m3(const uint8_t* p) {
  const __m256i words = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return {_mm512_cvtph_ps(_mm256_and_si256(_mm256_slli_epi16(words, 7), _mm256_set1_epi16(~0x4000)))};
}
template <int kByte>
DROVER_INLINE F32x16 f_load_line(const uint8_t* line) {
  const __m512i codes =
      _mm512_and_si512(_mm512_srli_epi32(_mm512_loadu_si512(line), 8 * kByte), _mm512_set1_epi32(255));
  return {_mm512_cvtepi32_ps(_mm512_sub_epi32(codes, _mm512_set1_epi32(128)))};
}
template <int kByte>
DROVER_INLINE F32x16 f_load_pairs(const int8_t* p) {
  const __m512i words = _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return {_mm512_cvtepi32_ps(_mm512_srai_epi32(kByte == 0 ? _mm512_slli_epi32(words, 16) : words, 16))};
}
DROVER_INLINE F32x16 f_add(F32x16 a, F32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
DROVER_INLINE F32x16 f_sub(F32x16 a, F32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
DROVER_INLINE F32x16 f_mul(F32x16 a, F32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
DROVER_INLINE F32x16 f_div(F32x16 a, F32x16 b) { return {_mm512_div_ps(a.v, b.v)}; }
DROVER_INLINE F32x16 f_max(F32x16 a, F32x16 b) { return {_mm512_max_ps(a.v, b.v)}; }
DROVER_INLINE F32x16 f_min(F32x16 a, F32x16 b) { return {_mm512_min_ps(a.v, b.v)}; }
DROVER_INLINE F32x16 f_fma(F32x16 a, F32x16 b, F32x16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
DROVER_INLINE F32x16 f_fnma(F32x16 a, F32x16 b, F32x16 c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
DROVER_INLINE F32x16 f_abs(F32x16 a) { return {_mm512_abs_ps(a.v)}; }
DROVER_INLINE F32x16 f_round(F32x16 a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
DROVER_INLINE F32x16 f_select_less(F32x16 a, F32x16 b, F32x16 x, F32x16 y) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), y.v, x.v)};
}
DROVER_INLINE F32x16 f_keep_first(F32x16 a, uint32_t count, F32x16 b) {
  return {_mm512_mask_blend_ps(first_lanes(count), b.v, a.v)};
}
DROVER_INLINE float f_sum(F32x16 a) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
DROVER_INLINE float f_largest(F32x16 a) {
  const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}
DROVER_INLINE F32x16 f_scale_power(F32x16 a, F32x16 n) {
  const __m512i exponent = _mm512_add_epi32(_mm512_cvttps_epi32(n.v), _mm512_set1_epi32(127));
  return {_mm512_mul_ps(a.v, _mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23)))};
}

DROVER_INLINE I32x16 i_zero() { return {_mm512_setzero_si512()}; }
DROVER_INLINE I32x16 i_load(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
DROVER_INLINE I32x16 i_add(I32x16 a, I32x16 b) { return {_mm512_add_epi32(a.v, b.v)}; }
DROVER_INLINE F32x16 f_from_i(I32x16 a) { return {_mm512_cvtepi32_ps(a.v)}; }
DROVER_INLINE I32x16 i_from_f(F32x16 a) { return {_mm512_cvtps_epi32(a.v)}; }
DROVER_INLINE void i_store_i8(int8_t* p, I32x16 a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(a.v));
}
DROVER_INLINE void i_store_i16(int16_t* p, I32x16 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(a.v));
}
DROVER_INLINE int32_t i_sum(I32x16 a) { return _mm512_reduce_add_epi32(a.v); }

}  // namespace
}  // namespace drover

#endif  // DROVER_KERNELS_SIMD_AVX512_H_
