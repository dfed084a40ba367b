// Kernels of recommenders: pooled lookups in embedding tables, products between features, gates. A table of functions
// per instruction set, apart from kernels.h so that both compile by themselves. The same contract holds: kernels own
// nothing, the caller has checked every index and shape, and one output element is computed by the same sequence of f32
// operations in every instruction set.
//
// Order of a bag. acc and bias start at 0 and take its lookups one after the other, weight w (1 without weights):
//   floats           acc = fma(w, x, acc)
//   row-wise codes   acc = fma(scale * w, code, acc), bias = fma(w, row bias, bias); the sum is acc + bias
// max takes the largest of x, or of scale * code + row bias, both rounded. A bag of more than kBagPart lookups is cut
// into parts of that many; parts are summed like bags of their own, and merged one after the other. A mean is the sum
// divided by the number of lookups. An empty bag is 0.
#ifndef DROVER_KERNELS_RECOMMEND_RECOMMEND_H_
#define DROVER_KERNELS_RECOMMEND_RECOMMEND_H_

#include "../kernels.h"

namespace drover {

enum class Pooling : uint32_t { kSum, kMean, kMax, kCount };
enum class BagOutput : uint32_t { kF32, kF16, kBF16, kCount };

inline constexpr uint32_t kBagPart = 4096;     // lookups
inline constexpr uint32_t kMostBagDim = 4096;  // elements of a row

// A table of embeddings. Rows may be read past their end, as far as whole vectors reach, up to `end`.
struct BagTable {
  const uint8_t* rows;  // the first row
  const uint8_t* end;   // one past the last byte that may be read
  uint64_t stride;      // bytes between rows
  DType dtype;          // f32, f16, bf16 or row-wise
  uint32_t dim;
  uint32_t codes, parameters;  // where a row's elements, and its scale and bias, begin
  uint32_t row_bytes;          // of a row without padding
};

// The lookups of one table: bag b has the positions [offsets[b], offsets[b + 1]) of indices and weights.
struct Bags {
  const uint32_t* offsets;
  const uint32_t* indices;
  const float* weights;  // or null
};

// The rows that will be read next, further ahead than what is summed: memory is asked for them in time. The cursor goes
// on to the tables behind this one, so that many small bags of many tables wait for memory together.
struct Ahead {
  const uint32_t* next;  // lookups of the current table that memory is still to be asked for
  const uint32_t* stop;
  const uint8_t* rows;
  uint64_t stride;
  uint32_t lines;         // lines of a row that are asked for 64 bytes apart; 0 at the end
  uint32_t last;          // offset of the line of its last byte where those may miss it; else 0
  const BagTable* table;  // what follows, `left` tables
  const Bags* bags;
  uint32_t left;
  uint32_t bag_count;         // bags of each table
  const uint32_t* first;      // where the next table's lookups begin, if not with its first
  const uint32_t* last_stop;  // where the last table's lookups end
};

struct BagWork {
  const BagTable* table;
  Bags bags;
  Pooling pooling;
  BagOutput output;
  uint8_t* out;         // the first bag's elements
  uint64_t out_stride;  // bytes between bags
  uint8_t* scratch;     // kBagScratchBytes, 64-byte aligned, private to the thread
};
inline constexpr uint64_t kBagScratchBytes = 2 * kMostBagDim * 4 + 128;

struct BagKernel {
  // Bags [begin, end), none longer than kBagPart.
  void (*bags)(const BagWork& work, uint32_t begin, uint32_t end, Ahead& ahead);
  // The sum, or the largest, of lookups [begin, end): out [dim], neither divided nor rounded.
  void (*part)(const BagWork& work, uint32_t begin, uint32_t end, Ahead& ahead, float* out);
};

// Vectors j that vector i is multiplied by: those before it, those before it and itself, those behind it.
enum class Pairs : uint32_t { kLower, kLowerAndItself, kUpper, kCount };

struct GatherWork {
  const uint8_t* rows;
  uint64_t stride;
  uint32_t row_bytes;
  const uint32_t* indices;
  uint64_t count;
};

struct RecommendKernels {
  BagKernel bag[kDTypeCount];  // by dtype of the table; null: no format of tables
  // Parts [count][dim] of a bag of `lookups` into its output.
  void (*merge)(const BagWork& work, uint32_t bag, uint32_t lookups, const float* parts, uint32_t count);
  // Asks for the first `rows` rows of the cursor.
  void (*ask)(Ahead& ahead, uint32_t rows);
  // Whether all indices, of 32 or 64 bits, are below `rows`; negative ones are not.
  bool (*all_below)(const uint32_t* indices, uint64_t count, uint32_t rows);
  bool (*all_below_64)(const uint8_t* indices, uint64_t count, uint32_t rows);
  // The low halves of int64 numbers; `out` may be the same memory.
  void (*narrow)(const uint8_t* numbers, uint64_t count, uint32_t* out);
  // out = dense [dim], then the products of pairs of the vectors dense, pooled 0, pooled 1 ..., row by row.
  void (*interaction)(const float* dense, const float* pooled, uint32_t dim, uint32_t tables, Pairs pairs, float* out);
  // out = fma(x0, y, x)
  void (*cross)(const float* x0, const float* y, const float* x, uint32_t cols, float* out);
  // ((sum of x)^2 - sum of x^2) / 2, both sums in 16 lanes
  float (*factorization)(const float* x, uint32_t cols);
  // out = 1 / (1 + e^-x)
  void (*sigmoid)(const float* x, uint32_t cols, float* out);
  // For measuring the machine: reads random rows, asked for `distance` rows ahead into the first-level cache (near) or
  // the second.
  uint64_t (*gather)(const GatherWork& work, uint32_t distance, bool near);
};

const RecommendKernels* recommend_scalar();
const RecommendKernels* recommend_avx2();
const RecommendKernels* recommend_avx512();
const RecommendKernels* recommend_neon();

}  // namespace drover

#endif  // DROVER_KERNELS_RECOMMEND_RECOMMEND_H_
