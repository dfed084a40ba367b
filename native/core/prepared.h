// Prepared weights in a file that processes map shared. Its header says all that the content follows from: the weights,
// what their files are, the layout of panels, the kernel set and the version. The header that is expected is made
// anew at each load and compared with the file's, byte for byte: nothing is ever read out of a header, and a file that
// is shorter, older or foreign is written again. Its name is a hash of the header.
//
// One process writes, under a lock on a draft beside the file; those that come meanwhile wait for it. The draft takes
// its name once all of it is on disk, so that a killed process leaves a draft, never half a file; the next writer
// removes it.
#ifndef DROVER_CORE_PREPARED_H_
#define DROVER_CORE_PREPARED_H_

#include <cstdint>
#include <string>
#include <vector>

#include "drover.h"

namespace drover {

class PreparedFile {
 public:
  PreparedFile() = default;
  PreparedFile(const PreparedFile&) = delete;
  PreparedFile& operator=(const PreparedFile&) = delete;
  ~PreparedFile();

  // The file of this program's weights in a folder: `offsets` of each in `bytes` of content. Fails with DROVER_IO when
  // the folder does not exist, belongs to somebody else, or everybody may write in it.
  drover_code plan(const drover_program& program, const char* folder, const std::vector<uint64_t>& offsets,
                   uint64_t bytes, drover_error* error);
  // Maps the file if it is there and right: content() is not null then.
  void open();
  // Waits until no other process writes the file; then it is mapped, or this process has its draft. DROVER_ABORTED when
  // `cancel` is set while it waits.
  drover_code claim(const int32_t* cancel, drover_error* error);
  // Writes content into the draft; from any thread.
  void write(uint64_t offset, const uint8_t* data, uint64_t bytes);
  // Whether a write has failed: publish() will say so, and writing more is in vain.
  bool failed() const;
  // Gives the draft its name and maps it. DROVER_IO with the first write that failed.
  drover_code publish(drover_error* error);
  // Unmaps a file whose content is wrong: the next claim() writes it again.
  void reject();

  const uint8_t* content() const { return mapping_ == nullptr ? nullptr : mapping_ + header_.size(); }
  uint64_t mapped_bytes() const { return mapping_ == nullptr ? 0 : bytes_; }

 private:
  void unmap();
  drover_code io_error(int number, const char* what, drover_error* error) const;

  std::string folder_, path_, draft_path_;
  std::vector<uint8_t> header_;
  uint64_t bytes_ = 0;  // of the whole file
  const uint8_t* mapping_ = nullptr;
  intptr_t draft_ = -1;
  bool rejected_ = false;
  int32_t write_error_ = 0;  // the system's number; written by many threads
};

}  // namespace drover

#endif  // DROVER_CORE_PREPARED_H_
