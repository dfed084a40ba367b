// Rows into stored formats: floats of fewer bits, the simple block formats, and the choice of a block's encoder.
#include "kernels/encode.h"

#include "kernels/fit.h"

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

// ---- blocks of 32 ----

void put_nibbles(const uint8_t* codes, uint8_t* out) {
  for (uint32_t i = 0; i < 16; i++) out[i] = static_cast<uint8_t>((codes[i] & 15) | (codes[i + 16] & 15) << 4);
}

void put_fifth_bits(const uint8_t* codes, uint8_t* out) {
  uint32_t bits = 0;
  for (uint32_t i = 0; i < 32; i++) bits |= static_cast<uint32_t>(codes[i] >> 4) << i;
  memcpy(out, &bits, sizeof bits);
}

// The element of largest magnitude, the first of equals.
float extreme_of(const float* x) {
  float extreme = 0;
  for (uint32_t i = 0; i < 32; i++) extreme = absolute(x[i]) > absolute(extreme) ? x[i] : extreme;
  return extreme;
}

void encode_q8_0(const float* x, uint8_t* out) {
  const float scale = absolute(extreme_of(x)) / 127.0f, factor = inverse_of(scale);
  store_half(scale, out);
  for (uint32_t i = 0; i < 32; i++) {
    const float v = clamp1(x[i] * factor, -127, 127);
    const int32_t towards_zero = static_cast<int32_t>(v);
    const float rest = v - static_cast<float>(towards_zero);  // exact, which v + 0.5 would not be
    out[2 + i] = static_cast<uint8_t>(towards_zero + (rest >= 0.5f ? 1 : rest <= -0.5f ? -1 : 0));
  }
}

// Codes around kMiddle. As the reference does, the extreme element gets the code 0 and the scale is rounded afterwards;
// with weights the scale is searched, and codes are those of the stored scale.
template <int kMiddle>
void centred(const float* x, const float* w, uint8_t* out, uint8_t* codes) {
  if (w == nullptr) {
    const float scale = extreme_of(x) / -kMiddle, factor = inverse_of(scale);
    store_half(scale, out);
    for (uint32_t i = 0; i < 32; i++) {
      const float v = clamp1(x[i] * factor + (kMiddle + 0.5f), 0, 2 * kMiddle - 1);
      codes[i] = static_cast<uint8_t>(static_cast<int32_t>(v));
    }
    return;
  }
  using Codes = Integers<-kMiddle, kMiddle - 1>;
  const float scale = as_half(fit_scale<Codes>(x, w, 32, 9, 0.1f).scale), factor = inverse_of(scale);
  store_half(scale, out);
  for (uint32_t i = 0; i < 32; i += 4) {
    const Four q = Codes::round(load4(x + i) * factor) + kMiddle;
    for (uint32_t j = 0; j < 4; j++) codes[i + j] = static_cast<uint8_t>(static_cast<int32_t>(q[j]));
  }
}

// Codes from the smallest element up.
template <int kMost>
void from_least(const float* x, const float* w, uint8_t* out, uint8_t* codes) {
  float scale, least;
  if (w == nullptr) {
    float largest = least = x[0];
    for (uint32_t i = 1; i < 32; i++) {
      least = x[i] < least ? x[i] : least;
      largest = x[i] > largest ? x[i] : largest;
    }
    scale = (largest - least) / kMost;
  } else {
    const AffineFit fit = fit_affine<true>(x, w, 32, kMost, kMost < 16 ? 21 : 16, kMost < 16 ? -1 : -0.5f);
    scale = as_half(fit.scale);
    least = as_half(-fit.minimum);
  }
  store_half(scale, out);
  store_half(least, out + 2);
  const float factor = inverse_of(scale);
  for (uint32_t i = 0; i < 32; i++) {
    const float v = clamp1((x[i] - least) * factor + 0.5f, 0, kMost);
    codes[i] = static_cast<uint8_t>(static_cast<int32_t>(v));
  }
}

// ---- pieces of a row ----

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

using BlockEncoder = void (*)(const float* x, const float* w, uint8_t* out);

BlockEncoder searched(DType dtype) {
  switch (dtype) {
    case DType::q2_k:
      return encode_q2_k;
    case DType::q3_k:
      return encode_q3_k;
    case DType::q4_k:
      return encode_q4_k;
    case DType::q5_k:
      return encode_q5_k;
    case DType::q6_k:
      return encode_q6_k;
    case DType::iq4_nl:
      return encode_iq4_nl;
    case DType::iq4_xs:
      return encode_iq4_xs;
    case DType::mxfp4:
      return encode_mxfp4;
    default:
      return nullptr;
  }
}

void encode_simple(DType dtype, const float* x, const float* w, uint8_t* out) {
  uint8_t codes[32];
  if (dtype == DType::q8_0) {
    encode_q8_0(x, out);
  } else if (dtype == DType::q4_0) {
    centred<8>(x, w, out, codes);
    put_nibbles(codes, out + 2);
  } else if (dtype == DType::q5_0) {
    centred<16>(x, w, out, codes);
    put_fifth_bits(codes, out + 2);
    put_nibbles(codes, out + 6);
  } else if (dtype == DType::q4_1) {
    from_least<15>(x, w, out, codes);
    put_nibbles(codes, out + 4);
  } else if (dtype == DType::q5_1) {
    from_least<31>(x, w, out, codes);
    put_fifth_bits(codes, out + 4);
    put_nibbles(codes, out + 8);
  }
}

struct Block {
  uint32_t elements, bytes;
};
constexpr Block kBlocks[kDTypeCount] = {
#define DROVER_DTYPE(name, elements, bytes) {elements, bytes},
#include "kernels/dtypes.def"
#undef DROVER_DTYPE
};

bool is_simple(DType dtype) {
  return dtype == DType::q8_0 || dtype == DType::q4_0 || dtype == DType::q5_0 || dtype == DType::q4_1 ||
         dtype == DType::q5_1;
}

bool encode_numbers(DType dtype, const float* x, uint32_t cols, uint8_t* out) {
  switch (dtype) {
    case DType::f32:
      if (cols != 0) memcpy(out, x, uint64_t{cols} * 4);
      return true;
    case DType::f16:
      for (uint32_t i = 0; i < cols; i++) store_half(x[i], out + uint64_t{i} * 2);
      return true;
    case DType::bf16:
      for (uint32_t i = 0; i < cols; i++) {
        const uint16_t code = to_bf16(x[i]);
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

}  // namespace

bool can_encode(DType dtype) {
  return encode_numbers(dtype, nullptr, 0, nullptr) || is_simple(dtype) || searched(dtype) != nullptr;
}

void encode_row(DType dtype, const float* x, const float* importance, uint32_t cols, uint8_t* out) {
  if (encode_numbers(dtype, x, cols, out)) return;
  const BlockEncoder encoder = searched(dtype);
  const Block block = kBlocks[static_cast<uint32_t>(dtype)];
  alignas(16) float values[kEncodePiece], weights[kEncodePiece];
  for (uint32_t at = 0; at < cols; at += kEncodePiece) {
    const uint32_t count = cols - at < kEncodePiece ? cols - at : kEncodePiece;
    memcpy(values, x + at, count * sizeof(float));
    if (importance != nullptr) {
      normalize(importance + at, count, weights);
    } else {
      for (float& weight : weights) weight = 1;
    }
    for (uint32_t i = 0; i < count; i += block.elements, out += block.bytes) {
      if (!all_finite(values + i, block.elements)) {
        memset(out, 0xff, block.bytes);  // every scale is NaN
      } else if (encoder != nullptr) {
        encoder(values + i, weights + i, out);
      } else {
        encode_simple(dtype, values + i, importance != nullptr ? weights + i : nullptr, out);
      }
    }
  }
}

}  // namespace drover
