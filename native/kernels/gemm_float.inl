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
struct LoadBF16 {
  using Element = uint16_t;
  static DROVER_INLINE F32x16 load(const uint16_t* p) { return f_load_bfloat(p); }
};

// acc[r][p] += sum over k of x[r][k] * panel p[k]; acc is [rows][acc_stride] floats with panels 16 apart.
template <uint32_t kR, uint32_t kP, typename Load>
DROVER_INLINE void float_tile(const float* x, uint64_t x_stride, const typename Load::Element* w, uint64_t w_stride,
                              uint32_t depth, float* acc, uint64_t acc_stride) {
  F32x16 sum[kR][kP];
#pragma GCC unroll 16
  for (uint32_t r = 0; r < kR; r++)
#pragma GCC unroll 4
    for (uint32_t p = 0; p < kP; p++) sum[r][p] = f_load(acc + r * acc_stride + p * 16);
  for (uint32_t k = 0; k < depth; k++) {
    F32x16 column[kP];
#pragma GCC unroll 4
    for (uint32_t p = 0; p < kP; p++) {
      column[p] = Load::load(w + p * w_stride + k * 16);
      if (kR == 1) __builtin_prefetch(w + p * w_stride + k * 16 + 1024);
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

template <uint32_t kP, typename Load>
DROVER_INLINE void float_rows(const float* x, uint64_t x_stride, uint32_t rows, const typename Load::Element* w,
                              uint64_t w_stride, uint32_t depth, float* acc, uint64_t acc_stride) {
  uint32_t r = 0;
  for (; r + kFloatRows <= rows; r += kFloatRows) {
    float_tile<kFloatRows, kP, Load>(x + r * x_stride, x_stride, w, w_stride, depth, acc + r * acc_stride, acc_stride);
  }
  x += r * x_stride;
  acc += r * acc_stride;
  switch (rows - r) {
    case 5:
      return float_tile<5, kP, Load>(x, x_stride, w, w_stride, depth, acc, acc_stride);
    case 4:
      return float_tile<4, kP, Load>(x, x_stride, w, w_stride, depth, acc, acc_stride);
    case 3:
      return float_tile<3, kP, Load>(x, x_stride, w, w_stride, depth, acc, acc_stride);
    case 2:
      return float_tile<2, kP, Load>(x, x_stride, w, w_stride, depth, acc, acc_stride);
    case 1:
      return float_tile<1, kP, Load>(x, x_stride, w, w_stride, depth, acc, acc_stride);
    default:
      return;
  }
}

// acc [rows, panels * 16] += x [rows, depth] * panels [panels][depth][16]
template <typename Load>
void float_panels(const float* x, uint64_t x_stride, uint32_t rows, const typename Load::Element* w, uint64_t w_stride,
                  uint32_t panels, uint32_t depth, float* acc, uint64_t acc_stride) {
  uint32_t p = 0;
  if (rows == 1) {
    for (; p + kVectorPanels <= panels; p += kVectorPanels) {
      float_tile<1, kVectorPanels, Load>(x, x_stride, w + p * w_stride, w_stride, depth, acc + p * 16, acc_stride);
    }
  }
  for (; p + kFloatPanels <= panels; p += kFloatPanels) {
    float_rows<kFloatPanels, Load>(x, x_stride, rows, w + p * w_stride, w_stride, depth, acc + p * 16, acc_stride);
  }
  if constexpr (kFloatPanels > 1) {
    for (; p < panels; p++) {
      float_rows<1, Load>(x, x_stride, rows, w + p * w_stride, w_stride, depth, acc + p * 16, acc_stride);
    }
  }
}

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

inline constexpr uint32_t kDepthChunk = 256;  // k per pass: a panel's chunk stays in L1
inline constexpr uint32_t kRowChunk = 192;    // rows whose sums are kept in scratch
inline constexpr uint32_t kPanelChunk = 4;    // panels per pass over the rows

// Runs the tile over rows and panels in passes of kPanelChunk panels. `chunk(panel, panels, k, depth)` gives the panels
// of one chunk of depth as Load's elements (panels w_stride apart); `done(row, panel, sum)` takes the results.
template <typename Load, typename Chunk, typename Done>
DROVER_INLINE void float_gemm(const GemmArgs& args, uint32_t row_begin, uint32_t row_end, uint32_t panel_begin,
                              uint32_t panel_end, uint32_t depth_chunk, float* acc, Chunk chunk, Done done) {
  const uint64_t x_stride = args.x_stride_bytes / sizeof(float);
  for (uint32_t row = row_begin; row < row_end; row += kRowChunk) {
    const uint32_t rows = row_end - row < kRowChunk ? row_end - row : kRowChunk;
    for (uint32_t panel = panel_begin; panel < panel_end; panel += kPanelChunk) {
      const uint32_t panels = panel_end - panel < kPanelChunk ? panel_end - panel : kPanelChunk;
      for (uint32_t i = 0; i < rows * kPanelChunk; i++) f_store(acc + i * 16, f_zero());
      for (uint32_t k = 0; k < args.depth; k += depth_chunk) {
        const uint32_t depth = args.depth - k < depth_chunk ? args.depth - k : depth_chunk;
        uint64_t w_stride;
        const typename Load::Element* w = chunk(panel, panels, k, depth, &w_stride);
        const float* x = static_cast<const float*>(args.x) + row * x_stride + k;
        float_panels<Load>(x, x_stride, rows, w, w_stride, panels, depth, acc, kPanelChunk * 16);
      }
      for (uint32_t r = 0; r < rows; r++) {
        for (uint32_t p = 0; p < panels; p++) done(row + r, panel + p, f_load(acc + (r * kPanelChunk + p) * 16));
      }
    }
  }
}

// Scratch: sums [kRowChunk][kPanelChunk][16], then a chunk of f32 panels, then (decoding) 16 decoded rows.
inline constexpr uint64_t kChunkFloats = uint64_t{kPanelChunk} * kDepthChunk * 16;
static_assert((kRowChunk * kPanelChunk * 16 + kChunkFloats + 16 * kDepthChunk) * 4 <= kGemmScratchBytes);

// `w`: the first panel's elements, and how many lie between panels.
template <typename Load, typename Done>
DROVER_INLINE void float_panels_gemm(const GemmArgs& args, uint32_t row_begin, uint32_t row_end, uint32_t panel_begin,
                                     uint32_t panel_end, const typename Load::Element* w, uint64_t panel_stride,
                                     void* scratch, Done done) {
  float* acc = static_cast<float*>(scratch);
  if (sizeof(*w) == 4 || row_end - row_begin <= kFloatRows) {
    // Few rows: convert in registers; one row runs the whole depth in one pass.
    const uint32_t depth_chunk = row_end - row_begin == 1 ? args.depth : kDepthChunk;
    float_gemm<Load>(
        args, row_begin, row_end, panel_begin, panel_end, depth_chunk, acc,
        [&](uint32_t panel, uint32_t, uint32_t k, uint32_t, uint64_t* stride) {
          *stride = panel_stride;
          return w + panel * panel_stride + uint64_t{k} * 16;
        },
        done);
    return;
  }
  float* wide = acc + kRowChunk * kPanelChunk * 16;
  float_gemm<LoadF32>(
      args, row_begin, row_end, panel_begin, panel_end, kDepthChunk, acc,
      [&](uint32_t panel, uint32_t panels, uint32_t k, uint32_t depth, uint64_t* stride) {
        for (uint32_t p = 0; p < panels; p++) {
          const typename Load::Element* from = w + (panel + p) * panel_stride + uint64_t{k} * 16;
          float* to = wide + p * kDepthChunk * 16;
          for (uint32_t i = 0; i < depth; i++) f_store(to + i * 16, Load::load(from + i * 16));
        }
        *stride = kDepthChunk * 16;
        return static_cast<const float*>(wide);
      },
      done);
}
template <typename Load>
void gemm_float(const GemmArgs& args, uint32_t row_begin, uint32_t row_end, uint32_t panel_begin, uint32_t panel_end,
                void* scratch) {
  const typename Load::Element* w = reinterpret_cast<const typename Load::Element*>(args.w);
  const uint64_t stride = panel_bytes(sizeof(*w) == 4 ? DType::f32 : DType::f16, args.depth) / sizeof(*w);
  float_panels_gemm<Load>(args, row_begin, row_end, panel_begin, panel_end, w, stride, scratch,
                          [&](uint32_t row, uint32_t panel, F32x16 sum)
                              DROVER_LAMBDA { finish(args, row, panel, sum); });
}

// GEMM on the file's own rows of any dtype: 16 rows are decoded to f32 and transposed to a panel, chunk by chunk.
void gemm_decoded(DType type, const GemmArgs& args, uint32_t row_begin, uint32_t row_end, uint32_t panel_begin,
                  uint32_t panel_end, void* scratch) {
  float* acc = static_cast<float*>(scratch);
  float* wide = acc + kRowChunk * kPanelChunk * 16;
  float* decoded = wide + kChunkFloats;
  const uint64_t stride_bytes = row_bytes(type, args.depth);
  const auto chunk = [&](uint32_t panel, uint32_t panels, uint32_t k, uint32_t depth, uint64_t* stride) {
    for (uint32_t p = 0; p < panels; p++) {
      const uint32_t column = (panel + p) * kPanel;
      for (uint32_t c = 0; c < kPanel; c++) {
        float* row = decoded + c * kDepthChunk;
        if (column + c < args.cols) {
          decode_row(type, args.w + (column + c) * stride_bytes + row_bytes(type, k), depth, row);
          scale_values(args.scales, column + c, args.depth, k, depth, row);
        } else {
          for (uint32_t i = 0; i < depth; i++) row[i] = 0;
        }
      }
      float* to = wide + p * kDepthChunk * 16;
      for (uint32_t i = 0; i < depth; i++)
        for (uint32_t c = 0; c < kPanel; c++) to[i * 16 + c] = decoded[c * kDepthChunk + i];
    }
    *stride = kDepthChunk * 16;
    return static_cast<const float*>(wide);
  };
  float_gemm<LoadF32>(args, row_begin, row_end, panel_begin, panel_end, kDepthChunk, acc, chunk,
                      [&](uint32_t row, uint32_t panel, F32x16 sum) DROVER_LAMBDA { finish(args, row, panel, sum); });
}
template <DType kType>
void gemm_decode(const GemmArgs& args, uint32_t row_begin, uint32_t row_end, uint32_t panel_begin, uint32_t panel_end,
                 void* scratch) {
  gemm_decoded(kType, args, row_begin, row_end, panel_begin, panel_end, scratch);
}

}  // namespace
}  // namespace drover
