// Included once per ISA file after its vocabulary: builds that ISA's kernel table.
#include "attention.inl"
#include "elementwise.inl"
#include "gemm.inl"
#include "kernels.h"
#include "quantize.inl"

namespace drover {
namespace {

KernelTable build_table() {
  KernelTable table{};
  table.isa = DROVER_ISA_NAME;
  fill_gemm(table);
  fill_quantize(table);
  fill_elementwise(table);
  fill_attention(table);
  return table;
}

const KernelTable kTable = build_table();

}  // namespace

const KernelTable* DROVER_KERNELS() { return &kTable; }

}  // namespace drover
