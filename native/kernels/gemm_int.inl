// GEMM with 8-bit activations on prepared integer panels (panels.h). Sums over a block are exact integers; each block
// of 32 (a8_32) or 256 (a8_256) then adds to the output's f32 chain in order of k.
//
// Few rows read the panels as they are: the weights come from memory once, and unpacking hides behind that. Many rows
// share chunks of 256 k that are unpacked once (Wide, some KiB in the first-level cache), in tiles of kTileRows rows by
// two vectors of columns: each broadcast of 4 activations then serves two dot products, so that loads do not bound the
// loop. With matrix instructions the tile is kTileRows pairs of rows by one vector, and a load serves as many. All read
// the same numbers in the same order.
#include "int_tiles.inl"

namespace drover {
namespace {

// total += the products of a pair of groups of byte codes.
template <int kPair, uint32_t kR, uint32_t kV, typename View, typename Rows, typename I>
DROVER_INLINE void add_pair(const View (&w)[kV], uint32_t view_block, Rows x, uint32_t block, I (&total)[kR][kV]) {
  typename Rows::Vectors::Signed low[kV], high[kV];
#pragma GCC unroll 4
  for (uint32_t v = 0; v < kV; v++) {
    typename Rows::Vectors::Codes a, b;
    w[v].template codes<kPair>(view_block, &a, &b);
    low[v] = byte_codes(a);
    high[v] = byte_codes(b);
  }
  for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
    const uint32_t k = block * 32 + kPair * 8;
    total[r][v] = i_dot_byte(i_dot_byte(total[r][v], low[v], x.first(r, k)), high[v], x.second(r, k));
  });
}

template <typename Rows>
DROVER_INLINE float row_scale(Rows x, uint32_t row, uint32_t block) {
  return x.template load<float>(row, a8_32_scales(x.depth), block);
}

// sums += a 32-block's exact products times its scales, and its minima times the sum of the activations.
template <typename Format, uint32_t kR, uint32_t kV, typename View, typename Rows, typename I, typename Sums>
DROVER_INLINE void add_scaled(const View (&w)[kV], uint32_t view_block, Rows x, uint32_t block,
                              const I (&total)[kR][kV], Sums& sums) {
  using F = typename Rows::Vectors::F;
  F d[kV], m[kV];
#pragma GCC unroll 4
  for (uint32_t v = 0; v < kV; v++) {
    d[v] = w[v].scale(view_block, 0);
    if constexpr (Format::kMins) m[v] = w[v].min(view_block);
  }
  for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
    const auto scale = [&](uint32_t row) DROVER_LAMBDA { return row_scale(x, row, block); };
    F sum = c_fma(c_from(total[r][v]), c_mul(d[v], x.floats(r, scale)), sums.get(r, v));
    if constexpr (Format::kMins) {
      // zeros8 is -8 times the sum of the codes.
      const auto scaled = [&](uint32_t row) DROVER_LAMBDA {
        const int32_t zero = x.template load<int32_t>(row, a8_32_zeros8(x.depth), block);
        return static_cast<float>(zero) * -0.125f * scale(row);
      };
      sum = c_fma(m[v], x.floats(r, scaled), sum);
    }
    sums.set(r, v, sum);
  });
}

// sums += a 32-block's products, already times the scales of its halves.
template <uint32_t kR, uint32_t kV, typename Rows, typename F, typename Sums>
DROVER_INLINE void add_halves_scaled(Rows x, uint32_t block, const F (&scaled)[kR][kV], Sums& sums) {
  for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
    const F scale = x.floats(r, [&](uint32_t row) DROVER_LAMBDA { return row_scale(x, row, block); });
    sums.set(r, v, c_fma(scaled[r][v], scale, sums.get(r, v)));
  });
}

// sums += a 32-block of byte codes whose halves have a scale each.
template <typename Format, uint32_t kR, uint32_t kV, typename View, typename Rows, typename Sums>
DROVER_INLINE void add_halves(const View (&w)[kV], uint32_t view_block, Rows x, uint32_t block, Sums& sums) {
  using Vectors = typename Rows::Vectors;
  typename Vectors::I total[kR][kV];
  typename Vectors::F scaled[kR][kV];
  for_pairs([&]<int kPair>() DROVER_LAMBDA {
    if constexpr (kPair % 2 == 0) {
      for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
        total[r][v] = x.integers(r, [&](uint32_t row) DROVER_LAMBDA {
          return kByteZero == 0 ? 0 : x.template load<int32_t>(row, a8_32_halves128(x.depth), block * 2 + kPair / 2);
        });
      });
    }
    add_pair<kPair>(w, view_block, x, block, total);
    if constexpr (kPair % 2 == 1) {
      typename Vectors::F d[kV];
#pragma GCC unroll 4
      for (uint32_t v = 0; v < kV; v++) d[v] = w[v].scale(view_block, kPair / 2);
      for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
        const typename Vectors::F sum = c_from(total[r][v]);
        scaled[r][v] = kPair == 1 ? c_mul(sum, d[v]) : c_fma(sum, d[v], scaled[r][v]);
      });
    }
  });
  add_halves_scaled(x, block, scaled, sums);
}

// sums += a 32-block whose codes share a scale.
template <typename Format, uint32_t kR, uint32_t kV, typename View, typename Rows, typename Sums>
DROVER_INLINE void add_whole(const View (&w)[kV], uint32_t view_block, Rows x, uint32_t block, Sums& sums) {
  using Vectors = typename Rows::Vectors;
  constexpr bool kFromZero = Format::kByteCodes ? kByteZero == 0 : Format::kMins;
  const uint64_t zeros = Format::kByteCodes ? a8_32_zeros128(x.depth) : a8_32_zeros8(x.depth);
  typename Vectors::I total[kR][kV];
  for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
    total[r][v] = x.integers(
        r, [&](uint32_t row) DROVER_LAMBDA { return kFromZero ? 0 : x.template load<int32_t>(row, zeros, block); });
  });
  if constexpr (Format::kByteCodes) {
    for_pairs([&]<int kPair>() DROVER_LAMBDA { add_pair<kPair>(w, view_block, x, block, total); });
  } else {
    static_assert(kGroups15 >= 8 || kDot32);
    typename Vectors::Sums sum[kR][kV];
    for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA { sum[r][v] = s_begin(total[r][v]); });
    for_pairs([&]<int kPair>() DROVER_LAMBDA {
      typename Vectors::Codes low[kV], high[kV];
#pragma GCC unroll 4
      for (uint32_t v = 0; v < kV; v++) w[v].template codes<kPair>(view_block, &low[v], &high[v]);
      const uint32_t k = block * 32 + kPair * 8;
      for_tile<kR, kV>([&](uint32_t r, uint32_t v)
                           DROVER_LAMBDA { sum[r][v] = s_dot(sum[r][v], low[v], x.first(r, k)); });
      for_tile<kR, kV>([&](uint32_t r, uint32_t v)
                           DROVER_LAMBDA { sum[r][v] = s_dot(sum[r][v], high[v], x.second(r, k)); });
    });
    for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA { total[r][v] = s_total(sum[r][v], total[r][v]); });
  }
  add_scaled<Format>(w, view_block, x, block, total, sums);
}

// sums += 32-blocks [first, first + blocks) of the rows' depth; view block i is the i-th of them, plus `view_first`.
template <typename Format, uint32_t kR, uint32_t kV, typename View, typename Rows, typename Sums>
DROVER_INLINE void add_32(const View (&w)[kV], uint32_t view_first, Rows x, uint32_t first, uint32_t blocks,
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
template <typename Format, uint32_t kR, uint32_t kV, typename View, typename Rows, typename Sums>
DROVER_INLINE void add_256(const View (&w)[kV], Rows x, uint32_t block, Sums& sums) {
  using Vectors = typename Rows::Vectors;
  using F = typename Vectors::F;
  // Sums of codes up to 63 fit what s_scaled takes only around their zero point; there they start from -32 Σ x.
  constexpr bool kStartAtZeroPoint = !Format::kMins && kDot32;
  const uint64_t starts = a8_256_zeros32(x.depth);
  typename Vectors::I total[kR][kV];
  for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA { total[r][v] = Vectors::none(); });
  for (uint32_t sub = 0; sub < 8; sub++) {
    typename Vectors::Sums sum[kR][kV];
    for_pairs([&]<int kPair>() DROVER_LAMBDA {
      if constexpr (kPair % Format::kTakePairs == 0) {
        for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
          sum[r][v] = s_begin(x.integers(r, [&](uint32_t row) DROVER_LAMBDA {
            return kStartAtZeroPoint ? x.template load<int32_t>(row, starts, block * 32 + sub * kPairs + kPair) : 0;
          }));
        });
      }
      typename Vectors::Codes low[kV], high[kV];
#pragma GCC unroll 4
      for (uint32_t v = 0; v < kV; v++) w[v].template codes<kPair>(block, sub, &low[v], &high[v]);
      const uint32_t k = block * 256 + sub * 32 + kPair * 8;
      for_tile<kR, kV>([&](uint32_t r, uint32_t v)
                           DROVER_LAMBDA { sum[r][v] = s_dot(sum[r][v], low[v], x.first(r, k)); });
      for_tile<kR, kV>([&](uint32_t r, uint32_t v)
                           DROVER_LAMBDA { sum[r][v] = s_dot(sum[r][v], high[v], x.second(r, k)); });
      if constexpr ((kPair + 1) % Format::kTakePairs == 0) {
        typename Vectors::Scales scale[kV];
#pragma GCC unroll 4
        for (uint32_t v = 0; v < kV; v++) scale[v] = w[v].scale(block, (sub * kPairs + kPair) / Format::kScalePairs);
        for_tile<kR, kV>([&](uint32_t r, uint32_t v)
                             DROVER_LAMBDA { total[r][v] = s_scaled(total[r][v], sum[r][v], scale[v]); });
      }
    });
  }
  typename Vectors::I zero[kR][kV];
  for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA { zero[r][v] = Vectors::none(); });
  if constexpr (!kStartAtZeroPoint) {
    const uint64_t codes = Format::kScales == 8 ? a8_256_sums32(x.depth) : a8_256_sums16(x.depth);
    for (uint32_t i = 0; i < Format::kScales; i += Vectors::kZeros) {
      typename Vectors::Zeros zeros[kV];
#pragma GCC unroll 4
      for (uint32_t v = 0; v < kV; v++) zeros[v] = w[v].zeros(block, i);
      for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
        zero[r][v] = Vectors::dot_zeros(zero[r][v], zeros[v], x.sums(r, codes, block * Format::kScales + i));
      });
    }
  }
  const uint64_t scales = a8_256_scales(x.depth);
  for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
    const F scale = x.floats(r, [&](uint32_t row) DROVER_LAMBDA { return x.template load<float>(row, scales, block); });
    if constexpr (Format::kMins) {
      const F value = c_fnma(w[v].dmin(block), c_from(zero[r][v]), c_mul(w[v].d(block), c_from(total[r][v])));
      sums.set(r, v, c_fma(scale, value, sums.get(r, v)));
    } else {
      const typename Vectors::I sum = kStartAtZeroPoint ? total[r][v] : i_minus_shifted<5>(total[r][v], zero[r][v]);
      sums.set(r, v, c_fma(c_from(sum), c_mul(w[v].d(block), scale), sums.get(r, v)));
    }
  });
}

#ifdef DROVER_WORDS
// As add_32 over a chunk of byte codes that are kept as 16-bit words. words: the rows' chunk, kChunk of them a row.
template <typename Format, uint32_t kR>
DROVER_INLINE void add_words(const Wide32 (&w)[2], const int16_t* words, RowsOf8 x, uint32_t first, uint32_t blocks,
                             MemorySums<OneRow>& sums) {
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
  template <uint32_t kR, uint32_t kV, typename Sums>
  static DROVER_INLINE void add(const Wide32 (&w)[kV], const int16_t* words, WideRows x, uint32_t chunk, Sums& sums) {
#ifdef DROVER_WORDS
    if constexpr (kWords) return add_words<Format, kR>(w, words, x, chunk * 8, blocks_of(chunk, x.depth), sums);
#endif
    (void)words;
    add_32<Format, kR, kV>(w, 0, x, chunk * 8, blocks_of(chunk, x.depth), sums);
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
  template <uint32_t kR, uint32_t kV, typename Sums>
  static DROVER_INLINE void add(const Wide256 (&w)[kV], const int16_t*, WideRows x, uint32_t chunk, Sums& sums) {
    add_256<Format, kR, kV>(w, x, chunk, sums);
  }
  using View = Wide256;
#endif
};

// The tile counts what its vectors hold, rows or pairs of rows.
#if defined(DROVER_AVX512)
inline constexpr uint32_t kFewRows = 8, kTileRows = 6, kTileVectors = 2, kManyRows = 9;
#elif defined(DROVER_MATRIX)
// Turning what three rows share would cost what it saves.
inline constexpr uint32_t kFewRows = 3, kTileRows = 3, kTileVectors = 1, kManyRows = 4;
#elif defined(DROVER_SCALAR)
inline constexpr uint32_t kFewRows = 2;  // plain loops gain little from more, and unroll to megabytes
#else
inline constexpr uint32_t kFewRows = 4, kTileRows = 3, kTileVectors = 2, kManyRows = 5;
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
#if defined(DROVER_WORDS) || defined(DROVER_MATRIX)
inline constexpr uint32_t kGroupPanels = 16;  // panels that share the rows' words or pairs
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
#ifdef DROVER_MATRIX
  int8_t pairs[kRowTile][kChunk];  // two rows' codes in two rows
#endif
};
static_assert(sizeof(WideScratch) <= kGemmScratchBytes);

template <typename Run, uint32_t kR>
void wide_tile(const uint8_t* wide, const int16_t* words, WideRows x, uint32_t chunk, float* sums) {
  for (uint32_t first = 0; first < 2 * kColumns; first += kTileVectors * kColumns) {
    typename Run::View w[kTileVectors];
    for (uint32_t v = 0; v < kTileVectors; v++) {
      const uint32_t column = first + v * kColumns;
      w[v] = {{wide + column / kPanel * kWideBytes, column % kPanel}};
    }
#ifdef DROVER_AVX512
    RegisterSums<kR, 2> acc;
    for_tile<kR, 2>([&](uint32_t r, uint32_t v)
                        DROVER_LAMBDA { acc.set(r, v, c_load(sums + r * kWideCols + v * kColumns)); });
    Run::template add<kR>(w, words, x, chunk, acc);
    for_tile<kR, 2>([&](uint32_t r, uint32_t v)
                        DROVER_LAMBDA { c_store(sums + r * kWideCols + v * kColumns, acc.get(r, v)); });
#else
    MemorySums<WideVectors> acc{sums + first * WideVectors::kRows, kWideCols};
    Run::template add<kR>(w, words, x, chunk, acc);
#endif
  }
}
template <typename Run, uint32_t kR = kTileRows>
DROVER_INLINE void wide_rows(uint32_t rows, const uint8_t* wide, const int16_t* words, WideRows x, uint32_t chunk,
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
  constexpr uint32_t kRows = WideVectors::kRows;
  const uint32_t vectors = (rows + kRows - 1) / kRows;  // of rows or pairs
  const uint32_t tiles = (vectors + kTileRows - 1) / kTileRows, most = (vectors + tiles - 1) / tiles;
  const uint32_t share = (Run::chunk_bytes() / kLine + tiles - 1) / tiles * kLine;
  const auto rows_from = [&](uint32_t r) {
    return RowsOf8{static_cast<const uint8_t*>(args.x) + (row + r) * args.x_stride_bytes, args.x_stride_bytes,
                   args.depth};
  };
  const auto source = [&](uint32_t g, uint32_t chunk) {
    return args.w + (panel + g * kWidePanels) * panel_stride + chunk * uint64_t{Run::chunk_bytes()};
  };
  for (uint32_t g = 0; g < groups; g++) {
    for (uint32_t i = 0; i < vectors * kRows * kWideCols; i += 16) f_store(scratch.sums[g][0] + i, f_zero());
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
#ifdef DROVER_MATRIX
    const uint32_t chunk_codes = smaller_of(kChunk, static_cast<uint32_t>(round_up(args.depth, 32)) - chunk * kChunk);
    for (uint32_t r = 0; r < rows; r += 2) {
      const int8_t* codes = rows_from(r).codes(0, chunk * kChunk);
      const uint64_t partner = r + 1 < rows ? args.x_stride_bytes : 0;
      m_pair(codes, codes + partner, chunk_codes, scratch.pairs[r]);
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
      for (uint32_t v = 0; v < vectors; v += most, ahead += share) {
        const uint32_t r = v * kRows;
        for (uint32_t i = 0; i < share; i += kLine) {
          for (uint32_t p = 0; p < kWidePanels; p++) __builtin_prefetch(ahead + p * panel_stride + i, 0, 2);
        }
#ifdef DROVER_WORDS
        words = scratch.words[r];
#endif
#ifdef DROVER_MATRIX
        const PairsOf8 x{rows_from(r), rows - r, scratch.pairs[r]};
#else
        const RowsOf8 x = rows_from(r);
#endif
        wide_rows<Run>(smaller_of(vectors - v, most), scratch.wide, words, x, chunk, scratch.sums[g][r]);
      }
    }
  }
  for (uint32_t r = 0; r < rows; r++) {
    for (uint32_t p = 0; p < panels; p++) {
      const float* sums = scratch.sums[p / kWidePanels][0];
      finish(args, row + r, panel + p, WideVectors::row(sums, kWideCols, r, p % kWidePanels * kPanel));
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
