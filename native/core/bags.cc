#include "bags.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "ops/op.h"
#include "status.h"

namespace drover {
namespace {

constexpr uint32_t kRecordWords = 2;
constexpr uint32_t kWideIndices = 1, kWideOffsets = 2, kWeights = 4;

// One input while it is read: numbers of 32 or 64 bits, signed.
struct Numbers {
  uint32_t* words;
  bool wide;
  int64_t at(uint64_t i) const {
    if (!wide) return static_cast<int32_t>(words[i]);
    int64_t value;
    std::memcpy(&value, words + 2 * i, sizeof value);
    return value;
  }
};

struct Input {
  uint32_t number, rows, count;
  Numbers offsets, indices;
  float* weights;
  drover_error* error;

  __attribute__((format(printf, 4, 5))) drover_code refuse(int64_t found, int64_t expected, const char* format,
                                                           ...) const;
};

drover_code Input::refuse(int64_t found, int64_t expected, const char* format, ...) const {
  char what[160];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(what, sizeof what, format, arguments);
  va_end(arguments);
  const drover_code code = fail(error, DROVER_RANGE, -1, found, expected, "bag input %u: %s", number, what);
  if (error != nullptr) error->bags = static_cast<int32_t>(number);
  return code;
}

// Whether 32-bit offsets are as they have to be, without a word about what is wrong; the most lookups of a bag.
bool offsets_right(const Input& in, int32_t* longest) {
  const int32_t* offsets = reinterpret_cast<const int32_t*>(in.offsets.words);
  uint32_t falls = 0;
  int32_t most = 0;
  for (uint32_t i = 0; i < in.rows; i++) {
    falls |= offsets[i + 1] < offsets[i] ? 1 : 0;
    const int32_t lookups = static_cast<int32_t>(in.offsets.words[i + 1] - in.offsets.words[i]);
    most = lookups > most ? lookups : most;
  }
  *longest = most;
  return falls == 0 && offsets[0] == 0 && offsets[in.rows] == static_cast<int32_t>(in.count);
}

// Offsets begin with 0, never fall and end with the number of indices. Leaves them in 32 bits.
drover_code check_offsets(const Input& in, const RecommendKernels& kernels, bool* has_long) {
  int32_t most = 0;
  if (!in.offsets.wide && offsets_right(in, &most)) {
    *has_long = most > static_cast<int32_t>(kBagPart);
    return DROVER_OK;
  }
  int64_t before = 0, longest = 0;
  for (uint32_t i = 0; i <= in.rows; i++) {
    const int64_t offset = in.offsets.at(i);
    if (i == 0 && offset != 0) return in.refuse(offset, 0, "offset 0 is %lld, not 0", static_cast<long long>(offset));
    if (offset < before) {
      return in.refuse(offset, before, "offset %u is %lld, below the one before it, %lld", i,
                       static_cast<long long>(offset), static_cast<long long>(before));
    }
    if (offset > in.count) {
      return in.refuse(offset, in.count, "offset %u is %lld, but there are %u indices", i,
                       static_cast<long long>(offset), in.count);
    }
    longest = offset - before > longest ? offset - before : longest;
    before = offset;
  }
  if (before != in.count) {
    return in.refuse(before, in.count, "the last offset is %lld, but there are %u indices",
                     static_cast<long long>(before), in.count);
  }
  if (in.offsets.wide) {
    kernels.narrow(reinterpret_cast<const uint8_t*>(in.offsets.words), uint64_t{in.rows} + 1, in.offsets.words);
  }
  *has_long = longest > kBagPart;
  return DROVER_OK;
}

// Some index is out of range: refuses the first such, or applies the policy to all. Offsets have 32 bits by now.
drover_code mend_indices(const Input& in, uint32_t limit, IndexPolicy policy, drover_bag_counts& counts) {
  uint32_t* offsets = in.offsets.words;
  uint32_t written = 0, from = 0;
  for (uint32_t bag = 0; bag < in.rows; bag++) {
    const uint32_t to = offsets[bag + 1];
    for (uint32_t i = from; i < to; i++) {
      int64_t index = in.indices.at(i);
      const bool valid = index >= 0 && index < int64_t{limit};
      if (!valid && policy == IndexPolicy::kError) {
        return in.refuse(index, limit, "bag %u, position %u: index %lld is out of range, the table has %u rows", bag,
                         i - from, static_cast<long long>(index), limit);
      }
      if (!valid && policy == IndexPolicy::kSkip) {
        counts.skipped++;
        continue;
      }
      if (!valid) {
        counts.clamped++;
        index = index < 0 ? 0 : int64_t{limit} - 1;
      }
      // Never ahead of what is still to be read, also where that has 64 bits.
      in.indices.words[written] = static_cast<uint32_t>(index);
      if (in.weights != nullptr) in.weights[written] = in.weights[i];
      written++;
    }
    from = to;
    offsets[bag + 1] = written;
  }
  return DROVER_OK;
}

drover_code check_indices(const Input& in, const drover_program& p, IndexPolicy policy, drover_bag_counts& counts) {
  const RecommendKernels& kernels = *p.recommend;
  const uint32_t limit = p.bag_inputs[in.number].rows;
  const uint8_t* bytes = reinterpret_cast<const uint8_t*>(in.indices.words);
  const bool valid = in.indices.wide ? kernels.all_below_64(bytes, in.count, limit)
                                     : kernels.all_below(in.indices.words, in.count, limit);
  if (!valid) return mend_indices(in, limit, policy, counts);
  if (in.indices.wide) kernels.narrow(bytes, in.count, in.indices.words);
  return DROVER_OK;
}

// Memory for what the parts of long bags sum up to; kept for later steps.
drover_code allocate_parts(drover_program& p, drover_error* error) {
  uint64_t floats = 0;
  uint32_t parts = 0;
  for (LongBag& bag : p.long_bags) {
    const uint32_t count = parts_of(p.bags[bag.input], bag.bag);
    bag.first_part = parts;
    bag.first_float = floats;
    parts += count;
    floats += uint64_t{count} * p.bag_inputs[bag.input].widest;
  }
  constexpr uint64_t kUnit = 1u << 16;  // a multiple of any page, so that what is there counts whole pages
  const uint64_t bytes = round_up(floats * 4, kUnit);
  if (bytes <= p.bag_parts.bytes() || p.bag_parts.allocate(bytes)) return DROVER_OK;
  return fail(error, DROVER_MEMORY, -1, static_cast<int64_t>(bytes), 0, "the system refuses memory for long bags");
}

}  // namespace

drover_code decode_bags(drover_program& p, BagWords from, uint32_t rows, uint32_t inputs, uint32_t policy,
                        drover_error* error) {
  const auto no = [&](const char* what, int64_t found, int64_t expected) {
    return fail(error, DROVER_RANGE, -1, found, expected, "step: %s", what);
  };
  if (p.bag_inputs.empty()) return no("bags, of which the program reads none", inputs, 0);
  if (inputs != p.bag_inputs.size()) {
    return no("another number of bag inputs than the program's", inputs, static_cast<int64_t>(p.bag_inputs.size()));
  }
  if (policy >= static_cast<uint32_t>(IndexPolicy::kCount)) return no("unknown policy for indices", policy, 2);
  uint64_t at = uint64_t{inputs} * kRecordWords;
  if (at > from.count) return no("bags end past the step", static_cast<int64_t>(at), static_cast<int64_t>(from.count));
  p.long_bags.clear();
  // All offsets and indices are checked before the first op runs.
  for (uint32_t i = 0; i < inputs; i++) {
    const uint32_t* record = from.words + uint64_t{i} * kRecordWords;
    const uint32_t flags = record[0];
    Input in{i, rows, record[1], {}, {}, nullptr, error};
    if ((flags & ~(kWideIndices | kWideOffsets | kWeights)) != 0) return in.refuse(flags, 7, "unknown flags %u", flags);
    if (in.count > INT32_MAX) return in.refuse(in.count, INT32_MAX, "more than 2^31 - 1 indices");
    if ((flags & kWeights) != 0 && p.bag_inputs[i].has_max) return in.refuse(1, 0, "a maximum takes no weights");
    const uint64_t offset_words = (uint64_t{rows} + 1) * ((flags & kWideOffsets) != 0 ? 2 : 1);
    const uint64_t index_words = uint64_t{in.count} * ((flags & kWideIndices) != 0 ? 2 : 1);
    const uint64_t weight_words = (flags & kWeights) != 0 ? in.count : 0;
    const uint64_t end = at + offset_words + index_words + weight_words;
    if (end > from.count) {
      return in.refuse(static_cast<int64_t>(end), static_cast<int64_t>(from.count), "its numbers end past the step");
    }
    in.offsets = {from.words + at, (flags & kWideOffsets) != 0};
    in.indices = {in.offsets.words + offset_words, (flags & kWideIndices) != 0};
    if (weight_words != 0) in.weights = reinterpret_cast<float*>(in.indices.words + index_words);
    at = end;
    bool has_long = false;
    if (const drover_code code = check_offsets(in, *p.recommend, &has_long)) return code;
    if (const drover_code code = check_indices(in, p, static_cast<IndexPolicy>(policy), p.bag_counts)) return code;
    p.bags[i] = {in.offsets.words, in.indices.words, in.weights};
    for (uint32_t bag = 0; has_long && bag < rows; bag++) {
      if (in.offsets.words[bag + 1] - in.offsets.words[bag] > kBagPart) p.long_bags.push_back({i, bag, 0, 0});
    }
  }
  if (at != from.count)
    return no("bags end before the step", static_cast<int64_t>(at), static_cast<int64_t>(from.count));
  return p.long_bags.empty() ? DROVER_OK : allocate_parts(p, error);
}

drover_code check_no_bags(const drover_program& p, const Step& step, drover_error* error) {
  if (p.bag_inputs.empty()) return DROVER_OK;
  for (uint32_t i = step.first_op; i < step.end_op; i++) {
    if (kOps[p.ops[i].opcode].implementation != &op_embedding_bag) continue;
    return fail(error, DROVER_RANGE, static_cast<int32_t>(i), 0, static_cast<int64_t>(p.bag_inputs.size()),
                "step: this op reads bags, and the step has none");
  }
  return DROVER_OK;
}

}  // namespace drover
