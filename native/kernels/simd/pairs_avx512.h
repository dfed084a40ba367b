// Pairs of bf16, k in the upper half of a lane and k + 1 in the lower: vdpbf16ps adds the product of the upper halves
// first, each product with one rounding, and takes subnormal numbers for zero. So its sums are those of fused
// multiply-adds over k = 0, 1, 2, … under FlushSubnormals, bit for bit.
#ifndef DROVER_KERNELS_SIMD_PAIRS_AVX512_H_
#define DROVER_KERNELS_SIMD_PAIRS_AVX512_H_

#define DROVER_PAIRS 1
#include "avx512.h"

namespace drover {
namespace {

struct Pairs16 {
  __m512i v;
};
// sum + x * w, the same two x for all lanes
DROVER_INLINE F32x16 p_dot(F32x16 sum, uint32_t x, Pairs16 w) {
  return {_mm512_dpbf16_ps(sum.v, reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int32_t>(x))),
                           reinterpret_cast<__m512bh>(w.v))};
}
DROVER_INLINE Pairs16 p_load(const uint16_t* p) { return {_mm512_loadu_si512(p)}; }
DROVER_INLINE void p_store(uint16_t* p, Pairs16 a) { _mm512_storeu_si512(p, a.v); }
// Of a panel [k][16 columns]
DROVER_INLINE Pairs16 p_join(const uint16_t* p) {
  const __m512i lower =
      _mm512_cvtepu16_epi32(_mm256_set_epi16(31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16));
  const __m512i upper = _mm512_cvtepu16_epi32(_mm256_set_epi16(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
  return {_mm512_permutexvar_epi16(_mm512_or_si512(lower, _mm512_slli_epi32(upper, 16)), _mm512_loadu_si512(p))};
}
// Of a row [k]
DROVER_INLINE Pairs16 p_turn(const uint16_t* p) { return {_mm512_rol_epi32(_mm512_loadu_si512(p), 16)}; }

}  // namespace
}  // namespace drover

#endif  // DROVER_KERNELS_SIMD_PAIRS_AVX512_H_
