// Encoders of stored formats: what they write decodes to something near, weights draw the error to where it counts
// less, and no number breaks them. The error bounds are in units of the standard deviation of normal data.
#include "kernels/encode.h"

#include <cmath>

#include "buffers.h"
#include "kernels/prepare.h"
#include "tables.h"

using namespace drover;

namespace {

// Encoded by every kernel set; all must write the same bytes.
Buffer<uint8_t> encoded(DType dtype, const Buffer<float>& x, const float* importance) {
  const uint32_t cols = static_cast<uint32_t>(x.count());
  const auto tables = runnable_tables();
  Buffer<uint8_t> first(row_bytes(dtype, cols));
  for (const KernelTable* table : tables) {
    Buffer<uint8_t> row(first.count());
    encode_row(*table, dtype, x.data(), importance, cols, row.data());
    if (table == tables[0]) std::memcpy(first.data(), row.data(), row.bytes());
    CHECK(std::memcmp(row.data(), first.data(), row.bytes()) == 0, "%s: %s", name_of(dtype), table->isa);
  }
  return first;
}

double weighted_error(DType dtype, const Buffer<float>& x, const float* searched, const float* counted) {
  const uint32_t cols = static_cast<uint32_t>(x.count());
  const Buffer<uint8_t> row = encoded(dtype, x, searched);
  Buffer<float> back(cols);
  CHECK(row_is_finite(dtype, row.data(), cols), "%s", name_of(dtype));
  decode_row(dtype, row.data(), cols, back.data());
  double sum = 0, total = 0;
  for (uint32_t i = 0; i < cols; i++) {
    const double difference = x[i] - back[i], w = counted != nullptr ? counted[i] : 1;
    sum += w * difference * difference;
    total += w;
  }
  return std::sqrt(sum / total);
}

struct Bound {
  DType dtype;
  double error;
};
constexpr Bound kBounds[] = {
    {DType::f16, 3e-4},    {DType::bf16, 2.5e-3}, {DType::f8_e4m3, 0.03}, {DType::f8_e5m2, 0.06},
    {DType::q8_0, 0.006},  {DType::q4_0, 0.1},    {DType::q4_1, 0.09},    {DType::q5_0, 0.05},
    {DType::q5_1, 0.045},  {DType::q2_k, 0.3},    {DType::q3_k, 0.17},    {DType::q4_k, 0.08},
    {DType::q5_k, 0.04},   {DType::q6_k, 0.021},  {DType::iq4_nl, 0.085}, {DType::iq4_xs, 0.09},
    {DType::mxfp4, 0.125},
};

void check_errors(Random& random) {
  for (const Bound& bound : kBounds) {
    const Buffer<float> x = normals(256 * 64, random);
    const double error = weighted_error(bound.dtype, x, nullptr, nullptr);
    CHECK(error < bound.error, "%s: %.5f", name_of(bound.dtype), error);
    CHECK(error > bound.error / 4, "%s: %.5f is too good to be true", name_of(bound.dtype), error);
  }
}

void check_importance(Random& random) {
  for (const Bound& bound : kBounds) {
    if (elements_of(bound.dtype) == 1 || bound.dtype == DType::q8_0) continue;  // they do not search
    const Buffer<float> x = normals(256 * 64, random);
    Buffer<float> w(x.count());
    for (uint64_t i = 0; i < w.count(); i++) w[i] = std::exp(2 * random.normal());
    const double blind = weighted_error(bound.dtype, x, nullptr, w.data());
    const double seeing = weighted_error(bound.dtype, x, w.data(), w.data());
    // All that mxfp4 can choose is a power of two.
    CHECK(seeing < blind * (bound.dtype == DType::mxfp4 ? 0.995 : 0.97), "%s: %.5f instead of %.5f",
          name_of(bound.dtype), seeing, blind);
    for (uint64_t i = 0; i < w.count(); i++) w[i] = 0;
    weighted_error(bound.dtype, x, w.data(), nullptr);
  }
}

// Zeros, equal numbers, one spike, tiny and huge numbers, one sign, NaN: no trap, no code out of range, and what cannot
// be stored has a scale that is not finite.
void check_odd(Random& random) {
  for (const Bound& bound : kBounds) {
    const uint32_t block = elements_of(bound.dtype);
    for (uint32_t turn = 0; turn < 16; turn++) {
      Buffer<float> x = normals(256, random);
      bool storable = true;
      for (uint32_t i = 0; i < 256; i++) {
        if (turn == 0) x[i] = 0;
        if (turn == 1) x[i] = 2.5f;
        if (turn == 2) x[i] = -1e-3f;
        if (turn == 3) x[i] = i == 77 ? 1000.0f : 0.0f;
        if (turn == 4) x[i] *= 1e-30f;
        if (turn == 5) x[i] *= 1e-42f;
        if (turn == 6) x[i] *= 1e30f;
        if (turn == 7) x[i] = std::fabs(x[i]);
        if (turn == 8) x[i] = -std::fabs(x[i]);
        if (turn == 9) x[i] = 5 + 1e-3f * x[i];
        if (turn == 10 && i == 200) x[i] = NAN;
        if (turn == 11 && i == 31) x[i] = INFINITY;
        if (turn == 12) x[i] = i % 2 == 0 ? 3.4e38f : -3.4e38f;
        if (turn == 13) x[i] = i % 2 == 0 ? 1.0f : -1.0f;
        if (turn == 14) x[i] *= 1e-7f;
        if (turn == 15) x[i] *= 1e4f;
      }
      if (turn == 6 || turn == 12) storable = bound.dtype == DType::mxfp4;
      if (turn == 10 || turn == 11) storable = false;
      const Buffer<uint8_t> row = encoded(bound.dtype, x, nullptr);
      if (block > 1) {
        CHECK(row_is_finite(bound.dtype, row.data(), 256) == storable, "%s, case %u", name_of(bound.dtype), turn);
      }
      if (!storable || block == 1) continue;
      Buffer<float> back(256);
      decode_row(bound.dtype, row.data(), 256, back.data());
      float largest = 0, worst = 0;
      for (uint32_t i = 0; i < 256; i++) {
        largest = std::fmax(largest, std::fabs(x[i]));
        const float error = std::fabs(x[i] - back[i]);
        worst = std::isnan(error) ? INFINITY : std::fmax(worst, error);
      }
      CHECK(worst <= largest * 0.5f + 4e-7f, "%s, case %u: off by %g of %g", name_of(bound.dtype), turn, worst,
            largest);
    }
  }
}

}  // namespace

int main() {
  Random random(11);
  check_errors(random);
  check_importance(random);
  check_odd(random);
  for (uint32_t i = 0; i < kDTypeCount; i++) {
    bool known = i == static_cast<uint32_t>(DType::f32);
    for (const Bound& bound : kBounds) known = known || static_cast<uint32_t>(bound.dtype) == i;
    CHECK(can_encode(*kernels_scalar(), static_cast<DType>(i)) == known, "%s", name_of(static_cast<DType>(i)));
  }
  return check_summary();
}
