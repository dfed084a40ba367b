// GEMM with 8-bit activations on prepared integer panels (panels.h). Sums over a block are exact integers; each block
// of 32 (a8_32) or 256 (a8_256) then adds to the output's f32 chain in order of k.
#include "panels.h"

namespace drover {
namespace {

// The codes of one 32-block of a8_32 formats: total[r] = start[r] + sum over the block of code · x.
struct Q8Block {
  static constexpr uint32_t kBytes = kQ8Superblock, kBlockBytes = 8 * kLine;
  static constexpr int32_t kZero = kByteZero;
  template <uint32_t kR>
  static DROVER_INLINE void dots(const uint8_t* lines, const int8_t* x, uint64_t stride, ColI* total) {
#pragma GCC unroll 8
    for (uint32_t g = 0; g < 8; g++) {
      const ByteCodes codes = byte_codes(b_load(lines + g * kLine));
#pragma GCC unroll 16
      for (uint32_t r = 0; r < kR; r++) total[r] = i_dot_byte(total[r], codes, x + r * stride + g * 4);
    }
  }
};
struct Q4Block {
  static constexpr uint32_t kBytes = kQ4Superblock, kBlockBytes = 4 * kLine;
  static constexpr int32_t kZero = 8;
  template <uint32_t kR>
  static DROVER_INLINE void dots(const uint8_t* lines, const int8_t* x, uint64_t stride, ColI* total) {
    Sum sum[kR];
#pragma GCC unroll 16
    for (uint32_t r = 0; r < kR; r++) sum[r] = s_begin(total[r]);
#pragma GCC unroll 4
    for (uint32_t g = 0; g < 4; g++) {
      const Bytes line = b_load(lines + g * kLine);
      const Bytes low = b_low(line), high = b_high(line);
#pragma GCC unroll 16
      for (uint32_t r = 0; r < kR; r++) {
        sum[r] = s_dot(sum[r], low, x + r * stride + g * 8);
        sum[r] = s_dot(sum[r], high, x + r * stride + g * 8 + 4);
      }
    }
#pragma GCC unroll 16
    for (uint32_t r = 0; r < kR; r++) total[r] = s_total(sum[r], total[r]);
  }
};
static_assert(kGroups15 >= 8);
struct Iq4Block {
  static constexpr uint32_t kBytes = kQ4Superblock, kBlockBytes = 4 * kLine;
  static constexpr int32_t kZero = kByteZero;
  template <uint32_t kR>
  static DROVER_INLINE void dots(const uint8_t* lines, const int8_t* x, uint64_t stride, ColI* total) {
    alignas(16) static constexpr uint8_t kBook[16] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};
    static_assert(kBook[0] == kIq4NlCodes[0] + 128 && kBook[15] == kIq4NlCodes[15] + 128);
#pragma GCC unroll 4
    for (uint32_t g = 0; g < 4; g++) {
      const Bytes line = b_load(lines + g * kLine);
      const ByteCodes low = byte_codes(b_lookup(b_low(line), kBook)), high = byte_codes(b_lookup(b_high(line), kBook));
#pragma GCC unroll 16
      for (uint32_t r = 0; r < kR; r++) {
        total[r] = i_dot_byte(total[r], low, x + r * stride + g * 8);
        total[r] = i_dot_byte(total[r], high, x + r * stride + g * 8 + 4);
      }
    }
  }
};

// out[r] (16 floats apart) = x rows · the kColumns columns at `panel`.
template <typename Block>
struct Tile32 {
  template <uint32_t kR>
  static void run(const uint8_t* panel, uint32_t half, const uint8_t* x, uint64_t stride, uint32_t depth, float* out) {
    ColF acc[kR];
#pragma GCC unroll 16
    for (uint32_t r = 0; r < kR; r++) acc[r] = c_zero();
    const uint8_t* scales = x + a8_32_scales(depth);
    const uint8_t* sums = x + a8_32_sums(depth);
    const uint32_t blocks = (depth + 31) / 32;
    for (uint32_t b = 0; b < blocks; b++) {
      const uint8_t* super = panel + uint64_t{b / 2} * Block::kBytes;
      if (kR <= 8) {
        for (uint32_t i = 0; i < Block::kBlockBytes; i += kLine) __builtin_prefetch(super + 4096 + b % 2 * Block::kBlockBytes + i);
      }
      ColI total[kR];
#pragma GCC unroll 16
      for (uint32_t r = 0; r < kR; r++) {
        int32_t sum;
        __builtin_memcpy(&sum, sums + r * stride + b * 4, 4);
        // Unsigned: rows that no quantisation has written may hold any sum, and it may wrap.
        total[r] = i_columns(static_cast<int32_t>(0u - static_cast<uint32_t>(Block::kZero) * static_cast<uint32_t>(sum)));
      }
      Block::template dots<kR>(super + kLine + b % 2 * Block::kBlockBytes + half * kColumns * 4,
                               reinterpret_cast<const int8_t*>(x) + b * 32, stride, total);
      const ColF d = c_half(reinterpret_cast<const uint16_t*>(super + b % 2 * 32) + half * kColumns);
#pragma GCC unroll 16
      for (uint32_t r = 0; r < kR; r++) {
        float scale;
        __builtin_memcpy(&scale, scales + r * stride + b * 4, 4);
        acc[r] = c_fma(c_from(total[r]), c_mul(d, c_set(scale)), acc[r]);
      }
    }
#pragma GCC unroll 16
    for (uint32_t r = 0; r < kR; r++) c_store(out + r * 16 + half * kColumns, acc[r]);
  }
};

// 256-blocks with 8 sub-blocks of 32: w = d · scale · code - dmin · min. kHigh: the fifth bits follow.
template <bool kHigh>
struct TileQ45k {
  static constexpr uint32_t kBytes = kHigh ? kQ5kSuperblock : kQ4kSuperblock;
  static constexpr uint32_t kGroups = kHigh ? kGroups31 : kGroups15;

  template <int kLineInSub>
  static DROVER_INLINE void codes_of(const uint8_t* line, const uint8_t* plane, Bytes* low, Bytes* high) {
    const Bytes both = b_load(line);
    *low = b_low(both);
    *high = b_high(both);
    if constexpr (kHigh) {
      const Bytes bits = b_load(plane);
      *low = b_bits<kLineInSub * 2, 1>(*low, bits);
      *high = b_bits<kLineInSub * 2 + 1, 1>(*high, bits);
    }
  }
  template <uint32_t kR, int kLineInSub>
  static DROVER_INLINE void dot_line(const uint8_t* line, const uint8_t* plane, const int8_t* x, uint64_t stride,
                                     Sum* sum) {
    Bytes low, high;
    codes_of<kLineInSub>(line + kLineInSub * kLine, plane, &low, &high);
#pragma GCC unroll 16
    for (uint32_t r = 0; r < kR; r++) {
      sum[r] = s_dot(sum[r], low, x + r * stride + kLineInSub * 8);
      sum[r] = s_dot(sum[r], high, x + r * stride + kLineInSub * 8 + 4);
    }
  }
  template <uint32_t kR>
  static DROVER_INLINE void take(Sum* sum, Scale scale, ColI* total) {
#pragma GCC unroll 16
    for (uint32_t r = 0; r < kR; r++) {
      total[r] = s_scaled(total[r], sum[r], scale);
      sum[r] = s_begin(i_columns(0));
    }
  }

  template <uint32_t kR>
  static void run(const uint8_t* panel, uint32_t half, const uint8_t* x, uint64_t stride, uint32_t depth, float* out) {
    ColF acc[kR];
#pragma GCC unroll 16
    for (uint32_t r = 0; r < kR; r++) acc[r] = c_zero();
    const uint8_t* scales = x + a8_256_scales(depth);
    const uint8_t* sums32 = x + a8_256_sums32(depth);
    const uint32_t column = half * kColumns;
    for (uint32_t b = 0; b < depth / 256; b++) {
      const uint8_t* super = panel + uint64_t{b} * kBytes;
      const int8_t* q = reinterpret_cast<const int8_t*>(x) + b * 256;
      if (kR <= 8) {
        for (uint32_t i = 0; i < kBytes; i += kLine) __builtin_prefetch(super + 4096 + i);
      }
      ColI total[kR], mins[kR];
      Sum sum[kR];
#pragma GCC unroll 16
      for (uint32_t r = 0; r < kR; r++) {
        total[r] = mins[r] = i_columns(0);
        sum[r] = s_begin(i_columns(0));
      }
      for (uint32_t s = 0; s < 8; s++) {
        const Scale scale = scale_unsigned(super + kQ4kScales + s * 16 + column);
        const uint8_t* lines = super + kQ4kLines + s * 4 * kLine + column * 4;
        const uint8_t* plane = super + kQ5kHigh + s * kLine + column * 4;
        dot_line<kR, 0>(lines, plane, q + s * 32, stride, sum);
        dot_line<kR, 1>(lines, plane, q + s * 32, stride, sum);
        if constexpr (kGroups < 8) take<kR>(sum, scale, total);
        dot_line<kR, 2>(lines, plane, q + s * 32, stride, sum);
        dot_line<kR, 3>(lines, plane, q + s * 32, stride, sum);
        take<kR>(sum, scale, total);
      }
      for (uint32_t s = 0; s < 8; s += 2) {
        const ScalePair pair = pair_of(scale_unsigned(super + kQ4kMins + s * 16 + column),
                                       scale_unsigned(super + kQ4kMins + s * 16 + 16 + column));
#pragma GCC unroll 16
        for (uint32_t r = 0; r < kR; r++) {
          mins[r] = i_dot_pair(mins[r], pair, reinterpret_cast<const int16_t*>(sums32 + r * stride) + b * 8 + s);
        }
      }
      const ColF d = c_half(reinterpret_cast<const uint16_t*>(super) + column);
      const ColF dmin = c_half(reinterpret_cast<const uint16_t*>(super) + 16 + column);
#pragma GCC unroll 16
      for (uint32_t r = 0; r < kR; r++) {
        float scale;
        __builtin_memcpy(&scale, scales + r * stride + b * 4, 4);
        const ColF value = c_fnma(dmin, c_from(mins[r]), c_mul(d, c_from(total[r])));
        acc[r] = c_fma(c_set(scale), value, acc[r]);
      }
    }
#pragma GCC unroll 16
    for (uint32_t r = 0; r < kR; r++) c_store(out + r * 16 + column, acc[r]);
  }
};
static_assert(kGroups31 >= 4);

// 256-blocks with 16 sub-blocks of 16: w = d · scale · (code - 32), signed scales.
struct TileQ6k {
  template <uint32_t kR, int kLineInPlane>
  static DROVER_INLINE void dot_line(const uint8_t* line, Bytes plane, const int8_t* x, uint64_t stride, Sum* sum) {
    const Bytes both = b_load(line);
    const Bytes low = b_bits<kLineInPlane * 4, 3>(b_low(both), plane);
    const Bytes high = b_bits<kLineInPlane * 4 + 2, 3>(b_high(both), plane);
#pragma GCC unroll 16
    for (uint32_t r = 0; r < kR; r++) {
      sum[r] = s_dot(sum[r], low, x + r * stride);
      sum[r] = s_dot(sum[r], high, x + r * stride + 4);
    }
  }
  template <uint32_t kR>
  static void run(const uint8_t* panel, uint32_t half, const uint8_t* x, uint64_t stride, uint32_t depth, float* out) {
    ColF acc[kR];
#pragma GCC unroll 16
    for (uint32_t r = 0; r < kR; r++) acc[r] = c_zero();
    const uint8_t* scales = x + a8_256_scales(depth);
    const uint8_t* sums16 = x + a8_256_sums16(depth);
    const uint32_t column = half * kColumns;
    for (uint32_t b = 0; b < depth / 256; b++) {
      const uint8_t* super = panel + uint64_t{b} * kQ6kSuperblock;
      const int8_t* q = reinterpret_cast<const int8_t*>(x) + b * 256;
      if (kR <= 8) {
        for (uint32_t i = 0; i < kQ6kSuperblock; i += kLine) __builtin_prefetch(super + 4096 + i);
      }
      ColI total[kR], zeros[kR];
#pragma GCC unroll 16
      for (uint32_t r = 0; r < kR; r++) total[r] = zeros[r] = i_columns(0);
      for (uint32_t s = 0; s < 16; s++) {
        const Scale scale = scale_signed(super + kQ6kScales + s * 16 + column);
        const uint8_t* lines = super + kQ6kLines + s * 2 * kLine + column * 4;
        const Bytes plane = b_load(super + kQ6kHigh + s * kLine + column * 4);
        Sum sum[kR];
#pragma GCC unroll 16
        for (uint32_t r = 0; r < kR; r++) sum[r] = s_begin(i_columns(0));
        dot_line<kR, 0>(lines, plane, q + s * 16, stride, sum);
        if constexpr (kGroups63 < 4) {
#pragma GCC unroll 16
          for (uint32_t r = 0; r < kR; r++) {
            total[r] = s_scaled(total[r], sum[r], scale);
            sum[r] = s_begin(i_columns(0));
          }
        }
        dot_line<kR, 1>(lines + kLine, plane, q + s * 16 + 8, stride, sum);
#pragma GCC unroll 16
        for (uint32_t r = 0; r < kR; r++) total[r] = s_scaled(total[r], sum[r], scale);
      }
      for (uint32_t s = 0; s < 16; s += 2) {
        const ScalePair pair = pair_of(scale_signed(super + kQ6kScales + s * 16 + column),
                                       scale_signed(super + kQ6kScales + s * 16 + 16 + column));
#pragma GCC unroll 16
        for (uint32_t r = 0; r < kR; r++) {
          zeros[r] = i_dot_pair(zeros[r], pair, reinterpret_cast<const int16_t*>(sums16 + r * stride) + b * 16 + s);
        }
      }
      const ColF d = c_half(reinterpret_cast<const uint16_t*>(super) + column);
#pragma GCC unroll 16
      for (uint32_t r = 0; r < kR; r++) {
        float scale;
        __builtin_memcpy(&scale, scales + r * stride + b * 4, 4);
        acc[r] = c_fma(c_from(i_minus_shifted<5>(total[r], zeros[r])), c_mul(d, c_set(scale)), acc[r]);
      }
    }
#pragma GCC unroll 16
    for (uint32_t r = 0; r < kR; r++) c_store(out + r * 16 + column, acc[r]);
  }
};
static_assert(kGroups63 >= 2);

#ifdef DROVER_AVX512
inline constexpr uint32_t kIntRows = 8;
#else
inline constexpr uint32_t kIntRows = 4;
#endif

template <typename Tile, uint32_t kR = kIntRows>
DROVER_INLINE void int_rows(uint32_t rows, const uint8_t* panel, uint32_t half, const uint8_t* x, uint64_t stride,
                            uint32_t depth, float* out) {
  if constexpr (kR > 0) {
    if (rows == kR) return Tile::template run<kR>(panel, half, x, stride, depth, out);
    int_rows<Tile, kR - 1>(rows, panel, half, x, stride, depth, out);
  }
}

template <typename Tile, DType kType>
void gemm_int(const GemmArgs& args, uint32_t row_begin, uint32_t row_end, uint32_t panel_begin, uint32_t panel_end,
              void* scratch) {
  float* sums = static_cast<float*>(scratch);  // [kIntRows][16]
  const uint64_t panel_stride = panel_bytes(kType, args.depth);
  const uint8_t* x = static_cast<const uint8_t*>(args.x);
  for (uint32_t panel = panel_begin; panel < panel_end; panel++) {
    for (uint32_t row = row_begin; row < row_end; row += kIntRows) {
      const uint32_t rows = row_end - row < kIntRows ? row_end - row : kIntRows;
      for (uint32_t half = 0; half < kPanel / kColumns; half++) {
        int_rows<Tile>(rows, args.w + panel * panel_stride, half, x + row * args.x_stride_bytes, args.x_stride_bytes,
                       args.depth, sums);
      }
      for (uint32_t r = 0; r < rows; r++) finish(args, row + r, panel, f_load(sums + r * 16));
    }
  }
}

}  // namespace
}  // namespace drover
