// The dot-product vocabulary with 256-bit registers: 8 columns, half a panel. With AVX-VNNI a Sum is 32-bit; without,
// it is pairs of 16-bit partial sums of vpmaddubsw, which bounds how many groups it may take. Contracts: dot_scalar.h.
#ifndef DROVER_KERNELS_SIMD_DOT_AVX2_H_
#define DROVER_KERNELS_SIMD_DOT_AVX2_H_

#include "avx2.h"

namespace drover {
namespace {

inline constexpr uint32_t kColumns = 8;

using Bytes = __m256i;
using ColF = __m256;
using ColI = __m256i;
using Sum = __m256i;
using Scale = __m256i;
using ScalePair = __m256i;

DROVER_INLINE ColF c_zero() { return _mm256_setzero_ps(); }
DROVER_INLINE ColF c_set(float value) { return _mm256_set1_ps(value); }
DROVER_INLINE ColF c_half(const uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
DROVER_INLINE ColF c_bfloat(const uint16_t* p) {
  const __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(words, 16));
}
DROVER_INLINE ColF c_bytes(const uint8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
DROVER_INLINE ColF c_mul(ColF a, ColF b) { return _mm256_mul_ps(a, b); }
DROVER_INLINE ColF c_fma(ColF a, ColF b, ColF c) { return _mm256_fmadd_ps(a, b, c); }
DROVER_INLINE ColF c_fnma(ColF a, ColF b, ColF c) { return _mm256_fnmadd_ps(a, b, c); }
DROVER_INLINE ColF c_from(ColI a) { return _mm256_cvtepi32_ps(a); }
DROVER_INLINE ColF c_load(const float* p) { return _mm256_loadu_ps(p); }
DROVER_INLINE void c_store(float* p, ColF a) { _mm256_storeu_ps(p, a); }
DROVER_INLINE ColI i_columns(int32_t value) { return _mm256_set1_epi32(value); }
DROVER_INLINE ColI i_columns_load(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
DROVER_INLINE void i_columns_store(int32_t* p, ColI a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a); }

DROVER_INLINE __m256i broadcast4(const int8_t* x) {
  int32_t four;
  __builtin_memcpy(&four, x, 4);
  return _mm256_set1_epi32(four);
}
DROVER_INLINE Bytes b_load(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
DROVER_INLINE void b_store(uint8_t* p, Bytes a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a); }
DROVER_INLINE Bytes b_opaque(Bytes a) {
  __asm__("" : "+x"(a));
  return a;
}
DROVER_INLINE ScalePair pair_load(const int8_t* p) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
DROVER_INLINE Bytes b_low(Bytes a) { return _mm256_and_si256(a, _mm256_set1_epi8(15)); }
DROVER_INLINE Bytes b_high(Bytes a) { return _mm256_and_si256(_mm256_srli_epi16(a, 4), _mm256_set1_epi8(15)); }
template <int kShift, int kMask>
DROVER_INLINE Bytes b_bits(Bytes a, Bytes plane) {
  const __m256i mask = _mm256_set1_epi8(static_cast<char>(kMask << 4));
  const __m256i moved = kShift <= 4 ? _mm256_slli_epi16(plane, kShift <= 4 ? 4 - kShift : 0)
                                    : _mm256_srli_epi16(plane, kShift > 4 ? kShift - 4 : 0);
  return _mm256_or_si256(a, _mm256_and_si256(moved, mask));
}
template <int kShift, int kMask, int kTo>
DROVER_INLINE Bytes b_field(Bytes plane) {
  const __m256i mask = _mm256_set1_epi8(static_cast<char>(kMask << kTo));
  const __m256i moved = kShift <= kTo ? _mm256_slli_epi16(plane, kShift <= kTo ? kTo - kShift : 0)
                                      : _mm256_srli_epi16(plane, kShift > kTo ? kShift - kTo : 0);
  return _mm256_and_si256(moved, mask);
}
DROVER_INLINE Bytes b_or(Bytes a, Bytes b) { return _mm256_or_si256(a, b); }
DROVER_INLINE Bytes b_plus(Bytes a, uint8_t value) {
  return _mm256_add_epi8(a, _mm256_set1_epi8(static_cast<char>(value)));
}
DROVER_INLINE Bytes b_lookup(Bytes a, const uint8_t* book) {
  const __m128i table = _mm_loadu_si128(reinterpret_cast<const __m128i*>(book));
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), a);
}
DROVER_INLINE __m256i shifted_right(__m256i a, uint32_t shift) { return (__m256i)((__v8su)a >> shift); }
DROVER_INLINE Bytes l_field(Bytes a, uint32_t shift, uint32_t mask) {
  return _mm256_and_si256(shifted_right(a, shift), _mm256_set1_epi32(static_cast<int32_t>(mask)));
}
DROVER_INLINE Bytes l_above(Bytes a, Bytes b) { return _mm256_or_si256(a, _mm256_slli_epi32(b, 8)); }
DROVER_INLINE void b_grid8(Bytes index, const uint64_t* grid, Bytes* low, Bytes* high) {
  const auto* base = reinterpret_cast<const long long*>(grid);
  const __m256 first = _mm256_castsi256_ps(_mm256_i32gather_epi64(base, _mm256_castsi256_si128(index), 8));
  const __m256 second = _mm256_castsi256_ps(_mm256_i32gather_epi64(base, _mm256_extracti128_si256(index, 1), 8));
  // Columns 0 1 4 5 and 2 3 6 7.
  *low = _mm256_permute4x64_epi64(_mm256_castps_si256(_mm256_shuffle_ps(first, second, 0x88)), 0xd8);
  *high = _mm256_permute4x64_epi64(_mm256_castps_si256(_mm256_shuffle_ps(first, second, 0xdd)), 0xd8);
}
DROVER_INLINE Bytes b_grid4(Bytes index, const uint32_t* grid) {
  return _mm256_i32gather_epi32(reinterpret_cast<const int*>(grid), index, 4);
}
template <int kByte, int kFirst>
DROVER_INLINE Bytes b_negate(Bytes a, Bytes signs) {
  const __m256i spread =
      _mm256_add_epi8(_mm256_broadcastsi128_si256(_mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12)),
                      _mm256_set1_epi8(kByte));
  const __m256i bits = _mm256_set1_epi32(0x08040201 << kFirst);
  const __m256i minus = _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(signs, spread), bits), bits);
  return _mm256_sub_epi8(_mm256_xor_si256(a, minus), minus);
}
DROVER_INLINE Bytes b_less_two(Bytes a, Bytes flags, uint32_t bit) {
  const __m256i set = l_field(flags, bit, 1);
  return _mm256_sub_epi8(a, _mm256_and_si256(_mm256_sub_epi32(_mm256_setzero_si256(), set), _mm256_set1_epi8(2)));
}
DROVER_INLINE ScalePair merge_pair(__m256i first, __m256i second) {
  return _mm256_blend_epi16(first, _mm256_slli_epi32(second, 16), 0xaa);
}
DROVER_INLINE __m256i widen_unsigned(const uint8_t* p) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
DROVER_INLINE __m256i widen_signed(const uint8_t* p) {
  return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
template <int kShift>
DROVER_INLINE ColI i_minus_shifted(ColI a, ColI b) {
  return _mm256_sub_epi32(a, _mm256_slli_epi32(b, kShift));
}

#ifdef DROVER_AVXVNNI

inline constexpr char kDotPath[] = "vpdpbusd, 256 bits";
inline constexpr int32_t kByteZero = 128;
inline constexpr uint32_t kGroups15 = 4, kGroups31 = 2, kGroups63 = 2;
inline constexpr bool kDot32 = true;
using ByteCodes = __m256i;

DROVER_INLINE Sum s_dot(Sum sum, Bytes codes, const int8_t* x) {
  return _mm256_dpbusd_avx_epi32(sum, codes, broadcast4(x));
}
DROVER_INLINE Sum s_begin(ColI start) { return start; }
DROVER_INLINE ColI s_total(Sum sum, ColI) { return sum; }
DROVER_INLINE Scale scale_unsigned(const uint8_t* p) { return widen_unsigned(p); }
// A scale is the low 16 bits of its lane, beside zero: what vpdpwssd multiplies a 16-bit sum by.
DROVER_INLINE Scale scale_signed(const uint8_t* p) {
  return _mm256_and_si256(widen_signed(p), _mm256_set1_epi32(0xffff));
}
DROVER_INLINE ColI s_scaled(ColI total, Sum sum, Scale scale) { return _mm256_dpwssd_avx_epi32(total, sum, scale); }
DROVER_INLINE ScalePair pair_of(Scale first, Scale second) {
  return _mm256_or_si256(first, _mm256_slli_epi32(second, 16));
}
DROVER_INLINE ColI i_dot_pair(ColI total, ScalePair pair, const int16_t* x) {
  int32_t two;
  __builtin_memcpy(&two, x, 4);
  return _mm256_dpwssd_avx_epi32(total, pair, _mm256_set1_epi32(two));
}
DROVER_INLINE ByteCodes byte_codes(Bytes codes) { return codes; }
DROVER_INLINE ColI i_dot_byte(ColI sum, ByteCodes w, const int8_t* x) {
  return _mm256_dpbusd_avx_epi32(sum, w, broadcast4(x));
}

#else

inline constexpr char kDotPath[] = "vpmaddubsw and vpmaddwd, 256 bits";
inline constexpr int32_t kByteZero = 0;
// A product pair is at most 2 · 127 · code: 8, 4 and 2 of them fit 16 bits for codes up to 15, 31 and 63.
inline constexpr uint32_t kGroups15 = 8, kGroups31 = 4, kGroups63 = 2;
inline constexpr bool kDot32 = false;

DROVER_INLINE Sum s_dot(Sum sum, Bytes codes, const int8_t* x) {
  __m256i result = _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes, broadcast4(x)));
  // GCC would add the products of a whole tile up later, and spill them all until then.
  __asm__("" : "+x"(result));
  return result;
}
DROVER_INLINE Sum s_begin(ColI) { return _mm256_setzero_si256(); }
DROVER_INLINE ColI s_total(Sum sum, ColI start) {
  return _mm256_add_epi32(start, _mm256_madd_epi16(sum, _mm256_set1_epi16(1)));
}
// A scale is kept twice in its lane, as the two 16-bit factors of vpmaddwd.
DROVER_INLINE Scale scale_unsigned(const uint8_t* p) { return merge_pair(widen_unsigned(p), widen_unsigned(p)); }
DROVER_INLINE Scale scale_signed(const uint8_t* p) { return merge_pair(widen_signed(p), widen_signed(p)); }
DROVER_INLINE ColI s_scaled(ColI total, Sum sum, Scale scale) {
  return _mm256_add_epi32(total, _mm256_madd_epi16(sum, scale));
}
DROVER_INLINE ScalePair pair_of(Scale first, Scale second) { return _mm256_blend_epi16(first, second, 0xaa); }
DROVER_INLINE ColI i_dot_pair(ColI total, ScalePair pair, const int16_t* x) {
  int32_t two;
  __builtin_memcpy(&two, x, 4);
  return _mm256_add_epi32(total, _mm256_madd_epi16(pair, _mm256_set1_epi32(two)));
}
// Byte codes of many rows are multiplied as 16-bit words: vpmaddwd, which has no signs to move and nothing to saturate.
#define DROVER_WORDS 1
// Codes less 128: elements 0 and 2 of each column, and 1 and 3.
DROVER_INLINE void w_store(uint8_t* even, uint8_t* odd, Bytes codes) {
  const __m256i w = _mm256_xor_si256(codes, _mm256_set1_epi8(-128));
  b_store(even, _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8));
  b_store(odd, _mm256_srai_epi16(w, 8));
}
// 32-blocks of activations in the same order: elements 0 and 2 of each four to `even`, 1 and 3 to `odd`.
DROVER_INLINE void w_spread(const int8_t* x, uint32_t blocks, int16_t* even, int16_t* odd) {
  for (uint32_t b = 0; b < blocks; b++) {
    const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + b * 32));
    b_store(reinterpret_cast<uint8_t*>(even + b * 16), _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8));
    b_store(reinterpret_cast<uint8_t*>(odd + b * 16), _mm256_srai_epi16(v, 8));
  }
}
DROVER_INLINE ColI i_dot_words(ColI total, Bytes words, const int16_t* x) {
  int32_t two;
  __builtin_memcpy(&two, x, 4);
  __m256i result = _mm256_add_epi32(total, _mm256_madd_epi16(words, _mm256_set1_epi32(two)));
  __asm__("" : "+x"(result));  // as in s_dot
  return result;
}
// |w| · (x with w's sign): 128 · 127 · 2 just fits 16 bits.
struct ByteCodes {
  __m256i magnitude, sign;
};
DROVER_INLINE ByteCodes byte_codes(Bytes codes) {
  const __m256i w = _mm256_xor_si256(codes, _mm256_set1_epi8(-128));
  return {_mm256_abs_epi8(w), w};
}
DROVER_INLINE ColI i_dot_byte(ColI sum, const ByteCodes& w, const int8_t* x) {
  const __m256i pairs = _mm256_maddubs_epi16(w.magnitude, _mm256_sign_epi8(broadcast4(x), w.sign));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

#endif

}  // namespace
}  // namespace drover

#endif  // DROVER_KERNELS_SIMD_DOT_AVX2_H_
