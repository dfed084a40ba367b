// Matrix product with its epilogue: chooses the kernel for the weight and cuts the work into tasks.
#include "core/cpu.h"
#include "core/tuning.h"
#include "kernels/prepare.h"
#include "kernels/quantize.h"
#include "op.h"

namespace drover {
namespace {

const GemmKernel& kernel_of(const drover_program& program, const Weight& w) {
  return program.kernels->gemm[static_cast<uint32_t>(w.dtype)];
}
// Panels of bf16 multiply rows of bf16 as well.
bool bf16_rows(const Weight& w, const Tensor& x, bool prepared) {
  return prepared && w.dtype == DType::bf16 && x.dtype == DType::bf16;
}

constexpr uint32_t kFewRows = 16;

// Rows and panels per task: what was found best for this machine's caches, unless that makes too few tasks.
struct Tiles {
  uint32_t rows, panels;
};
Tiles tiles_of(uint32_t rows, uint32_t panels, uint32_t depth, uint32_t threads, bool floats, uint64_t bytes) {
  const drover_tuning tuned = tuning();
  Tiles tile{kGemmIntRows, kGemmIntPanels};
  if (floats) {
    tile = {tuned.float_rows, tuned.float_panels};
  } else {
    // Every pair of panels reads the rows again.
    while (uint64_t{tile.rows} * depth > tuned.byte_rows && tile.rows > 24) tile.rows -= 12;
  }
  tile.rows = smaller_of(rows, tile.rows);
  // One tile has all rows, and each thread room for all weights beside them: a share of the rows each, which nobody
  // else reads and packs.
  const uint32_t share = (rows + threads - 1) / threads;
  if (threads > 1 && tile.rows == rows && share >= kFewRows && bytes <= machine().info.l2_bytes / 2)
    return {share, panels};
  const auto tasks = [&] { return ((rows + tile.rows - 1) / tile.rows) * ((panels + tile.panels - 1) / tile.panels); };
  while (threads > 1 && tasks() < threads * 4 && tile.panels > 4) tile.panels /= 2;
  return tile;
}

// Panels of tasks over few rows, where memory is the limit: long streams at first, short ones at last, so that all
// workers end together.
class Portions {
 public:
  Portions(uint32_t panels, uint32_t threads) {
    while (begin_[count_] < panels) {
      const uint32_t left = panels - begin_[count_], share = smaller_of(left / (threads * 4), 256) / 4 * 4;
      const uint32_t even = (left / (kMost - count_) + 4) / 4 * 4;  // no more portions than there is room for
      const uint32_t most = share > even ? share : even;
      begin_[count_ + 1] = begin_[count_] + smaller_of(left, count_ + 1 == kMost ? left : most);
      count_++;
    }
  }
  uint32_t count() const { return count_; }
  uint32_t begin(uint32_t i) const { return begin_[i]; }

 private:
  static constexpr uint32_t kMost = 256;
  uint32_t begin_[kMost + 1] = {0};
  uint32_t count_ = 0;
};
struct Call {
  GemmArgs args;
  GemmFunction kernel;
  uint32_t panels;
};
Call call_of(const Run& run, const Op& op) {
  const Tensor& out = run.tensors[op.argument[0]];
  const Tensor& x = run.tensors[op.argument[1]];
  const Weight& w = run.program.weights[op.argument[2]];
  const KernelTable& kernels = *run.program.kernels;
  Call call{};
  GemmArgs& args = call.args;
  args.x = x.data;
  args.x_stride_bytes = x.stride;
  args.w = w.prepared != nullptr ? w.prepared : w.file;
  args.scales = w.scales;
  args.rows = run.rows_of(out);
  args.cols = w.rows;
  args.depth = w.cols;
  args.y = row_f32(out, 0);
  args.y_stride = out.stride / 4;
  if (op.argument[3] != kNone) args.bias = run.program.weights[op.argument[3]].decoded;
  if (op.argument[4] != kNone) {
    args.residual = row_f32(run.tensors[op.argument[4]], 0);
    args.residual_stride = run.tensors[op.argument[4]].stride / 4;
  }
  args.activation = static_cast<Activation>(op.argument[5]);
  args.follows = tuning().requests == 1;
  call.kernel = bf16_rows(w, x, w.prepared != nullptr) ? kernels.gemm_bf16
                : w.prepared != nullptr                ? kernel_of(run.program, w).run
                                                       : kernels.gemm_decode[static_cast<uint32_t>(w.dtype)];
  call.panels = (args.cols + kPanel - 1) / kPanel;
  return call;
}

// Calls over few rows share one row of tasks: no worker waits for the others between them.
constexpr uint32_t kMostCalls = 4;
void run_few(const Run& run, const Call* calls, uint32_t count) {
  uint32_t panels = 0;
  for (uint32_t i = 0; i < count; i++) panels += calls[i].panels;
  const Portions portions(panels, run.team.threads());
  run.team.parallel(portions.count(), [&](uint32_t task, uint32_t worker) {
    uint32_t begin = portions.begin(task), end = portions.begin(task + 1);
    for (uint32_t i = 0; i < count && begin < end; i++) {
      const Call& call = calls[i];
      const uint32_t to = smaller_of(end, call.panels);
      if (begin < to) {
        call.kernel(call.args, 0, call.args.rows, begin, to, run.scratch(worker));
        begin = to;
      }
      begin -= smaller_of(begin, call.panels);
      end -= smaller_of(end, call.panels);
    }
  });
}

// Whether `next` may run beside `op`: both read x, which therefore keeps its place, and nothing else that an op writes;
// their outputs lie apart (that of an op whose result nobody wants may be the other's place).
bool beside(const Run& run, const Op& op, const Op& next) {
  const Tensor& a = run.tensors[op.argument[0]];
  const Tensor& b = run.tensors[next.argument[0]];
  const uint64_t rows = run.rows_of(a);
  return next.opcode == op.opcode && next.argument[1] == op.argument[1] && next.argument[4] == kNone &&
         (a.data + rows * a.stride <= b.data || b.data + rows * b.stride <= a.data);
}

}  // namespace

const OpImplementation op_gemm = {
    [](Check& c) {
      const Tensor& out = c.tensor(0);
      const Tensor& x = c.tensor(1);
      const Weight& w = c.weight(2);
      c.dtype(out, DType::f32, "gemm writes f32");
      c.same_rows(out, x, "gemm keeps the rows");
      c.cols(x, w.cols, "gemm's input is as wide as its weight");
      c.cols(out, w.rows, "gemm's output has the weight's rows as columns");
      c.apart(out, x, "gemm does not work in place");
      const bool prepared = (w.flags & kPrepare) != 0;
      const DType wanted = prepared ? kernel_of(c.program, w).activations : DType::f32;
      c.require(x.dtype == wanted || bf16_rows(w, x, prepared), "gemm's input has the dtype its weight asks for",
                static_cast<int64_t>(x.dtype), static_cast<int64_t>(wanted));
      c.require(!prepared || w.dtype != DType::i8 || w.cols <= kMostByteDepth, "i8 sums fit 32 bits", w.cols,
                kMostByteDepth);
      if (!c.absent(3)) {
        c.require((c.weight(3).flags & kDecode) != 0, "gemm's bias is decoded", c.weight(3).flags, kDecode);
        c.require(c.weight(3).rows == 1 && c.weight(3).cols == out.cols, "gemm's bias is [1, outputs]",
                  c.weight(3).cols, out.cols);
      }
      if (!c.absent(4)) {
        c.dtype(c.tensor(4), DType::f32, "gemm's residual is f32");
        c.same_rows(c.tensor(4), out, "gemm's residual has the output's rows");
        c.cols(c.tensor(4), out.cols, "gemm's residual has the output's columns");
      }
      c.require(c.word(5) < static_cast<uint32_t>(Activation::kCount), "gemm's activation exists", c.word(5),
                static_cast<int64_t>(Activation::kCount));
    },
    [](const Run& run, const Op& op) {
      const Call call = call_of(run, op);
      const GemmArgs& args = call.args;
      if (args.rows == 0 || args.cols == 0) return;
      if (args.rows <= kFewRows) return run_few(run, &call, 1);
      const DType type = run.tensors[op.argument[1]].dtype;
      const bool floats = type == DType::f32 || type == DType::f8_row || type == DType::bf16;
      const Weight& w = run.program.weights[op.argument[2]];
      const uint64_t bytes = w.prepared != nullptr ? prepared_bytes(w.dtype, w.rows, w.cols) : UINT64_MAX;
      const Tiles tile = tiles_of(args.rows, call.panels, args.depth, run.team.threads(), floats, bytes);
      const uint32_t row_tiles = (args.rows + tile.rows - 1) / tile.rows;
      const uint32_t panel_tiles = (call.panels + tile.panels - 1) / tile.panels;
      // Row tiles of one panel tile follow each other: its weights are read from memory once.
      run.team.parallel(row_tiles * panel_tiles, [&](uint32_t task, uint32_t worker) {
        const uint32_t row = task % row_tiles * tile.rows, panel = task / row_tiles * tile.panels;
        call.kernel(args, row, smaller_of(row + tile.rows, args.rows), panel,
                    smaller_of(panel + tile.panels, call.panels), run.scratch(worker));
      });
    },
    [](const drover_program&, const Op&) -> uint64_t { return kGemmScratchBytes; },
    [](const Run& run, const Op* ops, uint32_t count) -> uint32_t {
      const uint32_t rows = run.rows_of(run.tensors[ops[0].argument[0]]);
      if (rows == 0 || rows > kFewRows || ops[0].argument[4] != kNone) return 0;
      const auto fits = [&](uint32_t next) {
        for (uint32_t i = 0; i < next; i++) {
          if (!beside(run, ops[i], ops[next])) return false;
        }
        return true;
      };
      uint32_t taken = 1;
      while (taken < smaller_of(count, kMostCalls) && fits(taken)) taken++;
      if (taken == 1) return 0;
      Call calls[kMostCalls];
      for (uint32_t i = 0; i < taken; i++) calls[i] = call_of(run, ops[i]);
      run_few(run, calls, taken);
      return taken;
    }};

}  // namespace drover
