// Attention over the paged cache for the query rows of one KV head: for each page in order, scores by the float tile
// kernel on key panels, an online softmax, values by the same kernel on value panels. Pages are merged from position 0
// on, so a row's result depends on its own visible positions alone. Slots a row must not see are never multiplied.
#include "kv.h"

namespace drover {
namespace {

struct AttentionScratch {
  float* q;       // [vectors][head_dim]: the group's query vectors, row by row
  float* scores;  // [vectors][64]
  float* sums;    // [vectors][padded head_dim]: the unnormalised output
  float* peak;    // [vectors]
  float* total;   // [vectors]
  float* panels;  // kPanelsAtOnce key or value panels as f32
};

DROVER_INLINE uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }

// Key panels [0, panels) (16 positions each) of a block as f32 [panels][head_dim][16].
DROVER_INLINE const float* key_panels(DType type, const uint8_t* block, uint32_t head_dim, uint32_t panels,
                                      float* out) {
  const uint32_t lines = panels * head_dim;  // of 16 positions
  if (type == DType::f32) return reinterpret_cast<const float*>(block);
  if (type == DType::f16) {
    const uint16_t* from = reinterpret_cast<const uint16_t*>(block);
    for (uint32_t i = 0; i < lines; i++) f_store(out + i * 16, f_load_half(from + i * 16));
    return out;
  }
  const int8_t* from = reinterpret_cast<const int8_t*>(block);
  const uint32_t blocks = (head_dim + 31) / 32;
  const uint16_t* scales = reinterpret_cast<const uint16_t*>(block + kv_key_bytes(type, head_dim));
  for (uint32_t p = 0; p < panels; p++, scales += blocks * 16) {
    for (uint32_t d = 0; d < head_dim; d++) {
      const uint32_t i = (p * head_dim + d) * 16;
      f_store(out + i, f_mul(f_load_i8(from + i), f_load_half(scales + d / 32 * 16)));
    }
  }
  return out;
}

// Value panels [first, first + panels) (16 elements of head_dim each) of a block as f32 [panels][kPagePositions][16].
DROVER_INLINE const float* value_panels(DType type, const uint8_t* block, uint32_t head_dim, uint32_t first,
                                        uint32_t panels, uint32_t positions, float* out) {
  const uint8_t* values = block + kv_value_offset(type, head_dim);
  constexpr uint64_t kPanelElements = uint64_t{kPagePositions} * 16;
  if (type == DType::f32) return reinterpret_cast<const float*>(values) + first * kPanelElements;
  for (uint32_t p = 0; p < panels; p++) {
    float* to = out + p * kPanelElements;
    const uint64_t begin = (first + p) * kPanelElements;
    if (type == DType::f16) {
      const uint16_t* from = reinterpret_cast<const uint16_t*>(values) + begin;
      for (uint32_t i = 0; i < positions; i++) f_store(to + i * 16, f_load_half(from + i * 16));
      continue;
    }
    const int8_t* from = reinterpret_cast<const int8_t*>(values) + begin;
    const uint16_t* scales =
        reinterpret_cast<const uint16_t*>(values + kv_value_bytes(type, head_dim)) + (first + p) / 2 * kPagePositions;
    for (uint32_t i = 0; i < positions; i++) {
      f_store(to + i * 16, f_mul(f_load_i8(from + i * 16), f_set(half_to_float(scales[i]))));
    }
  }
  return out;
}

// Turns scores of one vector into probabilities relative to the new peak and rescales what is summed so far.
DROVER_INLINE void online_softmax(const AttentionScratch& s, uint32_t vector, uint32_t visible, float scale,
                                  uint32_t padded) {
  float* scores = s.scores + vector * kPagePositions;
  const F32x16 lowest = f_set(-__builtin_inff());
  F32x16 largest = lowest;
  for (uint32_t i = 0; i < kPagePositions; i += 16) {
    const uint32_t count = i >= visible ? 0 : smaller(16, visible - i);
    const F32x16 v = f_keep_first(f_mul(f_load(scores + i), f_set(scale)), count, lowest);
    f_store(scores + i, v);
    largest = f_max(largest, v);
  }
  const float page_peak = f_largest(largest);
  const float peak = page_peak > s.peak[vector] ? page_peak : s.peak[vector];
  const float shift = peak == -__builtin_inff() ? 0.0f : peak;
  F32x16 total = f_zero();
  for (uint32_t i = 0; i < kPagePositions; i += 16) {
    const F32x16 e = f_exp(f_sub(f_load(scores + i), f_set(shift)));
    f_store(scores + i, e);
    total = f_add(total, e);
  }
  float correction[16];
  f_store(correction, f_exp(f_set(s.peak[vector] - shift)));
  s.total[vector] = __builtin_fmaf(s.total[vector], correction[0], f_sum(total));
  if (s.peak[vector] != peak) {
    float* sums = s.sums + vector * padded;
    for (uint32_t d = 0; d < padded; d += 16) f_store(sums + d, f_mul(f_load(sums + d), f_set(correction[0])));
  }
  s.peak[vector] = peak;
}

void attention(DType type, const AttentionArgs& args, uint32_t kv_head, uint32_t row_begin, uint32_t row_end,
               void* scratch) {
  const uint32_t group = args.heads / args.kv_heads, head_dim = args.head_dim;
  const uint32_t vectors = (row_end - row_begin) * group;
  const uint32_t padded = static_cast<uint32_t>(round_up(head_dim, kPanel));
  AttentionScratch s;
  s.q = static_cast<float*>(scratch);
  s.scores = s.q + round_up(uint64_t{kAttentionRows} * group * head_dim, 16);
  s.sums = s.scores + uint64_t{kAttentionRows} * group * kPagePositions;
  s.peak = s.sums + uint64_t{kAttentionRows} * group * padded;
  s.total = s.peak + uint64_t{kAttentionRows} * group;
  s.panels = s.total + uint64_t{kAttentionRows} * group;
  for (uint32_t v = 0; v < vectors; v++) {
    const uint64_t row = args.first_row + row_begin + v / group;
    const float* q = args.q + row * args.q_stride + (kv_head * group + v % group) * head_dim;
    for (uint32_t d = 0; d < head_dim; d++) s.q[v * head_dim + d] = q[d];
    for (uint32_t d = 0; d < padded; d += 16) f_store(s.sums + v * padded + d, f_zero());
    s.peak[v] = -__builtin_inff();
    s.total[v] = 0;
  }
  // Positions a row sees: up to its own, or the whole sequence.
  const auto seen_by = [&](uint32_t row) { return args.causal ? args.cache_start + row + 1 : args.cache_end; };
  const uint32_t seen_by_all = seen_by(row_begin), seen_by_some = seen_by(row_end - 1);
  for (uint32_t start = 0; start < seen_by_some; start += kPagePositions) {
    const uint8_t* block =
        args.kv + args.pages[start / kPagePositions] * args.page_stride_bytes + kv_head * args.block_bytes;
    const uint32_t used = smaller(kPagePositions, seen_by_some - start);
    for (uint32_t i = 0; i < vectors * kPagePositions; i += 16) f_store(s.scores + i, f_zero());
    const uint32_t key_panels_used = (used + 15) / 16;
    const float* keys = key_panels(type, block, head_dim, key_panels_used, s.panels);
    float_panels<LoadF32>(s.q, head_dim, vectors, keys, uint64_t{head_dim} * 16, key_panels_used, head_dim, s.scores,
                          kPagePositions);
    for (uint32_t v = 0; v < vectors; v++) {
      const uint32_t seen = seen_by(row_begin + v / group);
      if (seen > start) online_softmax(s, v, smaller(kPagePositions, seen - start), args.scale, padded);
    }
    for (uint32_t first = 0; first * 16 < padded; first += kPanelsAtOnce) {
      const uint32_t panels = smaller(kPanelsAtOnce, padded / 16 - first);
      const float* values = value_panels(type, block, head_dim, first, panels, used, s.panels);
      constexpr uint64_t kStride = uint64_t{kPagePositions} * 16;
      float* sums = s.sums + first * 16;
      if (seen_by_all >= start + kPagePositions || !args.causal) {
        float_panels<LoadF32>(s.scores, kPagePositions, vectors, values, kStride, panels, used, sums, padded);
        continue;
      }
      for (uint32_t row = row_begin; row < row_end; row++) {  // the page that the rows themselves end in
        const uint32_t seen = seen_by(row), v = (row - row_begin) * group;
        if (seen <= start) continue;
        float_panels<LoadF32>(s.scores + v * kPagePositions, kPagePositions, group, values, kStride, panels,
                              smaller(kPagePositions, seen - start), sums + v * padded, padded);
      }
    }
  }
  for (uint32_t v = 0; v < vectors; v++) {
    const uint64_t row = args.first_row + row_begin + v / group;
    float* out = args.out + row * args.out_stride + (kv_head * group + v % group) * head_dim;
    const float* sums = s.sums + v * padded;
    const F32x16 total = f_set(s.total[v]);
    for_lanes(head_dim,
              [&](uint32_t d, uint32_t count) { store_lanes(out + d, f_div(f_load(sums + d), total), count); });
  }
}

// One position of one head; f16 and q8_0 round to nearest even.
DROVER_INLINE void write_q8_0(const float* x, uint32_t head_dim, int8_t* out, uint64_t step, uint64_t panel_step,
                              uint16_t* scales, uint64_t scale_step) {
  for (uint32_t b = 0; b * 32 < head_dim; b++) {
    const uint32_t count = smaller(32, head_dim - b * 32);
    float peak = 0, poison = 0;
    for (uint32_t i = 0; i < count; i++) {
      const float v = __builtin_fabsf(x[b * 32 + i]);
      peak = v > peak ? v : peak;
      poison += v * 0.0f;
    }
    const bool finite = poison == 0.0f;
    const bool zero = !finite || peak < kSmallestQuantized;
    scales[b * scale_step] = finite ? float_to_half(zero ? 0.0f : peak / 127.0f) : 0x7e00;
    const float inverse = zero ? 0.0f : 127.0f / peak;
    for (uint32_t i = 0; i < count; i++) {
      const uint32_t d = b * 32 + i;
      const float code = zero ? 0.0f : __builtin_nearbyintf(x[d] * inverse);
      out[d / 16 * panel_step + d % 16 * step] = static_cast<int8_t>(code);
    }
  }
}

void kv_write(DType type, const float* k, const float* v, uint32_t head_dim, uint32_t slot, uint8_t* block) {
  const uint64_t key = uint64_t{slot / 16} * head_dim * 16 + slot % 16;  // then 16 per element
  uint8_t* values = block + kv_value_offset(type, head_dim);
  if (type == DType::q8_0) {
    const uint32_t blocks = (head_dim + 31) / 32;
    uint16_t* key_scales = reinterpret_cast<uint16_t*>(block + kv_key_bytes(type, head_dim));
    uint16_t* value_scales = reinterpret_cast<uint16_t*>(values + kv_value_bytes(type, head_dim));
    write_q8_0(k, head_dim, reinterpret_cast<int8_t*>(block) + key, 16, 256,
               key_scales + slot / 16 * blocks * 16 + slot % 16, 16);
    write_q8_0(v, head_dim, reinterpret_cast<int8_t*>(values) + slot * 16, 1, kPagePositions * 16, value_scales + slot,
               kPagePositions);
    return;
  }
  for (uint32_t d = 0; d < head_dim; d++) {
    const uint64_t value = (uint64_t{d / 16} * kPagePositions + slot) * 16 + d % 16;
    if (type == DType::f32) {
      reinterpret_cast<float*>(block)[key + uint64_t{d} * 16] = k[d];
      reinterpret_cast<float*>(values)[value] = v[d];
    } else {
      reinterpret_cast<uint16_t*>(block)[key + uint64_t{d} * 16] = float_to_half(k[d]);
      reinterpret_cast<uint16_t*>(values)[value] = float_to_half(v[d]);
    }
  }
}

constexpr void fill_attention(KernelTable& table) {
  table.attention = attention;
  table.kv_write = kv_write;
}

}  // namespace
}  // namespace drover
