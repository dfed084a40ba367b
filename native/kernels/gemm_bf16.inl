// GEMM of bf16 weights and bf16 rows, summed in f32. Subnormal numbers count as zero, as the instructions for such
// products have them; all sets follow, so that results stay equal bit for bit.
#include "simd/flush.h"

namespace drover {
namespace {

#ifdef DROVER_PAIRS
// Two k at a time. An odd depth ends in -0 * 0, which changes no sum.
struct TwoByTwo {
  static constexpr uint32_t kDepth = 2;
  using X = uint32_t;
  using Element = uint16_t;
  static DROVER_INLINE F32x16 product(F32x16 sum, uint32_t x, Pairs16 column) { return p_dot(sum, x, column); }
};
struct JoinPairs : TwoByTwo {  // from a panel
  static DROVER_INLINE Pairs16 load(const uint16_t* p) { return p_join(p); }
};
struct LoadPairs : TwoByTwo {  // joined before
  static DROVER_INLINE Pairs16 load(const uint16_t* p) { return p_load(p); }
};
using BfloatDirect = JoinPairs;
DROVER_INLINE void copy_bfloats(const uint16_t* row, uint32_t depth, uint32_t* out) {
  uint32_t k = 0;
  for (; k + 32 <= depth; k += 32) p_store(reinterpret_cast<uint16_t*>(out + k / 2), p_turn(row + k));
  for (; k < depth; k += 2) out[k / 2] = uint32_t{row[k]} << 16 | (k + 1 < depth ? row[k + 1] : 0x8000);
}
struct BfloatSource : PanelSource<LoadBF16> {
  using PanelSource::PanelSource;
  using Tile = LoadPairs;
  const uint16_t* chunk(uint32_t panel, uint32_t panels, uint32_t k, uint32_t depth, BlockScratch& scratch,
                        uint64_t* chunk_stride) const {
    uint16_t* to = reinterpret_cast<uint16_t*>(scratch.wide);
    *chunk_stride = kGemmFloatDepth * 16;
    for (uint32_t p = 0; p < panels; p++) {
      const uint16_t* from = w + (panel + p) * stride + uint64_t{k} * 16;
      for (uint32_t i = 0; i < depth; i += 2) p_store(to + p * *chunk_stride + i * 16, p_join(from + i * 16));
    }
    return to;
  }
  NextChunk ahead(uint32_t panel, uint32_t k, uint32_t parts) const {
    NextChunk next = PanelSource::ahead(panel, k, parts);
    next.step *= Tile::kDepth;
    return next;
  }
#else
using BfloatDirect = LoadBF16;
DROVER_INLINE void copy_bfloats(const uint16_t* row, uint32_t depth, float* out) {
  uint32_t k = 0;
  for (; k + 16 <= depth; k += 16) f_store(out + k, f_load_bfloat(row + k));
  for (; k < depth; k++) out[k] = bfloat_to_float(row[k]);
}
struct BfloatSource : PanelSource<LoadBF16> {
  using PanelSource::PanelSource;
#endif
  static constexpr uint32_t kElement = sizeof(uint16_t);
  static DROVER_INLINE void copy(const uint8_t* row, uint32_t k, uint32_t depth, Tile::X* out) {
    copy_bfloats(reinterpret_cast<const uint16_t*>(row) + k, depth, out);
  }
};

// A function of its own: nothing of it may move in front of the switch.
__attribute__((noinline)) void flushed_bf16(const GemmArgs& args, uint32_t row_begin, uint32_t row_end,
                                            uint32_t panel_begin, uint32_t panel_end, void* scratch) {
  using X = BfloatDirect::X;
  const BfloatSource source(reinterpret_cast<const uint16_t*>(args.w), panel_bytes(DType::bf16, args.depth) / 2);
  constexpr uint32_t kSumsBytes = 4096;
  static_assert(kDirectRows * kVectorPanels * 16 * sizeof(float) <= kSumsBytes);
  const uint32_t rows = row_end - row_begin, steps = (args.depth + BfloatDirect::kDepth - 1) / BfloatDirect::kDepth;
  const uint64_t bytes = uint64_t{rows} * steps * sizeof(X);
  if (rows > kDirectRows || bytes > kGemmScratchBytes - kSumsBytes) {
    return float_blocks(args, row_begin, row_end, panel_begin, panel_end, source, scratch, Finish{args});
  }
  float* sums = static_cast<float*>(scratch);
  X* copies = reinterpret_cast<X*>(static_cast<uint8_t*>(scratch) + kSumsBytes);
  for (uint32_t r = 0; r < rows; r++) {
    const uint8_t* row = static_cast<const uint8_t*>(args.x) + (row_begin + r) * args.x_stride_bytes;
    copy_bfloats(reinterpret_cast<const uint16_t*>(row), args.depth, copies + uint64_t{r} * steps);
  }
  direct_rows<BfloatDirect>(Rows<X>{copies, steps, steps}, row_begin, rows, panel_begin, panel_end, source.w,
                            source.stride, args.follows, sums, Finish{args});
}
void gemm_bf16(const GemmArgs& args, uint32_t row_begin, uint32_t row_end, uint32_t panel_begin, uint32_t panel_end,
               void* scratch) {
  const FlushSubnormals flush;
  flushed_bf16(args, row_begin, row_end, panel_begin, panel_end, scratch);
}

}  // namespace
}  // namespace drover
