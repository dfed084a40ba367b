// The block formats that multiply 8-bit activations, as tiles read them: the codes of two groups of 4 k and the scales,
// either from prepared panels (Packed, layouts in panels.h) or from a chunk of 256 k that has been unpacked once for
// many rows (Wide: one byte per code, 4 bytes per column and scale).
#include "grids.h"
#include "panels.h"

namespace drover {
namespace {

inline constexpr uint32_t kPairs = 4;  // pairs of groups in 32 k

template <typename Body>
DROVER_INLINE void for_pairs(Body body) {
  body.template operator()<0>();
  body.template operator()<1>();
  body.template operator()<2>();
  body.template operator()<3>();
}

// What all formats share. `kType` names the layout.
template <DType kType>
struct FormatOf {
  static constexpr PanelLayout kLayout = panel_layout(kType);
  static constexpr uint32_t kSuper = kLayout.bytes(), kScales = kLayout.scales;
  // Codes of pair of groups `pair` of a superblock, without the bits above the nibble; `columns`: its first column's.
  static DROVER_INLINE Bytes low_line(const uint8_t* columns, uint32_t pair) {
    return b_load(columns + kLayout.low_at() + pair * (kLayout.low_bits == 8 ? 2 : 1) * kLine);
  }
  static DROVER_INLINE Bytes high_line(const uint8_t* columns, uint32_t line) {
    return b_load(columns + kLayout.high_at() + line * kLine);
  }
  // Nibbles with one more bit each; the high lines hold 8 groups, four pairs.
  template <int kPair>
  static DROVER_INLINE void five_bits(const uint8_t* columns, uint32_t pair, Bytes* low, Bytes* high) {
    const Bytes both = low_line(columns, pair), bits = high_line(columns, pair / kPairs);
    *low = b_bits<kPair * 2, 1>(b_low(both), bits);
    *high = b_bits<kPair * 2 + 1, 1>(b_high(both), bits);
  }
  static DROVER_INLINE void four_bits(const uint8_t* columns, uint32_t pair, Bytes* low, Bytes* high) {
    const Bytes both = low_line(columns, pair);
    *low = b_low(both);
    *high = b_high(both);
  }
};

// 32-blocks with a float scale: w = d · (code - zero) + m. `kBytes`: codes stand for code - 128, otherwise they are 0
// to 15, and less 8 unless the format has mins. pair counts the pairs of groups of a superblock; kPair = pair % 4.
template <DType kType, bool kBytes>
struct Format32 : FormatOf<kType> {
  static constexpr bool kByteCodes = kBytes;
  static constexpr PanelLayout kLayout = panel_layout(kType);
  static constexpr bool kMins = kLayout.halves == Halves::kPerBlockMins;
  static constexpr uint32_t kBlocks = kLayout.depth / 32;           // of a superblock
  static constexpr uint32_t kParts = kLayout.scales == 16 ? 2 : 1;  // of a block, with a scale each
  static DROVER_INLINE ColF scale(const uint8_t* super, uint32_t block, uint32_t column) {
    return c_half(reinterpret_cast<const uint16_t*>(super) + block * 16 + column);
  }
  static DROVER_INLINE ColF min(const uint8_t* super, uint32_t block, uint32_t column) {
    return scale(super, 2 + block, column);
  }
};
struct Q8Format : Format32<DType::q8_0, true> {
  template <int kPair>
  static DROVER_INLINE void codes(const uint8_t* columns, uint32_t pair, Bytes* low, Bytes* high) {
    *low = low_line(columns, pair);
    *high = b_load(columns + kLayout.low_at() + (2 * pair + 1) * kLine);
  }
};
template <DType kType>  // q4_0 and q4_1
struct Q4Format : Format32<kType, false> {
  template <int kPair>
  static DROVER_INLINE void codes(const uint8_t* columns, uint32_t pair, Bytes* low, Bytes* high) {
    FormatOf<kType>::four_bits(columns, pair, low, high);
  }
};
struct I4Format : Q4Format<DType::i4> {
  static DROVER_INLINE ColF scale(const uint8_t* super, uint32_t block, uint32_t column) {
    return c_load(reinterpret_cast<const float*>(super) + block * 16 + column);
  }
};
template <DType kType>  // q5_0 and q5_1
struct Q5Format : Format32<kType, true> {
  template <int kPair>
  static DROVER_INLINE void codes(const uint8_t* columns, uint32_t pair, Bytes* low, Bytes* high) {
    FormatOf<kType>::template five_bits<kPair>(columns, pair, low, high);
    constexpr uint8_t kZero = kType == DType::q5_0 ? 128 - 16 : 128;
    *low = b_plus(*low, kZero);
    *high = b_plus(*high, kZero);
  }
};
// A code book as byte codes: 128 more.
struct ByteBook {
  alignas(16) uint8_t at[16];
  constexpr explicit ByteBook(const int8_t (&codes)[16]) : at() {
    for (uint32_t i = 0; i < 16; i++) at[i] = static_cast<uint8_t>(codes[i] + 128);
  }
};
constexpr ByteBook kIq4Book(kIq4Codes), kE2m1Book(kE2m1Codes), kIq3Book(kIq3Codes);
template <DType kType>  // iq4_nl, iq4_xs, iq3_s and mxfp4
struct BookFormat : Format32<kType, true> {
  template <int kPair>
  static DROVER_INLINE void codes(const uint8_t* columns, uint32_t pair, Bytes* low, Bytes* high) {
    constexpr const uint8_t* kBook = kType == DType::mxfp4   ? kE2m1Book.at
                                     : kType == DType::iq3_s ? kIq3Book.at
                                                             : kIq4Book.at;
    FormatOf<kType>::four_bits(columns, pair, low, high);
    *low = b_lookup(*low, kBook);
    *high = b_lookup(*high, kBook);
  }
  static DROVER_INLINE ColF scale(const uint8_t* super, uint32_t block, uint32_t column) {
    const uint16_t* halves = reinterpret_cast<const uint16_t*>(super) + column;
    if constexpr (kType == DType::mxfp4) return c_bfloat(halves + block * 16);
    if constexpr (kType == DType::iq4_nl) return c_half(halves + block * 16);
    // A half times six bits: exact.
    const uint8_t* scales = super + FormatOf<kType>::kLayout.scales_at() + column;
    return c_mul(c_half(halves), c_bytes(scales + block * 16));
  }
};

// Ternary codes, one scale for 256.
template <DType kType>  // tq1_0 and tq2_0
struct TernaryFormat : Format32<kType, true> {
  template <int kPair>
  static DROVER_INLINE void codes(const uint8_t* columns, uint32_t pair, Bytes* low, Bytes* high) {
    const Bytes plane = FormatOf<kType>::low_line(columns, pair / 2);
    *low = b_plus(b_field<kPair % 2 * 4, 3, 0>(plane), 127);
    *high = b_plus(b_field<kPair % 2 * 4 + 2, 3, 0>(plane), 127);
  }
  static DROVER_INLINE ColF scale(const uint8_t* super, uint32_t, uint32_t column) {
    return c_half(reinterpret_cast<const uint16_t*>(super) + column);
  }
};
// Indices into a grid. A pair of groups is a vector of 8, or two of 4.
template <DType kType>  // iq1_s, iq1_m, iq2_xxs, iq2_xs, iq2_s and iq3_xxs
struct GridFormat : Format32<kType, true> {
  static constexpr PanelLayout kLayout = panel_layout(kType);
  static constexpr GridLayout kGrid = kLayout.grid;
  static constexpr bool kShifted = kType == DType::iq1_s || kType == DType::iq1_m;
  static DROVER_INLINE const uint64_t* grid8() {
    if constexpr (kType == DType::iq2_xxs) return kIq2XxsCodes.at;
    if constexpr (kType == DType::iq2_xs) return kIq2XsCodes.at;
    if constexpr (kType == DType::iq2_s) return kIq2SCodes.at;
    return kIq1Codes.at;
  }
  template <int kPair>
  static DROVER_INLINE void codes(const uint8_t* columns, uint32_t pair, Bytes* low, Bytes* high) {
    if constexpr (kGrid.vector == 4) {
      const Bytes index = b_load(columns + kLayout.index_at() + pair / 2 * kLine);
      *low = b_grid4(l_field(index, kPair % 2 * 16, 255), kIq3XxsCodes.at);
      *high = b_grid4(l_field(index, kPair % 2 * 16 + 8, 255), kIq3XxsCodes.at);
    } else {
      Bytes index = l_field(b_load(columns + kLayout.index_at() + pair / kPairs * kLine), kPair * 8, 255);
      if constexpr (kGrid.above_bits == 0) {
        b_grid8(index, grid8(), low, high);
      } else {
        constexpr uint32_t kVectors = 32 / kGrid.above_bits;  // of a line
        const Bytes above = b_load(columns + kLayout.above_at() + pair / kVectors * kLine);
        const uint32_t shift = pair % kVectors * kGrid.above_bits;
        index = l_above(index, l_field(above, shift, kShifted ? 7 : (1u << kGrid.above_bits) - 1));
        b_grid8(index, grid8(), low, high);
        if constexpr (kShifted) {
          *low = b_less_two(*low, above, shift + 3);
          *high = b_less_two(*high, above, shift + 3);
        }
      }
    }
    if constexpr (kGrid.signs) {
      const Bytes signs = b_load(columns + kLayout.signs_at() + pair / kPairs * kLine);
      *low = b_negate<kPair, 0>(*low, signs);
      *high = b_negate<kPair, 4>(*high, signs);
    }
  }
  static DROVER_INLINE ColF scale(const uint8_t* super, uint32_t i, uint32_t column) {
    const ColF d = c_mul(c_half(reinterpret_cast<const uint16_t*>(super) + column), c_set(kGrid.unit));
    return c_mul(d, c_bytes(super + kLayout.scales_at() + i * 16 + column));  // exact
  }
};

// 256-blocks with 8 or 16 sub-blocks: w = d · scale · code - dmin · min, or w = d · scale · (code - 32), signed scales.
template <DType kType>
struct Format256 : FormatOf<kType> {
  static constexpr PanelLayout kLayout = panel_layout(kType);
  static constexpr bool kMins = kLayout.mins;
  static constexpr uint32_t kScalePairs = 32 / kLayout.scales;  // pairs of groups that share a scale
  static DROVER_INLINE Scale scale(const uint8_t* super, uint32_t i, uint32_t column) {
    const uint8_t* at = super + kLayout.scales_at() + i * 16 + column;
    if constexpr (kMins) return scale_unsigned(at);
    return scale_signed(at);
  }
  static DROVER_INLINE const uint8_t* zero_bytes(const uint8_t* super, uint32_t i) {
    return super + (kMins ? kLayout.mins_at() : kLayout.scales_at()) + i * 16;
  }
  static DROVER_INLINE Scale zero(const uint8_t* super, uint32_t i, uint32_t column) {
    if constexpr (kMins) return scale_unsigned(zero_bytes(super, i) + column);
    return scale_signed(zero_bytes(super, i) + column);
  }
};
template <DType kType>  // q4_k and q5_k
struct Q45kFormat : Format256<kType> {
  static constexpr bool kHigh = kType == DType::q5_k;
  static constexpr uint32_t kTakePairs = smaller_of(Format256<kType>::kScalePairs, (kHigh ? kGroups31 : kGroups15) / 2);
  template <int kPair>
  static DROVER_INLINE void codes(const uint8_t* columns, uint32_t pair, Bytes* low, Bytes* high) {
    if constexpr (kHigh) {
      FormatOf<kType>::template five_bits<kPair>(columns, pair, low, high);
    } else {
      FormatOf<kType>::four_bits(columns, pair, low, high);
    }
  }
};
struct Q6kFormat : Format256<DType::q6_k> {
  static constexpr uint32_t kTakePairs = smaller_of(kScalePairs, kGroups63 / 2);
  template <int kPair>
  static DROVER_INLINE void codes(const uint8_t* columns, uint32_t pair, Bytes* low, Bytes* high) {
    const Bytes both = low_line(columns, pair), plane = high_line(columns, pair / 2);
    *low = b_bits<kPair % 2 * 4, 3>(b_low(both), plane);
    *high = b_bits<kPair % 2 * 4 + 2, 3>(b_high(both), plane);
  }
};
struct Q2kFormat : Format256<DType::q2_k> {
  static constexpr uint32_t kTakePairs = smaller_of(kScalePairs, kGroups15 / 2);
  template <int kPair>
  static DROVER_INLINE void codes(const uint8_t* columns, uint32_t pair, Bytes* low, Bytes* high) {
    const Bytes plane = low_line(columns, pair / 2);
    *low = b_field<kPair % 2 * 4, 3, 0>(plane);
    *high = b_field<kPair % 2 * 4 + 2, 3, 0>(plane);
  }
};
struct Q3kFormat : Format256<DType::q3_k> {
  static constexpr uint32_t kTakePairs = smaller_of(kScalePairs, kGroups63 / 2);
  template <int kPair>
  static DROVER_INLINE void codes(const uint8_t* columns, uint32_t pair, Bytes* low, Bytes* high) {
    const Bytes plane = low_line(columns, pair / 2), bits = high_line(columns, pair / kPairs);
    // From the format's zero point of 4 to the 32 of 256-blocks.
    *low = b_plus(b_or(b_field<kPair % 2 * 4, 3, 0>(plane), b_field<kPair * 2, 1, 2>(bits)), 28);
    *high = b_plus(b_or(b_field<kPair % 2 * 4 + 2, 3, 0>(plane), b_field<kPair * 2 + 1, 1, 2>(bits)), 28);
  }
};

// ---- views: one vector of columns of a panel ----

// What the vectors of a tile hold: numbers of kColumns columns of one row (TwoRows, simd/matrix_neon.h: of two rows),
// and what rows share, a number per column. kZeros: scales of zero points that are multiplied at once, and a column's
// bytes.
struct OneRow {
  static constexpr uint32_t kRows = 1, kZeros = 2, kZeroBytes = 4;
  using F = ColF;
  using I = ColI;
  using Sums = Sum;
  using Scales = Scale;
  using Zeros = ScalePair;
  using Codes = Bytes;
  using Signed = ByteCodes;
  static DROVER_INLINE I none() { return i_columns(0); }
  static DROVER_INLINE I dot_zeros(I total, Zeros zeros, const int16_t* x) { return i_dot_pair(total, zeros, x); }
#ifndef DROVER_SCALAR
  // Sums that a tile stored.
  static DROVER_INLINE F load(const float* p) { return c_load(p); }
  // What rows share, as chunks hold it.
  static DROVER_INLINE Codes codes(const uint8_t* p) { return b_load(p); }
  static DROVER_INLINE Scales scales(const uint8_t* p) { return b_load(p); }
  static DROVER_INLINE F columns(const float* p) { return c_load(p); }
  static DROVER_INLINE Zeros zeros(const uint8_t* p) { return b_load(p); }
#endif
  // A panel's columns of row r, out of tiles' sums [rows / kRows][stride * kRows].
  static DROVER_INLINE F32x16 row(const float* sums, uint32_t stride, uint32_t r, uint32_t column) {
    return f_load(sums + r * stride + column);
  }
  static DROVER_INLINE I32x16 row(const int32_t* sums, uint32_t stride, uint32_t r, uint32_t column) {
    return i_load(sums + r * stride + column);
  }
};
#ifdef DROVER_MATRIX
using WideVectors = TwoRows;
#else
using WideVectors = OneRow;
#endif

// Panels that are read one after the other: `panel_bytes` each, `skip` from the end of one to the next. (Several such
// streams are read at once, and panels are short: a tenth would be missed if a stream were asked for along one panel
// only.)
template <typename Ask>
struct Stream {
  uint64_t panel_bytes, skip;
  // The share `kPart` of four of what comes after kBytes at `offset` of `panel`.
  template <uint32_t kBytes, int kPart>
  DROVER_INLINE void ask(const uint8_t* panel, uint64_t offset) const {
    const uint64_t near = offset + Ask::kNear, far = offset + Ask::kFar;
    const uint8_t* to_first = panel + near + (near < panel_bytes ? 0 : skip);
    const uint8_t* to_second = panel + far + (far < panel_bytes ? 0 : skip);
#pragma GCC unroll 8
    for (uint32_t i = kPart * kLine; i < kBytes; i += kPairs * kLine) {
      if constexpr (Ask::kNear != 0) __builtin_prefetch(to_first + i, 0, 3);
      __builtin_prefetch(to_second + i, 0, 2);
    }
  }
};

struct NoStream {  // the caller asks
  template <uint32_t kBytes, int kPart>
  DROVER_INLINE void ask(const uint8_t*, uint64_t) const {}
};

template <typename Format, typename Ahead>
struct Packed32 {
  const uint8_t* panel;
  uint32_t column;
  Ahead ahead;
  DROVER_INLINE const uint8_t* super(uint32_t block) const {
    return panel + uint64_t{block / Format::kBlocks} * Format::kSuper;
  }
  template <int kPair>
  DROVER_INLINE void codes(uint32_t block, Bytes* low, Bytes* high) const {
    constexpr uint32_t kBytes = Format::kSuper / Format::kBlocks;
    if (column == 0) ahead.template ask<kBytes, kPair>(panel, uint64_t{block} * kBytes);
    Format::template codes<kPair>(super(block) + column * 4, block % Format::kBlocks * kPairs + kPair, low, high);
  }
  // Of part `part` of a block.
  DROVER_INLINE ColF scale(uint32_t block, uint32_t part) const {
    return Format::scale(super(block), block % Format::kBlocks * Format::kParts + part, column);
  }
  DROVER_INLINE ColF min(uint32_t block) const { return Format::min(super(block), block % Format::kBlocks, column); }
};
template <typename Format, typename Ahead>
struct Packed256 {
  const uint8_t* panel;
  uint32_t column;
  Ahead ahead;
  DROVER_INLINE const uint8_t* super(uint32_t block) const { return panel + uint64_t{block} * Format::kSuper; }
  template <int kPair>
  DROVER_INLINE void codes(uint32_t block, uint32_t sub, Bytes* low, Bytes* high) const {
    constexpr uint32_t kBytes = Format::kSuper / 8;
    if (column == 0) ahead.template ask<kBytes, kPair>(panel, (uint64_t{block} * 8 + sub) * kBytes);
    Format::template codes<kPair>(super(block) + column * 4, sub * kPairs + kPair, low, high);
  }
  DROVER_INLINE Scale scale(uint32_t block, uint32_t i) const { return Format::scale(super(block), i, column); }
  // Scales of the zero points of sub-blocks i and i + 1.
  DROVER_INLINE ScalePair zeros(uint32_t block, uint32_t i) const {
    return pair_of(Format::zero(super(block), i, column), Format::zero(super(block), i + 1, column));
  }
  DROVER_INLINE ColF d(uint32_t block) const {
    return c_half(reinterpret_cast<const uint16_t*>(super(block)) + column);
  }
  DROVER_INLINE ColF dmin(uint32_t block) const {
    return c_half(reinterpret_cast<const uint16_t*>(super(block)) + 16 + column);
  }
};

#ifndef DROVER_SCALAR
// A chunk of one panel, unpacked: lines of codes by group, then lines of scales, of zero-point pairs (or float mins), d
// and dmin.
// With words, byte codes take two lines a group: elements 0 and 2 of each column, then 1 and 3. For matrix instructions
// the two lines of a pair of groups hold 8 k of a column beside each other, and zero points' scales 8 of a column.
inline constexpr uint32_t kChunk = 256;
#ifdef DROVER_WORDS
inline constexpr uint32_t kWideScales = 128 * kLine;
#else
inline constexpr uint32_t kWideScales = 64 * kLine;
#endif
inline constexpr uint32_t kWideZeros = kWideScales + 16 * kLine, kWideD = kWideZeros + 8 * kLine;
inline constexpr uint32_t kWideBytes = kWideD + 2 * kLine;
// Where the scales of zero points from the i-th on are, WideVectors::kZeros of each column.
constexpr uint32_t wide_zeros(uint32_t i, uint32_t column) {
  return kWideZeros + (i / WideVectors::kZeros * kPanel + column) * WideVectors::kZeroBytes;
}

struct Wide {
  const uint8_t* chunk;
  uint32_t column;
  template <int kPair>
  DROVER_INLINE void codes(uint32_t sub, WideVectors::Codes* low, WideVectors::Codes* high) const {
    const uint8_t* line = chunk + (sub * kPairs + kPair) * 2 * kLine + column * 4;
    *low = WideVectors::codes(line);
    *high = WideVectors::codes(line + kLine);
  }
  DROVER_INLINE const uint8_t* at(uint32_t offset, uint32_t i) const { return chunk + offset + i * kLine + column * 4; }
  DROVER_INLINE WideVectors::F floats(uint32_t offset, uint32_t i) const {
    return WideVectors::columns(reinterpret_cast<const float*>(at(offset, i)));
  }
};
struct Wide32 : Wide {
  DROVER_INLINE WideVectors::F scale(uint32_t block, uint32_t part) const {
    return floats(kWideScales + part * 8 * kLine, block);
  }
  DROVER_INLINE WideVectors::F min(uint32_t block) const { return floats(kWideZeros, block); }
};
struct Wide256 : Wide {
  template <int kPair>
  DROVER_INLINE void codes(uint32_t, uint32_t sub, WideVectors::Codes* low, WideVectors::Codes* high) const {
    Wide::codes<kPair>(sub, low, high);
  }
  DROVER_INLINE WideVectors::Scales scale(uint32_t, uint32_t i) const {
    return WideVectors::scales(at(kWideScales, i));
  }
  DROVER_INLINE WideVectors::Zeros zeros(uint32_t, uint32_t i) const {
    return WideVectors::zeros(chunk + wide_zeros(i, column));
  }
  DROVER_INLINE WideVectors::F d(uint32_t) const { return floats(kWideD, 0); }
  DROVER_INLINE WideVectors::F dmin(uint32_t) const { return floats(kWideD, 1); }
};

template <int kPair, bool kByteCodes>
DROVER_INLINE void store_codes(uint8_t* chunk, uint32_t sub, uint32_t column, Bytes low, Bytes high) {
#ifdef DROVER_WORDS
  if constexpr (kByteCodes) {
    uint8_t* words = chunk + (sub * kPairs + kPair) * 4 * kLine + column * 4;
    w_store(words, words + kLine, low);
    return w_store(words + 2 * kLine, words + 3 * kLine, high);
  }
#endif
#ifdef DROVER_MATRIX
  if constexpr (kByteCodes) {
    low = byte_codes(low);
    high = byte_codes(high);
  }
  m_turn(&low, &high);
#endif
  uint8_t* line = chunk + (sub * kPairs + kPair) * 2 * kLine + column * 4;
  b_store(line, low);
  b_store(line + kLine, high);
}
DROVER_INLINE void store_float(uint8_t* chunk, uint32_t offset, uint32_t i, uint32_t column, ColF value) {
  c_store(reinterpret_cast<float*>(chunk + offset + i * kLine + column * 4), value);
}
// Unpacks `blocks` 32-blocks of a panel from `first` on.
template <typename Format>
void widen_32(const uint8_t* panel, uint32_t first, uint32_t blocks, uint8_t* chunk) {
  for (uint32_t column = 0; column < kPanel; column += kColumns) {
    const Packed32<Format, NoStream> from{panel, column, {}};
    for (uint32_t b = 0; b < blocks; b++) {
      for_pairs([&]<int kPair>() DROVER_LAMBDA {
        Bytes low, high;
        from.template codes<kPair>(first + b, &low, &high);
        store_codes<kPair, Format::kByteCodes>(chunk, b, column, low, high);
      });
      for (uint32_t part = 0; part < Format::kParts; part++)
        store_float(chunk, kWideScales + part * 8 * kLine, b, column, from.scale(first + b, part));
      if constexpr (Format::kMins) store_float(chunk, kWideZeros, b, column, from.min(first + b));
    }
  }
}
// Unpacks a 256-block of a panel.
template <typename Format>
void widen_256(const uint8_t* panel, uint32_t block, uint8_t* chunk) {
  for (uint32_t column = 0; column < kPanel; column += kColumns) {
    const Packed256<Format, NoStream> from{panel, column, {}};
    for (uint32_t sub = 0; sub < 8; sub++) {
      for_pairs([&]<int kPair>() DROVER_LAMBDA {
        Bytes low, high;
        from.template codes<kPair>(block, sub, &low, &high);
        store_codes<kPair, false>(chunk, sub, column, low, high);
      });
    }
    for (uint32_t i = 0; i < Format::kScales; i++)
      b_store(chunk + kWideScales + i * kLine + column * 4, from.scale(block, i));
    for (uint32_t i = 0; i < Format::kScales; i += WideVectors::kZeros) {
#ifdef DROVER_MATRIX
      m_transpose(Format::zero_bytes(from.super(block), i) + column, kPanel, chunk + wide_zeros(i, column));
#else
      b_store(chunk + wide_zeros(i, column), from.zeros(block, i));
#endif
    }
    store_float(chunk, kWideD, 0, column, from.d(block));
    if constexpr (Format::kMins) store_float(chunk, kWideD, 1, column, from.dmin(block));
  }
}
#endif

}  // namespace
}  // namespace drover
