// Included once per instruction set after its vocabularies: builds that set's table of recommender kernels.
#include "recommend.h"
// Order matters: each file uses those before it.
// clang-format off
#include "../math.inl"
#include "bags.inl"
#include "features.inl"
// clang-format on

namespace drover {
namespace {

constexpr RecommendKernels build_table() {
  RecommendKernels table{};
  fill_bags(table);
  fill_features(table);
  return table;
}

// Filled by the compiler, like kernels.h's tables.
constinit const RecommendKernels kTable = build_table();

}  // namespace

const RecommendKernels* DROVER_RECOMMEND() { return &kTable; }

}  // namespace drover
