// Sampling over the vocabulary, from raw logits to the drawn token, exactly: no cut at some top-K, float64 sums.
// Order (that of transformers): repetition penalty, frequency and presence penalties, bias, mask, temperature, top-k,
// top-p, min-p, typical-p, then softmax and an inverse-CDF draw in vocabulary order.
#ifndef DROVER_KERNELS_SAMPLING_H_
#define DROVER_KERNELS_SAMPLING_H_

#include <cstdint>

namespace drover {

inline constexpr uint32_t kSamplingWords = 24;

// One record per output row, kSamplingWords u32 words in the step. Offsets count words from the start of the tail.
struct SamplingRecord {
  float temperature;         // 0: greedy (ties: lowest token)
  uint32_t top_k;            // 0: off; tokens tied with the k-th are kept
  float top_p;               // 1: off
  float min_p;               // 0: off; relative to the most likely token
  float typical_p;           // 1: off
  float repetition_penalty;  // 1: off; positive logits divided, negative multiplied, once per token in the history
  float presence_penalty;    // 0: off; subtracted once per token in the history
  float frequency_penalty;   // 0: off; subtracted count times
  uint32_t seed_low, seed_high;
  uint32_t counter;                       // position of the draw: the generator is a function of (seed, counter) alone
  uint32_t top_logprobs;                  // candidates to report, at most what the output tensor's cols allow
  uint32_t bias_begin, bias_count;        // pairs (token, float bits) in the tail
  uint32_t history_begin, history_count;  // pairs (token, occurrences) in the tail
  uint32_t mask_begin;                    // bit mask of allowed tokens, ceil(V / 32) words, or 0xffffffff for none
  uint32_t flags;  // 1: `uniform` below is used instead of the generator; 2: report the token's log-probability
  uint32_t uniform_low, uniform_high;  // float64 in [0, 1)
  uint32_t reserved[4];
};
static_assert(sizeof(SamplingRecord) == kSamplingWords * 4);

struct Candidate {
  uint32_t token;
  float logprob;
};

// Bytes of scratch for one row of `vocabulary` logits (64-byte aligned, private to the thread), and of each of its
// arrays.
uint64_t sampling_scratch_bytes(uint32_t vocabulary);
uint64_t sampling_array_bytes(uint32_t vocabulary);
// Draws a token (KernelTable::sample_row). The caller has checked every token, offset and count. `candidates` receives
// min(top_logprobs, V) pairs, best first, of the raw log-softmax; `probabilities` (float [V]) the final distribution;
// both may be null. `allowed_any` is false when mask and filters leave nothing; the token is then undefined.
struct SampleResult {
  uint32_t token;
  float logprob;
  uint32_t candidate_count;
  bool allowed_any;
};
using SampleFunction = SampleResult (*)(const float* logits, uint32_t vocabulary, const SamplingRecord& record,
                                        const uint32_t* tail, Candidate* candidates, float* probabilities,
                                        void* scratch);
// The uniform float64 in [0, 1) of (seed, counter): Philox 4x32-10.
double sampling_uniform(uint64_t seed, uint32_t counter);

}  // namespace drover

#endif  // DROVER_KERNELS_SAMPLING_H_
