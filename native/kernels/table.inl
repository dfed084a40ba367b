// Included once per ISA file after its vocabularies: builds that ISA's kernel table.
#include "kernels.h"
// Order matters: each file uses those before it.
// clang-format off
#include "math.inl"
#include "elementwise.inl"
#include "quantize.inl"
#include "gemm.inl"
#include "kv_write.inl"
#include "attention_tiles.inl"
#include "attention_bytes.inl"
#include "attention.inl"
#include "sampling.inl"
#include "encode_small.inl"
#include "probe.inl"
// clang-format on

namespace drover {
namespace {

constexpr KernelTable build_table() {
  KernelTable table{};
  table.isa = DROVER_ISA_NAME;
  fill_gemm(table);
  fill_quantize(table);
  fill_elementwise(table);
  fill_attention(table);
  fill_sampling(table);
  fill_encode(table);
  fill_probe(table);
  return table;
}

// Filled by the compiler: code that ran at load would hold this ISA's instructions, on a CPU that may lack them.
constinit const KernelTable kTable = build_table();

}  // namespace

const KernelTable* DROVER_KERNELS() { return &kTable; }

}  // namespace drover
