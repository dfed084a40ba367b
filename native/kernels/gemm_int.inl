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

template <uint32_t kR, uint32_t kV, typename Body>
DROVER_INLINE void for_tile(Body body) {
#pragma GCC unroll 16
  for (uint32_t r = 0; r < kR; r++)
#pragma GCC unroll 2
    for (uint32_t v = 0; v < kV; v++) body(r, v);
}

// acc += 32-blocks [first, first + blocks) of the rows' depth; view block i is the i-th of them, plus `view_first`.
template <typename Format, uint32_t kR, uint32_t kV, typename View>
DROVER_INLINE void add_32(const View (&w)[kV], uint32_t view_first, RowsOf8 x, uint32_t first, uint32_t blocks,
                          ColF (&acc)[kR][kV]) {
  constexpr bool kFromZero = Format::kByteCodes ? kByteZero == 0 : Format::kMins;
  const uint64_t scales = a8_32_scales(x.depth);
  const uint64_t zeros = Format::kByteCodes ? a8_32_zeros128(x.depth) : a8_32_zeros8(x.depth);
  for (uint32_t b = 0; b < blocks; b++) {
    if constexpr (kV == 1 && kR <= 8) {
      constexpr uint32_t kBlockBytes = Format::kSuper / Format::kBlocks;
      for (uint32_t i = 0; i < kBlockBytes; i += kLine)
        __builtin_prefetch(w[0].super(b) + 4096 + b % Format::kBlocks * kBlockBytes + i);
    }
    const uint32_t block = first + b;
    ColI total[kR][kV];
    for_tile<kR, kV>([&](uint32_t r, uint32_t v)
                         DROVER_LAMBDA { total[r][v] = i_columns(kFromZero ? 0 : x.load<int32_t>(r, zeros, block)); });
    if constexpr (Format::kByteCodes) {
      for_pairs([&]<int kPair>() DROVER_LAMBDA {
        ByteCodes low[kV], high[kV];
#pragma GCC unroll 2
        for (uint32_t v = 0; v < kV; v++) {
          Bytes a, b2;
          w[v].template codes<kPair>(view_first + b, &a, &b2);
          low[v] = byte_codes(a);
          high[v] = byte_codes(b2);
        }
        for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
          const int8_t* q = x.codes(r, block * 32 + kPair * 8);
          total[r][v] = i_dot_byte(i_dot_byte(total[r][v], low[v], q), high[v], q + 4);
        });
      });
    } else {
      static_assert(kGroups15 >= 8 || kDot32);
      Sum sum[kR][kV];
      for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA { sum[r][v] = s_begin(total[r][v]); });
      for_pairs([&]<int kPair>() DROVER_LAMBDA {
        Bytes low[kV], high[kV];
#pragma GCC unroll 2
        for (uint32_t v = 0; v < kV; v++) w[v].template codes<kPair>(view_first + b, &low[v], &high[v]);
        for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
          sum[r][v] = s_dot(sum[r][v], low[v], x.codes(r, block * 32 + kPair * 8));
        });
        for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
          sum[r][v] = s_dot(sum[r][v], high[v], x.codes(r, block * 32 + kPair * 8 + 4));
        });
      });
      for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA { total[r][v] = s_total(sum[r][v], total[r][v]); });
    }
    ColF d[kV];
#pragma GCC unroll 2
    for (uint32_t v = 0; v < kV; v++) d[v] = w[v].scale(view_first + b);
    for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
      acc[r][v] = c_fma(c_from(total[r][v]), c_mul(d[v], c_set(x.load<float>(r, scales, block))), acc[r][v]);
    });
    if constexpr (Format::kMins) {
      ColF m[kV];
#pragma GCC unroll 2
      for (uint32_t v = 0; v < kV; v++) m[v] = w[v].min(view_first + b);
      for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
        // The sum of the block's activations: zeros8 is -8 times that of their codes.
        const float codes = static_cast<float>(x.load<int32_t>(r, a8_32_zeros8(x.depth), block)) * -0.125f;
        acc[r][v] = c_fma(m[v], c_set(codes * x.load<float>(r, scales, block)), acc[r][v]);
      });
    }
  }
}

// acc += the 256-block `block` of the rows' depth.
template <typename Format, uint32_t kR, uint32_t kV, typename View>
DROVER_INLINE void add_256(const View (&w)[kV], RowsOf8 x, uint32_t block, ColF (&acc)[kR][kV]) {
  // Sums of codes up to 63 fit what s_scaled takes only around their zero point; there they start from -32 Σ x.
  constexpr bool kStartAtZeroPoint = !Format::kMins && kDot32;
  if constexpr (kV == 1 && kR <= 8) {
    for (uint32_t i = 0; i < Format::kSuper; i += kLine) __builtin_prefetch(w[0].super(block) + 4096 + i);
  }
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
#pragma GCC unroll 2
      for (uint32_t v = 0; v < kV; v++) w[v].template codes<kPair>(block, sub, &low[v], &high[v]);
      for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
        sum[r][v] = s_dot(sum[r][v], low[v], x.codes(r, block * 256 + sub * 32 + kPair * 8));
      });
      for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
        sum[r][v] = s_dot(sum[r][v], high[v], x.codes(r, block * 256 + sub * 32 + kPair * 8 + 4));
      });
      if constexpr ((kPair + 1) % Format::kTakePairs == 0) {
        Scale scale[kV];
#pragma GCC unroll 2
        for (uint32_t v = 0; v < kV; v++) scale[v] = w[v].scale(block, (sub * kPairs + kPair) / Format::kScalePairs);
        for_tile<kR, kV>([&](uint32_t r, uint32_t v)
                             DROVER_LAMBDA { total[r][v] = s_scaled(total[r][v], sum[r][v], scale[v]); });
      }
    });
  }
  ColI zero[kR][kV];
  for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA { zero[r][v] = i_columns(0); });
  if constexpr (!kStartAtZeroPoint) {
    const uint64_t sums = Format::kScales == 8 ? a8_256_sums32(x.depth) : a8_256_sums16(x.depth);
    for (uint32_t i = 0; i < Format::kScales; i += 2) {
      ScalePair pair[kV];
#pragma GCC unroll 2
      for (uint32_t v = 0; v < kV; v++) pair[v] = w[v].zeros(block, i);
      for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
        zero[r][v] = i_dot_pair(zero[r][v], pair[v], x.sums(r, sums, block * Format::kScales + i));
      });
    }
  }
  const uint64_t scales = a8_256_scales(x.depth);
  for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
    const ColF scale = c_set(x.load<float>(r, scales, block));
    if constexpr (Format::kMins) {
      const ColF value = c_fnma(w[v].dmin(block), c_from(zero[r][v]), c_mul(w[v].d(block), c_from(total[r][v])));
      acc[r][v] = c_fma(scale, value, acc[r][v]);
    } else {
      const ColI sum = kStartAtZeroPoint ? total[r][v] : i_minus_shifted<5>(total[r][v], zero[r][v]);
      acc[r][v] = c_fma(c_from(sum), c_mul(w[v].d(block), scale), acc[r][v]);
    }
  });
}

// How a format's tiles are run, whole depth from panels or chunk by chunk.
template <typename Format>
struct Run32 {
  static uint32_t chunks(uint32_t depth) { return (depth + 255) / 256; }
  static constexpr uint32_t chunk_bytes() { return 8 / Format::kBlocks * Format::kSuper; }
  template <uint32_t kR>
  static void packed(const uint8_t* panel, uint32_t column, RowsOf8 x, float* out) {
    const Packed32<Format> w[1] = {{panel, column}};
    ColF acc[kR][1];
    for_tile<kR, 1>([&](uint32_t r, uint32_t v) DROVER_LAMBDA { acc[r][v] = c_zero(); });
    add_32<Format, kR, 1>(w, 0, x, 0, (x.depth + 31) / 32, acc);
    for_tile<kR, 1>([&](uint32_t r, uint32_t) DROVER_LAMBDA { c_store(out + r * kPanel + column, acc[r][0]); });
  }
#ifndef DROVER_SCALAR
  static uint32_t blocks_of(uint32_t chunk, uint32_t depth) {
    const uint32_t all = (depth + 31) / 32, first = chunk * 8;
    return all - first < 8 ? all - first : 8;
  }
  static void widen(const uint8_t* panel, uint32_t chunk, uint32_t depth, uint8_t* out) {
    widen_32<Format>(panel, chunk * 8, blocks_of(chunk, depth), out);
  }
  template <uint32_t kR>
  static DROVER_INLINE void add(const Wide32 (&w)[2], RowsOf8 x, uint32_t chunk, ColF (&acc)[kR][2]) {
    add_32<Format, kR, 2>(w, 0, x, chunk * 8, blocks_of(chunk, x.depth), acc);
  }
  using View = Wide32;
#endif
};
template <typename Format>
struct Run256 {
  static uint32_t chunks(uint32_t depth) { return depth / 256; }
  static constexpr uint32_t chunk_bytes() { return Format::kSuper; }
  template <uint32_t kR>
  static void packed(const uint8_t* panel, uint32_t column, RowsOf8 x, float* out) {
    const Packed256<Format> w[1] = {{panel, column}};
    ColF acc[kR][1];
    for_tile<kR, 1>([&](uint32_t r, uint32_t v) DROVER_LAMBDA { acc[r][v] = c_zero(); });
    for (uint32_t block = 0; block < x.depth / 256; block++) add_256<Format, kR, 1>(w, x, block, acc);
    for_tile<kR, 1>([&](uint32_t r, uint32_t) DROVER_LAMBDA { c_store(out + r * kPanel + column, acc[r][0]); });
  }
#ifndef DROVER_SCALAR
  static void widen(const uint8_t* panel, uint32_t chunk, uint32_t, uint8_t* out) {
    widen_256<Format>(panel, chunk, out);
  }
  template <uint32_t kR>
  static DROVER_INLINE void add(const Wide256 (&w)[2], RowsOf8 x, uint32_t chunk, ColF (&acc)[kR][2]) {
    add_256<Format, kR, 2>(w, x, chunk, acc);
  }
  using View = Wide256;
#endif
};

#ifdef DROVER_AVX512
inline constexpr uint32_t kFewRows = 8, kTileRows = 6, kManyRows = 5;
#else
inline constexpr uint32_t kFewRows = 4, kTileRows = 3, kManyRows = 5;
#endif

template <typename Run, uint32_t kR = kFewRows>
DROVER_INLINE void few_rows(uint32_t rows, const uint8_t* panel, uint32_t column, RowsOf8 x, float* out) {
  if constexpr (kR > 0) {
    if (rows == kR) return Run::template packed<kR>(panel, column, x, out);
    few_rows<Run, kR - 1>(rows, panel, column, x, out);
  }
}

// Rows of one panel straight from its packed form, a few at a time. sums: [kFewRows][kPanel].
template <typename Run>
void packed_rows(const GemmArgs& args, uint32_t row_begin, uint32_t row_end, uint32_t panel, const uint8_t* at,
                 float* sums) {
  for (uint32_t row = row_begin; row < row_end; row += kFewRows) {
    const uint32_t rows = row_end - row < kFewRows ? row_end - row : kFewRows;
    const RowsOf8 x{static_cast<const uint8_t*>(args.x) + row * args.x_stride_bytes, args.x_stride_bytes, args.depth};
    for (uint32_t column = 0; column < kPanel; column += kColumns) few_rows<Run>(rows, at, column, x, sums);
    for (uint32_t r = 0; r < rows; r++) finish(args, row + r, panel, f_load(sums + r * kPanel));
  }
}

#ifndef DROVER_SCALAR
inline constexpr uint32_t kWidePanels = 2 * kColumns / kPanel;  // panels that a tile's two vectors span
inline constexpr uint32_t kWideCols = kWidePanels * kPanel;
inline constexpr uint32_t kRowTile = 96;  // rows that share a chunk before the next is unpacked

// sums: [rows][kWideCols], added to.
template <typename Run, uint32_t kR>
void wide_tile(const uint8_t* chunks, RowsOf8 x, uint32_t chunk, float* sums) {
  const typename Run::View w[2] = {{{chunks, 0}}, {{chunks + kColumns / kPanel * kWideBytes, kColumns % kPanel}}};
  ColF acc[kR][2];
  for_tile<kR, 2>([&](uint32_t r, uint32_t v)
                      DROVER_LAMBDA { acc[r][v] = c_load(sums + r * kWideCols + v * kColumns); });
  Run::template add<kR>(w, x, chunk, acc);
  for_tile<kR, 2>([&](uint32_t r, uint32_t v)
                      DROVER_LAMBDA { c_store(sums + r * kWideCols + v * kColumns, acc[r][v]); });
}
template <typename Run, uint32_t kR = kTileRows>
DROVER_INLINE void wide_rows(uint32_t rows, const uint8_t* chunks, RowsOf8 x, uint32_t chunk, float* sums) {
  if constexpr (kR > 0) {
    if (rows == kR) return wide_tile<Run, kR>(chunks, x, chunk, sums);
    wide_rows<Run, kR - 1>(rows, chunks, x, chunk, sums);
  }
}
#endif

template <typename Run, DType kType>
void gemm_int(const GemmArgs& args, uint32_t row_begin, uint32_t row_end, uint32_t panel_begin, uint32_t panel_end,
              void* scratch) {
  float* sums = static_cast<float*>(scratch);
  const uint64_t panel_stride = panel_bytes(kType, args.depth);
  uint32_t panel = panel_begin;
#ifndef DROVER_SCALAR
  uint8_t* wide = static_cast<uint8_t*>(scratch) + uint64_t{kRowTile} * kWideCols * 4;
  const bool many = row_end - row_begin >= kManyRows;
  for (; many && panel + kWidePanels <= panel_end; panel += kWidePanels) {
    for (uint32_t row = row_begin; row < row_end; row += kRowTile) {
      const uint32_t rows = row_end - row < kRowTile ? row_end - row : kRowTile;
      for (uint32_t i = 0; i < rows * kWideCols; i += 16) f_store(sums + i, f_zero());
      for (uint32_t chunk = 0; chunk < Run::chunks(args.depth); chunk++) {
        for (uint32_t p = 0; p < kWidePanels; p++) {
          Run::widen(args.w + (panel + p) * panel_stride, chunk, args.depth, wide + p * kWideBytes);
        }
        // The next chunk comes from memory while this one is computed with.
        const uint32_t tiles = (rows + kTileRows - 1) / kTileRows, most = (rows + tiles - 1) / tiles;
        const uint32_t share = (Run::chunk_bytes() / kLine + tiles - 1) / tiles * kLine;
        const uint8_t* ahead = args.w + panel * panel_stride + (chunk + 1) * uint64_t{Run::chunk_bytes()};
        for (uint32_t r = 0; r < rows; r += most, ahead += share) {
          for (uint32_t i = 0; i < share; i += kLine) {
            for (uint32_t p = 0; p < kWidePanels; p++) __builtin_prefetch(ahead + p * panel_stride + i, 0, 2);
          }
          const RowsOf8 x{static_cast<const uint8_t*>(args.x) + (row + r) * args.x_stride_bytes, args.x_stride_bytes,
                          args.depth};
          wide_rows<Run>(rows - r < most ? rows - r : most, wide, x, chunk, sums + r * kWideCols);
        }
      }
      for (uint32_t r = 0; r < rows; r++) {
        for (uint32_t p = 0; p < kWidePanels; p++)
          finish(args, row + r, panel + p, f_load(sums + r * kWideCols + p * kPanel));
      }
    }
  }
#endif
  for (; panel < panel_end; panel++)
    packed_rows<Run>(args, row_begin, row_end, panel, args.w + panel * panel_stride, sums);
}

}  // namespace
}  // namespace drover
