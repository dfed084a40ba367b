// The kernel table: what an instruction set must provide. Kernels own nothing: no threads, no memory, no errors; the
// caller has checked every shape and index, and hands in scratch. Each ISA fills one KernelTable (isa/<isa>.cc).
//
// Numerics contract: for every function here, one output element is computed by the same sequence of f32 operations
// in every ISA, whatever the number of rows, tiles or threads. A 16-lane f32 vector is the unit of all reductions
// (scalar: an array of 16; NEON: four registers; AVX2: two; AVX-512: one), and every multiply-add is fused. So the
// results of two ISAs are equal bit for bit, and tests compare them with memcmp.
#ifndef DROVER_KERNELS_KERNELS_H_
#define DROVER_KERNELS_KERNELS_H_

#include <cstddef>
#include <cstdint>

#include "sampling.h"

namespace drover {

inline constexpr uint64_t round_up(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }
inline constexpr uint32_t smaller_of(uint32_t a, uint32_t b) { return a < b ? a : b; }

enum class DType : uint32_t {
#define DROVER_DTYPE(name, elements, bytes) name,
#include "dtypes.def"
#undef DROVER_DTYPE
  kCount
};
inline constexpr uint32_t kDTypeCount = static_cast<uint32_t>(DType::kCount);
// A block of a dtype: its elements and bytes.
struct BlockSize {
  uint32_t elements, bytes;
};
static constexpr BlockSize kBlockSizes[kDTypeCount] = {
#define DROVER_DTYPE(name, elements, bytes) {elements, bytes},
#include "dtypes.def"
#undef DROVER_DTYPE
};
static constexpr uint32_t elements_of(DType dtype) { return kBlockSizes[static_cast<uint32_t>(dtype)].elements; }
static constexpr uint32_t bytes_of(DType dtype) { return kBlockSizes[static_cast<uint32_t>(dtype)].bytes; }

inline constexpr uint32_t kPanel = 16;          // columns of a weight panel, positions of a key panel
inline constexpr uint32_t kPagePositions = 64;  // positions of a KV page

// Scales of a weight [rows, depth] that lie beside it: row-major [rows, groups] f32, f16 or bf16 at any alignment, each
// for depth / groups elements of its row. Without data they are 1.
struct Scales {
  const uint8_t* data = nullptr;
  DType dtype = DType::f32;
  uint32_t groups = 1;
};

enum class Activation : uint32_t { kNone, kSilu, kGeluErf, kGeluTanh, kRelu, kCount };

// y[m, n] = act(sum_k x[m, k] w[n, k] + bias[n]) + residual[m, n]
struct GemmArgs {
  const void* x;            // [rows, depth] of the dtype that the kernel says; quantize.h has the layouts
  uint64_t x_stride_bytes;  // between rows
  const uint8_t* w;         // prepared panels, or the file's rows
  Scales scales;            // of the file's rows; panels hold theirs
  uint32_t rows, cols, depth;
  float* y;               // [rows, cols]
  uint64_t y_stride;      // elements between rows
  const float* bias;      // [cols] or null
  const float* residual;  // [rows, cols] or null; may be y
  uint64_t residual_stride;
  Activation activation;
  bool follows;  // this CPU fetches by itself most of what a row reads next (panels.h: AskOnce)
};
// Computes rows [row_begin, row_end) of panels [panel_begin, panel_end) (16 columns each, the last may be partial).
// scratch: kGemmScratchBytes, 64-byte aligned, private to the calling thread.
using GemmFunction = void (*)(const GemmArgs& args, uint32_t row_begin, uint32_t row_end, uint32_t panel_begin,
                              uint32_t panel_end, void* scratch);
inline constexpr uint64_t kGemmScratchBytes = 1u << 20;
// What a task is at most: rows that share weights while these are near, panels that share the rows; and the part of the
// depth that float rows are copied together for. Sums and that part fill half of a second-level cache of 2 MiB.
inline constexpr uint32_t kGemmFloatRows = 256, kGemmFloatPanels = 32, kGemmFloatDepth = 256;  // f32 and f8_row
inline constexpr uint32_t kGemmIntRows = 96, kGemmIntPanels = 16;                              // a8 activations

struct GemmKernel {
  GemmFunction run;   // null: this dtype has no native kernel of this kind
  DType activations;  // what x must be
};

// One task of attention: the query rows [row_begin, row_end) of one sequence against one KV head.
struct AttentionArgs {
  const float* q;     // [rows, heads * head_dim]
  uint64_t q_stride;  // elements
  float* out;         // [rows, heads * head_dim]
  uint64_t out_stride;
  const uint8_t* kv;  // KV arena at this layer: block (page, head) at kv + page * page_stride + head * block
  uint64_t page_stride_bytes, block_bytes;
  const uint32_t* pages;  // this sequence's page table
  uint32_t heads, kv_heads, head_dim;
  uint32_t first_row;    // row of q that is the sequence's first
  uint32_t cache_start;  // cache position of that row
  uint32_t cache_end;    // positions in the cache after this step (non-causal rows see all of them)
  bool causal;
  bool byte_queries;  // q8_0 keys multiply queries of 8 bits, q8_0 values probabilities of 16
  bool follows;       // as in GemmArgs
  float scale;
};

// Encodes one block of finite numbers. w: what the squared error of each element counts, positive; null (formats with
// a reference quantiser only): as that writes it.
using EncodeFunction = void (*)(const float* x, const float* w, uint8_t* out);

struct KernelTable {
  const char* isa;
  // GEMM on prepared panels (prepare.h) by weight dtype, and on the file's own rows by decoding to f32 panels.
  GemmKernel gemm[kDTypeCount];
  GemmFunction gemm_decode[kDTypeCount];  // x is f32; every weight dtype has one
  // Panels of bf16 times rows of bf16. Subnormal numbers, in and out, count as zero.
  GemmFunction gemm_bf16;
  // a8 rows of x: x [cols] f32 -> out (layout in quantize.h). Non-finite input gives a NaN scale.
  void (*quantize_a8_32)(const float* x, uint32_t cols, uint8_t* out);
  void (*quantize_a8_256)(const float* x, uint32_t cols, uint8_t* out);
  void (*quantize_a8_row)(const float* x, uint32_t cols, uint8_t* out);
  // bound: what the row's maximum counts as at most, positive; infinity: no bound
  void (*quantize_f8_row)(const float* x, uint32_t cols, float bound, uint8_t* out);
  // out [cols] = x rounded to bf16, to nearest even; as f32, and as bf16
  void (*round_bf16)(const float* x, uint32_t cols, float* out);
  void (*write_bf16)(const float* x, uint32_t cols, uint16_t* out);
  // out [cols] = x * weight / sqrt(mean(x^2) + eps)
  void (*rms_norm)(const float* x, const float* weight, float eps, uint32_t cols, float* out);
  // out [cols] = silu(gate) * up
  void (*swiglu)(const float* gate, const float* up, uint32_t cols, float* out);
  // x [heads, head_dim] rotated in place by table (cos[half], sin[half])
  void (*rope)(float* x, const float* table, uint32_t heads, uint32_t head_dim, uint32_t half, bool adjacent);
  // Stores one position of one head: k, v [head_dim] -> block (layout in kv.h), slot in [0, kPagePositions)
  void (*kv_write)(DType type, const float* k, const float* v, uint32_t head_dim, uint32_t slot, uint8_t* block);
  // scratch: attention_scratch_bytes(...) below, 64-byte aligned, private to the thread
  void (*attention)(DType kv_type, const AttentionArgs& args, uint32_t kv_head, uint32_t row_begin, uint32_t row_end,
                    void* scratch);
  void (*softmax)(const float* x, uint32_t cols, float* out);
  void (*log_softmax)(const float* x, uint32_t cols, float* out);
  float (*log_sum_exp)(const float* x, uint32_t cols);
  SampleFunction sample_row;  // sampling.h
  // By the format that is written; null: not a block format, or not written. encode_row (encode.h) calls them.
  EncodeFunction encode[kDTypeCount];
  // For measuring the machine: read_bytes reads all of `data` (a multiple of 256 bytes); the loops compute in registers
  // and return the operations done, two per multiply-add.
  uint64_t (*read_bytes)(const uint8_t* data, uint64_t bytes);
  uint64_t (*fma_loop)(uint32_t rounds);
  uint64_t (*byte_dot_loop)(uint32_t rounds);
  uint64_t (*bf16_dot_loop)(uint32_t rounds);  // null in sets without such instructions
  // The instructions that multiply floats and bytes, for people.
  const char* float_path;
  const char* byte_path;
};

// Rows of queries a task of attention takes at most (times heads / kv_heads = rows of its score tile).
inline constexpr uint32_t kAttentionRows = 16;
uint64_t attention_scratch_bytes(uint32_t heads, uint32_t kv_heads, uint32_t head_dim);

// The tables that this build holds; null where the compiler or the target lacks the instructions.
const KernelTable* kernels_scalar();
const KernelTable* kernels_avx2();
const KernelTable* kernels_avxvnni();
const KernelTable* kernels_avx512();
const KernelTable* kernels_avx512bf16();  // the same, with what this puts into it:
void use_bf16_avx512(KernelTable& table);
const KernelTable* kernels_neon();
const KernelTable* kernels_neondot();
const KernelTable* kernels_neoni8mm();

}  // namespace drover

#endif  // DROVER_KERNELS_KERNELS_H_
