// Gives a verified program its memory: arenas; prepared panels and small weights decoded to f32, in memory or in a
// file.
#include <condition_variable>
#include <cstring>
#include <mutex>

#include "cpu.h"
#include "kernels/prepare.h"
#include "kernels/rowwise.h"
#include "ops/op.h"
#include "platform.h"
#include "program.h"
#include "status.h"
#include "tables.h"

namespace drover {
namespace {

// One task: some panels of a prepared weight, or all rows of a decoded one.
struct Portion {
  uint32_t weight, begin, end;
};
constexpr uint64_t kPortionBytes = 1u << 20;

// What becomes of prepared bytes: they stay in the arena, go to the draft of a file, or must be what the file holds.
// The last two are made in `staging`, a portion per worker; a file is written, not mapped and filled: a full disk is an
// error that way, not a signal.
enum class Aim { kKeep, kWrite, kCompare, kTables };

struct Preparation : Job {
  drover_program* program;
  const drover_load_options* options;
  std::vector<Portion> portions;
  std::vector<uint64_t> offsets;  // of each weight in the prepared arena, or in the file's content
  uint64_t prepared_bytes = 0, total_bytes = 0;
  Aim aim = Aim::kKeep;
  TableCopies tables;
  Arena staging;
  uint64_t staging_stride = 0;
  std::atomic<uint64_t> done_bytes{0};
  std::atomic<int32_t> bad_weight{-1};
  std::atomic<bool> differs{false};
  std::mutex mutex;
  std::condition_variable wake;
  bool finished = false;
};

// Bytes that one panel of a weight becomes.
uint64_t panel_result_bytes(const Weight& w) {
  if ((w.flags & kPrepare) != 0) return prepared_bytes(w.dtype, kPanel, w.cols);
  return (w.flags & kDecode) != 0 ? uint64_t{kPanel} * w.cols * 4 : 0;
}

uint64_t result_bytes(const Weight& w) {
  if ((w.flags & kPrepare) != 0) return prepared_bytes(w.dtype, w.rows, w.cols);
  return (w.flags & kDecode) != 0 ? uint64_t{w.rows} * w.cols * 4 : 0;
}

bool rows_are_finite(const Weight& w, uint32_t begin, uint32_t end) {
  for (uint32_t row = begin; row < end; row++) {
    const uint8_t* data = w.file + row * w.stride;
    const bool finite = is_rowwise(w.dtype)
                            ? rowwise_is_finite(w.dtype, data, w.cols, (w.flags & kParametersFirst) != 0)
                            : row_is_finite(w.dtype, data, w.cols);
    if (!finite) return false;
  }
  return true;
}

void prepare_rows(const Weight& w, uint32_t first_row, uint32_t rows, uint8_t* out) {
  const uint64_t row = row_bytes(w.dtype, w.cols);
  const uint8_t* source = w.file + first_row * row;
  Scales scales = w.scales;
  if (scales.data != nullptr) scales.data += uint64_t{first_row} * scales.groups * row_bytes(scales.dtype, 1);
  if ((w.flags & kPrepare) != 0) {
    prepare_panels(w.dtype, source, rows, w.cols, 0, (rows + kPanel - 1) / kPanel, out, scales);
  } else {
    for (uint32_t r = 0; r < rows; r++) {
      float* to = reinterpret_cast<float*>(out) + uint64_t{r} * w.cols;
      decode_row(w.dtype, source + r * row, w.cols, to);
      scale_values(scales, r, w.cols, 0, w.cols, to);
    }
  }
}

void prepare_portion(Preparation& job, const Portion& portion, uint32_t worker) {
  drover_program& p = *job.program;
  const Weight& w = p.weights[portion.weight];
  const uint64_t row = w.stride;
  const uint32_t first_row = portion.begin * kPanel;
  const uint32_t last_row = static_cast<uint32_t>(
      uint64_t{portion.end} * kPanel < w.rows ? uint64_t{portion.end} * kPanel : uint64_t{w.rows});
  if (job.options->verify_weights != 0 && !rows_are_finite(w, first_row, last_row)) {
    job.bad_weight.store(static_cast<int32_t>(portion.weight));
  }
  if (job.aim == Aim::kWrite && p.prepared_file.failed()) return;
  if ((w.flags & kTable) != 0) {
    if ((w.flags & kCopy) != 0) copy_rows(p, job.tables, portion.weight, first_row, last_row);
  } else if (w.flags != 0 && job.aim != Aim::kTables) {
    const uint64_t from = portion.begin * panel_result_bytes(w), offset = job.offsets[portion.weight] + from;
    const uint64_t to = portion.end * panel_result_bytes(w), all = result_bytes(w);
    const uint64_t bytes = (to < all ? to : all) - from;
    uint8_t* out =
        job.aim == Aim::kKeep ? p.prepared.data() + offset : job.staging.data() + worker * job.staging_stride;
    prepare_rows(w, first_row, last_row - first_row, out);
    if (job.aim == Aim::kWrite) p.prepared_file.write(offset, out, bytes);
    if (job.aim == Aim::kCompare && std::memcmp(p.prepared_file.content() + offset, out, bytes) != 0) {
      job.differs.store(true);
    }
    if ((w.flags & kPrepare) != 0) {
      drop_pages(*p.regions[w.region], w.offset + first_row * row, (last_row - first_row) * row);
    }
  }
  const uint64_t bytes = (last_row - first_row) * row;
  const uint64_t done = job.done_bytes.fetch_add(bytes) + bytes;
  if (job.options->progress != nullptr) job.options->progress(job.options->user, done, job.total_bytes);
}

// Places the weights one after the other and cuts them into portions.
void plan_preparation(Preparation& job) {
  const std::vector<Weight>& weights = job.program->weights;
  job.tables.plan(*job.program);
  job.offsets.resize(weights.size());
  for (uint32_t i = 0; i < weights.size(); i++) {
    const Weight& w = weights[i];
    job.offsets[i] = job.prepared_bytes;
    job.prepared_bytes += round_up(result_bytes(w), 64);
    const bool table = (w.flags & kTable) != 0;
    if ((table ? !job.tables.copied_here(i) : w.flags == 0) && job.options->verify_weights == 0) continue;
    const uint64_t panel = w.stride * kPanel;
    const uint32_t panels = static_cast<uint32_t>((uint64_t{w.rows} + kPanel - 1) / kPanel);
    const uint32_t step = panel >= kPortionBytes ? 1 : static_cast<uint32_t>(kPortionBytes / panel);
    for (uint32_t begin = 0; begin < panels; begin += step) {
      job.portions.push_back({i, begin, begin + step < panels ? begin + step : panels});
    }
    const uint64_t staged = round_up((step < panels ? step : panels) * panel_result_bytes(w), 64);
    if (staged > job.staging_stride) job.staging_stride = staged;
    job.total_bytes += w.stride * w.rows;
  }
}

void run_preparation(Job* base) {
  Preparation& job = *static_cast<Preparation*>(base);
  const std::atomic<int32_t>* cancel = reinterpret_cast<const std::atomic<int32_t>*>(job.options->cancel);
  // All threads of the pool: a program's own number caps the workers of its steps.
  Team team(pool_threads(), cancel, true);
  team.parallel(static_cast<uint32_t>(job.portions.size()),
                [&](uint32_t task, uint32_t worker) { prepare_portion(job, job.portions[task], worker); });
  const std::lock_guard<std::mutex> lock(job.mutex);
  job.finished = true;
  job.wake.notify_one();
}

drover_code check_cancel(const drover_load_options& options, drover_error* error) {
  if (options.cancel == nullptr || __atomic_load_n(options.cancel, __ATOMIC_RELAXED) == 0) return DROVER_OK;
  return fail(error, DROVER_ABORTED, -1, 0, 0, "loading was aborted");
}

// Runs all portions on the pool, and waits.
drover_code prepare(Preparation& job, Aim aim, drover_error* error) {
  job.aim = aim;
  job.run = run_preparation;
  job.finished = false;
  job.done_bytes.store(0);
  if (!job.portions.empty()) {
    pool_submit(&job);
    std::unique_lock<std::mutex> lock(job.mutex);
    job.wake.wait(lock, [&] { return job.finished; });
  }
  if (const drover_code code = check_cancel(*job.options, error)) return code;
  const int32_t bad = job.bad_weight.load();
  if (bad < 0) return DROVER_OK;
  return fail(error, DROVER_FORMAT, -1, bad, 0, "weight %d holds NaN or infinite values", bad);
}

// Makes a mapped file ready to be read: from disk, or where memory has it already without a fault per page.
drover_code populate(Preparation& job, drover_error* error) {
  constexpr uint64_t kPart = 64u << 20;
  const drover_load_options& options = *job.options;
  for (uint64_t at = 0; at < job.prepared_bytes; at += kPart) {
    if (const drover_code code = check_cancel(options, error)) return code;
    const uint64_t end = job.prepared_bytes - at < kPart ? job.prepared_bytes : at + kPart;
    populate_file_pages(job.program->prepared_file.content() + at, end - at);
    if (options.progress != nullptr) options.progress(options.user, end, job.prepared_bytes);
  }
  return DROVER_OK;
}

// Maps the file of prepared weights, written by whoever came first; with verify_weights its content is compared, too.
drover_code prepare_in_file(Preparation& job, drover_error* error) {
  PreparedFile& file = job.program->prepared_file;
  const drover_load_options& options = *job.options;
  for (;;) {
    if (file.content() == nullptr) {
      if (const drover_code code = file.claim(options.cancel, error)) return code;
    }
    if (file.content() == nullptr) {
      if (const drover_code code = prepare(job, Aim::kWrite, error)) return code;
      if (const drover_code code = file.publish(error)) return code;
      break;
    }
    if (options.verify_weights == 0) {
      // Copies of tables are no part of the file.
      if (job.tables.bytes() == 0) break;
      if (const drover_code code = prepare(job, Aim::kTables, error)) return code;
      break;
    }
    if (const drover_code code = prepare(job, Aim::kCompare, error)) return code;
    if (!job.differs.load()) return DROVER_OK;
    file.reject();
  }
  return populate(job, error);
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
  plan_preparation(job);
  p.weight_bytes = job.prepared_bytes;
  const bool in_file = options.prepared_cache != nullptr && job.prepared_bytes != 0;
  uint64_t staging = 0;
  if (in_file) {
    PreparedFile& file = p.prepared_file;
    if (const drover_code code = file.plan(p, options.prepared_cache, job.offsets, job.prepared_bytes, error))
      return code;
    file.open();
    if (file.content() == nullptr || options.verify_weights != 0) staging = job.staging_stride * pool;
  }
  const uint64_t prepared = in_file ? staging : job.prepared_bytes;
  const uint64_t kv = p.kv_page_bytes * p.kv_pages, scratch = p.scratch_stride * p.threads;
  const uint64_t tables = job.tables.bytes();
  const uint64_t activations = activation_bytes(p);
  const uint64_t total = activations + kv + prepared + scratch + tables + owned_table_bytes(p);
  if (options.memory_budget != 0 && total > options.memory_budget) {
    return fail(error, DROVER_MEMORY, -1, static_cast<int64_t>(total), static_cast<int64_t>(options.memory_budget),
                "needs %llu bytes (activations %llu, KV cache %llu, weights %llu, tables %llu, scratch %llu)",
                static_cast<unsigned long long>(total), static_cast<unsigned long long>(activations),
                static_cast<unsigned long long>(kv), static_cast<unsigned long long>(prepared),
                static_cast<unsigned long long>(tables + owned_table_bytes(p)),
                static_cast<unsigned long long>(scratch));
  }
  if (!p.activations.allocate(activations) || !p.kv.allocate(kv) || !job.staging.allocate(staging) ||
      !p.prepared.allocate(in_file ? 0 : prepared) || !p.scratch.allocate(scratch) || !p.tables.allocate(tables)) {
    return fail(error, DROVER_MEMORY, -1, static_cast<int64_t>(total), 0, "the system refuses %llu bytes",
                static_cast<unsigned long long>(total));
  }
  if (const drover_code code = in_file ? prepare_in_file(job, error) : prepare(job, Aim::kKeep, error)) return code;
  const uint8_t* content = in_file ? p.prepared_file.content() : p.prepared.data();
  for (uint32_t i = 0; i < p.weights.size(); i++) {
    Weight& w = p.weights[i];
    if ((w.flags & kPrepare) != 0) w.prepared = content + job.offsets[i];
    if ((w.flags & kDecode) != 0) w.decoded = reinterpret_cast<const float*>(content + job.offsets[i]);
  }
  place_tables(p, job.tables);
  for (Tensor& tensor : p.tensors) tensor.data = p.activations.data() + tensor.offset;
  p.views.assign(p.block_rows == 0 ? 0 : p.threads, {p.tensors, p.bags, {}});
  for (uint64_t worker = 1; worker < p.views.size(); worker++) {
    for (Tensor& tensor : p.views[worker].tensors) {
      if (tensor.in_block) tensor.data += worker * (p.arena_bytes - p.kept_bytes);
    }
  }
  p.profile.assign(p.ops.size() * profile_words(p.threads), 0);
  p.worker_times.assign(p.threads, {});
  p.page_writer.assign(p.kv_pages, 0);
  p.page_step.assign(p.kv_pages, 0);
  return DROVER_OK;
}

}  // namespace drover
