// The machine's limits, measured on the pool with the kernel set in use.
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <vector>

#include "cpu.h"
#include "program.h"
#include "status.h"

namespace drover {
namespace {

// A limit is the best of so many loops: whatever else runs on the machine can only slow one down.
constexpr uint32_t kReadLoops = 8, kComputeLoops = 24;
constexpr uint32_t kReadTasks = 64;
constexpr uint64_t kReadUnit = 256, kLeastBuffer = 1u << 20, kUsualBuffer = 512u << 20;
// Of a loop in registers: long beside a turn of the pool, short beside a turn of the system's scheduler.
constexpr double kLoopSeconds = 0.005;

using Loop = uint64_t (*)(uint32_t rounds);

struct Probe : Job {
  uint32_t threads;
  Arena arena;
  drover_limits limits{};
  uint64_t sink = 0;
  std::mutex mutex;
  std::condition_variable wake;
  bool finished = false;
};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double read_rate(Probe& probe, Team& team, const KernelTable& kernels) {
  double best = 0;
  uint64_t sums[kReadTasks] = {};
  const uint64_t portion = probe.arena.bytes() / kReadTasks / kReadUnit * kReadUnit;
  for (uint32_t loop = 0; loop <= kReadLoops; loop++) {  // the first one touches the pages
    const auto start = std::chrono::steady_clock::now();
    team.parallel(kReadTasks, [&](uint32_t task, uint32_t) {
      uint8_t* data = probe.arena.data() + task * portion;
      if (loop == 0) {
        for (uint64_t i = 0; i < portion; i += 4096) data[i] = 1;
      } else {
        sums[task] += kernels.read_bytes(data, portion);
      }
    });
    const double rate = static_cast<double>(portion * kReadTasks) / seconds_since(start);
    if (loop > 0 && rate > best) best = rate;
  }
  for (const uint64_t sum : sums) probe.sink += sum;
  return best;
}

// Operations per second of all workers together.
double compute_rate(Team& team, Loop loop) {
  std::vector<uint64_t> operations(team.threads());
  const auto run = [&](uint32_t rounds) {
    const auto start = std::chrono::steady_clock::now();
    team.parallel(team.threads(), [&](uint32_t task, uint32_t) { operations[task] = loop(rounds); });
    return seconds_since(start);
  };
  uint32_t rounds = 1024;
  while (rounds < (1u << 28) && run(rounds) < kLoopSeconds) rounds *= 2;
  double best = 0;
  for (uint32_t i = 0; i < kComputeLoops; i++) {
    const double seconds = run(rounds);
    double total = 0;
    for (const uint64_t count : operations) total += static_cast<double>(count);
    if (total / seconds > best) best = total / seconds;
  }
  return best;
}

void run_probe(Job* base) {
  Probe& probe = *static_cast<Probe*>(base);
  const Machine& m = machine();
  Team team(probe.threads, nullptr, true);
  probe.limits.read_bytes_per_second = read_rate(probe, team, *m.kernels);
  probe.limits.f32_per_second = compute_rate(team, m.kernels->fma_loop);
  probe.limits.int8_per_second = compute_rate(team, m.kernels->byte_dot_loop);
  if (m.kernels->bf16_dot_loop != nullptr) probe.limits.bf16_per_second = compute_rate(team, m.kernels->bf16_dot_loop);
  const std::lock_guard<std::mutex> lock(probe.mutex);
  probe.finished = true;
  probe.wake.notify_one();
}

// Every turn takes other rows, and their number is more than the caches of a machine remember of the turn before.
constexpr uint32_t kGatherLookups = 1u << 18, kGatherTurns = 4, kDistances[] = {8, 16, 32, 64, 96, 128, 192, 256};

struct Gather : Job {
  uint32_t threads;
  Arena arena;
  drover_gather* result;
  uint64_t sink = 0;
  std::mutex mutex;
  std::condition_variable wake;
  bool finished = false;
};

void run_gather(Job* base) {
  Gather& g = *static_cast<Gather*>(base);
  const RecommendKernels& kernels = *machine().recommend;
  Team team(g.threads, nullptr, true);
  const uint64_t pages = g.arena.bytes() / 4096;
  team.parallel(kReadTasks, [&](uint32_t task, uint32_t) {
    for (uint64_t page = pages * task / kReadTasks; page < pages * (task + 1) / kReadTasks; page++)
      g.arena.data()[page * 4096] = 1;
  });
  std::vector<uint32_t> indices(uint64_t{kGatherLookups} * team.threads());
  std::vector<uint64_t> sums(team.threads());
  uint64_t state = 1;
  for (uint32_t turn = 0; turn < kGatherTurns; turn++) {
    for (const uint32_t distance : kDistances) {
      for (const bool near : {false, true}) {
        for (uint32_t& index : indices) {
          state = state * 6364136223846793005u + 1442695040888963407u;
          index = static_cast<uint32_t>((state >> 32) * g.result->rows >> 32);
        }
        const auto start = std::chrono::steady_clock::now();
        team.parallel(team.threads(), [&](uint32_t task, uint32_t) {
          const GatherWork work{g.arena.data(), g.result->stride, g.result->row_bytes,
                                indices.data() + uint64_t{task} * kGatherLookups, kGatherLookups};
          sums[task] += kernels.gather(work, distance, near);
        });
        const double rate = static_cast<double>(indices.size()) / seconds_since(start);
        if (rate <= g.result->rows_per_second) continue;
        g.result->rows_per_second = rate;
        g.result->distance = distance;
      }
    }
  }
  for (const uint64_t sum : sums) g.sink += sum;
  const std::lock_guard<std::mutex> lock(g.mutex);
  g.finished = true;
  g.wake.notify_one();
}

}  // namespace
}  // namespace drover

int drover_probe_gather(uint32_t threads, drover_gather* gather, drover_error* error) {
  using namespace drover;
  const Machine& m = machine();
  if (m.kernels == nullptr) {
    if (error != nullptr) *error = m.error;
    return m.error.code;
  }
  constexpr uint64_t kMostBytes = uint64_t{1} << 40, kMostStride = 1u << 20;
  if (gather == nullptr || gather->rows == 0 || gather->rows > UINT32_MAX || gather->row_bytes == 0 ||
      gather->stride < gather->row_bytes || gather->stride > kMostStride ||
      gather->rows > kMostBytes / gather->stride) {
    return fail(error, DROVER_ARGUMENT, -1, 0, 0, "a table of rows that do not overlap is needed");
  }
  Gather job;
  job.threads = threads == 0 || threads > pool_threads() ? pool_threads() : threads;
  job.result = gather;
  gather->rows_per_second = 0;
  const uint64_t bytes = gather->rows * gather->stride;
  if (!job.arena.allocate(bytes))
    return fail(error, DROVER_MEMORY, -1, static_cast<int64_t>(bytes), 0, "the system refuses memory");
  job.run = run_gather;
  pool_submit(&job);
  std::unique_lock<std::mutex> lock(job.mutex);
  job.wake.wait(lock, [&] { return job.finished; });
  return DROVER_OK;
}

int drover_probe(uint32_t threads, uint64_t buffer_bytes, drover_limits* out, drover_error* error) {
  using namespace drover;
  const Machine& m = machine();
  if (m.kernels == nullptr) {
    if (error != nullptr) *error = m.error;
    return m.error.code;
  }
  Probe probe;
  probe.threads = threads == 0 || threads > pool_threads() ? pool_threads() : threads;
  const uint64_t beyond_caches = m.info.l3_bytes * 8 > kUsualBuffer ? m.info.l3_bytes * 8 : kUsualBuffer;
  const uint64_t wanted = buffer_bytes == 0 ? beyond_caches : buffer_bytes;
  const uint64_t bytes = wanted < kLeastBuffer ? kLeastBuffer : wanted;
  if (!probe.arena.allocate(bytes))
    return fail(error, DROVER_MEMORY, -1, static_cast<int64_t>(bytes), 0, "the system refuses memory");
  probe.limits.buffer_bytes = bytes;
  probe.run = run_probe;
  pool_submit(&probe);
  std::unique_lock<std::mutex> lock(probe.mutex);
  probe.wake.wait(lock, [&] { return probe.finished; });
  *out = probe.limits;
  return DROVER_OK;
}
