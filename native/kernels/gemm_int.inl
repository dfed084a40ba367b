// GEMM with 8-bit activations on prepared integer panels (panels.h). Sums over a block are exact integers; each block
// of 32 (a8_32) or 256 (a8_256) then adds to the output's f32 chain in order of k.
//
// Few rows read the panels as they are: the weights come from memory once, and unpacking hides behind that. Many rows
// share chunks of 256 k that are unpacked once (Wide, some KiB in the first-level cache), in tiles of kTileRows rows by
// two vectors of columns: each broadcast of 4 activations then serves two dot products, so that loads do not bound the
// loop. Both read the same numbers in the same order.
#include "int_formats.inl"

namespace drover {
namespace {

// Rows that have one integer row after another: what a tile needs of a8_32 and a8_256 rows (quantize.h).
struct RowsOf8 {
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
};

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
struct MemorySums {
  float* at;
  uint64_t stride;
  DROVER_INLINE ColF get(uint32_t r, uint32_t v) const { return c_load(at + r * stride + v * kColumns); }
  DROVER_INLINE void set(uint32_t r, uint32_t v, ColF sum) { c_store(at + r * stride + v * kColumns, sum); }
};
#endif

// total += the products of a pair of groups of byte codes.
template <int kPair, uint32_t kR, uint32_t kV, typename View>
DROVER_INLINE void add_pair(const View (&w)[kV], uint32_t view_block, RowsOf8 x, uint32_t block,
                            ColI (&total)[kR][kV]) {
  ByteCodes low[kV], high[kV];
#pragma GCC unroll 4
  for (uint32_t v = 0; v < kV; v++) {
    Bytes a, b;
    w[v].template codes<kPair>(view_block, &a, &b);
    low[v] = byte_codes(a);
    high[v] = byte_codes(b);
  }
  for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
    const int8_t* q = x.codes(r, block * 32 + kPair * 8);
    total[r][v] = i_dot_byte(i_dot_byte(total[r][v], low[v], q), high[v], q + 4);
  });
}

// sums += a 32-block's exact products times its scales, and its minima times the sum of the activations.
template <typename Format, uint32_t kR, uint32_t kV, typename View, typename Sums>
DROVER_INLINE void add_scaled(const View (&w)[kV], uint32_t view_block, RowsOf8 x, uint32_t block,
                              const ColI (&total)[kR][kV], Sums& sums) {
  ColF d[kV], m[kV];
#pragma GCC unroll 4
  for (uint32_t v = 0; v < kV; v++) {
    d[v] = w[v].scale(view_block, 0);
    if constexpr (Format::kMins) m[v] = w[v].min(view_block);
  }
  for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
    const float scale = x.load<float>(r, a8_32_scales(x.depth), block);
    ColF sum = c_fma(c_from(total[r][v]), c_mul(d[v], c_set(scale)), sums.get(r, v));
    if constexpr (Format::kMins) {
      // zeros8 is -8 times the sum of the codes.
      const float codes = static_cast<float>(x.load<int32_t>(r, a8_32_zeros8(x.depth), block)) * -0.125f;
      sum = c_fma(m[v], c_set(codes * scale), sum);
    }
    sums.set(r, v, sum);
  });
}

// sums += a 32-block's products, already times the scales of its halves.
template <uint32_t kR, uint32_t kV, typename Sums>
DROVER_INLINE void add_halves_scaled(RowsOf8 x, uint32_t block, const ColF (&scaled)[kR][kV], Sums& sums) {
  for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
    const ColF scale = c_set(x.load<float>(r, a8_32_scales(x.depth), block));
    sums.set(r, v, c_fma(scaled[r][v], scale, sums.get(r, v)));
  });
}

// sums += a 32-block of byte codes whose halves have a scale each.
template <typename Format, uint32_t kR, uint32_t kV, typename View, typename Sums>
DROVER_INLINE void add_halves(const View (&w)[kV], uint32_t view_block, RowsOf8 x, uint32_t block, Sums& sums) {
  ColI total[kR][kV];
  ColF scaled[kR][kV];
  for_pairs([&]<int kPair>() DROVER_LAMBDA {
    if constexpr (kPair % 2 == 0) {
      for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
        total[r][v] =
            i_columns(kByteZero == 0 ? 0 : x.load<int32_t>(r, a8_32_halves128(x.depth), block * 2 + kPair / 2));
      });
    }
    add_pair<kPair>(w, view_block, x, block, total);
    if constexpr (kPair % 2 == 1) {
      ColF d[kV];
#pragma GCC unroll 4
      for (uint32_t v = 0; v < kV; v++) d[v] = w[v].scale(view_block, kPair / 2);
      for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
        const ColF sum = c_from(total[r][v]);
        scaled[r][v] = kPair == 1 ? c_mul(sum, d[v]) : c_fma(sum, d[v], scaled[r][v]);
      });
    }
  });
  add_halves_scaled(x, block, scaled, sums);
}

// sums += a 32-block whose codes share a scale.
template <typename Format, uint32_t kR, uint32_t kV, typename View, typename Sums>
DROVER_INLINE void add_whole(const View (&w)[kV], uint32_t view_block, RowsOf8 x, uint32_t block, Sums& sums) {
  constexpr bool kFromZero = Format::kByteCodes ? kByteZero == 0 : Format::kMins;
  const uint64_t zeros = Format::kByteCodes ? a8_32_zeros128(x.depth) : a8_32_zeros8(x.depth);
  ColI total[kR][kV];
  for_tile<kR, kV>([&](uint32_t r, uint32_t v)
                       DROVER_LAMBDA { total[r][v] = i_columns(kFromZero ? 0 : x.load<int32_t>(r, zeros, block)); });
  if constexpr (Format::kByteCodes) {
    for_pairs([&]<int kPair>() DROVER_LAMBDA { add_pair<kPair>(w, view_block, x, block, total); });
  } else {
    static_assert(kGroups15 >= 8 || kDot32);
    Sum sum[kR][kV];
    for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA { sum[r][v] = s_begin(total[r][v]); });
    for_pairs([&]<int kPair>() DROVER_LAMBDA {
      Bytes low[kV], high[kV];
#pragma GCC unroll 4
      for (uint32_t v = 0; v < kV; v++) w[v].template codes<kPair>(view_block, &low[v], &high[v]);
      for_tile<kR, kV>([&](uint32_t r, uint32_t v)
                           DROVER_LAMBDA { sum[r][v] = s_dot(sum[r][v], low[v], x.codes(r, block * 32 + kPair * 8)); });
      for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
        sum[r][v] = s_dot(sum[r][v], high[v], x.codes(r, block * 32 + kPair * 8 + 4));
      });
    });
    for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA { total[r][v] = s_total(sum[r][v], total[r][v]); });
  }
  add_scaled<Format>(w, view_block, x, block, total, sums);
}

// sums += 32-blocks [first, first + blocks) of the rows' depth; view block i is the i-th of them, plus `view_first`.
template <typename Format, uint32_t kR, uint32_t kV, typename View, typename Sums>
DROVER_INLINE void add_32(const View (&w)[kV], uint32_t view_first, RowsOf8 x, uint32_t first, uint32_t blocks,
                          Sums& sums) {
  for (uint32_t b = 0; b < blocks; b++) {
    if constexpr (Format::kParts == 1) {
      add_whole<Format, kR, kV>(w, view_first + b, x, first + b, sums);
    } else {
      add_halves<Format, kR, kV>(w, view_first + b, x, first + b, sums);
    }
  }
}

// sums += the 256-block `block` of the rows' depth.
template <typename Format, uint32_t kR, uint32_t kV, typename View, typename Sums>
DROVER_INLINE void add_256(const View (&w)[kV], RowsOf8 x, uint32_t block, Sums& sums) {
  // Sums of codes up to 63 fit what s_scaled takes only around their zero point; there they start from -32 Σ x.
  constexpr bool kStartAtZeroPoint = !Format::kMins && kDot32;
  const uint64_t starts = a8_256_zeros32(x.depth);
  ColI total[kR][kV];
  for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA { total[r][v] = i_columns(0); });
  for (uint32_t sub = 0; sub < 8; sub++) {
    Sum sum[kR][kV];
    for_pairs([&]<int kPair>() DROVER_LAMBDA {
      if constexpr (kPair % Format::kTakePairs == 0) {
        for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
          sum[r][v] =
              s_begin(i_columns(kStartAtZeroPoint ? x.load<int32_t>(r, starts, block * 32 + sub * kPairs + kPair) : 0));
        });
      }
      Bytes low[kV], high[kV];
#pragma GCC unroll 4
      for (uint32_t v = 0; v < kV; v++) w[v].template codes<kPair>(block, sub, &low[v], &high[v]);
      for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
        sum[r][v] = s_dot(sum[r][v], low[v], x.codes(r, block * 256 + sub * 32 + kPair * 8));
      });
      for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
        sum[r][v] = s_dot(sum[r][v], high[v], x.codes(r, block * 256 + sub * 32 + kPair * 8 + 4));
      });
      if constexpr ((kPair + 1) % Format::kTakePairs == 0) {
        Scale scale[kV];
#pragma GCC unroll 4
        for (uint32_t v = 0; v < kV; v++) scale[v] = w[v].scale(block, (sub * kPairs + kPair) / Format::kScalePairs);
        for_tile<kR, kV>([&](uint32_t r, uint32_t v)
                             DROVER_LAMBDA { total[r][v] = s_scaled(total[r][v], sum[r][v], scale[v]); });
      }
    });
  }
  ColI zero[kR][kV];
  for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA { zero[r][v] = i_columns(0); });
  if constexpr (!kStartAtZeroPoint) {
    const uint64_t codes = Format::kScales == 8 ? a8_256_sums32(x.depth) : a8_256_sums16(x.depth);
    for (uint32_t i = 0; i < Format::kScales; i += 2) {
      ScalePair pair[kV];
#pragma GCC unroll 4
      for (uint32_t v = 0; v < kV; v++) pair[v] = w[v].zeros(block, i);
      for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
        zero[r][v] = i_dot_pair(zero[r][v], pair[v], x.sums(r, codes, block * Format::kScales + i));
      });
    }
  }
  const uint64_t scales = a8_256_scales(x.depth);
  for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
    const ColF scale = c_set(x.load<float>(r, scales, block));
    if constexpr (Format::kMins) {
      const ColF value = c_fnma(w[v].dmin(block), c_from(zero[r][v]), c_mul(w[v].d(block), c_from(total[r][v])));
      sums.set(r, v, c_fma(scale, value, sums.get(r, v)));
    } else {
      const ColI sum = kStartAtZeroPoint ? total[r][v] : i_minus_shifted<5>(total[r][v], zero[r][v]);
      sums.set(r, v, c_fma(c_from(sum), c_mul(w[v].d(block), scale), sums.get(r, v)));
    }
  });
}

#ifdef DROVER_WORDS
// As add_32 over a chunk of byte codes that are kept as 16-bit words. words: the rows' chunk, kChunk of them a row.
template <typename Format, uint32_t kR>
DROVER_INLINE void add_words(const Wide32 (&w)[2], const int16_t* words, RowsOf8 x, uint32_t first, uint32_t blocks,
                             MemorySums& sums) {
  constexpr uint32_t kParts = Format::kParts;
  for (uint32_t b = 0; b < blocks; b++) {
    ColF scaled[kR][2];
#pragma GCC unroll 2
    for (uint32_t part = 0; part < kParts; part++) {
      ColI total[kR][2];
      for_tile<kR, 2>([&](uint32_t r, uint32_t v) DROVER_LAMBDA { total[r][v] = i_columns(0); });
#pragma GCC unroll 16
      for (uint32_t i = 16 / kParts * part; i < 16 / kParts * (part + 1); i++) {  // even and odd elements of groups
        const uint8_t* line = w[0].chunk + (b * 16 + i) * kLine;
        const Bytes codes[2] = {b_load(line), b_load(line + kLine / 2)};
        const int16_t* pair = words + i % 2 * (kChunk / 2) + (b * 8 + i / 2) * 2;
        for_tile<kR, 2>([&](uint32_t r, uint32_t v)
                            DROVER_LAMBDA { total[r][v] = i_dot_words(total[r][v], codes[v], pair + r * kChunk); });
      }
      if constexpr (kParts == 1) {
        add_scaled<Format>(w, b, x, first + b, total, sums);
      } else {
        for_tile<kR, 2>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
          const ColF sum = c_from(total[r][v]), d = w[v].scale(b, part);
          scaled[r][v] = part == 0 ? c_mul(sum, d) : c_fma(sum, d, scaled[r][v]);
        });
      }
    }
    if constexpr (kParts == 2) add_halves_scaled(x, first + b, scaled, sums);
  }
}
#endif

// Views of kV vectors of columns from `column` on; panels that several streams share out come as many panels later.
template <uint32_t kV, typename View>
DROVER_INLINE void place(View (&w)[kV], const uint8_t* panel, uint64_t panel_stride, uint32_t column) {
  constexpr uint32_t kStreams = kV > kPanelVectors ? kV / kPanelVectors : 1;
  for (uint32_t v = 0; v < kV; v++) {
    const uint32_t at = column + v * kColumns;
    w[v] = {panel + at / kPanel * panel_stride, at % kPanel, {panel_stride, (kStreams - 1) * panel_stride}};
  }
}

// How a format's tiles are run, whole depth from panels or chunk by chunk.
template <typename Format>
struct Run32 {
  using Of = Format;
  static constexpr bool kWords = Format::kByteCodes;  // multiplied as 16-bit words where the ISA asks for that
  static uint32_t chunks(uint32_t depth) { return (depth + 255) / 256; }
  static constexpr uint32_t chunk_bytes() { return 8 / Format::kBlocks * Format::kSuper; }
  template <uint32_t kR, uint32_t kV, typename Ask>
  static void packed(const uint8_t* panel, uint64_t panel_stride, uint32_t column, RowsOf8 x, float* out,
                     uint32_t out_stride) {
    Packed32<Format, Stream<Ask>> w[kV];
    place(w, panel, panel_stride, column);
    RegisterSums<kR, kV> sums;
    for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA { sums.at[r][v] = c_zero(); });
    add_32<Format, kR, kV>(w, 0, x, 0, (x.depth + 31) / 32, sums);
    for_tile<kR, kV>([&](uint32_t r, uint32_t v)
                         DROVER_LAMBDA { c_store(out + r * out_stride + column + v * kColumns, sums.at[r][v]); });
  }
#ifndef DROVER_SCALAR
  static uint32_t blocks_of(uint32_t chunk, uint32_t depth) {
    const uint32_t all = (depth + 31) / 32, first = chunk * 8;
    return all - first < 8 ? all - first : 8;
  }
  static void widen(const uint8_t* panel, uint32_t chunk, uint32_t depth, uint8_t* out) {
    widen_32<Format>(panel, chunk * 8, blocks_of(chunk, depth), out);
  }
  template <uint32_t kR, typename Sums>
  static DROVER_INLINE void add(const Wide32 (&w)[2], const int16_t* words, RowsOf8 x, uint32_t chunk, Sums& sums) {
#ifdef DROVER_WORDS
    if constexpr (kWords) return add_words<Format, kR>(w, words, x, chunk * 8, blocks_of(chunk, x.depth), sums);
#endif
    (void)words;
    add_32<Format, kR, 2>(w, 0, x, chunk * 8, blocks_of(chunk, x.depth), sums);
  }
  using View = Wide32;
#endif
};
template <typename Format>
struct Run256 {
  using Of = Format;
  static constexpr bool kWords = false;
  static uint32_t chunks(uint32_t depth) { return depth / 256; }
  static constexpr uint32_t chunk_bytes() { return Format::kSuper; }
  template <uint32_t kR, uint32_t kV, typename Ask>
  static void packed(const uint8_t* panel, uint64_t panel_stride, uint32_t column, RowsOf8 x, float* out,
                     uint32_t out_stride) {
    Packed256<Format, Stream<Ask>> w[kV];
    place(w, panel, panel_stride, column);
    RegisterSums<kR, kV> sums;
    for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA { sums.at[r][v] = c_zero(); });
    for (uint32_t block = 0; block < x.depth / 256; block++) add_256<Format, kR, kV>(w, x, block, sums);
    for_tile<kR, kV>([&](uint32_t r, uint32_t v)
                         DROVER_LAMBDA { c_store(out + r * out_stride + column + v * kColumns, sums.at[r][v]); });
  }
#ifndef DROVER_SCALAR
  static void widen(const uint8_t* panel, uint32_t chunk, uint32_t, uint8_t* out) {
    widen_256<Format>(panel, chunk, out);
  }
  template <uint32_t kR, typename Sums>
  static DROVER_INLINE void add(const Wide256 (&w)[2], const int16_t*, RowsOf8 x, uint32_t chunk, Sums& sums) {
    add_256<Format, kR, 2>(w, x, chunk, sums);
  }
  using View = Wide256;
#endif
};

#if defined(DROVER_AVX512)
inline constexpr uint32_t kFewRows = 8, kTileRows = 6, kManyRows = 9;
#elif defined(DROVER_SCALAR)
inline constexpr uint32_t kFewRows = 2;  // plain loops gain little from more, and unroll to megabytes
#else
inline constexpr uint32_t kFewRows = 4, kTileRows = 3, kManyRows = 5;
#endif

// Vectors of columns that so few rows take at once: several streams from memory, and each broadcast of activations
// serves them all, as far as there are registers.
constexpr uint32_t few_vectors(uint32_t rows) {
#ifdef DROVER_AVX512
  return rows == 1 ? 4 : rows <= 6 ? 2 : 1;
#else
  return rows == 1 ? kPanelVectors : 1;
#endif
}

// Rows [row, row + kR) of `panels` panels straight from their packed form. sums: [kR][panels * kPanel].
template <typename Run, uint32_t kR, uint32_t kV, typename Ask>
DROVER_INLINE void packed_panels(const GemmArgs& args, uint32_t row, uint32_t panel, uint32_t panels,
                                 uint64_t panel_stride, float* sums) {
  const RowsOf8 x{static_cast<const uint8_t*>(args.x) + row * args.x_stride_bytes, args.x_stride_bytes, args.depth};
  const uint32_t cols = panels * kPanel;
  for (uint32_t column = 0; column < cols; column += kV * kColumns) {
    Run::template packed<kR, kV, Ask>(args.w + panel * panel_stride, panel_stride, column, x, sums, cols);
  }
  for (uint32_t r = 0; r < kR; r++) {
    for (uint32_t p = 0; p < panels; p++) finish(args, row + r, panel + p, f_load(sums + r * cols + p * kPanel));
  }
}
template <typename Run, uint32_t kR, typename Ask>
DROVER_INLINE void few_panels(const GemmArgs& args, uint32_t row, uint32_t panel, uint32_t panel_end,
                              uint64_t panel_stride, float* sums) {
  constexpr uint32_t kV = few_vectors(kR), kPanels = kV > kPanelVectors ? kV / kPanelVectors : 1;
  for (; panel + kPanels <= panel_end; panel += kPanels) {
    packed_panels<Run, kR, kV, Ask>(args, row, panel, kPanels, panel_stride, sums);
  }
  if constexpr (kPanels > 1) {
    for (; panel < panel_end; panel++) {
      packed_panels<Run, kR, kPanelVectors, Ask>(args, row, panel, 1, panel_stride, sums);
    }
  }
}
template <typename Run, uint32_t kR = kFewRows>
void few_rows(const GemmArgs& args, uint32_t row, uint32_t rows, uint32_t panel, uint32_t panel_end,
              uint64_t panel_stride, float* sums) {
  if constexpr (kR > 0) {
    if (rows != kR) return few_rows<Run, kR - 1>(args, row, rows, panel, panel_end, panel_stride, sums);
    // Codes in one piece, with few products of a line. (Superblocks of 256 gained nothing with AVX2, where it was
    // tried.)
    constexpr PanelLayout kLayout = Run::Of::kLayout;
    constexpr bool kOnePiece = kLayout.low_bits >= 4 && kLayout.high_bits == 0;
    if constexpr (kOnePiece && close_loads(kR, 16 / kLayout.low_bits) && (kCloseProducts > 1 || kLayout.depth == 64)) {
      if (args.follows) return few_panels<Run, kR, AskOnce>(args, row, panel, panel_end, panel_stride, sums);
    }
    few_panels<Run, kR, AskTwice>(args, row, panel, panel_end, panel_stride, sums);
  }
}

#ifndef DROVER_SCALAR
inline constexpr uint32_t kWidePanels = 2 * kColumns / kPanel;  // panels that a tile's two vectors span
inline constexpr uint32_t kWideCols = kWidePanels * kPanel;
inline constexpr uint32_t kRowTile = 96;  // rows that share a chunk before the next is unpacked
#ifdef DROVER_WORDS
inline constexpr uint32_t kGroupPanels = 16;  // panels that share the rows' words
#else
inline constexpr uint32_t kGroupPanels = kWidePanels;
#endif

// Scratch of the many-rows loop.
struct WideScratch {
  float sums[kGroupPanels / kWidePanels][kRowTile][kWideCols];
  uint8_t wide[kWidePanels * kWideBytes];
#ifdef DROVER_WORDS
  int16_t words[kRowTile][kChunk];
#endif
};
static_assert(sizeof(WideScratch) <= kGemmScratchBytes);

template <typename Run, uint32_t kR>
void wide_tile(const uint8_t* wide, const int16_t* words, RowsOf8 x, uint32_t chunk, float* sums) {
  const typename Run::View w[2] = {{{wide, 0}}, {{wide + kColumns / kPanel * kWideBytes, kColumns % kPanel}}};
#ifdef DROVER_AVX512
  RegisterSums<kR, 2> acc;
  for_tile<kR, 2>([&](uint32_t r, uint32_t v)
                      DROVER_LAMBDA { acc.set(r, v, c_load(sums + r * kWideCols + v * kColumns)); });
  Run::template add<kR>(w, words, x, chunk, acc);
  for_tile<kR, 2>([&](uint32_t r, uint32_t v)
                      DROVER_LAMBDA { c_store(sums + r * kWideCols + v * kColumns, acc.get(r, v)); });
#else
  MemorySums acc{sums, kWideCols};
  Run::template add<kR>(w, words, x, chunk, acc);
#endif
}
template <typename Run, uint32_t kR = kTileRows>
DROVER_INLINE void wide_rows(uint32_t rows, const uint8_t* wide, const int16_t* words, RowsOf8 x, uint32_t chunk,
                             float* sums) {
  if constexpr (kR > 0) {
    if (rows == kR) return wide_tile<Run, kR>(wide, words, x, chunk, sums);
    wide_rows<Run, kR - 1>(rows, wide, words, x, chunk, sums);
  }
}

// Rows [row, row + rows), at most kRowTile, of `panels` panels, at most kGroupPanels and a multiple of kWidePanels.
template <typename Run>
void wide_group(const GemmArgs& args, uint32_t row, uint32_t rows, uint32_t panel, uint32_t panels,
                uint64_t panel_stride, WideScratch& scratch) {
  const uint32_t groups = panels / kWidePanels, chunks = Run::chunks(args.depth);
  const uint32_t tiles = (rows + kTileRows - 1) / kTileRows, most = (rows + tiles - 1) / tiles;
  const uint32_t share = (Run::chunk_bytes() / kLine + tiles - 1) / tiles * kLine;
  const auto rows_from = [&](uint32_t r) {
    return RowsOf8{static_cast<const uint8_t*>(args.x) + (row + r) * args.x_stride_bytes, args.x_stride_bytes,
                   args.depth};
  };
  const auto source = [&](uint32_t g, uint32_t chunk) {
    return args.w + (panel + g * kWidePanels) * panel_stride + chunk * uint64_t{Run::chunk_bytes()};
  };
  for (uint32_t g = 0; g < groups; g++) {
    for (uint32_t i = 0; i < rows * kWideCols; i += 16) f_store(scratch.sums[g][0] + i, f_zero());
  }
  const int16_t* words = nullptr;
  for (uint32_t chunk = 0; chunk < chunks; chunk++) {
#ifdef DROVER_WORDS
    if constexpr (Run::kWords) {
      const uint32_t blocks = Run::blocks_of(chunk, args.depth);
      for (uint32_t r = 0; r < rows; r++) {
        int16_t* even = scratch.words[r];
        w_spread(rows_from(r).codes(0, chunk * kChunk), blocks, even, even + kChunk / 2);
      }
    }
#endif
    for (uint32_t g = 0; g < groups; g++) {
      for (uint32_t p = 0; p < kWidePanels; p++) {
        Run::widen(args.w + (panel + g * kWidePanels + p) * panel_stride, chunk, args.depth,
                   scratch.wide + p * kWideBytes);
      }
      // The next chunk comes from memory while this one is computed with.
      const uint8_t* ahead = g + 1 < groups       ? source(g + 1, chunk)
                             : chunk + 1 < chunks ? source(0, chunk + 1)
                                                  : source(groups, 0);
      for (uint32_t r = 0; r < rows; r += most, ahead += share) {
        for (uint32_t i = 0; i < share; i += kLine) {
          for (uint32_t p = 0; p < kWidePanels; p++) __builtin_prefetch(ahead + p * panel_stride + i, 0, 2);
        }
#ifdef DROVER_WORDS
        words = scratch.words[r];
#endif
        wide_rows<Run>(rows - r < most ? rows - r : most, scratch.wide, words, rows_from(r), chunk, scratch.sums[g][r]);
      }
    }
  }
  for (uint32_t r = 0; r < rows; r++) {
    for (uint32_t p = 0; p < panels; p++) {
      finish(args, row + r, panel + p, f_load(scratch.sums[p / kWidePanels][r] + p % kWidePanels * kPanel));
    }
  }
}
#endif

template <typename Run, DType kType>
void gemm_int(const GemmArgs& args, uint32_t row_begin, uint32_t row_end, uint32_t panel_begin, uint32_t panel_end,
              void* scratch) {
  const uint64_t panel_stride = panel_bytes(kType, args.depth);
  uint32_t panel = panel_begin;
#ifndef DROVER_SCALAR
  if (row_end - row_begin >= kManyRows) {
    for (uint32_t panels; (panels = smaller_of(panel_end - panel, kGroupPanels) / kWidePanels * kWidePanels) > 0;
         panel += panels) {
      for (uint32_t row = row_begin; row < row_end; row += kRowTile) {
        wide_group<Run>(args, row, smaller_of(row_end - row, kRowTile), panel, panels, panel_stride,
                        *static_cast<WideScratch*>(scratch));
      }
    }
  }
#endif
  // Panels that more rows share stay near until all have read them.
  const uint32_t together = row_end - row_begin <= kFewRows ? panel_end - panel : 1;
  for (; panel < panel_end; panel += together) {
    for (uint32_t row = row_begin; row < row_end; row += kFewRows) {
      few_rows<Run>(args, row, smaller_of(row_end - row, kFewRows), panel, panel + together, panel_stride,
                    static_cast<float*>(scratch));
    }
  }
}

}  // namespace
}  // namespace drover
