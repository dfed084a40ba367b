#include "cpu.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "platform.h"
#include "status.h"

#ifdef DROVER_X86
#include <cpuid.h>
#endif

namespace drover {
namespace {

struct Isa {
  const char* name;
  const KernelTable* (*table)();
  const RecommendKernels* (*recommend)();
  bool runs;
};

#if defined(DROVER_X86) || defined(DROVER_ARM64)
struct Feature {
  const char* name;
  bool has;
};

void list_features(const std::vector<Feature>& features, std::string& names) {
  for (const Feature& feature : features) {
    if (feature.has) names.append(names.empty() ? "" : ",").append(feature.name);
  }
}
#endif

#if defined(DROVER_X86)
std::vector<Feature> read_features() {
  uint32_t a = 0, b = 0, c = 0, d = 0;
  const uint32_t highest = __get_cpuid_max(0, nullptr);
  uint32_t one_c = 0, seven_b = 0, seven_c = 0, seven1_a = 0;
  if (highest >= 1) {
    __cpuid(1, a, b, c, d);
    one_c = c;
  }
  if (highest >= 7) {
    __cpuid_count(7, 0, a, b, c, d);
    seven_b = b;
    seven_c = c;
    if (a >= 1) {
      __cpuid_count(7, 1, a, b, c, d);
      seven1_a = a;
    }
  }
  // The operating system must save the wide registers (XCR0).
  uint32_t saved = 0;
  if ((one_c >> 27 & 1) != 0) {
    uint32_t high;
    __asm__("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
  }
  const bool ymm = (saved & 6) == 6, zmm = (saved & 0xe6) == 0xe6;
  const auto bit = [](uint32_t word, int index) { return (word >> index & 1) != 0; };
  return {{"avx2", ymm && bit(seven_b, 5)},        {"fma", ymm && bit(one_c, 12)},
          {"f16c", ymm && bit(one_c, 29)},         {"bmi2", bit(seven_b, 8)},
          {"avx_vnni", ymm && bit(seven1_a, 4)},   {"avx512f", zmm && bit(seven_b, 16)},
          {"avx512bw", zmm && bit(seven_b, 30)},   {"avx512dq", zmm && bit(seven_b, 17)},
          {"avx512vl", zmm && bit(seven_b, 31)},   {"avx512_vnni", zmm && bit(seven_c, 11)},
          {"avx512_bf16", zmm && bit(seven1_a, 5)}};
}

std::vector<Isa> list_isas(std::string& names) {
  const std::vector<Feature> features = read_features();
  const auto has = [&](const char* name) {
    return std::any_of(features.begin(), features.end(),
                       [&](const Feature& feature) { return feature.has && std::strcmp(feature.name, name) == 0; });
  };
  list_features(features, names);
  const bool avx2 = has("avx2") && has("fma") && has("f16c") && has("bmi2");
  const bool avx512 =
      avx2 && has("avx512f") && has("avx512bw") && has("avx512dq") && has("avx512vl") && has("avx512_vnni");
  return {{"scalar", kernels_scalar, recommend_scalar, true},
          {"avx2", kernels_avx2, recommend_avx2, avx2},
          {"avxvnni", kernels_avxvnni, recommend_avx2, avx2 && has("avx_vnni")},
          {"avx512", kernels_avx512, recommend_avx512, avx512},
          {"avx512bf16", kernels_avx512bf16, recommend_avx512, avx512 && has("avx512_bf16")}};
}
#elif defined(DROVER_ARM64)
std::vector<Isa> list_isas(std::string& names) {
  const ArmFeatures has = arm_features();
  list_features({{"neon", true}, {"dotprod", has.dot_product}, {"i8mm", has.i8mm}}, names);
  return {{"scalar", kernels_scalar, recommend_scalar, true},
          {"neon", kernels_neon, recommend_neon, true},
          {"neondot", kernels_neondot, recommend_neon, has.dot_product},
          {"neoni8mm", kernels_neoni8mm, recommend_neon, has.dot_product && has.i8mm}};
}
#else
std::vector<Isa> list_isas(std::string&) { return {{"scalar", kernels_scalar, recommend_scalar, true}}; }
#endif

bool is_intel() {
#if defined(DROVER_X86)
  uint32_t a = 0, b = 0, c = 0, d = 0;
  __cpuid(0, a, b, c, d);
  return b == 0x756e6547 && d == 0x49656e69 && c == 0x6c65746e;  // "GenuineIntel"
#else
  return false;
#endif
}

Machine read_machine() {
  static std::string features, reason;
  Machine m{};
  const std::vector<Isa> isas = list_isas(features);
  const Isa* best = nullptr;
  for (const Isa& isa : isas) {
    if (isa.runs) best = &isa;
  }
  m.info.isa_best = best->name;
  m.info.isa = best->name;
  m.kernels = best->table();
  m.recommend = best->recommend();
  const char* forced = std::getenv("DROVER_ISA");
  if (forced != nullptr && forced[0] != '\0') {
    m.kernels = nullptr;
    std::string runnable;
    for (const Isa& isa : isas) {
      if (isa.runs) runnable.append(runnable.empty() ? "" : ", ").append(isa.name);
      if (isa.runs && std::strcmp(isa.name, forced) == 0) {
        m.kernels = isa.table();
        m.recommend = isa.recommend();
        m.info.isa = isa.name;
      }
    }
    if (m.kernels == nullptr) {
      fail(&m.error, DROVER_ISA, -1, 0, 0, "DROVER_ISA is \"%.40s\", which this CPU cannot run; it can run: %s", forced,
           runnable.c_str());
    }
  }
  m.intel = is_intel();
  m.info.features = features.c_str();
  const SystemCpus cpus = system_cpus();
  m.info.logical_cpus = cpus.logical;
  m.info.affinity_cpus = cpus.allowed;
  m.info.physical_cores = cpus.physical;
  m.info.quota_cpus = cpus.quota;
  uint32_t threads = m.info.physical_cores;
  char text[200];
  std::snprintf(text, sizeof text, "%u physical cores (%u logical CPUs) in the process's CPU set",
                m.info.physical_cores, m.info.affinity_cpus);
  if (m.info.quota_cpus > 0 && m.info.quota_cpus < threads) {
    threads = std::max(1u, static_cast<uint32_t>(std::floor(m.info.quota_cpus + 0.01)));
    std::snprintf(text, sizeof text, "the cgroup's quota of %.2f CPUs, below the %u physical cores", m.info.quota_cpus,
                  m.info.physical_cores);
  }
  // A cap that tests use to see more workers than cores.
  const char* cap = std::getenv("DROVER_THREADS");
  if (cap != nullptr && std::atoi(cap) > 0) {
    threads = std::min(64u, static_cast<uint32_t>(std::atoi(cap)));
    std::snprintf(text, sizeof text, "DROVER_THREADS asks for %u", threads);
  }
  reason = text;
  m.info.threads = std::max(1u, threads);
  m.info.threads_reason = reason.c_str();
  m.info.l1d_bytes = cpus.l1d_bytes;
  m.info.l2_bytes = cpus.l2_bytes;
  m.info.l3_bytes = cpus.l3_bytes;
  if (m.kernels != nullptr) {
    m.info.float_path = m.kernels->float_path;
    m.info.byte_path = m.kernels->byte_path;
  }
  return m;
}

}  // namespace

#if defined(DROVER_X86)
const KernelTable* kernels_avx512bf16() {
  static const KernelTable table = [] {
    KernelTable all = *kernels_avx512();
    all.isa = "avx512bf16";
    use_bf16_avx512(all);
    return all;
  }();
  return &table;
}
#endif

const Machine& machine() {
  static const Machine* m = new Machine(read_machine());
  return *m;
}

}  // namespace drover
