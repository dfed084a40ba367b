#include "kv.h"

#include "simd/half.h"

namespace drover {

void kv_read(DType type, const uint8_t* block, uint32_t head_dim, uint32_t slot, uint32_t what, float* out) {
  const uint8_t* values = block + kv_value_offset(type, head_dim);
  const uint32_t blocks = (head_dim + 31) / 32;
  const uint8_t* scales = what == 0 ? block + kv_key_bytes(type, head_dim) : values + kv_value_bytes(type, head_dim);
  for (uint32_t d = 0; d < head_dim; d++) {
    const uint64_t at = what == 0 ? (uint64_t{slot / 16} * head_dim + d) * 16 + slot % 16
                                  : (uint64_t{d / 16} * kPagePositions + slot) * 16 + d % 16;
    const uint8_t* elements = what == 0 ? block : values;
    if (type == DType::f32) {
      out[d] = reinterpret_cast<const float*>(elements)[at];
    } else if (type == DType::f16) {
      out[d] = half_to_float(reinterpret_cast<const uint16_t*>(elements)[at]);
    } else {
      const uint32_t scale = what == 0 ? (slot / 16 * blocks + d / 32) * 16 + slot % 16 : d / 32 * kPagePositions + slot;
      out[d] = half_to_float(reinterpret_cast<const uint16_t*>(scales)[scale]) *
               static_cast<float>(reinterpret_cast<const int8_t*>(elements)[at]);
    }
  }
}

}  // namespace drover
