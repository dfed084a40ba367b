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
  int64_t modified;     // when it was last written, in a unit of the system's
};
FileMapping map_file(const char* path, uint64_t bytes);
void unmap_file(const uint8_t* data, uint64_t bytes);
// Lets the system drop pages of a mapped file from memory: they are read again when they are touched again.
void drop_file_pages(const uint8_t* data, uint64_t bytes);
// Brings pages of a mapped file to where they can be read without a fault, as far as the system can; blocks.
void populate_file_pages(const uint8_t* data, uint64_t bytes);
// Bytes of a mapped range that are in memory: whole pages, but no more than the range.
uint64_t resident_file_bytes(const uint8_t* data, uint64_t bytes);
void describe_error(int error, char* text, size_t bytes);

// Why others could have written a file, or the files of a folder; null when only this user and the system's own could,
// and the group that its mode names. Windows: only whether it is there; its lists of who may do what are not read.
const char* objection_to_file(const char* path);
const char* objection_to_folder(const char* path);

// A file that one process at a time writes, to be given its name when it is whole. The system knows when the writer
// dies.
struct Draft {
  intptr_t file;  // -1 without an error: another process writes it
  int error;
};
// Empty, readable by this user only; what an earlier writer left is gone.
Draft open_draft(const char* path);
// 0 or an error. Gives an empty draft its size, in zeros.
int size_draft(intptr_t file, uint64_t bytes);
int write_draft(intptr_t file, uint64_t offset, const uint8_t* data, uint64_t bytes);
// Waits until all is on disk, replaces `target`, closes. Removes the draft when it fails.
int publish_draft(intptr_t file, const char* path, const char* target);
void discard_draft(intptr_t file, const char* path);
// Removes drafts of a folder that nobody writes: names that start with "drover-" and end with `suffix`.
void remove_dead_drafts(const char* folder, const char* suffix);

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
