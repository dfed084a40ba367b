// Blocks of 32, and the formats whose 4-bit codes stand for levels at uneven distances. Layouts: decode.cc.
#include "encode_k.inl"

namespace drover {
namespace {

DROVER_INLINE void put_nibbles(const uint8_t* codes, uint8_t* out) {
  for (uint32_t i = 0; i < 16; i++) out[i] = static_cast<uint8_t>((codes[i] & 15) | (codes[i + 16] & 15) << 4);
}
DROVER_INLINE void put_fifth_bits(const uint8_t* codes, uint8_t* out) {
  uint32_t bits = 0;
  for (uint32_t i = 0; i < 32; i++) bits |= static_cast<uint32_t>(codes[i] >> 4) << i;
  __builtin_memcpy(out, &bits, sizeof bits);
}
// Codes past the point, of what is not NaN.
DROVER_INLINE uint8_t truncated(float v, float most) {
  v = v > 0 ? v : 0;
  return static_cast<uint8_t>(static_cast<int32_t>(v < most ? v : most));
}
// The element of largest magnitude, the first of equals.
DROVER_INLINE float extreme_of(const float* x) {
  float extreme = 0;
  for (uint32_t i = 0; i < 32; i++) extreme = absolute(x[i]) > absolute(extreme) ? x[i] : extreme;
  return extreme;
}

void encode_q8_0(const float* x, const float*, uint8_t* out) {
  const float scale = absolute(extreme_of(x)) / 127.0f, factor = inverse_of(scale);
  put_half(scale, out);
  for (uint32_t i = 0; i < 32; i++) {
    const float v = x[i] * factor;
    const int32_t towards_zero = static_cast<int32_t>(v < -127 ? -127 : v < 127 ? v : 127);
    const float rest = v - static_cast<float>(towards_zero);  // exact, which v + 0.5 would not be
    out[2 + i] = static_cast<uint8_t>(towards_zero + (rest >= 0.5f ? 1 : rest <= -0.5f ? -1 : 0));
  }
}

// Codes around kMiddle. As the reference does, the extreme element gets the code 0 and the scale is rounded afterwards;
// with weights the scale is searched, and codes are those of the stored scale.
template <int kMiddle>
DROVER_INLINE void centred(const float* x, const float* w, uint8_t* out, uint8_t* codes) {
  if (w != nullptr) {
    using Codes = Integers<-kMiddle, kMiddle - 1>;
    const float scale = as_half(fit_scale<Codes>(x, w, 32).scale);
    put_half(scale, out);
    signed_codes<Codes>(x, 32, scale, codes);
    return;
  }
  const float scale = extreme_of(x) / -kMiddle, factor = inverse_of(scale);
  put_half(scale, out);
  for (uint32_t i = 0; i < 32; i++) codes[i] = truncated(x[i] * factor + (kMiddle + 0.5f), 2 * kMiddle - 1);
}

// Codes from the smallest element up.
template <int kMost>
DROVER_INLINE void from_least(const float* x, const float* w, uint8_t* out, uint8_t* codes) {
  float least = x[0], largest = x[0], scale;
  if (w != nullptr) {
    const AffineFit fit = fit_affine<true>(x, w, 32, kMost);
    scale = as_half(fit.scale);
    least = as_half(-fit.minimum);
  } else {
    for (uint32_t i = 1; i < 32; i++) {
      least = x[i] < least ? x[i] : least;
      largest = x[i] > largest ? x[i] : largest;
    }
    scale = (largest - least) / kMost;
  }
  put_half(scale, out);
  put_half(least, out + 2);
  const float factor = inverse_of(scale);
  for (uint32_t i = 0; i < 32; i++) codes[i] = truncated((x[i] - least) * factor + 0.5f, kMost);
}

void encode_q4_0(const float* x, const float* w, uint8_t* out) {
  uint8_t codes[32];
  centred<8>(x, w, out, codes);
  put_nibbles(codes, out + 2);
}
void encode_q5_0(const float* x, const float* w, uint8_t* out) {
  uint8_t codes[32];
  centred<16>(x, w, out, codes);
  put_fifth_bits(codes, out + 2);
  put_nibbles(codes, out + 6);
}
void encode_q4_1(const float* x, const float* w, uint8_t* out) {
  uint8_t codes[32];
  from_least<15>(x, w, out, codes);
  put_nibbles(codes, out + 4);
}
void encode_q5_1(const float* x, const float* w, uint8_t* out) {
  uint8_t codes[32];
  from_least<31>(x, w, out, codes);
  put_fifth_bits(codes, out + 4);
  put_nibbles(codes, out + 8);
}

// ---- levels at uneven distances, in rising order ----

// What `value` gives for the nearest of `count` levels.
template <typename Level, typename Value>
DROVER_INLINE F32x16 nearest_of(F32x16 v, uint32_t count, Level level, Value value) {
  F32x16 result = f_set(value(0));
  for (uint32_t k = 0; k + 1 < count; k++) {
    result = f_select_less(f_set((level(k) + level(k + 1)) / 2), v, f_set(value(k + 1)), result);
  }
  return result;
}
DROVER_INLINE float index_of(uint32_t k) { return static_cast<float>(k); }

struct NonLinear {
  static constexpr float kLowest = -127, kHighest = 113, kWidth = 14;
  static DROVER_INLINE float level(uint32_t k) { return kIq4Codes[k]; }
  static DROVER_INLINE F32x16 round(F32x16 v) { return nearest_of(v, 16, level, level); }
  static DROVER_INLINE F32x16 stored(F32x16 v) { return nearest_of(v, 16, level, index_of); }
};

struct E2m1 {
  static DROVER_INLINE float level(uint32_t k) { return kE2m1Codes[k] * 0.5f; }
  static DROVER_INLINE F32x16 round(F32x16 v) {
    const F32x16 magnitude = nearest_of(f_abs(v), 8, level, level);
    return f_select_less(v, f_zero(), f_sub(f_zero(), magnitude), magnitude);
  }
  // The sign is the highest bit; there is no need for a negative zero.
  static DROVER_INLINE F32x16 stored(F32x16 v) {
    const F32x16 code = nearest_of(f_abs(v), 8, level, index_of);
    const F32x16 negative = f_select_less(f_zero(), code, f_add(code, f_set(8)), code);
    return f_select_less(v, f_zero(), negative, code);
  }
};

void encode_iq4_nl(const float* x, const float* w, uint8_t* out) {
  const float d = as_half(fit_scale<NonLinear>(x, w, 32).scale);
  uint8_t codes[32];
  put_half(d, out);
  signed_codes<NonLinear>(x, 32, d, codes);
  put_nibbles(codes, out + 2);
}

void encode_iq4_xs(const float* x, const float* w, uint8_t* out) {
  const SignedSuper<8> fit = fit_signed_super<NonLinear, 8, 32>(x, w);
  uint8_t codes[32];
  put_half(fit.d, out);
  __builtin_memset(out + 2, 0, 6);
  uint32_t high = 0;
  for (uint32_t g = 0; g < 8; g++) {
    const uint32_t scale = whole(fit.scales[g] + 32);
    out[4 + g / 2] = static_cast<uint8_t>(out[4 + g / 2] | (scale & 15) << (g % 2 * 4));
    high |= scale >> 4 << (2 * g);
    signed_codes<NonLinear>(x + g * 32, 32, fit.d * fit.scales[g], codes);
    put_nibbles(codes, out + 8 + g * 16);
  }
  out[2] = static_cast<uint8_t>(high);
  out[3] = static_cast<uint8_t>(high >> 8);
}

void encode_mxfp4(const float* x, const float* w, uint8_t* out) {
  constexpr int32_t kLargestExponent = 125;  // 6 · 2^125 is an f32, 6 · 2^126 is none
  __builtin_memset(out, 0, 17);
  const float largest = absolute(extreme_of(x));
  if (largest < 0x1p-120f) return;
  // The exponent that puts the largest element at 4 to 8 is at best one off. Everything is scaled by a power of two
  // to about 1, so that squares neither overflow nor vanish.
  const int32_t exponent = static_cast<int32_t>(float_to_bits(largest) >> 23) - 127 - 2;
  const float unit = bits_to_float(static_cast<uint32_t>(127 - exponent) << 23);
  float scaled[32], tried[16];
  for (uint32_t i = 0; i < 32; i++) scaled[i] = x[i] * unit;
  for (uint32_t i = 0; i < 16; i++) tried[i] = 1;
  tried[1] = 0.5f;
  if (exponent < kLargestExponent) tried[2] = 2;
  const ScaleErrors found = scale_errors<E2m1>(scaled, w, 32, f_load(tried));
  const uint32_t lane = smallest_lane(found.error);
  out[0] = static_cast<uint8_t>(exponent + (tried[lane] < 1 ? -1 : tried[lane] > 1 ? 1 : 0) + 127);
  uint8_t codes[32];
  signed_codes<E2m1>(scaled, 32, tried[lane], codes);
  put_nibbles(codes, out + 1);
}

constexpr void fill_encode(KernelTable& table) {
#define DROVER_ENCODE(name) table.encode[static_cast<uint32_t>(DType::name)] = encode_##name
  DROVER_ENCODE(q8_0);
  DROVER_ENCODE(q4_0);
  DROVER_ENCODE(q4_1);
  DROVER_ENCODE(q5_0);
  DROVER_ENCODE(q5_1);
  DROVER_ENCODE(q2_k);
  DROVER_ENCODE(q3_k);
  DROVER_ENCODE(q4_k);
  DROVER_ENCODE(q5_k);
  DROVER_ENCODE(q6_k);
  DROVER_ENCODE(iq4_nl);
  DROVER_ENCODE(iq4_xs);
  DROVER_ENCODE(mxfp4);
#undef DROVER_ENCODE
}

}  // namespace
}  // namespace drover
