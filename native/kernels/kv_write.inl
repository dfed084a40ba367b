// Writes one position of one head into a cache block (layout in kv.h). Everything rounds to nearest even; a vector or
// block with a NaN or an infinity gets a NaN as its scale.
#include "kv.h"

namespace drover {
namespace {

// place(d): where element d goes; scale_place(b): where the scale of 32-block b goes; zero: the code of 0.
template <typename Place, typename ScalePlace>
DROVER_INLINE void write_q8_0(const float* x, uint32_t head_dim, uint8_t zero, uint8_t* codes, Place place,
                              uint16_t* scales, ScalePlace scale_place) {
  for (uint32_t b = 0; b * 32 < head_dim; b++) {
    const uint32_t count = smaller_of(32, head_dim - b * 32);
    int8_t q[32];
    scales[scale_place(b)] = float_to_half(quantize_block(x + b * 32, 32, count, q));
    for (uint32_t i = 0; i < count; i++) codes[place(b * 32 + i)] = static_cast<uint8_t>(q[i] + zero);
  }
}

template <typename Place>
DROVER_INLINE void write_e4m3(const float* x, uint32_t head_dim, uint8_t* codes, Place place, uint16_t* scale) {
  const float peak = row_peak(x, head_dim);
  const bool finite = peak == peak, none = !finite || peak < kSmallestQuantized;
  // The exponent of peak / 448 rounded up: 448 is 1.75 · 2^8.
  const uint32_t bits = float_to_bits(peak);
  const uint32_t fitting = (bits >> 23) - 8 + ((bits & 0x7fffffu) > 0x600000u ? 1 : 0);
  const uint32_t exponent = none ? 127 : fitting < 246 ? fitting : 246;  // 256 times the scale is finite, too
  *scale = finite ? static_cast<uint16_t>(exponent << 7) : 0x7fc0;
  const float inverse = none ? 0.0f : bits_to_float((254 - exponent) << 23);
  for (uint32_t d = 0; d < head_dim; d++) codes[place(d)] = none ? 0 : float_to_f8<7, 3, 0x7e>(x[d] * inverse);
}

void kv_write(DType type, const float* k, const float* v, uint32_t head_dim, uint32_t slot, uint8_t* block) {
  uint8_t* values = block + kv_value_offset(type, head_dim);
  uint16_t* key_scales = reinterpret_cast<uint16_t*>(block + kv_key_bytes(type, head_dim));
  uint16_t* value_scales = reinterpret_cast<uint16_t*>(values + kv_value_bytes(type, head_dim));
  const auto key_place = [&](uint32_t d) { return kv_key_place(type, head_dim, slot, d); };
  const auto value_place = [&](uint32_t d) { return kv_value_place(type, slot, d); };
  switch (type) {
    case DType::q8_0:
      write_q8_0(k, head_dim, 128, block, key_place, key_scales,
                 [&](uint32_t b) { return kv_key_scale_place(head_dim, slot, b); });
      write_q8_0(v, head_dim, 0, values, value_place, value_scales,
                 [&](uint32_t b) { return kv_value_scale_place(slot, b); });
      return;
    case DType::f8_e4m3:
      write_e4m3(k, head_dim, block, key_place, key_scales + slot);
      write_e4m3(v, head_dim, values, value_place, value_scales + slot);
      return;
    default:
      break;
  }
  for (uint32_t d = 0; d < head_dim; d++) {
    const uint64_t key = key_place(d), value = value_place(d);
    if (type == DType::f32) {
      reinterpret_cast<float*>(block)[key] = k[d];
      reinterpret_cast<float*>(values)[value] = v[d];
    } else {
      const bool half = type == DType::f16;
      reinterpret_cast<uint16_t*>(block)[key] = half ? float_to_half(k[d]) : float_to_bfloat(k[d]);
      reinterpret_cast<uint16_t*>(values)[value] = half ? float_to_half(v[d]) : float_to_bfloat(v[d]);
    }
  }
}

}  // namespace
}  // namespace drover
