// The CPUs of a Linux process: its CPU set, the quotas of its control groups, cores and caches from /sys.
#ifdef __linux__

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <string>
#include <vector>

#include "platform.h"

#ifdef DROVER_ARM64
#include <sys/auxv.h>
#endif

namespace drover {
namespace {

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

// "data" and "unified" caches of the first CPU, as "32K" or "1024K" beside their level.
void read_caches(SystemCpus& cpus) {
  const std::string folder = "/sys/devices/system/cpu/cpu0/cache/index";
  std::string level, type, size;
  for (int i = 0; i < 8 && read_text(folder + std::to_string(i) + "/level", level); i++) {
    if (!read_text(folder + std::to_string(i) + "/type", type) || type.compare(0, 4, "Inst") == 0) continue;
    if (!read_text(folder + std::to_string(i) + "/size", size)) continue;
    const uint64_t bytes = std::strtoull(size.c_str(), nullptr, 10) << 10;
    if (level[0] == '1') cpus.l1d_bytes = bytes;
    if (level[0] == '2') cpus.l2_bytes = bytes;
    if (level[0] == '3') cpus.l3_bytes = bytes;
  }
}

}  // namespace

SystemCpus system_cpus() {
  SystemCpus cpus{};
  const long online = sysconf(_SC_NPROCESSORS_ONLN);
  cpus.logical = online > 0 ? static_cast<uint32_t>(online) : 1;
  cpus.allowed = cpus.logical;
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) cpus.allowed = static_cast<uint32_t>(CPU_COUNT(&allowed));
  cpus.physical = physical_cores(allowed, cpus.allowed);
  const char* root = std::getenv("DROVER_CGROUP_ROOT");
  cpus.quota = read_quota(root == nullptr ? "" : root);
  read_caches(cpus);
#ifdef _SC_LEVEL1_DCACHE_SIZE
  // Where /sys is not mounted the C library may know, from CPUID.
  const auto known = [](uint64_t bytes, int name) {
    const long value = bytes == 0 ? sysconf(name) : 0;
    return value > 0 ? static_cast<uint64_t>(value) : bytes;
  };
  cpus.l1d_bytes = known(cpus.l1d_bytes, _SC_LEVEL1_DCACHE_SIZE);
  cpus.l2_bytes = known(cpus.l2_bytes, _SC_LEVEL2_CACHE_SIZE);
  cpus.l3_bytes = known(cpus.l3_bytes, _SC_LEVEL3_CACHE_SIZE);
#endif
  return cpus;
}

#ifdef DROVER_ARM64
ArmFeatures arm_features() {
  // Bits of the kernel's ABI; older C libraries lack their names.
  constexpr unsigned long kDotProduct = 1ul << 20, kI8mm = 1ul << 13;
  return {(getauxval(AT_HWCAP) & kDotProduct) != 0, (getauxval(AT_HWCAP2) & kI8mm) != 0};
}
#endif

void name_thread(const char* name) { pthread_setname_np(pthread_self(), name); }

}  // namespace drover

#endif
