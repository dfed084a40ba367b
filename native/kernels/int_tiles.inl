// What a tile of the integer GEMM is made of: rows of 8-bit activations, one by one or in pairs, and its f32 sums.
#include "int_formats.inl"

namespace drover {
namespace {

// Rows that have one integer row after another: what a tile needs of a8_32 and a8_256 rows (quantize.h).
struct RowsOf8 {
  using Vectors = OneRow;
  const uint8_t* x;
  uint64_t stride;
  uint32_t depth;
  template <typename T>
  DROVER_INLINE T load(uint32_t row, uint64_t offset, uint32_t i) const {
    T value;
    __builtin_memcpy(&value, x + row * stride + offset + i * sizeof(T), sizeof(T));
    return value;
  }
  DROVER_INLINE const int8_t* codes(uint32_t row, uint32_t k) const {
    return reinterpret_cast<const int8_t*>(x) + row * stride + k;
  }
  DROVER_INLINE const int16_t* sums(uint32_t row, uint64_t offset, uint32_t i) const {
    return reinterpret_cast<const int16_t*>(x + row * stride + offset) + i;
  }
  // What the codes of two groups from k on are multiplied by.
  DROVER_INLINE const int8_t* first(uint32_t r, uint32_t k) const { return codes(r, k); }
  DROVER_INLINE const int8_t* second(uint32_t r, uint32_t k) const { return codes(r, k) + 4; }
  // A number of the row, for all columns.
  template <typename Number>
  DROVER_INLINE ColF floats(uint32_t r, Number number) const {
    return c_set(number(r));
  }
  template <typename Number>
  DROVER_INLINE ColI integers(uint32_t r, Number number) const {
    return i_columns(number(r));
  }
};
#ifdef DROVER_MATRIX
// Pairs of such rows, of which the last row may be alone. pairs: their codes of a chunk by turns (m_pair).
struct PairsOf8 : RowsOf8 {
  using Vectors = TwoRows;
  uint32_t rows;
  const int8_t* pairs;
  DROVER_INLINE uint32_t partner(uint32_t r) const { return smaller_of(2 * r + 1, rows - 1); }
  DROVER_INLINE TwoSumsOfRows sums(uint32_t r, uint64_t offset, uint32_t i) const {
    return m_sums(RowsOf8::sums(2 * r, offset, i), RowsOf8::sums(partner(r), offset, i));
  }
  DROVER_INLINE int8x16_t eight(uint32_t r, uint32_t k) const {
    return vld1q_s8(pairs + (r * kChunk + k % kChunk) * 2);
  }
  DROVER_INLINE TwoCodesOfRows<0> first(uint32_t r, uint32_t k) const { return {eight(r, k)}; }
  DROVER_INLINE TwoCodesOfRows<1> second(uint32_t r, uint32_t k) const { return {eight(r, k)}; }
  template <typename Number>
  DROVER_INLINE TwoF floats(uint32_t r, Number number) const {
    const float32x4_t both = vcombine_f32(vdup_n_f32(number(2 * r)), vdup_n_f32(number(partner(r))));
    return {{both, both, both, both}};
  }
  template <typename Number>
  DROVER_INLINE TwoI integers(uint32_t r, Number number) const {
    const int32x4_t both = vcombine_s32(vdup_n_s32(number(2 * r)), vdup_n_s32(number(partner(r))));
    return {{both, both, both, both}};
  }
};
using WideRows = PairsOf8;
#else
using WideRows = RowsOf8;
#endif

inline constexpr uint32_t kPanelVectors = kPanel / kColumns;  // that a panel's columns fill

template <uint32_t kR, uint32_t kV, typename Body>
DROVER_INLINE void for_tile(Body body) {
#pragma GCC unroll 16
  for (uint32_t r = 0; r < kR; r++)
#pragma GCC unroll 4
    for (uint32_t v = 0; v < kV; v++) body(r, v);
}

// The f32 sums of a tile: in registers where there are 32 of them, in memory where there are 16.
template <uint32_t kR, uint32_t kV>
struct RegisterSums {
  ColF at[kR][kV];
  DROVER_INLINE ColF get(uint32_t r, uint32_t v) const { return at[r][v]; }
  DROVER_INLINE void set(uint32_t r, uint32_t v, ColF sum) { at[r][v] = sum; }
};
#ifndef DROVER_SCALAR
template <typename Vectors>
struct MemorySums {
  float* at;
  uint64_t stride;
  DROVER_INLINE float* of(uint32_t r, uint32_t v) const { return at + (r * stride + v * kColumns) * Vectors::kRows; }
  DROVER_INLINE typename Vectors::F get(uint32_t r, uint32_t v) const { return Vectors::load(of(r, v)); }
  DROVER_INLINE void set(uint32_t r, uint32_t v, typename Vectors::F sum) { c_store(of(r, v), sum); }
};
#endif

}  // namespace
}  // namespace drover
