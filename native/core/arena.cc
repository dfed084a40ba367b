#include "arena.h"

#include <cstring>
#include <new>

#include "kernels/kernels.h"
#include "platform.h"
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

// Mapped memory is not the heap: AddressSanitizer must be told what lies past the end. Nothing in other builds.
#ifdef DROVER_ASAN
uint64_t guard_bytes() { return page_bytes(); }
void guard(const uint8_t* data, uint64_t used, uint64_t mapped) {
  ASAN_POISON_MEMORY_REGION(data + used, mapped - used);
}
void unguard(const uint8_t* data, uint64_t mapped) { ASAN_UNPOISON_MEMORY_REGION(data, mapped); }
#else
uint64_t guard_bytes() { return 0; }
void guard(const uint8_t*, uint64_t, uint64_t) {}
void unguard(const uint8_t*, uint64_t) {}
#endif

uint64_t whole_pages(uint64_t bytes) { return round_up(bytes, page_bytes()); }

// Null when the system refuses.
uint8_t* map_guarded(uint64_t bytes, Pages kind) {
  if (bytes > UINT64_MAX / 2) return nullptr;
  const uint64_t mapped = whole_pages(bytes) + guard_bytes();
  uint8_t* data = map_pages(mapped, kind);
  if (data != nullptr) guard(data, bytes, mapped);
  return data;
}

void unmap_guarded(uint8_t* data, uint64_t bytes) {
  const uint64_t mapped = whole_pages(bytes) + guard_bytes();
  unguard(data, mapped);
  unmap_pages(data, mapped);
}

}  // namespace

bool Arena::allocate(uint64_t bytes) {
  release();
  if (bytes == 0) return true;
  data_ = map_guarded(bytes, Pages::kArena);
  if (data_ != nullptr) bytes_ = whole_pages(bytes);
  return data_ != nullptr;
}

void Arena::release() {
  if (data_ != nullptr) unmap_guarded(data_, bytes_);
  data_ = nullptr;
  bytes_ = 0;
}

void drop_pages(const drover_region& region, uint64_t offset, uint64_t bytes) {
  if (!region.mapped) return;
  const uint64_t page = page_bytes();
  const uint64_t begin = (offset + page - 1) / page * page, end = (offset + bytes) / page * page;
  if (end > begin) drop_file_pages(region.data + begin, end - begin);
}

}  // namespace drover

using drover::fail;

int drover_region_map(const char* path, uint64_t bytes, drover_region** out, drover_error* error) {
  if (path == nullptr || out == nullptr)
    return fail(error, DROVER_ARGUMENT, -1, 0, 0, "a path and an output are needed");
  const drover::FileMapping mapping = drover::map_file(path, bytes);
  if (mapping.data == nullptr && mapping.error == 0)
    return fail(error, DROVER_IO, -1, mapping.size, static_cast<int64_t>(bytes),
                "%.150s has changed its size since it was read", path);
  if (mapping.data == nullptr) {
    char reason[100];
    drover::describe_error(mapping.error, reason, sizeof reason);
    return fail(error, DROVER_IO, -1, mapping.error, 0, "%.150s: %s", path, reason);
  }
  drover_region* region = new (std::nothrow) drover_region;
  if (region == nullptr) {
    drover::unmap_file(mapping.data, bytes);
    return fail(error, DROVER_MEMORY, -1, 0, 0, "out of memory");
  }
  region->data = mapping.data;
  region->bytes = bytes;
  region->mapped = true;
  region->modified = mapping.modified;
  *out = region;
  return DROVER_OK;
}

int drover_region_copy(const void* data, uint64_t bytes, drover_region** out, drover_error* error) {
  if (data == nullptr || bytes == 0 || out == nullptr)
    return fail(error, DROVER_ARGUMENT, -1, 0, 0, "bytes and an output are needed");
  drover_region* region = new (std::nothrow) drover_region;
  uint8_t* copy = region == nullptr ? nullptr : drover::map_guarded(bytes, drover::Pages::kArena);
  if (copy == nullptr) {
    delete region;
    return fail(error, DROVER_MEMORY, -1, static_cast<int64_t>(bytes), 0, "the system refuses %llu bytes",
                static_cast<unsigned long long>(bytes));
  }
  std::memcpy(copy, data, bytes);
  region->data = copy;
  region->bytes = bytes;
  *out = region;
  return DROVER_OK;
}

void drover_region_retain(drover_region* region) { region->references.fetch_add(1, std::memory_order_relaxed); }

void drover_region_release(drover_region* region) {
  if (region == nullptr || region->references.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  if (region->mapped) {
    drover::unmap_file(region->data, region->bytes);
  } else {
    drover::unmap_guarded(const_cast<uint8_t*>(region->data), region->bytes);
  }
  delete region;
}
