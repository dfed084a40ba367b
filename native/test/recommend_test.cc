// Programs of recommenders through drover.h: bags are checked, cut and counted; words changed at random are refused, or
// run without a read out of place (the sanitizers watch; regions and arenas are guarded in sanitized builds).
#include <cstdio>
#include <cstdlib>
#include <string>

#include "mutants.h"
#include "programs.h"

namespace {

constexpr uint32_t kTable = 4, kCopy = 8, kFirst = 16;
constexpr uint32_t kMostRows = 24, kDim = 8, kInputs = 5, kAll = kDim + 6 + 38 + 1;
constexpr uint32_t kWideIndices = 1, kWideOffsets = 2, kWeights = 4;

// Three tables of one width that an interaction reads, one of them pooled to its maximum, too; two of other widths with
// bags of their own; a factorization machine, a cross layer and a score.
struct Ranker {
  ProgramWords program;
  WeightBytes weights;
  uint32_t dense, pooled, largest, wide, score, op_count;
  std::vector<uint32_t> rows;

  uint32_t table(const char* type, uint32_t count, uint32_t cols, uint32_t flags, uint32_t stride, Random& random) {
    const uint64_t at = weights.bytes.size();
    weights.bytes.resize(at + uint64_t{stride} * count);
    for (uint64_t i = at; i < weights.bytes.size(); i++) weights.bytes[i] = static_cast<uint8_t>(random.next() & 0x3f);
    rows.push_back(count);
    return program.weight(0, type, at, count, cols, kTable | flags, stride);
  }

  explicit Ranker(Random& random) {
    ProgramWords& p = program;
    p.header[3] = kMostRows;
    p.header[18] = kInputs;
    const uint32_t first = table("f32", 40, kDim, 0, 32, random);
    table("i8_rowwise", 7, kDim, kCopy, 20, random);
    table("i4_rowwise", 1, kDim, kFirst, 16, random);
    const uint32_t others = table("f16", 100, 5, 0, 10, random);
    table("i8h_rowwise", 30, 33, kCopy | kFirst, 37, random);
    const uint32_t product = p.weight(0, "f32", weights.add("f32", 1, kAll, random), 1, kAll, kPlain);
    dense = p.tensor("f32", kDim, kRows);
    pooled = p.tensor("f32", 3 * kDim, kRows);
    largest = p.tensor("f32", kDim, kRows);
    wide = p.tensor("f32", 38, kRows);
    const uint32_t halves = p.tensor("u32", 19, kRows), pairs = p.tensor("f32", kDim + 6, kRows);
    const uint32_t machine = p.tensor("f32", 1, kRows), all = p.tensor("f32", kAll, kRows),
                   crossed = p.tensor("f32", kAll, kRows);
    score = p.tensor("f32", 1, kRows);
    p.op("embedding_bag", {pooled, first, 3, 0, 0, 0});
    p.op("embedding_bag", {largest, first, 1, 0, 2, 0});
    p.op("embedding_bag", {wide, others, 2, 3, 1, 0});
    p.op("embedding_bag", {halves, others, 2, 3, 0, 2});
    p.op("interaction", {pairs, dense, pooled, 0});
    p.op("factorization", {machine, pooled});
    p.op("concat", {all, pairs, wide, machine, kAbsent, kAbsent, kAbsent, kAbsent});
    p.op("cross", {crossed, all, all, all});
    p.op("gemm", {score, crossed, product, kAbsent, kAbsent, 0});
    p.op("sigmoid", {score, score});
    op_count = p.header[9];
  }
};

// The lookups of one input.
struct BagList {
  std::vector<int64_t> offsets{0}, indices;
  std::vector<float> weights;
  uint32_t flags = 0;

  void add(const std::vector<int64_t>& bag, Random& random) {
    for (const int64_t index : bag) {
      indices.push_back(index);
      weights.push_back(random.normal());
    }
    offsets.push_back(static_cast<int64_t>(indices.size()));
  }
};

void put(Words& words, const std::vector<int64_t>& numbers, bool is_wide) {
  for (const int64_t number : numbers) {
    words.push_back(static_cast<uint32_t>(number));
    if (is_wide) words.push_back(static_cast<uint32_t>(number >> 32));
  }
}

Words step_words(uint32_t op_count, uint32_t rows, const std::vector<BagList>& bags, uint32_t policy) {
  StepWords s;
  s.end_op = op_count;
  s.flags = 8 | 1;
  Words words = s.words();  // with bags there are no tokens
  words[2] = rows;
  words[10] = static_cast<uint32_t>(bags.size());
  words[11] = policy;
  for (const BagList& list : bags) {
    words.push_back(list.flags);
    words.push_back(static_cast<uint32_t>(list.indices.size()));
  }
  for (const BagList& list : bags) {
    put(words, list.offsets, (list.flags & kWideOffsets) != 0);
    put(words, list.indices, (list.flags & kWideIndices) != 0);
    if ((list.flags & kWeights) == 0) continue;
    for (const float weight : list.weights) words.push_back(float_word(weight));
  }
  words[1] = static_cast<uint32_t>(words.size());
  return words;
}

std::vector<BagList> random_bags(const Ranker& ranker, uint32_t rows, Random& random) {
  std::vector<BagList> bags(kInputs);
  for (uint32_t i = 0; i < kInputs; i++) {
    bags[i].flags = random.below(i == 0 ? 4 : 8);  // a maximum takes no weights
    for (uint32_t row = 0; row < rows; row++) {
      std::vector<int64_t> bag(random.below(3) == 0 ? 0 : random.below(12));
      for (int64_t& index : bag) index = random.below(ranker.rows[i]);
      bags[i].add(bag, random);
    }
  }
  return bags;
}

drover_region* region_of(const Ranker& ranker) {
  drover_region* region = nullptr;
  drover_error error{};
  CHECK(drover_region_copy(ranker.weights.bytes.data(), ranker.weights.bytes.size(), &region, &error) == DROVER_OK,
        "%s", error.message);
  return region;
}

// The same bytes as a file that is mapped, so that tables are copied out of it.
drover_region* mapped_region(const Ranker& ranker) {
  char path[] = "/tmp/drover-tables-XXXXXX";
  const int file = mkstemp(path);
  std::FILE* stream = fdopen(file, "wb");
  std::fwrite(ranker.weights.bytes.data(), 1, ranker.weights.bytes.size(), stream);
  std::fclose(stream);
  drover_region* region = nullptr;
  drover_error error{};
  CHECK(drover_region_map(path, ranker.weights.bytes.size(), &region, &error) == DROVER_OK, "%s", error.message);
  std::remove(path);
  return region;
}

drover_program* load_ranker(Ranker& ranker, drover_region* region, uint32_t threads) {
  drover_load_options options = load_options();
  options.threads = threads;
  options.verify_weights = 1;
  drover_program* program = nullptr;
  drover_error error{};
  CHECK(load(ranker.program.words(), region, &options, &program, &error) == DROVER_OK, "%s", error.message);
  drover_region_release(region);
  return program;
}

std::vector<float> read(drover_program* program, uint32_t tensor, uint32_t rows, uint32_t cols) {
  std::vector<float> out(uint64_t{rows} * cols);
  drover_error error{};
  CHECK(drover_program_read(program, tensor, 0, rows, out.data(), out.size() * 4, &error) == DROVER_OK, "%s",
        error.message);
  return out;
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * 4) == 0);
}

// One thread or two, tables in the file, in memory or copied: the same bits; sums and maxima are what they should be.
void check_results(Random& random) {
  Ranker ranker(random);
  drover_program* programs[] = {load_ranker(ranker, region_of(ranker), 1), load_ranker(ranker, region_of(ranker), 2),
                                load_ranker(ranker, mapped_region(ranker), 2)};
  for (uint32_t turn = 0; turn < 60; turn++) {
    const uint32_t rows = random.below(kMostRows + 1);
    std::vector<BagList> bags = random_bags(ranker, rows, random);
    if (turn % 4 == 3 && rows > 2) {  // long bags, one of them in the last row
      for (const uint32_t input : {0u, 4u}) {
        BagList list;
        list.flags = bags[input].flags;
        for (uint32_t row = 0; row < rows; row++) {
          std::vector<int64_t> bag(row == 1 || row + 1 == rows ? 4097 + random.below(9000) : random.below(4));
          for (int64_t& index : bag) index = random.below(ranker.rows[input]);
          list.add(bag, random);
        }
        bags[input] = list;
      }
    }
    const Words step = step_words(ranker.op_count, rows, bags, 0);
    std::vector<float> first[4];
    for (drover_program* program : programs) {
      drover_error error{};
      CHECK(run(program, step, &error) == DROVER_OK, "%s", error.message);
      const std::vector<float> found[4] = {read(program, ranker.pooled, rows, 3 * kDim),
                                           read(program, ranker.largest, rows, kDim),
                                           read(program, ranker.wide, rows, 38), read(program, ranker.score, rows, 1)};
      for (uint32_t i = 0; i < 4; i++) {
        if (program == programs[0]) first[i] = found[i];
        CHECK(same(found[i], first[i]), "turn %u, output %u", turn, i);
      }
    }
    const float* table = reinterpret_cast<const float*>(ranker.weights.bytes.data());
    for (uint32_t row = 0; row < rows; row++) {
      for (uint32_t d = 0; d < kDim; d++) {
        double sum = 0, largest = -INFINITY;
        for (int64_t i = bags[0].offsets[row]; i < bags[0].offsets[row + 1]; i++) {
          const double value = table[bags[0].indices[i] * kDim + d];
          sum += value;
          largest = std::fmax(largest, value);
        }
        if (bags[0].offsets[row] == bags[0].offsets[row + 1]) largest = 0;
        CHECK(std::fabs(first[0][row * 3 * kDim + d] - sum) <= 2e-5 * (1 + sum), "sum of row %u: %g, not %g", row,
              first[0][row * 3 * kDim + d], sum);
        CHECK(first[1][row * kDim + d] == static_cast<float>(largest), "maximum of row %u", row);
      }
    }
  }
  drover_memory memory{};
  drover_program_memory(programs[2], &memory);
  CHECK(memory.tables >= 7 * 20 + 30 * 37 && memory.mapped != 0, "%llu bytes of tables",
        static_cast<unsigned long long>(memory.tables));
  CHECK(drover_program_resident_bytes(programs[2]) > 0, "the file was just read");
  CHECK(drover_program_resident_bytes(programs[0]) == 0, "no table is in a file");
  for (drover_program* program : programs) drover_program_release(program);
}

// Indices out of range: an error by default, else skipped or clamped and counted, whatever their width.
void check_policies(Random& random) {
  Ranker ranker(random);
  drover_program* program = load_ranker(ranker, region_of(ranker), 1);
  const int64_t bad[] = {-1, 40, INT32_MAX, INT32_MIN};
  for (uint32_t turn = 0; turn < 200; turn++) {
    const uint32_t rows = 1 + random.below(6);
    std::vector<BagList> bags = random_bags(ranker, rows, random), skipped(kInputs), clamped(kInputs);
    const uint32_t flags = random.below(4);
    bags[0] = BagList{};
    bags[0].flags = flags;
    skipped = clamped = bags;
    uint64_t count = 0;
    for (uint32_t row = 0; row < rows; row++) {
      std::vector<int64_t> all, some, nearest;
      for (uint32_t i = 0; i < 5; i++) {
        const bool is_bad = random.below(3) == 0;
        int64_t index = is_bad ? bad[random.below(4)] : random.below(40);
        if (is_bad && (flags & kWideIndices) != 0 && random.below(2) == 0) index = INT64_MIN + random.below(9);
        count += is_bad;
        all.push_back(index);
        if (!is_bad) some.push_back(index);
        nearest.push_back(index < 0 ? 0 : index > 39 ? 39 : index);
      }
      bags[0].add(all, random);
      skipped[0].add(some, random);
      clamped[0].add(nearest, random);
    }
    std::vector<float> right[2], found[2];
    drover_error error{};
    drover_bag_counts counts{};
    const std::vector<BagList>* plain[2] = {&skipped, &clamped};
    for (uint32_t policy = 1; policy <= 2; policy++) {
      CHECK(run(program, step_words(ranker.op_count, rows, *plain[policy - 1], 0), &error) == DROVER_OK, "%s",
            error.message);
      right[policy - 1] = read(program, ranker.score, rows, 1);
      drover_program_bag_counts(program, &counts, &error);
      CHECK(counts.skipped + counts.clamped == 0, "nothing was wrong");
      CHECK(run(program, step_words(ranker.op_count, rows, bags, policy), &error) == DROVER_OK, "%s", error.message);
      found[policy - 1] = read(program, ranker.score, rows, 1);
      drover_program_bag_counts(program, &counts, &error);
      CHECK(counts.skipped == (policy == 1 ? count : 0) && counts.clamped == (policy == 2 ? count : 0),
            "%llu skipped, %llu clamped of %llu", static_cast<unsigned long long>(counts.skipped),
            static_cast<unsigned long long>(counts.clamped), static_cast<unsigned long long>(count));
      CHECK(same(found[policy - 1], right[policy - 1]), "policy %u", policy);
    }
    const int code = run(program, step_words(ranker.op_count, rows, bags, 0), &error);
    CHECK(code == (count == 0 ? DROVER_OK : DROVER_RANGE), "code %d for %llu", code,
          static_cast<unsigned long long>(count));
    CHECK(count == 0 || (told(code, error) && error.bags == 0 && std::strstr(error.message, "position") != nullptr),
          "\"%s\"", error.message);
  }
  drover_program_release(program);
}

// What each kind of wrong bags is told, and where.
void check_refusals(Random& random) {
  Ranker ranker(random);
  drover_program* program = load_ranker(ranker, region_of(ranker), 1);
  const auto refused = [&](const char* what, const Words& step, int32_t input, const char* message) {
    drover_error error{};
    const int code = run(program, step, &error);
    CHECK(code == DROVER_RANGE && error.bags == input && std::strstr(error.message, message) != nullptr,
          "%s: code %d, input %d, \"%s\"", what, code, error.bags, error.message);
  };
  const std::vector<BagList> good = random_bags(ranker, 3, random);
  const auto with = [&](uint32_t input, auto change) {
    std::vector<BagList> bags(good);
    change(bags[input]);
    return step_words(ranker.op_count, 3, bags, 0);
  };
  refused("weights of a maximum", with(0, [](BagList& list) { list.flags |= kWeights; }), 0, "takes no weights");
  refused("unknown flags", with(2, [](BagList& list) { list.flags |= 64; }), 2, "unknown flags");
  refused("first offset", with(3, [](BagList& list) { list.offsets = {1, 1, 1, 1}; }), 3, "offset 0 is 1");
  refused("falling",
          with(1,
               [](BagList& list) {
                 list.indices = {0, 0};
                 list.weights = {1, 1};
                 list.offsets = {0, 2, 1, 2};
               }),
          1, "offset 2 is 1, below the one before it, 2");
  refused("too few",
          with(4,
               [](BagList& list) {
                 list.indices = {0, 0};
                 list.weights = {1, 1};
                 list.offsets = {0, 0, 0, 1};
               }),
          4, "the last offset is 1, but there are 2 indices");
  Words step = step_words(ranker.op_count, 3, good, 3);
  refused("policy", step, -1, "unknown policy");
  step = step_words(ranker.op_count, 3, good, 0);
  step[10] = 4;
  refused("inputs", step, -1, "another number of bag inputs");
  step = step_words(ranker.op_count, 3, good, 0);
  step.push_back(0);
  step[1]++;
  refused("more words", step, -1, "bags end before the step");
  StepWords none;
  none.end_op = ranker.op_count;
  none.tokens.resize(3);
  none.positions.resize(3);
  refused("no bags", none.words(), -1, "the step has none");
  none.first_op = none.end_op = 4;
  drover_error error{};
  CHECK(run(program, none.words(), &error) == DROVER_OK, "no op of it reads bags: %s", error.message);
  drover_program_release(program);
}

void check_mutants(Random& random) {
  Ranker ranker(random);
  const Words words = ranker.program.words();
  drover_region* region = region_of(ranker);
  drover_load_options options = load_options();
  options.memory_budget = 32u << 20;
  uint32_t accepted = 0, refused = 0;
  for (uint32_t turn = 0; turn < 4000; turn++) {
    const Words mutant = turn == 0 ? words : changed(words, 0, random);
    drover_program* program = nullptr;
    drover_error error{};
    const int code = load(mutant, region, &options, &program, &error);
    (code == DROVER_OK ? accepted : refused)++;
    CHECK(code == DROVER_OK || (program == nullptr && told(code, error)), "turn %u: code %d, \"%s\"", turn, code,
          error.message);
    if (code != DROVER_OK) continue;
    for (uint32_t i = 0; i < 3; i++) {
      const uint32_t rows = random.below(kMostRows + 1);
      const Words step = step_words(ranker.op_count, rows, random_bags(ranker, rows, random), random.below(3));
      error = {};
      const int end = run(program, i == 2 ? changed(step, 0, random) : step, &error);
      CHECK(end == DROVER_OK || told(end, error), "turn %u: code %d, \"%s\"", turn, end, error.message);
    }
    drover_program_release(program);
  }
  CHECK(accepted > 300 && refused > 2000, "%u accepted, %u refused", accepted, refused);
  drover_program* program = load_ranker(ranker, region, 2);
  accepted = refused = 0;
  for (uint32_t turn = 0; turn < 6000; turn++) {
    const uint32_t rows = 1 + random.below(6);
    const Words step = step_words(ranker.op_count, rows, random_bags(ranker, rows, random), random.below(3));
    drover_error error{};
    const int code = run(program, turn % 10 == 0 ? step : changed(step, 0, random), &error);
    (code == DROVER_OK ? accepted : refused)++;
    CHECK(code == DROVER_OK || (code == DROVER_RANGE && told(code, error)), "turn %u: code %d, \"%s\"", turn, code,
          error.message);
    CHECK(code == DROVER_OK || turn % 10 != 0, "a right step: %s", error.message);
  }
  CHECK(accepted > 900 && refused > 900, "%u accepted, %u refused", accepted, refused);
  drover_program_release(program);
}

}  // namespace

int main() {
  setenv("DROVER_THREADS", "2", 1);
  Random random(23);
  check_results(random);
  check_policies(random);
  check_refusals(random);
  check_mutants(random);
  return check_summary();
}
