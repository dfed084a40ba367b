// Tables of embeddings in memory: where they are copied to, and what their kernels need to know of them.
#ifndef DROVER_CORE_TABLES_H_
#define DROVER_CORE_TABLES_H_

#include <vector>

#include "program.h"

namespace drover {

// Where the tables that are copied lie in the program's arena of tables. Tables that are the same rows share a copy.
class TableCopies {
 public:
  void plan(const drover_program& program);
  uint64_t bytes() const { return bytes_; }
  uint64_t offset(uint32_t weight) const { return places_[weight].offset; }
  // Whether this weight is the one whose rows are copied, for all that share them.
  bool copied_here(uint32_t weight) const { return places_[weight].first; }

 private:
  struct Place {
    uint64_t offset;
    bool first;
  };
  std::vector<Place> places_;  // by weight
  uint64_t bytes_ = 0;
};

// Copies rows [begin, end) of a table to their place, and lets the system drop the file's pages.
void copy_rows(drover_program& program, const TableCopies& copies, uint32_t weight, uint32_t begin, uint32_t end);
// Once all rows are in place: fills the program's tables and what its bag inputs must be.
void place_tables(drover_program& program, const TableCopies& copies);
// Bytes of tables that lie in memory of ours, without a copy.
uint64_t owned_table_bytes(const drover_program& program);
// Bytes of tables read from mapped files that are in memory.
uint64_t resident_table_bytes(const drover_program& program);

}  // namespace drover

#endif  // DROVER_CORE_TABLES_H_
