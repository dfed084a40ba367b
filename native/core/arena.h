// Memory that the core owns: zeroed, page-aligned, on huge pages where the system allows; and read-only regions.
#ifndef DROVER_CORE_ARENA_H_
#define DROVER_CORE_ARENA_H_

#include <atomic>
#include <cstdint>

#include "drover.h"

namespace drover {

// Zeroed memory, committed as it is touched.
class Arena {
 public:
  Arena() = default;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena() { release(); }
  // False when the system refuses. Zero bytes give a null arena and true.
  bool allocate(uint64_t bytes);
  void release();
  uint8_t* data() const { return data_; }
  uint64_t bytes() const { return bytes_; }

 private:
  uint8_t* data_ = nullptr;
  uint64_t bytes_ = 0;
};

}  // namespace drover

// Reference counted: the caller's handle and every program that uses it.
struct drover_region {
  std::atomic<uint32_t> references{1};
  const uint8_t* data = nullptr;
  uint64_t bytes = 0;
  bool mapped = false;
  int64_t modified = 0;  // of a mapped file: see FileMapping
};

namespace drover {

// Lets the system drop the pages of a mapped range whose content has been copied elsewhere.
void drop_pages(const drover_region& region, uint64_t offset, uint64_t bytes);

}  // namespace drover

#endif  // DROVER_CORE_ARENA_H_
