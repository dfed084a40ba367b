// Functions of 16 lanes. Every step is one rounded operation of the vocabulary, so all ISAs agree bit for bit.
namespace drover {
namespace {

inline constexpr float kLowestExponent = -87.33654f;  // e^x is 0 below: no subnormals

// e^x = 2^n p: x = n ln2 + r with |r| <= ln2 / 2 (ln2 in two parts), p = e^r by its Taylor polynomial of degree 7 in
// Horner form.
DROVER_INLINE F32x16 f_exp_parts(F32x16 x, F32x16* power) {
  const F32x16 n = f_round(f_mul(x, f_set(1.44269504f)));
  F32x16 r = f_fnma(n, f_set(0.693359375f), x);
  r = f_fnma(n, f_set(-2.12194440e-4f), r);
  F32x16 p = f_set(1.98412698e-4f);
  p = f_fma(p, r, f_set(1.38888889e-3f));
  p = f_fma(p, r, f_set(8.33333333e-3f));
  p = f_fma(p, r, f_set(4.16666667e-2f));
  p = f_fma(p, r, f_set(1.66666667e-1f));
  p = f_fma(p, r, f_set(0.5f));
  p = f_fma(p, r, f_set(1.0f));
  *power = n;
  return f_fma(p, r, f_set(1.0f));
}

// e^x. Below -87.3 the result is 0, above 88.7 infinity; NaN stays NaN. Error below 1.5 ulp.
DROVER_INLINE F32x16 f_exp(F32x16 x) {
  const F32x16 lowest = f_set(kLowestExponent), highest = f_set(88.72283f);
  // f_min and f_max return their second operand for a NaN: x comes second, so that a NaN passes through.
  F32x16 n;
  const F32x16 p = f_exp_parts(f_max(lowest, f_min(highest, x)), &n);
  // 2^128 has no float: the exponent is applied in two halves.
  const F32x16 half = f_round(f_mul(n, f_set(0.5f)));
  const F32x16 y = f_scale_power(f_scale_power(p, half), f_sub(n, half));
  const F32x16 no_overflow = f_select_less(highest, x, f_set(__builtin_inff()), y);
  return f_select_less(x, lowest, f_zero(), no_overflow);
}
// The same for x that is not above 0, or NaN: what a softmax asks for.
DROVER_INLINE F32x16 f_exp_of_negative(F32x16 x) {
  const F32x16 lowest = f_set(kLowestExponent);
  F32x16 n;
  const F32x16 p = f_exp_parts(f_max(lowest, x), &n);
  return f_select_less(x, lowest, f_zero(), f_scale_power(p, n));
}

// x / (1 + e^-x)
DROVER_INLINE F32x16 f_silu(F32x16 x) { return f_div(x, f_add(f_set(1.0f), f_exp(f_sub(f_zero(), x)))); }

DROVER_INLINE F32x16 activate(Activation activation, F32x16 x) {
  switch (activation) {
    case Activation::kSilu:
      return f_silu(x);
    case Activation::kGeluErf: {
      float lane[16];
      f_store(lane, x);
      for (float& v : lane) v = 0.5f * v * (1.0f + __builtin_erff(v * 0.70710678f));
      return f_load(lane);
    }
    case Activation::kGeluTanh: {
      // 0.5 x (1 + tanh u) = x / (1 + e^-2u), u = sqrt(2 / pi) (x + 0.044715 x^3)
      const F32x16 cube = f_mul(f_mul(x, x), x);
      const F32x16 u = f_mul(f_set(-2.0f * 0.79788456f), f_fma(cube, f_set(0.044715f), x));
      return f_div(x, f_add(f_set(1.0f), f_exp(u)));
    }
    case Activation::kRelu:
      return f_max(f_zero(), x);
    case Activation::kNone:
    case Activation::kCount:
      break;
  }
  return x;
}

}  // namespace
}  // namespace drover
