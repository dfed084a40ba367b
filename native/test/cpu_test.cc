// What the core finds out about the machine: quotas of cgroup v1 and v2 under a root of our own, forced instruction
// sets and thread counts. The machine is read once per process, so each case is a process.
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "drover.h"
#include "tables.h"

namespace {

struct Found {
  int code;
  double quota;
  uint32_t threads, cores;
  char isa[16], reason[200], message[256];
};

using Pairs = std::vector<std::pair<std::string, std::string>>;

// Runs drover_cpu in a child with these variables.
Found look(const Pairs& variables) {
  int ends[2];
  Found found{};
  if (pipe(ends) != 0) std::abort();
  const pid_t child = fork();
  if (child == 0) {
    for (const auto& [name, value] : variables) setenv(name.c_str(), value.c_str(), 1);
    drover_cpu_info info{};
    drover_error error{};
    found.code = drover_cpu(&info, &error);
    std::snprintf(found.message, sizeof found.message, "%s", error.message);
    if (found.code == DROVER_OK) {
      found.quota = info.quota_cpus;
      found.threads = info.threads;
      found.cores = info.physical_cores;
      std::snprintf(found.isa, sizeof found.isa, "%s", info.isa);
      std::snprintf(found.reason, sizeof found.reason, "%s", info.threads_reason);
    }
    const bool sent = write(ends[1], &found, sizeof found) == static_cast<ssize_t>(sizeof found);
    _exit(sent ? 0 : 1);
  }
  close(ends[1]);
  const bool received = read(ends[0], &found, sizeof found) == static_cast<ssize_t>(sizeof found);
  close(ends[0]);
  int status = -1;
  waitpid(child, &status, 0);
  CHECK(received && status == 0, "the child ended with %d", status);
  return found;
}

// A root that holds these files.
struct Root {
  std::filesystem::path path;
  explicit Root(const Pairs& files) {
    char name[] = "/tmp/drover-cgroup-XXXXXX";
    path = mkdtemp(name);
    for (const auto& [file, text] : files) {
      std::filesystem::create_directories((path / file).parent_path());
      std::ofstream(path / file) << text;
    }
  }
  ~Root() { std::filesystem::remove_all(path); }
  Root(const Root&) = delete;
  Root& operator=(const Root&) = delete;
};

void check_quota(const char* what, double quota, const Pairs& files) {
  const Root root(files);
  const Found found = look({{"DROVER_CGROUP_ROOT", root.path.string()}, {"DROVER_THREADS", ""}});
  CHECK(found.code == DROVER_OK && std::fabs(found.quota - quota) < 1e-9, "%s: %g", what, found.quota);
  const bool limits = quota > 0 && quota < found.cores;
  const uint32_t threads = !limits ? found.cores : quota < 1 ? 1 : static_cast<uint32_t>(quota + 0.01);
  CHECK(found.threads == threads, "%s: %u threads", what, found.threads);
  const bool told = std::string(found.reason).find("quota") != std::string::npos;
  CHECK(told == limits, "%s: \"%s\"", what, found.reason);
}

void check_quotas() {
  const std::string own = "proc/self/cgroup", v2 = "sys/fs/cgroup/", v1 = "sys/fs/cgroup/cpu,cpuacct/";
  check_quota("no files", 0, {});
  check_quota("v2", 0.5, {{own, "0::/a\n"}, {v2 + "a/cpu.max", "50000 100000\n"}});
  check_quota("v2 without a limit", 0, {{own, "0::/a\n"}, {v2 + "a/cpu.max", "max 100000\n"}});
  check_quota("v2, the parent's limit", 0.75,
              {{own, "0::/a/b\n"}, {v2 + "a/cpu.max", "75000 100000\n"}, {v2 + "a/b/cpu.max", "max 100000\n"}});
  check_quota("v2, the smaller limit", 1,
              {{own, "0::/a/b\n"}, {v2 + "a/cpu.max", "300000 100000\n"}, {v2 + "a/b/cpu.max", "100000 100000\n"}});
  check_quota("v2, the root group", 0.25, {{own, "0::/\n"}, {v2 + "cpu.max", "25000 100000\n"}});
  check_quota("v2, a large limit", 1000, {{own, "0::/a\n"}, {v2 + "a/cpu.max", "100000000 100000\n"}});
  check_quota("v1", 0.5,
              {{own, "3:memory:/m\n2:cpu,cpuacct:/x\n"},
               {v1 + "x/cpu.cfs_quota_us", "50000\n"},
               {v1 + "x/cpu.cfs_period_us", "100000\n"}});
  check_quota(
      "v1, another mount", 0.5,
      {{own, "2:cpu:/x"}, {v2 + "cpu/x/cpu.cfs_quota_us", "50000"}, {v2 + "cpu/x/cpu.cfs_period_us", "100000"}});
  check_quota(
      "v1 without a limit", 0,
      {{own, "2:cpu,cpuacct:/x\n"}, {v1 + "x/cpu.cfs_quota_us", "-1\n"}, {v1 + "x/cpu.cfs_period_us", "100000\n"}});
  check_quota("noise", 0, {{own, "\n:\n::\nno group\n0::/a\n0::"}, {v2 + "a/cpu.max", "many few\n"}});
  check_quota("zeros", 0, {{own, "0::/a\n"}, {v2 + "a/cpu.max", "0 0\n"}});
}

}  // namespace

int main() {
  check_quotas();
  for (const drover::KernelTable* table : runnable_tables()) {
    const Found found = look({{"DROVER_ISA", table->isa}});
    CHECK(found.code == DROVER_OK && std::string(found.isa) == table->isa, "%s: %s", table->isa, found.isa);
  }
  const Found best = look({{"DROVER_ISA", ""}});
  CHECK(std::string(best.isa) == runnable_tables().back()->isa, "%s is chosen", best.isa);
  const Found wrong = look({{"DROVER_ISA", "abacus"}});
  CHECK(wrong.code == DROVER_ISA && std::string(wrong.message).find("abacus") != std::string::npos, "\"%s\"",
        wrong.message);
  CHECK(look({{"DROVER_THREADS", "7"}}).threads == 7, "seven threads");
  CHECK(look({{"DROVER_THREADS", "999999"}}).threads == 64, "too many threads");
  CHECK(look({{"DROVER_THREADS", "-3"}}).threads >= 1, "no threads");
  return check_summary();
}
