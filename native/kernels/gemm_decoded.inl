// GEMM on the file's own rows: what has no panels, and what must not be rounded.
namespace drover {
namespace {

// 16 rows are decoded to f32 and transposed to a panel, chunk by chunk.
struct DecodedSource : FloatRows {
  DecodedSource(DType dtype, const GemmArgs& gemm)
      : type(dtype), args(gemm), stride_bytes(row_bytes(dtype, gemm.depth)) {}
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
  NextChunk ahead(uint32_t, uint32_t, uint32_t) const { return {args.w, 0, 0}; }
};
void gemm_decoded(DType type, const GemmArgs& args, uint32_t row_begin, uint32_t row_end, uint32_t panel_begin,
                  uint32_t panel_end, void* scratch) {
  float_blocks(args, row_begin, row_end, panel_begin, panel_end, DecodedSource{type, args}, scratch, Finish{args});
}
template <DType kType>
void gemm_decode(const GemmArgs& args, uint32_t row_begin, uint32_t row_end, uint32_t panel_begin, uint32_t panel_end,
                 void* scratch) {
  gemm_decoded(kType, args, row_begin, row_end, panel_begin, panel_end, scratch);
}

}  // namespace
}  // namespace drover
