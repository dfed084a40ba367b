#include "kernels/rowwise.h"

#include <cstring>

#include "kernels/prepare.h"
#include "kernels/simd/half.h"

namespace drover {
namespace {

uint32_t code_bits(DType dtype) { return 8 / elements_of(dtype); }

struct Parameters {
  float scale, bias;
};

Parameters parameters_of(DType dtype, const uint8_t* p) {
  Parameters result;
  if (dtype == DType::i8_rowwise) {
    memcpy(&result.scale, p, 4);
    memcpy(&result.bias, p + 4, 4);
    return result;
  }
  uint16_t codes[2];
  memcpy(codes, p, sizeof codes);
  return {half_to_float(codes[0]), half_to_float(codes[1])};
}

uint64_t code_bytes(DType dtype, uint32_t cols) { return row_bytes(dtype, cols) - parameter_bytes(dtype); }

const uint8_t* parameters_at(DType dtype, const uint8_t* row, uint32_t cols, bool first) {
  return first ? row : row + code_bytes(dtype, cols);
}

bool is_finite(float value) { return (float_to_bits(value) & 0x7f800000u) != 0x7f800000u; }

// To the nearest integer, halves to the even one; beyond any code where it does not fit.
int64_t nearest(float value) {
  if (!(value > -1e9f)) return 0;
  return value > 1e9f ? INT64_MAX : static_cast<int64_t>(__builtin_nearbyintf(value));
}

}  // namespace

void decode_rowwise(DType dtype, const uint8_t* row, uint32_t cols, bool parameters_first, float* out) {
  const Parameters p = parameters_of(dtype, parameters_at(dtype, row, cols, parameters_first));
  const uint8_t* codes = parameters_first ? row + parameter_bytes(dtype) : row;
  const uint32_t bits = code_bits(dtype), in_byte = elements_of(dtype), mask = (1u << bits) - 1;
  for (uint32_t i = 0; i < cols; i++) {
    const uint32_t code = codes[i / in_byte] >> (i % in_byte * bits) & mask;
    out[i] = p.scale * static_cast<float>(code) + p.bias;
  }
}

bool rowwise_is_finite(DType dtype, const uint8_t* row, uint32_t cols, bool parameters_first) {
  const Parameters p = parameters_of(dtype, parameters_at(dtype, row, cols, parameters_first));
  return is_finite(p.scale) && is_finite(p.bias);
}

void encode_rowwise(DType dtype, const float* x, uint32_t cols, uint8_t* row) {
  float least = x[0], most = x[0];
  bool finite = true;
  for (uint32_t i = 0; i < cols; i++) {
    least = x[i] < least ? x[i] : least;
    most = x[i] > most ? x[i] : most;
    finite = finite && is_finite(x[i]);
  }
  uint8_t* parameters = row + code_bytes(dtype, cols);
  if (!finite) {
    memset(row, 0, code_bytes(dtype, cols));
    memset(parameters, 0xff, parameter_bytes(dtype));
    return;
  }
  const uint32_t bits = code_bits(dtype), in_byte = elements_of(dtype);
  const int64_t largest = (1 << bits) - 1;
  float inverse;
  if (dtype == DType::i8_rowwise) {
    const float range = most - least, scale = range / 255.0f;
    inverse = 255.0f / (range + 1e-8f);
    memcpy(parameters, &scale, 4);
    memcpy(parameters + 4, &least, 4);
  } else {
    // Codes fit the numbers that the halves really are. A range that no half can tell from none has scale 1.
    uint16_t halves[2];
    halves[1] = float_to_half(least);
    least = half_to_float(halves[1]);
    const float range = most - least;
    float scale = range == 0 ? 1.0f : half_to_float(float_to_half(range / static_cast<float>(largest)));
    if (scale == 0) scale = 1;
    inverse = 1.0f / scale;
    if (!is_finite(inverse)) {
      scale = 1;
      inverse = 1;
    }
    halves[0] = float_to_half(scale);
    memcpy(parameters, halves, sizeof halves);
  }
  memset(row, 0, code_bytes(dtype, cols));
  for (uint32_t i = 0; i < cols; i++) {
    const int64_t code = nearest((x[i] - least) * inverse);
    const int64_t kept = code < 0 ? 0 : code > largest ? largest : code;
    row[i / in_byte] = static_cast<uint8_t>(row[i / in_byte] | kept << (i % in_byte * bits));
  }
}

}  // namespace drover
