// Encoding of f32 rows into stored formats: the way back of decode_row. The five simple block formats are written byte
// for byte as the format's reference quantiser writes them; the others by search (fit.inl): scales that make the
// weighted squared error of a block small, each tried with the numbers that the block really stores.
#ifndef DROVER_KERNELS_ENCODE_H_
#define DROVER_KERNELS_ENCODE_H_

#include "kernels.h"

namespace drover {

inline constexpr uint32_t kEncodePiece = 256;  // whole blocks of every format

// False for formats that nothing here writes.
bool can_encode(const KernelTable& kernels, DType dtype);
// Encodes `cols` elements (whole blocks) of one row. importance [cols], or null: what the squared error of a column
// counts; not negative. With it the simple block formats but q8_0 are searched, too. A block with numbers that the
// format cannot hold (not finite, too large) gets a scale that is not finite, which row_is_finite sees.
void encode_row(const KernelTable& kernels, DType dtype, const float* x, const float* importance, uint32_t cols,
                uint8_t* out);

}  // namespace drover

#endif  // DROVER_KERNELS_ENCODE_H_
