// The products of attention: query vectors with the keys of a page, probabilities with its values. Few vectors (a
// decoded row's) convert the cache's numbers in registers, so that each is read and converted once for all heads of
// the group; many share a converted copy. Conversions are exact: both give the same bits.
#include "kv.h"

namespace drover {
namespace {

struct LoadE4M3 {  // divided by 256
  using Element = uint8_t;
  static DROVER_INLINE F32x16 load(const uint8_t* p) { return f_load_e4m3(p); }
};
struct LoadI8 {
  using Element = int8_t;
  static DROVER_INLINE F32x16 load(const int8_t* p) { return f_load_i8(p); }
};

inline constexpr uint32_t kFewVectors = 8;  // at most these are few
#ifdef DROVER_AVX512
inline constexpr uint32_t kManyVectors = 8, kManyPanels = 2, kFewPanels = 4;
#else
inline constexpr uint32_t kManyVectors = 6, kManyPanels = 1, kFewPanels = 1;
#endif

DROVER_INLINE uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }

// float_tile over rows: kRows at a time, then 4, 2 and 1.
template <typename Load, uint32_t kRows, uint32_t kP, Fetch kFetch>
DROVER_INLINE void attention_rows(const float* x, uint64_t x_stride, uint32_t rows, const typename Load::Element* w,
                                  uint64_t w_stride, uint32_t depth, float* acc, uint64_t acc_stride, int64_t ahead) {
  uint32_t r = 0;
  const auto take = [&]<uint32_t kR>() DROVER_LAMBDA {
    for (; r + kR <= rows; r += kR)
      float_tile<kR, kP, Load, kFetch>(x + r * x_stride, x_stride, w, w_stride, depth, acc + r * acc_stride, acc_stride,
                                       ahead);
  };
  if constexpr (kRows > 4) take.template operator()<kRows>();
  take.template operator()<4>();
  take.template operator()<2>();
  take.template operator()<1>();
}

// acc [rows, panels * 16] += x [rows, depth] * panels [panels][depth][16]
template <typename Load, uint32_t kRows, uint32_t kP, Fetch kFetch>
void attention_panels(const float* x, uint64_t x_stride, uint32_t rows, const typename Load::Element* w,
                      uint64_t w_stride, uint32_t panels, uint32_t depth, float* acc, uint64_t acc_stride,
                      int64_t ahead) {
  uint32_t p = 0;
  for (; p + kP <= panels; p += kP) {
    attention_rows<Load, kRows, kP, kFetch>(x, x_stride, rows, w + p * w_stride, w_stride, depth, acc + p * 16,
                                            acc_stride, ahead);
  }
  if constexpr (kP > 1) {
    for (; p < panels; p++) {
      attention_rows<Load, kRows, 1, kFetch>(x, x_stride, rows, w + p * w_stride, w_stride, depth, acc + p * 16,
                                             acc_stride, ahead);
    }
  }
}

// The same for `vectors` that are few or many. scratch: panels * depth * 16 floats, for what many have converted.
// ahead: bytes to the page that comes next.
template <typename Load>
DROVER_INLINE void attention_product(const float* x, uint64_t x_stride, uint32_t vectors,
                                     const typename Load::Element* w, uint64_t w_stride, uint32_t panels,
                                     uint32_t depth, float* acc, uint64_t acc_stride, int64_t ahead, bool few,
                                     float* scratch) {
  if (few) {
    constexpr uint32_t kP = sizeof(*w) == 1 && kFewPanels > 2 ? 2 : kFewPanels;
    attention_panels<Load, 4, kP, Fetch::kFar>(x, x_stride, vectors, w, w_stride, panels, depth, acc, acc_stride, ahead);
    return;
  }
  const float* wide = scratch;
  uint64_t wide_stride = uint64_t{depth} * 16;
  if constexpr (sizeof(*w) == sizeof(float)) {
    wide = w;
    wide_stride = w_stride;
  } else {
    for (uint32_t p = 0; p < panels; p++) {
      for (uint32_t i = 0; i < depth; i++)
        f_store(scratch + p * wide_stride + i * 16, Load::load(w + p * w_stride + i * 16));
    }
  }
  attention_panels<LoadF32, kManyVectors, kManyPanels, Fetch::kNone>(x, x_stride, vectors, wide, wide_stride, panels, depth, acc,
                                                           acc_stride, 0);
}

// scores [kR][64] of kR rows of 8-bit queries (a8_32) with kV vectors of key positions of a q8_0 page, from vector
// `first` on: products of 32 elements are exact integers, which the scales of key and query turn into floats.
template <uint32_t kR, uint32_t kV>
DROVER_INLINE void byte_scores_tile(RowsOf8 q, uint32_t row, const uint8_t* keys, const uint16_t* scales,
                                    uint32_t first, float* scores, int64_t ahead) {
  constexpr uint32_t kParts = kPanel / kColumns;  // vectors of a panel
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
    const uint32_t end = smaller(lines, b * 8 + 8);
    for (uint32_t g = b * 8; g < end; g++) {
      ByteCodes codes[kV];
#pragma GCC unroll 2
      for (uint32_t v = 0; v < kV; v++) {
        codes[v] = byte_codes(b_load(w[v] + g * kLine));
        __builtin_prefetch(w[v] + g * kLine + ahead, 0, 2);
      }
      for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
        total[r][v] = i_dot_byte(total[r][v], codes[v], q.codes(row + r, g * 4));
      });
    }
    ColF scale[kV];
#pragma GCC unroll 2
    for (uint32_t v = 0; v < kV; v++) scale[v] = c_half(d[v] + b * kPanel);
    for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
      const ColF both = c_mul(scale[v], c_set(q.load<float>(row + r, a8_32_scales(q.depth), b)));
      sum[r][v] = c_fma(c_from(total[r][v]), both, sum[r][v]);
    });
  }
  for_tile<kR, kV>([&](uint32_t r, uint32_t v) DROVER_LAMBDA {
    c_store(scores + r * kPagePositions + (first + v) * kColumns, sum[r][v]);
  });
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

}  // namespace
}  // namespace drover
