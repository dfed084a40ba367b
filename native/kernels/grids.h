// The code books of the IQ tensor types (iq_grids.inl), one copy for decoding, preparation and all kernel sets.
#ifndef DROVER_KERNELS_GRIDS_H_
#define DROVER_KERNELS_GRIDS_H_

#include <cstdint>

namespace drover {

// Vectors of 8 or 4 elements, element j in byte j.
extern const uint64_t kIq2XxsGrid[256], kIq2XsGrid[512], kIq2SGrid[1024], kIq1SGrid[2048];
extern const uint32_t kIq3XxsGrid[256], kIq3SGrid[512];
// Sign masks of 8 elements from 7 stored bits: the eighth makes the number of minus signs even.
extern const uint8_t kEvenSigns[128];

// The same as byte codes, 128 above what they stand for: in kIq1Codes eight times the element, and 1.
template <typename Word, uint32_t kCount>
struct GridCodes {
  Word at[kCount];
};
extern const GridCodes<uint64_t, 256> kIq2XxsCodes;
extern const GridCodes<uint64_t, 512> kIq2XsCodes;
extern const GridCodes<uint64_t, 1024> kIq2SCodes;
extern const GridCodes<uint64_t, 2048> kIq1Codes;
extern const GridCodes<uint32_t, 256> kIq3XxsCodes;

}  // namespace drover

#endif  // DROVER_KERNELS_GRIDS_H_
