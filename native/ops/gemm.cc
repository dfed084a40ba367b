// Matrix product with its epilogue: chooses the kernel for the weight and cuts the work into tasks.
#include "core/cpu.h"
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

// Rows and panels per task: what the kernel takes at most, unless this core's second-level cache holds less or that
// makes too few tasks.
struct Tiles {
  uint32_t rows, panels;
};
Tiles tiles_of(uint32_t rows, uint32_t panels, uint32_t depth, uint32_t threads, bool floats) {
  const uint64_t l2 = machine().info.l2_bytes, room = (l2 == 0 ? 1u << 20 : l2) / 2;
  Tiles tile{kGemmIntRows, kGemmIntPanels};
  if (floats) {
    tile = {kGemmFloatRows, kGemmFloatPanels};
    // Sums, and the rows' part in a chunk of the depth. Fewer panels cost copies of that part, fewer rows reread
    // weights.
    const auto bytes = [&] { return uint64_t{tile.rows} * (tile.panels * kPanel + kGemmFloatDepth) * sizeof(float); };
    while (bytes() > room && tile.panels > 8) (tile.rows >= 8 * tile.panels ? tile.rows : tile.panels) /= 2;
  } else {
    // The rows, which every pair of panels reads again.
    while (uint64_t{tile.rows} * depth > room && tile.rows > 24) tile.rows -= 12;
  }
  tile.rows = smaller_of(rows, tile.rows);
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
constexpr uint32_t kFewRows = 16;

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
      const Tensor& out = run.program.tensors[op.argument[0]];
      const Tensor& x = run.program.tensors[op.argument[1]];
      const Weight& w = run.program.weights[op.argument[2]];
      GemmArgs args{};
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
        args.residual = row_f32(run.program.tensors[op.argument[4]], 0);
        args.residual_stride = run.program.tensors[op.argument[4]].stride / 4;
      }
      args.activation = static_cast<Activation>(op.argument[5]);
      args.follows = !machine().intel;
      if (args.rows == 0 || args.cols == 0) return;
      const KernelTable& kernels = *run.program.kernels;
      const GemmFunction kernel = bf16_rows(w, x, w.prepared != nullptr) ? kernels.gemm_bf16
                                  : w.prepared != nullptr ? kernel_of(run.program, w).run
                                                          : kernels.gemm_decode[static_cast<uint32_t>(w.dtype)];
      const uint32_t panels = (args.cols + kPanel - 1) / kPanel;
      if (args.rows <= kFewRows) {
        const Portions portions(panels, run.team.threads());
        run.team.parallel(portions.count(), [&](uint32_t task, uint32_t worker) {
          kernel(args, 0, args.rows, portions.begin(task), portions.begin(task + 1), run.scratch(worker));
        });
        return;
      }
      const bool floats = x.dtype == DType::f32 || x.dtype == DType::f8_row || x.dtype == DType::bf16;
      const Tiles tile = tiles_of(args.rows, panels, args.depth, run.team.threads(), floats);
      const uint32_t row_tiles = (args.rows + tile.rows - 1) / tile.rows;
      const uint32_t panel_tiles = (panels + tile.panels - 1) / tile.panels;
      // Row tiles of one panel tile follow each other: its weights are read from memory once.
      run.team.parallel(row_tiles * panel_tiles, [&](uint32_t task, uint32_t worker) {
        const uint32_t row = task % row_tiles * tile.rows, panel = task / row_tiles * tile.panels;
        kernel(args, row, smaller_of(row + tile.rows, args.rows), panel, smaller_of(panel + tile.panels, panels),
               run.scratch(worker));
      });
    },
    [](const drover_program&, const Op&) -> uint64_t { return kGemmScratchBytes; }};

}  // namespace drover
