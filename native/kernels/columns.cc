// Blocks of the IQ1, IQ2, IQ3 and TQ types as panels want them.
#include "columns.h"

#include "grids.h"

namespace drover {
namespace {

// Scales of the grids are odd.
uint8_t odd(uint32_t code) { return static_cast<uint8_t>(2 * code + 1); }
uint32_t nibble(const uint8_t* packed, uint32_t i) { return packed[i / 2] >> (i % 2 * 4) & 15u; }

void read_iq2_xxs(const uint8_t* block, Column& column) {
  column.d[0] = load16(block);
  for (uint32_t group = 0; group < 8; group++) {
    const uint32_t tail = load32(block + 6 + group * 8);
    column.scales[group] = odd(tail >> 28);
    for (uint32_t l = 0; l < 4; l++) {
      column.index[group * 4 + l] = block[2 + group * 8 + l];
      column.signs[group * 4 + l] = kEvenSigns[tail >> (7 * l) & 127];
    }
  }
}

void read_iq2_xs(const uint8_t* block, Column& column) {
  column.d[0] = load16(block);
  for (uint32_t l = 0; l < 32; l++) {
    const uint16_t code = load16(block + 2 + l * 2);
    column.index[l] = code & 511;
    column.signs[l] = kEvenSigns[code >> 9];
  }
  for (uint32_t i = 0; i < 16; i++) column.scales[i] = odd(nibble(block + 66, i));
}

void read_iq2_s(const uint8_t* block, Column& column) {
  column.d[0] = load16(block);
  for (uint32_t l = 0; l < 32; l++) {
    column.index[l] = static_cast<uint16_t>(block[2 + l] | (block[66 + l / 4] >> (l % 4 * 2) & 3u) << 8);
    column.signs[l] = block[34 + l];
  }
  for (uint32_t i = 0; i < 16; i++) column.scales[i] = odd(nibble(block + 74, i));
}

void read_iq3_xxs(const uint8_t* block, Column& column) {
  column.d[0] = load16(block);
  for (uint32_t i = 0; i < 64; i++) column.index[i] = block[2 + i];
  for (uint32_t group = 0; group < 8; group++) {
    const uint32_t tail = load32(block + 66 + group * 4);
    column.scales[group] = odd(tail >> 28);
    for (uint32_t l = 0; l < 4; l++) column.signs[group * 4 + l] = kEvenSigns[tail >> (7 * l) & 127];
  }
}

void read_iq3_s(const uint8_t* block, Column& column) {
  column.d[0] = load16(block);
  for (uint32_t i = 0; i < 8; i++) column.scales[i] = odd(nibble(block + 106, i));
  for (uint32_t i = 0; i < 256; i++) {
    const uint32_t vector = i / 4, high = block[66 + vector / 8] >> (vector % 8) & 1u;
    const uint32_t element = kIq3SGrid[block[2 + vector] | high << 8] >> (i % 4 * 8) & 15;
    const uint32_t minus = block[74 + i / 8] >> (i % 8) & 1u;
    column.codes[i] = static_cast<uint8_t>(element >> 1 | minus << 3);
  }
}

void read_iq1_s(const uint8_t* block, Column& column) {
  column.d[0] = load16(block);
  for (uint32_t l = 0; l < 32; l++) {
    const uint32_t high = load16(block + 34 + l / 4 * 2);
    column.scales[l / 4] = odd(high >> 12 & 7);
    column.index[l] = static_cast<uint16_t>(block[2 + l] | (high >> (l % 4 * 3) & 7) << 8 | high >> 15 << 11);
  }
}

// The half scale lies in the highest nibbles of the four words of scales.
void read_iq1_m(const uint8_t* block, Column& column) {
  column.d[0] = 0;
  for (uint32_t i = 0; i < 4; i++) {
    const uint32_t word = load16(block + 48 + i * 2);
    column.d[0] = static_cast<uint16_t>(column.d[0] | word >> 12 << (4 * i));
    for (uint32_t j = 0; j < 4; j++) column.scales[i * 4 + j] = odd(word >> (3 * j) & 7);
  }
  for (uint32_t l = 0; l < 32; l++) {
    column.index[l] = static_cast<uint16_t>(block[l] | nibble(block + 32, l) << 8);
  }
}

// Five ternary digits a byte, as a fraction in base 3: 32 bytes, 16 bytes, and 4 bytes of four digits.
void read_tq1_0(const uint8_t* block, Column& column) {
  constexpr uint32_t kPowers[5] = {1, 3, 9, 27, 81};
  column.d[0] = load16(block + 52);
  for (uint32_t i = 0; i < 256; i++) {
    const uint32_t count = i < 160 ? 32 : i < 240 ? 16 : 4, from = i < 160 ? 0 : i < 240 ? 160 : 240;
    const uint32_t byte = block[(i < 160 ? 0 : i < 240 ? 32 : 48) + (i - from) % count];
    column.codes[i] = static_cast<uint8_t>((byte * kPowers[(i - from) / count] & 255) * 3 >> 8);
  }
}

void read_tq2_0(const uint8_t* block, Column& column) {
  column.d[0] = load16(block + 64);
  for (uint32_t i = 0; i < 256; i++) column.codes[i] = block[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3;
}

}  // namespace

void read_iq_tq(DType dtype, const uint8_t* block, Column& column) {
  switch (dtype) {
    case DType::iq2_xxs:
      return read_iq2_xxs(block, column);
    case DType::iq2_xs:
      return read_iq2_xs(block, column);
    case DType::iq2_s:
      return read_iq2_s(block, column);
    case DType::iq3_xxs:
      return read_iq3_xxs(block, column);
    case DType::iq3_s:
      return read_iq3_s(block, column);
    case DType::iq1_s:
      return read_iq1_s(block, column);
    case DType::iq1_m:
      return read_iq1_m(block, column);
    case DType::tq1_0:
      return read_tq1_0(block, column);
    case DType::tq2_0:
      return read_tq2_0(block, column);
    default:
      return;
  }
}

}  // namespace drover
