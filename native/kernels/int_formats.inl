// The block formats that multiply 8-bit activations, as tiles read them: the codes of two groups of 4 k and the scales,
// either from prepared panels (Packed, layouts in panels.h) or from a chunk of 256 k that has been unpacked once for
// many rows (Wide: one byte per code, 4 bytes per column and scale).
#include "panels.h"

namespace drover {
namespace {

#define DROVER_LAMBDA __attribute__((always_inline))

inline constexpr uint32_t kPairs = 4;  // pairs of groups in 32 k

template <typename Body>
DROVER_INLINE void for_pairs(Body body) {
  body.template operator()<0>();
  body.template operator()<1>();
  body.template operator()<2>();
  body.template operator()<3>();
}
inline constexpr uint32_t smaller_of(uint32_t a, uint32_t b) { return a < b ? a : b; }

// 32-blocks with an f16 scale: w = d · (code - zero). `kBytes`: codes stand for code - 128.
template <bool kBytes, uint32_t kSuperBytes, uint32_t kBlock>
struct Format32 {
  static constexpr bool kByteCodes = kBytes;
  static constexpr uint32_t kDepth = 64, kSuper = kSuperBytes, kBlockBytes = kBlock;
};
struct Q8Format : Format32<true, kQ8Superblock, 8 * kLine> {
  template <int kPair>
  static DROVER_INLINE void codes(const uint8_t* lines, Bytes* low, Bytes* high) {
    *low = b_load(lines + 2 * kPair * kLine);
    *high = b_load(lines + (2 * kPair + 1) * kLine);
  }
};
struct Q4Format : Format32<false, kQ4Superblock, 4 * kLine> {
  template <int kPair>
  static DROVER_INLINE void codes(const uint8_t* lines, Bytes* low, Bytes* high) {
    const Bytes both = b_load(lines + kPair * kLine);
    *low = b_low(both);
    *high = b_high(both);
  }
};
struct Iq4Format : Format32<true, kQ4Superblock, 4 * kLine> {
  template <int kPair>
  static DROVER_INLINE void codes(const uint8_t* lines, Bytes* low, Bytes* high) {
    alignas(16) static constexpr uint8_t kBook[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                                      129, 141, 153, 166, 181, 197, 217, 241};
    static_assert(kBook[0] == kIq4NlCodes[0] + 128 && kBook[15] == kIq4NlCodes[15] + 128);
    const Bytes both = b_load(lines + kPair * kLine);
    *low = b_lookup(b_low(both), kBook);
    *high = b_lookup(b_high(both), kBook);
  }
};

// 256-blocks with 8 sub-blocks of 32: w = d · scale · code - dmin · min. kHigh: the fifth bits follow.
template <bool kHigh>
struct Q45kFormat {
  static constexpr bool kMins = true;
  static constexpr uint32_t kSuper = kHigh ? kQ5kSuperblock : kQ4kSuperblock;
  static constexpr uint32_t kScales = 8, kScalePairs = 4;  // scales of a block, pairs of groups that share one
  static constexpr uint32_t kTakePairs = smaller_of(kScalePairs, (kHigh ? kGroups31 : kGroups15) / 2);
  template <int kPair>
  static DROVER_INLINE void codes(const uint8_t* super, uint32_t sub, Bytes* low, Bytes* high) {
    const Bytes both = b_load(super + kQ4kLines + (sub * kPairs + kPair) * kLine);
    *low = b_low(both);
    *high = b_high(both);
    if constexpr (kHigh) {
      const Bytes bits = b_load(super + kQ5kHigh + sub * kLine);
      *low = b_bits<kPair * 2, 1>(*low, bits);
      *high = b_bits<kPair * 2 + 1, 1>(*high, bits);
    }
  }
  static DROVER_INLINE Scale scale(const uint8_t* super, uint32_t i, uint32_t column) {
    return scale_unsigned(super + kQ4kScales + i * 16 + column);
  }
  static DROVER_INLINE Scale zero(const uint8_t* super, uint32_t i, uint32_t column) {
    return scale_unsigned(super + kQ4kMins + i * 16 + column);
  }
};

// 256-blocks with 16 sub-blocks of 16: w = d · scale · (code - 32), signed scales.
struct Q6kFormat {
  static constexpr bool kMins = false;
  static constexpr uint32_t kSuper = kQ6kSuperblock;
  static constexpr uint32_t kScales = 16, kScalePairs = 2;
  static constexpr uint32_t kTakePairs = smaller_of(kScalePairs, kGroups63 / 2);
  template <int kPair>
  static DROVER_INLINE void codes(const uint8_t* super, uint32_t sub, Bytes* low, Bytes* high) {
    const Bytes both = b_load(super + kQ6kLines + (sub * kPairs + kPair) * kLine);
    const Bytes plane = b_load(super + kQ6kHigh + (sub * 2 + kPair / 2) * kLine);
    *low = b_bits<kPair % 2 * 4, 3>(b_low(both), plane);
    *high = b_bits<kPair % 2 * 4 + 2, 3>(b_high(both), plane);
  }
  static DROVER_INLINE Scale scale(const uint8_t* super, uint32_t i, uint32_t column) {
    return scale_signed(super + kQ6kScales + i * 16 + column);
  }
  static DROVER_INLINE Scale zero(const uint8_t* super, uint32_t i, uint32_t column) { return scale(super, i, column); }
};

// ---- views: one vector of columns of a panel ----

template <typename Format>
struct Packed32 {
  const uint8_t* panel;
  uint32_t column;
  DROVER_INLINE const uint8_t* super(uint32_t block) const { return panel + uint64_t{block / 2} * Format::kSuper; }
  template <int kPair>
  DROVER_INLINE void codes(uint32_t block, Bytes* low, Bytes* high) const {
    Format::template codes<kPair>(super(block) + kLine + block % 2 * Format::kBlockBytes + column * 4, low, high);
  }
  DROVER_INLINE ColF scale(uint32_t block) const {
    return c_half(reinterpret_cast<const uint16_t*>(super(block) + block % 2 * 32) + column);
  }
};
template <typename Format>
struct Packed256 {
  const uint8_t* panel;
  uint32_t column;
  DROVER_INLINE const uint8_t* super(uint32_t block) const { return panel + uint64_t{block} * Format::kSuper; }
  template <int kPair>
  DROVER_INLINE void codes(uint32_t block, uint32_t sub, Bytes* low, Bytes* high) const {
    Format::template codes<kPair>(super(block) + column * 4, sub, low, high);
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
// A chunk of one panel, unpacked: lines of codes by group, then lines of scales, of zero-point pairs, d and dmin.
inline constexpr uint32_t kWideScales = 64 * kLine, kWideZeros = kWideScales + 16 * kLine,
                          kWideD = kWideZeros + 8 * kLine;
inline constexpr uint32_t kWideBytes = kWideD + 2 * kLine;

struct Wide {
  const uint8_t* chunk;
  uint32_t column;
  template <int kPair>
  DROVER_INLINE void codes(uint32_t sub, Bytes* low, Bytes* high) const {
    const uint8_t* line = chunk + (sub * kPairs + kPair) * 2 * kLine + column * 4;
    *low = b_load(line);
    *high = b_load(line + kLine);
  }
  DROVER_INLINE const uint8_t* at(uint32_t offset, uint32_t i) const { return chunk + offset + i * kLine + column * 4; }
};
struct Wide32 : Wide {
  DROVER_INLINE ColF scale(uint32_t block) const {
    return c_load(reinterpret_cast<const float*>(at(kWideScales, block)));
  }
};
struct Wide256 : Wide {
  template <int kPair>
  DROVER_INLINE void codes(uint32_t, uint32_t sub, Bytes* low, Bytes* high) const {
    Wide::codes<kPair>(sub, low, high);
  }
  DROVER_INLINE Scale scale(uint32_t, uint32_t i) const { return b_load(at(kWideScales, i)); }
  DROVER_INLINE ScalePair zeros(uint32_t, uint32_t i) const { return b_load(at(kWideZeros, i / 2)); }
  DROVER_INLINE ColF d(uint32_t) const { return c_load(reinterpret_cast<const float*>(at(kWideD, 0))); }
  DROVER_INLINE ColF dmin(uint32_t) const { return c_load(reinterpret_cast<const float*>(at(kWideD, 1))); }
};

template <int kPair>
DROVER_INLINE void store_codes(uint8_t* chunk, uint32_t sub, uint32_t column, Bytes low, Bytes high) {
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
    const Packed32<Format> from{panel, column};
    for (uint32_t b = 0; b < blocks; b++) {
      for_pairs([&]<int kPair>() DROVER_LAMBDA {
        Bytes low, high;
        from.template codes<kPair>(first + b, &low, &high);
        store_codes<kPair>(chunk, b, column, low, high);
      });
      store_float(chunk, kWideScales, b, column, from.scale(first + b));
    }
  }
}
// Unpacks a 256-block of a panel.
template <typename Format>
void widen_256(const uint8_t* panel, uint32_t block, uint8_t* chunk) {
  for (uint32_t column = 0; column < kPanel; column += kColumns) {
    const Packed256<Format> from{panel, column};
    for (uint32_t sub = 0; sub < 8; sub++) {
      for_pairs([&]<int kPair>() DROVER_LAMBDA {
        Bytes low, high;
        from.template codes<kPair>(block, sub, &low, &high);
        store_codes<kPair>(chunk, sub, column, low, high);
      });
    }
    for (uint32_t i = 0; i < Format::kScales; i++) {
      b_store(chunk + kWideScales + i * kLine + column * 4, from.scale(block, i));
      if (i % 2 == 0) b_store(chunk + kWideZeros + i / 2 * kLine + column * 4, from.zeros(block, i));
    }
    store_float(chunk, kWideD, 0, column, from.d(block));
    if constexpr (Format::kMins) store_float(chunk, kWideD, 1, column, from.dmin(block));
  }
}
#endif

}  // namespace
}  // namespace drover
