// Attention over the paged cache for the query rows of one KV head: for each page in order, scores, an online softmax,
// then the sums of values. Pages are merged from position 0 on, so a row's result depends on its own visible positions
// alone. Slots a row must not see are never multiplied.
#include "attention_scratch.h"

namespace drover {
namespace {

// Scales the scores of one vector, hides what it does not see, and returns the largest. kScaled: the page's keys have
// scales of their own.
template <bool kScaled>
DROVER_INLINE float scale_scores(const AttentionScratch& s, uint32_t vector, uint32_t visible, float scale,
                                 const uint16_t* key_scales) {
  float* scores = s.scores + vector * kPagePositions;
  const F32x16 lowest = f_set(-__builtin_inff());
  F32x16 largest = lowest;
#pragma GCC unroll 4
  for (uint32_t i = 0; i < kPagePositions; i += 16) {
    F32x16 x = f_load(scores + i);
    if (kScaled) x = f_mul(x, f_mul(f_load_bfloat(key_scales + i), f_set(256.0f)));
    x = f_mul(x, f_set(scale));
    if (visible < kPagePositions) x = f_keep_first(x, i >= visible ? 0 : smaller_of(16, visible - i), lowest);
    f_store(scores + i, x);
    largest = f_max(largest, x);
  }
  return f_largest(largest);
}

// Multiplies all that is summed so far.
DROVER_INLINE void rescale(const AttentionScratch& s, uint32_t vector, F32x16 correction, uint32_t padded) {
  float* sums = s.sums + vector * padded;
  for (uint32_t d = 0; d < padded; d += 16) f_store(sums + d, f_mul(f_load(sums + d), correction));
  f_store(s.totals + vector * 16, f_mul(f_load(s.totals + vector * 16), correction));
}

// Scores of one vector scaled, its peak raised to their largest.
template <bool kScaled>
DROVER_INLINE void raise_peak(const AttentionScratch& s, uint32_t vector, uint32_t visible, float scale,
                              const uint16_t* key_scales, uint32_t padded) {
  const float before = s.peak[vector], peak = scale_scores<kScaled>(s, vector, visible, scale, key_scales);
  if (!(peak > before)) return;
  rescale(s, vector, f_exp_of_negative(f_set(before - peak)), padded);
  s.peak[vector] = peak;
}

// Turns scores of one vector into probabilities relative to its peak; they are stored times the scales of the page's
// values, if those have any (kScaled).
template <bool kScaled>
DROVER_INLINE void exponentiate(const AttentionScratch& s, uint32_t vector, const uint16_t* value_scales) {
  float* scores = s.scores + vector * kPagePositions;
  const float peak = s.peak[vector];
  const F32x16 shift = f_set(peak == -__builtin_inff() ? 0.0f : peak);
  F32x16 total = f_load(s.totals + vector * 16);
#pragma GCC unroll 4
  for (uint32_t i = 0; i < kPagePositions; i += 16) {
    const F32x16 e = f_exp_of_negative(f_sub(f_load(scores + i), shift));
    total = f_add(total, e);
    f_store(scores + i, kScaled ? f_mul(e, f_mul(f_load_bfloat(value_scales + i), f_set(256.0f))) : e);
  }
  f_store(s.totals + vector * 16, total);
}

// The two steps for 8-bit queries: probabilities relative to the page's own peak, so that their 16-bit forms keep their
// precision however much more likely another page is; s.factor brings them to the peak of all pages. Vectors
// [begin, end) go step by step together, for each step of one vector waits long for the step before it.
template <typename Visible>
DROVER_INLINE void byte_softmax(const AttentionScratch& s, uint32_t begin, uint32_t end, Visible visible, float scale,
                                uint32_t padded) {
  constexpr uint32_t kTogether = 8;
  for (uint32_t first = begin; first < end; first += kTogether) {
    const uint32_t count = smaller_of(end - first, kTogether);
    float page_peak[kTogether];
    alignas(64) float power[2 * kTogether] = {};
    for (uint32_t i = 0; i < count; i++) {
      const uint32_t v = first + i;
      const float before = s.peak[v];
      page_peak[i] = scale_scores<false>(s, v, visible(v), scale, nullptr);
      const float peak = page_peak[i] > before ? page_peak[i] : before;
      const float shift = peak == -__builtin_inff() ? 0.0f : peak;
      power[2 * i] = before - shift;
      power[2 * i + 1] = page_peak[i] - shift;
    }
    f_store(power, f_exp_of_negative(f_load(power)));
    for (uint32_t i = 0; i < count; i++) {
      const uint32_t v = first + i;
      if (page_peak[i] > s.peak[v]) {
        rescale(s, v, f_set(power[2 * i]), padded);
        s.peak[v] = page_peak[i];
      }
      s.factor[v] = power[2 * i + 1];
      float* scores = s.scores + v * kPagePositions;
      const F32x16 page_shift = f_set(page_peak[i] == -__builtin_inff() ? 0.0f : page_peak[i]);
      F32x16 total = f_zero();
#pragma GCC unroll 4
      for (uint32_t p = 0; p < kPagePositions; p += 16) {
        const F32x16 e = f_exp_of_negative(f_sub(f_load(scores + p), page_shift));
        total = f_add(total, e);
        f_store(scores + p, e);
      }
      float* totals = s.totals + v * 16;
      f_store(totals, f_fma(total, f_set(power[2 * i + 1]), f_load(totals)));
    }
  }
}

// sums of vectors [begin, end) += their probabilities times a q8_0 page of values; visible(v): positions v sees.
template <typename Visible>
DROVER_INLINE void add_byte_values(const AttentionScratch& s, uint32_t begin, uint32_t end, const uint8_t* values,
                                   const uint16_t* scales, uint32_t used, uint32_t padded, Visible visible,
                                   int64_t ahead) {
  const uint32_t blocks = (padded + 31) / 32, seen_first = visible(begin);
  // All blocks' at once: each waits long for its largest.
  for (uint32_t b = 0; b < blocks; b++) s.weights[b] = byte_weights(scales + b * kPagePositions, seen_first);
  for (uint32_t b = 0; b < blocks; b++) {
    uint32_t seen = seen_first;
    ByteWeights& weights = s.weights[b];
    for (uint32_t v = begin; v < end; v++) {
      if (visible(v) != seen) {  // what a row does not see must not change its fractions
        seen = visible(v);
        weights = byte_weights(scales + b * kPagePositions, seen);
      }
      s.weight[v] = s.factor[v] * weights.largest;
      for (uint32_t i = 0; i < kPagePositions; i += 16) {
        const F32x16 word = f_mul(f_load(s.scores + v * kPagePositions + i), f_load(weights.ratio + i));
        i_store_i16(s.words + v * kPagePositions + i, i_from_f(word));
      }
    }
    byte_values(s.words + begin * kPagePositions, s.weight + begin, end - begin,
                reinterpret_cast<const int8_t*>(values) + uint64_t{b} * 2 * kPagePositions * kPanel,
                smaller_of(2, padded / kPanel - b * 2), (used + 1) / 2, s.sums + uint64_t{begin} * padded + b * 32,
                padded, ahead);
  }
}

// weighted = probabilities of `vectors` times the scales [64] of a block of values.
DROVER_INLINE void weigh(const AttentionScratch& s, uint32_t vectors, const uint16_t* scales) {
  F32x16 scale[kPagePositions / 16];
  for (uint32_t i = 0; i < kPagePositions / 16; i++) scale[i] = f_load_half(scales + i * 16);
  for (uint32_t v = 0; v < vectors * kPagePositions; v += kPagePositions) {
    for (uint32_t i = 0; i < kPagePositions / 16; i++)
      f_store(s.weighted + v + i * 16, f_mul(f_load(s.scores + v + i * 16), scale[i]));
  }
}

// Asks for the scales of a page that comes next; without, each of their lines would be waited for.
template <DType kType>
DROVER_INLINE void ask_scales(const uint8_t* block, uint32_t head_dim) {
  const uint8_t *keys = block + kv_key_bytes(kType, head_dim),
                *values = block + kv_value_offset(kType, head_dim) + kv_value_bytes(kType, head_dim);
  for (uint64_t at = 0; at < kv_scale_bytes(kType, head_dim); at += kLine) {
    __builtin_prefetch(keys + at, 0, 2);
    __builtin_prefetch(values + at, 0, 2);
  }
}

template <DType kType, typename Load>
void attend(const AttentionArgs& args, uint32_t kv_head, uint32_t row_begin, uint32_t row_end, void* scratch) {
  using Element = typename Load::Element;
  const uint32_t group = args.heads / args.kv_heads, head_dim = args.head_dim;
  const uint32_t vectors = (row_end - row_begin) * group;
  const uint32_t padded = static_cast<uint32_t>(round_up(head_dim, kPanel));
  const bool few = vectors <= kFewVectors, byte_queries = kType == DType::q8_0 && args.byte_queries;
  AttentionScratch s;
  s.place(scratch, group, head_dim);
  const RowsOf8 bytes{s.bytes, activation_row_bytes(DType::a8_32, head_dim), head_dim};
  for (uint32_t v = 0; v < vectors; v++) {
    const uint64_t row = args.first_row + row_begin + v / group;
    const float* q = args.q + row * args.q_stride + (kv_head * group + v % group) * head_dim;
    if (byte_queries) {
      quantize_a8_32(q, head_dim, s.bytes + v * bytes.stride);
    } else {
      float* to = s.q + v * head_dim;
      for_lanes(head_dim, [&](uint32_t d, uint32_t count) { store_lanes(to + d, load_lanes(q + d, count), count); });
    }
    for (uint32_t d = 0; d < padded; d += 16) f_store(s.sums + v * padded + d, f_zero());
    f_store(s.totals + v * 16, f_zero());
    s.peak[v] = -__builtin_inff();
  }
  // Positions a row sees: up to its own, or the whole sequence.
  const auto seen_by = [&](uint32_t row) { return args.causal ? args.cache_start + row + 1 : args.cache_end; };
  const auto block_at = [&](uint32_t position) {
    return args.kv + args.pages[position / kPagePositions] * args.page_stride_bytes + kv_head * args.block_bytes;
  };
  const uint32_t seen_by_some = seen_by(row_end - 1);
  for (uint32_t start = 0; start < seen_by_some; start += kPagePositions) {
    const uint8_t* block = block_at(start);
    const bool last = seen_by_some - start <= kPagePositions;
    const int64_t ahead = last ? 0 : block_at(start + kPagePositions) - block;
    const uint32_t used = smaller_of(kPagePositions, seen_by_some - start), panels_used = (used + 15) / 16;
    const uint8_t* values = block + kv_value_offset(kType, head_dim);
    const uint16_t* key_scales = reinterpret_cast<const uint16_t*>(block + kv_key_bytes(kType, head_dim));
    const uint16_t* value_scales = reinterpret_cast<const uint16_t*>(values + kv_value_bytes(kType, head_dim));
    if (few) ask_scales<kType>(block + ahead, head_dim);
    // Rows see more and more: those before the first that sees this page are left out.
    const auto visible = [&](uint32_t v) {
      const uint32_t seen = seen_by(row_begin + v / group);
      return seen > start ? smaller_of(used, seen - start) : 0;
    };
    if constexpr (kType == DType::q8_0) {
      if (byte_queries) {
        byte_scores(bytes, vectors, block, panels_used, s.scores, ahead);
        uint32_t first = 0;
        while (visible(first) == 0) first += group;
        byte_softmax(s, first, vectors, visible, args.scale, padded);
        add_byte_values(s, first, vectors, values, value_scales, used, padded, visible, ahead);
        continue;
      }
    }
    for (uint32_t i = 0; i < vectors * kPagePositions; i += 16) f_store(s.scores + i, f_zero());
    const uint64_t stride = uint64_t{head_dim} * 16;
    if constexpr (kType == DType::q8_0) {
      widen_byte_keys(block, head_dim, panels_used, s.wide);
      attention_product<LoadF32, false>(s.q, head_dim, vectors, s.wide, stride, panels_used, head_dim, s.scores,
                                        kPagePositions, 0, true, few, nullptr);
    } else {
      attention_product<Load, true>(s.q, head_dim, vectors, reinterpret_cast<const Element*>(block), stride,
                                    panels_used, head_dim, s.scores, kPagePositions, ahead, args.follows, few, s.wide);
    }
    constexpr bool kScaled = kType == DType::f8_e4m3;
    for (uint32_t v = 0; v < vectors; v++) {
      if (visible(v) != 0) raise_peak<kScaled>(s, v, visible(v), args.scale, key_scales, padded);
    }
    for (uint32_t v = 0; v < vectors; v++) {
      if (visible(v) != 0) exponentiate<kScaled>(s, v, value_scales);
    }
    // Two panels at a time: a block of q8_0's, and what stays in the first-level cache for many rows.
    const uint32_t together = few && kType != DType::q8_0 ? padded / 16 : 2;
    for (uint32_t first = 0; first * 16 < padded; first += together) {
      const uint32_t panels = smaller_of(together, padded / 16 - first);
      const float* x = s.scores;
      const Element* w = reinterpret_cast<const Element*>(values) + uint64_t{first} * kPagePositions * kPanel;
      if constexpr (kType == DType::q8_0) {
        weigh(s, vectors, value_scales + first / 2 * kPagePositions);
        x = s.weighted;
        widen_byte_values(reinterpret_cast<const int8_t*>(values) + uint64_t{first} * kPagePositions * kPanel, panels,
                          used, s.wide);
        w = s.wide;
      }
      // sums of vectors [v, v + count) += their slots [from, to)
      const auto add = [&](uint32_t v, uint32_t count, uint32_t from, uint32_t to) {
        attention_product<Load, kType != DType::q8_0>(
            x + v * kPagePositions + from, kPagePositions, count, w + from * kPanel, uint64_t{kPagePositions} * kPanel,
            panels, to - from, s.sums + v * padded + first * 16, padded, ahead, args.follows, few, s.wide);
      };
      const uint32_t common = visible(0);
      if (common != 0) add(0, vectors, 0, common);
      for (uint32_t v = 0; v < vectors && common < used; v += group) {  // what not all rows see
        if (visible(v) > common) add(v, group, common, visible(v));
      }
    }
  }
  for (uint32_t v = 0; v < vectors; v++) {
    const uint64_t row = args.first_row + row_begin + v / group;
    float* out = args.out + row * args.out_stride + (kv_head * group + v % group) * head_dim;
    const float* sums = s.sums + v * padded;
    const F32x16 total = f_set(f_sum(f_load(s.totals + v * 16)));
    for_lanes(head_dim,
              [&](uint32_t d, uint32_t count) { store_lanes(out + d, f_div(f_load(sums + d), total), count); });
  }
}

void attention(DType type, const AttentionArgs& args, uint32_t kv_head, uint32_t row_begin, uint32_t row_end,
               void* scratch) {
  switch (type) {
    case DType::f32:
      return attend<DType::f32, LoadF32>(args, kv_head, row_begin, row_end, scratch);
    case DType::f16:
      return attend<DType::f16, LoadF16>(args, kv_head, row_begin, row_end, scratch);
    case DType::bf16:
      return attend<DType::bf16, LoadBF16>(args, kv_head, row_begin, row_end, scratch);
    case DType::f8_e4m3:
      return attend<DType::f8_e4m3, LoadE4M3>(args, kv_head, row_begin, row_end, scratch);
    default:
      return attend<DType::q8_0, LoadF32>(args, kv_head, row_begin, row_end, scratch);
  }
}

constexpr void fill_attention(KernelTable& table) {
  table.attention = attention;
  table.kv_write = kv_write;
}

}  // namespace
}  // namespace drover
