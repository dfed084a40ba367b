// Pages and mapped files, as Linux and macOS have them.
#ifndef _WIN32

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "platform.h"

namespace drover {
namespace {

#ifdef MADV_HUGEPAGE
constexpr uint64_t kHugePage = 2u << 20;
#endif

uint8_t* map_anonymous(uint64_t bytes, int flags) {
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
  return data == MAP_FAILED ? nullptr : static_cast<uint8_t*>(data);
}

}  // namespace

uint64_t page_bytes() {
  static const uint64_t bytes = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

uint8_t* map_pages(uint64_t bytes, Pages kind) {
  if (kind == Pages::kPlain) return map_anonymous(bytes, 0);
#ifdef MADV_HUGEPAGE
  // A huge page must start at a multiple of its size: reserve more and give the edges back.
  const uint64_t slack = bytes >= kHugePage ? kHugePage : 0;
  uint8_t* base = map_anonymous(bytes + slack, MAP_NORESERVE);
  if (base == nullptr || slack == 0) return base;
  const uint64_t lead = (kHugePage - reinterpret_cast<uintptr_t>(base) % kHugePage) % kHugePage;
  if (lead != 0) munmap(base, lead);
  if (slack != lead) munmap(base + lead + bytes, slack - lead);
  base += lead;
  madvise(base, bytes, MADV_HUGEPAGE);
  return base;
#else
  return map_anonymous(bytes, MAP_NORESERVE);
#endif
}

void unmap_pages(uint8_t* data, uint64_t bytes) { munmap(data, bytes); }

FileMapping map_file(const char* path, uint64_t bytes) {
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return {nullptr, 0, errno};
  struct stat status;
  if (fstat(file, &status) != 0 || static_cast<uint64_t>(status.st_size) != bytes || bytes == 0) {
    const int64_t size = status.st_size;
    close(file);
    return {nullptr, size, 0};
  }
  void* data = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file, 0);
  const int error = errno;
  close(file);
  if (data == MAP_FAILED) return {nullptr, 0, error};
  return {static_cast<const uint8_t*>(data), status.st_size, 0};
}

void unmap_file(const uint8_t* data, uint64_t bytes) { munmap(const_cast<uint8_t*>(data), bytes); }

void drop_file_pages(const uint8_t* data, uint64_t bytes) { madvise(const_cast<uint8_t*>(data), bytes, MADV_DONTNEED); }

void describe_error(int error, char* text, size_t bytes) { std::snprintf(text, bytes, "%s", std::strerror(error)); }

}  // namespace drover

#endif
