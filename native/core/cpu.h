// The machine: instruction sets, caches, and how many threads this process may use.
#ifndef DROVER_CORE_CPU_H_
#define DROVER_CORE_CPU_H_

#include "drover.h"
#include "kernels/kernels.h"
#include "kernels/recommend/recommend.h"

namespace drover {

struct Machine {
  const KernelTable* kernels;         // null when DROVER_ISA names a set that cannot run; `error` says so
  const RecommendKernels* recommend;  // of the same set
  bool intel;
  drover_error error;
  drover_cpu_info info;
};
// Read once, on first use.
const Machine& machine();

}  // namespace drover

#endif  // DROVER_CORE_CPU_H_
