// Rows of embedding tables with one scale and one bias: what FBGEMM calls fused rows. Codes of 8, 4 or 2 bits, packed
// from the low bits up, stand for scale * code + bias. In a row of a plain table the codes come first; a row of a
// table-batched operator has scale and bias first, and may be padded.
#ifndef DROVER_KERNELS_ROWWISE_H_
#define DROVER_KERNELS_ROWWISE_H_

#include "kernels.h"

namespace drover {

inline constexpr bool is_rowwise(DType dtype) { return dtype >= DType::i8_rowwise && dtype <= DType::i2_rowwise; }
// Bytes of scale and bias together: two floats, or two halves; 0 for other formats.
inline constexpr uint32_t parameter_bytes(DType dtype) {
  if (!is_rowwise(dtype)) return 0;
  return dtype == DType::i8_rowwise ? 8 : 4;
}
// Formats that rows of a table may have.
inline constexpr bool is_table_dtype(DType dtype) {
  return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16 || is_rowwise(dtype);
}

// Decodes a row [cols] to f32: scale * code, rounded, + bias, rounded.
void decode_rowwise(DType dtype, const uint8_t* row, uint32_t cols, bool parameters_first, float* out);
// Whether scale and bias are finite.
bool rowwise_is_finite(DType dtype, const uint8_t* row, uint32_t cols, bool parameters_first);
// Encodes a row [cols], scale and bias last, byte for byte as FBGEMM does. Numbers that are not finite give parameters
// that are not.
void encode_rowwise(DType dtype, const float* x, uint32_t cols, uint8_t* row);

}  // namespace drover

#endif  // DROVER_KERNELS_ROWWISE_H_
