// The CPUs of a macOS process. There are no CPU sets or quotas to ask for.
#ifdef __APPLE__

#include <pthread.h>
#include <sys/sysctl.h>

#include "platform.h"

namespace drover {
namespace {

// A number of the kernel's; 0 where it has none of this name. Some are 32 bits wide, some 64; both are little-endian.
uint64_t number(const char* name) {
  uint64_t value = 0;
  size_t bytes = sizeof value;
  return sysctlbyname(name, &value, &bytes, nullptr, 0) == 0 ? value : 0;
}

uint32_t at_least_one(uint64_t value) { return value > 0 ? static_cast<uint32_t>(value) : 1; }

}  // namespace

SystemCpus system_cpus() {
  const uint32_t logical = at_least_one(number("hw.logicalcpu"));
  return {logical,
          logical,
          at_least_one(number("hw.physicalcpu")),
          0,
          number("hw.l1dcachesize"),
          number("hw.l2cachesize"),
          number("hw.l3cachesize")};
}

#ifdef DROVER_ARM64
ArmFeatures arm_features() {
  return {number("hw.optional.arm.FEAT_DotProd") != 0, number("hw.optional.arm.FEAT_I8MM") != 0};
}
#endif

void name_thread(const char* name) { pthread_setname_np(name); }

}  // namespace drover

#endif
