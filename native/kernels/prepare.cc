// Packs file rows into panels (layouts in panels.h) and reads them back. Plain loops over 16 columns at a time.
#include "prepare.h"

#include <cstring>

#include "panels.h"
#include "simd/half.h"

namespace drover {
namespace {

constexpr uint32_t kCols = kPanel;

// The codes of one superblock of one column, its float scales and its integer scales, as the panel wants them.
struct Column {
  alignas(64) uint8_t codes[256];
  uint16_t d[2], dmin;
  uint8_t scales[16], mins[8];
};

uint16_t load16(const uint8_t* p) {
  uint16_t value;
  std::memcpy(&value, p, 2);
  return value;
}

void nibbles_32(const uint8_t* packed, uint8_t* codes) {
  for (uint32_t j = 0; j < 16; j++) {
    codes[j] = packed[j] & 15;
    codes[j + 16] = packed[j] >> 4;
  }
}

// Up to two 32-blocks.
void read_32(DType dtype, const uint8_t* source, uint32_t blocks, Column& column) {
  const uint32_t bytes = dtype == DType::q8_0 ? 34 : 18;
  for (uint32_t b = 0; b < blocks; b++) {
    const uint8_t* block = source + b * bytes;
    column.d[b] = load16(block);
    if (dtype == DType::q8_0) {
      for (uint32_t j = 0; j < 32; j++) column.codes[b * 32 + j] = block[2 + j] ^ 0x80;
    } else {
      nibbles_32(block + 2, column.codes + b * 32);
    }
  }
}

// 6-bit scales and mins of q4_k and q5_k: GGUF packs 8 pairs in 12 bytes.
void scales_k4(const uint8_t* packed, Column& column) {
  for (uint32_t i = 0; i < 4; i++) {
    column.scales[i] = packed[i] & 63;
    column.mins[i] = packed[i + 4] & 63;
    column.scales[i + 4] = static_cast<uint8_t>((packed[i + 8] & 15) | (packed[i] >> 6 << 4));
    column.mins[i + 4] = static_cast<uint8_t>((packed[i + 8] >> 4) | (packed[i + 4] >> 6 << 4));
  }
}

void read_256(DType dtype, const uint8_t* block, Column& column) {
  uint8_t* codes = column.codes;
  if (dtype == DType::q6_k) {
    column.d[0] = load16(block + 208);
    std::memcpy(column.scales, block + 192, 16);
    for (uint32_t part = 0; part < 2; part++) {
      const uint8_t* low = block + part * 64;
      const uint8_t* high = block + 128 + part * 32;
      uint8_t* out = codes + part * 128;
      for (uint32_t j = 0; j < 32; j++) {
        out[j] = static_cast<uint8_t>((low[j] & 15) | ((high[j] & 3) << 4));
        out[j + 32] = static_cast<uint8_t>((low[j + 32] & 15) | ((high[j] >> 2 & 3) << 4));
        out[j + 64] = static_cast<uint8_t>((low[j] >> 4) | ((high[j] >> 4 & 3) << 4));
        out[j + 96] = static_cast<uint8_t>((low[j + 32] >> 4) | ((high[j] >> 6) << 4));
      }
    }
    return;
  }
  column.d[0] = load16(block);
  column.dmin = load16(block + 2);
  scales_k4(block + 4, column);
  const uint8_t* packed = block + (dtype == DType::q5_k ? 48 : 16);
  for (uint32_t part = 0; part < 4; part++) {
    for (uint32_t j = 0; j < 32; j++) {
      codes[part * 64 + j] = packed[part * 32 + j] & 15;
      codes[part * 64 + 32 + j] = packed[part * 32 + j] >> 4;
    }
  }
  if (dtype == DType::q5_k) {
    const uint8_t* high = block + 16;
    for (uint32_t sub = 0; sub < 8; sub++) {
      for (uint32_t j = 0; j < 32; j++) codes[sub * 32 + j] |= static_cast<uint8_t>((high[j] >> sub & 1) << 4);
    }
  }
}

// Nibble lines of `depth` codes: groups 2 l and 2 l + 1 of four k share line l.
void write_nibbles(const Column* columns, uint32_t depth, uint8_t* lines) {
  for (uint32_t c = 0; c < kCols; c++) {
    for (uint32_t line = 0; line < depth / 8; line++) {
      uint64_t eight;
      std::memcpy(&eight, columns[c].codes + line * 8, 8);
      eight &= 0x0f0f0f0f0f0f0f0full;
      const uint32_t packed = static_cast<uint32_t>(eight) | static_cast<uint32_t>(eight >> 32 << 4);
      std::memcpy(lines + line * kLine + c * 4, &packed, 4);
    }
  }
}

// Lines of the bits above the nibble: `bits` per code, 8 / bits groups per line.
void write_high_bits(const Column* columns, uint32_t bits, uint8_t* lines) {
  const uint32_t groups = 8 / bits;
  const uint32_t mask = 0x01010101u * ((1u << bits) - 1);
  for (uint32_t c = 0; c < kCols; c++) {
    for (uint32_t line = 0; line < 64 / groups; line++) {
      uint32_t packed = 0;
      for (uint32_t g = 0; g < groups; g++) {
        uint32_t four;
        std::memcpy(&four, columns[c].codes + (line * groups + g) * 4, 4);
        packed |= (four >> 4 & mask) << (g * bits);
      }
      std::memcpy(lines + line * kLine + c * 4, &packed, 4);
    }
  }
}

void write_superblock(DType dtype, const Column* columns, uint8_t* out) {
  uint16_t* halves = reinterpret_cast<uint16_t*>(out);
  for (uint32_t c = 0; c < kCols; c++) {
    halves[c] = columns[c].d[0];
    const bool two = dtype == DType::q8_0 || dtype == DType::q4_0 || dtype == DType::iq4_nl;
    halves[16 + c] = two ? columns[c].d[1] : columns[c].dmin;
  }
  if (dtype == DType::q8_0) {
    for (uint32_t c = 0; c < kCols; c++) {
      for (uint32_t g = 0; g < 16; g++) std::memcpy(out + kLine + g * kLine + c * 4, columns[c].codes + g * 4, 4);
    }
  } else if (dtype == DType::q6_k) {
    for (uint32_t c = 0; c < kCols; c++) {
      for (uint32_t s = 0; s < 16; s++) out[kQ6kScales + s * 16 + c] = columns[c].scales[s];
    }
    write_nibbles(columns, 256, out + kQ6kLines);
    write_high_bits(columns, 2, out + kQ6kHigh);
  } else if (dtype == DType::q4_k || dtype == DType::q5_k) {
    for (uint32_t c = 0; c < kCols; c++) {
      for (uint32_t s = 0; s < 8; s++) {
        out[kQ4kScales + s * 16 + c] = columns[c].scales[s];
        out[kQ4kMins + s * 16 + c] = columns[c].mins[s];
      }
    }
    write_nibbles(columns, 256, out + kQ4kLines);
    if (dtype == DType::q5_k) write_high_bits(columns, 1, out + kQ5kHigh);
  } else {
    write_nibbles(columns, 64, out + kLine);
  }
}

void clear(DType dtype, Column& column) {
  std::memset(&column, 0, sizeof column);
  if (dtype == DType::q8_0) std::memset(column.codes, 0x80, sizeof column.codes);
}

// 16 bytes, and the interleaving of one half of two of them by units of 2 or 4 bytes.
typedef uint16_t Lanes __attribute__((vector_size(16)));
template <uint32_t kUnit, bool kHigh>
Lanes interleave(Lanes a, Lanes b) {
  if constexpr (kUnit == 2 && !kHigh) return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
  if constexpr (kUnit == 2 && kHigh) return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
  if constexpr (kUnit == 4 && !kHigh) return __builtin_shufflevector(a, b, 0, 1, 8, 9, 2, 3, 10, 11);
  return __builtin_shufflevector(a, b, 4, 5, 12, 13, 6, 7, 14, 15);
}

// Transposes a square of 16 / sizeof(Element) rows and columns: interleaving row i with row i + half rotates the bits
// of (row, column) by one, and after as many rounds as either has bits the two have changed places.
template <typename Element>
void transpose(Lanes* rows) {
  constexpr uint32_t kSide = 16 / sizeof(Element);
  for (uint32_t round = 1; round < kSide; round *= 2) {
    Lanes next[kSide];
    for (uint32_t i = 0; i < kSide / 2; i++) {
      next[2 * i] = interleave<sizeof(Element), false>(rows[i], rows[i + kSide / 2]);
      next[2 * i + 1] = interleave<sizeof(Element), true>(rows[i], rows[i + kSide / 2]);
    }
    std::memcpy(rows, next, sizeof next);
  }
}

template <typename Element>
void pack_float(const uint8_t* source, uint32_t columns, uint64_t stride, uint32_t depth, uint8_t* out) {
  constexpr uint32_t kSide = 16 / sizeof(Element);
  uint32_t k = 0;
  for (; k + kSide <= depth; k += kSide) {
    for (uint32_t first = 0; first < kCols; first += kSide) {
      Lanes rows[kSide] = {};
      for (uint32_t c = 0; c < kSide && first + c < columns; c++) {
        std::memcpy(&rows[c], source + (first + c) * stride + k * sizeof(Element), 16);
      }
      transpose<Element>(rows);
      for (uint32_t i = 0; i < kSide; i++)
        std::memcpy(out + ((k + i) * uint64_t{kCols} + first) * sizeof(Element), &rows[i], 16);
    }
  }
  for (; k < depth; k++) {
    for (uint32_t c = 0; c < kCols; c++) {
      Element value = 0;
      if (c < columns) std::memcpy(&value, source + c * stride + k * sizeof(Element), sizeof value);
      std::memcpy(out + (uint64_t{k} * kCols + c) * sizeof(Element), &value, sizeof value);
    }
  }
}

}  // namespace

uint64_t prepared_bytes(DType dtype, uint32_t rows, uint32_t depth) {
  return (uint64_t{rows} + kPanel - 1) / kPanel * panel_bytes(dtype, depth);
}

void prepare_panels(DType dtype, const uint8_t* source, uint32_t rows, uint32_t depth, uint32_t panel_begin,
                    uint32_t panel_end, uint8_t* out) {
  const uint64_t stride = row_bytes(dtype, depth), panel_stride = panel_bytes(dtype, depth);
  const Superblock super = superblock(dtype);
  for (uint32_t panel = panel_begin; panel < panel_end; panel++) {
    const uint8_t* first = source + uint64_t{panel} * kPanel * stride;
    const uint32_t columns = rows - panel * kPanel < kPanel ? rows - panel * kPanel : kPanel;
    uint8_t* to = out + panel * panel_stride;
    if (super.depth == 1) {
      if (dtype == DType::f32) {
        pack_float<uint32_t>(first, columns, stride, depth, to);
      } else {
        pack_float<uint16_t>(first, columns, stride, depth, to);
      }
      continue;
    }
    Column block[kPanel];
    for (Column& column : block) clear(dtype, column);
    for (uint32_t k = 0; k < depth; k += super.depth, to += super.bytes) {
      const uint32_t blocks = (depth - k < super.depth ? depth - k : super.depth) / 32;
      for (uint32_t c = 0; c < columns; c++) {
        const uint8_t* from = first + c * stride + row_bytes(dtype, k);
        if (super.depth == 64) {
          if (blocks == 1) clear(dtype, block[c]);
          read_32(dtype, from, blocks, block[c]);
        } else {
          read_256(dtype, from, block[c]);
        }
      }
      write_superblock(dtype, block, to);
    }
  }
}

void decode_prepared_row(DType dtype, const uint8_t* prepared, uint32_t, uint32_t depth, uint32_t row, float* out) {
  const uint8_t* panel = prepared + row / kPanel * panel_bytes(dtype, depth);
  const uint32_t c = row % kPanel;
  const Superblock super = superblock(dtype);
  if (super.depth == 1) {
    for (uint32_t k = 0; k < depth; k++) {
      const uint32_t i = k * kPanel + c;
      out[k] = dtype == DType::f32   ? reinterpret_cast<const float*>(panel)[i]
               : dtype == DType::f16 ? half_to_float(reinterpret_cast<const uint16_t*>(panel)[i])
                                     : bfloat_to_float(reinterpret_cast<const uint16_t*>(panel)[i]);
    }
    return;
  }
  for (uint32_t k = 0; k < depth; k++) {
    const uint8_t* block = panel + uint64_t{k / super.depth} * super.bytes;
    const uint16_t* halves = reinterpret_cast<const uint16_t*>(block);
    const uint32_t i = k % super.depth, byte = c * 4 + i % 4;
    const auto nibble = [&](uint32_t lines) -> int32_t {
      return block[lines + i / 8 * kLine + byte] >> (i / 4 % 2 * 4) & 15;
    };
    if (super.depth == 64) {
      const float d = half_to_float(halves[i / 32 * 16 + c]);
      const int32_t code = dtype == DType::q8_0   ? block[kLine + i / 4 * kLine + byte] - 128
                           : dtype == DType::q4_0 ? nibble(kLine) - 8
                                                  : kIq4NlCodes[nibble(kLine)];
      out[k] = d * static_cast<float>(code);
    } else if (dtype == DType::q6_k) {
      const int32_t high = block[kQ6kHigh + i / 16 * kLine + byte] >> (i / 4 % 4 * 2) & 3;
      const int8_t scale = static_cast<int8_t>(block[kQ6kScales + i / 16 * 16 + c]);
      out[k] = half_to_float(halves[c]) * static_cast<float>(scale) *
               static_cast<float>((nibble(kQ6kLines) | high << 4) - 32);
    } else {
      int32_t code = nibble(kQ4kLines);
      if (dtype == DType::q5_k) code |= (block[kQ5kHigh + i / 32 * kLine + byte] >> (i / 4 % 8) & 1) << 4;
      const float d = half_to_float(halves[c]) * static_cast<float>(block[kQ4kScales + i / 32 * 16 + c]);
      const float m = half_to_float(halves[16 + c]) * static_cast<float>(block[kQ4kMins + i / 32 * 16 + c]);
      out[k] = d * static_cast<float>(code) - m;
    }
  }
}

}  // namespace drover
