// Ops between features of a recommender: products of pairs, rows side by side, cross layers, factorization machines,
// the sigmoid of a score.
#include "op.h"

namespace drover {
namespace {

constexpr uint32_t kMostParts = 7;

void check_same(Check& c, uint32_t i, const char* what) {
  c.dtype(c.tensor(i), DType::f32, what);
  c.same_rows(c.tensor(0), c.tensor(i), what);
  c.cols(c.tensor(i), c.tensor(0).cols, what);
}

}  // namespace

const OpImplementation op_interaction = {
    [](Check& c) {
      const uint64_t dim = c.tensor(1).cols, vectors = c.tensor(2).cols / dim + 1;
      for (uint32_t i = 0; i < 3; i++) c.dtype(c.tensor(i), DType::f32, "interaction reads and writes f32");
      c.same_rows(c.tensor(0), c.tensor(1), "interaction has a dense row per row");
      c.same_rows(c.tensor(0), c.tensor(2), "interaction has a pooled row per row");
      c.require(c.tensor(2).cols % dim == 0, "interaction's pooled vectors are as wide as its dense one",
                c.tensor(2).cols, static_cast<int64_t>(dim));
      const Pairs kind = static_cast<Pairs>(c.word(3));
      c.require(kind < Pairs::kCount, "interaction's pairs are 0, 1 or 2", c.word(3), 2);
      const uint64_t pairs = kind == Pairs::kLowerAndItself ? vectors * (vectors + 1) / 2 : vectors * (vectors - 1) / 2;
      c.cols(c.tensor(0), dim + pairs, "interaction writes the dense vector and all pairs");
      c.apart(c.tensor(0), c.tensor(1), "interaction does not work in place");
      c.apart(c.tensor(0), c.tensor(2), "interaction does not work in place");
    },
    [](const Run& run, const Op& op) {
      const Tensor& out = run.tensors[op.argument[0]];
      const Tensor& dense = run.tensors[op.argument[1]];
      const Tensor& pooled = run.tensors[op.argument[2]];
      const uint32_t tables = pooled.cols / dense.cols;
      // A row costs its products, not its output.
      const uint64_t work = uint64_t{out.cols} * dense.cols / 16 + 1;
      for_rows(run, run.rows_of(out), static_cast<uint32_t>(work < 4096 ? work : 4096), [&](uint32_t row, uint32_t) {
        run.program.recommend->interaction(row_f32(dense, row), row_f32(pooled, row), dense.cols, tables,
                                           static_cast<Pairs>(op.argument[3]), row_f32(out, row));
      });
    },
    nullptr};

const OpImplementation op_concat = {[](Check& c) {
                                      c.dtype(c.tensor(0), DType::f32, "concat writes f32");
                                      uint64_t cols = 0;
                                      for (uint32_t i = 1; i <= kMostParts; i++) {
                                        if (c.absent(i)) continue;
                                        c.dtype(c.tensor(i), DType::f32, "concat reads f32");
                                        c.same_rows(c.tensor(0), c.tensor(i), "concat's inputs have the output's rows");
                                        c.apart(c.tensor(0), c.tensor(i), "concat does not work in place");
                                        cols += c.tensor(i).cols;
                                      }
                                      c.cols(c.tensor(0), cols, "concat writes all that its inputs have");
                                    },
                                    [](const Run& run, const Op& op) {
                                      const Tensor& out = run.tensors[op.argument[0]];
                                      for_rows(run, run.rows_of(out), out.cols, [&](uint32_t row, uint32_t) {
                                        float* to = row_f32(out, row);
                                        for (uint32_t i = 1; i <= kMostParts; i++) {
                                          if (op.argument[i] == kNone) continue;
                                          const Tensor& x = run.tensors[op.argument[i]];
                                          std::memcpy(to, row_f32(x, row), uint64_t{x.cols} * 4);
                                          to += x.cols;
                                        }
                                      });
                                    },
                                    nullptr};

const OpImplementation op_cross = {[](Check& c) {
                                     for (uint32_t i = 0; i < 4; i++)
                                       check_same(c, i, "cross maps f32 rows to f32 rows of the same shape");
                                   },
                                   [](const Run& run, const Op& op) {
                                     const Tensor& out = run.tensors[op.argument[0]];
                                     const Tensor* x[3];
                                     for (uint32_t i = 0; i < 3; i++) x[i] = &run.tensors[op.argument[i + 1]];
                                     for_rows(run, run.rows_of(out), out.cols, [&](uint32_t row, uint32_t) {
                                       run.program.recommend->cross(row_f32(*x[0], row), row_f32(*x[1], row),
                                                                    row_f32(*x[2], row), out.cols, row_f32(out, row));
                                     });
                                   },
                                   nullptr};

const OpImplementation op_factorization = {
    [](Check& c) { c.one_per_row(); },
    [](const Run& run, const Op& op) { write_one_per_row(run, op, run.program.recommend->factorization); }, nullptr};

const OpImplementation op_sigmoid = {[](Check& c) {
                                       for (uint32_t i = 0; i < 2; i++)
                                         check_same(c, i, "sigmoid maps f32 rows to f32 rows of the same shape");
                                     },
                                     [](const Run& run, const Op& op) {
                                       const Tensor& out = run.tensors[op.argument[0]];
                                       const Tensor& x = run.tensors[op.argument[1]];
                                       for_rows(run, run.rows_of(out), out.cols, [&](uint32_t row, uint32_t) {
                                         run.program.recommend->sigmoid(row_f32(x, row), out.cols, row_f32(out, row));
                                       });
                                     },
                                     nullptr};

}  // namespace drover
