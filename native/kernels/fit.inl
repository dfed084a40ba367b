// Weighted least squares for block formats: which scale (and minimum) lets rounded codes come closest to x. A vector
// holds 16 candidates, not 16 elements: every element meets all of them at once, sums need no order across lanes, and
// one pass over a group weighs 16 scales. Codes are floats here; a `Codes` type rounds x / scale to those of its
// format. Products and sums stay apart and rounding is done by addition, so that the scalar set needs no calls.
namespace drover {
namespace {

// To the nearest integer, ties to even; |v| < 2^22: behind 1.5 · 2^23 there is no room for a fraction.
DROVER_INLINE F32x16 nearest(F32x16 v) {
  const F32x16 shift = f_set(12582912.0f);
  return f_sub(f_add(v, shift), shift);
}
DROVER_INLINE F32x16 bounded(F32x16 v, float low, float high) { return f_min(f_max(v, f_set(low)), f_set(high)); }
DROVER_INLINE float inverse_of(float scale) { return scale == 0 ? 0.0f : 1.0f / scale; }
DROVER_INLINE F32x16 inverses_of(F32x16 scale) {
  return f_select_less(f_zero(), f_abs(scale), f_div(f_set(1.0f), scale), f_zero());
}
DROVER_INLINE float absolute(float v) { return v < 0 ? -v : v; }
DROVER_INLINE float rounded_within(float v, float low, float high) {
  v = v > low ? v : low;
  v = v < high ? v : high;
  return (v + 12582912.0f) - 12582912.0f;
}
DROVER_INLINE float as_half(float value) { return half_to_float(float_to_half(value)); }

// first, first + step, ...
DROVER_INLINE F32x16 ramp(float first, float step) {
  float lanes[16];
  for (int i = 0; i < 16; i++) lanes[i] = first + step * static_cast<float>(i);
  return f_load(lanes);
}
DROVER_INLINE uint32_t largest_lane(const float* lanes) {
  uint32_t best = 0;
  for (uint32_t i = 1; i < 16; i++) best = lanes[i] > lanes[best] ? i : best;
  return best;
}
DROVER_INLINE uint32_t smallest_lane(const float* lanes) {
  uint32_t best = 0;
  for (uint32_t i = 1; i < 16; i++) best = lanes[i] < lanes[best] ? i : best;
  return best;
}

// Integers from kLow to kHigh. `width`: by how much candidates stretch or shrink the largest code.
template <int kLow, int kHigh>
struct Integers {
  static constexpr float kLowest = kLow, kHighest = kHigh, kWidth = 0.9f;
  static DROVER_INLINE F32x16 round(F32x16 v) { return nearest(bounded(v, kLowest, kHighest)); }
  static DROVER_INLINE F32x16 stored(F32x16 v) { return f_sub(round(v), f_set(kLowest)); }
};

// ---- x ≈ scale · code ----

struct ScaleFit {
  float scale, gain;  // gain: by how much the squared error is less than without a code
};

template <typename Codes>
DROVER_INLINE void try_scales(const float* x, const float* w, uint32_t count, F32x16 inverse, ScaleFit* best) {
  F32x16 xq = f_zero(), qq = f_zero();
  for (uint32_t i = 0; i < count; i++) {
    const F32x16 v = f_set(x[i]), q = Codes::round(f_mul(v, inverse)), wq = f_mul(f_set(w[i]), q);
    xq = f_add(xq, f_mul(wq, v));
    qq = f_add(qq, f_mul(wq, q));
  }
  float scales[16], gains[16];
  const F32x16 scale = f_div(xq, qq);
  f_store(scales, scale);
  f_store(gains, f_select_less(f_zero(), qq, f_mul(scale, xq), f_zero()));
  const uint32_t lane = largest_lane(gains);
  if (gains[lane] > best->gain) *best = {scales[lane], gains[lane]};
}

// Candidates put the largest element at about the lowest code, then at about the highest, then near the best so far.
template <typename Codes>
ScaleFit fit_scale(const float* x, const float* w, uint32_t count) {
  float extreme = 0;
  for (uint32_t i = 0; i < count; i++) extreme = absolute(x[i]) > absolute(extreme) ? x[i] : extreme;
  ScaleFit best{0, 0};
  if (absolute(extreme) < 1e-15f) return best;
  const F32x16 unit = f_set(1.0f / extreme);
  constexpr float kStep = 2 * Codes::kWidth / 15;
  try_scales<Codes>(x, w, count, f_mul(unit, ramp(Codes::kLowest - Codes::kWidth, kStep)), &best);
  try_scales<Codes>(x, w, count, f_mul(unit, ramp(Codes::kHighest - Codes::kWidth, kStep)), &best);
  if (best.scale != 0) {
    try_scales<Codes>(x, w, count, f_mul(f_set(1.0f / best.scale), ramp(0.97f, 0.004f)), &best);
  }
  return best;
}

// What 16 scales lead to.
struct ScaleErrors {
  float error[16], xq[16], qq[16];
};

template <typename Codes>
DROVER_INLINE ScaleErrors scale_errors(const float* x, const float* w, uint32_t count, F32x16 scale) {
  const F32x16 inverse = inverses_of(scale);
  F32x16 error = f_zero(), xq = f_zero(), qq = f_zero();
  for (uint32_t i = 0; i < count; i++) {
    const F32x16 v = f_set(x[i]), weight = f_set(w[i]), q = Codes::round(f_mul(v, inverse)), wq = f_mul(weight, q);
    const F32x16 difference = f_sub(v, f_mul(q, scale));
    error = f_add(error, f_mul(weight, f_mul(difference, difference)));
    xq = f_add(xq, f_mul(wq, v));
    qq = f_add(qq, f_mul(wq, q));
  }
  ScaleErrors result;
  f_store(result.error, error);
  f_store(result.xq, xq);
  f_store(result.qq, qq);
  return result;
}

// ---- x ≈ scale · code - minimum, codes from 0 to `most` ----

constexpr uint32_t kLargestGroup = 32;

struct AffineFit {
  float scale, minimum, gain;
};
struct GroupSums {
  float w, x;
};

DROVER_INLINE GroupSums sums_of(const float* x, const float* w, uint32_t count) {
  GroupSums sums{0, 0};
  for (uint32_t i = 0; i < count; i++) {
    sums.w += w[i];
    sums.x += w[i] * x[i];
  }
  return sums;
}

// With `kFree` the minimum may have any sign; without it is at least 0, so that 0 can be met.
template <bool kFree>
DROVER_INLINE void try_affine(const float* x, const float* w, uint32_t count, GroupSums sums, F32x16 inverse,
                              F32x16 minimum, float most, AffineFit* best) {
  F32x16 sq = f_zero(), sqq = f_zero(), sxq = f_zero();
  for (uint32_t i = 0; i < count; i++) {
    const F32x16 v = f_set(x[i]), q = nearest(bounded(f_mul(f_add(v, minimum), inverse), 0, most));
    const F32x16 wq = f_mul(f_set(w[i]), q);
    sq = f_add(sq, wq);
    sqq = f_add(sqq, f_mul(wq, q));
    sxq = f_add(sxq, f_mul(wq, v));
  }
  // Normal equations of x ≈ scale q - minimum; the gain is what they take off Σ w x².
  const F32x16 sw = f_set(sums.w), sx = f_set(sums.x), zero = f_zero();
  const F32x16 determinant = f_sub(f_mul(sw, sqq), f_mul(sq, sq));
  F32x16 scale = f_div(f_sub(f_mul(sw, sxq), f_mul(sx, sq)), determinant);
  F32x16 low = f_div(f_sub(f_mul(sq, sxq), f_mul(sqq, sx)), determinant);
  if (!kFree) {
    scale = f_select_less(low, zero, f_div(sxq, sqq), scale);
    low = f_select_less(low, zero, zero, low);
  }
  const F32x16 linear = f_sub(f_mul(scale, sxq), f_mul(low, sx));
  const F32x16 mixed = f_mul(f_mul(scale, low), sq);
  const F32x16 squares = f_add(f_mul(f_mul(scale, scale), sqq), f_mul(f_mul(low, low), sw));
  F32x16 gain = f_sub(f_add(f_add(linear, linear), f_add(mixed, mixed)), squares);
  const F32x16 never = f_set(-__builtin_inff());
  gain = f_select_less(zero, determinant, f_select_less(zero, scale, gain, never), never);
  float scales[16], lows[16], gains[16];
  f_store(scales, scale);
  f_store(lows, low);
  f_store(gains, gain);
  const uint32_t lane = largest_lane(gains);
  if (gains[lane] > best->gain) *best = {scales[lane], lows[lane], gains[lane]};
}

template <bool kFree>
AffineFit fit_affine(const float* x, const float* w, uint32_t count, float most) {
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
  const GroupSums sums = sums_of(x, w, count);
  AffineFit best{(high - low) / most, -low, -__builtin_inff()};
  const F32x16 stretched = f_mul(f_set(1.0f / (high - low)), ramp(most - 1, 0.13f));
  try_affine<kFree>(x, w, count, sums, stretched, f_set(-low), most, &best);
  for (int round = 0; round < 2; round++) {
    // Four scales by four minimums about the best.
    float inverse[16], minimum[16];
    for (int i = 0; i < 16; i++) {
      inverse[i] = (0.97f + 0.02f * static_cast<float>(i % 4)) / best.scale;
      minimum[i] = best.minimum + best.scale * 0.2f * (static_cast<float>(i / 4) - 1.5f);
    }
    try_affine<kFree>(x, w, count, sums, f_load(inverse), f_load(minimum), most, &best);
  }
  best.minimum -= origin;
  return best;
}

// What 16 pairs of scale and minimum lead to.
struct AffineErrors {
  float error[16], q[16], qq[16], xq[16];
};

DROVER_INLINE AffineErrors affine_errors(const float* x, const float* w, uint32_t count, F32x16 scale, F32x16 minimum,
                                         float most) {
  const F32x16 inverse = inverses_of(scale);
  F32x16 error = f_zero(), sq = f_zero(), sqq = f_zero(), sxq = f_zero();
  for (uint32_t i = 0; i < count; i++) {
    const F32x16 v = f_set(x[i]), weight = f_set(w[i]);
    const F32x16 q = nearest(bounded(f_mul(f_add(v, minimum), inverse), 0, most)), wq = f_mul(weight, q);
    const F32x16 difference = f_sub(v, f_sub(f_mul(q, scale), minimum));
    error = f_add(error, f_mul(weight, f_mul(difference, difference)));
    sq = f_add(sq, wq);
    sqq = f_add(sqq, f_mul(wq, q));
    sxq = f_add(sxq, f_mul(wq, v));
  }
  AffineErrors result;
  f_store(result.error, error);
  f_store(result.q, sq);
  f_store(result.qq, sqq);
  f_store(result.xq, sxq);
  return result;
}

}  // namespace
}  // namespace drover
