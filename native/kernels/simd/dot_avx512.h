// The dot-product vocabulary with AVX-512 VNNI: 16 columns in a register. Contracts: dot_scalar.h.
#ifndef DROVER_KERNELS_SIMD_DOT_AVX512_H_
#define DROVER_KERNELS_SIMD_DOT_AVX512_H_

#include "avx512.h"

namespace drover {
namespace {

inline constexpr uint32_t kColumns = 16;
inline constexpr char kDotPath[] = "vpdpbusd, 512 bits";
inline constexpr int32_t kByteZero = 128;
inline constexpr uint32_t kGroups15 = 4, kGroups31 = 2, kGroups63 = 2;
inline constexpr bool kDot32 = true;

using Bytes = __m512i;
using ColF = __m512;
using ColI = __m512i;
using Sum = __m512i;
using Scale = __m512i;
using ScalePair = __m512i;
using ByteCodes = __m512i;

DROVER_INLINE ColF c_zero() { return _mm512_setzero_ps(); }
DROVER_INLINE ColF c_set(float value) { return _mm512_set1_ps(value); }
DROVER_INLINE ColF c_half(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
DROVER_INLINE ColF c_bfloat(const uint16_t* p) { return f_load_bfloat(p).v; }
DROVER_INLINE ColF c_bytes(const uint8_t* p) { return f_load_i8(reinterpret_cast<const int8_t*>(p)).v; }
DROVER_INLINE ColF c_mul(ColF a, ColF b) { return _mm512_mul_ps(a, b); }
DROVER_INLINE ColF c_fma(ColF a, ColF b, ColF c) { return _mm512_fmadd_ps(a, b, c); }
DROVER_INLINE ColF c_fnma(ColF a, ColF b, ColF c) { return _mm512_fnmadd_ps(a, b, c); }
DROVER_INLINE ColF c_from(ColI a) { return _mm512_cvtepi32_ps(a); }
DROVER_INLINE ColF c_load(const float* p) { return _mm512_loadu_ps(p); }
DROVER_INLINE void c_store(float* p, ColF a) { _mm512_storeu_ps(p, a); }
DROVER_INLINE ColI i_columns(int32_t value) { return _mm512_set1_epi32(value); }
DROVER_INLINE ColI i_columns_load(const int32_t* p) { return _mm512_loadu_si512(p); }
DROVER_INLINE void i_columns_store(int32_t* p, ColI a) { _mm512_storeu_si512(p, a); }

DROVER_INLINE __m512i broadcast4(const int8_t* x) {
  int32_t four;
  __builtin_memcpy(&four, x, 4);
  return _mm512_set1_epi32(four);
}
DROVER_INLINE Bytes b_load(const uint8_t* p) { return _mm512_loadu_si512(p); }
DROVER_INLINE void b_store(uint8_t* p, Bytes a) { _mm512_storeu_si512(p, a); }
DROVER_INLINE Bytes b_opaque(Bytes a) {
  __asm__("" : "+v"(a));
  return a;
}
DROVER_INLINE Bytes b_low(Bytes a) { return _mm512_and_si512(a, _mm512_set1_epi8(15)); }
DROVER_INLINE Bytes b_high(Bytes a) { return _mm512_and_si512(_mm512_srli_epi16(a, 4), _mm512_set1_epi8(15)); }
template <int kShift, int kMask>
DROVER_INLINE Bytes b_bits(Bytes a, Bytes plane) {
  const __m512i mask = _mm512_set1_epi8(static_cast<char>(kMask << 4));
  const __m512i moved = kShift <= 4 ? _mm512_slli_epi16(plane, kShift <= 4 ? 4 - kShift : 0)
                                    : _mm512_srli_epi16(plane, kShift > 4 ? kShift - 4 : 0);
  return _mm512_ternarylogic_epi32(a, moved, mask, 0xf8);  // a | (moved & mask)
}
template <int kShift, int kMask, int kTo>
DROVER_INLINE Bytes b_field(Bytes plane) {
  const __m512i mask = _mm512_set1_epi8(static_cast<char>(kMask << kTo));
  const __m512i moved = kShift <= kTo ? _mm512_slli_epi16(plane, kShift <= kTo ? kTo - kShift : 0)
                                      : _mm512_srli_epi16(plane, kShift > kTo ? kShift - kTo : 0);
  return _mm512_and_si512(moved, mask);
}
DROVER_INLINE Bytes b_or(Bytes a, Bytes b) { return _mm512_or_si512(a, b); }
DROVER_INLINE Bytes b_plus(Bytes a, uint8_t value) {
  return _mm512_add_epi8(a, _mm512_set1_epi8(static_cast<char>(value)));
}
DROVER_INLINE Bytes b_lookup(Bytes a, const uint8_t* book) {
  const __m128i table = _mm_loadu_si128(reinterpret_cast<const __m128i*>(book));
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), a);
}
DROVER_INLINE __m512i shifted_right(__m512i a, uint32_t shift) { return (__m512i)((__v16su)a >> shift); }
DROVER_INLINE Bytes l_field(Bytes a, uint32_t shift, uint32_t mask) {
  return _mm512_and_si512(shifted_right(a, shift), _mm512_set1_epi32(static_cast<int32_t>(mask)));
}
DROVER_INLINE Bytes l_above(Bytes a, Bytes b) { return _mm512_or_si512(a, _mm512_slli_epi32(b, 8)); }
DROVER_INLINE void b_grid8(Bytes index, const uint64_t* grid, Bytes* low, Bytes* high) {
  const __m512i first = _mm512_i32gather_epi64(_mm512_castsi512_si256(index), grid, 8);
  const __m512i second = _mm512_i32gather_epi64(_mm512_extracti64x4_epi64(index, 1), grid, 8);
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  *low = _mm512_permutex2var_epi32(first, even, second);
  *high = _mm512_permutex2var_epi32(first, _mm512_add_epi32(even, _mm512_set1_epi32(1)), second);
}
DROVER_INLINE Bytes b_grid4(Bytes index, const uint32_t* grid) { return _mm512_i32gather_epi32(index, grid, 4); }
template <int kByte, int kFirst>
DROVER_INLINE Bytes b_negate(Bytes a, Bytes signs) {
  const __m512i spread =
      _mm512_add_epi8(_mm512_broadcast_i32x4(_mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12)),
                      _mm512_set1_epi8(kByte));
  const __m512i bits = _mm512_set1_epi32(0x08040201 << kFirst);
  const __mmask64 minus = _mm512_test_epi8_mask(_mm512_shuffle_epi8(signs, spread), bits);
  return _mm512_mask_sub_epi8(a, minus, _mm512_setzero_si512(), a);
}
DROVER_INLINE Bytes b_less_two(Bytes a, Bytes flags, uint32_t bit) {
  const __mmask16 set = _mm512_test_epi32_mask(flags, _mm512_set1_epi32(static_cast<int32_t>(1u << bit)));
  return _mm512_mask_sub_epi32(a, set, a, _mm512_set1_epi32(0x02020202));
}
DROVER_INLINE Sum s_dot(Sum sum, Bytes codes, const int8_t* x) {
  return _mm512_dpbusd_epi32(sum, codes, broadcast4(x));
}
DROVER_INLINE Sum s_begin(ColI start) { return start; }
DROVER_INLINE ColI s_total(Sum sum, ColI) { return sum; }
DROVER_INLINE Scale scale_unsigned(const uint8_t* p) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
// A scale is the low 16 bits of its lane, beside zero: what vpdpwssd multiplies a 16-bit sum by.
DROVER_INLINE Scale scale_signed(const uint8_t* p) {
  return _mm512_and_si512(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
                          _mm512_set1_epi32(0xffff));
}
DROVER_INLINE ColI s_scaled(ColI total, Sum sum, Scale scale) { return _mm512_dpwssd_epi32(total, sum, scale); }
DROVER_INLINE ScalePair pair_of(Scale first, Scale second) {
  return _mm512_or_si512(first, _mm512_slli_epi32(second, 16));
}
DROVER_INLINE ScalePair pair_load(const int8_t* p) {
  return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
DROVER_INLINE ColI i_dot_pair(ColI total, ScalePair pair, const int16_t* x) {
  int32_t two;
  __builtin_memcpy(&two, x, 4);
  return _mm512_dpwssd_epi32(total, pair, _mm512_set1_epi32(two));
}
template <int kShift>
DROVER_INLINE ColI i_minus_shifted(ColI a, ColI b) {
  return _mm512_sub_epi32(a, _mm512_slli_epi32(b, kShift));
}
DROVER_INLINE ByteCodes byte_codes(Bytes codes) { return codes; }
DROVER_INLINE ColI i_dot_byte(ColI sum, ByteCodes w, const int8_t* x) {
  return _mm512_dpbusd_epi32(sum, w, broadcast4(x));
}

}  // namespace
}  // namespace drover

#endif  // DROVER_KERNELS_SIMD_DOT_AVX512_H_
