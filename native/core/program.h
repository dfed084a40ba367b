// The program: a flat list of ops on tensors that lie in one planned arena, and its binary encoding.
//
// Everything is little-endian u32 words. TypeScript (lib/program/encode.ts) writes it, decode() below reads and
// verifies it: no byte string may crash the process, so every index, offset, stride, dtype and shape is checked here
// once, and every dynamic input is checked again per step.
//
// Program
//   header, kProgramHeaderWords words:
//     0 magic "DRVP"  1 version (1)  2 total words  3 max rows  4 max outputs  5 max sequences  6 max page entries
//     7 tensor count  8 weight count  9 op count  10 argument words  11 arena size in units of 64 bytes
//     12 kv layers  13 kv heads  14 kv head_dim  15 kv dtype (f32, f16, bf16, q8_0, f8_e4m3)  16 kv pages (0: no cache)
//     17 vocabulary 18 bag inputs of a step
//     19 block rows 20 where the tensors of blocks begin in the arena, units of 64 bytes; or both 0. A step's rows then
//     go through all ops block by block, several blocks at once: tensors from there on hold the rows of one block, and
//     those before it, which outlive a block, all of the step's. Only with bag inputs, without cache and output rows:
//     no row may depend on another.
//     21..23 zero
//   tensors, kTensorWords words each:
//     0 dtype (f32, u32, a8_32, a8_256, a8_row, f8_row)  1 cols  2 row stride in units of 64 bytes
//     3 row dimension (0 rows, 1 outputs, 2 fixed)  4 row count when fixed  5 offset in the arena, units of 64 bytes
//     6..7 zero
//   weights, kWeightWords words each:
//     0 region  1 dtype  2 offset low  3 offset high (bytes)  4 rows  5 cols  6 flags (1: prepare for gemm, 2: decode
//     to f32 at load: what norms, biases and frequencies need)  7 scales: 0, or 1 + the index of a weight [rows,
//     groups] of floats that this one is multiplied by (a weight that embed and gemm share is listed once; embed then
//     reads the prepared form)
//     Tables of embedding_bag have flag 4, alone or with 8 (its rows are copied into memory of the program's own) and
//     16 (scale and bias come first in a row); word 7 is then the bytes between rows
//   ops, kOpWords words each:  0 opcode (position in ops.def)  1 first argument word  2 argument count  3 zero
//   arguments
//
// Step
//   header, kStepHeaderWords words:
//     0 magic "DRVS"  1 total words  2 rows  3 outputs  4 sequences  5 page entries  6 first op  7 end op (exclusive)
//     8 flags (1: profile, 2: has targets, 4: has sampling records, 8: has bags)  9 tail words
//     10 bag inputs, all or none  11 what becomes of an index out of range (0 error, 1 skip, 2 clamp)  12..15 zero
//   tokens      i32[rows]      not when flag 8
//   positions   i32[rows]      not when flag 8; RoPE positions (usually the cache position, but free)
//   sequences   5 words each:  0 first row  1 row count  2 cache position of the first row  3 first page entry
//                              4 page entries.  Sequences cover the rows in order without gaps; a page may be written
//                              by one sequence only.
//   pages       u32[page entries]
//   output rows u32[outputs]
//   targets     i32[outputs]                        when flag 2
//   sampling    kSamplingWords words per output     when flag 4 (see SamplingRecord in native/kernels/sampling.h)
//   tail        words that sampling records point into
//   bags        when flag 8: per input two words, 0 flags (1: indices are int64, 2: offsets are int64, 4: has weights)
//               1 index count; then per input its offsets[rows + 1] from 0 to the index count, never falling, its
//               indices and its weights (f32)
#ifndef DROVER_CORE_PROGRAM_H_
#define DROVER_CORE_PROGRAM_H_

#include <atomic>
#include <cstdint>
#include <vector>

#include "arena.h"
#include "drover.h"
#include "kernels/kernels.h"
#include "kernels/recommend/recommend.h"
#include "pool.h"
#include "prepared.h"

namespace drover {

inline constexpr uint32_t kProgramMagic = 0x50565244;  // "DRVP"
inline constexpr uint32_t kStepMagic = 0x53565244;     // "DRVS"
inline constexpr uint32_t kProgramVersion = 1;
inline constexpr uint32_t kProgramHeaderWords = 24;
inline constexpr uint32_t kTensorWords = 8;
inline constexpr uint32_t kWeightWords = 8;
inline constexpr uint32_t kOpWords = 4;
inline constexpr uint32_t kStepHeaderWords = 16;
inline constexpr uint32_t kSequenceWords = 5;
inline constexpr uint32_t kNone = 0xffffffffu;
inline constexpr uint32_t kMostArguments = 8;

enum class RowDimension : uint32_t { kRows, kOutputs, kFixed, kCount };

struct Tensor {
  DType dtype;
  uint32_t cols;
  uint64_t stride;  // bytes
  RowDimension dimension;
  uint32_t fixed_rows, most_rows;
  uint64_t offset;  // bytes in the arena
  bool in_block;    // holds the rows of one block
  uint8_t* data;    // set once the arena exists
};

struct Weight {
  uint32_t region;
  DType dtype;
  uint64_t offset;
  uint32_t rows, cols, flags;
  Scales scales;
  uint32_t scales_weight;   // 0, or 1 + the index of the weight that holds them
  const uint8_t* file;      // the file's rows
  const uint8_t* prepared;  // panels, when flag 1
  const float* decoded;     // f32 rows, when flag 2
  uint64_t stride;          // bytes between the file's rows
};
inline constexpr uint32_t kPrepare = 1, kDecode = 2, kTable = 4, kCopy = 8, kParametersFirst = 16;

struct Op {
  uint32_t opcode;
  uint32_t argument[kMostArguments];
};

struct Sequence {
  uint32_t first_row, rows, cache_start;
  const uint32_t* pages;
  uint32_t page_count;
};

// What the ops that read one of the step's bag inputs ask of it.
struct BagInput {
  uint32_t rows = UINT32_MAX;  // indices are below
  uint32_t widest = 0;         // elements of the widest table
  bool has_max = false;        // a maximum takes no weights
};
enum class IndexPolicy : uint32_t { kError, kSkip, kClamp, kCount };
// A bag of more than kBagPart lookups, and the first of its parts among all of the step's.
struct LongBag {
  uint32_t input, bag, first_part;
  uint64_t first_float;  // of that part's sums
};
inline uint32_t parts_of(const Bags& bags, uint32_t bag) {
  return (bags.offsets[bag + 1] - bags.offsets[bag] + kBagPart - 1) / kBagPart;
}

// A step as it is read from its words, every number checked against the program.
struct Step {
  uint32_t rows, outputs, first_op, end_op, flags;
  const int32_t* tokens;
  const int32_t* positions;
  std::vector<Sequence> sequences;
  const uint32_t* output_rows;
  const int32_t* targets;          // or null
  const SamplingRecord* sampling;  // or null
  const uint32_t* tail;
  uint32_t tail_words;
};
inline constexpr uint32_t kStepProfile = 1, kStepTargets = 2, kStepSampling = 4, kStepBags = 8;

// The tensors and bags of the block that a worker is at.
struct BlockView {
  std::vector<Tensor> tensors;
  std::vector<Bags> bags;
  std::vector<LongBag> long_bags;
};

struct StepJob : Job {
  drover_program* program;
  uint64_t words;
  drover_done done;
  void* user;
};

}  // namespace drover

struct drover_program {
  const drover::KernelTable* kernels = nullptr;
  const drover::RecommendKernels* recommend = nullptr;
  uint32_t max_rows = 0, max_outputs = 0, max_sequences = 0, max_pages = 0, vocabulary = 0;
  uint32_t kv_layers = 0, kv_heads = 0, kv_head_dim = 0, kv_pages = 0;
  drover::DType kv_dtype = drover::DType::f32;
  uint32_t block_rows = 0;  // 0: no blocks
  uint64_t kv_block_bytes = 0, kv_page_bytes = 0;
  std::vector<drover::Tensor> tensors;
  std::vector<drover::BlockView> views;  // by worker, when there are blocks
  std::vector<drover::Weight> weights;
  std::vector<drover::Op> ops;
  std::vector<drover_region*> regions;
  drover::Arena activations, kv, prepared, scratch, tables;
  drover::PreparedFile prepared_file;  // what `prepared` would hold, where weights are kept in a file
  uint64_t arena_bytes = 0, kept_bytes = 0, scratch_stride = 0, mapped_bytes = 0;  // kept: before the blocks' tensors
  uint64_t weight_bytes = 0;                                                       // prepared and decoded
  uint32_t threads = 1;

  std::vector<uint64_t> profile;  // profile_words per op, see drover_program_profile
  std::vector<drover::WorkerTime> worker_times;
  std::vector<uint32_t> page_writer;  // per page: the sequence that writes it in step `page_step`
  std::vector<uint32_t> page_step;
  uint32_t step_number = 0;
  // The step in flight, which owns a copy of its words; the memory is kept for the next.
  drover::StepJob job;
  std::vector<uint32_t> step_words;

  std::vector<drover::BagTable> bag_tables;  // by weight
  std::vector<drover::BagInput> bag_inputs;
  std::vector<drover::Bags> bags;  // of the step, by input; they point into its words
  std::vector<drover::LongBag> long_bags;
  drover::Arena bag_parts;  // what the parts of the step's long bags sum up to
  drover_bag_counts bag_counts{};

  std::atomic<uint32_t> busy{0};  // 1 while a step runs or memory is read or written
  std::atomic<int32_t> cancel{0};

  drover_program() = default;
  drover_program(const drover_program&) = delete;
  drover_program& operator=(const drover_program&) = delete;
  ~drover_program();
};

namespace drover {

inline uint32_t profile_words(uint32_t threads) { return 2 + threads; }

// Bytes of all activations: the blocks' tensors are there once per worker.
inline uint64_t activation_bytes(const drover_program& p) {
  return p.block_rows == 0 ? p.arena_bytes : p.arena_bytes + (p.arena_bytes - p.kept_bytes) * (p.threads - 1);
}

// What an op sees while it runs: of a block, if there are some.
struct Run {
  drover_program& program;
  const Step& step;
  Team& team;
  const Tensor* tensors;
  const Bags* bags;
  const std::vector<LongBag>& long_bags;
  uint32_t rows_of(const Tensor& tensor) const {
    return tensor.dimension == RowDimension::kRows      ? step.rows
           : tensor.dimension == RowDimension::kOutputs ? step.outputs
                                                        : tensor.fixed_rows;
  }
  uint8_t* scratch(uint32_t worker) const { return program.scratch.data() + worker * program.scratch_stride; }
};

// Reads and verifies a program's words; fills everything but the memory.
drover_code decode_program(const uint32_t* words, uint64_t count, drover_region* const* regions, uint32_t region_count,
                           drover_program& program, drover_error* error);
// Allocates arenas and prepares weights.
drover_code load_program(drover_program& program, const drover_load_options& options, drover_error* error);
// Reads and checks a step against the program. Bags are rewritten in place: indices and offsets to 32 bits, and without
// the indices that a policy skips.
drover_code decode_step(drover_program& program, uint32_t* words, uint64_t count, Step& step, drover_error* error);
// Runs the ops of a checked step.
drover_code run_step(drover_program& program, const Step& step, drover_error* error);

}  // namespace drover

#endif  // DROVER_CORE_PROGRAM_H_
