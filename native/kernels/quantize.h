// 8-bit activation rows. Layout of a row of K elements, K rounded up to Kp (256 for a8_256, else 64), zeros past K:
//   a8_32:  int8 q[Kp], float scale[Kp/32], int32 zero8[Kp/32], int32 zero128[Kp/32], int32 half128[Kp/16]
//           x ≈ scale[b] q; zero8[b] = -8 Σ q over the block: what a zero point of 8 adds to a product; zero128 alike,
//           and half128 over halves of blocks
//   a8_256: int8 q[Kp], float scale[Kp/256], int16 sum16[Kp/16], int16 sum32[Kp/32], int32 zero32[Kp/8]
//           one scale per 256; sums of 16 and 32 codes; zero32 = -32 Σ q over 8 codes
//   a8_row: int8 q[Kp], float scale, int32 zero128
//           one scale for the row, max(max|x|, 1e-8) / 127, and q = round to nearest even (x / scale)
//   f8_row: float value[K], float scale
//           values that e4m3 holds: max|x|, at least 1e-12 and at most the bound, becomes 448; what lies above is cut
// The scales of blocks are max|x| / 127; q = round to nearest even (x · (127 / max|x|)); a block without a value of
// 2^-100 or more has scale 0 (127 / max|x| would overflow); a block with a NaN or an infinity has scale NaN and q 0, so
// that the output becomes NaN instead of a plausible number. A row's size (f32 and bf16 rows too) is rounded up to 64
// bytes, and one more line is added when it would be a multiple of 4,096: rows at such distances fall into the same
// cache set.
#ifndef DROVER_KERNELS_QUANTIZE_H_
#define DROVER_KERNELS_QUANTIZE_H_

#include "kernels.h"

namespace drover {

inline constexpr uint64_t a8_32_scales(uint32_t cols) { return round_up(cols, 64); }
inline constexpr uint64_t a8_32_zeros8(uint32_t cols) { return a8_32_scales(cols) + round_up(cols, 64) / 32 * 4; }
inline constexpr uint64_t a8_32_zeros128(uint32_t cols) { return a8_32_zeros8(cols) + round_up(cols, 64) / 32 * 4; }
inline constexpr uint64_t a8_32_halves128(uint32_t cols) { return a8_32_zeros128(cols) + round_up(cols, 64) / 32 * 4; }
inline constexpr uint64_t a8_256_scales(uint32_t cols) { return round_up(cols, 256); }
inline constexpr uint64_t a8_256_sums16(uint32_t cols) { return a8_256_scales(cols) + round_up(cols, 256) / 256 * 4; }
inline constexpr uint64_t a8_256_sums32(uint32_t cols) { return a8_256_sums16(cols) + round_up(cols, 256) / 16 * 2; }
inline constexpr uint64_t a8_256_zeros32(uint32_t cols) { return a8_256_sums32(cols) + round_up(cols, 256) / 32 * 2; }
inline constexpr uint64_t a8_row_scale(uint32_t cols) { return round_up(cols, 64); }
inline constexpr uint64_t a8_row_zero128(uint32_t cols) { return a8_row_scale(cols) + 4; }
inline constexpr uint64_t f8_row_scale(uint32_t cols) { return uint64_t{cols} * 4; }
inline constexpr float kSmallestQuantized = 0x1p-100f;
// Sums of products of two 8-bit codes over so many k fit 32 bits.
inline constexpr uint32_t kMostByteDepth = (1u << 17) - 1;

inline constexpr uint64_t activation_row_bytes(DType dtype, uint32_t cols) {
  uint64_t bytes = 0;
  if (dtype == DType::f32 || dtype == DType::u32) bytes = uint64_t{cols} * 4;
  if (dtype == DType::a8_32) bytes = a8_32_halves128(cols) + round_up(cols, 64) / 16 * 4;
  if (dtype == DType::a8_256) bytes = a8_256_zeros32(cols) + round_up(cols, 256) / 8 * 4;
  if (dtype == DType::a8_row) bytes = a8_row_zero128(cols) + 4;
  if (dtype == DType::f8_row) bytes = f8_row_scale(cols) + 4;
  if (dtype == DType::bf16) bytes = uint64_t{cols} * 2;
  bytes = round_up(bytes, 64);
  return bytes != 0 && bytes % 4096 == 0 ? bytes + 64 : bytes;
}

}  // namespace drover

#endif  // DROVER_KERNELS_QUANTIZE_H_
