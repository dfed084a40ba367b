// The machine's limits, measured on the pool with the kernel set in use.
#include <chrono>
#include <condition_variable>
#include <mutex>

#include "cpu.h"
#include "program.h"
#include "status.h"

namespace drover {
namespace {

constexpr uint64_t kReadBytes = 512u << 20;
constexpr uint32_t kReadTasks = 64;
constexpr uint32_t kFmaRounds = 2'000'000, kRepeats = 5;

struct Probe : Job {
  uint32_t threads;
  Arena arena;
  double read = 0, fma = 0;
  uint64_t sink = 0;
  std::mutex mutex;
  std::condition_variable wake;
  bool finished = false;
};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void run_probe(Job* base) {
  Probe& probe = *static_cast<Probe*>(base);
  const KernelTable& kernels = *machine().kernels;
  Team team(probe.threads, nullptr);
  uint64_t sums[kReadTasks] = {};
  for (uint32_t repeat = 0; repeat <= kRepeats; repeat++) {  // the first pass touches the pages
    const auto start = std::chrono::steady_clock::now();
    team.parallel(kReadTasks, [&](uint32_t task, uint32_t) {
      const uint64_t portion = kReadBytes / kReadTasks;
      if (repeat == 0) {
        for (uint64_t i = 0; i < portion; i += 4096) probe.arena.data()[task * portion + i] = 1;
      }
      sums[task] += kernels.read_bytes(probe.arena.data() + task * portion, portion);
    });
    const double rate = static_cast<double>(kReadBytes) / seconds_since(start);
    if (repeat > 0 && rate > probe.read) probe.read = rate;
  }
  for (uint32_t repeat = 0; repeat < kRepeats; repeat++) {
    uint64_t operations[64] = {};
    const auto start = std::chrono::steady_clock::now();
    team.parallel(probe.threads,
                  [&](uint32_t task, uint32_t) { operations[task % 64] = kernels.fma_loop(kFmaRounds); });
    const double elapsed = seconds_since(start);
    double total = 0;
    for (const uint64_t count : operations) total += static_cast<double>(count);
    if (total / elapsed > probe.fma) probe.fma = total / elapsed;
  }
  for (const uint64_t sum : sums) probe.sink += sum;
  const std::lock_guard<std::mutex> lock(probe.mutex);
  probe.finished = true;
  probe.wake.notify_one();
}

}  // namespace
}  // namespace drover

int drover_probe(uint32_t threads, double* read_bytes_per_second, double* fma_flops_per_second, drover_error* error) {
  using namespace drover;
  const Machine& m = machine();
  if (m.kernels == nullptr) {
    if (error != nullptr) *error = m.error;
    return m.error.code;
  }
  Probe probe;
  probe.threads = threads == 0 || threads > pool_threads() ? pool_threads() : threads;
  if (!probe.arena.allocate(kReadBytes))
    return fail(error, DROVER_MEMORY, -1, kReadBytes, 0, "the system refuses memory");
  probe.run = run_probe;
  pool_submit(&probe);
  std::unique_lock<std::mutex> lock(probe.mutex);
  probe.wake.wait(lock, [&] { return probe.finished; });
  *read_bytes_per_second = probe.read;
  *fma_flops_per_second = probe.fma;
  return DROVER_OK;
}
