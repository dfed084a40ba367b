// Reads cache blocks back, one position at a time, in portable scalar code: what snapshots and checks use. The layout
// is that of kv.h; a code times its scale is rounded once.
#include "kernels/kv.h"

#include "kernels/simd/half.h"

namespace drover {

void kv_read(DType type, const uint8_t* block, uint32_t head_dim, uint32_t slot, uint32_t what, float* out) {
  const bool value = what != 0;
  const uint8_t* base = value ? block + kv_value_offset(type, head_dim) : block;
  const uint16_t* scales =
      reinterpret_cast<const uint16_t*>(base + (value ? kv_value_bytes(type, head_dim) : kv_key_bytes(type, head_dim)));
  for (uint32_t d = 0; d < head_dim; d++) {
    const uint64_t at = value ? kv_value_place(type, slot, d) : kv_key_place(type, head_dim, slot, d);
    const uint16_t word = reinterpret_cast<const uint16_t*>(base)[kv_element_bytes(type) == 2 ? at : 0];
    if (type == DType::f32) out[d] = reinterpret_cast<const float*>(base)[at];
    if (type == DType::f16) out[d] = half_to_float(word);
    if (type == DType::bf16) out[d] = bfloat_to_float(word);
    if (type == DType::f8_e4m3) out[d] = half_to_float(e4m3_as_half(base[at])) * 256.0f * bfloat_to_float(scales[slot]);
    if (type == DType::q8_0) {
      const uint64_t scale = value ? kv_value_scale_place(slot, d / 32) : kv_key_scale_place(head_dim, slot, d / 32);
      const int32_t code = value ? static_cast<int8_t>(base[at]) : base[at] - 128;
      out[d] = static_cast<float>(code) * half_to_float(scales[scale]);
    }
  }
}

}  // namespace drover
