// The KV cache block: one page (64 positions) of one head of one layer, keys first, then values, both in panels of 16
// so that scores and sums are plain GEMM tiles without horizontal additions:
//   keys    f32, f16, bf16, f8_e4m3: [4 panels of 16 positions][head_dim][16 positions]
//           q8_0: [4 panels][lines of 4 elements, ceil(head_dim / 4)][16 positions][4 elements] of code + 128: what
//                 instructions multiply by 4 bytes of a query; what lies past head_dim is never written nor counts
//   scales of keys    f8_e4m3: bf16 [64 positions]
//                     q8_0: f16 [4 panels][blocks][16 positions], blocks = ceil(head_dim / 32)
//   values  f32, f16, bf16, f8_e4m3: [panels of 16 elements of head_dim, the last padded][64 positions][16 elements]
//           q8_0: [panels][32 pairs of positions][16 elements][2 positions]: what instructions multiply by two 16-bit
//                 probabilities
//   scales of values  f8_e4m3: bf16 [64 positions]; q8_0: f16 [blocks][64 positions]
// q8_0 quantises 32 consecutive elements of head_dim of one position, as GGUF's Q8_0 does. f8_e4m3 has one scale per
// vector, a power of two that puts its largest element between 224 and 448: scaling rounds nothing, and so a scale can
// multiply a score or a probability instead of each element.
#ifndef DROVER_KERNELS_KV_H_
#define DROVER_KERNELS_KV_H_

#include "kernels.h"
#include "quantize.h"

namespace drover {

inline constexpr bool kv_type_known(DType type) {
  return type == DType::f32 || type == DType::f16 || type == DType::bf16 || type == DType::q8_0 ||
         type == DType::f8_e4m3;
}
inline constexpr uint64_t kv_element_bytes(DType type) {
  return type == DType::f32 ? 4 : type == DType::f16 || type == DType::bf16 ? 2 : 1;
}
inline constexpr uint64_t kv_scale_bytes(DType type, uint32_t head_dim) {
  const uint32_t scales = type == DType::q8_0 ? (head_dim + 31) / 32 : type == DType::f8_e4m3 ? 1 : 0;
  return uint64_t{kPagePositions} * scales * 2;
}
inline constexpr uint64_t kv_key_bytes(DType type, uint32_t head_dim) {
  return uint64_t{kPagePositions} * (type == DType::q8_0 ? round_up(head_dim, 4) : head_dim) * kv_element_bytes(type);
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
// Places of element `d` of position `slot`, in elements from the first key or value.
inline constexpr uint64_t kv_key_place(DType type, uint32_t head_dim, uint32_t slot, uint32_t d) {
  const uint64_t panel = slot / kPanel, column = slot % kPanel;
  return type == DType::q8_0 ? ((panel * ((head_dim + 3) / 4) + d / 4) * kPanel + column) * 4 + d % 4
                             : (panel * head_dim + d) * kPanel + column;
}
inline constexpr uint64_t kv_value_place(DType type, uint32_t slot, uint32_t d) {
  const uint64_t panel = uint64_t{d / kPanel} * kPagePositions * kPanel;
  return type == DType::q8_0 ? panel + (slot / 2 * kPanel + d % kPanel) * 2 + slot % 2
                             : panel + slot * kPanel + d % kPanel;
}
// Places of the q8_0 scale of 32-block `b`, in halves from the first.
inline constexpr uint64_t kv_key_scale_place(uint32_t head_dim, uint32_t slot, uint32_t b) {
  return (uint64_t{slot / kPanel} * ((head_dim + 31) / 32) + b) * kPanel + slot % kPanel;
}
inline constexpr uint64_t kv_value_scale_place(uint32_t slot, uint32_t b) {
  return uint64_t{b} * kPagePositions + slot;
}
// Reads one position back as f32 [head_dim]; what: 0 key, 1 value.
void kv_read(DType type, const uint8_t* block, uint32_t head_dim, uint32_t slot, uint32_t what, float* out);

}  // namespace drover

#endif  // DROVER_KERNELS_KV_H_
