// Attention over the paged cache: the scalar kernels against float64 over what kv_read returns; every ISA gives the
// scalar kernels' bits; bits do not depend on how rows are cut, on prefill or decode, or on where pages lie. Slots that
// nobody wrote hold NaN: a result without NaN has not used them.
#include <algorithm>
#include <cmath>
#include <vector>

#include "buffers.h"
#include "kernels/kv.h"
#include "tables.h"

using namespace drover;

namespace {

constexpr uint32_t kLayers = 2, kLayer = 1;

struct Shape {
  DType type;
  uint32_t kv_heads, group, head_dim, start, rows;
  bool causal;
  float size;  // of queries: large ones make one position win
  bool byte_queries = false;
  uint32_t heads() const { return kv_heads * group; }
  uint32_t positions() const { return start + rows; }
  uint32_t width() const { return heads() * head_dim; }
};

// A cache of more pages than the sequence needs, its page table in random order.
struct Cache {
  const Shape& shape;
  uint64_t block, page;
  uint32_t count;
  Buffer<uint32_t> table;
  Buffer<uint8_t> memory;

  Cache(const Shape& s, Random& random)
      : shape(s),
        block(kv_block_bytes(s.type, s.head_dim)),
        page(block * s.kv_heads * kLayers),
        count((s.positions() + kPagePositions - 1) / kPagePositions),
        table(count),
        memory(page * (count + 2)) {
    std::vector<uint32_t> ids(count + 2);
    for (uint32_t i = 0; i < ids.size(); i++) ids[i] = i;
    for (uint32_t i = 0; i < count; i++) {
      std::swap(ids[i], ids[i + random.below(static_cast<uint32_t>(ids.size()) - i)]);
      table[i] = ids[i];
    }
  }
  uint8_t* at(uint32_t position, uint32_t head) {
    return memory.data() + table[position / kPagePositions] * page + (uint64_t{kLayer} * shape.kv_heads + head) * block;
  }
  void write(const KernelTable& kernels, const Buffer<float>& k, const Buffer<float>& v) {
    for (uint32_t p = 0; p < shape.positions(); p++) {
      for (uint32_t h = 0; h < shape.kv_heads; h++) {
        const uint64_t from = (uint64_t{p} * shape.kv_heads + h) * shape.head_dim;
        kernels.kv_write(shape.type, k.data() + from, v.data() + from, shape.head_dim, p % kPagePositions, at(p, h));
      }
    }
  }
};

AttentionArgs arguments(const Shape& s, Cache& cache, const Buffer<float>& q, Buffer<float>& out) {
  AttentionArgs args{};
  args.q = q.data();
  args.q_stride = args.out_stride = s.width();
  args.out = out.data();
  args.kv = cache.memory.data() + uint64_t{kLayer} * s.kv_heads * cache.block;
  args.page_stride_bytes = cache.page;
  args.block_bytes = cache.block;
  args.pages = cache.table.data();
  args.heads = s.heads();
  args.kv_heads = s.kv_heads;
  args.head_dim = s.head_dim;
  args.cache_start = s.start;
  args.cache_end = s.positions();
  args.causal = s.causal;
  args.byte_queries = s.byte_queries;
  args.scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
  return args;
}

// All rows and heads, cut by `most` rows at a time; 0: at random.
Buffer<float> attend(const KernelTable& kernels, const Shape& s, Cache& cache, const Buffer<float>& q, uint32_t most,
                     Random& random) {
  Buffer<float> out(uint64_t{s.rows} * s.width());
  const AttentionArgs args = arguments(s, cache, q, out);
  Buffer<uint8_t> scratch(attention_scratch_bytes(s.heads(), s.kv_heads, s.head_dim));
  for (uint32_t h = 0; h < s.kv_heads; h++) {
    for (uint32_t row = 0; row < s.rows;) {
      const uint32_t take = most != 0 ? most : 1 + random.below(kAttentionRows);
      const uint32_t end = std::min(s.rows, row + take);
      kernels.attention(s.type, args, h, row, end, scratch.data());
      row = end;
    }
  }
  return out;
}

// Each row as a step of its own, as decoding runs it.
Buffer<float> decode(const KernelTable& kernels, const Shape& s, Cache& cache, const Buffer<float>& q) {
  Buffer<float> out(uint64_t{s.rows} * s.width());
  Buffer<uint8_t> scratch(attention_scratch_bytes(s.heads(), s.kv_heads, s.head_dim));
  AttentionArgs args = arguments(s, cache, q, out);
  for (uint32_t row = 0; row < s.rows; row++) {
    args.first_row = row;
    args.cache_start = s.start + row;
    args.cache_end = args.cache_start + 1;
    for (uint32_t h = 0; h < s.kv_heads; h++) kernels.attention(s.type, args, h, 0, 1, scratch.data());
  }
  return out;
}

// A query as attention multiplies it: rounded to 8 bits in blocks of 32 where the shape says so.
std::vector<double> query(const Shape& s, const float* q) {
  std::vector<double> out(q, q + s.head_dim);
  for (uint32_t b = 0; b < s.head_dim && s.byte_queries; b += 32) {
    float peak = 0;
    const uint32_t end = std::min(s.head_dim, b + 32);
    for (uint32_t d = b; d < end; d++) peak = std::max(peak, std::fabs(q[d]));
    const float inverse = 127.0f / peak, scale = peak / 127.0f;
    for (uint32_t d = b; d < end; d++) out[d] = std::nearbyint(q[d] * inverse) * double{scale};
  }
  return out;
}

// Largest error against float64, relative to the largest value that could come out.
double worst_error(const Shape& s, Cache& cache, const Buffer<float>& q, const Buffer<float>& out) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(s.head_dim));
  double worst = 0;
  for (uint32_t kv = 0; kv < s.kv_heads; kv++) {
    std::vector<float> keys(uint64_t{s.positions()} * s.head_dim), values(keys.size());
    double largest = 0;
    for (uint32_t p = 0; p < s.positions(); p++) {
      kv_read(s.type, cache.at(p, kv), s.head_dim, p % kPagePositions, 0, &keys[uint64_t{p} * s.head_dim]);
      kv_read(s.type, cache.at(p, kv), s.head_dim, p % kPagePositions, 1, &values[uint64_t{p} * s.head_dim]);
    }
    for (const float v : values) largest = std::max(largest, std::fabs(static_cast<double>(v)));
    for (uint32_t row = 0; row < s.rows; row++) {
      const uint32_t seen = s.causal ? s.start + row + 1 : s.positions();
      for (uint32_t g = 0; g < s.group; g++) {
        const uint64_t at = uint64_t{row} * s.width() + (uint64_t{kv} * s.group + g) * s.head_dim;
        const std::vector<double> x = query(s, q.data() + at);
        std::vector<double> p(seen);
        double peak = -INFINITY, total = 0;
        for (uint32_t i = 0; i < seen; i++) {
          for (uint32_t d = 0; d < s.head_dim; d++) p[i] += x[d] * keys[uint64_t{i} * s.head_dim + d];
          p[i] *= scale;
          peak = std::max(peak, p[i]);
        }
        for (double& v : p) total += v = std::exp(v - peak);
        for (uint32_t d = 0; d < s.head_dim; d++) {
          double sum = 0;
          for (uint32_t i = 0; i < seen; i++) sum += p[i] * values[uint64_t{i} * s.head_dim + d];
          const double error = std::fabs(sum / total - out[at + d]) / largest;
          worst = std::isnan(error) ? INFINITY : std::max(worst, error);
        }
      }
    }
  }
  return worst;
}

void check_shape(const Shape& s, Random& random) {
  char what[160];
  std::snprintf(what, sizeof what, "%s kv heads %u group %u head_dim %u start %u rows %u causal %d size %g bytes %d",
                name_of(s.type), s.kv_heads, s.group, s.head_dim, s.start, s.rows, s.causal, s.size, s.byte_queries);
  const Buffer<float> q = normals(uint64_t{s.rows} * s.width(), random, s.size);
  const Buffer<float> k = normals(uint64_t{s.positions()} * s.kv_heads * s.head_dim, random);
  const Buffer<float> v = normals(k.count(), random);
  const auto tables = runnable_tables();
  Cache cache(s, random), elsewhere(s, random);
  cache.write(*tables[0], k, v);
  elsewhere.write(*tables[0], k, v);
  const Buffer<float> first = attend(*tables[0], s, cache, q, kAttentionRows, random);
  const double error = worst_error(s, cache, q, first);
  const double tolerance = s.byte_queries ? 1e-4 : 3e-6;  // probabilities of 16 bits, or of f32
  CHECK(error < tolerance * std::max(1.0f, s.size), "%s: error %g", what, error);
  const auto same = [&](const Buffer<float>& out) { return std::memcmp(out.data(), first.data(), first.bytes()) == 0; };
  for (const KernelTable* table : tables) {
    CHECK(same(attend(*table, s, elsewhere, q, 0, random)), "%s: %s differs from scalar, other pages and cuts", what,
          table->isa);
    if (s.causal)
      CHECK(same(decode(*table, s, cache, q)), "%s: %s decodes other bits than it prefills", what, table->isa);
  }
}

// A key or value that is not a number reaches the rows that see it and no others.
void check_poison(DType type, bool byte_queries, Random& random) {
  const Shape s{type, 1, 3, 80, 60, 12, true, 1.0f, byte_queries};
  const uint32_t bad = 65;
  const Buffer<float> q = normals(uint64_t{s.rows} * s.width(), random);
  for (uint32_t what = 0; what < 2; what++) {
    Buffer<float> k = normals(uint64_t{s.positions()} * s.head_dim, random), v = normals(k.count(), random);
    (what == 0 ? k : v)[uint64_t{bad} * s.head_dim + 7] = what == 0 ? std::nanf("") : INFINITY;
    for (const KernelTable* table : runnable_tables()) {
      Cache cache(s, random);
      cache.write(*table, k, v);
      const Buffer<float> out = attend(*table, s, cache, q, 5, random);
      bool right = true;
      for (uint32_t row = 0; row < s.rows; row++) {
        const bool sees = s.start + row >= bad;
        for (uint32_t h = 0; h < s.heads(); h++) {
          // A bad key spoils the whole output; a bad value its element (or, with scales, its block or vector).
          const float value = out[uint64_t{row} * s.width() + h * s.head_dim + 7];
          right = right && std::isfinite(value) == !sees;
        }
      }
      CHECK(right, "%s %s: a bad %s reaches other rows", name_of(type), table->isa, what == 0 ? "key" : "value");
    }
  }
}

// All kinds of shapes for one format.
void check_type(DType type, bool byte_queries, uint32_t& turn, Random& random) {
  const uint32_t dims[] = {8, 64, 80, 96, 128, 1, 7, 17, 33, 100}, groups[] = {1, 3, 4, 8};
  const auto check = [&](Shape shape) {
    shape.byte_queries = byte_queries;
    check_shape(shape, random);
  };
  for (const uint32_t head_dim : dims) {
    for (const bool causal : {true, false}) {
      const uint32_t group = groups[turn++ % 4];
      const uint32_t most = head_dim > 64 ? 90 : 200;
      check({type, 1 + random.below(2), group, head_dim, random.below(most), 1 + random.below(5), causal, 1.0f});
    }
    // Decode, and the borders of panels and pages.
    const uint32_t borders[] = {0, 1, 14, 15, 16, 62, 63, 64, 127, 128};
    check({type, 1, groups[turn++ % 4], head_dim, borders[random.below(10)], 1, true, 8.0f});
  }
  for (const uint32_t group : groups) {
    check({type, 2, group, 16, 0, 37, true, 1.0f});    // prefill in several tasks
    check({type, 1, group, 24, 50, 17, false, 1.0f});  // whole sequence
    check({type, 1, group, 20, 200, 3, true, 40.0f});  // the peak moves from page to page
  }
  check_poison(type, byte_queries, random);
}

}  // namespace

int main() {
  Random random(3);
  uint32_t turn = 0;
  for (const DType type : {DType::f32, DType::f16, DType::bf16, DType::q8_0, DType::f8_e4m3})
    check_type(type, false, turn, random);
  check_type(DType::q8_0, true, turn, random);
  return check_summary();
}
