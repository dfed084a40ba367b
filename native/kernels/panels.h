// The prepared layouts in numbers: what prepare.cc writes and the GEMM kernels read. A panel is 16 output columns,
// stored as a sequence of superblocks along depth. "Line": 64 bytes, the codes of 16 columns x 4 consecutive k, byte
// 4 c + j = column c, k = 4 g + j. 4-bit lines hold two such groups: g in the low nibbles, g + 1 in the high ones.
//
//   float       [depth][16] of the stored type
//   q8_0        per 64 k: 2 x scales f16[16], 16 lines of code + 128
//   q4_0        per 64 k: 2 x scales f16[16], 8 nibble lines of code (0..15, zero point 8)
//   iq4_nl      as q4_0, codes are indices into the code book
//   q4_k        per 256 k: d f16[16], dmin f16[16], scale u8[8][16], min u8[8][16], 32 nibble lines
//   q5_k        as q4_k, then 8 lines of high bits: line s holds bit i = the fifth bit of group 8 s + i
//   q6_k        per 256 k: d f16[16] and 32 zero bytes, scale i8[16][16], 32 nibble lines, then 16 lines of
//               high bits: line s holds bits 2 i, 2 i + 1 = the upper bits of group 4 s + i; zero point 32
// Superblocks are multiples of 64 bytes; a depth that ends inside a superblock is filled with zero codes and scales.
#ifndef DROVER_KERNELS_PANELS_H_
#define DROVER_KERNELS_PANELS_H_

#include "kernels.h"
#include "quantize.h"

namespace drover {

inline constexpr uint32_t kLine = 64;
inline constexpr uint32_t kQ8Superblock = 64 + 16 * kLine;
inline constexpr uint32_t kQ4Superblock = 64 + 8 * kLine;
inline constexpr uint32_t kQ4kScales = 64, kQ4kMins = kQ4kScales + 128, kQ4kLines = kQ4kMins + 128;
inline constexpr uint32_t kQ4kSuperblock = kQ4kLines + 32 * kLine;
inline constexpr uint32_t kQ5kHigh = kQ4kSuperblock;
inline constexpr uint32_t kQ5kSuperblock = kQ5kHigh + 8 * kLine;
inline constexpr uint32_t kQ6kScales = 64, kQ6kLines = kQ6kScales + 256;
inline constexpr uint32_t kQ6kHigh = kQ6kLines + 32 * kLine;
inline constexpr uint32_t kQ6kSuperblock = kQ6kHigh + 16 * kLine;

// k per superblock and its bytes; {0, 0} for a dtype without a prepared form.
struct Superblock {
  uint32_t depth, bytes;
};
inline constexpr Superblock superblock(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return {1, 64};
    case DType::f16:
    case DType::bf16:
      return {1, 32};
    case DType::q8_0:
      return {64, kQ8Superblock};
    case DType::q4_0:
    case DType::iq4_nl:
      return {64, kQ4Superblock};
    case DType::q4_k:
      return {256, kQ4kSuperblock};
    case DType::q5_k:
      return {256, kQ5kSuperblock};
    case DType::q6_k:
      return {256, kQ6kSuperblock};
    default:
      return {0, 0};
  }
}
inline constexpr uint64_t panel_bytes(DType dtype, uint32_t depth) {
  const Superblock block = superblock(dtype);
  if (block.depth == 0) return 0;
  return round_up((uint64_t{depth} + block.depth - 1) / block.depth * block.bytes, 64);
}

// The code book of iq4_nl: constants of the GGUF format.
constexpr int8_t kIq4NlCodes[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

}  // namespace drover

#endif  // DROVER_KERNELS_PANELS_H_
