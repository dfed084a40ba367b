// Between a file's blocks and panels: a superblock of one column.
#ifndef DROVER_KERNELS_COLUMNS_H_
#define DROVER_KERNELS_COLUMNS_H_

#include <cstring>

#include "kernels.h"

namespace drover {

// The codes of one superblock of one column, or its grid indices and sign masks, and its scales, as the panel wants
// them.
struct Column {
  alignas(64) uint8_t codes[256];
  uint16_t index[64];
  uint8_t signs[32];
  uint16_t d[2], m[2];
  float f[2];
  uint8_t scales[16], mins[16];
};

inline uint16_t load16(const uint8_t* p) {
  uint16_t value;
  std::memcpy(&value, p, 2);
  return value;
}
inline uint32_t load32(const uint8_t* p) {
  uint32_t value;
  std::memcpy(&value, p, 4);
  return value;
}

// Reads one block of an IQ1, IQ2, IQ3 or TQ type: codes or indices and signs, scales, and d[0].
void read_iq_tq(DType dtype, const uint8_t* block, Column& column);

}  // namespace drover

#endif  // DROVER_KERNELS_COLUMNS_H_
