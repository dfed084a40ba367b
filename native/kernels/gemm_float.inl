// GEMM with f32 activations on float panels [depth][16], and the tile kernel that attention shares.
// One output element is one chain of fused multiply-adds over k = 0, 1, 2, …; lanes are output columns.
#include "panels.h"
#include "prepare.h"

#define DROVER_LAMBDA __attribute__((always_inline))

namespace drover {
namespace {

struct LoadF32 {
  using Element = float;
  static DROVER_INLINE F32x16 load(const float* p) { return f_load(p); }
};
struct LoadF16 {
  using Element = uint16_t;
  static DROVER_INLINE F32x16 load(const uint16_t* p) { return f_load_half(p); }
};
struct LoadE4M3 {  // divided by 256
  using Element = uint8_t;
  static DROVER_INLINE F32x16 load(const uint8_t* p) { return f_load_e4m3(p); }
};
struct LoadBF16 {
  using Element = uint16_t;
  static DROVER_INLINE F32x16 load(const uint16_t* p) { return f_load_bfloat(p); }
};

// What a tile asks memory for while it computes, a little with every k: panel p's bytes from at + p * stride on, `step`
// of them per k. A burst of requests would stall the loop instead.
struct NothingAhead {
  DROVER_INLINE void ask(uint32_t, uint32_t) const {}
};
struct Ahead {  // into the second-level cache
  const uint8_t* at;
  uint64_t stride;
  uint32_t step;
  DROVER_INLINE void ask(uint32_t panel, uint32_t k) const { __builtin_prefetch(at + panel * stride + k * step, 0, 2); }
};
template <uint32_t kStep>
struct AheadOnce {  // weights that are read once, at `at` itself
  const uint8_t* at;
  uint64_t stride;
  DROVER_INLINE void ask(uint32_t panel, uint32_t k) const {
    if (k * kStep % kLine != 0) return;
    __builtin_prefetch(at + panel * stride + k * kStep + kNearBytes, 0, 3);
    __builtin_prefetch(at + panel * stride + k * kStep + kFarBytes, 0, 2);
  }
};

// acc[r][p] += sum over k of x[r][k] * panel p[k]; acc is [rows][acc_stride] floats with panels 16 apart.
template <uint32_t kR, uint32_t kP, typename Load, typename Next = NothingAhead>
DROVER_INLINE void float_tile(const float* x, uint64_t x_stride, const typename Load::Element* w, uint64_t w_stride,
                              uint32_t depth, float* acc, uint64_t acc_stride, Next next = {}) {
  F32x16 sum[kR][kP];
#pragma GCC unroll 16
  for (uint32_t r = 0; r < kR; r++)
#pragma GCC unroll 4
    for (uint32_t p = 0; p < kP; p++) sum[r][p] = f_load(acc + r * acc_stride + p * 16);
#pragma GCC unroll 4
  for (uint32_t k = 0; k < depth; k++) {
    F32x16 column[kP];
#pragma GCC unroll 4
    for (uint32_t p = 0; p < kP; p++) {
      column[p] = Load::load(w + p * w_stride + k * 16);
      next.ask(p, k);
    }
#pragma GCC unroll 16
    for (uint32_t r = 0; r < kR; r++) {
      const F32x16 value = f_set(x[r * x_stride + k]);
#pragma GCC unroll 4
      for (uint32_t p = 0; p < kP; p++) sum[r][p] = f_fma(value, column[p], sum[r][p]);
    }
  }
#pragma GCC unroll 16
  for (uint32_t r = 0; r < kR; r++)
#pragma GCC unroll 4
    for (uint32_t p = 0; p < kP; p++) f_store(acc + r * acc_stride + p * 16, sum[r][p]);
}

#ifdef DROVER_AVX512
inline constexpr uint32_t kFloatRows = 6, kFloatPanels = 4;
#else
inline constexpr uint32_t kFloatRows = 6, kFloatPanels = 1;
#endif
inline constexpr uint32_t kVectorPanels = 4;  // panels that a single row takes at once

// act(sum + bias) + residual of one row and panel, stored.
DROVER_INLINE void finish(const GemmArgs& args, uint32_t row, uint32_t panel, F32x16 sum) {
  const uint32_t column = panel * kPanel;
  const uint32_t count = args.cols - column < kPanel ? args.cols - column : kPanel;
  if (args.bias != nullptr) sum = f_add(sum, load_lanes(args.bias + column, count));
  if (args.activation != Activation::kNone) sum = activate(args.activation, sum);
  if (args.residual != nullptr) {
    sum = f_add(sum, load_lanes(args.residual + row * args.residual_stride + column, count));
  }
  store_lanes(args.y + row * args.y_stride + column, sum, count);
}
struct Finish {
  const GemmArgs& args;
  DROVER_INLINE void operator()(uint32_t row, uint32_t panel, F32x16 sum) const { finish(args, row, panel, sum); }
};

#if defined(DROVER_AVX512)
inline constexpr uint32_t kBlockTileRows = 12, kBlockTilePanels = 2, kDirectRows = 8;
#else
inline constexpr uint32_t kBlockTileRows = 6, kBlockTilePanels = 1, kDirectRows = 6;
#endif

// Few rows: each weight is read once, straight from its panel, and sums stay in registers for the whole depth.
template <uint32_t kR, uint32_t kP, typename Load, typename Done>
void direct_tile(const GemmArgs& args, uint32_t row, uint32_t panel, const typename Load::Element* w, uint64_t w_stride,
                 float* sums, const Done& done) {
  const uint64_t x_stride = args.x_stride_bytes / sizeof(float);
  constexpr uint32_t kElement = sizeof(typename Load::Element);
  for (uint32_t i = 0; i < kR * kP; i++) f_store(sums + i * 16, f_zero());
  float_tile<kR, kP, Load>(static_cast<const float*>(args.x) + row * x_stride, x_stride, w, w_stride, args.depth, sums,
                           kP * 16, AheadOnce<16 * kElement>{reinterpret_cast<const uint8_t*>(w), w_stride * kElement});
  for (uint32_t r = 0; r < kR; r++) {
    for (uint32_t p = 0; p < kP; p++) done(row + r, panel + p, f_load(sums + (r * kP + p) * 16));
  }
}
template <typename Load, uint32_t kR = kDirectRows, typename Done>
void direct_rows(const GemmArgs& args, uint32_t row, uint32_t rows, uint32_t panel, uint32_t panel_end,
                 const typename Load::Element* w, uint64_t w_stride, float* sums, const Done& done) {
  if constexpr (kR > 0) {
    if (rows != kR) return direct_rows<Load, kR - 1>(args, row, rows, panel, panel_end, w, w_stride, sums, done);
    constexpr uint32_t kP = kR == 1 ? kVectorPanels : kR > kFloatRows ? kBlockTilePanels : kFloatPanels;
    for (; panel + kP <= panel_end; panel += kP) {
      direct_tile<kR, kP, Load>(args, row, panel, w + panel * w_stride, w_stride, sums, done);
    }
    if constexpr (kP > 1) {
      for (; panel < panel_end; panel++) {
        direct_tile<kR, 1, Load>(args, row, panel, w + panel * w_stride, w_stride, sums, done);
      }
    }
  }
}

struct BlockScratch {
  float sums[kGemmFloatPanels / kBlockTilePanels][kGemmFloatRows][kBlockTilePanels * 16];
  float x[kGemmFloatRows][kGemmFloatDepth];
  float wide[kBlockTilePanels][kGemmFloatDepth * 16];
  float decoded[kPanel][kGemmFloatDepth];
};
static_assert(sizeof(BlockScratch) <= kGemmScratchBytes);

template <uint32_t kP, uint32_t kR = kBlockTileRows>
void block_tile(uint32_t rows, const float* x, const float* w, uint64_t w_stride, uint32_t depth, float* sums,
                Ahead next) {
  if constexpr (kR > 0) {
    if (rows == kR) {
      return float_tile<kR, kP, LoadF32>(x, kGemmFloatDepth, w, w_stride, depth, sums, kBlockTilePanels * 16, next);
    }
    block_tile<kP, kR - 1>(rows, x, w, w_stride, depth, sums, next);
  }
}

// Many rows. Weights come from memory (or are decoded) once per block of rows, chunk by chunk of the depth; what the
// rows have in the chunk lies together in L2, whatever their stride. `source.chunk` gives a tile's panels as f32.
template <typename Source, typename Done>
void float_block(const GemmArgs& args, uint32_t row, uint32_t rows, uint32_t panel, uint32_t panels,
                 const Source& source, BlockScratch& scratch, const Done& done) {
  const uint32_t tiles = (rows + kBlockTileRows - 1) / kBlockTileRows, most = (rows + tiles - 1) / tiles;
  const uint32_t groups = (panels + kBlockTilePanels - 1) / kBlockTilePanels;
  const auto width = [&](uint32_t g) { return smaller_of(panels - g * kBlockTilePanels, kBlockTilePanels); };
  for (uint32_t g = 0; g < groups; g++) {
    for (uint32_t i = 0; i < rows * kBlockTilePanels; i++) f_store(scratch.sums[g][0] + i * 16, f_zero());
  }
  for (uint32_t k = 0; k < args.depth; k += kGemmFloatDepth) {
    const uint32_t depth = smaller_of(args.depth - k, kGemmFloatDepth);
    for (uint32_t r = 0; r < rows; r++) {
      const uint8_t* x = static_cast<const uint8_t*>(args.x) + (row + r) * args.x_stride_bytes;
      __builtin_memcpy(scratch.x[r], x + k * sizeof(float), depth * sizeof(float));
    }
    for (uint32_t g = 0; g < groups; g++) {
      uint64_t stride;
      const float* w = source.chunk(panel + g * kBlockTilePanels, width(g), k, depth, scratch, &stride);
      // The next chunk comes from memory while this one is computed with.
      const bool last = g + 1 == groups;
      Ahead next = source.ahead(panel + (last ? 0 : (g + 1) * kBlockTilePanels), last ? k + depth : k, tiles);
      for (uint32_t r = 0; r < rows; r += most, next.at += next.step * kGemmFloatDepth) {
        const uint32_t count = smaller_of(rows - r, most);
        if (width(g) == kBlockTilePanels) {
          block_tile<kBlockTilePanels>(count, scratch.x[r], w, stride, depth, scratch.sums[g][r], next);
        } else {
          block_tile<1>(count, scratch.x[r], w, stride, depth, scratch.sums[g][r], next);
        }
      }
    }
  }
  for (uint32_t r = 0; r < rows; r++) {
    for (uint32_t p = 0; p < panels; p++) {
      done(row + r, panel + p, f_load(scratch.sums[p / kBlockTilePanels][r] + p % kBlockTilePanels * 16));
    }
  }
}

template <typename Source, typename Done>
void float_blocks(const GemmArgs& args, uint32_t row_begin, uint32_t row_end, uint32_t panel_begin, uint32_t panel_end,
                  const Source& source, void* scratch, const Done& done) {
  for (uint32_t panel = panel_begin; panel < panel_end; panel += kGemmFloatPanels) {
    for (uint32_t row = row_begin; row < row_end; row += kGemmFloatRows) {
      float_block(args, row, smaller_of(row_end - row, kGemmFloatRows), panel,
                  smaller_of(panel_end - panel, kGemmFloatPanels), source, *static_cast<BlockScratch*>(scratch), done);
    }
  }
}

// Prepared panels; narrow floats are widened once per chunk.
template <typename Load>
struct PanelSource {
  using Element = typename Load::Element;
  const Element* w;
  uint64_t stride;  // elements between panels
  const float* chunk(uint32_t panel, uint32_t panels, uint32_t k, uint32_t depth, BlockScratch& scratch,
                     uint64_t* chunk_stride) const {
    const Element* from = w + panel * stride + uint64_t{k} * 16;
    if constexpr (sizeof(Element) == sizeof(float)) {
      *chunk_stride = stride;
      return from;
    } else {
      for (uint32_t p = 0; p < panels; p++, from += stride) {
        for (uint32_t i = 0; i < depth; i++) f_store(scratch.wide[p] + i * 16, Load::load(from + i * 16));
      }
      *chunk_stride = kGemmFloatDepth * 16;
      return scratch.wide[0];
    }
  }
  // The chunk from k on, in `parts` of its panels' bytes. (Past the last panel nothing is read: asking is free.)
  Ahead ahead(uint32_t panel, uint32_t k, uint32_t parts) const {
    return {reinterpret_cast<const uint8_t*>(w + panel * stride + uint64_t{k} * 16), stride * sizeof(Element),
            (16 * static_cast<uint32_t>(sizeof(Element)) + parts - 1) / parts};
  }
};

// The panels that `source` has, `done(row, panel, sum)` with each result.
template <typename Load, typename Done>
void float_panels_gemm(const GemmArgs& args, uint32_t row_begin, uint32_t row_end, uint32_t panel_begin,
                       uint32_t panel_end, const PanelSource<Load>& source, void* scratch, Done done) {
  if (row_end - row_begin <= kDirectRows) {
    return direct_rows<Load>(args, row_begin, row_end - row_begin, panel_begin, panel_end, source.w, source.stride,
                             static_cast<float*>(scratch), done);
  }
  float_blocks(args, row_begin, row_end, panel_begin, panel_end, source, scratch, done);
}
template <typename Load>
void gemm_float(const GemmArgs& args, uint32_t row_begin, uint32_t row_end, uint32_t panel_begin, uint32_t panel_end,
                void* scratch) {
  using Element = typename Load::Element;
  const Element* w = reinterpret_cast<const Element*>(args.w);
  const uint64_t stride = panel_bytes(sizeof(Element) == 4 ? DType::f32 : DType::f16, args.depth) / sizeof(Element);
  float_panels_gemm(args, row_begin, row_end, panel_begin, panel_end, PanelSource<Load>{w, stride}, scratch,
                    Finish{args});
}

// The file's own rows of any dtype: 16 rows are decoded to f32 and transposed to a panel, chunk by chunk.
struct DecodedSource {
  DType type;
  const GemmArgs& args;
  uint64_t stride_bytes;
  const float* chunk(uint32_t panel, uint32_t panels, uint32_t k, uint32_t depth, BlockScratch& scratch,
                     uint64_t* chunk_stride) const {
    for (uint32_t p = 0; p < panels; p++) {
      const uint32_t column = (panel + p) * kPanel;
      for (uint32_t c = 0; c < kPanel; c++) {
        float* row = scratch.decoded[c];
        if (column + c < args.cols) {
          decode_row(type, args.w + (column + c) * stride_bytes + row_bytes(type, k), depth, row);
          scale_values(args.scales, column + c, args.depth, k, depth, row);
        } else {
          for (uint32_t i = 0; i < depth; i++) row[i] = 0;
        }
      }
      for (uint32_t i = 0; i < depth; i++)
        for (uint32_t c = 0; c < kPanel; c++) scratch.wide[p][i * 16 + c] = scratch.decoded[c][i];
    }
    *chunk_stride = kGemmFloatDepth * 16;
    return scratch.wide[0];
  }
  Ahead ahead(uint32_t, uint32_t, uint32_t) const { return {args.w, 0, 0}; }
};
void gemm_decoded(DType type, const GemmArgs& args, uint32_t row_begin, uint32_t row_end, uint32_t panel_begin,
                  uint32_t panel_end, void* scratch) {
  float_blocks(args, row_begin, row_end, panel_begin, panel_end, DecodedSource{type, args, row_bytes(type, args.depth)},
               scratch, Finish{args});
}
template <DType kType>
void gemm_decode(const GemmArgs& args, uint32_t row_begin, uint32_t row_end, uint32_t panel_begin, uint32_t panel_end,
                 void* scratch) {
  gemm_decoded(kType, args, row_begin, row_end, panel_begin, panel_end, scratch);
}

}  // namespace
}  // namespace drover
