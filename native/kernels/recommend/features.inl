// Products between features, gates, and the loop that measures random reads.
namespace drover {
namespace {

template <typename Body>
DROVER_INLINE void for_vectors(uint32_t cols, Body body) {
  uint32_t i = 0;
  for (; i + 16 <= cols; i += 16) body(i, 16u);
  if (i < cols) body(i, cols - i);
}
DROVER_INLINE F32x16 load_vector(const float* p, uint32_t count) {
  return count == 16 ? f_load(p) : f_load_part(p, count);
}
DROVER_INLINE void store_vector(float* p, F32x16 a, uint32_t count) {
  if (count == 16) return f_store(p, a);
  f_store_part(p, a, count);
}

// Products of one vector with kOthers that lie behind each other, `dim` apart.
template <uint32_t kOthers>
DROVER_INLINE void products(const float* a, const float* others, uint32_t dim, float* out) {
  F32x16 sums[kOthers];
#pragma GCC unroll 4
  for (uint32_t o = 0; o < kOthers; o++) sums[o] = f_zero();
  for_vectors(dim, [&](uint32_t at, uint32_t count) {
    const F32x16 x = load_vector(a + at, count);
#pragma GCC unroll 4
    for (uint32_t o = 0; o < kOthers; o++) {
      sums[o] = f_fma(x, load_vector(others + uint64_t{o} * dim + at, count), sums[o]);
    }
  });
#pragma GCC unroll 4
  for (uint32_t o = 0; o < kOthers; o++) out[o] = f_sum(sums[o]);
}

void interaction(const float* dense, const float* pooled, uint32_t dim, uint32_t tables, bool itself, float* out) {
  for_vectors(dim, [&](uint32_t at, uint32_t count) { store_vector(out + at, load_vector(dense + at, count), count); });
  out += dim;
  for (uint32_t i = 0; i <= tables; i++) {
    const float* a = i == 0 ? dense : pooled + uint64_t{i - 1} * dim;
    const uint32_t others = i + (itself ? 1 : 0);  // of dense, pooled 0, pooled 1, ...
    if (others == 0) continue;
    products<1>(a, dense, dim, out++);
    uint32_t j = 1;
    for (; j + 4 <= others; j += 4, out += 4) products<4>(a, pooled + uint64_t{j - 1} * dim, dim, out);
    for (; j < others; j++) products<1>(a, pooled + uint64_t{j - 1} * dim, dim, out++);
  }
}

void cross(const float* x0, const float* y, const float* x, uint32_t cols, float* out) {
  for_vectors(cols, [&](uint32_t at, uint32_t count) {
    const F32x16 product = f_fma(load_vector(x0 + at, count), load_vector(y + at, count), load_vector(x + at, count));
    store_vector(out + at, product, count);
  });
}

void sigmoid(const float* x, uint32_t cols, float* out) {
  for_vectors(cols, [&](uint32_t at, uint32_t count) {
    const F32x16 one = f_set(1.0f);
    const F32x16 e = f_exp(f_sub(f_zero(), load_vector(x + at, count)));
    store_vector(out + at, f_div(one, f_add(one, e)), count);
  });
}

template <int kLevel>
uint64_t gather_to(const uint8_t* rows, uint32_t lines, const uint32_t* indices, uint64_t count, uint32_t distance) {
  const uint64_t stride = uint64_t{lines} * 64;
  uint64_t sums[4] = {};
  const auto ask = [&](uint64_t i) {
    const uint8_t* row = rows + indices[i] * stride;
    for (uint32_t line = 0; line < lines; line++) __builtin_prefetch(row + uint64_t{line} * 64, 0, kLevel);
  };
  for (uint64_t i = 0; i < count && i < distance; i++) ask(i);
  for (uint64_t i = 0; i < count; i++) {
    if (i + distance < count) ask(i + distance);
    const uint8_t* row = rows + indices[i] * stride;
    for (uint32_t line = 0; line < lines; line++) {
      uint64_t word;
      memcpy(&word, row + uint64_t{line} * 64, sizeof word);
      sums[line % 4] += word;
    }
  }
  return sums[0] + sums[1] + sums[2] + sums[3];
}

uint64_t gather(const uint8_t* rows, uint32_t lines, const uint32_t* indices, uint64_t count, uint32_t distance,
                bool near) {
  return near ? gather_to<3>(rows, lines, indices, count, distance)
              : gather_to<2>(rows, lines, indices, count, distance);
}

constexpr void fill_features(RecommendKernels& table) {
  table.interaction = interaction;
  table.cross = cross;
  table.sigmoid = sigmoid;
  table.gather = gather;
}

}  // namespace
}  // namespace drover
