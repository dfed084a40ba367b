// The KV cache block: one page (64 positions) of one head of one layer, keys first, then values, both in panels of 16
// so that scores and sums are plain GEMM tiles without horizontal additions:
//   keys    f32/f16: [4 panels of 16 positions][head_dim][16 positions]
//           q8_0:    the same of int8, then scales f16 [4 panels][blocks][16 positions], blocks = ceil(head_dim / 32)
//   values  f32/f16: [panels of 16 elements of head_dim, the last padded][64 positions][16 elements]
//           q8_0:    the same of int8, then scales f16 [blocks][64 positions]
// q8_0 quantises 32 consecutive elements of head_dim of one position, as GGUF's Q8_0 does.
#ifndef DROVER_KERNELS_KV_H_
#define DROVER_KERNELS_KV_H_

#include "kernels.h"
#include "quantize.h"

namespace drover {

inline constexpr bool kv_type_known(DType type) {
  return type == DType::f32 || type == DType::f16 || type == DType::q8_0;
}
inline constexpr uint64_t kv_element_bytes(DType type) { return type == DType::f32 ? 4 : type == DType::f16 ? 2 : 1; }
inline constexpr uint64_t kv_scale_bytes(DType type, uint32_t head_dim) {
  return type == DType::q8_0 ? round_up(uint64_t{kPagePositions} * ((head_dim + 31) / 32) * 2, 64) : 0;
}
inline constexpr uint64_t kv_key_bytes(DType type, uint32_t head_dim) {
  return uint64_t{kPagePositions} * head_dim * kv_element_bytes(type);
}
inline constexpr uint64_t kv_value_bytes(DType type, uint32_t head_dim) {
  return uint64_t{kPagePositions} * round_up(head_dim, kPanel) * kv_element_bytes(type);
}
inline constexpr uint64_t kv_value_offset(DType type, uint32_t head_dim) {
  return kv_key_bytes(type, head_dim) + kv_scale_bytes(type, head_dim);
}
// Bytes of a block: a multiple of 64.
inline constexpr uint64_t kv_block_bytes(DType type, uint32_t head_dim) {
  return round_up(kv_value_offset(type, head_dim) + kv_value_bytes(type, head_dim) + kv_scale_bytes(type, head_dim),
                  64);
}
// Reads one position back as f32 [head_dim]; what: 0 key, 1 value.
void kv_read(DType type, const uint8_t* block, uint32_t head_dim, uint32_t slot, uint32_t what, float* out);

}  // namespace drover

#endif  // DROVER_KERNELS_KV_H_
