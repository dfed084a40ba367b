#include "cpu.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "status.h"

#ifdef DROVER_X86
#include <cpuid.h>
#endif

namespace drover {
namespace {

struct Isa {
  const char* name;
  const KernelTable* (*table)();
  bool runs;
};

#ifdef DROVER_X86
struct Feature {
  const char* name;
  bool has;
};

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
  for (const Feature& feature : features) {
    if (feature.has) names.append(names.empty() ? "" : ",").append(feature.name);
  }
  const bool avx2 = has("avx2") && has("fma") && has("f16c") && has("bmi2");
  return {{"scalar", kernels_scalar, true},
          {"avx2", kernels_avx2, avx2},
          {"avxvnni", kernels_avxvnni, avx2 && has("avx_vnni")},
          {"avx512", kernels_avx512,
           avx2 && has("avx512f") && has("avx512bw") && has("avx512dq") && has("avx512vl") && has("avx512_vnni")}};
}
#else
std::vector<Isa> list_isas(std::string&) { return {{"scalar", kernels_scalar, true}}; }
#endif

// A list of deeply nested v1 groups takes several pages.
constexpr size_t kMostText = 1u << 20;

bool read_text(const std::string& path, std::string& text) {
  std::FILE* file = std::fopen(path.c_str(), "r");
  if (file == nullptr) return false;
  text.clear();
  char buffer[4096];
  for (size_t size; text.size() < kMostText && (size = std::fread(buffer, 1, sizeof buffer, file)) > 0;)
    text.append(buffer, size);
  std::fclose(file);
  return true;
}

// CPUs of one quota: "max 100000" or "150000 100000" (v2), or two files (v1). 0: no limit.
double quota_of(const std::string& folder) {
  std::string text;
  long long quota = 0, period = 0;
  if (read_text(folder + "/cpu.max", text)) {
    if (std::sscanf(text.c_str(), "%lld %lld", &quota, &period) == 2 && quota > 0 && period > 0) {
      return static_cast<double>(quota) / static_cast<double>(period);
    }
    return 0;
  }
  std::string period_text;
  if (read_text(folder + "/cpu.cfs_quota_us", text) && read_text(folder + "/cpu.cfs_period_us", period_text)) {
    quota = std::atoll(text.c_str());
    period = std::atoll(period_text.c_str());
    if (quota > 0 && period > 0) return static_cast<double>(quota) / static_cast<double>(period);
  }
  return 0;
}

// The smallest quota on the way from the process's group up to the root, in cgroup v2 and the v1 cpu controller.
double read_quota(const std::string& root) {
  std::string groups;
  if (!read_text(root + "/proc/self/cgroup", groups)) return 0;
  double smallest = 0;
  for (size_t at = 0; at < groups.size();) {
    const size_t end = std::min(groups.find('\n', at), groups.size());
    const std::string line = groups.substr(at, end - at);
    at = end + 1;
    const size_t first = line.find(':'), second = line.find(':', first == std::string::npos ? 0 : first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    std::string controllers = ",";
    controllers.append(line, first + 1, second - first - 1).append(",");
    std::string path = line.substr(second + 1);
    std::vector<std::string> mounts;
    if (controllers == ",,") {
      mounts = {root + "/sys/fs/cgroup"};
    } else if (controllers.find(",cpu,") != std::string::npos) {
      mounts = {root + "/sys/fs/cgroup/cpu,cpuacct", root + "/sys/fs/cgroup/cpu"};
    }
    for (;;) {
      if (path == "/") path.clear();
      for (const std::string& mount : mounts) {
        const double quota = quota_of(mount + path);
        if (quota > 0 && (smallest == 0 || quota < smallest)) smallest = quota;
      }
      const size_t slash = path.rfind('/');
      if (path.empty() || slash == std::string::npos) break;
      path.resize(slash);
    }
  }
  return smallest;
}

uint32_t physical_cores(const cpu_set_t& allowed, uint32_t fallback) {
  std::set<std::string> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    std::string siblings;
    const std::string folder = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
    if (!read_text(folder + "thread_siblings_list", siblings)) return fallback;
    cores.insert(siblings);
  }
  return cores.empty() ? fallback : static_cast<uint32_t>(cores.size());
}

uint64_t cache_bytes(int name) {
  const long value = sysconf(name);
  return value > 0 ? static_cast<uint64_t>(value) : 0;
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
  const char* forced = std::getenv("DROVER_ISA");
  if (forced != nullptr && forced[0] != '\0') {
    m.kernels = nullptr;
    std::string runnable;
    for (const Isa& isa : isas) {
      if (isa.runs) runnable.append(runnable.empty() ? "" : ", ").append(isa.name);
      if (isa.runs && std::strcmp(isa.name, forced) == 0) {
        m.kernels = isa.table();
        m.info.isa = isa.name;
      }
    }
    if (m.kernels == nullptr) {
      fail(&m.error, DROVER_ISA, -1, 0, 0, "DROVER_ISA is \"%.40s\", which this CPU cannot run; it can run: %s", forced,
           runnable.c_str());
    }
  }
  m.info.features = features.c_str();
  const long online = sysconf(_SC_NPROCESSORS_ONLN);
  m.info.logical_cpus = online > 0 ? static_cast<uint32_t>(online) : 1;
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  m.info.affinity_cpus = m.info.logical_cpus;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0)
    m.info.affinity_cpus = static_cast<uint32_t>(CPU_COUNT(&allowed));
  m.info.physical_cores = physical_cores(allowed, m.info.affinity_cpus);
  const char* root = std::getenv("DROVER_CGROUP_ROOT");
  m.info.quota_cpus = read_quota(root == nullptr ? "" : root);
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
  m.info.l1d_bytes = cache_bytes(_SC_LEVEL1_DCACHE_SIZE);
  m.info.l2_bytes = cache_bytes(_SC_LEVEL2_CACHE_SIZE);
  m.info.l3_bytes = cache_bytes(_SC_LEVEL3_CACHE_SIZE);
  if (m.kernels != nullptr) {
    m.info.float_path = m.kernels->float_path;
    m.info.byte_path = m.kernels->byte_path;
  }
  return m;
}

}  // namespace

const Machine& machine() {
  static const Machine* m = new Machine(read_machine());
  return *m;
}

}  // namespace drover
