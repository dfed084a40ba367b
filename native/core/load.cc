// Gives a verified program its memory: arenas, prepared panels, small weights decoded to f32.
#include <condition_variable>
#include <mutex>

#include "cpu.h"
#include "kernels/prepare.h"
#include "ops/op.h"
#include "program.h"
#include "status.h"

namespace drover {
namespace {

// One task: some panels of a prepared weight, or all rows of a decoded one.
struct Portion {
  uint32_t weight, begin, end;
};
constexpr uint64_t kPortionBytes = 1u << 20;

struct Preparation : Job {
  drover_program* program;
  const drover_load_options* options;
  std::vector<Portion> portions;
  std::vector<uint64_t> offsets;  // of each weight in the prepared arena
  uint64_t total_bytes = 0;
  std::atomic<uint64_t> done_bytes{0};
  std::atomic<int32_t> bad_weight{-1};
  std::mutex mutex;
  std::condition_variable wake;
  bool finished = false;
};

bool rows_are_finite(const Weight& w, uint32_t begin, uint32_t end) {
  for (uint32_t row = begin; row < end; row++) {
    if (!row_is_finite(w.dtype, w.file + row * row_bytes(w.dtype, w.cols), w.cols)) return false;
  }
  return true;
}

void prepare_portion(Preparation& job, const Portion& portion) {
  drover_program& p = *job.program;
  const Weight& w = p.weights[portion.weight];
  const uint64_t row = row_bytes(w.dtype, w.cols);
  const uint32_t first_row = portion.begin * kPanel;
  const uint32_t last_row = portion.end * kPanel < w.rows ? portion.end * kPanel : w.rows;
  if (job.options->verify_weights != 0 && !rows_are_finite(w, first_row, last_row)) {
    job.bad_weight.store(static_cast<int32_t>(portion.weight));
  }
  uint8_t* out = p.prepared.data() + job.offsets[portion.weight];
  if ((w.flags & kPrepare) != 0) {
    prepare_panels(w.dtype, w.file, w.rows, w.cols, portion.begin, portion.end, out, w.scales);
    drop_pages(*p.regions[w.region], w.offset + first_row * row, (last_row - first_row) * row);
  } else if ((w.flags & kDecode) != 0) {
    for (uint32_t r = first_row; r < last_row; r++) {
      float* to = reinterpret_cast<float*>(out) + uint64_t{r} * w.cols;
      decode_row(w.dtype, w.file + r * row, w.cols, to);
      scale_values(w.scales, r, w.cols, 0, w.cols, to);
    }
  }
  const uint64_t bytes = (last_row - first_row) * row;
  const uint64_t done = job.done_bytes.fetch_add(bytes) + bytes;
  if (job.options->progress != nullptr) job.options->progress(job.options->user, done, job.total_bytes);
}

void run_preparation(Job* base) {
  Preparation& job = *static_cast<Preparation*>(base);
  const std::atomic<int32_t>* cancel = reinterpret_cast<const std::atomic<int32_t>*>(job.options->cancel);
  // All threads of the pool: a program's own number caps the workers of its steps.
  Team team(pool_threads(), cancel);
  team.parallel(static_cast<uint32_t>(job.portions.size()),
                [&](uint32_t task, uint32_t) { prepare_portion(job, job.portions[task]); });
  const std::lock_guard<std::mutex> lock(job.mutex);
  job.finished = true;
  job.wake.notify_one();
}

}  // namespace

drover_code load_program(drover_program& p, const drover_load_options& options, drover_error* error) {
  const uint32_t pool = pool_threads();
  p.threads = options.threads == 0 || options.threads > pool ? pool : options.threads;
  for (const Op& op : p.ops) {
    const ScratchFunction scratch = kOps[op.opcode].implementation->scratch;
    const uint64_t bytes = scratch == nullptr ? 0 : round_up(scratch(p, op), 64);
    if (bytes > p.scratch_stride) p.scratch_stride = bytes;
  }
  Preparation job;
  job.program = &p;
  job.options = &options;
  job.offsets.resize(p.weights.size());
  uint64_t prepared = 0;
  for (uint32_t i = 0; i < p.weights.size(); i++) {
    const Weight& w = p.weights[i];
    job.offsets[i] = prepared;
    if ((w.flags & kPrepare) != 0) prepared += round_up(prepared_bytes(w.dtype, w.rows, w.cols), 64);
    if ((w.flags & kDecode) != 0) prepared += round_up(uint64_t{w.rows} * w.cols * 4, 64);
    if (w.flags == 0 && options.verify_weights == 0) continue;
    const uint64_t panel = row_bytes(w.dtype, w.cols) * kPanel;
    const uint32_t panels = (w.rows + kPanel - 1) / kPanel;
    const uint32_t step = panel >= kPortionBytes ? 1 : static_cast<uint32_t>(kPortionBytes / panel);
    for (uint32_t begin = 0; begin < panels; begin += step) {
      job.portions.push_back({i, begin, begin + step < panels ? begin + step : panels});
    }
    job.total_bytes += row_bytes(w.dtype, w.cols) * w.rows;
  }
  const uint64_t kv = p.kv_page_bytes * p.kv_pages, scratch = p.scratch_stride * p.threads;
  const uint64_t total = p.arena_bytes + kv + prepared + scratch;
  if (options.memory_budget != 0 && total > options.memory_budget) {
    return fail(error, DROVER_MEMORY, -1, static_cast<int64_t>(total), static_cast<int64_t>(options.memory_budget),
                "needs %llu bytes (activations %llu, KV cache %llu, weights %llu, scratch %llu)",
                static_cast<unsigned long long>(total), static_cast<unsigned long long>(p.arena_bytes),
                static_cast<unsigned long long>(kv), static_cast<unsigned long long>(prepared),
                static_cast<unsigned long long>(scratch));
  }
  if (!p.activations.allocate(p.arena_bytes) || !p.kv.allocate(kv) || !p.prepared.allocate(prepared) ||
      !p.scratch.allocate(scratch)) {
    return fail(error, DROVER_MEMORY, -1, static_cast<int64_t>(total), 0, "the system refuses %llu bytes",
                static_cast<unsigned long long>(total));
  }
  if (!job.portions.empty()) {
    job.run = run_preparation;
    pool_submit(&job);
    std::unique_lock<std::mutex> lock(job.mutex);
    job.wake.wait(lock, [&] { return job.finished; });
  }
  if (options.cancel != nullptr && __atomic_load_n(options.cancel, __ATOMIC_RELAXED) != 0) {
    return fail(error, DROVER_ABORTED, -1, 0, 0, "loading was aborted");
  }
  if (job.bad_weight.load() >= 0) {
    return fail(error, DROVER_FORMAT, -1, job.bad_weight.load(), 0, "weight %d holds NaN or infinite values",
                job.bad_weight.load());
  }
  for (uint32_t i = 0; i < p.weights.size(); i++) {
    Weight& w = p.weights[i];
    const uint8_t* at = p.prepared.data() + job.offsets[i];
    if ((w.flags & kPrepare) != 0) w.prepared = at;
    if ((w.flags & kDecode) != 0) w.decoded = reinterpret_cast<const float*>(at);
  }
  for (Tensor& tensor : p.tensors) tensor.data = p.activations.data() + tensor.offset;
  p.profile.assign(p.ops.size() * profile_words(p.threads), 0);
  p.worker_times.assign(p.threads, {});
  p.page_writer.assign(p.kv_pages, 0);
  p.page_step.assign(p.kv_pages, 0);
  return DROVER_OK;
}

}  // namespace drover
