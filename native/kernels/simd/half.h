// Conversions to and from floats of 16 and 8 bits in plain integer arithmetic: what the scalar vocabulary, the packers
// and the cache's writer use. Round to nearest even, subnormals kept, NaN stays NaN.
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
[[maybe_unused]] inline uint16_t float_to_bfloat(float value) {
  const uint32_t bits = float_to_bits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// The magnitude of a float of `bits` in a float with fewer bits; the code may run past the largest finite one.
[[maybe_unused]] inline uint32_t round_magnitude(uint32_t bits, int32_t bias, int32_t mantissa_bits) {
  const int32_t exponent = static_cast<int32_t>(bits >> 23) - 127 + bias;
  // A subnormal result shifts the mantissa, with its hidden one, further right; all is gone after 25 bits.
  const int32_t shift = exponent > 0 ? 23 - mantissa_bits : 24 - mantissa_bits - exponent;
  if (shift > 24) return 0;
  const uint32_t mantissa = exponent > 0 ? bits & 0x7fffffu : (bits & 0x7fffffu) | 0x800000u;
  const uint32_t half = 1u << (shift - 1), rest = mantissa & ((1u << shift) - 1);
  const uint32_t kept = (mantissa >> shift) + (exponent > 0 ? static_cast<uint32_t>(exponent) << mantissa_bits : 0);
  return kept + (rest > half || (rest == half && kept % 2 == 1) ? 1 : 0);
}
// A float of 8 bits that saturates at the code kMost: e4m3 is <7, 3, 0x7e>, e5m2 <15, 2, 0x7c>.
template <int32_t kBias, int32_t kMantissa, uint32_t kMost>
[[maybe_unused]] inline uint8_t float_to_f8(float value) {
  const uint32_t bits = float_to_bits(value), sign = bits >> 24 & 0x80, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint8_t>(sign | 0x7f);
  const uint32_t code = round_magnitude(magnitude, kBias, kMantissa);
  return static_cast<uint8_t>(sign | (code < kMost ? code : kMost));
}

// The half that a finite e4m3 code stands for, divided by 256: the exponents' zero points differ by 8.
[[maybe_unused]] inline uint16_t e4m3_as_half(uint8_t code) {
  return static_cast<uint16_t>((code & 0x80u) << 8 | (code & 0x7fu) << 7);
}

}  // namespace
}  // namespace drover

#endif  // DROVER_KERNELS_SIMD_HALF_H_
