// Super-blocks of 256: groups whose scales are small integers times one half (and minimums times another). First every
// group is fitted alone; then the integers and the halves are chosen in turn, each best for the other, and the best of
// a few rounds is kept.
#ifndef DROVER_KERNELS_SUPER_H_
#define DROVER_KERNELS_SUPER_H_

#include "kernels/fit.h"

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
SignedSuper<kGroups> fit_signed_super(const float* x, const float* w, uint32_t steps, float step) {
  constexpr uint32_t kCount = kSuperBlock / kGroups;
  float fitted[kGroups], extreme = 0;
  for (uint32_t g = 0; g < kGroups; g++) {
    fitted[g] = fit_scale<Codes>(x + g * kCount, w + g * kCount, kCount, steps, step).scale;
    extreme = absolute(fitted[g]) > absolute(extreme) ? fitted[g] : extreme;
  }
  SignedSuper<kGroups> best, now;
  if (extreme == 0) return best;
  float least = __builtin_inff();
  now.d = best.d = as_half(extreme / -kScales);
  for (uint32_t g = 0; g < kGroups; g++) {
    now.scales[g] = nearest1(clamp1(fitted[g] * inverse_of(now.d), -kScales, kScales - 1));
  }
  for (uint32_t round = 0; round < kRounds; round++) {
    float error = 0, product = 0, square = 0;
    for (uint32_t g = 0; g < kGroups; g++) {
      const float *gx = x + g * kCount, *gw = w + g * kCount;
      const float middle = now.scales[g];
      float smallest = __builtin_inff();
      for (float k = middle - 1; k <= middle + 1; k++) {
        if (k < -kScales || k > kScales - 1) continue;
        const float e = scale_error<Codes>(gx, gw, kCount, now.d * k);
        if (!(e < smallest)) continue;
        smallest = e;
        now.scales[g] = k;
      }
      error += smallest;
      // What d would be best for these codes: one more sum over x · k q and (k q)².
      const float k = now.scales[g], inverse = inverse_of(now.d * k);
      Four xq = all4(0), qq = all4(0);
      for (uint32_t i = 0; i < kCount; i += 4) {
        const Four v = load4(gx + i), q = Codes::round(v * inverse), wq = load4(gw + i) * q;
        xq += wq * v;
        qq += wq * q;
      }
      product += k * sum4(xq);
      square += k * k * sum4(qq);
    }
    if (error < least) {
      least = error;
      best = now;
    }
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

template <uint32_t kGroups, int kMost, int kScales>
AffineSuper<kGroups> fit_affine_super(const float* x, const float* w, uint32_t steps, float first) {
  constexpr uint32_t kCount = kSuperBlock / kGroups;
  AffineFit fitted[kGroups];
  float largest = 0, deepest = 0;
  for (uint32_t g = 0; g < kGroups; g++) {
    fitted[g] = fit_affine<false>(x + g * kCount, w + g * kCount, kCount, kMost, steps, first);
    largest = fitted[g].scale > largest ? fitted[g].scale : largest;
    deepest = fitted[g].minimum > deepest ? fitted[g].minimum : deepest;
  }
  AffineSuper<kGroups> best, now;
  float least = __builtin_inff();
  now.d = best.d = as_half(largest / kScales);
  now.dmin = best.dmin = as_half(deepest / kScales);
  for (uint32_t g = 0; g < kGroups; g++) {
    now.scales[g] = nearest1(clamp1(fitted[g].scale * inverse_of(now.d), 0, kScales));
    now.minimums[g] = nearest1(clamp1(fitted[g].minimum * inverse_of(now.dmin), 0, kScales));
  }
  for (uint32_t round = 0; round < kRounds; round++) {
    float error = 0;
    // Sums for the best d and dmin of x ≈ d a - dmin b, with a = scale · code and b = minimum.
    float aa = 0, ab = 0, bb = 0, xa = 0, xb = 0;
    for (uint32_t g = 0; g < kGroups; g++) {
      const float *gx = x + g * kCount, *gw = w + g * kCount;
      const float scale = now.scales[g], minimum = now.minimums[g];
      float smallest = __builtin_inff();
      for (float k = scale - 1; k <= scale + 1; k++) {
        for (float m = minimum - 1; m <= minimum + 1; m++) {
          if (k < 0 || m < 0 || k > kScales || m > kScales) continue;
          const float e = affine_error(gx, gw, kCount, now.d * k, now.dmin * m, kMost);
          if (!(e < smallest)) continue;
          smallest = e;
          now.scales[g] = k;
          now.minimums[g] = m;
        }
      }
      error += smallest;
      const float k = now.scales[g], m = now.minimums[g];
      const AffineSums s = affine_sums(gx, gw, kCount, inverse_of(now.d * k), now.dmin * m, kMost);
      aa += k * k * s.qq;
      ab += k * m * s.q;
      bb += m * m * s.w;
      xa += k * s.xq;
      xb += m * s.x;
    }
    if (error < least) {
      least = error;
      best = now;
    }
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

#endif  // DROVER_KERNELS_SUPER_H_
