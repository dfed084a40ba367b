// An op: its shape check, run once at load, and its run. One file per op family; ops.def lists them all.
#ifndef DROVER_OPS_OP_H_
#define DROVER_OPS_OP_H_

#include <cstring>

#include "core/program.h"
#include "core/status.h"

namespace drover {

// Reads an op's arguments and refuses what does not fit. Operand indices are already in range.
class Check {
 public:
  Check(const drover_program& program, const Op& op, int32_t index, drover_error* error)
      : program(program), op(op), index_(index), error_(error) {}
  const drover_program& program;
  const Op& op;
  const Tensor& tensor(uint32_t i) const { return program.tensors[op.argument[i]]; }
  const Weight& weight(uint32_t i) const { return program.weights[op.argument[i]]; }
  uint32_t word(uint32_t i) const { return op.argument[i]; }
  float real(uint32_t i) const { return __builtin_bit_cast(float, op.argument[i]); }
  bool absent(uint32_t i) const { return op.argument[i] == kNone; }
  bool ok() const { return code_ == DROVER_OK; }
  drover_code code() const { return code_; }
  // Records the first refusal.
  void require(bool holds, const char* what, int64_t found, int64_t expected) {
    if (!holds && ok()) code_ = fail(error_, DROVER_PROGRAM, index_, found, expected, "op %d: %s", index_, what);
  }
  void dtype(const Tensor& t, DType wanted, const char* what) {
    require(t.dtype == wanted, what, static_cast<int64_t>(t.dtype), static_cast<int64_t>(wanted));
  }
  void same_rows(const Tensor& a, const Tensor& b, const char* what) {
    require(a.dimension == b.dimension && a.fixed_rows == b.fixed_rows, what, a.most_rows, b.most_rows);
  }
  void cols(const Tensor& t, uint64_t wanted, const char* what) {
    require(t.cols == wanted, what, t.cols, static_cast<int64_t>(wanted));
  }
  // Every row of an op that follows the step's tokens has one entry per row of the step.
  void follows(const Tensor& t, RowDimension dimension, const char* what) {
    require(t.dimension == dimension, what, static_cast<int64_t>(t.dimension), static_cast<int64_t>(dimension));
  }
  // Of each row of the second operand one number is made.
  void one_per_row() {
    for (uint32_t i = 0; i < 2; i++) dtype(tensor(i), DType::f32, "an op that makes one number of a row works on f32");
    same_rows(tensor(0), tensor(1), "an op that makes one number of a row keeps the rows");
    cols(tensor(0), 1, "an op that makes one number of a row writes one column");
    apart(tensor(0), tensor(1), "an op that makes one number of a row does not work in place");
  }
  // Two operands that must not be the same memory.
  void apart(const Tensor& a, const Tensor& b, const char* what) {
    const bool overlap = a.offset < b.offset + b.stride * b.most_rows && b.offset < a.offset + a.stride * a.most_rows;
    require(!overlap, what, static_cast<int64_t>(a.offset), static_cast<int64_t>(b.offset));
  }

 private:
  int32_t index_;
  drover_error* error_;
  drover_code code_ = DROVER_OK;
};

// What an op may need per worker, beyond the GEMM's scratch.
using ScratchFunction = uint64_t (*)(const drover_program& program, const Op& op);

struct OpImplementation {
  void (*check)(Check& check);
  void (*run)(const Run& run, const Op& op);
  ScratchFunction scratch;  // bytes per worker; null: none
  // Runs the first of `count` ops together with others behind it; returns how many it ran, 0: none. Null: never.
  uint32_t (*run_together)(const Run& run, const Op* ops, uint32_t count) = nullptr;
};

#define DROVER_OP(name, signature) extern const OpImplementation op_##name;
#include "core/ops.def"
#undef DROVER_OP

struct OpEntry {
  const char* name;
  const char* signature;
  const OpImplementation* implementation;
};
extern const OpEntry kOps[];
extern const uint32_t kOpCount;

inline float* row_f32(const Tensor& t, uint64_t row) { return reinterpret_cast<float*>(t.data + row * t.stride); }

// Rows in tasks of a few thousand elements, so that a task outweighs its handing out.
template <typename Body>
void for_rows(const Run& run, uint32_t rows, uint32_t cols, Body body) {
  const uint32_t together = cols >= 4096 ? 1 : 4096 / (cols == 0 ? 1 : cols);
  run.team.parallel((rows + together - 1) / together, [&](uint32_t task, uint32_t worker) {
    const uint32_t begin = task * together, end = begin + together < rows ? begin + together : rows;
    for (uint32_t row = begin; row < end; row++) body(row, worker);
  });
}

// What one_per_row checks: number(row, cols) of every row.
template <typename Number>
void write_one_per_row(const Run& run, const Op& op, Number number) {
  const Tensor& out = run.tensors[op.argument[0]];
  const Tensor& x = run.tensors[op.argument[1]];
  for_rows(run, run.rows_of(out), x.cols,
           [&](uint32_t row, uint32_t) { *row_f32(out, row) = number(row_f32(x, row), x.cols); });
}

}  // namespace drover

#endif  // DROVER_OPS_OP_H_
