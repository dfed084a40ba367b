// Rows of 8-bit activations and the writer of the KV cache, against their definitions (quantize.h, kv.h) restated here
// one element at a time: ties, zeros, values too small to count, NaN and infinities, every tail, every ISA.
#include <algorithm>
#include <cmath>
#include <vector>

#include "buffers.h"
#include "kernels/kv.h"
#include "tables.h"

using namespace drover;

namespace {

// A block as its definition says: codes and scale.
struct Block {
  std::vector<int> codes;
  float scale;
};
Block define(const float* x, uint32_t valid, uint32_t count) {
  Block block{std::vector<int>(count), 0};
  float peak = 0;
  for (uint32_t i = 0; i < valid; i++) {
    if (!std::isfinite(x[i])) {
      block.scale = NAN;
      return block;
    }
    peak = std::fmax(peak, std::fabs(x[i]));
  }
  if (peak < std::ldexp(1.0f, -100)) return block;
  block.scale = peak / 127.0f;
  const float inverse = 127.0f / peak;
  for (uint32_t i = 0; i < valid; i++) {
    const double scaled = x[i] * inverse;  // rounded to f32, then to the nearest even integer
    const double low = std::floor(scaled), rest = scaled - low;
    const bool up = rest > 0.5 || (rest == 0.5 && static_cast<int>(low) % 2 != 0);
    block.codes[i] = static_cast<int>(low) + (up ? 1 : 0);
  }
  return block;
}

template <typename T>
T read(const Buffer<uint8_t>& bytes, uint64_t offset, uint64_t index) {
  T value;
  std::memcpy(&value, bytes.data() + offset + index * sizeof(T), sizeof(T));
  return value;
}

bool same_scale(float a, float b) { return a == b || (a != a && b != b); }

bool right_a8_32(const Buffer<uint8_t>& row, const Buffer<float>& x) {
  const uint32_t cols = static_cast<uint32_t>(x.count()), padded = (cols + 63) / 64 * 64;
  for (uint32_t k = 0; k < padded; k += 32) {
    const uint32_t valid = k >= cols ? 0 : std::min(32u, cols - k);
    const Block block = define(x.data() + (valid != 0 ? k : 0), valid, 32);
    int half[2] = {0, 0};
    for (uint32_t i = 0; i < 32; i++) {
      if (read<int8_t>(row, 0, k + i) != block.codes[i]) return false;
      half[i / 16] += block.codes[i];
    }
    const int sum = half[0] + half[1];
    if (!same_scale(read<float>(row, padded, k / 32), block.scale)) return false;
    if (read<int32_t>(row, padded + padded / 32 * 4, k / 32) != -8 * sum) return false;
    if (read<int32_t>(row, padded + padded / 32 * 8, k / 32) != -128 * sum) return false;
    for (uint32_t i = 0; i < 2; i++) {
      if (read<int32_t>(row, padded + padded / 32 * 12, k / 16 + i) != -128 * half[i]) return false;
    }
  }
  return true;
}

bool right_a8_256(const Buffer<uint8_t>& row, const Buffer<float>& x) {
  const uint32_t cols = static_cast<uint32_t>(x.count()), padded = (cols + 255) / 256 * 256;
  const uint64_t scales = padded, sums16 = scales + padded / 256 * 4, sums32 = sums16 + padded / 16 * 2;
  const uint64_t zeros = sums32 + padded / 32 * 2;
  std::vector<int> codes;
  for (uint32_t k = 0; k < padded; k += 256) {
    const Block block = define(x.data() + k, std::min(256u, cols - k), 256);
    codes.insert(codes.end(), block.codes.begin(), block.codes.end());
    if (!same_scale(read<float>(row, scales, k / 256), block.scale)) return false;
  }
  const auto sum = [&](uint32_t begin, uint32_t count) {
    int total = 0;
    for (uint32_t i = begin; i < begin + count; i++) total += codes[i];
    return total;
  };
  for (uint32_t i = 0; i < padded; i++) {
    if (read<int8_t>(row, 0, i) != codes[i]) return false;
    if (i % 8 == 0 && read<int32_t>(row, zeros, i / 8) != -32 * sum(i, 8)) return false;
    if (i % 16 == 0 && read<int16_t>(row, sums16, i / 16) != sum(i, 16)) return false;
    if (i % 32 == 0 && read<int16_t>(row, sums32, i / 32) != sum(i, 32)) return false;
  }
  return true;
}

// Nearest e4m3 number, ties to even; |value| at most 448.
float nearest_e4m3(float value) {
  int exponent;
  std::frexp(value, &exponent);
  const double unit = std::ldexp(1.0, std::max(exponent - 4, -9));
  return static_cast<float>(std::copysign(std::nearbyint(std::fabs(value) / unit) * unit, static_cast<double>(value)));
}

float peak_of(const Buffer<float>& x) {
  float peak = 0;
  for (uint64_t i = 0; i < x.count(); i++) {
    if (!std::isfinite(x[i])) return NAN;
    peak = std::fmax(peak, std::fabs(x[i]));
  }
  return peak;
}

bool right_a8_row(const Buffer<uint8_t>& row, const Buffer<float>& x) {
  const uint32_t cols = static_cast<uint32_t>(x.count()), padded = (cols + 63) / 64 * 64;
  const float peak = peak_of(x), scale = peak != peak ? peak : std::max(peak, 1e-8f) / 127.0f;
  int sum = 0;
  for (uint32_t i = 0; i < padded; i++) {
    const int code = i < cols && scale == scale ? static_cast<int>(std::nearbyint(x[i] / scale)) : 0;
    if (read<int8_t>(row, 0, i) != code) return false;
    sum += code;
  }
  return same_scale(read<float>(row, padded, 0), scale) && read<int32_t>(row, padded, 1) == -128 * sum;
}

bool right_f8_row(const Buffer<uint8_t>& row, const Buffer<float>& x, float bound) {
  const float peak = peak_of(x), counted = peak != peak ? peak : std::min(std::max(peak, 1e-12f), bound);
  for (uint32_t i = 0; i < x.count(); i++) {
    const float scaled = std::min(std::max(x[i] * (448.0f / counted), -448.0f), 448.0f);
    const float right = peak != peak ? 0 : nearest_e4m3(scaled), found = read<float>(row, 0, i);
    if (std::memcmp(&right, &found, 4) != 0) return false;
  }
  return same_scale(read<float>(row, x.bytes(), 0), counted / 448.0f);
}

void check_row(const char* what, const Buffer<float>& x) {
  const uint32_t cols = static_cast<uint32_t>(x.count());
  for (const KernelTable* table : runnable_tables()) {
    Buffer<uint8_t> small(activation_row_bytes(DType::a8_32, cols)), large(activation_row_bytes(DType::a8_256, cols));
    table->quantize_a8_32(x.data(), cols, small.data());
    CHECK(right_a8_32(small, x), "a8_32 of %u, %s: %s", cols, what, table->isa);
    table->quantize_a8_256(x.data(), cols, large.data());
    CHECK(right_a8_256(large, x), "a8_256 of %u, %s: %s", cols, what, table->isa);
    Buffer<uint8_t> whole(activation_row_bytes(DType::a8_row, cols)), floats(activation_row_bytes(DType::f8_row, cols));
    table->quantize_a8_row(x.data(), cols, whole.data());
    CHECK(right_a8_row(whole, x), "a8_row of %u, %s: %s", cols, what, table->isa);
    for (const float bound : {INFINITY, 1200.0f, 1.0f}) {
      table->quantize_f8_row(x.data(), cols, bound, floats.data());
      CHECK(right_f8_row(floats, x, bound), "f8_row of %u, bound %g, %s: %s", cols, bound, what, table->isa);
    }
  }
}

void check_rows(uint32_t cols, Random& random) {
  Buffer<float> x = normals(cols, random, 3);
  check_row("normal", x);
  for (uint32_t i = 0; i < cols; i++) x[i] = static_cast<float>(random.below(255)) - 127.0f + 0.5f;  // halves
  x[random.below(cols)] = random.below(2) == 0 ? 127.0f : -127.0f;                                   // of scale 1
  for (uint32_t i = 0; i < cols; i++) x[i] = std::fabs(x[i]) > 127 ? 126.5f : x[i];
  check_row("ties", x);
  for (uint32_t i = 0; i < cols; i++) x[i] = std::ldexp(random.normal(), static_cast<int>(random.below(60)) - 120);
  check_row("about the smallest that counts", x);
  for (uint32_t i = 0; i < cols; i++) x[i] = i % 3 == 0 ? -0.0f : i % 3 == 1 ? 1e-44f : 0.0f;
  check_row("zeros and subnormals", x);
  for (uint32_t i = 0; i < cols; i++) x[i] = random.normal() * 5e37f;
  check_row("large", x);
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    Buffer<float> y = normals(cols, random);
    y[random.below(cols)] = bad;
    check_row("not finite", y);
  }
}

// ---- the cache's writer ----

// Nearest float of `bits` significant bits, ties to even; below 2^lowest the last bit counts what it counts there.
float nearest(double value, int bits, int lowest) {
  if (value == 0 || value != value) return static_cast<float>(value);
  int exponent;
  std::frexp(value, &exponent);
  const double unit = std::ldexp(1.0, std::max(exponent - 1, lowest) - bits + 1);
  return static_cast<float>(std::copysign(std::nearbyint(std::fabs(value) / unit) * unit, value));
}
float nearest_half(float value) {
  return std::fabs(value) >= 65520 ? std::copysign(INFINITY, value) : nearest(value, 11, -14);
}
// e4m3 with the least power of two as its scale that the largest of x fits.
float nearest_e4m3(const float* x, uint32_t count, uint32_t d) {
  double scale = std::ldexp(1.0, -110);
  for (uint32_t i = 0; i < count; i++) {
    if (!std::isfinite(x[i])) return NAN;
    while (std::fabs(x[i]) > 448 * scale) scale *= 2;
  }
  return static_cast<float>(nearest(x[d] / scale, 4, -6) * scale);
}

void check_kv(DType type, uint32_t head_dim, Random& random) {
  const uint64_t bytes = kv_block_bytes(type, head_dim);
  const auto tables = runnable_tables();
  Buffer<uint8_t> first(bytes);
  Buffer<float> k(uint64_t{kPagePositions} * head_dim), v(k.count());
  for (uint64_t i = 0; i < k.count(); i++) {
    k[i] = std::ldexp(random.normal(), static_cast<int>(random.below(24)) - 20);
    v[i] = random.normal();
  }
  for (uint32_t i = 0; i < head_dim; i++) k[i] = 0;  // position 0
  v[head_dim] = NAN;                                 // position 1
  for (const KernelTable* table : tables) {
    Buffer<uint8_t> block(bytes);
    std::vector<uint32_t> order(kPagePositions);
    for (uint32_t i = 0; i < kPagePositions; i++) order[i] = i;
    for (uint32_t i = 0; i < kPagePositions; i++) std::swap(order[i], order[i + random.below(kPagePositions - i)]);
    for (const uint32_t slot : order) {
      table->kv_write(type, k.data() + uint64_t{slot} * head_dim, v.data() + uint64_t{slot} * head_dim, head_dim, slot,
                      block.data());
    }
    if (table == tables[0]) std::memcpy(first.data(), block.data(), bytes);
    CHECK(std::memcmp(block.data(), first.data(), bytes) == 0, "%s head_dim %u: %s", name_of(type), head_dim,
          table->isa);
  }
  bool right = true;
  Buffer<float> found(head_dim);
  for (uint32_t slot = 0; slot < kPagePositions; slot++) {
    for (uint32_t what = 0; what < 2; what++) {
      const float* x = (what == 0 ? k : v).data() + uint64_t{slot} * head_dim;
      kv_read(type, first.data(), head_dim, slot, what, found.data());
      for (uint32_t d = 0; d < head_dim; d++) {
        float wanted = x[d];
        if (type == DType::f16) wanted = nearest_half(x[d]);
        if (type == DType::bf16) wanted = nearest(x[d], 8, -126);
        if (type == DType::f8_e4m3) wanted = nearest_e4m3(x, head_dim, d);
        if (type == DType::q8_0) {
          const uint32_t begin = d / 32 * 32;
          const Block block = define(x + begin, std::min(32u, head_dim - begin), 32);
          wanted = nearest_half(block.scale) * static_cast<float>(block.codes[d - begin]);
        }
        right = right && same_floats(&wanted, &found[d], 1);
      }
    }
  }
  CHECK(right, "%s head_dim %u: reads other values than were written", name_of(type), head_dim);
  // One write touches the bytes of its own slot alone.
  const uint32_t slot = random.below(kPagePositions);
  Buffer<uint8_t> changed(first);
  const Buffer<float> other = normals(head_dim, random);
  tables.back()->kv_write(type, other.data(), other.data(), head_dim, slot, changed.data());
  bool kept = true;
  Buffer<float> before(head_dim), after(head_dim);
  for (uint32_t i = 0; i < kPagePositions; i++) {
    for (uint32_t what = 0; what < 2 && i != slot; what++) {
      kv_read(type, first.data(), head_dim, i, what, before.data());
      kv_read(type, changed.data(), head_dim, i, what, after.data());
      kept = kept && same_floats(before.data(), after.data(), head_dim);
    }
  }
  CHECK(kept, "%s head_dim %u: a write to slot %u changes others", name_of(type), head_dim, slot);
}

}  // namespace

int main() {
  Random random(5);
  for (uint32_t cols = 1; cols <= 140; cols++) check_rows(cols, random);
  for (const uint32_t cols : {255u, 256u, 257u, 512u, 1000u, 2048u, 3001u}) check_rows(cols, random);
  for (const DType type : {DType::f32, DType::f16, DType::bf16, DType::q8_0, DType::f8_e4m3}) {
    for (const uint32_t head_dim : {1u, 2u, 8u, 15u, 16u, 17u, 31u, 32u, 33u, 64u, 80u, 96u, 100u, 128u}) {
      check_kv(type, head_dim, random);
    }
  }
  return check_summary();
}
