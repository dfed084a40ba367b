// Quantises one row of activations to 8 bits (layout in quantize.h).
#include "quantize.h"

namespace drover {
namespace {

// Quantises `count` (a multiple of 16) values, of which the first `valid` exist, with one scale; returns the scale.
DROVER_INLINE float quantize_block(const float* x, uint32_t count, uint32_t valid, int8_t* q) {
  F32x16 largest = f_zero(), poison = f_zero();
  for (uint32_t i = 0; i < count; i += 16) {
    const F32x16 v = i + 16 <= valid ? f_load(x + i) : f_load_part(x + i, i < valid ? valid - i : 0);
    largest = f_max(largest, f_abs(v));
    poison = f_fma(v, f_zero(), poison);  // NaN once any value is NaN or infinite
  }
  const float peak = f_largest(largest);
  const bool finite = f_sum(poison) == 0.0f;
  const bool zero = !finite || peak < kSmallestQuantized;
  const F32x16 inverse = f_set(zero ? 0.0f : 127.0f / peak);
  for (uint32_t i = 0; i < count; i += 16) {
    I32x16 codes = i_zero();
    if (!zero) {
      const F32x16 v = i + 16 <= valid ? f_load(x + i) : f_load_part(x + i, i < valid ? valid - i : 0);
      codes = i_from_f(f_mul(v, inverse));
    }
    i_store_i8(q + i, codes);
  }
  return !finite ? __builtin_nanf("") : zero ? 0.0f : peak / 127.0f;
}

DROVER_INLINE int32_t sum_of(const int8_t* q, uint32_t count) {
  int32_t sum = 0;
  for (uint32_t i = 0; i < count; i++) sum += q[i];
  return sum;
}

void quantize_a8_32(const float* x, uint32_t cols, uint8_t* out) {
  int8_t* q = reinterpret_cast<int8_t*>(out);
  float* scales = reinterpret_cast<float*>(out + a8_32_scales(cols));
  int32_t* zeros8 = reinterpret_cast<int32_t*>(out + a8_32_zeros8(cols));
  int32_t* zeros128 = reinterpret_cast<int32_t*>(out + a8_32_zeros128(cols));
  int32_t* halves128 = reinterpret_cast<int32_t*>(out + a8_32_halves128(cols));
  const uint32_t padded = static_cast<uint32_t>(round_up(cols, 64));
  for (uint32_t k = 0; k < padded; k += 32) {
    const uint32_t valid = k >= cols ? 0 : cols - k < 32 ? cols - k : 32;
    scales[k / 32] = quantize_block(x + (valid ? k : 0), 32, valid, q + k);
    const int32_t first = sum_of(q + k, 16), second = sum_of(q + k + 16, 16);
    zeros8[k / 32] = -8 * (first + second);
    zeros128[k / 32] = -128 * (first + second);
    halves128[k / 16] = -128 * first;
    halves128[k / 16 + 1] = -128 * second;
  }
}

void quantize_a8_256(const float* x, uint32_t cols, uint8_t* out) {
  int8_t* q = reinterpret_cast<int8_t*>(out);
  float* scales = reinterpret_cast<float*>(out + a8_256_scales(cols));
  int16_t* sums16 = reinterpret_cast<int16_t*>(out + a8_256_sums16(cols));
  int16_t* sums32 = reinterpret_cast<int16_t*>(out + a8_256_sums32(cols));
  int32_t* zeros32 = reinterpret_cast<int32_t*>(out + a8_256_zeros32(cols));
  for (uint32_t k = 0; k < cols; k += 256) {
    scales[k / 256] = quantize_block(x + k, 256, cols - k < 256 ? cols - k : 256, q + k);
    for (uint32_t i = 0; i < 32; i++) zeros32[k / 8 + i] = -32 * sum_of(q + k + i * 8, 8);
    for (uint32_t i = 0; i < 16; i++) sums16[k / 16 + i] = static_cast<int16_t>(sum_of(q + k + i * 16, 16));
    for (uint32_t i = 0; i < 8; i++)
      sums32[k / 32 + i] = static_cast<int16_t>(sums16[k / 16 + 2 * i] + sums16[k / 16 + 2 * i + 1]);
  }
}

// The largest magnitude of a row; NaN when it holds anything that is not finite.
DROVER_INLINE float row_peak(const float* x, uint32_t cols) {
  F32x16 largest = f_zero(), poison = f_zero();
  for (uint32_t i = 0; i < cols; i += 16) {
    const F32x16 v = i + 16 <= cols ? f_load(x + i) : f_load_part(x + i, cols - i);
    largest = f_max(largest, f_abs(v));
    poison = f_fma(v, f_zero(), poison);
  }
  return f_sum(poison) == 0.0f ? f_largest(largest) : __builtin_nanf("");
}

void quantize_a8_row(const float* x, uint32_t cols, uint8_t* out) {
  int8_t* q = reinterpret_cast<int8_t*>(out);
  const float peak = row_peak(x, cols);
  const float scale = (peak < 1e-8f ? 1e-8f : peak) / 127.0f;
  // x / scale, rounded as a division rounds it, in a third of the time: a quotient from the rounded inverse is off by
  // two units at most, and its remainder mends that (Markstein 1990; 400 M cases, half of them next to ties, show no
  // other code than a division).
  const F32x16 inverse = f_set(1.0f / scale), minus_scale = f_set(-scale);
  const uint32_t padded = static_cast<uint32_t>(round_up(cols, 64));
  for (uint32_t i = 0; i < padded; i += 16) {
    I32x16 codes = i_zero();
    if (scale == scale && i < cols) {
      const F32x16 v = i + 16 <= cols ? f_load(x + i) : f_load_part(x + i, cols - i);
      const F32x16 quotient = f_mul(v, inverse);
      codes = i_from_f(f_fma(f_fma(quotient, minus_scale, v), inverse, quotient));
    }
    i_store_i8(q + i, codes);
  }
  const int32_t zero = -128 * sum_of(q, cols);
  __builtin_memcpy(out + a8_row_scale(cols), &scale, 4);
  __builtin_memcpy(out + a8_row_zero128(cols), &zero, 4);
}

// The nearest number that e4m3 has, ties to the even one; |value| at most 448.
DROVER_INLINE float nearest_e4m3(float value) {
  const uint32_t bits = float_to_bits(value), sign = bits & 0x80000000u, magnitude = bits & 0x7fffffffu;
  const uint32_t normal = (magnitude + 0x7ffffu + (magnitude >> 20 & 1u)) & 0xfff00000u;
  // Below 2^-6 the unit is 2^-9: that of the last bit at 2^14.
  const float small = (bits_to_float(magnitude) + 16384.0f) - 16384.0f;
  return bits_to_float(sign | (magnitude < 0x3c800000u ? float_to_bits(small) : normal));
}

void quantize_f8_row(const float* x, uint32_t cols, float bound, uint8_t* out) {
  float* values = reinterpret_cast<float*>(out);
  float peak = row_peak(x, cols);
  const bool finite = peak == peak;
  peak = peak < 1e-12f ? 1e-12f : peak;
  peak = peak > bound ? bound : peak;
  const float factor = 448.0f / peak;
  for (uint32_t i = 0; i < cols; i++) {
    const float scaled = x[i] * factor;
    values[i] = finite ? nearest_e4m3(scaled > 448.0f ? 448.0f : scaled < -448.0f ? -448.0f : scaled) : 0.0f;
  }
  const float scale = peak / 448.0f;
  __builtin_memcpy(out + f8_row_scale(cols), &scale, 4);
}

constexpr void fill_quantize(KernelTable& table) {
  table.quantize_a8_32 = quantize_a8_32;
  table.quantize_a8_256 = quantize_a8_256;
  table.quantize_a8_row = quantize_a8_row;
  table.quantize_f8_row = quantize_f8_row;
}

}  // namespace
}  // namespace drover
