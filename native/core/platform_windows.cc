// Pages, mapped files and CPUs of a Windows process. Paths are UTF-8, as everywhere in drover.
#ifdef _WIN32

#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <string>
#include <vector>

#include "platform.h"

namespace drover {
namespace {

std::wstring wide(const char* text) {
  const int units = MultiByteToWideChar(CP_UTF8, 0, text, -1, nullptr, 0);
  std::wstring result(units > 0 ? static_cast<size_t>(units) : 1, L'\0');
  MultiByteToWideChar(CP_UTF8, 0, text, -1, result.data(), units);
  result.pop_back();  // the terminator was counted
  return result;
}

FileMapping failed() { return {nullptr, 0, static_cast<int>(GetLastError())}; }

}  // namespace

uint64_t page_bytes() {
  static const uint64_t bytes = [] {
    SYSTEM_INFO info;
    GetSystemInfo(&info);
    return uint64_t{info.dwPageSize};
  }();
  return bytes;
}

// Large pages need a privilege that services rarely have: both kinds are plain.
uint8_t* map_pages(uint64_t bytes, Pages) {
  return static_cast<uint8_t*>(VirtualAlloc(nullptr, bytes, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE));
}

void unmap_pages(uint8_t* data, uint64_t) { VirtualFree(data, 0, MEM_RELEASE); }

FileMapping map_file(const char* path, uint64_t bytes) {
  const HANDLE file = CreateFileW(wide(path).c_str(), GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_DELETE, nullptr,
                                  OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, nullptr);
  if (file == INVALID_HANDLE_VALUE) return failed();
  LARGE_INTEGER size;
  if (!GetFileSizeEx(file, &size)) size.QuadPart = -1;
  if (static_cast<uint64_t>(size.QuadPart) != bytes || bytes == 0) {
    CloseHandle(file);
    return {nullptr, size.QuadPart, 0};
  }
  FileMapping result{nullptr, size.QuadPart, 0};
  const HANDLE mapping = CreateFileMappingW(file, nullptr, PAGE_READONLY, 0, 0, nullptr);
  if (mapping != nullptr) result.data = static_cast<const uint8_t*>(MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0));
  if (result.data == nullptr) result = failed();
  // A view keeps what it shows open.
  if (mapping != nullptr) CloseHandle(mapping);
  CloseHandle(file);
  return result;
}

void unmap_file(const uint8_t* data, uint64_t) { UnmapViewOfFile(data); }

// Unlocking pages that nobody has locked takes them out of the working set.
void drop_file_pages(const uint8_t* data, uint64_t bytes) { VirtualUnlock(const_cast<uint8_t*>(data), bytes); }

void describe_error(int error, char* text, size_t bytes) {
  const DWORD flags = FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS | FORMAT_MESSAGE_MAX_WIDTH_MASK;
  const DWORD length =
      FormatMessageA(flags, nullptr, static_cast<DWORD>(error), 0, text, static_cast<DWORD>(bytes), nullptr);
  if (length == 0) std::snprintf(text, bytes, "error %d", error);
}

SystemCpus system_cpus() {
  SystemCpus cpus{};
  SYSTEM_INFO info;
  GetSystemInfo(&info);
  cpus.logical = info.dwNumberOfProcessors;
  DWORD_PTR allowed = 0, system = 0;
  if (!GetProcessAffinityMask(GetCurrentProcess(), &allowed, &system)) allowed = info.dwActiveProcessorMask;
  cpus.allowed = std::max(1, std::popcount(uint64_t{allowed}));
  DWORD bytes = 0;
  GetLogicalProcessorInformation(nullptr, &bytes);
  std::vector<SYSTEM_LOGICAL_PROCESSOR_INFORMATION> facts(bytes / sizeof(SYSTEM_LOGICAL_PROCESSOR_INFORMATION));
  if (facts.empty() || !GetLogicalProcessorInformation(facts.data(), &bytes)) facts.clear();
  for (const SYSTEM_LOGICAL_PROCESSOR_INFORMATION& fact : facts) {
    if ((fact.ProcessorMask & allowed) == 0) continue;
    if (fact.Relationship == RelationProcessorCore) cpus.physical++;
    if (fact.Relationship != RelationCache || fact.Cache.Type == CacheInstruction) continue;
    if (fact.Cache.Level == 1) cpus.l1d_bytes = fact.Cache.Size;
    if (fact.Cache.Level == 2) cpus.l2_bytes = fact.Cache.Size;
    if (fact.Cache.Level == 3) cpus.l3_bytes = fact.Cache.Size;
  }
  if (cpus.physical == 0) cpus.physical = cpus.allowed;
  return cpus;
}

void name_thread(const char* name) { SetThreadDescription(GetCurrentThread(), wide(name).c_str()); }

}  // namespace drover

#endif
