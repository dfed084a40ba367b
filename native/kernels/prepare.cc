// Packs file rows into panels (layouts in panels.h) and reads them back. Plain loops over 16 columns at a time.
#include "prepare.h"

#include <cstring>

#include "columns.h"
#include "grids.h"
#include "panels.h"
#include "simd/half.h"

namespace drover {
namespace {

constexpr uint32_t kCols = kPanel;

void nibbles_32(const uint8_t* packed, uint8_t* codes) {
  for (uint32_t j = 0; j < 16; j++) {
    codes[j] = packed[j] & 15;
    codes[j + 16] = packed[j] >> 4;
  }
}
// Bit i of four bytes is the fifth bit of code i.
void fifth_bits_32(const uint8_t* packed, uint8_t* codes) {
  uint32_t bits;
  std::memcpy(&bits, packed, 4);
  for (uint32_t j = 0; j < 32; j++) codes[j] |= static_cast<uint8_t>((bits >> j & 1) << 4);
}

// One 32-block, the first or second of a superblock.
void read_32(DType dtype, const uint8_t* block, uint32_t which, Column& column) {
  uint8_t* codes = column.codes + which * 32;
  if (dtype == DType::mxfp4) {
    // Half the E8M0 scale, 2^(e - 128), as a bfloat; subnormal for the two lowest exponents.
    const uint32_t e = block[0];
    column.d[which] = static_cast<uint16_t>(e < 2 ? 0x20u << e : (e - 1) << 7);
    return nibbles_32(block + 1, codes);
  }
  column.d[which] = load16(block);
  switch (dtype) {
    case DType::q8_0:
      for (uint32_t j = 0; j < 32; j++) codes[j] = block[2 + j] ^ 0x80;
      return;
    case DType::q4_1:
      column.m[which] = load16(block + 2);
      return nibbles_32(block + 4, codes);
    case DType::q5_0:
      nibbles_32(block + 6, codes);
      return fifth_bits_32(block + 2, codes);
    case DType::q5_1:
      column.m[which] = load16(block + 2);
      nibbles_32(block + 8, codes);
      return fifth_bits_32(block + 4, codes);
    default:
      return nibbles_32(block + 2, codes);
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

void read_q2_k(const uint8_t* block, Column& column) {
  column.d[0] = load16(block + 80);
  column.m[0] = load16(block + 82);
  for (uint32_t i = 0; i < 16; i++) {
    column.scales[i] = block[i] & 15;
    column.mins[i] = block[i] >> 4;
  }
  for (uint32_t i = 0; i < 256; i++) column.codes[i] = block[16 + i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3;
}

void read_q3_k(const uint8_t* block, Column& column) {
  column.d[0] = load16(block + 108);
  const uint8_t* packed = block + 96;
  for (uint32_t i = 0; i < 16; i++) {
    const uint32_t low = (i < 8 ? packed[i] : packed[i - 8] >> 4) & 15u;
    column.scales[i] = static_cast<uint8_t>((low | (packed[8 + i % 4] >> (i / 4 * 2) & 3u) << 4) - 32);
  }
  for (uint32_t i = 0; i < 256; i++) {
    const uint32_t low = block[32 + i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3u;
    column.codes[i] = static_cast<uint8_t>(low | (block[i % 32] >> (i / 32) & 1u) << 2);
  }
}

void read_q6_k(const uint8_t* block, Column& column) {
  column.d[0] = load16(block + 208);
  std::memcpy(column.scales, block + 192, 16);
  for (uint32_t part = 0; part < 2; part++) {
    const uint8_t* low = block + part * 64;
    const uint8_t* high = block + 128 + part * 32;
    uint8_t* out = column.codes + part * 128;
    for (uint32_t j = 0; j < 32; j++) {
      out[j] = static_cast<uint8_t>((low[j] & 15) | ((high[j] & 3) << 4));
      out[j + 32] = static_cast<uint8_t>((low[j + 32] & 15) | ((high[j] >> 2 & 3) << 4));
      out[j + 64] = static_cast<uint8_t>((low[j] >> 4) | ((high[j] >> 4 & 3) << 4));
      out[j + 96] = static_cast<uint8_t>((low[j + 32] >> 4) | ((high[j] >> 6) << 4));
    }
  }
}

void read_iq4_xs(const uint8_t* block, Column& column) {
  column.d[0] = load16(block);
  const uint32_t high = load16(block + 2);
  for (uint32_t i = 0; i < 8; i++) {
    const uint32_t low = block[4 + i / 2] >> (i % 2 * 4) & 15u;
    column.scales[i] = static_cast<uint8_t>((low | (high >> (2 * i) & 3u) << 4) - 32);
    nibbles_32(block + 8 + i * 16, column.codes + i * 32);
  }
}

void read_256(DType dtype, const uint8_t* block, Column& column) {
  switch (dtype) {
    case DType::q2_k:
      return read_q2_k(block, column);
    case DType::q3_k:
      return read_q3_k(block, column);
    case DType::q6_k:
      return read_q6_k(block, column);
    case DType::iq4_xs:
      return read_iq4_xs(block, column);
    case DType::q4_k:
    case DType::q5_k:
      break;
    default:
      return read_iq_tq(dtype, block, column);
  }
  column.d[0] = load16(block);
  column.m[0] = load16(block + 2);
  scales_k4(block + 4, column);
  const uint8_t* packed = block + (dtype == DType::q5_k ? 48 : 16);
  uint8_t* codes = column.codes;
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

// Lines of `bits` bits of each code, from bit `first` on: 8 / bits groups per line.
void write_bits(const Column* columns, uint32_t depth, uint32_t first, uint32_t bits, uint8_t* lines) {
  const uint32_t groups = 8 / bits;
  const uint32_t mask = 0x01010101u * ((1u << bits) - 1);
  for (uint32_t c = 0; c < kCols; c++) {
    for (uint32_t line = 0; line < depth / 4 / groups; line++) {
      uint32_t packed = 0;
      for (uint32_t g = 0; g < groups; g++) {
        uint32_t four;
        std::memcpy(&four, columns[c].codes + (line * groups + g) * 4, 4);
        packed |= (four >> first & mask) << (g * bits);
      }
      std::memcpy(lines + line * kLine + c * 4, &packed, 4);
    }
  }
}

// Lines of indices and sign masks.
void write_grid(const PanelLayout& layout, const Column* columns, uint8_t* out) {
  const uint32_t vectors = layout.depth / layout.grid.vector, bits = layout.grid.above_bits;
  for (uint32_t c = 0; c < kCols; c++) {
    for (uint32_t i = 0; i < vectors; i++) {
      out[layout.index_at() + i / 4 * kLine + c * 4 + i % 4] = static_cast<uint8_t>(columns[c].index[i]);
    }
    for (uint32_t line = 0; line < bits; line++) {
      uint32_t packed = 0;
      for (uint32_t i = 0; i < 32 / bits; i++) {
        packed |= static_cast<uint32_t>(columns[c].index[line * (32 / bits) + i] >> 8) << (i * bits);
      }
      std::memcpy(out + layout.above_at() + line * kLine + c * 4, &packed, 4);
    }
    for (uint32_t i = 0; i < layout.depth / 8 && layout.grid.signs; i++) {
      out[layout.signs_at() + i / 4 * kLine + c * 4 + i % 4] = columns[c].signs[i];
    }
  }
}

void write_superblock(const PanelLayout& layout, const Column* columns, uint8_t* out) {
  if (layout.halves == Halves::kFloats) {
    float* floats = reinterpret_cast<float*>(out);
    for (uint32_t c = 0; c < kCols; c++) {
      floats[c] = columns[c].f[0];
      floats[16 + c] = columns[c].f[1];
    }
    return write_nibbles(columns, layout.depth, out + layout.low_at());
  }
  uint16_t* halves = reinterpret_cast<uint16_t*>(out);
  for (uint32_t c = 0; c < kCols; c++) {
    halves[c] = columns[c].d[0];
    halves[16 + c] = layout.halves == Halves::kSuper ? columns[c].m[0] : columns[c].d[1];
    if (layout.halves == Halves::kPerBlockMins) {
      halves[32 + c] = columns[c].m[0];
      halves[48 + c] = columns[c].m[1];
    }
    for (uint32_t i = 0; i < layout.scales; i++) {
      out[layout.scales_at() + i * 16 + c] = columns[c].scales[i];
      if (layout.mins) out[layout.mins_at() + i * 16 + c] = columns[c].mins[i];
    }
  }
  if (layout.grid.vector != 0) return write_grid(layout, columns, out);
  if (layout.low_bits == 4) {
    write_nibbles(columns, layout.depth, out + layout.low_at());
  } else {
    write_bits(columns, layout.depth, 0, layout.low_bits, out + layout.low_at());
  }
  if (layout.high_bits != 0) {
    write_bits(columns, layout.depth, layout.low_bits, layout.high_bits, out + layout.high_at());
  }
}

void clear(DType dtype, Column& column) {
  std::memset(&column, 0, sizeof column);
  if (dtype == DType::q8_0) std::memset(column.codes, 0x80, sizeof column.codes);
}

// 16 bytes, and the interleaving of one half of two of them by units of 1, 2 or 4 bytes.
typedef uint16_t Lanes __attribute__((vector_size(16)));
typedef uint8_t ByteLanes __attribute__((vector_size(16)));
template <uint32_t kUnit, bool kHigh>
Lanes interleave(Lanes a, Lanes b) {
  if constexpr (kUnit == 1) {
    const ByteLanes x = reinterpret_cast<ByteLanes>(a), y = reinterpret_cast<ByteLanes>(b);
    constexpr int k = kHigh ? 8 : 0;
    return reinterpret_cast<Lanes>(__builtin_shufflevector(x, y, k, k + 16, k + 1, k + 17, k + 2, k + 18, k + 3, k + 19,
                                                           k + 4, k + 20, k + 5, k + 21, k + 6, k + 22, k + 7, k + 23));
  }
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
  // All of a panel is written: its bytes may go to a file, and be compared with another time's.
  const uint64_t end = uint64_t{depth} * kCols * sizeof(Element);
  std::memset(out + end, 0, round_up(end, 64) - end);
}

float scale_at(const Scales& scales, uint64_t index) {
  if (scales.data == nullptr) return 1;
  float value;
  decode_row(scales.dtype, scales.data + index * row_bytes(scales.dtype, 1), 1, &value);
  return value;
}

// The `blocks` 32-blocks of a superblock of i4 that begins at `k` of row `row`.
void read_i4(const uint8_t* codes, uint32_t blocks, const Scales& scales, uint32_t row, uint32_t k, uint32_t depth,
             Column& column) {
  if (blocks == 1) std::memset(&column, 0, sizeof column);
  for (uint32_t i = 0; i < blocks * 16; i++) {
    column.codes[2 * i] = codes[i] & 15;
    column.codes[2 * i + 1] = codes[i] >> 4;
  }
  for (uint32_t b = 0; b < blocks; b++) {
    column.f[b] = 1;
    scale_values(scales, row, depth, k + b * 32, 1, &column.f[b]);
  }
}

// One panel of i8: lines of codes + 128.
void pack_i8(const uint8_t* source, uint32_t columns, uint32_t depth, uint8_t* lines) {
  std::memset(lines, 0x80, round_up(depth, 64) * kCols);
  for (uint32_t c = 0; c < columns; c++) {
    const uint8_t* row = source + uint64_t{c} * depth;
    uint32_t k = 0;
    for (; k + 4 <= depth; k += 4) {
      uint32_t four;
      std::memcpy(&four, row + k, 4);
      four ^= 0x80808080u;
      std::memcpy(lines + k * kCols + c * 4, &four, 4);
    }
    for (; k < depth; k++) lines[(k & ~3u) * kCols + c * 4 + k % 4] = row[k] ^ 0x80;
  }
}
// One panel of f8_e4m3; marks: 1, or NaN for columns that hold one.
void pack_f8(const uint8_t* source, uint32_t columns, uint32_t depth, float* marks, uint8_t* out) {
  for (uint32_t c = 0; c < kCols; c++) marks[c] = 1;
  for (uint32_t c = 0; c < columns; c++) {
    const uint8_t* row = source + uint64_t{c} * depth;
    bool bad = false;
    for (uint32_t k = 0; k < depth; k++) bad |= (row[k] & 0x7f) == 0x7f;
    if (bad) marks[c] = __builtin_nanf("");
  }
  pack_float<uint8_t>(source, columns, depth, depth, out);
}
void pack_row_scaled(DType dtype, const uint8_t* source, uint32_t columns, uint32_t depth, const Scales& scales,
                     uint32_t first_row, uint8_t* out) {
  float* to = reinterpret_cast<float*>(out);
  for (uint32_t c = 0; c < kCols; c++) to[c] = c < columns ? scale_at(scales, first_row + c) : 0;
  if (dtype == DType::i8) return pack_i8(source, columns, depth, out + kI8Lines);
  pack_f8(source, columns, depth, to + kCols, out + kF8Lines);
}

}  // namespace

bool may_have_scales(DType dtype, uint32_t depth, uint32_t groups) {
  if (is_row_scaled(dtype)) return groups == 1;
  return dtype == DType::i4 && groups > 0 && depth % groups == 0 && depth / groups % 32 == 0;
}

void scale_values(const Scales& scales, uint32_t row, uint32_t depth, uint32_t begin, uint32_t count, float* values) {
  if (scales.data == nullptr) return;
  const uint32_t size = depth / scales.groups;
  for (uint32_t i = 0; i < count;) {
    const uint32_t group = (begin + i) / size, end = (group + 1) * size - begin;
    const float scale = scale_at(scales, uint64_t{row} * scales.groups + group);
    for (; i < count && i < end; i++) values[i] *= scale;
  }
}

uint64_t prepared_bytes(DType dtype, uint32_t rows, uint32_t depth) {
  return (uint64_t{rows} + kPanel - 1) / kPanel * panel_bytes(dtype, depth);
}

void prepare_panels(DType dtype, const uint8_t* source, uint32_t rows, uint32_t depth, uint32_t panel_begin,
                    uint32_t panel_end, uint8_t* out, const Scales& scales) {
  const uint64_t stride = row_bytes(dtype, depth), panel_stride = panel_bytes(dtype, depth);
  const PanelLayout layout = panel_layout(dtype);
  for (uint32_t panel = panel_begin; panel < panel_end; panel++) {
    const uint8_t* first = source + uint64_t{panel} * kPanel * stride;
    const uint32_t columns = rows - panel * kPanel < kPanel ? rows - panel * kPanel : kPanel;
    uint8_t* to = out + panel * panel_stride;
    if (is_float(dtype)) {
      if (dtype == DType::f32) {
        pack_float<uint32_t>(first, columns, stride, depth, to);
      } else {
        pack_float<uint16_t>(first, columns, stride, depth, to);
      }
      continue;
    }
    if (is_row_scaled(dtype)) {
      pack_row_scaled(dtype, first, columns, depth, scales, panel * kPanel, to);
      continue;
    }
    Column block[kPanel];
    for (Column& column : block) clear(dtype, column);
    for (uint32_t k = 0; k < depth; k += layout.depth, to += layout.bytes()) {
      const uint32_t blocks = (depth - k < layout.depth ? depth - k : layout.depth) / 32;
      for (uint32_t c = 0; c < columns; c++) {
        const uint8_t* from = first + c * stride + row_bytes(dtype, k);
        if (layout.depth == 256) {
          read_256(dtype, from, block[c]);
          continue;
        }
        if (dtype == DType::i4) {
          read_i4(from, blocks, scales, panel * kPanel + c, k, depth, block[c]);
          continue;
        }
        if (blocks == 1) clear(dtype, block[c]);
        for (uint32_t b = 0; b < blocks; b++) read_32(dtype, from + b * row_bytes(dtype, 32), b, block[c]);
      }
      write_superblock(layout, block, to);
    }
  }
}

namespace {

// What code `code` of a column stands for, in units of its scale.
int32_t code_value(DType dtype, int32_t code) {
  switch (dtype) {
    case DType::q8_0:
      return code - 128;
    case DType::q4_0:
    case DType::i4:
      return code - 8;
    case DType::q5_0:
      return code - 16;
    case DType::q3_k:
      return code - 4;
    case DType::q6_k:
      return code - 32;
    case DType::iq4_nl:
    case DType::iq4_xs:
      return kIq4Codes[code];
    case DType::mxfp4:
      return kE2m1Codes[code];
    case DType::iq3_s:
      return kIq3Codes[code];
    case DType::tq1_0:
    case DType::tq2_0:
      return code - 1;
    default:
      return code;
  }
}

// Field of `bits` bits of element i of column c.
int32_t field(const uint8_t* lines, uint32_t bits, uint32_t i, uint32_t c) {
  const uint32_t groups = 8 / bits, group = i / 4;
  return lines[group / groups * kLine + c * 4 + i % 4] >> (group % groups * bits) & ((1 << bits) - 1);
}

// Element i of column c of a superblock with codes, and of one with vectors of a grid.
int32_t coded_element(DType dtype, const PanelLayout& layout, const uint8_t* super, uint32_t i, uint32_t c) {
  int32_t code = field(super + layout.low_at(), layout.low_bits, i, c);
  if (layout.high_bits != 0) code |= field(super + layout.high_at(), layout.high_bits, i, c) << layout.low_bits;
  return code_value(dtype, code);
}
int32_t grid_element(DType dtype, const PanelLayout& layout, const uint8_t* super, uint32_t i, uint32_t c) {
  const uint32_t vector = i / layout.grid.vector, element = i % layout.grid.vector, bits = layout.grid.above_bits;
  uint32_t index = super[layout.index_at() + vector / 4 * kLine + c * 4 + vector % 4];
  if (bits != 0) {
    const uint32_t line = load32(super + layout.above_at() + vector / (32 / bits) * kLine + c * 4);
    index |= (line >> (vector % (32 / bits) * bits) & ((1u << bits) - 1)) << 8;
  }
  const bool minus =
      layout.grid.signs && (super[layout.signs_at() + i / 32 * kLine + c * 4 + i / 8 % 4] >> (i % 8) & 1) != 0;
  const auto value_of = [&](uint64_t codes) {
    const int32_t value = static_cast<int32_t>(codes >> (8 * element) & 255) - 128;
    return minus ? -value : value;
  };
  switch (dtype) {
    case DType::iq2_xxs:
      return value_of(kIq2XxsCodes.at[index]);
    case DType::iq2_xs:
      return value_of(kIq2XsCodes.at[index]);
    case DType::iq2_s:
      return value_of(kIq2SCodes.at[index]);
    case DType::iq3_xxs:
      return value_of(kIq3XxsCodes.at[index]);
    default:
      return value_of(kIq1Codes.at[index & 2047]) - (index > 2047 ? 2 : 0);
  }
}

}  // namespace

void decode_prepared_row(DType dtype, const uint8_t* prepared, uint32_t, uint32_t depth, uint32_t row, float* out) {
  const uint8_t* panel = prepared + row / kPanel * panel_bytes(dtype, depth);
  const uint32_t c = row % kPanel;
  if (is_float(dtype)) {
    for (uint32_t k = 0; k < depth; k++) {
      const uint32_t i = k * kPanel + c;
      out[k] = dtype == DType::f32   ? reinterpret_cast<const float*>(panel)[i]
               : dtype == DType::f16 ? half_to_float(reinterpret_cast<const uint16_t*>(panel)[i])
                                     : bfloat_to_float(reinterpret_cast<const uint16_t*>(panel)[i]);
    }
    return;
  }
  if (is_row_scaled(dtype)) {
    const float scale = reinterpret_cast<const float*>(panel)[c];
    for (uint32_t k = 0; k < depth; k++) {
      const uint64_t at = dtype == DType::i8 ? kI8Lines + uint64_t{k & ~3u} * kPanel + c * 4 + k % 4
                                             : kF8Lines + uint64_t{k} * kPanel + c;
      const uint8_t code = dtype == DType::i8 ? panel[at] ^ 0x80 : panel[at];
      decode_row(dtype, &code, 1, out + k);
      out[k] *= scale;
    }
    return;
  }
  const PanelLayout layout = panel_layout(dtype);
  for (uint32_t k = 0; k < depth; k++) {
    const uint8_t* super = panel + uint64_t{k / layout.depth} * layout.bytes();
    const uint16_t* halves = reinterpret_cast<const uint16_t*>(super);
    const uint32_t i = k % layout.depth;
    const float value = static_cast<float>(layout.grid.vector == 0 ? coded_element(dtype, layout, super, i, c)
                                                                   : grid_element(dtype, layout, super, i, c));
    if (layout.halves == Halves::kFloats) {
      out[k] = reinterpret_cast<const float*>(super)[i / 32 * 16 + c] * value;
      continue;
    }
    if (layout.halves != Halves::kSuper) {
      const uint16_t half = halves[i / 32 * 16 + c];
      const float d = dtype == DType::mxfp4 ? bfloat_to_float(half) : half_to_float(half);
      out[k] = d * value;
      if (layout.halves == Halves::kPerBlockMins) out[k] += half_to_float(halves[32 + i / 32 * 16 + c]);
      continue;
    }
    if (layout.scales == 0) {
      out[k] = half_to_float(halves[c]) * value;
      continue;
    }
    const uint32_t at = i / (256 / layout.scales) * 16 + c;
    const uint8_t scale = super[layout.scales_at() + at];
    // With mins, scales are unsigned.
    const float factor = static_cast<float>(layout.mins ? scale : static_cast<int8_t>(scale));
    out[k] = half_to_float(halves[c]) * layout.grid.unit * factor * value;
    if (layout.mins) out[k] -= half_to_float(halves[16 + c]) * static_cast<float>(super[layout.mins_at() + at]);
  }
}

}  // namespace drover
