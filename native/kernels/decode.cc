// Decoding of file rows to f32, every weight dtype, in portable scalar code: what the packers and the gather use, and
// what the GEMM kernels are checked against. Layouts are those of the GGUF tensor types (little endian).
//
// A decoded value is the exact product of its integer factors, rounded at most once (a half has 11 significant bits,
// and all scales and codes of one value together never need more than the 24 of an f32), so contraction and summation
// order cannot change a bit of it.
#include <cstring>

#include "kernels/grids.h"
#include "kernels/panels.h"
#include "kernels/prepare.h"
#include "kernels/rowwise.h"
#include "kernels/simd/half.h"

namespace drover {
namespace {

constexpr uint32_t kSuper = 256;  // elements of a super-block (K, IQ and TQ types)
constexpr uint32_t kSmall = 32;   // elements of a block of the other types

// Unaligned load.
template <typename T>
inline T load(const uint8_t* source) {
  T value;
  memcpy(&value, source, sizeof value);
  return value;
}
inline float load_half(const uint8_t* source) { return half_to_float(load<uint16_t>(source)); }
inline int32_t signed_byte(uint8_t byte) { return static_cast<int8_t>(byte); }
inline float negate_if(float value, uint32_t condition) {
  return bits_to_float(float_to_bits(value) ^ (condition != 0 ? 0x80000000u : 0u));
}

// ---- single numbers ----

struct E4m3Table {
  float values[256];
  constexpr E4m3Table() : values() {
    for (uint32_t code = 0; code < 256; code++) {
      const uint32_t exponent = (code >> 3) & 15, mantissa = code & 7, sign = (code & 0x80u) << 24;
      uint32_t bits = ((exponent + 120) << 23) | (mantissa << 20);
      if (exponent == 0) bits = __builtin_bit_cast(uint32_t, static_cast<float>(mantissa) * 0.001953125f);  // 2^-9
      if ((code & 0x7f) == 0x7f) bits = 0x7fc00000u;
      values[code] = __builtin_bit_cast(float, bits | sign);
    }
  }
};
constexpr E4m3Table kE4m3;

inline float from_f16(uint16_t code) { return half_to_float(code); }
inline float from_bf16(uint16_t code) { return bfloat_to_float(code); }
inline float from_e4m3(uint8_t code) { return kE4m3.values[code]; }
inline float from_e5m2(uint8_t code) { return half_to_float(static_cast<uint16_t>(code << 8)); }

template <typename T, float (*kConvert)(T)>
void decode_coded(const uint8_t* source, uint32_t cols, float* out) {
  for (uint32_t i = 0; i < cols; i++) out[i] = kConvert(load<T>(source + uint64_t{i} * sizeof(T)));
}

template <typename T>
void decode_numbers(const uint8_t* source, uint32_t cols, float* out) {
  for (uint32_t i = 0; i < cols; i++) out[i] = static_cast<float>(load<T>(source + uint64_t{i} * sizeof(T)));
}

// ---- blocks of 32 with one half scale ----

void block_q4_0(const uint8_t* block, float* out) {
  const float d = load_half(block);
  for (uint32_t i = 0; i < 16; i++) {
    const int32_t byte = block[2 + i];
    out[i] = d * static_cast<float>((byte & 15) - 8);
    out[16 + i] = d * static_cast<float>((byte >> 4) - 8);
  }
}

void block_q4_1(const uint8_t* block, float* out) {
  const float d = load_half(block), m = load_half(block + 2);
  for (uint32_t i = 0; i < 16; i++) {
    const int32_t byte = block[4 + i];
    out[i] = d * static_cast<float>(byte & 15) + m;
    out[16 + i] = d * static_cast<float>(byte >> 4) + m;
  }
}

void block_q5_0(const uint8_t* block, float* out) {
  const float d = load_half(block);
  const uint32_t high = load<uint32_t>(block + 2);  // bit i is the fifth bit of element i
  for (uint32_t i = 0; i < 16; i++) {
    const uint32_t byte = block[6 + i];
    out[i] = d * static_cast<float>(static_cast<int32_t>((byte & 15) | (((high >> i) & 1) << 4)) - 16);
    out[16 + i] = d * static_cast<float>(static_cast<int32_t>((byte >> 4) | (((high >> (16 + i)) & 1) << 4)) - 16);
  }
}

void block_q5_1(const uint8_t* block, float* out) {
  const float d = load_half(block), m = load_half(block + 2);
  const uint32_t high = load<uint32_t>(block + 4);
  for (uint32_t i = 0; i < 16; i++) {
    const uint32_t byte = block[8 + i];
    out[i] = d * static_cast<float>(static_cast<int32_t>((byte & 15) | (((high >> i) & 1) << 4))) + m;
    out[16 + i] = d * static_cast<float>(static_cast<int32_t>((byte >> 4) | (((high >> (16 + i)) & 1) << 4))) + m;
  }
}

void block_q8_0(const uint8_t* block, float* out) {
  const float d = load_half(block);
  for (uint32_t i = 0; i < 32; i++) out[i] = d * static_cast<float>(signed_byte(block[2 + i]));
}

inline void decode_levels(const int8_t* book, float d, const uint8_t* codes, float* out) {
  for (uint32_t i = 0; i < 16; i++) {
    out[i] = d * static_cast<float>(book[codes[i] & 15]);
    out[16 + i] = d * static_cast<float>(book[codes[i] >> 4]);
  }
}

void block_i4(const uint8_t* block, float* out) {
  for (uint32_t i = 0; i < kSmall; i++) out[i] = static_cast<float>((block[i / 2] >> (i % 2 * 4) & 15) - 8);
}

void block_iq4_nl(const uint8_t* block, float* out) { decode_levels(kIq4Codes, load_half(block), block + 2, out); }

void block_mxfp4(const uint8_t* block, float* out) {
  // 2^(e - 128): half of the E8M0 scale, subnormal for the two lowest exponents.
  const uint32_t e = block[0];
  decode_levels(kE2m1Codes, bits_to_float(e < 2 ? 0x200000u << e : (e - 1) << 23), block + 1, out);
}

// ---- super-blocks: K types ----

void block_q2_k(const uint8_t* block, float* out) {
  const uint8_t* scales = block;
  const uint8_t* codes = block + 16;
  const float d = load_half(block + 80), dmin = load_half(block + 82);
  for (uint32_t half = 0; half < 2; half++, codes += 32) {
    for (uint32_t shift = 0; shift < 8; shift += 2) {
      for (uint32_t part = 0; part < 2; part++, scales++, out += 16) {
        const float scale = d * static_cast<float>(*scales & 15), minimum = dmin * static_cast<float>(*scales >> 4);
        for (uint32_t i = 0; i < 16; i++) {
          out[i] = scale * static_cast<float>((codes[part * 16 + i] >> shift) & 3) - minimum;
        }
      }
    }
  }
}

void block_q3_k(const uint8_t* block, float* out) {
  const uint8_t* high = block;  // bit 4 * half + plane of byte i: clear means four less
  const uint8_t* codes = block + 32;
  const uint8_t* packed = block + 96;
  const float d = load_half(block + 108);
  for (uint32_t half = 0; half < 2; half++, codes += 32) {
    for (uint32_t plane = 0; plane < 4; plane++) {
      for (uint32_t part = 0; part < 2; part++, out += 16) {
        const uint32_t at = half * 8 + plane * 2 + part;
        const int32_t low = at < 8 ? packed[at] & 15 : packed[at - 8] >> 4;
        const float scale = d * static_cast<float>((low | ((packed[8 + at % 4] >> (2 * (at / 4))) & 3) << 4) - 32);
        for (uint32_t i = 0; i < 16; i++) {
          const int32_t code = (codes[part * 16 + i] >> (2 * plane)) & 3;
          const int32_t third = (high[part * 16 + i] >> (4 * half + plane)) & 1;
          out[i] = scale * static_cast<float>(code + 4 * third - 4);
        }
      }
    }
  }
}

// Scale and minimum `at` (0 to 7) of the 12 bytes of q4_k and q5_k: six bits each.
inline void packed_scale(const uint8_t* packed, uint32_t at, uint32_t* scale, uint32_t* minimum) {
  if (at < 4) {
    *scale = packed[at] & 63u;
    *minimum = packed[at + 4] & 63u;
  } else {
    *scale = (packed[at + 4] & 15u) | (packed[at - 4] >> 6) << 4;
    *minimum = static_cast<uint32_t>(packed[at + 4] >> 4) | (packed[at] >> 6) << 4;
  }
}

void block_q4_k(const uint8_t* block, float* out) {
  const float d = load_half(block), dmin = load_half(block + 2);
  const uint8_t* codes = block + 16;
  for (uint32_t at = 0; at < 8; at++, out += 32) {
    uint32_t six, six_minimum;
    packed_scale(block + 4, at, &six, &six_minimum);
    const float scale = d * static_cast<float>(six), minimum = dmin * static_cast<float>(six_minimum);
    const uint32_t shift = at % 2 * 4;
    for (uint32_t i = 0; i < 32; i++) {
      out[i] = scale * static_cast<float>((codes[at / 2 * 32 + i] >> shift) & 15) - minimum;
    }
  }
}

void block_q5_k(const uint8_t* block, float* out) {
  const float d = load_half(block), dmin = load_half(block + 2);
  const uint8_t* high = block + 16;  // bit `at` of byte i
  const uint8_t* codes = block + 48;
  for (uint32_t at = 0; at < 8; at++, out += 32) {
    uint32_t six, six_minimum;
    packed_scale(block + 4, at, &six, &six_minimum);
    const float scale = d * static_cast<float>(six), minimum = dmin * static_cast<float>(six_minimum);
    const uint32_t shift = at % 2 * 4;
    for (uint32_t i = 0; i < 32; i++) {
      const int32_t code = ((codes[at / 2 * 32 + i] >> shift) & 15) | ((high[i] >> at) & 1) << 4;
      out[i] = scale * static_cast<float>(code) - minimum;
    }
  }
}

void block_q6_k(const uint8_t* block, float* out) {
  const uint8_t* low = block;
  const uint8_t* high = block + 128;
  const uint8_t* scales = block + 192;
  const float d = load_half(block + 208);
  for (uint32_t half = 0; half < 2; half++, low += 64, high += 32) {
    for (uint32_t quarter = 0; quarter < 4; quarter++) {
      for (uint32_t part = 0; part < 2; part++, scales++, out += 16) {
        const float scale = d * static_cast<float>(signed_byte(*scales));
        const uint8_t* nibbles = low + quarter % 2 * 32 + part * 16;
        const uint8_t* pairs = high + part * 16;
        for (uint32_t i = 0; i < 16; i++) {
          const int32_t code = ((nibbles[i] >> (quarter / 2 * 4)) & 15) | ((pairs[i] >> (2 * quarter)) & 3) << 4;
          out[i] = scale * static_cast<float>(code - 32);
        }
      }
    }
  }
}

void block_q8_k(const uint8_t* block, float* out) {
  const float d = load<float>(block);
  for (uint32_t i = 0; i < kSuper; i++) out[i] = d * static_cast<float>(signed_byte(block[4 + i]));
}

// ---- super-blocks: code books ----

// Eight (or four) elements of a book's vector, negated where `signs` has a bit.
inline void decode_vector8(uint64_t vector, uint32_t signs, float d, float* out) {
  for (uint32_t i = 0; i < 8; i++) {
    out[i] = negate_if(d * static_cast<float>((vector >> (8 * i)) & 255), (signs >> i) & 1);
  }
}
inline void decode_vector4(uint32_t vector, uint32_t signs, float d, float* out) {
  for (uint32_t i = 0; i < 4; i++) {
    out[i] = negate_if(d * static_cast<float>((vector >> (8 * i)) & 255), (signs >> i) & 1);
  }
}

void block_iq2_xxs(const uint8_t* block, float* out) {
  const float d = load_half(block);
  for (uint32_t group = 0; group < 8; group++) {
    const uint8_t* indices = block + 2 + group * 8;
    const uint32_t tail = load<uint32_t>(indices + 4);  // four times 7 sign bits, then 4 bits of scale
    const float scale = d * (0.5f + static_cast<float>(tail >> 28)) * 0.25f;
    for (uint32_t l = 0; l < 4; l++, out += 8) {
      decode_vector8(kIq2XxsGrid[indices[l]], kEvenSigns[(tail >> (7 * l)) & 127], scale, out);
    }
  }
}

void block_iq2_xs(const uint8_t* block, float* out) {
  const float d = load_half(block);
  for (uint32_t l = 0; l < 32; l++, out += 8) {
    const uint32_t code = load<uint16_t>(block + 2 + l * 2);  // 9 bits of index, 7 of signs
    const uint32_t nibble = (block[66 + l / 4] >> (l / 2 % 2 * 4)) & 15u;
    const float scale = d * (0.5f + static_cast<float>(nibble)) * 0.25f;
    decode_vector8(kIq2XsGrid[code & 511], kEvenSigns[code >> 9], scale, out);
  }
}

void block_iq2_s(const uint8_t* block, float* out) {
  const float d = load_half(block);
  for (uint32_t l = 0; l < 32; l++, out += 8) {
    const uint32_t index = block[2 + l] | ((block[66 + l / 4] >> (l % 4 * 2)) & 3u) << 8;
    const uint32_t nibble = (block[74 + l / 4] >> (l / 2 % 2 * 4)) & 15u;
    decode_vector8(kIq2SGrid[index], block[34 + l], d * (0.5f + static_cast<float>(nibble)) * 0.25f, out);
  }
}

void block_iq3_xxs(const uint8_t* block, float* out) {
  const float d = load_half(block);
  for (uint32_t group = 0; group < 8; group++) {
    const uint8_t* indices = block + 2 + group * 8;
    const uint32_t tail = load<uint32_t>(block + 66 + group * 4);
    const float scale = d * (0.5f + static_cast<float>(tail >> 28)) * 0.5f;
    for (uint32_t l = 0; l < 4; l++, out += 8) {
      const uint32_t signs = kEvenSigns[(tail >> (7 * l)) & 127];
      decode_vector4(kIq3XxsGrid[indices[2 * l]], signs, scale, out);
      decode_vector4(kIq3XxsGrid[indices[2 * l + 1]], signs >> 4, scale, out + 4);
    }
  }
}

void block_iq3_s(const uint8_t* block, float* out) {
  const float d = load_half(block);
  for (uint32_t group = 0; group < 8; group++) {
    const uint8_t* indices = block + 2 + group * 8;
    const uint32_t high = block[66 + group];
    const uint32_t nibble = (block[106 + group / 2] >> (group % 2 * 4)) & 15u;
    const float scale = d * static_cast<float>(1 + 2 * nibble);
    for (uint32_t l = 0; l < 8; l++, out += 4) {
      const uint32_t signs = block[74 + group * 4 + l / 2] >> (l % 2 * 4);
      decode_vector4(kIq3SGrid[indices[l] | ((high >> l) & 1) << 8], signs, scale, out);
    }
  }
}

// Ternary vectors shifted by an eighth up, or down when `minus`.
inline void decode_ternary8(uint64_t vector, uint32_t minus, float d, float* out) {
  const float delta = minus != 0 ? -0.125f : 0.125f;
  for (uint32_t i = 0; i < 8; i++) {
    out[i] = d * (static_cast<float>(signed_byte(static_cast<uint8_t>(vector >> (8 * i)))) + delta);
  }
}

void block_iq1_s(const uint8_t* block, float* out) {
  const float d = load_half(block);
  for (uint32_t group = 0; group < 8; group++) {
    const uint32_t high = load<uint16_t>(block + 34 + group * 2);  // four times 3 index bits, 3 of scale, 1 of sign
    const float scale = d * static_cast<float>(2 * ((high >> 12) & 7) + 1);
    for (uint32_t l = 0; l < 4; l++, out += 8) {
      const uint32_t index = block[2 + group * 4 + l] | ((high >> (3 * l)) & 7) << 8;
      decode_ternary8(kIq1SGrid[index], high & 0x8000, scale, out);
    }
  }
}

// The half scale of iq1_m lies in the highest nibbles of its four 16-bit scale words.
inline uint16_t iq1_m_scale(const uint8_t* block) {
  uint32_t code = 0;
  for (uint32_t i = 0; i < 4; i++) code |= static_cast<uint32_t>(load<uint16_t>(block + 48 + i * 2) >> 12) << (4 * i);
  return static_cast<uint16_t>(code);
}

void block_iq1_m(const uint8_t* block, float* out) {
  const float d = half_to_float(iq1_m_scale(block));
  for (uint32_t l = 0; l < 32; l++, out += 8) {
    const uint32_t high = static_cast<uint32_t>(block[32 + l / 2] >> (l % 2 * 4));  // 3 bits of index, 1 of sign
    const uint32_t scales = load<uint16_t>(block + 48 + l / 8 * 2);
    const float scale = d * static_cast<float>(2 * ((scales >> (l / 2 % 4 * 3)) & 7) + 1);
    decode_ternary8(kIq1SGrid[block[l] | (high & 7) << 8], high & 8, scale, out);
  }
}

void block_iq4_xs(const uint8_t* block, float* out) {
  const float d = load_half(block);
  const uint32_t high = load<uint16_t>(block + 2);
  for (uint32_t group = 0; group < 8; group++) {
    const uint32_t low = (block[4 + group / 2] >> (group % 2 * 4)) & 15u;
    const int32_t scale = static_cast<int32_t>(low | ((high >> (2 * group)) & 3) << 4) - 32;
    decode_levels(kIq4Codes, d * static_cast<float>(scale), block + 8 + group * 16, out + group * 32);
  }
}

// ---- super-blocks: ternary ----

// Digit `place` of base-3 fractions: byte/256 is the number 0.abcde in base 3.
inline void decode_trits(const uint8_t* bytes, uint32_t count, uint32_t places, float d, float* out) {
  constexpr uint32_t kPowers[5] = {1, 3, 9, 27, 81};
  for (uint32_t place = 0; place < places; place++, out += count) {
    for (uint32_t i = 0; i < count; i++) {
      const uint32_t rest = (bytes[i] * kPowers[place]) & 255;
      out[i] = d * static_cast<float>(static_cast<int32_t>(rest * 3 >> 8) - 1);
    }
  }
}

void block_tq1_0(const uint8_t* block, float* out) {
  const float d = load_half(block + 52);
  decode_trits(block, 32, 5, d, out);
  decode_trits(block + 32, 16, 5, d, out + 160);
  decode_trits(block + 48, 4, 4, d, out + 240);
}

void block_tq2_0(const uint8_t* block, float* out) {
  const float d = load_half(block + 64);
  for (uint32_t plane = 0; plane < 8; plane++, out += 32) {
    const uint8_t* codes = block + plane / 4 * 32;
    for (uint32_t i = 0; i < 32; i++) out[i] = d * static_cast<float>(((codes[i] >> (plane % 4 * 2)) & 3) - 1);
  }
}

// ---- rows ----

using RowDecoder = void (*)(const uint8_t* source, uint32_t cols, float* out);

template <DType kDType, void (*kBlock)(const uint8_t*, float*)>
void decode_blocks(const uint8_t* source, uint32_t cols, float* out) {
  constexpr uint32_t kCount = elements_of(kDType), kSize = bytes_of(kDType);
  static_assert(kCount == kSuper || kCount == kSmall);
  for (; cols >= kCount; cols -= kCount, source += kSize, out += kCount) kBlock(source, out);
  if (cols == 0) return;
  float last[kCount];
  kBlock(source, last);
  memcpy(out, last, cols * sizeof(float));
}

RowDecoder decoder_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return decode_numbers<float>;
    case DType::f16:
      return decode_coded<uint16_t, from_f16>;
    case DType::bf16:
      return decode_coded<uint16_t, from_bf16>;
    case DType::f64:
      return decode_numbers<double>;
    case DType::f8_e4m3:
      return decode_coded<uint8_t, from_e4m3>;
    case DType::f8_e5m2:
      return decode_coded<uint8_t, from_e5m2>;
    case DType::i8:
      return decode_numbers<int8_t>;
    case DType::i16:
      return decode_numbers<int16_t>;
    case DType::i32:
      return decode_numbers<int32_t>;
    case DType::i64:
      return decode_numbers<int64_t>;
#define DROVER_BLOCK(name) \
  case DType::name:        \
    return decode_blocks<DType::name, block_##name>
      DROVER_BLOCK(q4_0);
      DROVER_BLOCK(q4_1);
      DROVER_BLOCK(q5_0);
      DROVER_BLOCK(q5_1);
      DROVER_BLOCK(q8_0);
      DROVER_BLOCK(q2_k);
      DROVER_BLOCK(q3_k);
      DROVER_BLOCK(q4_k);
      DROVER_BLOCK(q5_k);
      DROVER_BLOCK(q6_k);
      DROVER_BLOCK(q8_k);
      DROVER_BLOCK(iq2_xxs);
      DROVER_BLOCK(iq2_xs);
      DROVER_BLOCK(iq2_s);
      DROVER_BLOCK(iq3_xxs);
      DROVER_BLOCK(iq3_s);
      DROVER_BLOCK(iq1_s);
      DROVER_BLOCK(iq1_m);
      DROVER_BLOCK(iq4_nl);
      DROVER_BLOCK(iq4_xs);
      DROVER_BLOCK(tq1_0);
      DROVER_BLOCK(tq2_0);
      DROVER_BLOCK(mxfp4);
      DROVER_BLOCK(i4);
#undef DROVER_BLOCK
    case DType::u32:
    case DType::a8_32:
    case DType::a8_256:
    case DType::a8_row:
    case DType::f8_row:
    case DType::i8_rowwise:
    case DType::i8h_rowwise:
    case DType::i4_rowwise:
    case DType::i2_rowwise:
    case DType::kCount:
      break;
  }
  return nullptr;
}

// ---- finiteness ----

// True when no word at offset, offset + stride, ... has all bits of `exponent` set.
template <typename T>
bool exponents_finite(const uint8_t* source, uint64_t count, uint64_t stride, uint64_t offset, T exponent) {
  for (uint64_t i = 0; i < count; i++) {
    if ((load<T>(source + i * stride + offset) & exponent) == exponent) return false;
  }
  return true;
}

constexpr uint16_t kHalfExponent = 0x7c00;

// For formats whose values may be too large for an f32 though their own numbers are finite.
bool decoded_finite(DType dtype, const uint8_t* source, uint32_t cols) {
  float values[kSuper];
  const RowDecoder decoder = decoder_of(dtype);
  for (uint32_t i = 0; i < cols; i += kSuper) {
    const uint32_t count = cols - i < kSuper ? cols - i : kSuper;
    decoder(source + uint64_t{i} / elements_of(dtype) * bytes_of(dtype), count, values);
    for (uint32_t j = 0; j < count; j++) {
      if ((float_to_bits(values[j]) & 0x7f800000u) == 0x7f800000u) return false;
    }
  }
  return true;
}

}  // namespace

uint64_t row_bytes(DType dtype, uint32_t cols) {
  const uint64_t elements = elements_of(dtype);
  return (cols + elements - 1) / elements * bytes_of(dtype) + parameter_bytes(dtype);
}

void decode_row(DType dtype, const uint8_t* source, uint32_t cols, float* out) {
  const RowDecoder decoder = decoder_of(dtype);
  if (decoder != nullptr) decoder(source, cols, out);
}

bool row_is_finite(DType dtype, const uint8_t* source, uint32_t cols) {
  const uint64_t stride = bytes_of(dtype);
  const uint64_t count = row_bytes(dtype, cols) / stride;
  const auto halves = [&](uint64_t offset) {
    return exponents_finite<uint16_t>(source, count, stride, offset, kHalfExponent);
  };
  switch (dtype) {
    case DType::f32:
      return exponents_finite<uint32_t>(source, count, stride, 0, 0x7f800000u);
    case DType::f64:
    case DType::q8_k:
      return decoded_finite(dtype, source, cols);
    case DType::bf16:
      return exponents_finite<uint16_t>(source, count, stride, 0, 0x7f80);
    case DType::f8_e4m3:
      return exponents_finite<uint8_t>(source, count, stride, 0, 0x7f);
    case DType::f8_e5m2:
      return exponents_finite<uint8_t>(source, count, stride, 0, 0x7c);
    case DType::mxfp4:
      return exponents_finite<uint8_t>(source, count, stride, 0, 0xff) && decoded_finite(dtype, source, cols);
    case DType::f16:
    case DType::q4_0:
    case DType::q5_0:
    case DType::q8_0:
    case DType::iq2_xxs:
    case DType::iq2_xs:
    case DType::iq2_s:
    case DType::iq3_xxs:
    case DType::iq3_s:
    case DType::iq1_s:
    case DType::iq4_nl:
    case DType::iq4_xs:
      return halves(0);
    case DType::q4_1:
    case DType::q5_1:
    case DType::q4_k:
    case DType::q5_k:
      return halves(0) && halves(2);
    case DType::q2_k:
      return halves(80) && halves(82);
    case DType::q3_k:
      return halves(108);
    case DType::q6_k:
      return halves(208);
    case DType::tq1_0:
      return halves(52);
    case DType::tq2_0:
      return halves(64);
    case DType::iq1_m:
      for (uint64_t i = 0; i < count; i++) {
        if ((iq1_m_scale(source + i * stride) & kHalfExponent) == kHalfExponent) return false;
      }
      return true;
    case DType::i8:
    case DType::i16:
    case DType::i32:
    case DType::i64:
    case DType::i4:
    case DType::u32:
    case DType::a8_32:
    case DType::a8_256:
    case DType::a8_row:
    case DType::f8_row:
    case DType::i8_rowwise:
    case DType::i8h_rowwise:
    case DType::i4_rowwise:
    case DType::i2_rowwise:
    case DType::kCount:
      break;
  }
  return true;
}

}  // namespace drover
