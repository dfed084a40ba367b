// One thread pool per process. Its leader takes whole steps from a queue, in order; inside a step the helpers share an
// op's tasks with it, one by one, so that a core that is taken away delays no more than one task. Threads spin briefly,
// then park. The pool is never torn down: process exit may come while it works.
#ifndef DROVER_CORE_POOL_H_
#define DROVER_CORE_POOL_H_

#include <atomic>
#include <cstdint>

namespace drover {

// One step's run on the pool; made on the leader's stack.
class Team {
 public:
  Team(uint32_t threads, const std::atomic<int32_t>* cancel) : threads_(threads), cancel_(cancel) {}
  uint32_t threads() const { return threads_; }
  bool cancelled() const { return cancel_ != nullptr && cancel_->load(std::memory_order_relaxed) != 0; }
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
  uint32_t threads_;
  const std::atomic<int32_t>* cancel_;
};

struct Job {
  void (*run)(Job* job);  // on the leader; must free or signal its owner as its last act
  Job* next = nullptr;
};

uint32_t pool_threads();
// Queues a job; it runs after those before it.
void pool_submit(Job* job);

}  // namespace drover

#endif  // DROVER_CORE_POOL_H_
