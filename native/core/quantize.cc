// Rows of one stored format into another, on the pool.
#include <condition_variable>
#include <mutex>
#include <vector>

#include "cpu.h"
#include "kernels/encode.h"
#include "kernels/prepare.h"
#include "kernels/rowwise.h"
#include "pool.h"
#include "status.h"

namespace drover {
namespace {

constexpr uint64_t kTaskElements = 1u << 15;
constexpr uint32_t kMostWholeRow = 1u << 24;  // columns; each worker holds a row as floats

struct Quantization : Job {
  DType from, to;
  const uint8_t* source;
  uint8_t* out;
  const float* importance;
  uint32_t rows, cols, rows_per_task, threads;
  bool finite;
  const KernelTable* kernels;
  const std::atomic<int32_t>* cancel;
  std::atomic<uint64_t> first_bad{UINT64_MAX};  // element index of the first block that cannot be stored

  std::mutex mutex;
  std::condition_variable wake;
  bool finished = false;
};

void report_bad(Quantization& job, uint64_t element) {
  uint64_t known = job.first_bad.load(std::memory_order_relaxed);
  while (element < known && !job.first_bad.compare_exchange_weak(known, element)) {
  }
}

void quantize_row(Quantization& job, uint32_t row) {
  const uint64_t from_bytes = row_bytes(job.from, job.cols), to_bytes = row_bytes(job.to, job.cols);
  const uint8_t* source = job.source + row * from_bytes;
  uint8_t* out = job.out + row * to_bytes;
  float values[kEncodePiece];
  for (uint32_t at = 0; at < job.cols; at += kEncodePiece) {
    const uint32_t count = job.cols - at < kEncodePiece ? job.cols - at : kEncodePiece;
    decode_row(job.from, source + row_bytes(job.from, at), count, values);
    uint8_t* piece = out + row_bytes(job.to, at);
    encode_row(*job.kernels, job.to, values, job.importance != nullptr ? job.importance + at : nullptr, count, piece);
    if (job.finite && !row_is_finite(job.to, piece, count)) report_bad(job, uint64_t{row} * job.cols + at);
  }
}

// Scale and bias follow from a whole row.
void quantize_whole_row(Quantization& job, uint32_t row, float* values) {
  const uint8_t* source = job.source + row * row_bytes(job.from, job.cols);
  uint8_t* out = job.out + row * row_bytes(job.to, job.cols);
  if (is_rowwise(job.from)) {
    decode_rowwise(job.from, source, job.cols, false, values);
  } else {
    decode_row(job.from, source, job.cols, values);
  }
  if (is_rowwise(job.to)) {
    encode_rowwise(job.to, values, job.cols, out);
    if (!rowwise_is_finite(job.to, out, job.cols, false)) report_bad(job, uint64_t{row} * job.cols);
  } else {
    encode_row(*job.kernels, job.to, values, job.importance, job.cols, out);
    if (job.finite && !row_is_finite(job.to, out, job.cols)) report_bad(job, uint64_t{row} * job.cols);
  }
}

void run_quantization(Job* base) {
  Quantization& job = *static_cast<Quantization*>(base);
  Team team(job.threads, job.cancel, true);
  const uint32_t tasks = (job.rows + job.rows_per_task - 1) / job.rows_per_task;
  team.parallel(tasks, [&](uint32_t task, uint32_t) {
    const uint32_t begin = task * job.rows_per_task;
    const uint32_t end = job.rows - begin < job.rows_per_task ? job.rows : begin + job.rows_per_task;
    if (is_rowwise(job.from) || is_rowwise(job.to)) {
      std::vector<float> values(job.cols);
      for (uint32_t row = begin; row < end && !team.cancelled(); row++) quantize_whole_row(job, row, values.data());
    } else {
      for (uint32_t row = begin; row < end && !team.cancelled(); row++) quantize_row(job, row);
    }
  });
  const std::lock_guard<std::mutex> lock(job.mutex);
  job.finished = true;
  job.wake.notify_one();
}

}  // namespace
}  // namespace drover

uint32_t drover_can_quantize(uint32_t dtype) {
  using namespace drover;
  const KernelTable* kernels = machine().kernels;
  return kernels != nullptr && dtype < kDTypeCount &&
                 (can_encode(*kernels, static_cast<DType>(dtype)) || is_rowwise(static_cast<DType>(dtype)))
             ? 1
             : 0;
}

int drover_quantize(uint32_t from, const uint8_t* source, uint64_t source_bytes, uint32_t to, uint8_t* out,
                    uint64_t out_bytes, uint32_t rows, uint32_t cols, const drover_quantize_options* options,
                    drover_error* error) {
  using namespace drover;
  const Machine& m = machine();
  if (m.kernels == nullptr) {
    if (error != nullptr) *error = m.error;
    return m.error.code;
  }
  if (options == nullptr || options->struct_bytes != sizeof *options || source == nullptr || out == nullptr) {
    return fail(error, DROVER_ARGUMENT, -1, 0, 0, "a source, an output and options of this version are needed");
  }
  if (from >= kDTypeCount || (from >= static_cast<uint32_t>(DType::u32) && !is_rowwise(static_cast<DType>(from)))) {
    return fail(error, DROVER_ARGUMENT, -1, from, 0, "rows of this dtype are not read");
  }
  if (drover_can_quantize(to) == 0) return fail(error, DROVER_UNSUPPORTED, -1, to, 0, "no encoder for this dtype");
  Quantization job;
  job.from = static_cast<DType>(from);
  job.to = static_cast<DType>(to);
  // A row of codes with one scale need not hold whole blocks.
  const uint32_t from_block = is_rowwise(job.from) ? 1 : elements_of(job.from);
  const uint32_t to_block = is_rowwise(job.to) ? 1 : elements_of(job.to);
  if (rows == 0 || cols == 0 || cols % from_block != 0 || cols % to_block != 0) {
    return fail(error, DROVER_SHAPE, -1, cols, to_block, "rows hold whole blocks");
  }
  if (rows > 1u << 31 || cols > 1u << 31) {
    return fail(error, DROVER_SHAPE, -1, rows > cols ? rows : cols, int64_t{1} << 31, "rows and columns have 32 bits");
  }
  if ((is_rowwise(job.from) || is_rowwise(job.to)) && cols > kMostWholeRow) {
    return fail(error, DROVER_SHAPE, -1, cols, kMostWholeRow, "rows with one scale are no wider");
  }
  const uint64_t from_row = row_bytes(job.from, cols), to_row = row_bytes(job.to, cols);
  if (source_bytes / from_row != rows || source_bytes % from_row != 0) {
    return fail(error, DROVER_SHAPE, -1, static_cast<int64_t>(source_bytes), static_cast<int64_t>(from_row * rows),
                "the source has the wrong size");
  }
  if (out_bytes / to_row != rows || out_bytes % to_row != 0) {
    return fail(error, DROVER_SHAPE, -1, static_cast<int64_t>(out_bytes), static_cast<int64_t>(to_row * rows),
                "the output has the wrong size");
  }
  job.run = run_quantization;
  job.kernels = m.kernels;
  job.source = source;
  job.out = out;
  job.importance = options->importance;
  job.rows = rows;
  job.cols = cols;
  job.rows_per_task = cols >= kTaskElements ? 1 : static_cast<uint32_t>(kTaskElements / cols);
  const uint32_t pool = pool_threads();
  job.threads = options->threads == 0 || options->threads > pool ? pool : options->threads;
  // Block formats hold finite numbers; floats may be anything unless the caller says otherwise.
  job.finite = to_block > 1 || options->finite != 0;
  job.cancel = reinterpret_cast<const std::atomic<int32_t>*>(options->cancel);
  pool_submit(&job);
  {
    std::unique_lock<std::mutex> lock(job.mutex);
    job.wake.wait(lock, [&] { return job.finished; });
  }
  if (job.cancel != nullptr && job.cancel->load() != 0) {
    return fail(error, DROVER_ABORTED, -1, 0, 0, "quantising was aborted");
  }
  const uint64_t bad = job.first_bad.load();
  if (bad != UINT64_MAX) {
    return fail(error, DROVER_RANGE, -1, static_cast<int64_t>(bad), 0,
                "the format cannot hold a number: not finite or too large");
  }
  return DROVER_OK;
}
