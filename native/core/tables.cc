#include "tables.h"

#include <cstring>

#include "kernels/prepare.h"
#include "kernels/rowwise.h"
#include "ops/op.h"
#include "platform.h"

namespace drover {
namespace {

// Rows that begin with a page begin with a line.
constexpr uint64_t kTableUnit = 4096;

uint64_t table_bytes(const Weight& w) { return w.stride * (w.rows - 1) + row_bytes(w.dtype, w.cols); }

bool same_rows(const Weight& a, const Weight& b) {
  return a.file == b.file && a.rows == b.rows && a.stride == b.stride &&
         row_bytes(a.dtype, a.cols) == row_bytes(b.dtype, b.cols);
}

// No table before it has the same rows.
bool is_first(const drover_program& p, uint32_t weight) {
  for (uint32_t i = 0; i < weight; i++) {
    if (((p.weights[i].flags ^ p.weights[weight].flags) & (kTable | kCopy)) == 0 &&
        same_rows(p.weights[i], p.weights[weight]))
      return false;
  }
  return true;
}

// What is not a file lies in memory of ours, on huge pages, already.
bool is_copied(const drover_program& p, const Weight& w) {
  return (w.flags & kCopy) != 0 && p.regions[w.region]->mapped;
}

}  // namespace

void TableCopies::plan(const drover_program& program) {
  const std::vector<Weight>& weights = program.weights;
  places_.assign(weights.size(), {0, false});
  for (uint32_t i = 0; i < weights.size(); i++) {
    if (!is_copied(program, weights[i])) continue;
    uint32_t known = 0;
    while (!(is_copied(program, weights[known]) && same_rows(weights[known], weights[i]))) known++;
    if (known < i) {
      places_[i].offset = places_[known].offset;
      continue;
    }
    places_[i] = {bytes_, true};
    bytes_ += round_up(table_bytes(weights[i]), kTableUnit);
  }
}

void copy_rows(drover_program& p, const TableCopies& copies, uint32_t weight, uint32_t begin, uint32_t end) {
  if (!copies.copied_here(weight)) return;
  const Weight& w = p.weights[weight];
  const uint64_t from = begin * w.stride;
  const uint64_t bytes = (end == w.rows ? table_bytes(w) : end * w.stride) - from;
  std::memcpy(p.tables.data() + copies.offset(weight) + from, w.file + from, bytes);
  drop_pages(*p.regions[w.region], w.offset + from, bytes);
}

void place_tables(drover_program& p, const TableCopies& copies) {
  p.bag_tables.resize(p.weights.size());
  for (uint32_t i = 0; i < p.weights.size(); i++) {
    const Weight& w = p.weights[i];
    if ((w.flags & kTable) == 0) continue;
    const drover_region& region = *p.regions[w.region];
    const bool first = (w.flags & kParametersFirst) != 0;
    const uint32_t bytes = static_cast<uint32_t>(row_bytes(w.dtype, w.cols)), parameters = parameter_bytes(w.dtype);
    BagTable& table = p.bag_tables[i];
    table.rows = is_copied(p, w) ? p.tables.data() + copies.offset(i) : w.file;
    table.end = is_copied(p, w) ? p.tables.data() + copies.bytes() : region.data + region.bytes;
    table.stride = w.stride;
    table.dtype = w.dtype;
    table.dim = w.cols;
    table.codes = first ? parameters : 0;
    table.parameters = first ? 0 : bytes - parameters;
    table.row_bytes = bytes;
  }
  for (const Op& op : p.ops) {
    if (kOps[op.opcode].implementation != &op_embedding_bag) continue;
    for (uint32_t i = 0; i < op.argument[2]; i++) {
      const Weight& w = p.weights[op.argument[1] + i];
      BagInput& input = p.bag_inputs[op.argument[3] + i];
      input.rows = smaller_of(input.rows, w.rows);
      if (w.cols > input.widest) input.widest = w.cols;
      input.has_max = input.has_max || static_cast<Pooling>(op.argument[4]) == Pooling::kMax;
    }
  }
}

uint64_t owned_table_bytes(const drover_program& p) {
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < p.weights.size(); i++) {
    const Weight& w = p.weights[i];
    if ((w.flags & kTable) != 0 && !p.regions[w.region]->mapped && is_first(p, i)) bytes += table_bytes(w);
  }
  return bytes;
}

uint64_t resident_table_bytes(const drover_program& p) {
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < p.weights.size(); i++) {
    const Weight& w = p.weights[i];
    if ((w.flags & (kTable | kCopy)) == kTable && p.regions[w.region]->mapped && is_first(p, i)) {
      bytes += resident_file_bytes(w.file, table_bytes(w));
    }
  }
  return bytes;
}

}  // namespace drover
