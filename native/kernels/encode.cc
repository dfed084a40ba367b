// Rows into stored formats: single numbers, and rows of blocks piece by piece through the kernels' encoders.
#include "kernels/encode.h"

#include <cstring>

#include "kernels/simd/half.h"

namespace drover {
namespace {

// ---- single numbers, to nearest even ----

// The magnitude of a float of `bits` in a float with fewer bits; the code may run past the largest finite one.
uint32_t round_magnitude(uint32_t bits, int32_t bias, int32_t mantissa_bits) {
  const int32_t exponent = static_cast<int32_t>(bits >> 23) - 127 + bias;
  // A subnormal result shifts the mantissa, with its hidden one, further right; all is gone after 25 bits.
  const int32_t shift = exponent > 0 ? 23 - mantissa_bits : 24 - mantissa_bits - exponent;
  if (shift > 24) return 0;
  const uint32_t mantissa = exponent > 0 ? bits & 0x7fffffu : (bits & 0x7fffffu) | 0x800000u;
  const uint32_t half = 1u << (shift - 1), rest = mantissa & ((1u << shift) - 1);
  const uint32_t kept = (mantissa >> shift) + (exponent > 0 ? static_cast<uint32_t>(exponent) << mantissa_bits : 0);
  return kept + (rest > half || (rest == half && kept % 2 == 1) ? 1 : 0);
}

uint16_t to_bf16(float value) {
  const uint32_t bits = float_to_bits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

template <int32_t kBias, int32_t kMantissa, uint32_t kMost>
uint8_t to_f8(float value) {
  const uint32_t bits = float_to_bits(value), sign = bits >> 24 & 0x80, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint8_t>(sign | 0x7f);
  const uint32_t code = round_magnitude(magnitude, kBias, kMantissa);
  return static_cast<uint8_t>(sign | (code < kMost ? code : kMost));
}

// False for block formats.
bool encode_numbers(DType dtype, const float* x, uint32_t cols, uint8_t* out) {
  switch (dtype) {
    case DType::f32:
      if (cols != 0) memcpy(out, x, uint64_t{cols} * 4);
      return true;
    case DType::f16:
    case DType::bf16:
      for (uint32_t i = 0; i < cols; i++) {
        const uint16_t code = dtype == DType::f16 ? float_to_half(x[i]) : to_bf16(x[i]);
        memcpy(out + uint64_t{i} * 2, &code, 2);
      }
      return true;
    case DType::f8_e4m3:
      for (uint32_t i = 0; i < cols; i++) out[i] = to_f8<7, 3, 0x7e>(x[i]);
      return true;
    case DType::f8_e5m2:
      for (uint32_t i = 0; i < cols; i++) out[i] = to_f8<15, 2, 0x7c>(x[i]);
      return true;
    default:
      return false;
  }
}

// ---- rows of blocks ----

struct Block {
  uint32_t elements, bytes;
};
constexpr Block kBlocks[kDTypeCount] = {
#define DROVER_DTYPE(name, elements, bytes) {elements, bytes},
#include "kernels/dtypes.def"
#undef DROVER_DTYPE
};

// Formats with a reference quantiser that does not search.
bool has_reference(DType dtype) {
  return dtype == DType::q8_0 || dtype == DType::q4_0 || dtype == DType::q5_0 || dtype == DType::q4_1 ||
         dtype == DType::q5_1;
}

// Weights of a piece whose largest is 1, so that sums stay in range; all equal when there are none.
void normalize(const float* importance, uint32_t count, float* w) {
  float largest = 0;
  for (uint32_t i = 0; i < count; i++) largest = importance[i] > largest ? importance[i] : largest;
  const bool usable = largest > 0 && largest < __builtin_inff();
  // What never mattered still gets a little: a zero would let its code be anything.
  for (uint32_t i = 0; i < count; i++) w[i] = usable ? importance[i] / largest + 1e-6f : 1;
}

bool all_finite(const float* x, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    if ((float_to_bits(x[i]) & 0x7f800000u) == 0x7f800000u) return false;
  }
  return true;
}

}  // namespace

bool can_encode(const KernelTable& kernels, DType dtype) {
  return encode_numbers(dtype, nullptr, 0, nullptr) || kernels.encode[static_cast<uint32_t>(dtype)] != nullptr;
}

void encode_row(const KernelTable& kernels, DType dtype, const float* x, const float* importance, uint32_t cols,
                uint8_t* out) {
  if (encode_numbers(dtype, x, cols, out)) return;
  const EncodeFunction encode = kernels.encode[static_cast<uint32_t>(dtype)];
  const Block block = kBlocks[static_cast<uint32_t>(dtype)];
  const bool weighted = importance != nullptr || !has_reference(dtype);
  float weights[kEncodePiece];
  for (float& weight : weights) weight = 1;
  for (uint32_t at = 0; at < cols; at += kEncodePiece) {
    const uint32_t count = cols - at < kEncodePiece ? cols - at : kEncodePiece;
    if (importance != nullptr) normalize(importance + at, count, weights);
    for (uint32_t i = 0; i < count; i += block.elements, out += block.bytes) {
      if (all_finite(x + at + i, block.elements)) {
        encode(x + at + i, weighted ? weights + i : nullptr, out);
      } else {
        memset(out, 0xff, block.bytes);  // every scale is NaN
      }
    }
  }
}

}  // namespace drover
