// Small codes and halves with AVX-512. Contracts: codes_scalar.h.
#ifndef DROVER_KERNELS_SIMD_CODES_AVX512_H_
#define DROVER_KERNELS_SIMD_CODES_AVX512_H_

#include <cstring>

#include "avx512.h"

namespace drover {
namespace {

inline constexpr uint32_t kSumVectors = 8;

DROVER_INLINE F32x16 f_load_u8(const uint8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
DROVER_INLINE int32_t load_word(const uint8_t* p) {
  int32_t word;
  memcpy(&word, p, sizeof word);
  return word;
}
// A lane gets the word that holds its code, shifted so that the code comes first; the low four bits of it choose the
// number from a register, which saves a mask and a conversion. Even lanes have the first word's codes, odd ones the
// second's.
DROVER_INLINE F32x16 f_load_u4_mixed(const uint8_t* p) {
  int64_t words;
  memcpy(&words, p, sizeof words);
  const __m512i shifts = _mm512_setr_epi32(0, 0, 4, 4, 8, 8, 12, 12, 16, 16, 20, 20, 24, 24, 28, 28);
  const __m512 numbers = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return {_mm512_permutexvar_ps(_mm512_srlv_epi32(_mm512_set1_epi64(words), shifts), numbers)};
}
DROVER_INLINE F32x16 f_unmix_u4(F32x16 a) {
  const __m512i lanes = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
  return {_mm512_permutexvar_ps(lanes, a.v)};
}
DROVER_INLINE F32x16 f_load_u2(const uint8_t* p) {
  const __m512i shifts = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512 numbers = _mm512_setr_ps(0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3);
  return {_mm512_permutexvar_ps(_mm512_srlv_epi32(_mm512_set1_epi32(load_word(p)), shifts), numbers)};
}
DROVER_INLINE void load_two_halves(const uint8_t* p, float* first, float* second) {
  const __m128 two = _mm_cvtph_ps(_mm_cvtsi32_si128(load_word(p)));
  *first = _mm_cvtss_f32(two);
  *second = _mm_cvtss_f32(_mm_movehdup_ps(two));
}
DROVER_INLINE void f_store_half(uint16_t* p, F32x16 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}
DROVER_INLINE F32x16 f_sums(const F32x16* a) {
  // Two vectors become one at each step, of halves that were added: of 8, 4, 2 lanes and 1, as f_sum does.
  __m512 eight[8], four[4], two[2];
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) {
    const __m512 x = a[2 * i].v, y = a[2 * i + 1].v;
    eight[i] = _mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x44), _mm512_shuffle_f32x4(x, y, 0xee));
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    const __m512 x = eight[2 * i], y = eight[2 * i + 1];
    four[i] = _mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x88), _mm512_shuffle_f32x4(x, y, 0xdd));
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; i++) {
    const __m512 x = four[2 * i], y = four[2 * i + 1];
    two[i] = _mm512_add_ps(_mm512_shuffle_ps(x, y, 0x44), _mm512_shuffle_ps(x, y, 0xee));
  }
  const __m512 one = _mm512_add_ps(_mm512_shuffle_ps(two[0], two[1], 0x88), _mm512_shuffle_ps(two[0], two[1], 0xdd));
  // Lane 4 q + r has the sum of vector q + 4 r.
  const __m512i places = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return {_mm512_permutexvar_ps(places, one)};
}
DROVER_INLINE bool all_words_below(const uint32_t* p, uint32_t limit) {
  return _mm512_cmplt_epu32_mask(_mm512_loadu_si512(p), _mm512_set1_epi32(static_cast<int32_t>(limit))) == 0xffff;
}

}  // namespace
}  // namespace drover

#endif  // DROVER_KERNELS_SIMD_CODES_AVX512_H_
