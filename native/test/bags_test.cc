// Embedding bags: every format, width, pooling and output of every kernel set against a plain loop in the order that
// recommend.h states, bit for bit; tables end where their memory does.
#include <cmath>
#include <vector>

#include "buffers.h"
#include "core/platform.h"
#include "kernels/prepare.h"
#include "kernels/recommend/recommend.h"
#include "kernels/rowwise.h"
#include "kernels/simd/half.h"

using namespace drover;

namespace {

struct Set {
  const char* isa;
  const RecommendKernels* kernels;
};

std::vector<Set> runnable_sets() {
  std::vector<Set> sets{{"scalar", recommend_scalar()}};
#if defined(DROVER_X86)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) sets.push_back({"avx2", recommend_avx2()});
  if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw"))
    sets.push_back({"avx512", recommend_avx512()});
#elif defined(DROVER_ARM64)
  sets.push_back({"neon", recommend_neon()});
#endif
  return sets;
}

constexpr DType kFormats[] = {DType::f32,         DType::f16,        DType::bf16,      DType::i8_rowwise,
                              DType::i8h_rowwise, DType::i4_rowwise, DType::i2_rowwise};
constexpr uint32_t kRows = 11;

// Rows of small numbers, `stride` apart; the last one ends with the memory.
struct Table {
  DType dtype;
  uint32_t dim;
  bool first;
  uint64_t stride, row;
  Buffer<uint8_t> bytes;

  Table(DType type, uint32_t cols, uint64_t padding, bool parameters_first, Random& random)
      : dtype(type),
        dim(cols),
        first(parameters_first && is_rowwise(type)),
        stride(row_bytes(type, cols) + padding),
        row(row_bytes(type, cols)),
        bytes(stride * (kRows - 1) + row_bytes(type, cols)) {
    for (uint64_t i = 0; i < bytes.count(); i++) bytes[i] = static_cast<uint8_t>(random.next());
    for (uint32_t r = 0; r < kRows; r++) {
      for (uint32_t i = 0; i < dim && !is_rowwise(dtype); i++) {
        const float value = random.normal();
        const uint16_t code = dtype == DType::f16 ? float_to_half(value) : float_to_bfloat(value);
        if (dtype == DType::f32) std::memcpy(at(r) + uint64_t{i} * 4, &value, 4);
        if (dtype != DType::f32) std::memcpy(at(r) + uint64_t{i} * 2, &code, 2);
      }
      if (!is_rowwise(dtype)) continue;
      const float numbers[2] = {random.uniform() * 0.02f, random.normal()};
      const uint16_t halves[2] = {float_to_half(numbers[0]), float_to_half(numbers[1])};
      const void* from = dtype == DType::i8_rowwise ? static_cast<const void*>(numbers) : halves;
      std::memcpy(at(r) + (first ? 0 : row - parameter_bytes(dtype)), from, parameter_bytes(dtype));
    }
  }
  uint8_t* at(uint32_t r) { return bytes.data() + r * stride; }
  const uint8_t* at(uint32_t r) const { return bytes.data() + r * stride; }
  BagTable table() const {
    const uint32_t parameters = parameter_bytes(dtype);
    return {bytes.data(),
            bytes.data() + bytes.count(),
            stride,
            dtype,
            dim,
            first ? parameters : 0,
            first ? 0 : static_cast<uint32_t>(row) - parameters,
            static_cast<uint32_t>(row)};
  }
  // Element i of a row: a number, or a code with its scale and bias.
  float element(uint32_t r, uint32_t i) const {
    const uint8_t* codes = at(r) + (first ? parameter_bytes(dtype) : 0);
    if (is_rowwise(dtype)) {
      const uint32_t in_byte = elements_of(dtype), bits = 8 / in_byte;
      return static_cast<float>(codes[i / in_byte] >> (i % in_byte * bits) & ((1u << bits) - 1));
    }
    float value;
    decode_row(dtype, codes + i * bytes_of(dtype), 1, &value);
    return value;
  }
  void parameters(uint32_t r, float* scale, float* bias) const {
    const uint8_t* p = at(r) + (first ? 0 : row - parameter_bytes(dtype));
    if (dtype == DType::i8_rowwise) {
      std::memcpy(scale, p, 4);
      std::memcpy(bias, p + 4, 4);
    } else {
      uint16_t halves[2];
      std::memcpy(halves, p, 4);
      *scale = half_to_float(halves[0]);
      *bias = half_to_float(halves[1]);
    }
  }
};

struct Lookups {
  std::vector<uint32_t> offsets{0}, indices;
  std::vector<float> weights;
  void add(uint32_t count, Random& random) {
    for (uint32_t i = 0; i < count; i++) {
      indices.push_back(random.below(kRows));
      weights.push_back(random.normal());
    }
    offsets.push_back(static_cast<uint32_t>(indices.size()));
  }
  uint32_t bags() const { return static_cast<uint32_t>(offsets.size()) - 1; }
  Bags view(bool weighted) const { return {offsets.data(), indices.data(), weighted ? weights.data() : nullptr}; }
};

// Element d of lookups [begin, end), before division.
float sum_of(const Table& t, const Lookups& l, uint32_t begin, uint32_t end, uint32_t d, Pooling pooling,
             bool weighted) {
  float acc = pooling == Pooling::kMax ? -INFINITY : 0, biases = 0;
  for (uint32_t i = begin; i < end; i++) {
    const float weight = weighted ? l.weights[i] : 1, x = t.element(l.indices[i], d);
    float scale = 1, bias = 0;
    if (is_rowwise(t.dtype)) t.parameters(l.indices[i], &scale, &bias);
    if (pooling == Pooling::kMax) {
      const float value = is_rowwise(t.dtype) ? scale * x + bias : x;
      acc = acc > value ? acc : value;
    } else {
      acc = std::fma(scale * weight, x, acc);
      biases = std::fma(weight, bias, biases);
    }
  }
  return is_rowwise(t.dtype) && pooling != Pooling::kMax ? acc + biases : acc;
}

float pooled_of(const Table& t, const Lookups& l, uint32_t bag, uint32_t d, Pooling pooling, bool weighted) {
  const uint32_t begin = l.offsets[bag], end = l.offsets[bag + 1];
  if (begin == end) return 0;
  float sum = 0;
  for (uint32_t from = begin; from < end; from += kBagPart) {
    const uint32_t to = end - from < kBagPart ? end : from + kBagPart;
    const float part = sum_of(t, l, from, to, d, pooling, weighted);
    if (from == begin) {
      sum = part;
    } else {
      sum = pooling != Pooling::kMax ? sum + part : sum > part ? sum : part;
    }
  }
  return pooling == Pooling::kMean ? sum / static_cast<float>(end - begin) : sum;
}

bool same_output(BagOutput output, const uint8_t* found, const std::vector<float>& right) {
  for (uint32_t d = 0; d < right.size(); d++) {
    if (output == BagOutput::kF32) {
      if (std::memcmp(found + d * 4, &right[d], 4) != 0) return false;
    } else {
      const uint16_t code = output == BagOutput::kF16 ? float_to_half(right[d]) : float_to_bfloat(right[d]);
      if (std::memcmp(found + d * 2, &code, 2) != 0) return false;
    }
  }
  return true;
}

struct Case {
  Pooling pooling;
  BagOutput output;
  bool weighted;
};

void check_bags(const Set& set, const Table& t, const Lookups& l, const Case& c, Random& random) {
  const BagTable table = t.table();
  const uint64_t element = c.output == BagOutput::kF32 ? 4 : 2, stride = round_up(t.dim * element, 4) + 4;
  Buffer<uint8_t> out(stride * (l.bags() - 1) + t.dim * element), scratch(kBagScratchBytes);
  const Bags bags = l.view(c.weighted);
  const BagWork work{&table, bags, c.pooling, c.output, out.data(), stride, scratch.data()};
  Ahead ahead{};
  ahead.table = &table;
  ahead.bags = &bags;
  ahead.left = 1;
  ahead.bag_count = l.bags();
  ahead.last_stop = l.indices.data() + l.indices.size();
  set.kernels->ask(ahead, random.below(20));
  const BagKernel& kernel = set.kernels->bag[static_cast<uint32_t>(t.dtype)];
  const uint32_t middle = random.below(l.bags() + 1);
  kernel.bags(work, 0, middle, ahead);
  kernel.bags(work, middle, l.bags(), ahead);
  for (uint32_t bag = 0; bag < l.bags(); bag++) {
    std::vector<float> right(t.dim);
    for (uint32_t d = 0; d < t.dim; d++) right[d] = pooled_of(t, l, bag, d, c.pooling, c.weighted);
    CHECK(same_output(c.output, out.data() + bag * stride, right),
          "%s, %s, %u columns, pooling %u, output %u, weighted %d, bag %u of %u lookups", set.isa, name_of(t.dtype),
          t.dim, static_cast<uint32_t>(c.pooling), static_cast<uint32_t>(c.output), c.weighted, bag,
          l.offsets[bag + 1] - l.offsets[bag]);
  }
}

constexpr Case kCases[] = {{Pooling::kSum, BagOutput::kF32, false},  {Pooling::kSum, BagOutput::kF32, true},
                           {Pooling::kMean, BagOutput::kF32, false}, {Pooling::kMax, BagOutput::kF32, false},
                           {Pooling::kSum, BagOutput::kF16, true},   {Pooling::kMean, BagOutput::kBF16, true}};

void check_widths(Random& random) {
  for (const DType dtype : kFormats) {
    for (uint32_t dim = 1; dim <= 1024; dim = dim < 36 ? dim + 1 : dim < 140 ? dim + 23 : dim * 2 - random.below(dim)) {
      const Table table(dtype, dim, random.below(3) * 4, random.below(2) == 1, random);
      Lookups lookups;
      for (const uint32_t count : {1u, 0u, 3u, 0u, 40u, 1u, 17u}) lookups.add(count, random);
      for (const Set& set : runnable_sets()) {
        for (const Case& c : kCases) check_bags(set, table, lookups, c, random);
      }
    }
  }
}

// Parts of a long bag, merged: as one chain per part.
void check_parts(Random& random) {
  for (const DType dtype : kFormats) {
    const Table table(dtype, 37, 0, false, random);
    Lookups lookups;
    lookups.add(5, random);
    lookups.add(2 * kBagPart + 77, random);
    const uint32_t begin = lookups.offsets[1], end = lookups.offsets[2];
    for (const Set& set : runnable_sets()) {
      for (const Case& c : kCases) {
        const BagTable view = table.table();
        Buffer<uint8_t> out(2 * 37 * 4), scratch(kBagScratchBytes);
        Buffer<float> parts(3 * 37);
        const BagWork work{&view, lookups.view(c.weighted), c.pooling, c.output, out.data(), 37 * 4, scratch.data()};
        for (uint32_t part = 0; part < 3; part++) {
          const uint32_t from = begin + part * kBagPart, to = end - from < kBagPart ? end : from + kBagPart;
          Ahead ahead{};
          set.kernels->bag[static_cast<uint32_t>(dtype)].part(work, from, to, ahead, parts.data() + part * 37);
        }
        set.kernels->merge(work, 1, end - begin, parts.data(), 3);
        std::vector<float> right(37);
        for (uint32_t d = 0; d < 37; d++) right[d] = pooled_of(table, lookups, 1, d, c.pooling, c.weighted);
        CHECK(same_output(c.output, out.data() + 37 * 4, right), "%s, %s, long bag, pooling %u", set.isa,
              name_of(dtype), static_cast<uint32_t>(c.pooling));
      }
    }
  }
}

// The cursor goes from table to table, over some without lookups, and ends where it is told to.
void check_cursor(Random& random) {
  std::vector<Table> tables;
  tables.reserve(5);
  std::vector<Lookups> lookups(5);
  std::vector<BagTable> views;
  std::vector<Bags> bags;
  for (uint32_t i = 0; i < 5; i++) {
    tables.emplace_back(kFormats[i], 16 + i * 24, 0, false, random);
    views.push_back(tables[i].table());
    for (uint32_t bag = 0; bag < 6; bag++) lookups[i].add(i == 2 ? 0 : random.below(9), random);
    bags.push_back(lookups[i].view(false));
  }
  for (const Set& set : runnable_sets()) {
    for (const uint32_t distance : {0u, 1u, 30u, 1000u}) {
      Ahead ahead{};
      ahead.table = views.data();
      ahead.bags = bags.data();
      ahead.left = 5;
      ahead.bag_count = 6;
      ahead.last_stop = bags[4].indices + lookups[4].offsets[3];
      set.kernels->ask(ahead, distance);
      for (uint32_t i = 0; i < 5; i++) {
        Buffer<float> out(6 * tables[i].dim);
        Buffer<uint8_t> scratch(kBagScratchBytes);
        const uint64_t stride = uint64_t{tables[i].dim} * 4;
        const BagWork work{
            &views[i], bags[i],       Pooling::kSum, BagOutput::kF32, reinterpret_cast<uint8_t*>(out.data()),
            stride,    scratch.data()};
        set.kernels->bag[static_cast<uint32_t>(tables[i].dtype)].bags(work, 0, i == 4 ? 3 : 6, ahead);
        for (uint32_t bag = 0; bag < (i == 4 ? 3u : 6u); bag++) {
          std::vector<float> right(tables[i].dim);
          for (uint32_t d = 0; d < tables[i].dim; d++) {
            right[d] = pooled_of(tables[i], lookups[i], bag, d, Pooling::kSum, false);
          }
          CHECK(same_output(BagOutput::kF32, reinterpret_cast<uint8_t*>(out.data()) + bag * stride, right),
                "%s: table %u, bag %u, %u ahead", set.isa, i, bag, distance);
        }
      }
      CHECK(ahead.left == 0 && ahead.next == ahead.stop, "%s: the cursor is at its end", set.isa);
    }
  }
}

void check_indices(Random& random) {
  for (const Set& set : runnable_sets()) {
    for (uint32_t count = 0; count < 70; count++) {
      Buffer<uint32_t> narrow(count), out(count);
      Buffer<uint64_t> wide(count);
      const uint32_t rows = 1 + random.below(3) * 0x7fffffffu;
      for (uint32_t i = 0; i < count; i++) wide[i] = narrow[i] = random.below(rows);
      const uint8_t* bytes = reinterpret_cast<const uint8_t*>(wide.data());
      CHECK(set.kernels->all_below(narrow.data(), count, rows), "%s: %u indices below %u", set.isa, count, rows);
      CHECK(set.kernels->all_below_64(bytes, count, rows), "%s: %u wide indices below %u", set.isa, count, rows);
      set.kernels->narrow(bytes, count, out.data());
      CHECK(count == 0 || std::memcmp(out.data(), narrow.data(), narrow.bytes()) == 0, "%s: narrowed", set.isa);
      if (count == 0) continue;
      const uint32_t at = random.below(count);
      narrow[at] = random.below(2) == 0 ? rows : 0xffffffffu;
      wide[at] = random.below(2) == 0 ? rows : uint64_t{1} << (32 + random.below(32));
      CHECK(!set.kernels->all_below(narrow.data(), count, rows), "%s: index %u of %u", set.isa, at, count);
      CHECK(!set.kernels->all_below_64(bytes, count, rows), "%s: wide index %u of %u", set.isa, at, count);
    }
  }
}

// Sums of products in the order of all vectors: 16 lanes, then halves.
float product(const float* a, const float* b, uint32_t dim) {
  float lanes[16] = {};
  for (uint32_t i = 0; i < dim; i++) lanes[i % 16] = std::fma(a[i], b[i], lanes[i % 16]);
  for (uint32_t half = 8; half >= 1; half /= 2) {
    for (uint32_t i = 0; i < half; i++) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

void check_features(Random& random) {
  for (const uint32_t dim : {1u, 2u, 15u, 16u, 17u, 33u, 64u, 100u}) {
    for (const uint32_t tables : {0u, 1u, 2u, 4u, 5u, 9u, 26u}) {
      const Buffer<float> dense = normals(dim, random), pooled = normals(uint64_t{dim} * tables, random);
      for (const Pairs pairs : {Pairs::kLower, Pairs::kLowerAndItself, Pairs::kUpper}) {
        std::vector<float> right(dense.data(), dense.data() + dim);
        const auto vector = [&](uint32_t i) { return i == 0 ? dense.data() : pooled.data() + uint64_t{i - 1} * dim; };
        for (uint32_t i = 0; i <= tables; i++) {
          const uint32_t begin = pairs == Pairs::kUpper ? i + 1 : 0;
          const uint32_t end = pairs == Pairs::kUpper ? tables + 1 : i + (pairs == Pairs::kLowerAndItself ? 1 : 0);
          for (uint32_t j = begin; j < end; j++) right.push_back(product(vector(i), vector(j), dim));
        }
        for (const Set& set : runnable_sets()) {
          Buffer<float> out(right.size());
          set.kernels->interaction(dense.data(), pooled.data(), dim, tables, pairs, out.data());
          CHECK(std::memcmp(out.data(), right.data(), out.bytes()) == 0, "%s: interaction of %u tables of %u", set.isa,
                tables, dim);
        }
      }
    }
    const Buffer<float> x0 = normals(dim, random), y = normals(dim, random), x = normals(dim, random, 20);
    double sum = 0, squares = 0;
    for (uint32_t i = 0; i < dim; i++) {
      sum += x[i];
      squares += double{x[i]} * x[i];
    }
    const float machine = recommend_scalar()->factorization(x.data(), dim);
    CHECK(std::fabs(machine - (sum * sum - squares) / 2) <= 1e-6 * (sum * sum + squares), "factorization of %u", dim);
    Buffer<float> first(dim);
    recommend_scalar()->sigmoid(x.data(), dim, first.data());
    for (const Set& set : runnable_sets()) {
      Buffer<float> crossed(y), scores(x);  // in place
      set.kernels->cross(x0.data(), crossed.data(), x.data(), dim, crossed.data());
      set.kernels->sigmoid(scores.data(), dim, scores.data());
      for (uint32_t i = 0; i < dim; i++) {
        CHECK(crossed[i] == std::fma(x0[i], y[i], x[i]), "%s: cross", set.isa);
        CHECK(std::fabs(scores[i] - 1 / (1 + std::exp(-double{x[i]}))) < 3e-7, "%s: sigmoid of %g", set.isa, x[i]);
      }
      CHECK(std::memcmp(scores.data(), first.data(), first.bytes()) == 0, "%s: sigmoid against scalar", set.isa);
      CHECK(set.kernels->factorization(x.data(), dim) == machine, "%s: factorization of %u", set.isa, dim);
    }
  }
}

// What is written comes back within half a step of its codes, and parameters first or last are the same row.
void check_rowwise(Random& random) {
  for (const DType dtype : kFormats) {
    if (!is_rowwise(dtype)) continue;
    const float levels = static_cast<float>((1 << (8 / elements_of(dtype))) - 1);
    for (uint32_t cols = 1; cols < 70; cols++) {
      const Buffer<float> x = normals(cols, random);
      float least = x[0], most = x[0];
      for (uint32_t i = 0; i < cols; i++) least = std::fmin(least, x[i]), most = std::fmax(most, x[i]);
      Buffer<uint8_t> row(row_bytes(dtype, cols)), turned(row_bytes(dtype, cols));
      Buffer<float> back(cols), other(cols);
      encode_rowwise(dtype, x.data(), cols, row.data());
      decode_rowwise(dtype, row.data(), cols, false, back.data());
      CHECK(rowwise_is_finite(dtype, row.data(), cols, false), "%s is finite", name_of(dtype));
      const uint32_t parameters = parameter_bytes(dtype);
      std::memcpy(turned.data(), row.data() + row.count() - parameters, parameters);
      std::memcpy(turned.data() + parameters, row.data(), row.count() - parameters);
      decode_rowwise(dtype, turned.data(), cols, true, other.data());
      CHECK(std::memcmp(back.data(), other.data(), back.bytes()) == 0, "%s: parameters first", name_of(dtype));
      for (uint32_t i = 0; i < cols; i++) {
        const float step = (most - least) / levels;
        CHECK(std::fabs(back[i] - x[i]) <= step * 0.52f + 0.004f, "%s of %u: %g became %g", name_of(dtype), cols, x[i],
              back[i]);
      }
    }
  }
}

}  // namespace

int main() {
  Random random(19);
  check_widths(random);
  check_parts(random);
  check_cursor(random);
  check_indices(random);
  check_features(random);
  check_rowwise(random);
  return check_summary();
}
