// The code books, and their byte codes, made by the compiler.
#include "grids.h"

namespace drover {

#include "iq_grids.inl"

namespace {

// Every byte, as a signed number, times `factor` and plus `shift`.
template <typename Word, uint32_t kCount>
constexpr GridCodes<Word, kCount> codes_of(const Word (&grid)[kCount], int32_t factor, int32_t shift) {
  GridCodes<Word, kCount> codes{};
  for (uint32_t i = 0; i < kCount; i++) {
    for (uint32_t bit = 0; bit < sizeof(Word) * 8; bit += 8) {
      const int32_t element = static_cast<int8_t>(grid[i] >> bit & 255);
      codes.at[i] |= static_cast<Word>(static_cast<uint8_t>(element * factor + shift)) << bit;
    }
  }
  return codes;
}

}  // namespace

constexpr GridCodes<uint64_t, 256> kIq2XxsCodes = codes_of(kIq2XxsGrid, 1, 128);
constexpr GridCodes<uint64_t, 512> kIq2XsCodes = codes_of(kIq2XsGrid, 1, 128);
constexpr GridCodes<uint64_t, 1024> kIq2SCodes = codes_of(kIq2SGrid, 1, 128);
constexpr GridCodes<uint64_t, 2048> kIq1Codes = codes_of(kIq1SGrid, 8, 129);
constexpr GridCodes<uint32_t, 256> kIq3XxsCodes = codes_of(kIq3XxsGrid, 1, 128);

}  // namespace drover
