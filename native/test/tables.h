// Every kernel set that this machine can run, scalar first.
#ifndef DROVER_TEST_TABLES_H_
#define DROVER_TEST_TABLES_H_

#include <vector>

#include "core/platform.h"
#include "kernels/kernels.h"

inline std::vector<const drover::KernelTable*> runnable_tables() {
  std::vector<const drover::KernelTable*> tables{drover::kernels_scalar()};
#if defined(DROVER_X86)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) tables.push_back(drover::kernels_avx2());
  uint32_t a = 7, b = 0, c = 1, d = 0;
  __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  if ((a >> 4 & 1) != 0) tables.push_back(drover::kernels_avxvnni());
  if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw"))
    tables.push_back(drover::kernels_avx512());
  if (tables.back() == drover::kernels_avx512() && (a >> 5 & 1) != 0) tables.push_back(drover::kernels_avx512bf16());
#elif defined(DROVER_ARM64)
  tables.push_back(drover::kernels_neon());
  const drover::ArmFeatures has = drover::arm_features();
  if (has.dot_product) tables.push_back(drover::kernels_neondot());
  if (has.dot_product && has.i8mm) tables.push_back(drover::kernels_neoni8mm());
#endif
  return tables;
}

#endif  // DROVER_TEST_TABLES_H_
