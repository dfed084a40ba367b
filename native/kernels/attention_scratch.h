// What a task of attention works in.
#ifndef DROVER_KERNELS_ATTENTION_SCRATCH_H_
#define DROVER_KERNELS_ATTENTION_SCRATCH_H_

#include "kernels.h"
#include "quantize.h"

namespace drover {
namespace {

// Scales [64] of a block of values, those that are seen, as parts of the largest times 32,767.
struct ByteWeights {
  alignas(64) float ratio[kPagePositions];
  float largest;  // by 32,767; NaN where a scale is not finite
};

struct AttentionScratch {
  float* q;         // [vectors][head_dim]: the group's query vectors, row by row
  uint8_t* bytes;   // [vectors] a8_32 rows of them
  float* scores;    // [vectors][64]: scores, then probabilities
  float* weighted;  // [vectors][64]: probabilities times the scales of values
  float* sums;      // [vectors][padded head_dim]: the unnormalised output
  float* totals;    // [vectors][16]: sums of probabilities, lane by lane
  float* peak;      // [vectors]
  int16_t* words;   // [vectors][64]: probabilities times the scales of q8_0 values, as fractions of the page's largest
  float* factor;    // [vectors]: the page's largest probability
  float* weight;    // [vectors]: what multiplies the sums of words
  ByteWeights* weights;  // by block of 32 elements
  float* wide;           // a page of keys, or two panels of values, as f32

  // Lays them out for kAttentionRows rows from `base` on (null: only to learn the size); returns the bytes.
  [[maybe_unused]] uint64_t place(void* base, uint32_t group, uint32_t head_dim) {
    uint64_t end = 0;
    const auto floats = [&](uint64_t count) {
      const uint64_t begin = end;
      end += round_up(count * 4, 64);
      return base == nullptr ? nullptr : reinterpret_cast<float*>(static_cast<uint8_t*>(base) + begin);
    };
    const uint64_t vectors = uint64_t{kAttentionRows} * group;
    q = floats(vectors * head_dim);
    bytes = reinterpret_cast<uint8_t*>(floats(vectors * activation_row_bytes(DType::a8_32, head_dim) / 4));
    scores = floats(vectors * kPagePositions);
    weighted = floats(vectors * kPagePositions);
    sums = floats(vectors * round_up(head_dim, kPanel));
    totals = floats(vectors * 16);
    peak = floats(vectors);
    words = reinterpret_cast<int16_t*>(floats(vectors * kPagePositions / 2));
    factor = floats(vectors);
    weight = floats(vectors);
    weights = reinterpret_cast<ByteWeights*>(floats((uint64_t{head_dim} + 31) / 32 * sizeof(ByteWeights) / 4));
    wide = floats(uint64_t{kPagePositions} * (head_dim > 64 ? head_dim : 64));
    return end;
  }
};

}  // namespace
}  // namespace drover

#endif  // DROVER_KERNELS_ATTENTION_SCRATCH_H_
