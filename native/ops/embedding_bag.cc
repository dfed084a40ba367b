// Pooled lookups of all tables at once. Work is cut by the bytes that are read, over (table, bag) in order, so that
// neither one large table nor one long bag leaves a worker idle; bags of more than kBagPart lookups are cut at fixed
// places into parts, which are merged in order.
#include <algorithm>

#include "core/cpu.h"
#include "kernels/rowwise.h"
#include "op.h"

namespace drover {
namespace {

// A task's bytes: long beside the first rows that nobody asked for ahead, short beside a step.
constexpr uint64_t kLeastTask = 128u << 10, kMostTask = 1u << 20, kMostTaskAlone = 4u << 20;
constexpr uint32_t kTasksPerWorker = 8;
// What a bag costs beside its rows, in bytes of rows.
constexpr uint64_t kBagBytes = 64;

struct Arguments {
  const Tensor& out;
  const BagTable* tables;
  const Weight* weights;
  const Bags* bags;
  uint32_t count, first_input;
  Pooling pooling;
  BagOutput output;
};

Arguments arguments_of(const Run& run, const Op& op) {
  const drover_program& p = run.program;
  return {run.tensors[op.argument[0]],
          p.bag_tables.data() + op.argument[1],
          p.weights.data() + op.argument[1],
          run.bags + op.argument[3],
          op.argument[2],
          op.argument[3],
          static_cast<Pooling>(op.argument[4]),
          static_cast<BagOutput>(op.argument[5])};
}

uint64_t row_cost(const BagTable& table) { return round_up(table.row_bytes, 64); }
uint64_t bag_cost(const BagTable& table) { return kBagBytes + uint64_t{table.dim} * 4; }
// Bytes before a bag of a table.
uint64_t bytes_before(const BagTable& table, const Bags& bags, uint32_t bag) {
  return bags.offsets[bag] * row_cost(table) + bag * bag_cost(table);
}
// The first bag that so many bytes, or more, are before.
uint32_t first_bag(const BagTable& table, const Bags& bags, uint32_t count, uint64_t bytes) {
  uint32_t low = 0, high = count;
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    if (bytes_before(table, bags, middle) < bytes) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// Rows to be ahead of the sums. What hides the latency of memory is lines under way, about 256 of them, but no more
// than 128 rows. Measured with 4M rows x 64 on a Xeon (Sapphire Rapids, second level), M rows a second 16 / 32 / 64 /
// 128 ahead: f32 47 / 45 / 50 / 49, f16 69 / 76 / 76 / 77, i8 77 / 88 / 88 / 86, i4 93 / 109 / 110 / 109; into the
// first level f32 35 / 34 / 33 / 31, f16 57 / 58 / 57 / 55, i8 60 / 60 / 60 / 59, i4 77 / 77 / 83 / 85. On Zen 4 a loop
// that does nothing else reads f16 at 87 / 129 / 168 / 169, i4 at 85 / 128 / 171 / 172 (second level; first: 50). A
// table that fits the second level answers sooner; what is asked for then only has to cover some tens of cycles.
uint32_t rows_ahead(const BagTable& table, uint64_t bytes, uint64_t cache) {
  const uint32_t lines = (table.row_bytes + 63) / 64;
  const uint32_t most = 256 / (lines == 0 ? 1 : lines);
  const uint32_t rows = most < 8 ? 8 : smaller_of(most, 128);
  return bytes <= cache ? smaller_of(rows, 16) : rows;
}

// A bag of some table.
struct Place {
  uint32_t table, bag;
};

struct BagRun {
  const Run& run;
  const Arguments& a;
  uint32_t bag_count;  // of each table
  uint64_t bytes = 0;
  const LongBag *first_long = nullptr, *end_long = nullptr;
  uint32_t parts = 0;  // of long bags

  uint64_t table_bytes(uint32_t t) const { return bytes_before(a.tables[t], a.bags[t], bag_count); }

  // The first bag that so many bytes, or more, are before; that behind the last table's last one at their end.
  Place place(uint64_t before) const {
    for (uint32_t t = 0; t < a.count; t++) {
      const uint64_t size = table_bytes(t);
      if (before < size) return {t, first_bag(a.tables[t], a.bags[t], bag_count, before)};
      before -= size;
    }
    return {a.count, 0};
  }

  BagWork work(uint32_t t, uint64_t column, uint32_t worker) const {
    const uint64_t element = a.output == BagOutput::kF32 ? 4 : 2;
    return {&a.tables[t], a.bags[t],          a.pooling, a.output, a.out.data + column * element,
            a.out.stride, run.scratch(worker)};
  }

  // A cursor over the lookups from `begin` of table t to `stop` of table `last`; its first rows are asked for.
  Ahead ahead(uint32_t t, const uint32_t* begin, uint32_t last, const uint32_t* stop) const {
    Ahead cursor{};
    cursor.table = a.tables + t;
    cursor.bags = a.bags + t;
    cursor.left = last - t + 1;
    cursor.bag_count = bag_count;
    cursor.first = begin;
    cursor.last_stop = stop;
    const Weight& weight = a.weights[t];
    run.program.recommend->ask(cursor, rows_ahead(a.tables[t], weight.stride * weight.rows, machine().info.l2_bytes));
    return cursor;
  }

  // Bags [begin, end) of a table that has long ones among them: each run of short ones by itself.
  void run_between(uint32_t t, const BagWork& work, uint32_t begin, uint32_t end) const {
    const uint32_t* offsets = a.bags[t].offsets;
    while (begin < end) {
      uint32_t stop = begin;
      while (stop < end && offsets[stop + 1] - offsets[stop] <= kBagPart) stop++;
      if (stop > begin) {
        Ahead cursor = ahead(t, a.bags[t].indices + offsets[begin], t, a.bags[t].indices + offsets[stop]);
        kernel(t).bags(work, begin, stop, cursor);
      }
      begin = stop + 1;
    }
  }

  const BagKernel& kernel(uint32_t t) const {
    return run.program.recommend->bag[static_cast<uint32_t>(a.tables[t].dtype)];
  }

  // The bags with bytes [begin, end) before them.
  void run_bags(uint64_t begin, uint64_t end, uint32_t worker) const {
    const Place from = place(begin), to = place(end);
    const uint32_t last = to.bag == 0 ? to.table - 1 : to.table;
    if (last + 1 <= from.table) return;
    const auto lookups = [&](uint32_t t, uint32_t bag) { return a.bags[t].indices + a.bags[t].offsets[bag]; };
    Ahead cursor{};
    if (parts == 0) {
      cursor = ahead(from.table, lookups(from.table, from.bag), last,
                     to.bag == 0 ? lookups(last, bag_count) : lookups(last, to.bag));
    }
    uint64_t column = 0;
    for (uint32_t t = 0; t < from.table; t++) column += a.tables[t].dim;
    for (uint32_t t = from.table; t <= last; column += a.tables[t].dim, t++) {
      const uint32_t first = t == from.table ? from.bag : 0, stop = t == to.table ? to.bag : bag_count;
      if (parts != 0) {
        run_between(t, work(t, column, worker), first, stop);
      } else if (first < stop) {
        kernel(t).bags(work(t, column, worker), first, stop, cursor);
      }
    }
  }

  // The run's long bags are in order of their inputs: those of this op are [first_long, end_long).
  void find_long_bags() {
    const std::vector<LongBag>& all = run.long_bags;
    const auto from = [&](uint32_t input) {
      return std::partition_point(all.data(), all.data() + all.size(),
                                  [&](const LongBag& bag) { return bag.input < input; });
    };
    first_long = from(a.first_input);
    end_long = from(a.first_input + a.count);
    if (first_long == end_long) return;
    const LongBag& last = end_long[-1];
    parts = last.first_part + parts_of(a.bags[last.input - a.first_input], last.bag) - first_long->first_part;
  }

  float* sums_of(const LongBag& bag) const {
    return reinterpret_cast<float*>(run.program.bag_parts.data()) + bag.first_float;
  }

  void run_part(uint32_t i, uint32_t worker) const {
    const uint32_t wanted = first_long->first_part + i;
    const LongBag& bag =
        std::partition_point(first_long, end_long, [&](const LongBag& one) { return one.first_part <= wanted; })[-1];
    const uint32_t t = bag.input - a.first_input, part = wanted - bag.first_part;
    const uint32_t *offsets = a.bags[t].offsets + bag.bag, *indices = a.bags[t].indices;
    const uint32_t from = offsets[0] + part * kBagPart, to = from + smaller_of(offsets[1] - from, kBagPart);
    Ahead cursor = ahead(t, indices + from, t, indices + to);
    kernel(t).part(work(t, 0, worker), from, to, cursor, sums_of(bag) + uint64_t{part} * a.tables[t].dim);
  }

  void merge() const {
    uint64_t column = 0;
    uint32_t t = 0;
    for (const LongBag* bag = first_long; bag < end_long; bag++) {
      for (; t < bag->input - a.first_input; t++) column += a.tables[t].dim;
      const uint32_t* offsets = a.bags[t].offsets + bag->bag;
      run.program.recommend->merge(work(t, column, 0), bag->bag, offsets[1] - offsets[0], sums_of(*bag),
                                   parts_of(a.bags[t], bag->bag));
    }
  }
};

void run_embedding_bag(const Run& run, const Op& op) {
  const Arguments a = arguments_of(run, op);
  BagRun bags{run, a, run.step.rows};
  if (bags.bag_count == 0) return;
  bags.find_long_bags();
  for (uint32_t t = 0; t < a.count; t++) bags.bytes += bags.table_bytes(t);
  const uint32_t threads = run.team.threads();
  const uint64_t even = bags.bytes / (uint64_t{threads} * kTasksPerWorker) + 1;
  const uint64_t task = threads == 1        ? kMostTaskAlone
                        : even < kLeastTask ? kLeastTask
                        : even > kMostTask  ? kMostTask
                                            : even;
  const uint32_t tasks = static_cast<uint32_t>((bags.bytes + task - 1) / task);
  run.team.parallel(bags.parts + tasks, [&](uint32_t i, uint32_t worker) {
    if (i < bags.parts) return bags.run_part(i, worker);
    const uint64_t begin = (i - bags.parts) * task, end = begin + task;
    bags.run_bags(begin, end < bags.bytes ? end : bags.bytes, worker);
  });
  if (bags.parts != 0 && !run.team.cancelled()) bags.merge();
}

}  // namespace

const OpImplementation op_embedding_bag = {
    [](Check& c) {
      const uint64_t first = c.word(1), count = c.word(2), input = c.word(3);
      c.require(count != 0 && first + count <= c.program.weights.size(), "embedding_bag's tables are weights",
                static_cast<int64_t>(first + count), static_cast<int64_t>(c.program.weights.size()));
      c.require(input + count <= c.program.bag_inputs.size(), "embedding_bag has a bag input per table",
                static_cast<int64_t>(input + count), static_cast<int64_t>(c.program.bag_inputs.size()));
      c.require(c.word(4) < static_cast<uint32_t>(Pooling::kCount), "embedding_bag's pooling is 0, 1 or 2", c.word(4),
                2);
      c.require(c.word(5) < static_cast<uint32_t>(BagOutput::kCount), "embedding_bag's output is 0, 1 or 2", c.word(5),
                2);
      if (!c.ok()) return;
      uint64_t dims = 0;
      for (uint64_t i = first; i < first + count; i++) {
        const Weight& weight = c.program.weights[i];
        c.require((weight.flags & kTable) != 0, "embedding_bag reads tables", static_cast<int64_t>(i), kTable);
        dims += weight.cols;
      }
      const bool floats = c.word(5) == static_cast<uint32_t>(BagOutput::kF32);
      c.dtype(c.tensor(0), floats ? DType::f32 : DType::u32, "embedding_bag writes f32, or u32 with 16-bit floats");
      c.follows(c.tensor(0), RowDimension::kRows, "embedding_bag writes one row per row of the step");
      c.cols(c.tensor(0), floats ? dims : (dims + 1) / 2, "embedding_bag's output is as wide as its tables together");
    },
    run_embedding_bag, [](const drover_program&, const Op&) { return kBagScratchBytes; }};

}  // namespace drover
