// The prepared layouts in numbers: what prepare.cc writes and the GEMM kernels read. A panel is 16 output columns,
// stored as a sequence of superblocks along depth; floats are [depth][16] of the stored type. A superblock of integer
// codes is
//   halves   u16[2 or 4][16]: see `halves` below
//   scales   u8 or i8 [scales][16], then mins u8 [scales][16] where the format has them
//   low      lines of the lowest 8, 4 or 2 bits of the codes
//   high     lines of the bits above, where the format has any
// or, where the file has indices into a grid of vectors, in place of low and high
//   index    lines of the lowest 8 bits of the indices, four to a column: byte 4 c + j = column c, vector 4 l + j
//   above    lines of the bits above, 32 to a column, the first vector's in the lowest bits
//   signs    lines of sign masks, a byte for 8 k: bit j of byte 4 c + i = column c, k = 8 (4 l + i) + j
// "Line": 64 bytes, the codes of 16 columns x 4 consecutive k, byte 4 c + j = column c, k = 4 g + j; g is the group. A
// line of n-bit fields holds 8 / n groups, the first in the lowest bits.
// Panels of i8 and f8_e4m3 begin with a line of 16 floats, the columns' scales. i8: then lines of codes + 128, depth
// rounded up to 64. f8_e4m3: then a line of 16 floats, NaN for columns that hold one and 1 for others, as loading a
// code makes a number of a NaN; then [depth][16] bytes. Superblocks are multiples of 64 bytes; a depth that ends inside
// a superblock is filled with zero codes and scales.
#ifndef DROVER_KERNELS_PANELS_H_
#define DROVER_KERNELS_PANELS_H_

#include "kernels.h"
#include "quantize.h"

namespace drover {

inline constexpr uint32_t kLine = 64;
// How many bytes ahead weights that are read once are asked for: into the first-level cache (0: not), and before that
// into the second. The former alone is held up by its few line buffers whenever something is computed in between:
// measured on a Xeon with AVX-512, 0.85 to 0.91 of the read bandwidth, and 0.94 to 0.98 with both. Zen 4 wants both too
// where much is computed. Where loads follow each other closely it finds the way by itself, and requests for what comes
// soon only get in between: one row reaches 0.75 to 0.85 with both, 0.9 to 1 with one request a KiB ahead, which leads
// to the next panel (GemmArgs::follows).
struct AskTwice {
  static constexpr uint32_t kNear = 2048, kFar = 8192;
};
struct AskOnce {
  static constexpr uint32_t kNear = 0, kFar = 1024;
};
// Two streams with much computation between their lines.
struct AskFar {
  static constexpr uint32_t kNear = 0, kFar = 8192;
};
struct AskNothing {
  static constexpr uint32_t kNear = 0, kFar = 0;
};

// What the u16 lines at the start of a superblock hold, as [16] each.
enum class Halves : uint8_t {
  kPerBlock,      // 64 k: scale of the first 32-block, of the second
  kPerBlockMins,  // 64 k: the same, then minimum of the first, of the second
  kFloats,        // 64 k: f32 scale of the first 32-block, of the second
  kSuper,         // 256 k: d, dmin (0 where there are no mins)
};
// Vectors of a grid in place of codes; the scales then count in `unit` of d.
struct GridLayout {
  uint32_t vector;      // k of a vector, 8 or 4; 0: there are codes
  uint32_t above_bits;  // of an index, above the lowest 8
  bool signs;
  float unit;
};
struct PanelLayout {
  uint32_t depth;  // k per superblock; 0: this dtype has no prepared form
  Halves halves;
  uint32_t scales;    // integer scales of a superblock
  bool mins;          // as many integer mins
  uint32_t low_bits;  // of a code, and how many lie above
  uint32_t high_bits;
  GridLayout grid = {0, 0, false, 1};
  constexpr uint32_t scales_at() const {
    return halves == Halves::kPerBlockMins || halves == Halves::kFloats ? 128 : 64;
  }
  constexpr uint32_t mins_at() const { return scales_at() + scales * 16; }
  constexpr uint32_t low_at() const { return mins_at() + (mins ? scales * 16 : 0); }
  constexpr uint32_t high_at() const { return low_at() + depth * 2 * low_bits; }
  constexpr uint32_t index_at() const { return high_at() + depth * 2 * high_bits; }
  constexpr uint32_t above_at() const { return index_at() + (grid.vector == 0 ? 0 : depth / grid.vector * 16); }
  constexpr uint32_t signs_at() const { return above_at() + depth / 4 * grid.above_bits; }
  constexpr uint32_t bytes() const { return signs_at() + (grid.signs ? depth * 2 : 0); }
};
inline constexpr PanelLayout panel_layout(DType dtype) {
  switch (dtype) {
    case DType::q8_0:  // code + 128
      return {64, Halves::kPerBlock, 0, false, 8, 0};
    case DType::q4_0:    // zero point 8
    case DType::iq4_nl:  // index into the code book
    case DType::mxfp4:   // index into the code book; the scale is a bfloat
      return {64, Halves::kPerBlock, 0, false, 4, 0};
    case DType::q4_1:
      return {64, Halves::kPerBlockMins, 0, false, 4, 0};
    case DType::i4:  // zero point 8
      return {64, Halves::kFloats, 0, false, 4, 0};
    case DType::q5_0:  // zero point 16
      return {64, Halves::kPerBlock, 0, false, 4, 1};
    case DType::q5_1:
      return {64, Halves::kPerBlockMins, 0, false, 4, 1};
    case DType::q2_k:
      return {256, Halves::kSuper, 16, true, 2, 0};
    case DType::q3_k:  // zero point 4
      return {256, Halves::kSuper, 16, false, 2, 1};
    case DType::q4_k:
      return {256, Halves::kSuper, 8, true, 4, 0};
    case DType::q5_k:
      return {256, Halves::kSuper, 8, true, 4, 1};
    case DType::q6_k:  // zero point 32
      return {256, Halves::kSuper, 16, false, 4, 2};
    case DType::iq4_xs:  // index into the code book
      return {256, Halves::kSuper, 8, false, 4, 0};
    case DType::iq3_s:  // indices would save 3 bits of 16: nibbles, into the book of levels and signs
      return {256, Halves::kSuper, 8, false, 4, 0};
    case DType::tq1_0:  // zero point 1
    case DType::tq2_0:
      return {256, Halves::kSuper, 0, false, 2, 0};
    case DType::iq2_xxs:
      return {256, Halves::kSuper, 8, false, 0, 0, {8, 0, true, 0.125f}};
    case DType::iq2_xs:
      return {256, Halves::kSuper, 16, false, 0, 0, {8, 1, true, 0.125f}};
    case DType::iq2_s:
      return {256, Halves::kSuper, 16, false, 0, 0, {8, 2, true, 0.125f}};
    case DType::iq3_xxs:
      return {256, Halves::kSuper, 8, false, 0, 0, {4, 0, true, 0.25f}};
    case DType::iq1_s:  // the fourth bit above: shifted down instead of up, which takes 2 from each code
      return {256, Halves::kSuper, 8, false, 0, 0, {8, 4, false, 0.125f}};
    case DType::iq1_m:
      return {256, Halves::kSuper, 16, false, 0, 0, {8, 4, false, 0.125f}};
    default:
      return {0, Halves::kSuper, 0, false, 0, 0};
  }
}
inline constexpr bool is_float(DType dtype) {
  return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16;
}
// Formats with one scale per row, which multiply activations with one scale per row.
inline constexpr bool is_row_scaled(DType dtype) { return dtype == DType::i8 || dtype == DType::f8_e4m3; }
// Where their codes begin.
inline constexpr uint32_t kI8Lines = kLine, kF8Lines = 2 * kLine;
// Bytes of a panel; 0 for a dtype without a prepared form.
inline constexpr uint64_t panel_bytes(DType dtype, uint32_t depth) {
  if (is_float(dtype)) return round_up(uint64_t{depth} * (dtype == DType::f32 ? 64 : 32), 64);
  if (dtype == DType::i8) return kI8Lines + round_up(depth, 64) * 16;
  if (dtype == DType::f8_e4m3) return kF8Lines + round_up(depth * uint64_t{16}, 64);
  const PanelLayout layout = panel_layout(dtype);
  return layout.depth == 0 ? 0 : (uint64_t{depth} + layout.depth - 1) / layout.depth * layout.bytes();
}

// Code books: constants of the GGUF format (iq4_nl and iq4_xs; twice the E2M1 values of mxfp4, so that they are
// integers: the block scale is halved instead; the elements of iq3_s's grid, and their negatives).
constexpr int8_t kIq4Codes[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
constexpr int8_t kE2m1Codes[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
constexpr int8_t kIq3Codes[16] = {1, 3, 5, 7, 9, 11, 13, 15, -1, -3, -5, -7, -9, -11, -13, -15};

}  // namespace drover

#endif  // DROVER_KERNELS_PANELS_H_
