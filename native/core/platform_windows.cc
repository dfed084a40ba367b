// Pages, files and CPUs of a Windows process. Paths are UTF-8, as everywhere in drover.
#ifdef _WIN32

#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>
// After windows.h, which it needs.
#include <psapi.h>

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
  result.pop_back();                                        // the terminator was counted
  std::replace(result.begin(), result.end(), L'/', L'\\');  // behind \\?\ a slash is part of a name
  return result;
}

FileMapping failed() { return {nullptr, 0, static_cast<int>(GetLastError()), 0}; }

int last_error() { return static_cast<int>(GetLastError()); }

// Whether the last call met a file that is removed as soon as its last handle is closed.
bool was_going() {
  using Status = LONG(NTAPI*)();
  static const Status last_status = reinterpret_cast<Status>(
      reinterpret_cast<void*>(GetProcAddress(GetModuleHandleW(L"ntdll.dll"), "RtlGetLastNtStatus")));
  constexpr LONG kDeletePending = static_cast<LONG>(0xC0000056);
  return last_status != nullptr && last_status() == kDeletePending;
}

// Nobody else can open a draft while it is written; the handle itself renames and removes it.
Draft lock_draft(const wchar_t* path, DWORD disposition) {
  const HANDLE file =
      CreateFileW(path, GENERIC_READ | GENERIC_WRITE | DELETE, 0, nullptr, disposition, FILE_ATTRIBUTE_NORMAL, nullptr);
  if (file != INVALID_HANDLE_VALUE) return {reinterpret_cast<intptr_t>(file), 0};
  const bool busy = GetLastError() == ERROR_SHARING_VIOLATION || (GetLastError() == ERROR_ACCESS_DENIED && was_going());
  return {-1, busy ? 0 : last_error()};
}

void remove_and_close(HANDLE file) {
  FILE_DISPOSITION_INFO info{TRUE};
  SetFileInformationByHandle(file, FileDispositionInfo, &info, sizeof info);
  CloseHandle(file);
}

int rename_by_handle(HANDLE file, const std::wstring& target) {
  std::vector<uint64_t> words((sizeof(FILE_RENAME_INFO) + target.size() * sizeof(wchar_t)) / 8 + 1);
  FILE_RENAME_INFO* info = reinterpret_cast<FILE_RENAME_INFO*>(words.data());
  info->ReplaceIfExists = TRUE;
  info->FileNameLength = static_cast<DWORD>(target.size() * sizeof(wchar_t));
  std::copy(target.begin(), target.end(), info->FileName);
  const DWORD bytes = static_cast<DWORD>(words.size() * 8);
  return SetFileInformationByHandle(file, FileRenameInfo, info, bytes) ? 0 : last_error();
}

const char* objection_to(const char* path, bool folder, const char* objection) {
  const DWORD attributes = GetFileAttributesW(wide(path).c_str());
  const bool right = attributes != INVALID_FILE_ATTRIBUTES && ((attributes & FILE_ATTRIBUTE_DIRECTORY) != 0) == folder;
  return right ? nullptr : objection;
}

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
    return {nullptr, size.QuadPart, 0, 0};
  }
  FILETIME time{};
  GetFileTime(file, nullptr, nullptr, &time);
  FileMapping result{nullptr, size.QuadPart, 0, int64_t{time.dwHighDateTime} << 32 | time.dwLowDateTime};
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

void populate_file_pages(const uint8_t* data, uint64_t bytes) {
  WIN32_MEMORY_RANGE_ENTRY range{const_cast<uint8_t*>(data), bytes};
  PrefetchVirtualMemory(GetCurrentProcess(), 1, &range, 0);
}

uint64_t resident_file_bytes(const uint8_t* data, uint64_t bytes) {
  constexpr uint64_t kPages = 1u << 10;
  PSAPI_WORKING_SET_EX_INFORMATION there[kPages];
  const uint64_t page = page_bytes(), lead = reinterpret_cast<uintptr_t>(data) % page;
  const uint64_t all = (lead + bytes + page - 1) / page;
  uint64_t pages = 0;
  for (uint64_t at = 0; at < all; at += kPages) {
    const uint64_t count = all - at < kPages ? all - at : kPages;
    for (uint64_t i = 0; i < count; i++) there[i].VirtualAddress = const_cast<uint8_t*>(data - lead + (at + i) * page);
    const DWORD size = static_cast<DWORD>(count * sizeof there[0]);
    if (K32QueryWorkingSetEx(GetCurrentProcess(), there, size) == 0) continue;
    for (uint64_t i = 0; i < count; i++) pages += there[i].VirtualAttributes.Valid;
  }
  return pages * page < bytes ? pages * page : bytes;
}

const char* objection_to_file(const char* path) { return objection_to(path, false, "is not a file"); }
const char* objection_to_folder(const char* path) { return objection_to(path, true, "is not a folder"); }

Draft open_draft(const char* path) { return lock_draft(wide(path).c_str(), CREATE_ALWAYS); }

int size_draft(intptr_t draft, uint64_t bytes) {
  const HANDLE file = reinterpret_cast<HANDLE>(draft);
  LARGE_INTEGER size;
  size.QuadPart = static_cast<LONGLONG>(bytes);
  return SetFilePointerEx(file, size, nullptr, FILE_BEGIN) && SetEndOfFile(file) ? 0 : last_error();
}

int write_draft(intptr_t file, uint64_t offset, const uint8_t* data, uint64_t bytes) {
  constexpr uint64_t kMost = 1u << 30;
  while (bytes != 0) {
    OVERLAPPED place{};
    place.Offset = static_cast<DWORD>(offset);
    place.OffsetHigh = static_cast<DWORD>(offset >> 32);
    DWORD written = 0;
    const DWORD part = static_cast<DWORD>(std::min(bytes, kMost));
    if (!WriteFile(reinterpret_cast<HANDLE>(file), data, part, &written, &place)) return last_error();
    if (written == 0) return ERROR_WRITE_FAULT;
    data += written;
    offset += written;
    bytes -= written;
  }
  return 0;
}

int publish_draft(intptr_t draft, const char*, const char* target) {
  const HANDLE file = reinterpret_cast<HANDLE>(draft);
  const int error = FlushFileBuffers(file) ? rename_by_handle(file, wide(target)) : last_error();
  if (error != 0) {
    remove_and_close(file);
    return error;
  }
  CloseHandle(file);
  return 0;
}

void discard_draft(intptr_t file, const char*) { remove_and_close(reinterpret_cast<HANDLE>(file)); }

void remove_dead_drafts(const char* folder, const char* suffix) {
  const std::wstring start = wide(folder) + L"\\";
  WIN32_FIND_DATAW entry;
  const HANDLE search = FindFirstFileW((start + L"drover-*" + wide(suffix)).c_str(), &entry);
  if (search == INVALID_HANDLE_VALUE) return;
  do {
    const Draft draft = lock_draft((start + entry.cFileName).c_str(), OPEN_EXISTING);
    if (draft.file != -1) remove_and_close(reinterpret_cast<HANDLE>(draft.file));
  } while (FindNextFileW(search, &entry));
  FindClose(search);
}

void describe_error(int error, char* text, size_t bytes) {
  const DWORD flags = FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS | FORMAT_MESSAGE_MAX_WIDTH_MASK;
  wchar_t wide_text[256];
  const DWORD length = FormatMessageW(flags, nullptr, static_cast<DWORD>(error), 0, wide_text, 256, nullptr);
  const int written =
      length == 0 ? 0 : WideCharToMultiByte(CP_UTF8, 0, wide_text, -1, text, static_cast<int>(bytes), nullptr, nullptr);
  if (written == 0) std::snprintf(text, bytes, "error %d", error);
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
