// Weighted least squares for block formats: which scale (and minimum) lets rounded codes come closest to x. Codes are
// floats here; a `Codes` type rounds x / scale to the codes of its format. Everything is four lanes wide in a fixed
// order, so that results are the same on every CPU.
#ifndef DROVER_KERNELS_FIT_H_
#define DROVER_KERNELS_FIT_H_

#include <cstdint>
#include <cstring>

#include "kernels/simd/half.h"

namespace drover {
namespace {

using Four = float __attribute__((vector_size(16)));

[[maybe_unused]] inline Four load4(const float* source) {
  Four value;
  memcpy(&value, source, sizeof value);
  return value;
}
[[maybe_unused]] inline void store4(float* target, Four value) { memcpy(target, &value, sizeof value); }
[[maybe_unused]] inline Four all4(float value) { return Four{value, value, value, value}; }
[[maybe_unused]] inline float sum4(Four v) { return (v[0] + v[2]) + (v[1] + v[3]); }
// To the nearest integer, ties to even; |v| < 2^22: behind 1.5 · 2^23 there is no room for a fraction.
[[maybe_unused]] inline Four nearest4(Four v) { return (v + 12582912.0f) - 12582912.0f; }
[[maybe_unused]] inline float nearest1(float v) { return (v + 12582912.0f) - 12582912.0f; }
// NaN becomes `low`.
[[maybe_unused]] inline Four clamp4(Four v, float low, float high) {
  const Four lowest = all4(low), highest = all4(high);
  v = v > lowest ? v : lowest;
  return v < highest ? v : highest;
}
[[maybe_unused]] inline float clamp1(float v, float low, float high) {
  v = v > low ? v : low;
  return v < high ? v : high;
}
[[maybe_unused]] inline float inverse_of(float scale) { return scale == 0 ? 0.0f : 1.0f / scale; }
[[maybe_unused]] inline float absolute(float v) { return v < 0 ? -v : v; }
// The nearest half and its value.
[[maybe_unused]] inline uint16_t store_half(float value, uint8_t* out) {
  const uint16_t code = float_to_half(value);
  memcpy(out, &code, sizeof code);
  return code;
}
[[maybe_unused]] inline float as_half(float value) { return half_to_float(float_to_half(value)); }

// Integers from kLow to kHigh.
template <int kLow, int kHigh>
struct Integers {
  static constexpr float kLowest = kLow, kHighest = kHigh;
  static Four round(Four v) { return nearest4(clamp4(v, kLowest, kHighest)); }
};

// ---- x ≈ scale · code ----

struct ScaleFit {
  float scale, gain;  // gain: by how much the squared error is less than without a code
};

template <typename Codes>
ScaleFit fit_at(const float* x, const float* w, uint32_t count, float inverse) {
  Four xq = all4(0), qq = all4(0);
  for (uint32_t i = 0; i < count; i += 4) {
    const Four v = load4(x + i), weight = load4(w + i), q = Codes::round(v * inverse), wq = weight * q;
    xq += wq * v;
    qq += wq * q;
  }
  const float product = sum4(xq), square = sum4(qq);
  if (!(square > 0)) return {0, 0};
  return {product / square, product / square * product};
}

// Candidates put the largest element at about the lowest code, and at about the highest.
template <typename Codes>
ScaleFit fit_scale(const float* x, const float* w, uint32_t count, uint32_t steps, float step) {
  float extreme = 0;
  for (uint32_t i = 0; i < count; i++) extreme = absolute(x[i]) > absolute(extreme) ? x[i] : extreme;
  ScaleFit best{0, 0};
  if (absolute(extreme) < 1e-15f) return best;
  const auto attempt = [&](float inverse) {
    const ScaleFit fit = fit_at<Codes>(x, w, count, inverse);
    if (fit.gain > best.gain) best = fit;
  };
  for (uint32_t i = 0; i < 2 * steps + 1; i++) {
    const float shift = step * (static_cast<float>(i) - static_cast<float>(steps));
    attempt((Codes::kLowest + shift) / extreme);
    attempt((Codes::kHighest + shift) / extreme);
  }
  // The codes of the best scale have a best scale of their own.
  for (uint32_t i = 0; i < 2 && best.scale != 0; i++) attempt(1.0f / best.scale);
  return best;
}

template <typename Codes>
float scale_error(const float* x, const float* w, uint32_t count, float scale) {
  const float inverse = inverse_of(scale);
  Four error = all4(0);
  for (uint32_t i = 0; i < count; i += 4) {
    const Four v = load4(x + i), difference = v - Codes::round(v * inverse) * scale;
    error += load4(w + i) * difference * difference;
  }
  return sum4(error);
}

// ---- x ≈ scale · code - minimum, codes from 0 to `most` ----

constexpr uint32_t kLargestGroup = 32;

struct AffineFit {
  float scale, minimum, gain;
};

struct AffineSums {
  float w, x, q, qq, xq;
};

inline AffineSums affine_sums(const float* x, const float* w, uint32_t count, float inverse, float minimum,
                              float most) {
  Four sw = all4(0), sx = all4(0), sq = all4(0), sqq = all4(0), sxq = all4(0);
  for (uint32_t i = 0; i < count; i += 4) {
    const Four v = load4(x + i), weight = load4(w + i);
    const Four q = nearest4(clamp4((v + minimum) * inverse, 0, most)), wq = weight * q;
    sw += weight;
    sx += weight * v;
    sq += wq;
    sqq += wq * q;
    sxq += wq * v;
  }
  return {sum4(sw), sum4(sx), sum4(sq), sum4(sqq), sum4(sxq)};
}

// With `kFree` the minimum may have any sign; without it is at least 0, so that 0 can be met.
template <bool kFree>
AffineFit solve_affine(const AffineSums& s) {
  const float determinant = s.w * s.qq - s.q * s.q;
  AffineFit fit{0, 0, 0};
  if (determinant > 0) {
    fit.scale = (s.w * s.xq - s.x * s.q) / determinant;
    fit.minimum = (s.q * s.xq - s.qq * s.x) / determinant;
  }
  if (!(determinant > 0) || (!kFree && fit.minimum < 0)) {
    fit.minimum = 0;
    fit.scale = s.qq > 0 ? s.xq / s.qq : 0;
  }
  if (!(fit.scale > 0)) return {0, kFree && s.w > 0 ? -s.x / s.w : 0, 0};
  fit.gain = 2 * (fit.scale * s.xq - fit.minimum * s.x) - fit.scale * fit.scale * s.qq +
             2 * fit.scale * fit.minimum * s.q - fit.minimum * fit.minimum * s.w;
  return fit;
}

template <bool kFree>
AffineFit fit_affine(const float* x, const float* w, uint32_t count, float most, uint32_t steps, float first) {
  float low = x[0], high = x[0];
  for (uint32_t i = 1; i < count; i++) {
    low = x[i] < low ? x[i] : low;
    high = x[i] > high ? x[i] : high;
  }
  if (!kFree && low > 0) low = 0;
  if (!(high - low > 1e-15f)) return {0, -low, 0};
  // Far from 0, sums of squares would lose what matters: a free minimum is found from the smallest element.
  float shifted[kLargestGroup];
  const float origin = kFree ? low : 0;
  if (kFree) {
    for (uint32_t i = 0; i < count; i++) shifted[i] = x[i] - low;
    x = shifted;
    high -= low;
    low = 0;
  }
  AffineFit best{(high - low) / most, -low, -__builtin_inff()};
  const auto attempt = [&](float inverse, float minimum) {
    const AffineFit fit = solve_affine<kFree>(affine_sums(x, w, count, inverse, minimum, most));
    if (fit.gain > best.gain && fit.scale > 0) best = fit;
  };
  for (uint32_t i = 0; i < steps; i++) attempt((most + first + 0.1f * static_cast<float>(i)) / (high - low), -low);
  for (uint32_t i = 0; i < 3; i++) attempt(1.0f / best.scale, best.minimum);
  best.minimum -= origin;
  return best;
}

inline float affine_error(const float* x, const float* w, uint32_t count, float scale, float minimum, float most) {
  const float inverse = inverse_of(scale);
  Four error = all4(0);
  for (uint32_t i = 0; i < count; i += 4) {
    const Four v = load4(x + i);
    const Four difference = v - (nearest4(clamp4((v + minimum) * inverse, 0, most)) * scale - minimum);
    error += load4(w + i) * difference * difference;
  }
  return sum4(error);
}

}  // namespace
}  // namespace drover

#endif  // DROVER_KERNELS_FIT_H_
