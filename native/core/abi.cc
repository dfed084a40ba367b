// The C ABI (drover.h) over the core. Nothing here computes: it checks handles and states, and passes on.
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <new>
#include <thread>

#include "cpu.h"
#include "drover.h"
#include "kernels/kv.h"
#include "kernels/prepare.h"
#include "ops/op.h"
#include "program.h"
#include "status.h"
#include "tables.h"
#include "tuning.h"

using namespace drover;

namespace {

struct DTypeEntry {
  const char* name;
  uint32_t elements, bytes;
};
constexpr DTypeEntry kDTypes[] = {
#define DROVER_DTYPE(name, elements, bytes) {#name, elements, bytes},
#include "kernels/dtypes.def"
#undef DROVER_DTYPE
};

// Claims the program for one operation; every claim is released once.
bool claim(drover_program* program) {
  uint32_t idle = 0;
  return program->busy.compare_exchange_strong(idle, 1, std::memory_order_acquire);
}
void unclaim(drover_program* program) { program->busy.store(0, std::memory_order_release); }

int busy(drover_error* error) { return fail(error, DROVER_BUSY, -1, 0, 0, "the program is running a step"); }

void run_job(Job* base) {
  StepJob* job = static_cast<StepJob*>(base);
  drover_program* program = job->program;
  drover_error error{};
  Step step{};
  drover_code code = decode_step(*program, program->step_words.data(), job->words, step, &error);
  if (code == DROVER_OK) code = run_step(*program, step, &error);
  const drover_done done = job->done;
  void* user = job->user;
  unclaim(program);
  // The program may be gone from here on: `done` gets what it needs by value.
  done(user, code, code == DROVER_OK ? nullptr : &error);
}

struct Waiter {
  std::mutex mutex;
  std::condition_variable wake;
  bool finished = false;
  int code = DROVER_OK;
  drover_error error{};
};

// Checks and copies a step and hands it to the pool by `start`, which says whether the pool has taken it.
int start_step(drover_program* program, const uint8_t* step, uint64_t length, drover_done done, void* user,
               bool (*start)(Job*), drover_error* error) {
  if (program == nullptr || step == nullptr || done == nullptr || length % 4 != 0) {
    return fail(error, DROVER_ARGUMENT, -1, static_cast<int64_t>(length), 0,
                "a program, a step and a callback are needed");
  }
  if (!claim(program)) return busy(error);
  StepJob* job = &program->job;
  program->cancel.store(0, std::memory_order_relaxed);
  job->run = run_job;
  job->program = program;
  job->words = length / 4;
  // Never smaller again: no step of a usual size allocates, and none is filled with zeros first.
  if (job->words > program->step_words.size()) program->step_words.resize(job->words);
  if (length != 0) std::memcpy(program->step_words.data(), step, length);
  job->done = done;
  job->user = user;
  if (start(job)) return DROVER_OK;
  unclaim(program);
  return fail(error, DROVER_BUSY, -1, 0, 0, "the threads run other steps");
}

bool submit(Job* job) {
  pool_submit(job);
  return true;
}
bool lead(Job* job) {
  pool_lead(job);
  return true;
}

// Hands a step to the pool by `start` and waits for its end.
int run_to_end(drover_program* program, const uint8_t* step, uint64_t length, bool (*start)(Job*),
               drover_error* error) {
  Waiter waiter;
  const drover_done done = [](void* user, int code, const drover_error* failure) {
    Waiter* w = static_cast<Waiter*>(user);
    const std::lock_guard<std::mutex> lock(w->mutex);
    w->code = code;
    if (failure != nullptr) w->error = *failure;
    w->finished = true;
    w->wake.notify_one();
  };
  const int started = start_step(program, step, length, done, &waiter, start, error);
  if (started != DROVER_OK) return started;
  std::unique_lock<std::mutex> lock(waiter.mutex);
  waiter.wake.wait(lock, [&] { return waiter.finished; });
  if (waiter.code != DROVER_OK && error != nullptr) *error = waiter.error;
  return waiter.code;
}

int check_rows(const drover_program* program, uint32_t tensor, uint32_t row, uint32_t rows, uint64_t bytes,
               drover_error* error) {
  if (tensor >= program->tensors.size()) {
    return fail(error, DROVER_RANGE, -1, tensor, static_cast<int64_t>(program->tensors.size()), "unknown tensor");
  }
  const Tensor& t = program->tensors[tensor];
  if (row > t.most_rows || rows > t.most_rows - row) {
    return fail(error, DROVER_RANGE, -1, int64_t{row} + rows, t.most_rows, "rows out of range");
  }
  const uint64_t row_size = t.dtype == DType::f32 || t.dtype == DType::u32 ? uint64_t{t.cols} * 4 : t.stride;
  if (bytes != row_size * rows) {
    return fail(error, DROVER_SHAPE, -1, static_cast<int64_t>(bytes), static_cast<int64_t>(row_size * rows),
                "wrong number of bytes");
  }
  return DROVER_OK;
}

}  // namespace

int drover_cpu(drover_cpu_info* out, drover_error* error) {
  const Machine& m = machine();
  if (m.kernels == nullptr) {
    if (error != nullptr) *error = m.error;
    return m.error.code;
  }
  *out = m.info;
  return DROVER_OK;
}

void drover_tuning_get(drover_tuning* out) { *out = tuning(); }
int drover_tuning_set(const drover_tuning* wanted, drover_error* error) { return set_tuning(*wanted, error); }

const char* drover_op_name(uint32_t i) { return i < kOpCount ? kOps[i].name : nullptr; }
const char* drover_op_signature(uint32_t i) { return i < kOpCount ? kOps[i].signature : nullptr; }
const char* drover_dtype_name(uint32_t i) { return i < kDTypeCount ? kDTypes[i].name : nullptr; }

int drover_dtype_block(uint32_t i, uint32_t* elements, uint32_t* bytes) {
  if (i >= kDTypeCount) return DROVER_RANGE;
  *elements = kDTypes[i].elements;
  *bytes = kDTypes[i].bytes;
  return DROVER_OK;
}

uint64_t drover_activation_row_bytes(uint32_t dtype, uint32_t cols) {
  return dtype < kDTypeCount ? activation_row_bytes(static_cast<DType>(dtype), cols) : 0;
}

uint64_t drover_kv_page_bytes(uint32_t kv_dtype, uint32_t layers, uint32_t kv_heads, uint32_t head_dim) {
  if (kv_dtype >= kDTypeCount || !kv_type_known(static_cast<DType>(kv_dtype))) return 0;
  return kv_block_bytes(static_cast<DType>(kv_dtype), head_dim) * kv_heads * layers;
}

uint64_t drover_prepared_bytes(uint32_t dtype, uint32_t rows, uint32_t cols) {
  return dtype < kDTypeCount ? prepared_bytes(static_cast<DType>(dtype), rows, cols) : 0;
}

uint32_t drover_gemm_activations(uint32_t dtype) {
  const Machine& m = machine();
  if (dtype >= kDTypeCount || m.kernels == nullptr || m.kernels->gemm[dtype].run == nullptr) return kDTypeCount;
  return static_cast<uint32_t>(m.kernels->gemm[dtype].activations);
}

int drover_program_load(const uint8_t* bytes, uint64_t length, drover_region* const* regions, uint32_t region_count,
                        const drover_load_options* options, drover_program** out, drover_error* error) {
  if (bytes == nullptr || out == nullptr || (regions == nullptr && region_count != 0) || length % 4 != 0) {
    return fail(error, DROVER_ARGUMENT, -1, static_cast<int64_t>(length), 0,
                "a program of whole words and an output are needed");
  }
  const Machine& m = machine();
  if (m.kernels == nullptr) {
    if (error != nullptr) *error = m.error;
    return m.error.code;
  }
  drover_load_options defaults{};
  if (options != nullptr) {
    if (options->struct_bytes != sizeof defaults) {
      return fail(error, DROVER_ARGUMENT, -1, options->struct_bytes, sizeof defaults, "options of another version");
    }
    defaults = *options;
  }
  drover_program* program = new (std::nothrow) drover_program;
  if (program == nullptr) return fail(error, DROVER_MEMORY, -1, 0, 0, "out of memory");
  program->kernels = m.kernels;
  program->recommend = m.recommend;
  std::vector<uint32_t> words(length / 4);
  if (length != 0) std::memcpy(words.data(), bytes, length);
  drover_code code = decode_program(words.data(), words.size(), regions, region_count, *program, error);
  if (code == DROVER_OK) code = load_program(*program, defaults, error);
  if (code != DROVER_OK) {
    delete program;
    return code;
  }
  *out = program;
  return DROVER_OK;
}

int drover_program_submit(drover_program* program, const uint8_t* step, uint64_t length, drover_done done, void* user,
                          drover_error* error) {
  return start_step(program, step, length, done, user, submit, error);
}

int drover_program_run(drover_program* program, const uint8_t* step, uint64_t length, drover_error* error) {
  return run_to_end(program, step, length, lead, error);
}

int drover_program_try_run(drover_program* program, const uint8_t* step, uint64_t length, drover_error* error) {
  return run_to_end(program, step, length, pool_try_lead, error);
}

void drover_program_abort(drover_program* program) {
  if (program != nullptr) program->cancel.store(1, std::memory_order_relaxed);
}

int drover_program_read(drover_program* program, uint32_t tensor, uint32_t row, uint32_t rows, void* out,
                        uint64_t out_bytes, drover_error* error) {
  if (const int code = check_rows(program, tensor, row, rows, out_bytes, error)) return code;
  if (!claim(program)) return busy(error);
  const Tensor& t = program->tensors[tensor];
  for (uint32_t i = 0; i < rows; i++) {
    std::memcpy(static_cast<uint8_t*>(out) + i * (out_bytes / rows), t.data + (uint64_t{row} + i) * t.stride,
                out_bytes / rows);
  }
  unclaim(program);
  return DROVER_OK;
}

int drover_program_write(drover_program* program, uint32_t tensor, uint32_t row, uint32_t rows, const void* data,
                         uint64_t bytes, drover_error* error) {
  if (const int code = check_rows(program, tensor, row, rows, bytes, error)) return code;
  const Tensor& t = program->tensors[tensor];
  if (t.dtype != DType::f32 && t.dtype != DType::u32) {
    return fail(error, DROVER_ARGUMENT, -1, static_cast<int64_t>(t.dtype), 0,
                "only f32 and u32 tensors can be written");
  }
  if (!claim(program)) return busy(error);
  for (uint32_t i = 0; i < rows; i++) {
    std::memcpy(t.data + (uint64_t{row} + i) * t.stride, static_cast<const uint8_t*>(data) + i * (bytes / rows),
                bytes / rows);
  }
  unclaim(program);
  return DROVER_OK;
}

int drover_program_read_kv(drover_program* program, uint32_t layer, uint32_t kv_head, uint32_t what,
                           const uint32_t* pages, uint32_t positions, float* out, drover_error* error) {
  if (layer >= program->kv_layers)
    return fail(error, DROVER_RANGE, -1, layer, program->kv_layers, "layer out of range");
  if (kv_head >= program->kv_heads)
    return fail(error, DROVER_RANGE, -1, kv_head, program->kv_heads, "kv head out of range");
  if (what > 1) return fail(error, DROVER_RANGE, -1, what, 1, "what is 0 (keys) or 1 (values)");
  for (uint32_t i = 0; i < (uint64_t{positions} + kPagePositions - 1) / kPagePositions; i++) {
    if (pages[i] >= program->kv_pages)
      return fail(error, DROVER_RANGE, -1, pages[i], program->kv_pages, "page out of range");
  }
  if (!claim(program)) return busy(error);
  for (uint32_t i = 0; i < positions; i++) {
    const uint8_t* block = program->kv.data() + pages[i / kPagePositions] * program->kv_page_bytes +
                           (uint64_t{layer} * program->kv_heads + kv_head) * program->kv_block_bytes;
    kv_read(program->kv_dtype, block, program->kv_head_dim, i % kPagePositions, what,
            out + uint64_t{i} * program->kv_head_dim);
  }
  unclaim(program);
  return DROVER_OK;
}

uint32_t drover_program_kv_head_dim(const drover_program* program) { return program->kv_head_dim; }

int drover_program_copy_page(drover_program* program, uint32_t from, uint32_t to, drover_error* error) {
  const uint32_t largest = from > to ? from : to;
  if (largest >= program->kv_pages)
    return fail(error, DROVER_RANGE, -1, largest, program->kv_pages, "page out of range");
  if (!claim(program)) return busy(error);
  if (from != to) {
    std::memcpy(program->kv.data() + to * program->kv_page_bytes, program->kv.data() + from * program->kv_page_bytes,
                program->kv_page_bytes);
  }
  unclaim(program);
  return DROVER_OK;
}

int drover_program_bag_counts(drover_program* program, drover_bag_counts* out, drover_error* error) {
  if (!claim(program)) return busy(error);
  *out = program->bag_counts;
  unclaim(program);
  return DROVER_OK;
}

uint64_t drover_program_resident_bytes(const drover_program* program) { return resident_table_bytes(*program); }

uint32_t drover_program_threads(const drover_program* program) { return program->threads; }

int drover_program_profile(drover_program* program, uint64_t* out, uint64_t count, drover_error* error) {
  if (count != program->profile.size()) {
    return fail(error, DROVER_SHAPE, -1, static_cast<int64_t>(count), static_cast<int64_t>(program->profile.size()),
                "2 + threads numbers per op");
  }
  if (!claim(program)) return busy(error);
  if (count != 0) std::memcpy(out, program->profile.data(), count * sizeof *out);
  unclaim(program);
  return DROVER_OK;
}

int drover_program_memory(drover_program* program, drover_memory* out) {
  *out = {program->activations.bytes(),
          program->kv.bytes(),
          program->prepared.bytes(),
          program->scratch.bytes(),
          program->mapped_bytes,
          program->prepared_file.mapped_bytes(),
          program->tables.bytes() + owned_table_bytes(*program)};
  return DROVER_OK;
}

void drover_program_release(drover_program* program) {
  if (program == nullptr) return;
  while (!claim(program)) {
    drover_program_abort(program);
    std::this_thread::yield();
  }
  delete program;
}
