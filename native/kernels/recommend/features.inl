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

// Vectors that are multiplied by four others at a time, as registers allow.
constexpr uint32_t kProductRows = kSumVectors >= 8 ? 4 : 1;

// Products of kProductRows vectors with four others each: 16 lanes, still to be added up.
DROVER_INLINE void products(const float* const* rows, const float* const* others, uint32_t dim, F32x16* out) {
  F32x16 sums[kProductRows][4];
  for (auto& row : sums) {
#pragma GCC unroll 4
    for (F32x16& sum : row) sum = f_zero();
  }
  for_vectors(dim, [&](uint32_t at, uint32_t count) {
    F32x16 y[4];
#pragma GCC unroll 4
    for (uint32_t o = 0; o < 4; o++) y[o] = load_vector(others[o] + at, count);
#pragma GCC unroll 4
    for (uint32_t r = 0; r < kProductRows; r++) {
      const F32x16 x = load_vector(rows[r] + at, count);
#pragma GCC unroll 4
      for (uint32_t o = 0; o < 4; o++) sums[r][o] = f_fma(x, y[o], sums[r][o]);
    }
  });
#pragma GCC unroll 4
  for (uint32_t r = 0; r < kProductRows; r++) {
#pragma GCC unroll 4
    for (uint32_t o = 0; o < 4; o++) out[r * 4 + o] = sums[r][o];
  }
}

// The products of a row of pairs: with vectors [begin, end), whose first one is out[at].
struct PairRow {
  uint32_t begin, end;
  uint64_t at;
};
DROVER_INLINE PairRow pair_row(Pairs pairs, uint32_t vectors, uint32_t row) {
  const uint64_t r = row;
  switch (pairs) {
    case Pairs::kUpper:
      return {row + 1, vectors, r * (2 * uint64_t{vectors} - r - 1) / 2};
    case Pairs::kLowerAndItself:
      return {0, row + 1, r * (r + 1) / 2};
    default:
      return {0, row, r * (r - 1) / 2};
  }
}

// Squares of four vectors by four. Those that reach over the diagonal or the last vector make products that nobody
// asked for, of which nothing is stored.
void interaction(const float* dense, const float* pooled, uint32_t dim, uint32_t tables, Pairs pairs, float* out) {
  for_vectors(dim, [&](uint32_t at, uint32_t count) { store_vector(out + at, load_vector(dense + at, count), count); });
  out += dim;
  const uint32_t vectors = tables + 1;
  const auto vector = [&](uint32_t i) {
    const uint32_t existing = smaller_of(i, tables);  // behind the last: the last
    return existing == 0 ? dense : pooled + uint64_t{existing - 1} * dim;
  };
  for (uint32_t i = 0; i < vectors; i += 4) {
    const float* rows[4] = {vector(i), vector(i + 1), vector(i + 2), vector(i + 3)};
    const uint32_t row_end = smaller_of(i + 4, vectors);
    const uint32_t end = pairs == Pairs::kUpper ? vectors : row_end;
    for (uint32_t j = pairs == Pairs::kUpper ? i : 0; j < end; j += 4) {
      const float* others[4] = {vector(j), vector(j + 1), vector(j + 2), vector(j + 3)};
      F32x16 waiting[16];
      for (uint32_t r = 0; r < 4; r += kProductRows) products(rows + r, others, dim, waiting + r * 4);
      // Lanes of 16 products are added up together: one by one that would take longer than the products.
      float sums[16];
      f_store(sums, f_sums(waiting));
      const bool whole = j != i && row_end == i + 4 && j + 4 <= vectors;
#pragma GCC unroll 4
      for (uint32_t r = 0; r < 4; r++) {
        if (i + r >= row_end) break;
        const PairRow row = pair_row(pairs, vectors, i + r);
        if (whole) {
          __builtin_memcpy(out + row.at + (j - row.begin), sums + r * 4, 16);
          continue;
        }
        for (uint32_t o = 0; o < 4; o++) {
          if (j + o >= row.begin && j + o < row.end) out[row.at + (j + o - row.begin)] = sums[r * 4 + o];
        }
      }
    }
  }
}

void cross(const float* x0, const float* y, const float* x, uint32_t cols, float* out) {
  for_vectors(cols, [&](uint32_t at, uint32_t count) {
    const F32x16 product = f_fma(load_vector(x0 + at, count), load_vector(y + at, count), load_vector(x + at, count));
    store_vector(out + at, product, count);
  });
}

float factorization(const float* x, uint32_t cols) {
  F32x16 sums = f_zero(), squares = f_zero();
  for_vectors(cols, [&](uint32_t at, uint32_t count) {
    const F32x16 v = load_vector(x + at, count);
    sums = f_add(sums, v);
    squares = f_fma(v, v, squares);
  });
  const float sum = f_sum(sums);
  return 0.5f * __builtin_fmaf(sum, sum, -f_sum(squares));
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
  table.factorization = factorization;
  table.sigmoid = sigmoid;
  table.gather = gather;
}

}  // namespace
}  // namespace drover
