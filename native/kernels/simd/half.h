// Half-precision conversions in plain integer arithmetic: what the scalar vocabulary and the packers use where the
// CPU has no F16C. Round to nearest even, subnormals kept, NaN stays NaN.
#ifndef DROVER_KERNELS_SIMD_HALF_H_
#define DROVER_KERNELS_SIMD_HALF_H_

#include <cstdint>

namespace drover {
namespace {

[[maybe_unused]] inline float bits_to_float(uint32_t bits) { return __builtin_bit_cast(float, bits); }
[[maybe_unused]] inline uint32_t float_to_bits(float value) { return __builtin_bit_cast(uint32_t, value); }

[[maybe_unused]] inline float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 31u;
  const uint32_t mantissa = half & 0x3ffu;
  if (exponent == 31) return bits_to_float(sign | 0x7f800000u | (mantissa << 13) | (mantissa != 0 ? 0x400000u : 0u));
  if (exponent != 0) return bits_to_float(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float magnitude = static_cast<float>(mantissa) * 5.9604644775390625e-8f;  // 2^-24: exact
  return bits_to_float(sign | float_to_bits(magnitude));
}

[[maybe_unused]] inline uint16_t float_to_half(float value) {
  const uint32_t bits = float_to_bits(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65520 and up round to infinity
  if (magnitude < 0x38800000u) {                                               // subnormal half: multiples of 2^-24
    // Adding 0.5 puts the unit of 2^-24 into the last mantissa bit; the addition itself rounds to nearest even.
    const float shifted = bits_to_float(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (float_to_bits(shifted) - 0x3f000000u));
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

[[maybe_unused]] inline float bfloat_to_float(uint16_t bits) {
  return bits_to_float(static_cast<uint32_t>(bits) << 16);
}

}  // namespace
}  // namespace drover

#endif  // DROVER_KERNELS_SIMD_HALF_H_
