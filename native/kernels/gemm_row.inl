// GEMM of weights with one scale per output column and activations with one per row (a8_row and f8_row, quantize.h):
// the scales meet the sum at its end, so nothing but products happens along the depth.
//
// i8: exact 32-bit sums over the whole depth. Where bytes are multiplied as unsigned codes, sums start at the row's
// zero point. Panels hold bytes as the instructions want them, so tiles of many rows read them as they are, a chunk of
// k that stays in the first-level cache at a time; only 16-bit words (DROVER_WORDS) and what matrix instructions want
// (DROVER_MATRIX) are unpacked, once per chunk for all rows. f8_e4m3: the float GEMM; codes become f32 as they are
// loaded.
namespace drover {
namespace {

// kByteRows x kByteVectors sums, the weights and an activation fill the registers. (Matrix instructions: pairs of rows;
// fewer rows gain nothing from them.)
#if defined(DROVER_AVX512)
inline constexpr uint32_t kByteRows = 6, kByteVectors = 4;
#elif defined(DROVER_AVXVNNI)
inline constexpr uint32_t kByteRows = 6, kByteVectors = 2;
#elif defined(DROVER_MATRIX)
inline constexpr uint32_t kByteRows = 3, kByteVectors = 2;
#elif defined(DROVER_SCALAR)
inline constexpr uint32_t kByteRows = 4, kByteVectors = 1;
#else
inline constexpr uint32_t kByteRows = 4, kByteVectors = 2;
#endif
#ifdef DROVER_AVX512
inline constexpr uint32_t kTallRows = 8, kTallVectors = 2;  // as many sums, fewer columns
#endif
inline constexpr uint32_t kBytePanels = kByteVectors * kColumns / kPanel;
inline constexpr uint32_t kByteRowTile = 96;  // rows that share a chunk
#if defined(DROVER_WORDS) || defined(DROVER_MATRIX)
inline constexpr uint32_t kByteGroupPanels = 16, kByteChunk = 256;  // panels that share the rows' words or pairs
inline constexpr uint32_t kByteStep = 64;                           // k that are multiplied together
#else
inline constexpr uint32_t kByteGroupPanels = kBytePanels, kByteChunk = 512, kByteStep = 4;
#endif

struct ByteScratch {
  int32_t sums[kByteGroupPanels / kBytePanels][kByteRowTile][kBytePanels * kPanel];
#ifdef DROVER_WORDS
  uint8_t codes[kByteChunk / 4 * 2 * kLine];
  int16_t words[kByteRowTile][kByteChunk];
#endif
#ifdef DROVER_MATRIX
  uint8_t codes[kByteChunk * kPanel];
  int8_t pairs[kByteRowTile][kChunk];  // two rows' codes in two rows
#endif
};
static_assert(sizeof(ByteScratch) <= kGemmScratchBytes);

// sums [kR][stride] += `groups` of 4 k. codes: the first line of the first panel, panel_stride from one to the next;
// x: the rows' codes.
template <uint32_t kR, uint32_t kV, typename Ask>
void byte_tile(const uint8_t* codes, uint64_t panel_stride, const int8_t* x, uint64_t x_stride, uint32_t groups,
               int32_t* sums, uint32_t stride) {
  ColI sum[kR][kV];
  for_tile<kR, kV>([&](uint32_t r, uint32_t v)
                       DROVER_LAMBDA { sum[r][v] = i_columns_load(sums + r * stride + v * kColumns); });
  for (uint32_t g = 0; g < groups; g++) {
    ByteCodes w[kV];
#pragma GCC unroll 4
    for (uint32_t v = 0; v < kV; v++) {
      const uint32_t column = v * kColumns;
      const uint8_t* line = codes + column / kPanel * panel_stride + uint64_t{g} * kLine + column % kPanel * 4;
      w[v] = byte_codes(b_load(line));
      if constexpr (Ask::kNear != 0) __builtin_prefetch(line + Ask::kNear, 0, 3);
      if constexpr (Ask::kFar != 0) __builtin_prefetch(line + Ask::kFar, 0, 2);
    }
    for_tile<kR, kV>([&](uint32_t r, uint32_t v)
                         DROVER_LAMBDA { sum[r][v] = i_dot_byte(sum[r][v], w[v], x + r * x_stride + g * 4); });
  }
  for_tile<kR, kV>([&](uint32_t r, uint32_t v)
                       DROVER_LAMBDA { i_columns_store(sums + r * stride + v * kColumns, sum[r][v]); });
}
template <uint32_t kV, uint32_t kR>
DROVER_INLINE void byte_rows(uint32_t rows, const uint8_t* codes, uint64_t panel_stride, const int8_t* x,
                             uint64_t x_stride, uint32_t groups, int32_t* sums, uint32_t stride, bool follows) {
  if constexpr (kR > 0) {
    if (rows != kR) {
      return byte_rows<kV, kR - 1>(rows, codes, panel_stride, x, x_stride, groups, sums, stride, follows);
    }
    if constexpr (kR > kByteRows) {
      byte_tile<kR, kV, AskFar>(codes, panel_stride, x, x_stride, groups, sums, stride);
    } else if constexpr (!close_loads(kR, 2)) {
      byte_tile<kR, kV, AskNothing>(codes, panel_stride, x, x_stride, groups, sums, stride);
    } else if (follows) {
      byte_tile<kR, kV, AskOnce>(codes, panel_stride, x, x_stride, groups, sums, stride);
    } else {
      byte_tile<kR, kV, AskTwice>(codes, panel_stride, x, x_stride, groups, sums, stride);
    }
  }
}

#ifdef DROVER_WORDS
// As byte_tile over one panel's chunk of words. words: the rows' chunk, even elements, then odd ones.
template <uint32_t kR>
void word_tile(const uint8_t* codes, const int16_t* words, uint32_t groups, int32_t* sums, uint32_t stride) {
  ColI sum[kR][2];
  for_tile<kR, 2>([&](uint32_t r, uint32_t v)
                      DROVER_LAMBDA { sum[r][v] = i_columns_load(sums + r * stride + v * kColumns); });
  for (uint32_t g = 0; g < groups; g++) {
#pragma GCC unroll 2
    for (uint32_t odd = 0; odd < 2; odd++) {
      const uint8_t* line = codes + (g * 2 + odd) * kLine;
      const Bytes w[2] = {b_load(line), b_load(line + kLine / 2)};
      const int16_t* pair = words + odd * (kByteChunk / 2) + g * 2;
      for_tile<kR, 2>([&](uint32_t r, uint32_t v)
                          DROVER_LAMBDA { sum[r][v] = i_dot_words(sum[r][v], w[v], pair + r * kByteChunk); });
    }
  }
  for_tile<kR, 2>([&](uint32_t r, uint32_t v)
                      DROVER_LAMBDA { i_columns_store(sums + r * stride + v * kColumns, sum[r][v]); });
}
template <uint32_t kR = kByteRows>
DROVER_INLINE void word_rows(uint32_t rows, const uint8_t* codes, const int16_t* words, uint32_t groups, int32_t* sums,
                             uint32_t stride) {
  if constexpr (kR > 0) {
    if (rows == kR) return word_tile<kR>(codes, words, groups, sums, stride);
    word_rows<kR - 1>(rows, codes, words, groups, sums, stride);
  }
}
// `groups` lines of a panel as words: two lines each.
void widen_words(const uint8_t* codes, uint32_t groups, uint8_t* out) {
  for (uint32_t g = 0; g < groups; g++) {
    for (uint32_t column = 0; column < kPanel; column += kColumns) {
      uint8_t* to = out + g * 2 * kLine + column * 4;
      w_store(to, to + kLine, b_load(codes + g * kLine + column * 4));
    }
  }
}
#endif

#ifdef DROVER_MATRIX
static_assert(kByteChunk == kChunk);
inline constexpr uint32_t kBytePairs = 4;  // their sums of one vector of columns leave registers for what they share
// As byte_tile over one panel's chunk, unpacked, of kR pairs of rows.
template <uint32_t kR>
void matrix_tile(const uint8_t* codes, PairsOf8 x, uint32_t blocks, int32_t* sums) {
  for (uint32_t column = 0; column < kPanel; column += kColumns) {
    const Wide w[1] = {{codes, column}};
    const auto of = [&](uint32_t r) DROVER_LAMBDA { return sums + (r * kPanel + column) * 2; };
    TwoI sum[kR][1];
    for_tile<kR, 1>([&](uint32_t r, uint32_t) DROVER_LAMBDA { sum[r][0] = TwoRows::load(of(r)); });
    for (uint32_t b = 0; b < blocks; b++)
      for_pairs([&]<int kPair>() DROVER_LAMBDA { add_pair<kPair>(w, b, x, b, sum); });
    for_tile<kR, 1>([&](uint32_t r, uint32_t) DROVER_LAMBDA { i_columns_store(of(r), sum[r][0]); });
  }
}
template <uint32_t kR = kBytePairs>
DROVER_INLINE void matrix_rows(uint32_t pairs, const uint8_t* codes, PairsOf8 x, uint32_t blocks, int32_t* sums) {
  if constexpr (kR > 0) {
    if (pairs == kR) return matrix_tile<kR>(codes, x, blocks, sums);
    matrix_rows<kR - 1>(pairs, codes, x, blocks, sums);
  }
}
// 32-blocks of a panel, as Wide has them.
void widen_bytes(const uint8_t* codes, uint32_t blocks, uint8_t* out) {
  for (uint32_t column = 0; column < kPanel; column += kColumns) {
    for (uint32_t b = 0; b < blocks; b++) {
      for_pairs([&]<int kPair>() DROVER_LAMBDA {
        const uint8_t* line = codes + (b * kPairs + kPair) * 2 * kLine + column * 4;
        store_codes<kPair, true>(out, b, column, b_load(line), b_load(line + kLine));
      });
    }
  }
}
#endif

// Rows [row, row + rows), at most kByteRowTile, of `sets` times kV vectors of columns from `panel` on, kR at a time.
template <uint32_t kV, uint32_t kR = kByteRows>
void byte_group(const GemmArgs& args, uint32_t row, uint32_t rows, uint32_t panel, uint32_t sets,
                ByteScratch& scratch) {
  constexpr uint32_t kPanels = kV * kColumns / kPanel, kStride = kBytePanels * kPanel;
  const uint64_t panel_stride = panel_bytes(DType::i8, args.depth), x_stride = args.x_stride_bytes;
  const uint8_t* panels = args.w + panel * panel_stride;
  const uint8_t* x = static_cast<const uint8_t*>(args.x) + row * x_stride;
  const auto real = [&](uint32_t r) DROVER_LAMBDA {
    float scale;
    __builtin_memcpy(&scale, x + r * x_stride + a8_row_scale(args.depth), 4);
    return scale;
  };
  for (uint32_t r = 0; r < round_up(rows, WideVectors::kRows); r++) {
    int32_t start = 0;
    if constexpr (kByteZero != 0) __builtin_memcpy(&start, x + r * x_stride + a8_row_zero128(args.depth), 4);
    for (uint32_t s = 0; s < sets; s++)
      for (uint32_t v = 0; v < kV; v++) i_columns_store(scratch.sums[s][r] + v * kColumns, i_columns(start));
  }
  const uint32_t depth = static_cast<uint32_t>(round_up(args.depth, kByteStep));
  const bool few = rows <= kR;  // these read each panel to its end
  const uint32_t chunk = few ? depth : kByteChunk;
  for (uint32_t k = 0; k < depth; k += chunk) {
    const uint32_t groups = smaller_of(chunk, depth - k) / 4;
    const int8_t* codes_x = reinterpret_cast<const int8_t*>(x) + k;
#ifdef DROVER_WORDS
    for (uint32_t r = 0; r < rows && !few; r++) {
      w_spread(codes_x + r * x_stride, groups / 8, scratch.words[r], scratch.words[r] + kByteChunk / 2);
    }
#endif
#ifdef DROVER_MATRIX
    for (uint32_t r = 0; r < rows && !few; r += 2) {
      const int8_t* codes = codes_x + r * x_stride;
      m_pair(codes, codes + (r + 1 < rows ? x_stride : 0), groups * 4, scratch.pairs[r]);
    }
#endif
    for (uint32_t s = 0; s < sets; s++) {
      const uint8_t* codes = panels + s * kPanels * panel_stride + kI8Lines + uint64_t{k} * kPanel;
#ifdef DROVER_WORDS
      if (!few) {
        widen_words(codes, groups, scratch.codes);
        for (uint32_t r = 0; r < rows; r += kByteRows) {
          word_rows(smaller_of(rows - r, kByteRows), scratch.codes, scratch.words[r], groups, scratch.sums[s][r],
                    kStride);
        }
        continue;
      }
#endif
#ifdef DROVER_MATRIX
      if (!few) {
        widen_bytes(codes, groups / 8, scratch.codes);
        for (uint32_t r = 0; r < rows; r += kBytePairs * 2) {
          const PairsOf8 pairs{{x + r * x_stride, x_stride, args.depth}, rows - r, scratch.pairs[r]};
          matrix_rows(smaller_of((rows - r + 1) / 2, kBytePairs), scratch.codes, pairs, groups / 8, scratch.sums[s][r]);
        }
        continue;
      }
#endif
      for (uint32_t r = 0; r < rows; r += kR) {
        byte_rows<kV, kR>(smaller_of(rows - r, kR), codes, panel_stride, codes_x + r * x_stride, x_stride, groups,
                          scratch.sums[s][r], kStride, args.follows);
      }
    }
  }
  for (uint32_t set = 0; set < sets; set++) {
    const uint32_t first = panel + set * kPanels;
    F32x16 scales[kPanels];
#pragma GCC unroll 4
    for (uint32_t p = 0; p < kPanels; p++) {
      scales[p] = f_load(reinterpret_cast<const float*>(panels + (set * kPanels + p) * panel_stride));
    }
    const int32_t* sums = scratch.sums[set][0];
    for (uint32_t r = 0; r < rows; r++) {
      const F32x16 scale = f_set(real(r));
#pragma GCC unroll 4
      for (uint32_t p = 0; p < kPanels; p++) {
        const uint32_t column = p * kPanel;
        const I32x16 sum = few ? OneRow::row(sums, kStride, r, column) : WideVectors::row(sums, kStride, r, column);
        finish(args, row + r, first + p, f_mul(f_mul(f_from_i(sum), scale), scales[p]));
      }
    }
  }
}

void gemm_i8(const GemmArgs& args, uint32_t row_begin, uint32_t row_end, uint32_t panel_begin, uint32_t panel_end,
             void* scratch) {
  ByteScratch& space = *static_cast<ByteScratch*>(scratch);
  uint32_t panel = panel_begin;
#ifdef DROVER_AVX512
  // Seven or eight rows would read weights twice otherwise, for six of them and for the rest: 250 Gop/s of weights from
  // memory on Zen 4, one thread; so, and with memory asked for, 345. (Fewer rows lose by asking.)
  const uint32_t all = row_end - row_begin;
  for (; all > kByteRows && all <= kTallRows && panel + kTallVectors <= panel_end; panel += kTallVectors) {
    byte_group<kTallVectors, kTallRows>(args, row_begin, all, panel, 1, space);
  }
#endif
  for (uint32_t sets; (sets = smaller_of(panel_end - panel, kByteGroupPanels) / kBytePanels) > 0;
       panel += sets * kBytePanels) {
    for (uint32_t row = row_begin; row < row_end; row += kByteRowTile)
      byte_group<kByteVectors>(args, row, smaller_of(row_end - row, kByteRowTile), panel, sets, space);
  }
  if constexpr (kBytePanels > 1) {
    for (; panel < panel_end; panel++) {
      for (uint32_t row = row_begin; row < row_end; row += kByteRowTile)
        byte_group<kPanel / kColumns>(args, row, smaller_of(row_end - row, kByteRowTile), panel, 1, space);
    }
  }
}

void gemm_f8(const GemmArgs& args, uint32_t row_begin, uint32_t row_end, uint32_t panel_begin, uint32_t panel_end,
             void* scratch) {
  const uint64_t panel_stride = panel_bytes(DType::f8_e4m3, args.depth);
  const uint8_t* x = static_cast<const uint8_t*>(args.x) + f8_row_scale(args.depth);
  float_panels_gemm(args, row_begin, row_end, panel_begin, panel_end,
                    PanelSource<LoadE4M3>{args.w + kF8Lines, panel_stride}, scratch,
                    [&](uint32_t row, uint32_t panel, F32x16 sum) DROVER_LAMBDA {
                      float scale;
                      __builtin_memcpy(&scale, x + row * args.x_stride_bytes, 4);
                      // Codes were loaded as 2^-8 of their values.
                      const F32x16 scaled = f_mul(sum, f_set(scale * 256.0f));
                      const float* scales = reinterpret_cast<const float*>(args.w + panel * panel_stride);
                      const F32x16 marked = f_mul(f_load(scales), f_load(scales + kPanel));
                      finish(args, row, panel, f_mul(scaled, marked));
                    });
}

}  // namespace
}  // namespace drover
