#include "pool.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "cpu.h"
#include "platform.h"

namespace drover {
namespace {

using Clock = std::chrono::steady_clock;
// Longer than the serial parts of a step and the turn of the event loop between two steps.
constexpr auto kSpin = std::chrono::microseconds(150);
// Waking a parked helper costs the leader a system call and, where its core has gone to sleep, takes about this long:
// a step that has not lasted so long by then is finished sooner alone.
constexpr uint64_t kAloneNs = 30'000;

inline void pause_briefly() {
#if defined(DROVER_X86)
  __builtin_ia32_pause();
#elif defined(DROVER_ARM64)
  __asm__ volatile("isb");  // waits about as long; most cores take "yield" for nothing
#endif
}

// Helpers that a step leaves out stay asleep: each is woken alone.
struct alignas(64) Helper {
  std::atomic<uint32_t> parked{0};
};

struct Pool {
  // The region that is open: helpers enter (inside), see it open, take tasks, leave. The leader closes it and waits
  // for inside to become 0 before it changes the fields again.
  alignas(64) std::atomic<uint32_t> epoch{0};
  alignas(64) std::atomic<uint32_t> next{0};
  alignas(64) std::atomic<uint32_t> inside{0};
  alignas(64) std::atomic<bool> open{false};
  uint32_t count = 0, helpers = 0;
  void (*function)(void*, uint32_t, uint32_t) = nullptr;
  void* context = nullptr;
  const std::atomic<int32_t>* cancel = nullptr;

  std::mutex leading;  // held for a job's run
  std::mutex mutex;
  std::condition_variable wake;
  Job* first = nullptr;
  Job** last = &first;
  std::atomic<uint32_t> queued{0};
  uint32_t threads = 1;
  std::vector<Helper> sleepers;  // by worker

  bool some_parked() const {
    for (uint32_t worker = 1; worker <= helpers; worker++) {
      if (sleepers[worker].parked.load() != 0) return true;
    }
    return false;
  }
  void wake_helpers() {
    for (uint32_t worker = 1; worker <= helpers; worker++) {
      std::atomic<uint32_t>& parked = sleepers[worker].parked;
      if (parked.exchange(0) != 0) parked.notify_one();
    }
  }

  // Wakes parked helpers before its next task once `wake_at` has passed (0: wakes nobody).
  void take_tasks(uint32_t worker, uint64_t wake_at) {
    for (;;) {
      if (wake_at != 0 && now_ns() > wake_at) {
        wake_helpers();
        wake_at = 0;
      }
      const uint32_t task = next.fetch_add(1, std::memory_order_relaxed);
      if (task >= count) return;
      if (cancel == nullptr || cancel->load(std::memory_order_relaxed) == 0) function(context, task, worker);
    }
  }

  void help(uint32_t worker) {
    std::atomic<uint32_t>& parked = sleepers[worker].parked;
    uint32_t seen = 0;
    auto deadline = Clock::now() + kSpin;
    for (;;) {
      uint32_t now;
      for (uint32_t turn = 0; (now = epoch.load(std::memory_order_acquire)) == seen; turn++) {
        pause_briefly();
        if (turn % 64 == 63 && Clock::now() > deadline) {
          parked.store(1);
          if (epoch.load() == seen) parked.wait(1);
          parked.store(0);
        }
      }
      seen = now;
      inside.fetch_add(1);
      const bool wanted = open.load() && worker <= helpers;
      if (wanted) take_tasks(worker, 0);
      inside.fetch_sub(1);
      // Regions of a step that leaves this helper out do not keep it awake.
      if (wanted) deadline = Clock::now() + kSpin;
    }
  }

  Job* take_job() {
    const auto deadline = Clock::now() + kSpin;
    for (uint32_t turn = 0; queued.load(std::memory_order_acquire) == 0; turn++) {
      pause_briefly();
      if (turn % 64 == 63 && Clock::now() > deadline) break;
    }
    std::unique_lock<std::mutex> lock(mutex);
    wake.wait(lock, [&] { return first != nullptr; });
    Job* job = first;
    first = job->next;
    if (first == nullptr) last = &first;
    return job;
  }

  void lead() {
    for (;;) {
      Job* job = take_job();
      const std::lock_guard<std::mutex> lock(leading);
      // Counted until here, so that others do not lead again and again while this job waits.
      queued.fetch_sub(1, std::memory_order_relaxed);
      job->run(job);
    }
  }
};

Pool& pool() {
  static Pool* instance = [] {
    Pool* p = new Pool;
    p->threads = machine().info.threads;
    p->sleepers = std::vector<Helper>(p->threads);
    std::thread([p] {
      name_thread("drover-0");
      p->lead();
    }).detach();
    for (uint32_t worker = 1; worker < p->threads; worker++) {
      std::thread([p, worker] {
        name_thread("drover-helper");
        p->help(worker);
      }).detach();
    }
    return p;
  }();
  return *instance;
}

}  // namespace

uint32_t pool_threads() { return machine().info.threads; }

void pool_submit(Job* job) {
  Pool& p = pool();
  {
    const std::lock_guard<std::mutex> lock(p.mutex);
    job->next = nullptr;
    *p.last = job;
    p.last = &job->next;
    p.queued.fetch_add(1, std::memory_order_release);
  }
  p.wake.notify_one();
}

bool pool_try_lead(Job* job) {
  Pool& p = pool();
  if (p.queued.load(std::memory_order_acquire) != 0) return false;
  const std::unique_lock<std::mutex> lock(p.leading, std::try_to_lock);
  if (lock.owns_lock()) job->run(job);
  return lock.owns_lock();
}

void pool_lead(Job* job) {
  if (!pool_try_lead(job)) pool_submit(job);
}

void Team::run(uint32_t count, Function function, void* context) {
  if (count == 0) return;
  if (times_ == nullptr) return share(count, function, context);
  struct Timed {
    Function function;
    void* context;
    WorkerTime* times;
  } timed{function, context, times_};
  const uint64_t start = now_ns();
  share(
      count,
      [](void* opaque, uint32_t task, uint32_t worker) {
        const Timed& t = *static_cast<Timed*>(opaque);
        const uint64_t begin = now_ns();
        t.function(t.context, task, worker);
        t.times[worker].busy_ns += now_ns() - begin;
      },
      &timed);
  parallel_ns_ += now_ns() - start;
}

void Team::share(uint32_t count, Function function, void* context) {
  if (threads_ == 1 || count == 1) {
    for (uint32_t task = 0; task < count && !cancelled(); task++) function(context, task, worker_);
    return;
  }
  Pool& p = pool();
  p.count = count;
  p.function = function;
  p.context = context;
  p.cancel = cancel_;
  p.helpers = (threads_ < count ? threads_ : count) - 1;
  p.next.store(0, std::memory_order_relaxed);
  p.open.store(true);
  p.epoch.fetch_add(1);
  p.take_tasks(0, p.some_parked() ? begin_ns_ + kAloneNs : 0);
  p.open.store(false);
  for (uint32_t turn = 0; p.inside.load() != 0; turn++) {
    if (turn < 4096) {
      pause_briefly();
    } else {
      std::this_thread::yield();
    }
  }
}

}  // namespace drover
