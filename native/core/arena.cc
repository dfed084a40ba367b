#include "arena.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <new>

#include "kernels/kernels.h"
#include "status.h"

#ifndef __has_feature
#define __has_feature(name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#define DROVER_ASAN 1
#endif

namespace drover {
namespace {

constexpr uint64_t kPage = 4096, kHugePage = 2u << 20;

// Mapped memory is not the heap: AddressSanitizer must be told what lies past the end. Nothing in other builds.
#ifdef DROVER_ASAN
constexpr uint64_t kGuard = kPage;
void guard(const uint8_t* data, uint64_t used, uint64_t mapped) {
  ASAN_POISON_MEMORY_REGION(data + used, mapped - used);
}
void unguard(const uint8_t* data, uint64_t mapped) { ASAN_UNPOISON_MEMORY_REGION(data, mapped); }
#else
constexpr uint64_t kGuard = 0;
void guard(const uint8_t*, uint64_t, uint64_t) {}
void unguard(const uint8_t*, uint64_t) {}
#endif

constexpr uint64_t whole_pages(uint64_t bytes) { return round_up(bytes, kPage); }

}  // namespace

bool Arena::allocate(uint64_t bytes) {
  release();
  if (bytes == 0) return true;
  if (bytes > UINT64_MAX / 2) return false;
  const uint64_t size = whole_pages(bytes), mapped = size + kGuard;
  // A huge page must start at a multiple of its size: reserve more and give the edges back.
  const uint64_t slack = size >= kHugePage ? kHugePage : 0;
  void* reserved =
      mmap(nullptr, mapped + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) return false;
  uint8_t* base = static_cast<uint8_t*>(reserved);
  if (slack != 0) {
    const uint64_t lead = (kHugePage - reinterpret_cast<uintptr_t>(base) % kHugePage) % kHugePage;
    if (lead != 0) munmap(base, lead);
    if (slack != lead) munmap(base + lead + mapped, slack - lead);
    base += lead;
    madvise(base, size, MADV_HUGEPAGE);
  }
  guard(base, bytes, mapped);
  data_ = base;
  bytes_ = size;
  return true;
}

void Arena::release() {
  if (data_ != nullptr) {
    unguard(data_, bytes_ + kGuard);
    munmap(data_, bytes_ + kGuard);
  }
  data_ = nullptr;
  bytes_ = 0;
}

void drop_pages(const drover_region& region, uint64_t offset, uint64_t bytes) {
  if (!region.mapped) return;
  const uint64_t begin = (offset + kPage - 1) / kPage * kPage, end = (offset + bytes) / kPage * kPage;
  if (end > begin) madvise(const_cast<uint8_t*>(region.data) + begin, end - begin, MADV_DONTNEED);
}

}  // namespace drover

using drover::fail;

int drover_region_map(const char* path, uint64_t bytes, drover_region** out, drover_error* error) {
  if (path == nullptr || out == nullptr)
    return fail(error, DROVER_ARGUMENT, -1, 0, 0, "a path and an output are needed");
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return fail(error, DROVER_IO, -1, errno, 0, "%.150s: %s", path, std::strerror(errno));
  struct stat status;
  if (fstat(file, &status) != 0 || static_cast<uint64_t>(status.st_size) != bytes || bytes == 0) {
    const int64_t size = status.st_size;
    close(file);
    return fail(error, DROVER_IO, -1, size, static_cast<int64_t>(bytes),
                "%.150s has changed its size since it was read", path);
  }
  void* data = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file, 0);
  const int mapping_error = errno;
  close(file);
  if (data == MAP_FAILED)
    return fail(error, DROVER_IO, -1, mapping_error, 0, "%.150s: %s", path, std::strerror(mapping_error));
  drover_region* region = new (std::nothrow) drover_region;
  if (region == nullptr) {
    munmap(data, bytes);
    return fail(error, DROVER_MEMORY, -1, 0, 0, "out of memory");
  }
  region->data = static_cast<const uint8_t*>(data);
  region->bytes = bytes;
  region->mapped = true;
  *out = region;
  return DROVER_OK;
}

int drover_region_copy(const void* data, uint64_t bytes, drover_region** out, drover_error* error) {
  if (data == nullptr || bytes == 0 || out == nullptr)
    return fail(error, DROVER_ARGUMENT, -1, 0, 0, "bytes and an output are needed");
  drover_region* region = new (std::nothrow) drover_region;
  const uint64_t mapped = bytes > UINT64_MAX / 2 ? bytes : drover::whole_pages(bytes) + drover::kGuard;
  void* copy = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (region == nullptr || copy == MAP_FAILED) {
    if (copy != MAP_FAILED) munmap(copy, mapped);
    delete region;
    return fail(error, DROVER_MEMORY, -1, static_cast<int64_t>(bytes), 0, "the system refuses %llu bytes",
                static_cast<unsigned long long>(bytes));
  }
  std::memcpy(copy, data, bytes);
  drover::guard(static_cast<const uint8_t*>(copy), bytes, mapped);
  region->data = static_cast<const uint8_t*>(copy);
  region->bytes = bytes;
  *out = region;
  return DROVER_OK;
}

void drover_region_retain(drover_region* region) { region->references.fetch_add(1, std::memory_order_relaxed); }

void drover_region_release(drover_region* region) {
  if (region == nullptr || region->references.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  const uint64_t size = region->mapped ? region->bytes : drover::whole_pages(region->bytes) + drover::kGuard;
  if (!region->mapped) drover::unguard(region->data, size);
  munmap(const_cast<uint8_t*>(region->data), size);
  delete region;
}
