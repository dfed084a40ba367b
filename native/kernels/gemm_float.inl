// GEMM with f32 activations on float panels [depth][16], and the tile kernel that attention shares.
// One output element is one chain of fused multiply-adds over k = 0, 1, 2, …; lanes are output columns.
#include "panels.h"
#include "prepare.h"

#define DROVER_LAMBDA __attribute__((always_inline))

namespace drover {
namespace {

// What a tile multiplies: how a step of kDepth k is loaded from a panel, and what an element of x is for such a step.
struct OneByOne {
  static constexpr uint32_t kDepth = 1;
  using X = float;
  static DROVER_INLINE F32x16 product(F32x16 sum, float x, F32x16 column) { return f_fma(f_set(x), column, sum); }
};
struct LoadF32 : OneByOne {
  using Element = float;
  static DROVER_INLINE F32x16 load(const float* p) { return f_load(p); }
};
struct LoadF16 : OneByOne {
  using Element = uint16_t;
  static DROVER_INLINE F32x16 load(const uint16_t* p) { return f_load_half(p); }
};
struct LoadE4M3 : OneByOne {  // divided by 256
  using Element = uint8_t;
  static DROVER_INLINE F32x16 load(const uint8_t* p) { return f_load_e4m3(p); }
};
struct LoadBF16 : OneByOne {
  using Element = uint16_t;
  static DROVER_INLINE F32x16 load(const uint16_t* p) { return f_load_bfloat(p); }
};

// What a tile asks memory for while it computes, a little with every k: panel p's bytes from at + p * stride on, `step`
// of them per k. A burst of requests would stall the loop instead.
struct NothingAhead {
  DROVER_INLINE void ask(uint32_t, uint32_t) const {}
};
struct NextChunk {  // into the second-level cache
  const uint8_t* at;
  uint64_t stride;
  uint32_t step;
  DROVER_INLINE void ask(uint32_t panel, uint32_t k) const { __builtin_prefetch(at + panel * stride + k * step, 0, 2); }
};
// Products that so many rows have with a line of weights and still follow each other closely; 1: a single row.
#ifdef DROVER_AVX512
inline constexpr uint32_t kCloseProducts = 4;
#else
inline constexpr uint32_t kCloseProducts = 1;
#endif
constexpr bool close_loads(uint32_t rows, uint32_t products) { return rows == 1 || rows * products <= kCloseProducts; }
template <uint32_t kStep, typename Ask>
struct AheadOnce {  // weights that are read once, at `at` itself
  const uint8_t* at;
  uint64_t stride;
  DROVER_INLINE void ask(uint32_t panel, uint32_t k) const {
    if (k * kStep % kLine != 0) return;
    const uint8_t* line = at + panel * stride + k * kStep;
    if constexpr (Ask::kNear != 0) __builtin_prefetch(line + Ask::kNear, 0, 3);
    __builtin_prefetch(line + Ask::kFar, 0, 2);
  }
};

// acc[r][p] += sum over k of x[r][k] * panel p[k], k counting steps; acc is [rows][acc_stride] floats with panels 16
// apart.
template <uint32_t kR, uint32_t kP, typename Load, typename Next = NothingAhead>
DROVER_INLINE void float_tile(const typename Load::X* x, uint64_t x_stride, const typename Load::Element* w,
                              uint64_t w_stride, uint32_t steps, float* acc, uint64_t acc_stride, Next next = {}) {
  F32x16 sum[kR][kP];
#pragma GCC unroll 16
  for (uint32_t r = 0; r < kR; r++)
#pragma GCC unroll 4
    for (uint32_t p = 0; p < kP; p++) sum[r][p] = f_load(acc + r * acc_stride + p * 16);
#pragma GCC unroll 4
  for (uint32_t k = 0; k < steps; k++) {
    decltype(Load::load(w)) column[kP];
#pragma GCC unroll 4
    for (uint32_t p = 0; p < kP; p++) {
      column[p] = Load::load(w + p * w_stride + k * (16 * Load::kDepth));
      next.ask(p, k);
    }
#pragma GCC unroll 16
    for (uint32_t r = 0; r < kR; r++) {
      const typename Load::X value = x[r * x_stride + k];
#pragma GCC unroll 4
      for (uint32_t p = 0; p < kP; p++) sum[r][p] = Load::product(sum[r][p], value, column[p]);
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

// Rows of x as a tile reads them.
template <typename X>
struct Rows {
  const X* at;
  uint64_t stride;  // elements
  uint32_t steps;
};

// Few rows: each weight is read once, straight from its panel, and sums stay in registers for the whole depth.
template <uint32_t kR, uint32_t kP, typename Load, typename Ask, typename Done>
void direct_tile(const Rows<typename Load::X>& x, uint32_t row, uint32_t panel, const typename Load::Element* w,
                 uint64_t w_stride, float* sums, const Done& done) {
  constexpr uint32_t kElement = sizeof(typename Load::Element);
  for (uint32_t i = 0; i < kR * kP; i++) f_store(sums + i * 16, f_zero());
  const AheadOnce<16 * kElement * Load::kDepth, Ask> ahead{reinterpret_cast<const uint8_t*>(w), w_stride * kElement};
  float_tile<kR, kP, Load>(x.at, x.stride, w, w_stride, x.steps, sums, kP * 16, ahead);
  for (uint32_t r = 0; r < kR; r++) {
    for (uint32_t p = 0; p < kP; p++) done(row + r, panel + p, f_load(sums + (r * kP + p) * 16));
  }
}
template <uint32_t kR, typename Load, typename Ask, typename Done>
DROVER_INLINE void direct_panels(const Rows<typename Load::X>& x, uint32_t row, uint32_t panel, uint32_t panel_end,
                                 const typename Load::Element* w, uint64_t w_stride, float* sums, const Done& done) {
  constexpr uint32_t kP = kR == 1 ? kVectorPanels : kR > kFloatRows ? kBlockTilePanels : kFloatPanels;
  for (; panel + kP <= panel_end; panel += kP) {
    direct_tile<kR, kP, Load, Ask>(x, row, panel, w + panel * w_stride, w_stride, sums, done);
  }
  if constexpr (kP > 1) {
    for (; panel < panel_end; panel++) {
      direct_tile<kR, 1, Load, Ask>(x, row, panel, w + panel * w_stride, w_stride, sums, done);
    }
  }
}
template <typename Load, uint32_t kR = kDirectRows, typename Done>
void direct_rows(const Rows<typename Load::X>& x, uint32_t row, uint32_t rows, uint32_t panel, uint32_t panel_end,
                 const typename Load::Element* w, uint64_t w_stride, bool follows, float* sums, const Done& done) {
  if constexpr (kR > 0) {
    if (rows != kR) return direct_rows<Load, kR - 1>(x, row, rows, panel, panel_end, w, w_stride, follows, sums, done);
    if constexpr (close_loads(kR, kLine / (16 * Load::kDepth * sizeof(typename Load::Element)))) {
      if (follows) return direct_panels<kR, Load, AskOnce>(x, row, panel, panel_end, w, w_stride, sums, done);
    }
    direct_panels<kR, Load, AskTwice>(x, row, panel, panel_end, w, w_stride, sums, done);
  }
}

struct BlockScratch {
  float sums[kGemmFloatPanels / kBlockTilePanels][kGemmFloatRows][kBlockTilePanels * 16];
  float x[kGemmFloatRows][kGemmFloatDepth];
  float wide[kBlockTilePanels][kGemmFloatDepth * 16];
  float decoded[kPanel][kGemmFloatDepth];
};
static_assert(sizeof(BlockScratch) <= kGemmScratchBytes);

template <typename Tile, uint32_t kP, uint32_t kR = kBlockTileRows>
void block_tile(uint32_t rows, const typename Tile::X* x, const typename Tile::Element* w, uint64_t w_stride,
                uint32_t steps, float* sums, NextChunk next) {
  if constexpr (kR > 0) {
    if (rows == kR) {
      return float_tile<kR, kP, Tile>(x, kGemmFloatDepth / Tile::kDepth, w, w_stride, steps, sums,
                                      kBlockTilePanels * 16, next);
    }
    block_tile<Tile, kP, kR - 1>(rows, x, w, w_stride, steps, sums, next);
  }
}

// Asks for part `part` of `parts` of what rows of `element` bytes per k hold from k on, as far as the next copy goes.
DROVER_INLINE void ask_rows(const GemmArgs& args, uint32_t row, uint32_t rows, uint32_t k, uint32_t element,
                            uint32_t part, uint32_t parts) {
  if (k >= args.depth) return;
  const uint32_t lines = (smaller_of(args.depth - k, kGemmFloatDepth) * element + kLine - 1) / kLine;
  const uint8_t* x = static_cast<const uint8_t*>(args.x) + row * args.x_stride_bytes + uint64_t{k} * element;
  for (uint32_t r = 0; r < rows; r++, x += args.x_stride_bytes) {
    for (uint32_t i = part * lines / parts; i < (part + 1) * lines / parts; i++) {
      __builtin_prefetch(x + i * kLine, 0, 2);
    }
  }
}

// Many rows. Weights come from memory (or are decoded) once per block of rows, chunk by chunk of the depth; what the
// rows have in the chunk lies together in L2, whatever their stride. `source.chunk` gives a tile's panels and
// `source.copy` part of a row as its tile wants them.
template <typename Source, typename Done>
void float_block(const GemmArgs& args, uint32_t row, uint32_t rows, uint32_t panel, uint32_t panels,
                 const Source& source, BlockScratch& scratch, const Done& done) {
  using Tile = typename Source::Tile;
  using X = typename Tile::X;
  static_assert(sizeof(X) == sizeof(float) && kGemmFloatDepth % Tile::kDepth == 0);
  const uint32_t tiles = (rows + kBlockTileRows - 1) / kBlockTileRows, most = (rows + tiles - 1) / tiles;
  const uint32_t groups = (panels + kBlockTilePanels - 1) / kBlockTilePanels;
  const auto width = [&](uint32_t g) { return smaller_of(panels - g * kBlockTilePanels, kBlockTilePanels); };
  X* copies = reinterpret_cast<X*>(scratch.x);
  constexpr uint32_t kCopy = kGemmFloatDepth / Tile::kDepth;  // steps of a copied row
  for (uint32_t g = 0; g < groups; g++) {
    for (uint32_t i = 0; i < rows * kBlockTilePanels; i++) f_store(scratch.sums[g][0] + i * 16, f_zero());
  }
  for (uint32_t k = 0; k < args.depth; k += kGemmFloatDepth) {
    const uint32_t depth = smaller_of(args.depth - k, kGemmFloatDepth);
    const uint32_t steps = (depth + Tile::kDepth - 1) / Tile::kDepth;
    for (uint32_t r = 0; r < rows; r++) {
      source.copy(static_cast<const uint8_t*>(args.x) + (row + r) * args.x_stride_bytes, k, depth, copies + r * kCopy);
    }
    for (uint32_t g = 0; g < groups; g++) {
      uint64_t stride;
      const auto* w = source.chunk(panel + g * kBlockTilePanels, width(g), k, depth, scratch, &stride);
      // The next chunk comes from memory while this one is computed with, and so do the rows' next parts.
      const bool last = g + 1 == groups;
      NextChunk next = source.ahead(panel + (last ? 0 : (g + 1) * kBlockTilePanels), last ? k + depth : k, tiles);
      for (uint32_t r = 0; r < rows; r += most, next.at += next.step * kCopy) {
        const uint32_t count = smaller_of(rows - r, most);
        ask_rows(args, row + r, count, k + depth, Source::kElement, g, groups);
        if (width(g) == kBlockTilePanels) {
          block_tile<Tile, kBlockTilePanels>(count, copies + r * kCopy, w, stride, steps, scratch.sums[g][r], next);
        } else {
          block_tile<Tile, 1>(count, copies + r * kCopy, w, stride, steps, scratch.sums[g][r], next);
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

struct FloatRows {
  using Tile = LoadF32;
  static constexpr uint32_t kElement = sizeof(float);
  static DROVER_INLINE void copy(const uint8_t* row, uint32_t k, uint32_t depth, float* out) {
    __builtin_memcpy(out, row + k * sizeof(float), depth * sizeof(float));
  }
};
// Prepared panels; narrow floats are widened once per chunk.
template <typename Load>
struct PanelSource : FloatRows {
  PanelSource(const typename Load::Element* panels, uint64_t panel_stride) : w(panels), stride(panel_stride) {}
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
  NextChunk ahead(uint32_t panel, uint32_t k, uint32_t parts) const {
    return {reinterpret_cast<const uint8_t*>(w + panel * stride + uint64_t{k} * 16), stride * sizeof(Element),
            (16 * static_cast<uint32_t>(sizeof(Element)) + parts - 1) / parts};
  }
};

// The panels that `source` has, `done(row, panel, sum)` with each result.
template <typename Load, typename Done>
void float_panels_gemm(const GemmArgs& args, uint32_t row_begin, uint32_t row_end, uint32_t panel_begin,
                       uint32_t panel_end, const PanelSource<Load>& source, void* scratch, Done done) {
  if (row_end - row_begin <= kDirectRows) {
    const uint64_t stride = args.x_stride_bytes / sizeof(float);
    const Rows<float> x{static_cast<const float*>(args.x) + row_begin * stride, stride, args.depth};
    return direct_rows<Load>(x, row_begin, row_end - row_begin, panel_begin, panel_end, source.w, source.stride,
                             args.follows, static_cast<float*>(scratch), done);
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

}  // namespace
}  // namespace drover
