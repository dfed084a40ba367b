// 4-bit formats whose codes stand for levels at uneven distances: iq4_nl, iq4_xs and mxfp4. Layouts: decode.cc.
#include "kernels/encode.h"
#include "kernels/super.h"

namespace drover {
namespace {

// The levels in rising order.
constexpr float kNonLinear[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
constexpr float kE2m1[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
constexpr int32_t kLargestExponent = 125;  // 6 · 2^125 is an f32, 6 · 2^126 is none

struct NonLinear {
  static constexpr float kLowest = -127, kHighest = 113;
  static Four round(Four v) {
    Four level = all4(kNonLinear[0]);
    for (uint32_t k = 0; k < 15; k++) {
      const Four middle = all4((kNonLinear[k] + kNonLinear[k + 1]) / 2), step = all4(kNonLinear[k + 1] - kNonLinear[k]);
      level += v > middle ? step : all4(0);
    }
    return level;
  }
};

uint32_t code_of(float level) {
  uint32_t code = 0;
  while (code < 15 && kNonLinear[code] < level) code++;
  return code;
}

void non_linear_codes(const float* x, float scale, uint8_t* out) {
  const float inverse = inverse_of(scale);
  uint8_t codes[32];
  for (uint32_t i = 0; i < 32; i += 4) {
    const Four level = NonLinear::round(load4(x + i) * inverse);
    for (uint32_t j = 0; j < 4; j++) codes[i + j] = static_cast<uint8_t>(code_of(level[j]));
  }
  for (uint32_t i = 0; i < 16; i++) out[i] = static_cast<uint8_t>(codes[i] | codes[i + 16] << 4);
}

// Steps of a fit: the levels leave no room for more than this to change at the lowest one.
constexpr uint32_t kSteps = 7;
constexpr float kStep = 2;

struct E2m1 {
  static Four round(Four v) {
    const Four magnitude = v < all4(0) ? -v : v;
    Four level = all4(0);
    for (uint32_t k = 0; k < 7; k++) {
      const Four middle = all4((kE2m1[k] + kE2m1[k + 1]) / 2), step = all4(kE2m1[k + 1] - kE2m1[k]);
      level += magnitude > middle ? step : all4(0);
    }
    return v < all4(0) ? -level : level;
  }
};

}  // namespace

void encode_iq4_nl(const float* x, const float* w, uint8_t* out) {
  const float d = as_half(fit_scale<NonLinear>(x, w, 32, kSteps, kStep).scale);
  store_half(d, out);
  non_linear_codes(x, d, out + 2);
}

void encode_iq4_xs(const float* x, const float* w, uint8_t* out) {
  const SignedSuper<8> fit = fit_signed_super<NonLinear, 8, 32>(x, w, kSteps, kStep);
  store_half(fit.d, out);
  memset(out + 2, 0, 6);
  uint32_t high = 0;
  for (uint32_t g = 0; g < 8; g++) {
    const uint32_t scale = static_cast<uint32_t>(static_cast<int32_t>(fit.scales[g]) + 32);
    out[4 + g / 2] = static_cast<uint8_t>(out[4 + g / 2] | (scale & 15) << (g % 2 * 4));
    high |= scale >> 4 << (2 * g);
    non_linear_codes(x + g * 32, fit.d * fit.scales[g], out + 8 + g * 16);
  }
  const uint16_t pairs = static_cast<uint16_t>(high);
  memcpy(out + 2, &pairs, sizeof pairs);
}

void encode_mxfp4(const float* x, const float* w, uint8_t* out) {
  float largest = 0;
  for (uint32_t i = 0; i < 32; i++) largest = absolute(x[i]) > largest ? absolute(x[i]) : largest;
  memset(out, 0, 17);
  if (largest < 0x1p-120f) return;
  // The exponent that puts the largest element at 4 to 8 is at best one off. Both sides are scaled by a power of two
  // near the largest element, so that squares neither overflow nor vanish.
  const int32_t exponent = static_cast<int32_t>(float_to_bits(largest) >> 23) - 127 - 2;
  const float unit = bits_to_float(static_cast<uint32_t>(127 - exponent) << 23);
  alignas(16) float scaled[32];
  for (uint32_t i = 0; i < 32; i++) scaled[i] = x[i] * unit;
  float least = __builtin_inff();
  int32_t chosen = 0;
  for (int32_t shift = -1; shift <= 1 && exponent + shift <= kLargestExponent; shift++) {
    const float error = scale_error<E2m1>(scaled, w, 32, shift < 0 ? 0.5f : shift > 0 ? 2.0f : 1.0f);
    if (!(error < least)) continue;
    least = error;
    chosen = shift;
  }
  out[0] = static_cast<uint8_t>(exponent + chosen + 127);
  for (uint32_t i = 0; i < 32; i += 4) {
    const Four level = E2m1::round(load4(scaled + i) * (chosen < 0 ? 2.0f : chosen > 0 ? 0.5f : 1.0f));
    for (uint32_t j = 0; j < 4; j++) {
      uint32_t code = 0;
      while (kE2m1[code] < absolute(level[j])) code++;
      if (level[j] < 0) code |= 8;
      uint8_t& byte = out[1 + (i + j) % 16];
      byte = static_cast<uint8_t>(byte | code << ((i + j) / 16 * 4));
    }
  }
}

}  // namespace drover
