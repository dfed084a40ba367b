// Rows into stored formats: single numbers, and rows of blocks piece by piece through the kernels' encoders.
#include "kernels/encode.h"

#include <cstring>

#include "kernels/simd/half.h"

namespace drover {
namespace {

// ---- single numbers ----

// False for block formats.
bool encode_numbers(DType dtype, const float* x, uint32_t cols, uint8_t* out) {
  switch (dtype) {
    case DType::f32:
      if (cols != 0) memcpy(out, x, uint64_t{cols} * 4);
      return true;
    case DType::f16:
    case DType::bf16:
      for (uint32_t i = 0; i < cols; i++) {
        const uint16_t code = dtype == DType::f16 ? float_to_half(x[i]) : float_to_bfloat(x[i]);
        memcpy(out + uint64_t{i} * 2, &code, 2);
      }
      return true;
    case DType::f8_e4m3:
      for (uint32_t i = 0; i < cols; i++) out[i] = float_to_f8<7, 3, 0x7e>(x[i]);
      return true;
    case DType::f8_e5m2:
      for (uint32_t i = 0; i < cols; i++) out[i] = float_to_f8<15, 2, 0x7c>(x[i]);
      return true;
    default:
      return false;
  }
}

// ---- rows of blocks ----

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
  const BlockSize block = kBlockSizes[static_cast<uint32_t>(dtype)];
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
