// Ops that treat each row by itself: norm, quantisation, gate, rotary embedding, softmax and its kin.
#include <cmath>

#include "kernels/quantize.h"
#include "op.h"

namespace drover {
namespace {

void check_unary(Check& c, const char* what) {
  c.dtype(c.tensor(0), DType::f32, what);
  c.dtype(c.tensor(1), DType::f32, what);
  c.same_rows(c.tensor(0), c.tensor(1), what);
  c.cols(c.tensor(0), c.tensor(1).cols, what);
}

}  // namespace

const OpImplementation op_rms_norm = {
    [](Check& c) {
      check_unary(c, "rms_norm maps f32 rows to f32 rows of the same shape");
      c.require((c.weight(2).flags & kDecode) != 0, "rms_norm's weight is decoded", c.weight(2).flags, kDecode);
      c.require(c.weight(2).rows == 1 && c.weight(2).cols == c.tensor(0).cols, "rms_norm's weight is [1, cols]",
                c.weight(2).cols, c.tensor(0).cols);
      c.require(c.real(3) >= 0 && c.real(3) < 1, "rms_norm's eps is in [0, 1)", c.word(3), 0);
    },
    [](const Run& run, const Op& op) {
      const Tensor& out = run.tensors[op.argument[0]];
      const Tensor& x = run.tensors[op.argument[1]];
      const float* weight = run.program.weights[op.argument[2]].decoded;
      const float eps = __builtin_bit_cast(float, op.argument[3]);
      for_rows(run, run.rows_of(out), out.cols, [&](uint32_t row, uint32_t) {
        run.program.kernels->rms_norm(row_f32(x, row), weight, eps, out.cols, row_f32(out, row));
      });
    },
    nullptr};

const OpImplementation op_quantize = {
    [](Check& c) {
      c.require(c.tensor(0).dtype >= DType::a8_32, "quantize writes a8_32, a8_256, a8_row or f8_row",
                static_cast<int64_t>(c.tensor(0).dtype), static_cast<int64_t>(DType::a8_32));
      c.dtype(c.tensor(1), DType::f32, "quantize reads f32");
      c.same_rows(c.tensor(0), c.tensor(1), "quantize keeps the rows");
      c.cols(c.tensor(0), c.tensor(1).cols, "quantize keeps the columns");
      c.apart(c.tensor(0), c.tensor(1), "quantize does not work in place");
      c.require(c.tensor(0).dtype != DType::a8_256 || c.tensor(0).cols % 256 == 0, "a8_256 rows hold whole blocks",
                c.tensor(0).cols, 256);
      c.require(c.tensor(0).dtype != DType::a8_row || c.tensor(0).cols <= kMostByteDepth,
                "sums over an a8_row fit 32 bits", c.tensor(0).cols, kMostByteDepth);
      c.require(c.real(2) > 0, "quantize's bound is positive", c.word(2), 1);
    },
    [](const Run& run, const Op& op) {
      const Tensor& out = run.tensors[op.argument[0]];
      const Tensor& x = run.tensors[op.argument[1]];
      const KernelTable& kernels = *run.program.kernels;
      const float bound = __builtin_bit_cast(float, op.argument[2]);
      const auto quantize = out.dtype == DType::a8_32    ? kernels.quantize_a8_32
                            : out.dtype == DType::a8_256 ? kernels.quantize_a8_256
                                                         : kernels.quantize_a8_row;
      for_rows(run, run.rows_of(out), out.cols, [&](uint32_t row, uint32_t) {
        uint8_t* to = out.data + row * out.stride;
        if (out.dtype == DType::f8_row) return kernels.quantize_f8_row(row_f32(x, row), out.cols, bound, to);
        quantize(row_f32(x, row), out.cols, to);
      });
    },
    nullptr};

const OpImplementation op_round_bf16 = {
    [](Check& c) {
      c.require(c.tensor(0).dtype == DType::f32 || c.tensor(0).dtype == DType::bf16, "round_bf16 writes f32 or bf16",
                static_cast<int64_t>(c.tensor(0).dtype), static_cast<int64_t>(DType::bf16));
      c.dtype(c.tensor(1), DType::f32, "round_bf16 reads f32");
      c.same_rows(c.tensor(0), c.tensor(1), "round_bf16 keeps the rows");
      c.cols(c.tensor(0), c.tensor(1).cols, "round_bf16 keeps the columns");
      c.apart(c.tensor(0), c.tensor(1), "round_bf16 does not work in place");
    },
    [](const Run& run, const Op& op) {
      const Tensor& out = run.tensors[op.argument[0]];
      const Tensor& x = run.tensors[op.argument[1]];
      const KernelTable& kernels = *run.program.kernels;
      for_rows(run, run.rows_of(out), out.cols, [&](uint32_t row, uint32_t) {
        if (out.dtype == DType::f32) return kernels.round_bf16(row_f32(x, row), out.cols, row_f32(out, row));
        kernels.write_bf16(row_f32(x, row), out.cols, reinterpret_cast<uint16_t*>(out.data + row * out.stride));
      });
    },
    nullptr};

const OpImplementation op_swiglu = {[](Check& c) {
                                      check_unary(c, "swiglu's gate is f32 of the output's shape");
                                      c.dtype(c.tensor(2), DType::f32, "swiglu's up is f32");
                                      c.same_rows(c.tensor(0), c.tensor(2), "swiglu's up has the output's rows");
                                      c.cols(c.tensor(2), c.tensor(0).cols, "swiglu's up has the output's columns");
                                    },
                                    [](const Run& run, const Op& op) {
                                      const Tensor& out = run.tensors[op.argument[0]];
                                      const Tensor& gate = run.tensors[op.argument[1]];
                                      const Tensor& up = run.tensors[op.argument[2]];
                                      for_rows(run, run.rows_of(out), out.cols, [&](uint32_t row, uint32_t) {
                                        run.program.kernels->swiglu(row_f32(gate, row), row_f32(up, row), out.cols,
                                                                    row_f32(out, row));
                                      });
                                    },
                                    nullptr};

const OpImplementation op_rope_table = {
    [](Check& c) {
      c.dtype(c.tensor(0), DType::f32, "rope_table writes f32");
      c.require(c.program.bag_inputs.empty(), "rope_table reads positions, which a step with bags has none of",
                static_cast<int64_t>(c.program.bag_inputs.size()), 0);
      c.follows(c.tensor(0), RowDimension::kRows, "rope_table writes one row per row of the step");
      c.require((c.weight(1).flags & kDecode) != 0 && c.weight(1).rows == 1,
                "rope_table's frequencies are decoded [1, n]", c.weight(1).rows, 1);
      c.cols(c.tensor(0), uint64_t{c.weight(1).cols} * 2, "rope_table writes cosines and sines of its frequencies");
    },
    [](const Run& run, const Op& op) {
      const Tensor& out = run.tensors[op.argument[0]];
      const Weight& w = run.program.weights[op.argument[1]];
      // Neighbouring rows of different sequences often share a position; the angles are cheap beside the layers.
      for_rows(run, run.step.rows, out.cols * 16, [&](uint32_t row, uint32_t) {
        float* to = row_f32(out, row);
        for (uint32_t i = 0; i < w.cols; i++) {
          // The frequency is f32, the angle float64: at position 131,072 an f32 angle is off by 0.004.
          const double angle = static_cast<double>(run.step.positions[row]) * static_cast<double>(w.decoded[i]);
          to[i] = static_cast<float>(std::cos(angle));
          to[w.cols + i] = static_cast<float>(std::sin(angle));
        }
      });
    },
    nullptr};

const OpImplementation op_rope = {
    [](Check& c) {
      c.dtype(c.tensor(0), DType::f32, "rope rotates f32");
      c.dtype(c.tensor(1), DType::f32, "rope's table is f32");
      c.same_rows(c.tensor(0), c.tensor(1), "rope's table has a row per row");
      c.cols(c.tensor(0), uint64_t{c.word(2)} * c.word(3), "rope's rows are heads x head_dim");
      c.require(c.tensor(1).cols % 2 == 0 && c.tensor(1).cols <= c.word(3) && c.word(3) != 0,
                "rope rotates at most head_dim elements", c.tensor(1).cols, c.word(3));
      c.require(c.word(4) <= 1, "rope's layout is 0 or 1", c.word(4), 1);
      c.apart(c.tensor(0), c.tensor(1), "rope's table is apart from its rows");
    },
    [](const Run& run, const Op& op) {
      const Tensor& x = run.tensors[op.argument[0]];
      const Tensor& table = run.tensors[op.argument[1]];
      for_rows(run, run.rows_of(x), x.cols, [&](uint32_t row, uint32_t) {
        run.program.kernels->rope(row_f32(x, row), row_f32(table, row), op.argument[2], op.argument[3], table.cols / 2,
                                  op.argument[4] == 1);
      });
    },
    nullptr};

const OpImplementation op_softmax = {
    [](Check& c) { check_unary(c, "softmax maps f32 rows to f32 rows of the same shape"); },
    [](const Run& run, const Op& op) {
      const Tensor& out = run.tensors[op.argument[0]];
      const Tensor& x = run.tensors[op.argument[1]];
      for_rows(run, run.rows_of(out), out.cols, [&](uint32_t row, uint32_t) {
        run.program.kernels->softmax(row_f32(x, row), out.cols, row_f32(out, row));
      });
    },
    nullptr};

const OpImplementation op_log_softmax = {
    [](Check& c) { check_unary(c, "log_softmax maps f32 rows to f32 rows of the same shape"); },
    [](const Run& run, const Op& op) {
      const Tensor& out = run.tensors[op.argument[0]];
      const Tensor& x = run.tensors[op.argument[1]];
      for_rows(run, run.rows_of(out), out.cols, [&](uint32_t row, uint32_t) {
        run.program.kernels->log_softmax(row_f32(x, row), out.cols, row_f32(out, row));
      });
    },
    nullptr};

const OpImplementation op_log_sum_exp = {
    [](Check& c) { c.one_per_row(); },
    [](const Run& run, const Op& op) { write_one_per_row(run, op, run.program.kernels->log_sum_exp); }, nullptr};

const OpImplementation op_token_nll = {
    [](Check& c) {
      c.dtype(c.tensor(0), DType::f32, "token_nll writes f32");
      c.dtype(c.tensor(1), DType::f32, "token_nll reads f32 logits");
      c.follows(c.tensor(0), RowDimension::kOutputs, "token_nll writes one row per output");
      c.same_rows(c.tensor(0), c.tensor(1), "token_nll keeps the rows");
      c.cols(c.tensor(0), 1, "token_nll writes one column");
      c.cols(c.tensor(1), c.program.vocabulary, "token_nll reads logits over the vocabulary");
      c.apart(c.tensor(0), c.tensor(1), "token_nll does not work in place");
    },
    [](const Run& run, const Op& op) {
      const Tensor& out = run.tensors[op.argument[0]];
      const Tensor& x = run.tensors[op.argument[1]];
      if (run.step.targets == nullptr) return;
      for_rows(run, run.step.outputs, x.cols, [&](uint32_t row, uint32_t) {
        const float* logits = row_f32(x, row);
        *row_f32(out, row) = run.program.kernels->log_sum_exp(logits, x.cols) - logits[run.step.targets[row]];
      });
    },
    nullptr};

}  // namespace drover
