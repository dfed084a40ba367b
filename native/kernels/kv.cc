// Reads cache blocks back, one position at a time, in portable scalar code: what snapshots and checks use. The layout
// is that of kv.h, and every value is the one attention multiplies (a q8_0 code times its scale, rounded once).
#include "kernels/kv.h"

#include "kernels/simd/half.h"

namespace drover {

void kv_read(DType type, const uint8_t* block, uint32_t head_dim, uint32_t slot, uint32_t what, float* out) {
  const bool value = what != 0;
  const uint8_t* base = value ? block + kv_value_offset(type, head_dim) : block;
  // Elements of a key lie a panel row apart; 16 of a value lie together, the next 16 one panel on.
  const auto place = [&](uint32_t d) {
    return value ? (uint64_t{d / kPanel} * kPagePositions + slot) * kPanel + d % kPanel
                 : (uint64_t{slot / kPanel} * head_dim + d) * kPanel + slot % kPanel;
  };
  if (type == DType::f32) {
    const float* from = reinterpret_cast<const float*>(base);
    for (uint32_t d = 0; d < head_dim; d++) out[d] = from[place(d)];
    return;
  }
  if (type == DType::f16) {
    const uint16_t* from = reinterpret_cast<const uint16_t*>(base);
    for (uint32_t d = 0; d < head_dim; d++) out[d] = half_to_float(from[place(d)]);
    return;
  }
  const int8_t* codes = reinterpret_cast<const int8_t*>(base);
  const uint32_t blocks = (head_dim + 31) / 32;
  const uint16_t* scales =
      reinterpret_cast<const uint16_t*>(base + (value ? kv_value_bytes(type, head_dim) : kv_key_bytes(type, head_dim)));
  for (uint32_t d = 0; d < head_dim; d++) {
    const uint64_t scale = value ? uint64_t{d / 32} * kPagePositions + slot
                                 : (uint64_t{slot / kPanel} * blocks + d / 32) * kPanel + slot % kPanel;
    out[d] = static_cast<float>(codes[place(d)]) * half_to_float(scales[scale]);
  }
}

}  // namespace drover
