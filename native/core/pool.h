// One thread pool per process. Its leader takes whole steps from a queue, in order; inside a step the helpers share an
// op's tasks with it, one by one, so that a core that is taken away delays no more than one task. A thread that would
// wait for its step anyway leads it itself when nobody else does. Threads spin briefly, then park, and are woken only
// for steps that last longer than that takes. The pool is never torn down: process exit may come while it works.
#ifndef DROVER_CORE_POOL_H_
#define DROVER_CORE_POOL_H_

#include <atomic>
#include <chrono>
#include <cstdint>

namespace drover {

inline uint64_t now_ns() {
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
          .count());
}

// A worker's time in tasks; a cache line of its own, for all workers add to theirs at the same time.
struct alignas(64) WorkerTime {
  uint64_t busy_ns = 0;
};

// One step's run on the pool; made on the leader's stack.
class Team {
 public:
  // long_tasks: helpers are woken at once, not when the run has lasted a while.
  Team(uint32_t threads, const std::atomic<int32_t>* cancel, bool long_tasks = false)
      : threads_(threads), cancel_(cancel), begin_ns_(long_tasks ? 0 : now_ns()) {}
  // A worker of another team by itself.
  static Team alone(uint32_t worker, const std::atomic<int32_t>* cancel) {
    Team team(1, cancel, true);
    team.worker_ = worker;
    return team;
  }
  uint32_t threads() const { return threads_; }
  bool cancelled() const { return cancel_ != nullptr && cancel_->load(std::memory_order_relaxed) != 0; }
  // From here on every task's time is added to its worker's; null: no clock is looked at.
  void measure(WorkerTime* times) { times_ = times; }
  // Nanoseconds that the leader has spent in parallel(), measured as above.
  uint64_t parallel_ns() const { return parallel_ns_; }
  // Calls body(task, worker) for every task in [0, count), worker in [0, threads); returns when all are done. After a
  // cancel the remaining tasks are skipped.
  template <typename Body>
  void parallel(uint32_t count, Body body) {
    run(
        count, [](void* context, uint32_t task, uint32_t worker) { (*static_cast<Body*>(context))(task, worker); },
        &body);
  }

 private:
  using Function = void (*)(void* context, uint32_t task, uint32_t worker);
  void run(uint32_t count, Function function, void* context);
  void share(uint32_t count, Function function, void* context);
  uint32_t threads_, worker_ = 0;
  const std::atomic<int32_t>* cancel_;
  uint64_t begin_ns_;
  WorkerTime* times_ = nullptr;
  uint64_t parallel_ns_ = 0;
};

struct Job {
  void (*run)(Job* job);  // on the leader; must free or signal its owner as its last act
  Job* next = nullptr;
};

uint32_t pool_threads();
// Queues a job; it runs after those before it.
void pool_submit(Job* job);
// Runs a job on the calling thread if nobody leads and none waits, else queues it: the caller must wait for its end.
void pool_lead(Job* job);
// Runs a job on the calling thread if nobody leads and none waits; false, and the job is untouched, otherwise.
bool pool_try_lead(Job* job);

}  // namespace drover

#endif  // DROVER_CORE_POOL_H_
