// What the core asks of the operating system: pages of memory, mapped files, and the CPUs that this process may use.
// platform_linux.cc, platform_darwin.cc and platform_windows.cc answer; platform_posix.cc is what the first two share.
// The build compiles all of them, and each is empty on the other systems.
#ifndef DROVER_CORE_PLATFORM_H_
#define DROVER_CORE_PLATFORM_H_

#include <cstddef>
#include <cstdint>

namespace drover {

uint64_t page_bytes();

// Zeroed pages, committed as they are touched; null when the system refuses. `bytes` is a multiple of page_bytes().
// kArena: may be larger than what will be touched, and asks for huge pages.
enum class Pages { kPlain, kArena };
uint8_t* map_pages(uint64_t bytes, Pages kind);
void unmap_pages(uint8_t* data, uint64_t bytes);

// A whole file, read-only and shared with whoever else maps it.
struct FileMapping {
  const uint8_t* data;  // null: it failed
  int64_t size;         // what the file has instead of the bytes that were asked for; meaningful without an error
  int error;            // the system's number, for describe_error; 0: only the size is wrong
};
FileMapping map_file(const char* path, uint64_t bytes);
void unmap_file(const uint8_t* data, uint64_t bytes);
// Lets the system drop pages of a mapped file from memory: they are read again when they are touched again.
void drop_file_pages(const uint8_t* data, uint64_t bytes);
void describe_error(int error, char* text, size_t bytes);

struct SystemCpus {
  uint32_t logical, allowed, physical;  // online; of those, what this process may use; their cores
  double quota;                         // in CPUs; 0: none
  uint64_t l1d_bytes, l2_bytes, l3_bytes;
};
SystemCpus system_cpus();

#ifdef DROVER_ARM64
// Instructions beyond what every 64-bit ARM CPU has; only the system can tell.
struct ArmFeatures {
  bool dot_product, i8mm;
};
ArmFeatures arm_features();
#endif

// What debuggers and task lists call the calling thread; at most 15 letters.
void name_thread(const char* name);

}  // namespace drover

#endif  // DROVER_CORE_PLATFORM_H_
