// Prepared weights: the layout that GEMM kernels read. Columns (outputs) are grouped in panels of 16; a panel is
// contiguous and laid out along depth (K), so that one row of activations streams it once and many rows share each
// load. The layout is the same for every ISA. Nothing is requantised: codes and scales are the file's own.
// Rows of a panel past the last output are zero. Contracts are checked by the caller (depth holds whole blocks).
#ifndef DROVER_KERNELS_PREPARE_H_
#define DROVER_KERNELS_PREPARE_H_

#include "kernels.h"

namespace drover {

// Bytes of the prepared form of [rows, depth] weights; 0 when this dtype has none.
uint64_t prepared_bytes(DType dtype, uint32_t rows, uint32_t depth);
// Packs panels [panel_begin, panel_end) of file rows `source` [rows, depth] (row-major, whole blocks) into `out`, the
// start of the whole prepared weight (64-byte aligned). Only formats that may_have_scales take `scales`.
void prepare_panels(DType dtype, const uint8_t* source, uint32_t rows, uint32_t depth, uint32_t panel_begin,
                    uint32_t panel_end, uint8_t* out, const Scales& scales = {});
// Decodes one row of a prepared weight to f32 (embedding gather from a tied head).
void decode_prepared_row(DType dtype, const uint8_t* prepared, uint32_t rows, uint32_t depth, uint32_t row, float* out);
// Decodes `cols` elements of one file row to f32; every weight dtype.
void decode_row(DType dtype, const uint8_t* source, uint32_t cols, float* out);
// Whether weights of this dtype may have scales beside them, for `groups` equal parts of each row: one for i8 and
// f8_e4m3, groups of whole 32-blocks for i4.
bool may_have_scales(DType dtype, uint32_t depth, uint32_t groups);
// values [count], elements [begin, begin + count) of row `row` of [rows, depth] weights, times their scales.
void scale_values(const Scales& scales, uint32_t row, uint32_t depth, uint32_t begin, uint32_t count, float* values);
// Bytes of one file row.
uint64_t row_bytes(DType dtype, uint32_t cols);
// False when a scale or a float value of the file row is NaN or infinite (verify: 'full').
bool row_is_finite(DType dtype, const uint8_t* source, uint32_t cols);

}  // namespace drover

#endif  // DROVER_KERNELS_PREPARE_H_
