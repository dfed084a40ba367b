// Super-blocks of 256: groups whose scales are small integers times one half (and minimums times another). First every
// group is fitted alone; then the integers and the halves are chosen in turn, each best for the other, and the best of
// a few rounds is kept.
namespace drover {
namespace {

constexpr uint32_t kSuperBlock = 256, kRounds = 3;

// Codes around 0; the integers of the scales reach from -kScales to kScales - 1.
template <uint32_t kGroups>
struct SignedSuper {
  float d = 0;  // a half
  float scales[kGroups] = {};
};

template <typename Codes, uint32_t kGroups, int kScales>
SignedSuper<kGroups> fit_signed_super(const float* x, const float* w) {
  constexpr uint32_t kCount = kSuperBlock / kGroups;
  float fitted[kGroups], extreme = 0;
  for (uint32_t g = 0; g < kGroups; g++) {
    fitted[g] = fit_scale<Codes>(x + g * kCount, w + g * kCount, kCount).scale;
    extreme = absolute(fitted[g]) > absolute(extreme) ? fitted[g] : extreme;
  }
  SignedSuper<kGroups> best, now;
  if (extreme == 0) return best;
  float least = __builtin_inff();
  now.d = best.d = as_half(extreme / -kScales);
  for (uint32_t g = 0; g < kGroups; g++) {
    now.scales[g] = rounded_within(fitted[g] * inverse_of(now.d), -kScales, kScales - 1);
  }
  for (uint32_t round = 0; round < kRounds; round++) {
    float error = 0, product = 0, square = 0;
    for (uint32_t g = 0; g < kGroups; g++) {
      float tried[16];
      f_store(tried, bounded(ramp(now.scales[g] - 8, 1), -kScales, kScales - 1));
      const ScaleErrors found =
          scale_errors<Codes>(x + g * kCount, w + g * kCount, kCount, f_mul(f_set(now.d), f_load(tried)));
      const uint32_t lane = smallest_lane(found.error);
      const float k = now.scales[g] = tried[lane];
      error += found.error[lane];
      product += k * found.xq[lane];
      square += k * k * found.qq[lane];
    }
    if (!(error < least)) break;
    least = error;
    best = now;
    const float d = square > 0 ? as_half(product / square) : now.d;
    if (d == now.d) break;
    now.d = d;
  }
  return best;
}

// Codes from 0 to kMost; the integers of scales and minimums reach from 0 to kScales.
template <uint32_t kGroups>
struct AffineSuper {
  float d = 0, dmin = 0;  // halves
  float scales[kGroups] = {}, minimums[kGroups] = {};
};

// What is tried beside an integer pair: three scales by five minimums, and the pair itself.
constexpr float kScaleSteps[16] = {0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1};
constexpr float kMinimumSteps[16] = {0, 0, 1, -1, 2, -2, 0, 1, -1, 2, -2, 0, 1, -1, 2, -2};

template <uint32_t kGroups, int kMost, int kScales>
AffineSuper<kGroups> fit_affine_super(const float* x, const float* w) {
  constexpr uint32_t kCount = kSuperBlock / kGroups;
  AffineFit fitted[kGroups];
  GroupSums sums[kGroups];
  float largest = 0, deepest = 0;
  for (uint32_t g = 0; g < kGroups; g++) {
    sums[g] = sums_of(x + g * kCount, w + g * kCount, kCount);
    fitted[g] = fit_affine<false>(x + g * kCount, w + g * kCount, kCount, kMost);
    largest = fitted[g].scale > largest ? fitted[g].scale : largest;
    deepest = fitted[g].minimum > deepest ? fitted[g].minimum : deepest;
  }
  AffineSuper<kGroups> best, now;
  float least = __builtin_inff();
  now.d = best.d = as_half(largest / kScales);
  now.dmin = best.dmin = as_half(deepest / kScales);
  for (uint32_t g = 0; g < kGroups; g++) {
    now.scales[g] = rounded_within(fitted[g].scale * inverse_of(now.d), 0, kScales);
    now.minimums[g] = rounded_within(fitted[g].minimum * inverse_of(now.dmin), 0, kScales);
  }
  for (uint32_t round = 0; round < kRounds; round++) {
    float error = 0;
    // Sums for the best d and dmin of x ≈ d a - dmin b, with a = scale · code and b = minimum.
    float aa = 0, ab = 0, bb = 0, xa = 0, xb = 0;
    for (uint32_t g = 0; g < kGroups; g++) {
      float scales[16], minimums[16];
      f_store(scales, bounded(f_add(f_set(now.scales[g]), f_load(kScaleSteps)), 0, kScales));
      f_store(minimums, bounded(f_add(f_set(now.minimums[g]), f_load(kMinimumSteps)), 0, kScales));
      const AffineErrors found =
          affine_errors(x + g * kCount, w + g * kCount, kCount, f_mul(f_set(now.d), f_load(scales)),
                        f_mul(f_set(now.dmin), f_load(minimums)), kMost);
      const uint32_t lane = smallest_lane(found.error);
      const float k = now.scales[g] = scales[lane], m = now.minimums[g] = minimums[lane];
      error += found.error[lane];
      aa += k * k * found.qq[lane];
      ab += k * m * found.q[lane];
      bb += m * m * sums[g].w;
      xa += k * found.xq[lane];
      xb += m * sums[g].x;
    }
    if (!(error < least)) break;
    least = error;
    best = now;
    const float determinant = aa * bb - ab * ab;
    float d = now.d, dmin = now.dmin;
    if (determinant > 0) {
      d = as_half((xa * bb - xb * ab) / determinant);
      dmin = as_half((xa * ab - xb * aa) / determinant);
    } else if (aa > 0) {
      d = as_half(xa / aa);
    }
    if (!(d > 0 && dmin >= 0) || (d == now.d && dmin == now.dmin)) break;
    now.d = d;
    now.dmin = dmin;
  }
  return best;
}

}  // namespace
}  // namespace drover
