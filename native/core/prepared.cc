#include "prepared.h"

#include <chrono>
#include <cstdio>
#include <cstring>
#include <thread>

#include "cpu.h"
#include "hash.h"
#include "kernels/panels.h"
#include "kernels/prepare.h"
#include "platform.h"
#include "program.h"
#include "status.h"

namespace drover {
namespace {

constexpr uint64_t kFormat = 1;
constexpr uint64_t kHeaderUnit = 64u << 10;  // the content starts at a multiple of it: a page, on every system
constexpr uint64_t kFileStart = 64u << 10;   // bytes of a mapped file that count for what it is, and
constexpr uint64_t kSample = 1u << 10;       // bytes from the middle of each weight
constexpr uint32_t kSampleRows = 17, kSampleDepth = 512;
constexpr const char* kDraftSuffix = ".draft";

// Numbers and texts, one after the other, in the order of this machine's bytes, as the panels are.
class HeaderWriter {
 public:
  void number(uint64_t value) { append(&value, sizeof value); }
  // At most 31 letters.
  void text(const char* value) {
    char field[32] = {};
    std::snprintf(field, sizeof field, "%s", value);
    append(field, sizeof field);
  }
  std::vector<uint8_t> take() { return std::move(bytes_); }

 private:
  void append(const void* data, size_t bytes) {
    const uint8_t* from = static_cast<const uint8_t*>(data);
    bytes_.insert(bytes_.end(), from, from + bytes);
  }
  std::vector<uint8_t> bytes_;
};

// What panels of these formats look like, found by preparing some: no number that somebody would have to count up.
uint64_t layout_hash(const std::vector<Weight>& weights) {
  bool used[kDTypeCount] = {};
  for (const Weight& w : weights) used[static_cast<uint32_t>(w.dtype)] |= (w.flags & kPrepare) != 0;
  Hash hash;
  for (uint32_t i = 0; i < kDTypeCount; i++) {
    if (!used[i]) continue;
    const DType dtype = static_cast<DType>(i);
    std::vector<uint8_t> source(kSampleRows * row_bytes(dtype, kSampleDepth));
    for (size_t at = 0; at < source.size(); at++) source[at] = static_cast<uint8_t>(at * at * 31 + at / 251);
    std::vector<uint8_t> panels(prepared_bytes(dtype, kSampleRows, kSampleDepth));
    prepare_panels(dtype, source.data(), kSampleRows, kSampleDepth, 0, 2, panels.data());
    hash.number(i);
    hash.add(panels.data(), panels.size());
  }
  return hash.first();
}

// What the weights are made from. Two files of the same size, time and start, as packages that set all times alike may
// hold, still differ in the samples.
Hash source_hash(const drover_program& program) {
  Hash hash;
  for (const drover_region* region : program.regions) {
    hash.number(region->bytes);
    hash.number(static_cast<uint64_t>(region->modified));
    hash.add(region->data, region->mapped && region->bytes > kFileStart ? kFileStart : region->bytes);
  }
  for (const Weight& w : program.weights) {
    const uint64_t bytes = w.stride * (w.rows - 1) + row_bytes(w.dtype, w.cols);
    const uint64_t sample = bytes < kSample ? bytes : kSample;
    hash.add(w.file + (bytes - sample) / 2, sample);
  }
  // The samples were all that was wanted of these pages.
  for (const drover_region* region : program.regions) drop_pages(*region, 0, region->bytes);
  return hash;
}

bool cancelled(const int32_t* cancel) { return cancel != nullptr && __atomic_load_n(cancel, __ATOMIC_RELAXED) != 0; }

}  // namespace

PreparedFile::~PreparedFile() {
  unmap();
  if (draft_ != -1) discard_draft(draft_, draft_path_.c_str());
}

void PreparedFile::unmap() {
  if (mapping_ != nullptr) unmap_file(mapping_, bytes_);
  mapping_ = nullptr;
}

drover_code PreparedFile::io_error(int number, const char* what, drover_error* error) const {
  char reason[80];
  describe_error(number, reason, sizeof reason);
  return fail(error, DROVER_IO, -1, number, 0, "prepared weights: %.90s %s: %s", folder_.c_str(), what, reason);
}

drover_code PreparedFile::plan(const drover_program& program, const char* folder, const std::vector<uint64_t>& offsets,
                               uint64_t bytes, drover_error* error) {
  folder_ = folder;
  if (const char* objection = objection_to_folder(folder)) {
    return fail(error, DROVER_IO, -1, 0, 0, "prepared weights: %.120s %s", folder, objection);
  }
  const uint64_t count = program.weights.size();
  constexpr uint64_t kWeightBytes = 8 * 8, kFixedBytes = 8 * 8 + 2 * 32;
  const uint64_t header_bytes = round_up(kFixedBytes + count * kWeightBytes, kHeaderUnit);
  bytes_ = header_bytes + bytes;
  const Hash source = source_hash(program);
  HeaderWriter header;
  header.number(0x5045525052565244u);  // "DRVRPREP"
  header.number(kFormat);
  header.number(header_bytes);
  header.number(bytes_);
  header.number(source.first());
  header.number(source.second());
  header.number(layout_hash(program.weights));
  header.text(machine().info.isa);
  header.text(DROVER_VERSION);
  header.number(count);
  for (size_t i = 0; i < program.weights.size(); i++) {
    const Weight& w = program.weights[i];
    for (const uint64_t value :
         {uint64_t{w.region}, w.offset, uint64_t{w.rows}, uint64_t{w.cols}, uint64_t{static_cast<uint32_t>(w.dtype)},
          uint64_t{w.flags}, uint64_t{w.scales_weight}, offsets[i]}) {
      header.number(value);
    }
  }
  header_ = header.take();
  header_.resize(header_bytes);
  Hash name;
  name.add(header_.data(), header_.size());
  char file[48];
  std::snprintf(file, sizeof file, "/drover-%016llx%016llx", static_cast<unsigned long long>(name.first()),
                static_cast<unsigned long long>(name.second()));
  path_ = folder_ + file + ".weights";
  draft_path_ = folder_ + file + kDraftSuffix;
  return DROVER_OK;
}

void PreparedFile::open() {
  unmap();
  if (objection_to_file(path_.c_str()) != nullptr) return;
  mapping_ = map_file(path_.c_str(), bytes_).data;
  if (mapping_ != nullptr && std::memcmp(mapping_, header_.data(), header_.size()) != 0) unmap();
}

drover_code PreparedFile::claim(const int32_t* cancel, drover_error* error) {
  for (;;) {
    const Draft draft = open_draft(draft_path_.c_str());
    if (draft.error != 0) return io_error(draft.error, "cannot be written", error);
    if (draft.file != -1) {
      draft_ = draft.file;
      break;
    }
    if (cancelled(cancel)) return fail(error, DROVER_ABORTED, -1, 0, 0, "loading was aborted");
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  // Whoever had the draft before may have finished it.
  if (!rejected_) open();
  if (mapping_ == nullptr) {
    remove_dead_drafts(folder_.c_str(), kDraftSuffix);
    // Only now: on some file systems it takes the room of the whole file.
    const int number = size_draft(draft_, bytes_);
    return number == 0 ? DROVER_OK : io_error(number, "cannot be written", error);
  }
  discard_draft(draft_, draft_path_.c_str());
  draft_ = -1;
  return DROVER_OK;
}

void PreparedFile::write(uint64_t offset, const uint8_t* data, uint64_t bytes) {
  const int number = write_draft(draft_, header_.size() + offset, data, bytes);
  if (number != 0) __atomic_store_n(&write_error_, number, __ATOMIC_RELAXED);
}

bool PreparedFile::failed() const { return __atomic_load_n(&write_error_, __ATOMIC_RELAXED) != 0; }

drover_code PreparedFile::publish(drover_error* error) {
  int number = write_error_;
  if (number == 0) number = write_draft(draft_, 0, header_.data(), header_.size());
  if (number == 0)
    number = publish_draft(draft_, draft_path_.c_str(), path_.c_str());
  else
    discard_draft(draft_, draft_path_.c_str());
  draft_ = -1;
  if (number != 0) return io_error(number, "cannot be written", error);
  open();
  if (mapping_ != nullptr) return DROVER_OK;
  return fail(error, DROVER_IO, -1, 0, 0, "prepared weights: %.120s has been changed by somebody else", path_.c_str());
}

void PreparedFile::reject() {
  unmap();
  rejected_ = true;
}

}  // namespace drover
