// Ops that move rows: embedding gather, selection of output rows, weight rows decoded to f32.
#include "kernels/prepare.h"
#include "op.h"

namespace drover {
namespace {

void read_row(const Weight& w, uint32_t row, float* out) {
  if (w.decoded != nullptr) {
    std::memcpy(out, w.decoded + uint64_t{row} * w.cols, uint64_t{w.cols} * 4);
  } else if (w.prepared != nullptr) {
    decode_prepared_row(w.dtype, w.prepared, w.rows, w.cols, row, out);
  } else {
    decode_row(w.dtype, w.file + row * row_bytes(w.dtype, w.cols), w.cols, out);
    scale_values(w.scales, row, w.cols, 0, w.cols, out);
  }
}

}  // namespace

const OpImplementation op_embed = {
    [](Check& c) {
      c.dtype(c.tensor(0), DType::f32, "embed writes f32");
      c.follows(c.tensor(0), RowDimension::kRows, "embed writes one row per row of the step");
      c.cols(c.tensor(0), c.weight(1).cols, "embed's output is as wide as its table");
      c.require(c.program.bag_inputs.empty(), "embed reads tokens, which a step with bags has none of",
                static_cast<int64_t>(c.program.bag_inputs.size()), 0);
      // Without a vocabulary the step's tokens are not checked.
      c.require(c.program.vocabulary > 0, "embed needs a vocabulary", 0, 1);
      c.require(c.weight(1).rows >= c.program.vocabulary, "embed's table has a row per token", c.weight(1).rows,
                c.program.vocabulary);
    },
    [](const Run& run, const Op& op) {
      const Tensor& out = run.tensors[op.argument[0]];
      const Weight& table = run.program.weights[op.argument[1]];
      for_rows(run, run.step.rows, out.cols, [&](uint32_t row, uint32_t) {
        read_row(table, static_cast<uint32_t>(run.step.tokens[row]), row_f32(out, row));
      });
    },
    nullptr};

const OpImplementation op_gather = {
    [](Check& c) {
      c.follows(c.tensor(0), RowDimension::kOutputs, "gather writes one row per output");
      c.follows(c.tensor(1), RowDimension::kRows, "gather reads rows of the step");
      c.dtype(c.tensor(0), DType::f32, "gather writes f32");
      c.dtype(c.tensor(1), DType::f32, "gather reads f32");
      c.cols(c.tensor(0), c.tensor(1).cols, "gather's output is as wide as its input");
      c.apart(c.tensor(0), c.tensor(1), "gather does not work in place");
    },
    [](const Run& run, const Op& op) {
      const Tensor& out = run.tensors[op.argument[0]];
      const Tensor& x = run.tensors[op.argument[1]];
      for (uint32_t i = 0; i < run.step.outputs; i++) {
        std::memcpy(row_f32(out, i), row_f32(x, run.step.output_rows[i]), uint64_t{out.cols} * 4);
      }
    },
    nullptr};

const OpImplementation op_dequantize = {
    [](Check& c) {
      c.dtype(c.tensor(0), DType::f32, "dequantize writes f32");
      c.follows(c.tensor(0), RowDimension::kFixed, "dequantize writes a fixed number of rows");
      c.cols(c.tensor(0), c.weight(1).cols, "dequantize's output is as wide as its weight");
      c.require(c.tensor(0).fixed_rows <= c.weight(1).rows, "dequantize's weight has the rows", c.weight(1).rows,
                c.tensor(0).fixed_rows);
    },
    [](const Run& run, const Op& op) {
      const Tensor& out = run.tensors[op.argument[0]];
      const Weight& w = run.program.weights[op.argument[1]];
      for_rows(run, out.fixed_rows, out.cols, [&](uint32_t row, uint32_t) { read_row(w, row, row_f32(out, row)); });
    },
    nullptr};

}  // namespace drover
