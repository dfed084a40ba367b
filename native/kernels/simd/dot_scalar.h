// The dot-product vocabulary in plain C++; the contract of every operation is written here. A vector holds kColumns
// columns of a panel (all 16, or one half of them): bytes are 4 codes per column, the rest one lane per column.
// All of it is exact integer arithmetic, or single rounded f32 operations.
#ifndef DROVER_KERNELS_SIMD_DOT_SCALAR_H_
#define DROVER_KERNELS_SIMD_DOT_SCALAR_H_

#include "scalar.h"

namespace drover {
namespace {

inline constexpr uint32_t kColumns = 16;
inline constexpr int32_t kByteZero = 0;  // what dot_byte subtracts from codes less 128: 0, or 128 where it cannot
// Groups (4 k) that a Sum may take before s_scaled (and s_total, unless kDot32), for codes up to 15, 31 and 63.
inline constexpr uint32_t kGroups15 = 8, kGroups31 = 8, kGroups63 = 4;
// Whether a Sum has 32 bits and can start anywhere; s_scaled then still takes 16-bit sums, and sums of codes up to 63
// must start at -32 Σ x to be that.
inline constexpr bool kDot32 = false;

// What multiplies bytes, for people.
inline constexpr char kDotPath[] = "plain C++, products one by one";

struct Bytes {
  uint8_t at[64];
};
using ColF = F32x16;
using ColI = I32x16;
using Sum = I32x16;
using Scale = I32x16;

DROVER_INLINE ColF c_zero() { return f_zero(); }
DROVER_INLINE ColF c_set(float value) { return f_set(value); }
DROVER_INLINE ColF c_half(const uint16_t* p) { return f_load_half(p); }
DROVER_INLINE ColF c_bfloat(const uint16_t* p) { return f_load_bfloat(p); }
DROVER_INLINE ColF c_bytes(const uint8_t* p) { return f_load_i8(reinterpret_cast<const int8_t*>(p)); }
DROVER_INLINE ColF c_mul(ColF a, ColF b) { return f_mul(a, b); }
DROVER_INLINE ColF c_fma(ColF a, ColF b, ColF c) { return f_fma(a, b, c); }
DROVER_INLINE ColF c_fnma(ColF a, ColF b, ColF c) { return f_fnma(a, b, c); }
DROVER_INLINE ColF c_from(ColI a) { return f_from_i(a); }
DROVER_INLINE ColF c_load(const float* p) { return f_load(p); }
DROVER_INLINE void c_store(float* p, ColF a) { f_store(p, a); }
DROVER_INLINE ColI i_columns(int32_t value) { return i_set(value); }
DROVER_INLINE ColI i_columns_load(const int32_t* p) { return i_load(p); }
DROVER_INLINE void i_columns_store(int32_t* p, ColI a) {
  for (int i = 0; i < 16; i++) p[i] = a.lane[i];
}

DROVER_INLINE Bytes b_load(const uint8_t* p) {
  Bytes r;
  for (int i = 0; i < 64; i++) r.at[i] = p[i];
  return r;
}
// The same bytes, which the compiler no longer knows: what is computed from them is computed each time.
DROVER_INLINE Bytes b_opaque(Bytes a) {
  __asm__("" : "+m"(a));
  return a;
}
DROVER_INLINE Bytes b_low(Bytes a) {
  for (uint8_t& v : a.at) v &= 15;
  return a;
}
DROVER_INLINE Bytes b_high(Bytes a) {
  for (uint8_t& v : a.at) v >>= 4;
  return a;
}
// a | ((plane >> kShift) & kMask) << 4
template <int kShift, int kMask>
DROVER_INLINE Bytes b_bits(Bytes a, Bytes plane) {
  for (int i = 0; i < 64; i++) a.at[i] = static_cast<uint8_t>(a.at[i] | (((plane.at[i] >> kShift) & kMask) << 4));
  return a;
}
// ((plane >> kShift) & kMask) << kTo
template <int kShift, int kMask, int kTo>
DROVER_INLINE Bytes b_field(Bytes plane) {
  for (uint8_t& v : plane.at) v = static_cast<uint8_t>(((v >> kShift) & kMask) << kTo);
  return plane;
}
DROVER_INLINE Bytes b_or(Bytes a, Bytes b) {
  for (int i = 0; i < 64; i++) a.at[i] |= b.at[i];
  return a;
}
DROVER_INLINE Bytes b_plus(Bytes a, uint8_t value) {
  for (uint8_t& v : a.at) v = static_cast<uint8_t>(v + value);
  return a;
}
// book[code] for codes 0..15
DROVER_INLINE Bytes b_lookup(Bytes a, const uint8_t* book) {
  for (uint8_t& v : a.at) v = book[v];
  return a;
}
// The four bytes of a column as one number, a lane.
DROVER_INLINE uint32_t lane_of(const Bytes& a, int column) {
  uint32_t lane;
  __builtin_memcpy(&lane, a.at + column * 4, 4);
  return lane;
}
DROVER_INLINE void set_lane(Bytes* a, int column, uint32_t lane) { __builtin_memcpy(a->at + column * 4, &lane, 4); }
// (lane >> shift) & mask
DROVER_INLINE Bytes l_field(Bytes a, uint32_t shift, uint32_t mask) {
  for (int c = 0; c < 16; c++) set_lane(&a, c, lane_of(a, c) >> shift & mask);
  return a;
}
// a | b << 8, lane by lane
DROVER_INLINE Bytes l_above(Bytes a, Bytes b) {
  for (int c = 0; c < 16; c++) set_lane(&a, c, lane_of(a, c) | lane_of(b, c) << 8);
  return a;
}
// The vectors of a grid that the lanes of `index` name: the first four codes of each, and the last.
DROVER_INLINE void b_grid8(Bytes index, const uint64_t* grid, Bytes* low, Bytes* high) {
  for (int c = 0; c < 16; c++) {
    const uint64_t vector = grid[lane_of(index, c)];
    set_lane(low, c, static_cast<uint32_t>(vector));
    set_lane(high, c, static_cast<uint32_t>(vector >> 32));
  }
}
DROVER_INLINE Bytes b_grid4(Bytes index, const uint32_t* grid) {
  for (int c = 0; c < 16; c++) set_lane(&index, c, grid[lane_of(index, c)]);
  return index;
}
// The negatives of those bytes j of a column for which bit kFirst + j of byte kByte of its column of `signs` is set.
template <int kByte, int kFirst>
DROVER_INLINE Bytes b_negate(Bytes a, Bytes signs) {
  for (int i = 0; i < 64; i++) {
    const int minus = signs.at[i / 4 * 4 + kByte] >> (kFirst + i % 4) & 1;
    a.at[i] = static_cast<uint8_t>(minus != 0 ? -a.at[i] : a.at[i]);
  }
  return a;
}
// 2 less in the bytes, all of them at least 2, of columns whose lane of `flags` has bit `bit`.
DROVER_INLINE Bytes b_less_two(Bytes a, Bytes flags, uint32_t bit) {
  for (int i = 0; i < 64; i++) a.at[i] = static_cast<uint8_t>(a.at[i] - (lane_of(flags, i / 4) >> bit & 1) * 2);
  return a;
}
// sum + codes · x, 4 products per column; unsigned codes up to 63.
DROVER_INLINE Sum s_dot(Sum sum, Bytes codes, const int8_t* x) {
  for (int c = 0; c < 16; c++)
    for (int j = 0; j < 4; j++) sum.lane[c] += codes.at[c * 4 + j] * x[j];
  return sum;
}
DROVER_INLINE Sum s_begin(ColI start) { return start; }
DROVER_INLINE ColI s_total(Sum sum, ColI) { return sum; }
// Scales 0..255 or -128..127, and sum · scale added to total.
DROVER_INLINE Scale scale_unsigned(const uint8_t* p) {
  Scale r;
  for (int i = 0; i < 16; i++) r.lane[i] = p[i];
  return r;
}
DROVER_INLINE Scale scale_signed(const uint8_t* p) {
  Scale r;
  for (int i = 0; i < 16; i++) r.lane[i] = static_cast<int8_t>(p[i]);
  return r;
}
DROVER_INLINE ColI s_scaled(ColI total, Sum sum, Scale scale) { return i_add(total, i_mul(sum, scale)); }
// total + a · x[0] + b · x[1]
struct ScalePair {
  Scale first, second;
};
DROVER_INLINE ScalePair pair_of(Scale first, Scale second) { return {first, second}; }
DROVER_INLINE ColI i_dot_pair(ColI total, ScalePair pair, const int16_t* x) {
  return i_add(total, i_add(i_mul(pair.first, i_set(x[0])), i_mul(pair.second, i_set(x[1]))));
}
// Column c: the signed bytes p[2 c] and p[2 c + 1].
DROVER_INLINE ScalePair pair_load(const int8_t* p) {
  ScalePair r;
  for (int c = 0; c < 16; c++) {
    r.first.lane[c] = p[2 * c];
    r.second.lane[c] = p[2 * c + 1];
  }
  return r;
}
template <int kShift>
DROVER_INLINE ColI i_minus_shifted(ColI a, ColI b) {
  return i_sub(a, i_mul(b, i_set(1 << kShift)));
}
// Codes 0..255 standing for code - 128: sum + (code - 128 + kByteZero) · x.
struct ByteCodes {
  Bytes codes;
};
DROVER_INLINE ByteCodes byte_codes(Bytes codes) { return {codes}; }
DROVER_INLINE ColI i_dot_byte(ColI sum, const ByteCodes& w, const int8_t* x) {
  for (int c = 0; c < 16; c++)
    for (int j = 0; j < 4; j++) sum.lane[c] += (w.codes.at[c * 4 + j] - 128) * x[j];
  return sum;
}

}  // namespace
}  // namespace drover

#endif  // DROVER_KERNELS_SIMD_DOT_SCALAR_H_
