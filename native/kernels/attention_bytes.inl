// The products of attention over q8_0 pages. With 8-bit queries all of them are exact integers: queries (a8_32) with
// keys, and probabilities as 16-bit fractions of the page's largest with values. Without, codes become f32.
#include "attention_scratch.h"

namespace drover {
namespace {

// scores [kR][64] of kR rows of 8-bit queries (a8_32) with kV vectors of key positions of a q8_0 page, from vector
// `first` on: products of 32 elements are exact integers, which the scales of key and query turn into floats.
template <uint32_t kR, uint32_t kV>
DROVER_INLINE void byte_scores_tile(RowsOf8 q, uint32_t row, const uint8_t* keys, const uint16_t* scales,
                                    uint32_t first, float* scores, int64_t ahead) {
  constexpr uint32_t kParts = kPanel / kColumns,
                     kPanels = (kV + kParts - 1) / kParts;  // vectors of a panel, and panels
  const uint32_t lines = (q.depth + 3) / 4, blocks = (q.depth + 31) / 32;
  const uint8_t* w[kV];
  const uint16_t* d[kV];
  for (uint32_t v = 0; v < kV; v++) {
    const uint32_t panel = (first + v) / kParts, part = (first + v) % kParts;
    w[v] = keys + panel * lines * kLine + part * kColumns * 4;
    d[v] = scales + panel * blocks * kPanel + part * kColumns;
  }
  ColF sum[kR][kV];
  for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA { sum[r][v] = c_zero(); });
  for (uint32_t b = 0; b < blocks; b++) {
    ColI total[kR][kV];
    for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
      total[r][v] = i_columns(kByteZero == 0 ? 0 : q.load<int32_t>(row + r, a8_32_zeros128(q.depth), b));
    });
    const uint32_t end = smaller_of(lines, b * 8 + 8);
    for (uint32_t g = b * 8; g < end; g++) {
      ByteCodes codes[kV];
#pragma GCC unroll 2
      for (uint32_t v = 0; v < kV; v++) {
        codes[v] = byte_codes(b_load(w[v] + g * kLine));
        if (v % kParts == 0) __builtin_prefetch(w[0] + (g * kPanels + v / kParts) * kLine + ahead, 0, 2);
      }
      for_tile<kR, kV>([&](uint32_t r, uint32_t v)
                           DROVER_LAMBDA { total[r][v] = i_dot_byte(total[r][v], codes[v], q.codes(row + r, g * 4)); });
    }
    ColF scale[kV];
#pragma GCC unroll 2
    for (uint32_t v = 0; v < kV; v++) scale[v] = c_half(d[v] + b * kPanel);
    for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
      const ColF both = c_mul(scale[v], c_set(q.load<float>(row + r, a8_32_scales(q.depth), b)));
      sum[r][v] = c_fma(c_from(total[r][v]), both, sum[r][v]);
    });
  }
  for_tile<kR, kV>([&](uint32_t r, uint32_t v)
                       DROVER_LAMBDA { c_store(scores + r * kPagePositions + (first + v) * kColumns, sum[r][v]); });
}

// scores [vectors][64] of the first `panels` panels of a q8_0 page.
void byte_scores(RowsOf8 q, uint32_t vectors, const uint8_t* keys, uint32_t panels, float* scores, int64_t ahead) {
  const uint16_t* scales = reinterpret_cast<const uint16_t*>(keys + kv_key_bytes(DType::q8_0, q.depth));
  const uint32_t count = panels * (kPanel / kColumns);
  uint32_t row = 0;
  const auto take = [&]<uint32_t kR>() DROVER_LAMBDA {
    for (; row + kR <= vectors; row += kR) {
      uint32_t v = 0;
      float* to = scores + row * kPagePositions;
      for (; v + 2 <= count; v += 2) byte_scores_tile<kR, 2>(q, row, keys, scales, v, to, ahead);
      if (v < count) byte_scores_tile<kR, 1>(q, row, keys, scales, v, to, ahead);
    }
  };
  take.template operator()<4>();
  take.template operator()<2>();
  take.template operator()<1>();
}

// Key panels [0, panels) of a q8_0 page as f32 [panels][head_dim][16].
void widen_byte_keys(const uint8_t* keys, uint32_t head_dim, uint32_t panels, float* out) {
  const uint16_t* scales = reinterpret_cast<const uint16_t*>(keys + kv_key_bytes(DType::q8_0, head_dim));
  const uint32_t lines = (head_dim + 3) / 4, blocks = (head_dim + 31) / 32;
  for (uint32_t p = 0; p < panels; p++) {
    for (uint32_t g = 0; g < lines; g++) {
      const uint8_t* line = keys + (uint64_t{p} * lines + g) * kLine;
      const F32x16 scale = f_load_half(scales + (p * blocks + g / 8) * kPanel);
      float* to = out + (uint64_t{p} * head_dim + g * 4) * 16;
      const uint32_t count = head_dim - g * 4;
      f_store(to, f_mul(f_load_line<0>(line), scale));
      if (count > 1) f_store(to + 16, f_mul(f_load_line<1>(line), scale));
      if (count > 2) f_store(to + 32, f_mul(f_load_line<2>(line), scale));
      if (count > 3) f_store(to + 48, f_mul(f_load_line<3>(line), scale));
    }
  }
}

// Value panels [0, panels) of a q8_0 page as f32 [panels][64][16], without their scales.
void widen_byte_values(const int8_t* values, uint32_t panels, uint32_t positions, float* out) {
  for (uint32_t p = 0; p < panels; p++, values += kPagePositions * kPanel, out += kPagePositions * kPanel) {
    for (uint32_t i = 0; i < positions; i += 2) {
      f_store(out + i * kPanel, f_load_pairs<0>(values + i * kPanel));
      f_store(out + (i + 1) * kPanel, f_load_pairs<1>(values + i * kPanel));
    }
  }
}

// Scales [64] of a block of values, of which the first `visible` are seen.
DROVER_INLINE ByteWeights byte_weights(const uint16_t* scales, uint32_t visible) {
  ByteWeights out;
  F32x16 scale[kPagePositions / 16], largest = f_zero(), poison = f_zero();
#pragma GCC unroll 4
  for (uint32_t i = 0; i < kPagePositions; i += 16) {
    scale[i / 16] = f_keep_first(f_load_half(scales + i), i >= visible ? 0 : smaller_of(16, visible - i), f_zero());
    largest = f_max(scale[i / 16], largest);
    poison = f_fma(scale[i / 16], f_zero(), poison);
  }
  const float most = f_largest(largest), nothing = f_sum(poison);
  const bool usable = nothing == 0.0f && most > 0;
  const F32x16 factor = f_set(usable ? 32767.0f / most : 0.0f);
#pragma GCC unroll 4
  for (uint32_t i = 0; i < kPagePositions; i += 16)
    f_store(out.ratio + i, usable ? f_mul(scale[i / 16], factor) : f_zero());
  out.largest = nothing == 0.0f ? most * (1.0f / 32767.0f) : __builtin_nanf("");
  return out;
}

// sums [kR][sums_stride] += factor[r] * (words [kR][64] · values) for kV vectors of elements, from vector `first` on.
template <uint32_t kR, uint32_t kV>
DROVER_INLINE void byte_values_tile(const int16_t* words, const float* factor, const int8_t* values, uint32_t first,
                                    uint32_t pairs, float* sums, uint64_t sums_stride, int64_t ahead) {
  constexpr uint32_t kParts = kPanel / kColumns, kPanels = (kV + kParts - 1) / kParts;
  const int8_t* w[kV];
  for (uint32_t v = 0; v < kV; v++) {
    w[v] = values + (first + v) / kParts * kPagePositions * kPanel + (first + v) % kParts * kColumns * 2;
  }
  ColI total[kR][kV];
  for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA { total[r][v] = i_columns(0); });
  for (uint32_t i = 0; i < pairs; i++) {
    ScalePair codes[kV];
#pragma GCC unroll 2
    for (uint32_t v = 0; v < kV; v++) {
      codes[v] = pair_load(w[v] + i * 2 * kPanel);
      if (v % kParts == 0 && i % 2 == 0)
        __builtin_prefetch(w[0] + (i / 2 * kPanels + v / kParts) * kLine + ahead, 0, 2);
    }
    for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
      total[r][v] = i_dot_pair(total[r][v], codes[v], words + r * kPagePositions + i * 2);
    });
  }
  for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
    float* to = sums + r * sums_stride + (first + v) * kColumns;
    c_store(to, c_fma(c_from(total[r][v]), c_set(factor[r]), c_load(to)));
  });
}

// sums [rows] += factor * words · `panels` value panels of a q8_0 page.
void byte_values(const int16_t* words, const float* factor, uint32_t rows, const int8_t* values, uint32_t panels,
                 uint32_t pairs, float* sums, uint64_t sums_stride, int64_t ahead) {
  const uint32_t count = panels * (kPanel / kColumns);
  uint32_t row = 0;
  const auto take = [&]<uint32_t kR>() DROVER_LAMBDA {
    for (; row + kR <= rows; row += kR) {
      const int16_t* x = words + row * kPagePositions;
      float* to = sums + row * sums_stride;
      uint32_t v = 0;
      for (; v + 2 <= count; v += 2) byte_values_tile<kR, 2>(x, factor + row, values, v, pairs, to, sums_stride, ahead);
      if (v < count) byte_values_tile<kR, 1>(x, factor + row, values, v, pairs, to, sums_stride, ahead);
    }
  };
  take.template operator()<4>();
  take.template operator()<2>();
  take.template operator()<1>();
}

}  // namespace
}  // namespace drover
