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

// Products of one vector with kOthers that lie behind each other, `dim` apart: 16 lanes each, still to be added up.
template <uint32_t kOthers>
DROVER_INLINE void products(const float* a, const float* others, uint32_t dim, F32x16* out) {
  F32x16 sums[kOthers];
#pragma GCC unroll 8
  for (uint32_t o = 0; o < kOthers; o++) sums[o] = f_zero();
  uint32_t at = 0;
  for (; at + 16 <= dim; at += 16) {
    const F32x16 x = f_load(a + at);
#pragma GCC unroll 8
    for (uint32_t o = 0; o < kOthers; o++) sums[o] = f_fma(x, f_load(others + uint64_t{o} * dim + at), sums[o]);
  }
  if (at < dim) {
    const F32x16 x = f_load_part(a + at, dim - at);
#pragma GCC unroll 8
    for (uint32_t o = 0; o < kOthers; o++) {
      sums[o] = f_fma(x, f_load_part(others + uint64_t{o} * dim + at, dim - at), sums[o]);
    }
  }
#pragma GCC unroll 8
  for (uint32_t o = 0; o < kOthers; o++) out[o] = sums[o];
}

void interaction(const float* dense, const float* pooled, uint32_t dim, uint32_t tables, bool itself, float* out) {
  for_vectors(dim, [&](uint32_t at, uint32_t count) { store_vector(out + at, load_vector(dense + at, count), count); });
  out += dim;
  // Lanes of 16 products are added up together: one by one that would take longer than the products.
  F32x16 waiting[16 + kSumVectors];
  uint32_t count = 0;
  const auto settle = [&] {
    if (count < 16) return;
    f_store(out, f_sums(waiting));
    out += 16;
    count -= 16;
    for (uint32_t i = 0; i < count; i++) waiting[i] = waiting[16 + i];
  };
  for (uint32_t i = 0; i <= tables; i++) {
    const float* a = i == 0 ? dense : pooled + uint64_t{i - 1} * dim;
    const uint32_t others = i + (itself ? 1 : 0);  // of dense, pooled 0, pooled 1, ...
    if (others == 0) continue;
    products<1>(a, dense, dim, waiting + count++);
    settle();
    uint32_t j = 1;
    // Products that nobody asked for cost less than loops over few: those of whole groups are made, and written over.
    for (; j < others && j + kSumVectors <= tables + 1; j += kSumVectors) {
      products<kSumVectors>(a, pooled + uint64_t{j - 1} * dim, dim, waiting + count);
      count += smaller_of(others - j, kSumVectors);
      settle();
    }
    for (; j < others; j++) {
      products<1>(a, pooled + uint64_t{j - 1} * dim, dim, waiting + count++);
      settle();
    }
  }
  for (uint32_t i = count; i < 16; i++) waiting[i] = f_zero();
  f_store_part(out, f_sums(waiting), count);
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

// One byte of each line that a row lies in, asked for in the order in which it is read; nothing else is done. kLines as
// in ask_lines. (What asks is part of its caller before GCC looks for functions without effect: it takes a request to
// memory for none.)
template <int kLevel, uint32_t kLines>
uint64_t gather_lines(const GatherWork& work, uint32_t distance, uint32_t lines, uint32_t last) {
  const uint64_t ahead = distance < work.count ? distance : work.count;
  uint64_t sum = 0;
  for (uint64_t i = 0; i < ahead; i++) {
    ask_lines<kLines, kLevel>(work.rows + work.indices[i] * work.stride, lines, last);
  }
  for (uint64_t i = 0; i < work.count; i++) {
    if (i + ahead < work.count) {
      ask_lines<kLines, kLevel>(work.rows + work.indices[i + ahead] * work.stride, lines, last);
    }
    const uint8_t* row = work.rows + work.indices[i] * work.stride;
    if constexpr (kLines != 0) {
#pragma GCC unroll 8
      for (uint32_t line = 0; line < kLines; line++) sum += row[line * 64];
    } else {
      for (uint32_t line = 0; line < lines; line++) sum += row[uint64_t{line} * 64];
    }
    if (last != 0) sum += row[last];
  }
  return sum;
}

template <int kLevel>
uint64_t gather_to(const GatherWork& work, uint32_t distance) {
  const uint32_t lines = (work.row_bytes + 63) / 64;
  const uint32_t last = far_end(work.rows, work.stride, work.row_bytes);
  switch (lines) {
    case 1:
      return gather_lines<kLevel, 1>(work, distance, lines, last);
    case 2:
      return gather_lines<kLevel, 2>(work, distance, lines, last);
    case 4:
      return gather_lines<kLevel, 4>(work, distance, lines, last);
    default:
      return gather_lines<kLevel, 0>(work, distance, lines, last);
  }
}

uint64_t gather(const GatherWork& work, uint32_t distance, bool near) {
  return near ? gather_to<3>(work, distance) : gather_to<2>(work, distance);
}

constexpr void fill_features(RecommendKernels& table) {
  table.interaction = interaction;
  table.cross = cross;
  table.sigmoid = sigmoid;
  table.gather = gather;
}

}  // namespace
}  // namespace drover
