// Programs and steps as words, for checks that go through drover.h alone (the encoding is in native/core/program.h),
// and one small program that holds every op: a layer of a Llama, a head, sampling, and quantised weights of both kinds.
#ifndef DROVER_TEST_PROGRAMS_H_
#define DROVER_TEST_PROGRAMS_H_

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <vector>

#include "check.h"
#include "drover.h"

using Words = std::vector<uint32_t>;

// Entry of a table of names; the programs of this folder know that it is there.
inline uint32_t find_name(const char* (*name_at)(uint32_t), const char* name) {
  for (uint32_t i = 0; name_at(i) != nullptr; i++) {
    if (std::strcmp(name_at(i), name) == 0) return i;
  }
  std::printf("there is no %s\n", name);
  std::abort();
}
inline uint32_t dtype(const char* name) { return find_name(drover_dtype_name, name); }
inline uint32_t float_word(float value) { return __builtin_bit_cast(uint32_t, value); }

constexpr uint32_t kRows = 0, kOutputs = 1, kFixed = 2;      // row dimensions
constexpr uint32_t kPlain = 0, kPrepared = 1, kDecoded = 2;  // weights
constexpr uint32_t kAbsent = 0xffffffffu;

struct ProgramWords {
  Words header = Words(24), tensors, weights, ops, arguments;

  uint32_t tensor(const char* type, uint32_t cols, uint32_t dimension, uint32_t fixed_rows = 0) {
    const uint32_t stride = static_cast<uint32_t>(drover_activation_row_bytes(dtype(type), cols) / 64);
    const uint32_t rows = dimension == kRows ? header[3] : dimension == kOutputs ? header[4] : fixed_rows;
    for (const uint32_t word : {dtype(type), cols, stride, dimension, fixed_rows, header[11], 0u, 0u})
      tensors.push_back(word);
    header[11] += stride * rows;
    return header[7]++;
  }
  // scales: 1 + the index of the weight that holds them, or 0.
  uint32_t weight(uint32_t region, const char* type, uint64_t offset, uint32_t rows, uint32_t cols, uint32_t flags,
                  uint32_t scales = 0) {
    for (const uint32_t word : {region, dtype(type), static_cast<uint32_t>(offset), static_cast<uint32_t>(offset >> 32),
                                rows, cols, flags, scales}) {
      weights.push_back(word);
    }
    return header[8]++;
  }
  void op(const char* name, std::initializer_list<uint32_t> words) {
    const uint32_t count = static_cast<uint32_t>(words.size());
    for (const uint32_t word : {find_name(drover_op_name, name), header[10], count, 0u}) ops.push_back(word);
    arguments.insert(arguments.end(), words);
    header[9]++;
    header[10] += count;
  }
  Words words() {
    header[0] = 0x50565244;
    header[1] = 1;
    Words all(header);
    for (const Words* part : {&tensors, &weights, &ops, &arguments}) all.insert(all.end(), part->begin(), part->end());
    all[2] = static_cast<uint32_t>(all.size());
    return all;
  }
};

struct SequenceWords {
  uint32_t first_row, rows, cache_start, first_page, pages;
};

struct StepWords {
  uint32_t first_op = 0, end_op = 0, flags = 0;
  Words tokens, positions, pages, outputs, targets, sampling, tail;
  std::vector<SequenceWords> sequences;

  Words words() const {
    const auto count = [](const auto& list) { return static_cast<uint32_t>(list.size()); };
    Words all = {0x53565244,   0,        count(tokens), count(outputs), count(sequences),
                 count(pages), first_op, end_op,        flags,          count(tail)};
    all.resize(16);
    for (const Words* part : {&tokens, &positions}) all.insert(all.end(), part->begin(), part->end());
    for (const SequenceWords& s : sequences) {
      for (const uint32_t word : {s.first_row, s.rows, s.cache_start, s.first_page, s.pages}) all.push_back(word);
    }
    for (const Words* part : {&pages, &outputs, &targets, &sampling, &tail}) {
      all.insert(all.end(), part->begin(), part->end());
    }
    all[1] = count(all);
    return all;
  }
};

// Weights in one region, one after the other.
struct WeightBytes {
  std::vector<uint8_t> bytes;
  // Small random numbers; blocks get random codes under a scale of about 0.01.
  uint64_t add(const char* type, uint32_t rows, uint32_t cols, Random& random) {
    const uint64_t at = bytes.size();
    uint32_t elements = 1, size = 4;
    drover_dtype_block(dtype(type), &elements, &size);
    bytes.resize(at + uint64_t{rows} * cols / elements * size);
    for (uint64_t i = at; i < bytes.size(); i += size) {
      for (uint32_t j = 0; j < size; j++) bytes[i + j] = static_cast<uint8_t>(random.next());
      const float value = random.normal() * 0.2f;
      const uint16_t half = static_cast<uint16_t>(0x2000 + random.below(64));
      if (std::strcmp(type, "f32") == 0) std::memcpy(&bytes[i], &value, 4);
      if (std::strcmp(type, "f16") == 0 || std::strcmp(type, "q8_0") == 0) std::memcpy(&bytes[i], &half, 2);
      if (std::strcmp(type, "f8_e4m3") == 0) bytes[i] &= 0xbf;  // no NaN among its codes
      if (std::strcmp(type, "q6_k") == 0) std::memcpy(&bytes[i + 208], &half, 2);
    }
    return at;
  }
};

struct Everything {
  static constexpr uint32_t kVocabulary = 70, kMostRows = 40, kMostOutputs = 6, kMostSequences = 4, kMostPages = 12;
  static constexpr uint32_t kPages = 8, kHeads = 4, kKvHeads = 2, kHeadDim = 8, kWidth = 32, kInner = 64;
  ProgramWords program;
  WeightBytes weights;
  uint32_t logits, probabilities, sampled, losses, hidden, wide;
  uint32_t op_count = 0;

  explicit Everything(uint64_t seed, const char* kv_type = "f16") {
    Random random(seed);
    ProgramWords& p = program;
    p.header[3] = kMostRows, p.header[4] = kMostOutputs, p.header[5] = kMostSequences, p.header[6] = kMostPages;
    p.header[12] = 1, p.header[13] = kKvHeads, p.header[14] = kHeadDim, p.header[15] = dtype(kv_type);
    p.header[16] = kPages, p.header[17] = kVocabulary;
    const auto weight = [&](const char* type, uint32_t rows, uint32_t cols, uint32_t flags, uint32_t scales = 0) {
      return p.weight(0, type, weights.add(type, rows, cols, random), rows, cols, flags, scales);
    };
    const uint32_t unbounded = float_word(INFINITY);
    const uint32_t table = weight("f32", kVocabulary, kWidth, kPrepared), norm = weight("f32", 1, kWidth, kDecoded);
    const uint32_t wq = weight("q8_0", kWidth, kWidth, kPrepared), wk = weight("f16", 16, kWidth, kPrepared);
    const uint32_t wv = weight("q8_0", 16, kWidth, kPlain), bias = weight("f16", 1, 16, kDecoded);
    const uint32_t wo = weight("f16", kWidth, kWidth, kPlain), frequencies = weight("f32", 1, kHeadDim / 2, kDecoded);
    const uint32_t gate = weight("q8_0", kInner, kWidth, kPrepared), up = weight("q8_0", kInner, kWidth, kPrepared);
    const uint32_t down = weight("q8_0", kWidth, kInner, kPrepared), large = weight("q6_k", 20, 256, kPrepared);
    const uint32_t row_scales = weight("f16", 18, 1, kPlain), group_scales = weight("f32", 18, 4, kPlain);
    const uint32_t bytes = weight("i8", 18, 256, kPrepared, row_scales + 1);
    const uint32_t small_floats = weight("f8_e4m3", 18, 256, kPrepared, row_scales + 1);
    const uint32_t nibbles = weight("i4", 18, 256, kPrepared, group_scales + 1);
    const uint32_t stored_nibbles = weight("i4", 18, 256, kPlain, group_scales + 1);
    weight("f16", 18, 33, kPrepared);  // panels that end inside a line; nothing but loading touches it
    const uint32_t x = p.tensor("f32", kWidth, kRows), h = p.tensor("f32", kWidth, kRows);
    const uint32_t q8 = p.tensor("a8_32", kWidth, kRows), q = p.tensor("f32", kWidth, kRows);
    const uint32_t k = p.tensor("f32", 16, kRows), v = p.tensor("f32", 16, kRows);
    const uint32_t angles = p.tensor("f32", kHeadDim, kRows), mixed = p.tensor("f32", kWidth, kRows);
    const uint32_t g = p.tensor("f32", kInner, kRows), u = p.tensor("f32", kInner, kRows);
    const uint32_t g8 = p.tensor("a8_32", kInner, kRows), last = p.tensor("f32", kWidth, kOutputs);
    hidden = x;
    logits = p.tensor("f32", kVocabulary, kOutputs);
    probabilities = p.tensor("f32", kVocabulary, kOutputs);
    sampled = p.tensor("u32", 4 + 2 * 5, kOutputs);
    losses = p.tensor("f32", 1, kOutputs);
    const uint32_t sums = p.tensor("f32", 1, kOutputs), flat = p.tensor("f32", 256, kFixed, 20);
    const uint32_t flat8 = p.tensor("a8_256", 256, kFixed, 20);
    wide = p.tensor("f32", 20, kFixed, 20);
    p.op("embed", {x, table});
    p.op("rms_norm", {h, x, norm, float_word(1e-5f)});
    p.op("quantize", {q8, h, unbounded});
    p.op("gemm", {q, q8, wq, kAbsent, kAbsent, 0});
    p.op("gemm", {k, h, wk, bias, kAbsent, 0});
    p.op("gemm", {v, h, wv, kAbsent, kAbsent, 0});
    p.op("rope_table", {angles, frequencies});
    p.op("rope", {q, angles, kHeads, kHeadDim, 0});
    p.op("rope", {k, angles, kKvHeads, kHeadDim, 1});
    p.op("kv_write", {k, v, 0});
    p.op("attention", {mixed, q, 0, kHeads, float_word(0.35f), 1, 0});
    p.op("gemm", {x, mixed, wo, kAbsent, x, 0});
    p.op("rms_norm", {h, x, norm, float_word(1e-5f)});
    p.op("quantize", {q8, h, unbounded});
    p.op("gemm", {g, q8, gate, kAbsent, kAbsent, 0});
    p.op("gemm", {u, q8, up, kAbsent, kAbsent, 3});
    p.op("swiglu", {g, g, u});
    p.op("quantize", {g8, g, unbounded});
    p.op("gemm", {x, g8, down, kAbsent, x, 0});
    p.op("gather", {last, x});
    p.op("gemm", {logits, last, table, kAbsent, kAbsent, 0});
    p.op("token_nll", {losses, logits});
    p.op("sample", {sampled, logits});
    p.op("sample_probabilities", {probabilities, logits});
    p.op("log_sum_exp", {sums, logits});
    p.op("log_softmax", {logits, logits});
    p.op("softmax", {probabilities, probabilities});
    p.op("dequantize", {flat, large});
    p.op("quantize", {flat8, flat, unbounded});
    p.op("gemm", {wide, flat8, large, kAbsent, kAbsent, 4});
    const uint32_t narrow = p.tensor("f32", 18, kFixed, 20), byte_rows = p.tensor("a8_row", 256, kFixed, 20);
    const uint32_t float_rows = p.tensor("f8_row", 256, kFixed, 20), flat32 = p.tensor("a8_32", 256, kFixed, 20);
    p.op("quantize", {byte_rows, flat, unbounded});
    p.op("gemm", {narrow, byte_rows, bytes, kAbsent, kAbsent, 0});
    p.op("quantize", {float_rows, flat, float_word(1200)});
    p.op("gemm", {narrow, float_rows, small_floats, kAbsent, narrow, 0});
    p.op("quantize", {flat32, flat, unbounded});
    p.op("gemm", {narrow, flat32, nibbles, kAbsent, narrow, 0});
    p.op("gemm", {narrow, flat, stored_nibbles, kAbsent, narrow, 0});
    op_count = p.header[9];
  }

  // Two sequences: `rows` more positions of one that has `start`, and three of a new one; an output and a draw each.
  StepWords step(uint32_t start, uint32_t rows, Random& random) const {
    StepWords s;
    s.end_op = op_count;
    s.flags = 1 | 2 | 4;
    for (uint32_t i = 0; i < rows + 3; i++) {
      s.tokens.push_back(random.below(kVocabulary));
      s.positions.push_back(i < rows ? start + i : i - rows);
    }
    s.pages = {5, 2, 7, 0};
    s.sequences = {{0, rows, start, 0, 3}, {rows, 3, 0, 3, 1}};
    s.outputs = {rows - 1, rows + 2};
    s.targets = {random.below(kVocabulary), random.below(kVocabulary)};
    s.tail = {3, float_word(1.5f), 4, 2, 9, 1, 0xffffffffu, 0x0fffffffu, 0x3fu};
    for (uint32_t i = 0; i < 2; i++) {
      Words record(24);
      const float numbers[] = {0.8f, 0, 0.95f, 0.01f, 0.97f, 1.1f, 0.1f, 0.2f};
      std::memcpy(record.data(), numbers, sizeof numbers);
      record[1] = 40;  // top-k
      record[8] = static_cast<uint32_t>(random.next());
      record[10] = start + rows;
      record[11] = 5;
      record[13] = 1;  // the bias is the tail's first pair,
      record[14] = 2;  // the history the next two,
      record[15] = 2;
      record[16] = 6;  // the mask what follows
      record[17] = 2;
      s.sampling.insert(s.sampling.end(), record.begin(), record.end());
    }
    return s;
  }
};

inline const uint8_t* bytes_of(const Words& words) { return reinterpret_cast<const uint8_t*>(words.data()); }
inline int load(const Words& words, drover_region* region, const drover_load_options* options, drover_program** out,
                drover_error* error) {
  return drover_program_load(bytes_of(words), words.size() * 4, &region, 1, options, out, error);
}
inline int run(drover_program* program, const Words& step, drover_error* error) {
  return drover_program_run(program, bytes_of(step), step.size() * 4, error);
}
inline drover_load_options load_options() {
  drover_load_options options{};
  options.struct_bytes = sizeof options;
  return options;
}

#endif  // DROVER_TEST_PROGRAMS_H_
