// Sampling over the vocabulary, one task per row.
#include "op.h"

namespace drover {
namespace {

void check_logits(Check& c, const char* what) {
  c.dtype(c.tensor(1), DType::f32, "sampling reads f32 logits");
  c.follows(c.tensor(0), RowDimension::kOutputs, what);
  c.same_rows(c.tensor(0), c.tensor(1), what);
  c.cols(c.tensor(1), c.program.vocabulary, "sampling reads logits over the vocabulary");
  c.require(c.program.vocabulary > 0, "sampling needs a vocabulary", 0, 1);
  c.apart(c.tensor(0), c.tensor(1), "sampling does not work in place");
}

uint64_t scratch_bytes(const drover_program& program, const Op& op) {
  const uint64_t candidates = (program.tensors[op.argument[0]].cols + 1) / 2 * sizeof(Candidate);
  return sampling_scratch_bytes(program.vocabulary) + round_up(candidates, 64);
}

}  // namespace

const OpImplementation op_sample = {
    [](Check& c) {
      check_logits(c, "sample writes one row per output");
      c.dtype(c.tensor(0), DType::u32, "sample writes u32");
      c.require(c.tensor(0).cols >= 4 && c.tensor(0).cols % 2 == 0, "sample's rows have 4 + 2 n columns",
                c.tensor(0).cols, 4);
    },
    [](const Run& run, const Op& op) {
      if (run.step.sampling == nullptr) return;
      const Tensor& out = run.tensors[op.argument[0]];
      const Tensor& logits = run.tensors[op.argument[1]];
      const uint32_t vocabulary = run.program.vocabulary, room = (out.cols - 4) / 2;
      run.team.parallel(run.step.outputs, [&](uint32_t row, uint32_t worker) {
        uint8_t* scratch = run.scratch(worker);
        Candidate* candidates = reinterpret_cast<Candidate*>(scratch + sampling_scratch_bytes(vocabulary));
        SamplingRecord record = run.step.sampling[row];
        if (record.top_logprobs > room) record.top_logprobs = room;
        const SampleResult result = run.program.kernels->sample_row(row_f32(logits, row), vocabulary, record,
                                                                    run.step.tail, candidates, nullptr, scratch);
        uint32_t* to = reinterpret_cast<uint32_t*>(out.data + row * out.stride);
        to[0] = result.allowed_any ? result.token : kNone;
        to[1] = __builtin_bit_cast(uint32_t, result.logprob);
        to[2] = result.candidate_count;
        to[3] = 0;
        for (uint32_t i = 0; i < result.candidate_count; i++) {
          to[4 + 2 * i] = candidates[i].token;
          to[5 + 2 * i] = __builtin_bit_cast(uint32_t, candidates[i].logprob);
        }
      });
    },
    scratch_bytes};

const OpImplementation op_sample_probabilities = {
    [](Check& c) {
      check_logits(c, "sample_probabilities writes one row per output");
      c.dtype(c.tensor(0), DType::f32, "sample_probabilities writes f32");
      c.cols(c.tensor(0), c.program.vocabulary, "sample_probabilities writes the vocabulary");
    },
    [](const Run& run, const Op& op) {
      if (run.step.sampling == nullptr) return;
      const Tensor& out = run.tensors[op.argument[0]];
      const Tensor& logits = run.tensors[op.argument[1]];
      run.team.parallel(run.step.outputs, [&](uint32_t row, uint32_t worker) {
        SamplingRecord record = run.step.sampling[row];
        record.top_logprobs = 0;
        run.program.kernels->sample_row(row_f32(logits, row), run.program.vocabulary, record, run.step.tail, nullptr,
                                        row_f32(out, row), run.scratch(worker));
      });
    },
    scratch_bytes};

}  // namespace drover
