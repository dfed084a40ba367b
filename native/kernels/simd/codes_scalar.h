// Small codes, halves and requests to memory, in plain C++. The contract of every operation is written here; the other
// vocabularies give the same bits. Included after scalar.h.
#ifndef DROVER_KERNELS_SIMD_CODES_SCALAR_H_
#define DROVER_KERNELS_SIMD_CODES_SCALAR_H_

#include <cstring>

#include "scalar.h"

namespace drover {
namespace {

// Vectors that registers hold as sums beside what is being added.
inline constexpr uint32_t kSumVectors = 1;

// 16 codes of 8, 4 and 2 bits, packed from the low bits up, as numbers.
DROVER_INLINE F32x16 f_load_u8(const uint8_t* p) {
  F32x16 r;
  for (int i = 0; i < 16; i++) r.lane[i] = static_cast<float>(p[i]);
  return r;
}
DROVER_INLINE F32x16 f_load_u4(const uint8_t* p) {
  F32x16 r;
  for (int i = 0; i < 16; i++) r.lane[i] = static_cast<float>(p[i / 2] >> (i % 2 * 4) & 15);
  return r;
}
// The same in an order of the vocabulary's own, and vectors of that order put into the usual one.
DROVER_INLINE F32x16 f_load_u4_mixed(const uint8_t* p) { return f_load_u4(p); }
DROVER_INLINE F32x16 f_unmix_u4(F32x16 a) { return a; }
DROVER_INLINE F32x16 f_load_u2(const uint8_t* p) {
  F32x16 r;
  for (int i = 0; i < 16; i++) r.lane[i] = static_cast<float>(p[i / 4] >> (i % 4 * 2) & 3);
  return r;
}
// Two halves, at any alignment.
DROVER_INLINE void load_two_halves(const uint8_t* p, float* first, float* second) {
  uint16_t code[2];
  memcpy(code, p, sizeof code);
  *first = half_to_float(code[0]);
  *second = half_to_float(code[1]);
}
DROVER_INLINE void f_store_half(uint16_t* p, F32x16 a) {
  for (int i = 0; i < 16; i++) p[i] = float_to_half(a.lane[i]);
}
// Lane i: f_sum of vector i.
DROVER_INLINE F32x16 f_sums(const F32x16* a) {
  F32x16 r;
  for (int i = 0; i < 16; i++) r.lane[i] = f_sum(a[i]);
  return r;
}
// Whether all of 16 words are below a limit.
DROVER_INLINE bool all_words_below(const uint32_t* p, uint32_t limit) {
  bool below = true;
  for (int i = 0; i < 16; i++) below = below && p[i] < limit;
  return below;
}

}  // namespace
}  // namespace drover

#endif  // DROVER_KERNELS_SIMD_CODES_SCALAR_H_
