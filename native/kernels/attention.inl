// Attention over the paged cache for the query rows of one KV head: for each page in order, scores, an online softmax,
// then the sums of values. Pages are merged from position 0 on, so a row's result depends on its own visible positions
// alone. Slots a row must not see are never multiplied.
#include "attention_scratch.h"

namespace drover {
namespace {

// Scales the scores of one vector, hides what it does not see, and raises its peak to their largest, by which all that
// is summed so far is rescaled. kScaled: the page's keys have scales of their own.
template <bool kScaled>
DROVER_INLINE void raise_peak(const AttentionScratch& s, uint32_t vector, uint32_t visible, float scale,
                              const uint16_t* key_scales, uint32_t padded) {
  float* scores = s.scores + vector * kPagePositions;
  const F32x16 lowest = f_set(-__builtin_inff());
  F32x16 largest = lowest;
#pragma GCC unroll 4
  for (uint32_t i = 0; i < kPagePositions; i += 16) {
    F32x16 x = f_load(scores + i);
    if (kScaled) x = f_mul(x, f_mul(f_load_bfloat(key_scales + i), f_set(256.0f)));
    x = f_mul(x, f_set(scale));
    if (visible < kPagePositions) x = f_keep_first(x, i >= visible ? 0 : smaller(16, visible - i), lowest);
    f_store(scores + i, x);
    largest = f_max(largest, x);
  }
  const float before = s.peak[vector], peak = f_largest(largest);
  if (!(peak > before)) return;
  const F32x16 correction = f_exp_of_negative(f_set(before - peak));
  float* sums = s.sums + vector * padded;
  for (uint32_t d = 0; d < padded; d += 16) f_store(sums + d, f_mul(f_load(sums + d), correction));
  f_store(s.totals + vector * 16, f_mul(f_load(s.totals + vector * 16), correction));
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

// weighted = probabilities of `vectors` times the scales [64] of a block of values.
DROVER_INLINE void weigh(const AttentionScratch& s, uint32_t vectors, const uint16_t* scales) {
  F32x16 scale[kPagePositions / 16];
  for (uint32_t i = 0; i < kPagePositions / 16; i++) scale[i] = f_load_half(scales + i * 16);
  for (uint32_t v = 0; v < vectors * kPagePositions; v += kPagePositions) {
    for (uint32_t i = 0; i < kPagePositions / 16; i++)
      f_store(s.weighted + v + i * 16, f_mul(f_load(s.scores + v + i * 16), scale[i]));
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
  const uint32_t seen_by_all = seen_by(row_begin), seen_by_some = seen_by(row_end - 1);
  for (uint32_t start = 0; start < seen_by_some; start += kPagePositions) {
    const uint8_t* block = block_at(start);
    const bool last = seen_by_some - start <= kPagePositions;
    const int64_t ahead = last ? 0 : block_at(start + kPagePositions) - block;
    const uint32_t used = smaller(kPagePositions, seen_by_some - start), panels_used = (used + 15) / 16;
    if (byte_queries) {
      byte_scores(bytes, vectors, block, panels_used, s.scores, ahead);
    } else {
      for (uint32_t i = 0; i < vectors * kPagePositions; i += 16) f_store(s.scores + i, f_zero());
      const uint64_t stride = uint64_t{head_dim} * 16;
      if constexpr (kType == DType::q8_0) {
        widen_byte_keys(block, head_dim, panels_used, s.wide);
        attention_product<LoadF32>(s.q, head_dim, vectors, s.wide, stride, panels_used, head_dim, s.scores,
                                   kPagePositions, 0, few, nullptr);
      } else {
        attention_product<Load>(s.q, head_dim, vectors, reinterpret_cast<const Element*>(block), stride, panels_used,
                                head_dim, s.scores, kPagePositions, ahead, few, s.wide);
      }
    }
    const uint8_t* values = block + kv_value_offset(kType, head_dim);
    const uint16_t* key_scales = reinterpret_cast<const uint16_t*>(block + kv_key_bytes(kType, head_dim));
    const uint16_t* value_scales = reinterpret_cast<const uint16_t*>(values + kv_value_bytes(kType, head_dim));
    constexpr bool kScaled = kType == DType::f8_e4m3;
    for (uint32_t v = 0; v < vectors; v++) {
      const uint32_t seen = seen_by(row_begin + v / group);
      if (seen > start)
        raise_peak<kScaled>(s, v, smaller(kPagePositions, seen - start), args.scale, key_scales, padded);
    }
    for (uint32_t v = 0; v < vectors; v++) {
      if (seen_by(row_begin + v / group) > start) exponentiate<kScaled>(s, v, value_scales);
    }
    // Two panels at a time: a block of q8_0's, and what stays in the first-level cache for many rows.
    const uint32_t together = few && kType != DType::q8_0 ? padded / 16 : 2;
    for (uint32_t first = 0; first * 16 < padded; first += together) {
      const uint32_t panels = smaller(together, padded / 16 - first);
      const float* x = s.scores;
      if constexpr (kType == DType::q8_0) {
        weigh(s, vectors, value_scales + first / 2 * kPagePositions);
        x = s.weighted;
      }
      // sums of vectors [v, v + count) += their slots [from, to)
      const auto add = [&](uint32_t v, uint32_t count, uint32_t from, uint32_t to) {
        const uint64_t at = (uint64_t{first} * kPagePositions + from) * 16;
        attention_product<Load>(x + v * kPagePositions + from, kPagePositions, count,
                                reinterpret_cast<const Element*>(values) + at, uint64_t{kPagePositions} * 16, panels,
                                to - from, s.sums + v * padded + first * 16, padded, ahead, few, s.wide);
      };
      const uint32_t common = seen_by_all > start ? smaller(used, seen_by_all - start) : 0;
      if (common != 0) add(0, vectors, 0, common);
      for (uint32_t row = row_begin; row < row_end && common < used; row++) {  // what not all rows see
        const uint32_t seen = seen_by(row) > start ? smaller(used, seen_by(row) - start) : 0;
        if (seen > common) add((row - row_begin) * group, group, common, seen);
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
      return attend<DType::q8_0, LoadI8>(args, kv_head, row_begin, row_end, scratch);
  }
}

constexpr void fill_attention(KernelTable& table) {
  table.attention = attention;
  table.kv_write = kv_write;
}

}  // namespace
}  // namespace drover
