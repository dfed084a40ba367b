// Small codes and halves with AVX2 and F16C. Contracts: codes_scalar.h.
#ifndef DROVER_KERNELS_SIMD_CODES_AVX2_H_
#define DROVER_KERNELS_SIMD_CODES_AVX2_H_

#include <cstring>

#include "avx2.h"

namespace drover {
namespace {

inline constexpr uint32_t kSumVectors = 4;

DROVER_INLINE F32x16 f_load_u8(const uint8_t* p) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))),
          _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 8))))};
}
// A lane gets the word that holds its code, shifted so that the code comes first.
DROVER_INLINE __m256 word_codes(const uint8_t* p, __m256i shifts, int32_t mask) {
  int32_t word;
  memcpy(&word, p, sizeof word);
  return _mm256_cvtepi32_ps(
      _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32(word), shifts), _mm256_set1_epi32(mask)));
}
DROVER_INLINE F32x16 f_load_u4(const uint8_t* p) {
  const __m256i shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
  return {word_codes(p, shifts, 15), word_codes(p + 4, shifts, 15)};
}
DROVER_INLINE F32x16 f_load_u4_mixed(const uint8_t* p) { return f_load_u4(p); }
DROVER_INLINE F32x16 f_unmix_u4(F32x16 a) { return a; }
DROVER_INLINE F32x16 f_load_u2(const uint8_t* p) {
  return {word_codes(p, _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14), 3),
          word_codes(p, _mm256_setr_epi32(16, 18, 20, 22, 24, 26, 28, 30), 3)};
}
DROVER_INLINE void load_two_halves(const uint8_t* p, float* first, float* second) {
  int32_t word;
  memcpy(&word, p, sizeof word);
  const __m128 two = _mm_cvtph_ps(_mm_cvtsi32_si128(word));
  *first = _mm_cvtss_f32(two);
  *second = _mm_cvtss_f32(_mm_movehdup_ps(two));
}
DROVER_INLINE void f_store_half(uint16_t* p, F32x16 a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a.low, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(a.high, _MM_FROUND_TO_NEAREST_INT));
}
// Sums of 8 vectors, in the order 0 2 4 6 1 3 5 7.
DROVER_INLINE __m256 eight_sums(const F32x16* a) {
  // Two vectors become one at each step, of halves that were added: of 8, 4, 2 lanes and 1, as f_sum does.
  __m256 four[4], two[2];
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    const __m256 x = _mm256_add_ps(a[2 * i].low, a[2 * i].high), y = _mm256_add_ps(a[2 * i + 1].low, a[2 * i + 1].high);
    four[i] = _mm256_add_ps(_mm256_permute2f128_ps(x, y, 0x20), _mm256_permute2f128_ps(x, y, 0x31));
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; i++) {
    const __m256 x = four[2 * i], y = four[2 * i + 1];
    two[i] = _mm256_add_ps(_mm256_shuffle_ps(x, y, 0x44), _mm256_shuffle_ps(x, y, 0xee));
  }
  return _mm256_add_ps(_mm256_shuffle_ps(two[0], two[1], 0x88), _mm256_shuffle_ps(two[0], two[1], 0xdd));
}
DROVER_INLINE F32x16 f_sums(const F32x16* a) {
  const __m256i places = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  return {_mm256_permutevar8x32_ps(eight_sums(a), places), _mm256_permutevar8x32_ps(eight_sums(a + 8), places)};
}
DROVER_INLINE bool all_words_below(const uint32_t* p, uint32_t limit) {
  // The largest of a word and the limit less one is the limit less one: there is no unsigned comparison.
  const __m256i most = _mm256_set1_epi32(static_cast<int32_t>(limit - 1));
  const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 8));
  const __m256i largest = _mm256_max_epu32(_mm256_max_epu32(low, high), most);
  return limit != 0 && _mm256_movemask_epi8(_mm256_cmpeq_epi32(largest, most)) == -1;
}

}  // namespace
}  // namespace drover

#endif  // DROVER_KERNELS_SIMD_CODES_AVX2_H_
