// Decoding of file rows, every format: random bytes never lead past a block; small floats against their definition;
// what row_is_finite promises; prepared panels give back the row they were made from.
#include <cmath>
#include <vector>

#include "buffers.h"
#include "kernels/panels.h"
#include "kernels/prepare.h"

using namespace drover;

namespace {

DType dtype_at(uint32_t i) { return static_cast<DType>(i); }

bool all_finite(const Buffer<float>& x) {
  for (uint64_t i = 0; i < x.count(); i++) {
    if (!std::isfinite(x[i])) return false;
  }
  return true;
}

// Random rows decode within their bytes, to the same values as each block alone.
void check_random(DType dtype, Random& random) {
  const uint32_t block = elements_of(dtype);
  uint32_t finite_rows = 0, other_rows = 0, contradictions = 0;
  for (uint32_t turn = 0; turn < 400; turn++) {
    const uint32_t blocks = block == 1 ? 1 + random.below(70) : 1 + random.below(5), cols = blocks * block;
    Buffer<uint8_t> row = random_bytes(row_bytes(dtype, cols), random);
    if (turn % 8 == 0) std::memset(row.data(), turn % 16 == 0 ? 0xff : 0, row.bytes());
    Buffer<float> out(cols), again(block);
    decode_row(dtype, row.data(), cols, out.data());
    bool same = true;
    for (uint32_t b = 0; b < blocks; b++) {
      Buffer<uint8_t> one(row_bytes(dtype, block));
      std::memcpy(one.data(), row.data() + b * one.bytes(), one.bytes());
      decode_row(dtype, one.data(), block, again.data());
      same = same && same_floats(again.data(), out.data() + uint64_t{b} * block, block);
    }
    CHECK(same, "%s: a block decodes otherwise beside others", name_of(dtype));
    const bool finite = row_is_finite(dtype, row.data(), cols);
    (finite ? finite_rows : other_rows)++;
    // The scale 2^128 of mxfp4 is its NaN, which decoding treats as a number.
    if (finite != all_finite(out) && (finite || dtype != DType::mxfp4)) contradictions++;
  }
  CHECK(contradictions == 0, "%s: row_is_finite is wrong about %u rows", name_of(dtype), contradictions);
  CHECK(finite_rows > 0, "%s: no finite row", name_of(dtype));
  const bool integer = (dtype >= DType::i8 && dtype <= DType::i64) || dtype == DType::i4;
  CHECK((other_rows > 0) != integer, "%s: %u rows are not finite", name_of(dtype), other_rows);
}

// One number of `exponent_bits` and `mantissa_bits`, by its definition.
double small_float(uint32_t code, int exponent_bits, int mantissa_bits, bool infinities) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = static_cast<int>(code >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const int mantissa = static_cast<int>(code) & ((1 << mantissa_bits) - 1);
  const double sign = (code >> (exponent_bits + mantissa_bits) & 1) != 0 ? -1 : 1;
  const bool highest = exponent == (1 << exponent_bits) - 1;
  if (highest && infinities) return mantissa == 0 ? sign * INFINITY : NAN;
  if (highest && mantissa == (1 << mantissa_bits) - 1) return NAN;
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
}

void check_small_floats(DType dtype, uint32_t bytes, int exponent_bits, int mantissa_bits, bool infinities) {
  const uint32_t codes = 1u << (bytes * 8);
  Buffer<uint8_t> source(uint64_t{codes} * bytes);
  Buffer<float> out(codes);
  for (uint32_t code = 0; code < codes; code++) std::memcpy(source.data() + uint64_t{code} * bytes, &code, bytes);
  decode_row(dtype, source.data(), codes, out.data());
  uint32_t wrong = 0;
  for (uint32_t code = 0; code < codes; code++) {
    const float right = static_cast<float>(small_float(code, exponent_bits, mantissa_bits, infinities));
    if (!same_floats(&right, &out[code], 1)) wrong++;
  }
  CHECK(wrong == 0, "%s: %u of %u codes are wrong", name_of(dtype), wrong, codes);
}

// Panels made in portions, in any order, hold the rows bit for bit; columns past the last row are zero.
void check_prepared(DType dtype, uint32_t rows, uint32_t depth, Random& random) {
  const uint64_t stride = row_bytes(dtype, depth);
  Buffer<uint8_t> source = random_bytes(stride * rows, random), prepared(prepared_bytes(dtype, rows, depth));
  const uint32_t panels = (rows + kPanel - 1) / kPanel, middle = random.below(panels + 1);
  CHECK(prepared.bytes() == panel_bytes(dtype, depth) * panels, "%s: size of %u rows", name_of(dtype), rows);
  prepare_panels(dtype, source.data(), rows, depth, middle, panels, prepared.data());
  prepare_panels(dtype, source.data(), rows, depth, 0, middle, prepared.data());
  Buffer<float> right(depth), found(depth);
  uint32_t wrong = 0;
  for (uint32_t row = 0; row < panels * kPanel; row++) {
    decode_prepared_row(dtype, prepared.data(), rows, depth, row, found.data());
    if (row < rows) {
      decode_row(dtype, source.data() + row * stride, depth, right.data());
    } else {
      for (uint32_t i = 0; i < depth; i++) right[i] = 0;
      for (uint32_t i = 0; i < depth; i++) found[i] += 0.0f;  // -0 of a zero scale is a zero, too
    }
    if (!same_floats(right.data(), found.data(), depth)) wrong++;
  }
  CHECK(wrong == 0, "%s [%u, %u]: %u rows differ", name_of(dtype), rows, depth, wrong);
}

// Weights whose values an f32 cannot hold are not finite, though their own numbers are.
void check_overflow() {
  Buffer<uint8_t> row(8);
  for (const double value : {1e300, -1e39, 3.5e38}) {
    std::memcpy(row.data(), &value, 8);
    CHECK(!row_is_finite(DType::f64, row.data(), 1), "%g is no f32", value);
  }
  const double most = 3.4028234663852886e38;
  std::memcpy(row.data(), &most, 8);
  CHECK(row_is_finite(DType::f64, row.data(), 1), "the largest f32");
}

}  // namespace

int main() {
  Random random(6);
  for (uint32_t i = 0; i < kWeightTypes; i++) check_random(dtype_at(i), random);
  check_small_floats(DType::f16, 2, 5, 10, true);
  check_small_floats(DType::bf16, 2, 8, 7, true);
  check_small_floats(DType::f8_e4m3, 1, 4, 3, false);
  check_small_floats(DType::f8_e5m2, 1, 5, 2, true);
  check_overflow();
  for (uint32_t i = 0; i < kDTypeCount; i++) {
    const DType dtype = dtype_at(i);
    const bool prepared = panel_bytes(dtype, 256) != 0;
    if (!prepared) {
      CHECK(prepared_bytes(dtype, 16, 256) == 0, "%s has no prepared form", name_of(dtype));
      continue;
    }
    CHECK(prepared_bytes(dtype, 16, 1024) * 10 <= row_bytes(dtype, 1024) * 16 * 13, "%s: panels are too large",
          name_of(dtype));
    const uint32_t step = elements_of(dtype);
    for (uint32_t turn = 0; turn < 12; turn++) {
      const uint32_t depth = step == 1 ? 1 + random.below(200) : step * (1 + random.below(step == 32 ? 7 : 3));
      check_prepared(dtype, 1 + random.below(50), depth, random);
    }
  }
  return check_summary();
}
