// Pages, mapped files and files under way, as Linux and macOS have them.
#ifndef _WIN32

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>

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

int64_t modified_ns(const struct stat& status) {
#ifdef __APPLE__
  const timespec& time = status.st_mtimespec;
#else
  const timespec& time = status.st_mtim;
#endif
  return int64_t{time.tv_sec} * 1000000000 + time.tv_nsec;
}

const char* objection_to(const struct stat& status) {
  if (status.st_uid != geteuid() && status.st_uid != 0) return "belongs to another user";
  return (status.st_mode & S_IWOTH) != 0 ? "can be written by everybody" : nullptr;
}

// The lock of a draft; -1 without an error: another process has it. It ends with its holder, however that ends.
Draft lock_draft(const char* path, int flags) {
  for (;;) {
    const int file = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | flags, 0600);
    if (file < 0) return {-1, errno};
    if (flock(file, LOCK_EX | LOCK_NB) != 0) {
      const int error = errno == EWOULDBLOCK ? 0 : errno;
      close(file);
      return {-1, error};
    }
    // The holder before may have given the file its name, or removed it: then the lock is that of another file.
    struct stat own, there;
    const bool same =
        fstat(file, &own) == 0 && lstat(path, &there) == 0 && own.st_dev == there.st_dev && own.st_ino == there.st_ino;
    if (same && S_ISREG(own.st_mode)) return {file, 0};
    close(file);
    if (same) return {-1, EEXIST};
    if ((flags & O_CREAT) == 0) return {-1, ENOENT};
  }
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
  // Without O_NONBLOCK a pipe of that name would wait for a writer.
  const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return {nullptr, 0, errno, 0};
  struct stat status;
  if (fstat(file, &status) != 0 || static_cast<uint64_t>(status.st_size) != bytes || bytes == 0) {
    const int64_t size = status.st_size;
    close(file);
    return {nullptr, size, 0, 0};
  }
  void* data = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file, 0);
  const int error = errno;
  close(file);
  if (data == MAP_FAILED) return {nullptr, 0, error, 0};
  return {static_cast<const uint8_t*>(data), status.st_size, 0, modified_ns(status)};
}

void unmap_file(const uint8_t* data, uint64_t bytes) { munmap(const_cast<uint8_t*>(data), bytes); }

void drop_file_pages(const uint8_t* data, uint64_t bytes) { madvise(const_cast<uint8_t*>(data), bytes, MADV_DONTNEED); }

void populate_file_pages(const uint8_t* data, uint64_t bytes) {
#ifdef __linux__
  constexpr int kPopulateRead = 22;  // MADV_POPULATE_READ of Linux 5.14; older C libraries lack its name
  if (madvise(const_cast<uint8_t*>(data), bytes, kPopulateRead) == 0) return;
#endif
  madvise(const_cast<uint8_t*>(data), bytes, MADV_WILLNEED);
}

uint64_t resident_file_bytes(const uint8_t* data, uint64_t bytes) {
  constexpr uint64_t kPages = 1u << 12;
#ifdef __APPLE__
  char there[kPages];
#else
  unsigned char there[kPages];
#endif
  const uint64_t page = page_bytes(), lead = reinterpret_cast<uintptr_t>(data) % page;
  const uint8_t* begin = data - lead;
  uint64_t pages = 0;
  const uint64_t all = (lead + bytes + page - 1) / page;
  for (uint64_t at = 0; at < all; at += kPages) {
    const uint64_t count = all - at < kPages ? all - at : kPages;
    if (mincore(const_cast<uint8_t*>(begin + at * page), count * page, there) != 0) continue;
    for (uint64_t i = 0; i < count; i++) pages += there[i] & 1;
  }
  return pages * page < bytes ? pages * page : bytes;
}

const char* objection_to_file(const char* path) {
  struct stat status;
  if (stat(path, &status) != 0 || !S_ISREG(status.st_mode)) return "is not a file that can be read";
  return objection_to(status);
}

const char* objection_to_folder(const char* path) {
  struct stat status;
  if (stat(path, &status) != 0 || !S_ISDIR(status.st_mode)) return "is not a folder";
  return objection_to(status);
}

Draft open_draft(const char* path) {
  const Draft draft = lock_draft(path, O_CREAT);
  if (draft.file == -1) return draft;
  const int error = size_draft(draft.file, 0);
  if (error == 0) return draft;
  discard_draft(draft.file, path);
  return {-1, error};
}

int size_draft(intptr_t file, uint64_t bytes) {
  return ftruncate(static_cast<int>(file), static_cast<off_t>(bytes)) == 0 ? 0 : errno;
}

int write_draft(intptr_t file, uint64_t offset, const uint8_t* data, uint64_t bytes) {
  while (bytes != 0) {
    const ssize_t written = pwrite(static_cast<int>(file), data, bytes, static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return written < 0 ? errno : EIO;
    data += written;
    offset += static_cast<uint64_t>(written);
    bytes -= static_cast<uint64_t>(written);
  }
  return 0;
}

int publish_draft(intptr_t file, const char* path, const char* target) {
  if (fsync(static_cast<int>(file)) != 0 || rename(path, target) != 0) {
    const int error = errno;
    discard_draft(file, path);
    return error;
  }
  close(static_cast<int>(file));
  return 0;
}

void discard_draft(intptr_t file, const char* path) {
  unlink(path);
  close(static_cast<int>(file));  // last, for the lock ends with it
}

void remove_dead_drafts(const char* folder, const char* suffix) {
  DIR* entries = opendir(folder);
  if (entries == nullptr) return;
  while (const dirent* entry = readdir(entries)) {
    const std::string name = entry->d_name, end = suffix;
    if (name.rfind("drover-", 0) != 0 || name.size() < end.size()) continue;
    if (name.compare(name.size() - end.size(), end.size(), end) != 0) continue;
    const std::string path = std::string(folder) + "/" + name;
    const Draft draft = lock_draft(path.c_str(), 0);
    if (draft.file != -1) discard_draft(draft.file, path.c_str());
  }
  closedir(entries);
}

void describe_error(int error, char* text, size_t bytes) { std::snprintf(text, bytes, "%s", std::strerror(error)); }

}  // namespace drover

#endif
