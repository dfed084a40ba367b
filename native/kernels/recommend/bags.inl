// Pooled lookups. A random row costs latency, not arithmetic: what counts is how many lines are under way, so every
// lookup asks for a row far ahead of the one that it adds. Asked for into the second-level cache more are under way
// than the first level has line buffers for. From there a row comes on a few lookups before it is added.
namespace drover {
namespace {

// ---- rows ahead ----

// The offset of a row's last byte where it may lie in one line more than the row's bytes fill; else 0. Rows begin at
// multiples of some power of two.
DROVER_INLINE uint32_t far_end(const uint8_t* rows, uint64_t stride, uint32_t row_bytes) {
  const uint64_t places = stride | reinterpret_cast<uintptr_t>(rows) | 64;
  return (row_bytes - 1) % 64 < (places & (0 - places)) ? 0 : row_bytes - 1;
}

// Moves the cursor to the next table that has lookups; false at the end.
__attribute__((noinline)) bool next_table(Ahead& a) {
  while (a.left != 0) {
    a.left--;
    const BagTable& table = *a.table++;
    const Bags& bags = *a.bags++;
    a.next = a.first != nullptr ? a.first : bags.indices;
    a.first = nullptr;
    a.stop = a.left == 0 ? a.last_stop : bags.indices + bags.offsets[a.bag_count];
    a.rows = table.rows;
    a.stride = table.stride;
    a.lines = (table.row_bytes + 63) / 64;
    a.last = far_end(table.rows, table.stride, table.row_bytes);
    if (a.next < a.stop) return true;
  }
  a.next = a.stop;
  a.lines = a.last = 0;
  return false;
}

// Asks for the lines of a row; kLines: how many, 0: `lines`. kLevel: 3 for the first-level cache, 2 for the second.
template <uint32_t kLines, int kLevel>
DROVER_INLINE void ask_lines(const uint8_t* row, uint32_t lines, uint32_t last) {
  if constexpr (kLines != 0) {
#pragma GCC unroll 8
    for (uint32_t line = 0; line < kLines; line++) __builtin_prefetch(row + uint64_t{line} * 64, 0, kLevel);
  } else {
    for (uint32_t line = 0; line < lines; line++) __builtin_prefetch(row + uint64_t{line} * 64, 0, kLevel);
  }
  if (last != 0) __builtin_prefetch(row + last, 0, kLevel);
}

template <uint32_t kLines>
DROVER_INLINE void ask_row(const Ahead& a, const uint8_t* row) {
  uint32_t last = a.last;
  __asm__("" : "+r"(last));  // one loop that looks, not two: this code is large, and the branch is foreseen
  ask_lines<kLines, 2>(row, a.lines, last);
}

void ask(Ahead& a, uint32_t rows) {
  for (uint32_t i = 0; i < rows; i++) {
    if (a.next >= a.stop && !next_table(a)) return;
    ask_row<0>(a, a.rows + uint64_t{*a.next++} * a.stride);
  }
}

// ---- formats ----

template <F32x16 (*kLoad)(const uint16_t*)>
DROVER_INLINE F32x16 load_16_bits(const uint8_t* p) {
  return kLoad(reinterpret_cast<const uint16_t*>(p));
}
DROVER_INLINE F32x16 load_32_bits(const uint8_t* p) { return f_load(reinterpret_cast<const float*>(p)); }

// Elements of kBits, and the bytes of scale and bias together. A load may give a vector's elements in an order that is
// cheaper; place() puts sums of them right.
template <uint32_t kElementBits, F32x16 (*kLoad)(const uint8_t*), F32x16 (*kPlace)(F32x16), uint32_t kRowParameters>
struct RowFormat {
  static constexpr uint32_t kBits = kElementBits;
  static constexpr uint32_t kParameterBytes = kRowParameters;
  static constexpr bool kCoded = kParameterBytes != 0;
  static DROVER_INLINE F32x16 load(const uint8_t* codes, uint32_t vector) {
    return kLoad(codes + uint64_t{vector} * (2 * kBits));
  }
  static DROVER_INLINE F32x16 place(F32x16 sums) { return kPlace(sums); }
  static DROVER_INLINE void parameters(const uint8_t* p, float* scale, float* bias) {
    if constexpr (kParameterBytes == 8) {
      memcpy(scale, p, 4);
      memcpy(bias, p + 4, 4);
    } else {
      load_two_halves(p, scale, bias);
    }
  }
};
DROVER_INLINE F32x16 in_place(F32x16 sums) { return sums; }
using RowsF32 = RowFormat<32, load_32_bits, in_place, 0>;
using RowsF16 = RowFormat<16, load_16_bits<f_load_half>, in_place, 0>;
using RowsBF16 = RowFormat<16, load_16_bits<f_load_bfloat>, in_place, 0>;
using RowsI8 = RowFormat<8, f_load_u8, in_place, 8>;
using RowsI8h = RowFormat<8, f_load_u8, in_place, 4>;
using RowsI4 = RowFormat<4, f_load_u4_mixed, f_unmix_u4, 4>;
using RowsI2 = RowFormat<2, f_load_u2, in_place, 4>;

// ---- lookups ----

// A row near the end of what may be read, copied to where whole vectors can be loaded.
__attribute__((noinline)) const uint8_t* copy_row(const uint8_t* row, uint32_t bytes, uint8_t* copy) {
  memcpy(copy, row, bytes);
  return copy;
}

template <bool kMax>
DROVER_INLINE F32x16 first_sum() {
  return kMax ? f_set(-__builtin_inff()) : f_zero();
}

// Which loop adds lookups: its sums are kVectors vectors of each row. One pass over a row's vectors, the leading one,
// sums the biases.
template <typename RowsFormat, uint32_t kSums, bool kLargest, bool kWeights, bool kFirstPass>
struct Loop {
  using Format = RowsFormat;
  static constexpr uint32_t kVectors = kSums;
  static constexpr bool kMax = kLargest, kWeighted = kWeights, kLeading = kFirstPass;
  // Lines of a row that its vectors fill.
  static constexpr uint32_t kLines =
      (kVectors * 2 * Format::kBits + (Format::kCoded ? Format::kParameterBytes : 0) + 63) / 64;
};

// What the loops over a table's rows need, worked out once.
struct Rows {
  const uint8_t* codes;
  const uint8_t* parameters;
  uint64_t stride;
  uint32_t
      last_whole;  // rows behind it end so near to the last byte that they are copied; UINT32_MAX: not one may be read
};

template <typename Format>
DROVER_INLINE Rows rows_of(const BagTable& t) {
  const uint64_t whole = t.codes + uint64_t{(t.dim + 15) / 16} * (2 * Format::kBits);
  const uint64_t bytes = static_cast<uint64_t>(t.end - t.rows);
  const uint64_t last = bytes < whole ? 0 : (bytes - whole) / t.stride;
  return {t.rows + t.codes, t.rows + t.parameters, t.stride,
          bytes < whole           ? UINT32_MAX
          : last > UINT32_MAX - 1 ? UINT32_MAX - 1
                                  : static_cast<uint32_t>(last)};
}

// Lookups by which a row is brought on into the first-level cache, where all rows ahead have as many lines. Rows of one
// or two lines from memory gain 10 % on Zen 4, cached ones of four lines as much; 10 and 20 lookups cost rows of four
// lines from memory a quarter.
constexpr uint32_t kNearRows = 4;

// Adds lookups [0, count). The leading pass asks for as many rows ahead meanwhile, all of the cursor's table; where
// that is at its end it has no lines, and `next` is any index. `known`: indices that may be looked at.
template <typename L, uint32_t kLines>
DROVER_INLINE void add_segment(const BagWork& work, const Rows& rows, const uint32_t* indices, const float* weights,
                               uint32_t count, uint32_t first, F32x16* sums, float* bias_sum, const Ahead& ahead,
                               const uint32_t* next, uint32_t known) {
  using Format = typename L::Format;
  float biases = *bias_sum;
  F32x16 acc[L::kVectors];  // GCC keeps what is behind a pointer in memory
#pragma GCC unroll 8
  for (uint32_t v = 0; v < L::kVectors; v++) acc[v] = sums[v];
  for (uint32_t i = 0; i < count; i++) {
    if constexpr (L::kLeading) ask_row<kLines>(ahead, ahead.rows + uint64_t{next[i]} * ahead.stride);
    if constexpr (kLines != 0) {
      const uint32_t near = indices[smaller_of(i + kNearRows, known - 1)];
      ask_lines<kLines, 3>(rows.codes + near * rows.stride, kLines, 0);
    }
    const uint32_t index = indices[i];
    const uint8_t* codes = rows.codes + index * rows.stride;
    const uint8_t* parameters = rows.parameters + index * rows.stride;
    if (__builtin_expect(index + 1 > rows.last_whole + 1, 0)) {
      const BagTable& t = *work.table;
      const uint8_t* copy = copy_row(t.rows + index * t.stride, t.row_bytes, work.scratch);
      codes = copy + t.codes;
      parameters = copy + t.parameters;
    }
    float factor = 1, bias = 0;
    if constexpr (L::kWeighted) factor = weights[i];
    if constexpr (Format::kCoded) {
      float scale;
      Format::parameters(parameters, &scale, &bias);
      if constexpr (L::kLeading && !L::kMax) {
        biases = L::kWeighted ? __builtin_fmaf(factor, bias, biases) : biases + bias;
      }
      factor = L::kWeighted ? scale * factor : scale;
    }
    const F32x16 by = f_set(factor);
#pragma GCC unroll 8
    for (uint32_t v = 0; v < L::kVectors; v++) {
      const F32x16 x = Format::load(codes, first + v);
      if constexpr (L::kMax) {
        acc[v] = f_max(acc[v], Format::kCoded ? f_add(f_mul(by, x), f_set(bias)) : x);
      } else {
        // A product with 1 is exact: without weights the sum is the same.
        acc[v] = Format::kCoded || L::kWeighted ? f_fma(by, x, acc[v]) : f_add(acc[v], x);
      }
    }
  }
#pragma GCC unroll 8
  for (uint32_t v = 0; v < L::kVectors; v++) sums[v] = acc[v];
  *bias_sum = biases;
}

// Adds lookups to the sums of L::kVectors vectors of each row, from `first` on. The leading pass moves the cursor on.
template <typename L>
DROVER_INLINE void add_rows(const BagWork& work, const Rows& rows, const uint32_t* indices, const float* weights,
                            uint32_t count, uint32_t first, F32x16* sums, float* bias_sum, Ahead& ahead) {
  F32x16 acc[L::kVectors];
#pragma GCC unroll 8
  for (uint32_t v = 0; v < L::kVectors; v++) acc[v] = sums[v];
  for (uint32_t done = 0; done < count;) {
    uint32_t part = count - done;
    const uint32_t* next = indices + done;
    if (L::kLeading && (ahead.next < ahead.stop || next_table(ahead))) {
      const uint64_t left = static_cast<uint64_t>(ahead.stop - ahead.next);
      if (left < part) part = static_cast<uint32_t>(left);
      next = ahead.next;
      ahead.next += part;
    }
    const float* w = L::kWeighted ? weights + done : nullptr;
    add_segment<L, 0>(work, rows, indices + done, w, part, first, acc, bias_sum, ahead, next, 0);
    done += part;
  }
#pragma GCC unroll 8
  for (uint32_t v = 0; v < L::kVectors; v++) sums[v] = acc[v];
}

// Sums of rows with more vectors than registers hold: lookups in groups whose rows stay in the first-level cache, once
// per group of vectors.
constexpr uint32_t kGroupRows = 16;

template <typename Format, bool kMax, bool kWeighted, uint32_t kVectors>
DROVER_INLINE void add_group(const BagWork& work, const Rows& rows, const uint32_t* indices, const float* weights,
                             uint32_t count, uint32_t vectors, uint32_t* first, float* sums, float* biases,
                             Ahead& ahead) {
  for (; *first + kVectors <= vectors; *first += kVectors) {
    F32x16 part[kVectors];
    for (uint32_t v = 0; v < kVectors; v++) part[v] = f_load(sums + uint64_t{*first + v} * 16);
    if (*first == 0) {
      using Leading = Loop<Format, kVectors, kMax, kWeighted, true>;
      add_rows<Leading>(work, rows, indices, weights, count, 0, part, biases, ahead);
    } else {
      using Following = Loop<Format, kVectors, kMax, kWeighted, false>;
      add_rows<Following>(work, rows, indices, weights, count, *first, part, biases, ahead);
    }
    for (uint32_t v = 0; v < kVectors; v++) f_store(sums + uint64_t{*first + v} * 16, part[v]);
  }
}

template <typename Format, bool kMax, bool kWeighted>
void add_wide(const BagWork& work, const uint32_t* indices, const float* weights, uint32_t count, float* sums,
              float* biases, Ahead& ahead) {
  const Rows rows = rows_of<Format>(*work.table);
  const uint32_t vectors = (work.table->dim + 15) / 16;
  for (uint32_t v = 0; v < vectors; v++) f_store(sums + uint64_t{v} * 16, first_sum<kMax>());
  for (uint32_t at = 0; at < count; at += kGroupRows) {
    const uint32_t group = smaller_of(count - at, kGroupRows);
    const uint32_t* i = indices + at;
    const float* w = kWeighted ? weights + at : nullptr;
    uint32_t first = 0;
    add_group<Format, kMax, kWeighted, kSumVectors>(work, rows, i, w, group, vectors, &first, sums, biases, ahead);
    if constexpr (kSumVectors > 4) {
      add_group<Format, kMax, kWeighted, 4>(work, rows, i, w, group, vectors, &first, sums, biases, ahead);
    }
    if constexpr (kSumVectors > 1) {
      add_group<Format, kMax, kWeighted, 1>(work, rows, i, w, group, vectors, &first, sums, biases, ahead);
    }
  }
}

// ---- results ----

DROVER_INLINE void store_output(BagOutput output, uint8_t* out, uint32_t at, F32x16 x, uint32_t count) {
  if (output == BagOutput::kF32) {
    float* to = reinterpret_cast<float*>(out) + at;
    if (count == 16) return f_store(to, x);
    return f_store_part(to, x, count);
  }
  uint16_t codes[16];
  if (output == BagOutput::kF16) {
    f_store_half(codes, x);
  } else {
    float lanes[16];
    f_store(lanes, x);
    for (uint32_t i = 0; i < 16; i++) codes[i] = float_to_bfloat(lanes[i]);
  }
  memcpy(out + uint64_t{at} * 2, codes, count * 2);
}

// What a bag of `lookups` gives for a vector of its sums.
DROVER_INLINE F32x16 pooled(Pooling pooling, F32x16 sum, uint32_t lookups) {
  if (lookups == 0) return f_zero();
  return pooling == Pooling::kMean ? f_div(sum, f_set(static_cast<float>(lookups))) : sum;
}

DROVER_INLINE uint8_t* output_of(const BagWork& work, uint32_t bag) { return work.out + bag * work.out_stride; }

void merge_parts(const BagWork& work, uint32_t bag, uint32_t lookups, const float* parts, uint32_t count) {
  const uint32_t dim = work.table->dim;
  uint8_t* out = output_of(work, bag);
  for (uint32_t at = 0; at < dim; at += 16) {
    const uint32_t lanes = smaller_of(dim - at, 16);
    F32x16 sum = f_load_part(parts + at, lanes);
    for (uint32_t i = 1; i < count; i++) {
      const F32x16 part = f_load_part(parts + uint64_t{i} * dim + at, lanes);
      sum = work.pooling == Pooling::kMax ? f_max(sum, part) : f_add(sum, part);
    }
    store_output(work.output, out, at, pooled(work.pooling, sum, lookups), lanes);
  }
}

// ---- bags ----

// The sum of a vector with what its rows' biases add up to.
template <typename Format, bool kMax>
DROVER_INLINE F32x16 whole_sum(F32x16 sum, float biases) {
  const F32x16 placed = Format::place(sum);
  return Format::kCoded && !kMax ? f_add(placed, f_set(biases)) : placed;
}

// Divides, rounds and cuts off.
template <uint32_t kVectors>
__attribute__((noinline)) void finish_bag(const BagWork& work, uint8_t* out, uint32_t lookups, const F32x16* sums) {
  const uint32_t dim = work.table->dim;
  for (uint32_t v = 0; v < kVectors; v++) {
    store_output(work.output, out, v * 16, pooled(work.pooling, sums[v], lookups), smaller_of(dim - v * 16, 16));
  }
}

// plain: nothing is divided, rounded or cut off, as with by far the most bags.
template <typename L>
DROVER_INLINE void store_bag(const BagWork& work, uint32_t bag, uint32_t lookups, const F32x16* sums, float biases,
                             bool plain) {
  uint8_t* out = output_of(work, bag);
  F32x16 whole[L::kVectors];
#pragma GCC unroll 8
  for (uint32_t v = 0; v < L::kVectors; v++) whole[v] = whole_sum<typename L::Format, L::kMax>(sums[v], biases);
  if (!plain) {  // a copy, or GCC keeps the sums of all bags in memory
    F32x16 copy[L::kVectors];
#pragma GCC unroll 8
    for (uint32_t v = 0; v < L::kVectors; v++) copy[v] = whole[v];
    return finish_bag<L::kVectors>(work, out, lookups, copy);
  }
  float* elements = reinterpret_cast<float*>(out);
#pragma GCC unroll 8
  for (uint32_t v = 0; v < L::kVectors; v++) f_store(elements + v * 16, whole[v]);
}

// Bags [begin, end) whose lookups all have a row ahead in the cursor's table, from `next` on, or none: with few lookups
// in each of them, what a bag costs beside them counts.
template <typename L, uint32_t kLines>
void bags_in_step(const BagWork& work, const Rows& rows, uint32_t begin, uint32_t end, bool plain, const Ahead& shared,
                  const uint32_t* next) {
  const Ahead ahead = shared;  // nothing that is stored can change it
  const uint32_t* offsets = work.bags.offsets;
  const uint32_t* indices = work.bags.indices;
  uint32_t from = offsets[begin];
  const uint32_t stop = offsets[end];
  for (uint32_t bag = begin; bag < end; bag++) {
    const uint32_t to = offsets[bag + 1], lookups = to - from;
    F32x16 sums[L::kVectors];
#pragma GCC unroll 8
    for (uint32_t v = 0; v < L::kVectors; v++) sums[v] = first_sum<L::kMax>();
    float biases = 0;
    const float* weights = L::kWeighted ? work.bags.weights + from : nullptr;
    add_segment<L, kLines>(work, rows, indices + from, weights, lookups, 0, sums, &biases, ahead, next, stop - from);
    next += lookups;
    store_bag<L>(work, bag, lookups, sums, biases, plain);
    from = to;
  }
}

// The end of those bags from `begin` on that have no more than so many lookups together.
DROVER_INLINE uint32_t bags_within(const uint32_t* offsets, uint32_t begin, uint32_t end, uint64_t lookups) {
  if (offsets[end] - offsets[begin] <= lookups) return end;
  uint32_t high = end;  // too many
  for (uint32_t low = begin; high - low > 1;) {
    const uint32_t middle = low + (high - low) / 2;
    if (offsets[middle] - offsets[begin] <= lookups) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return high - 1;
}

template <typename L>
void narrow_bags(const BagWork& work, uint32_t begin, uint32_t end, Ahead& ahead) {
  const Rows rows = rows_of<typename L::Format>(*work.table);
  const uint32_t* offsets = work.bags.offsets;
  const bool plain = work.output == BagOutput::kF32 && work.pooling == Pooling::kSum && work.table->dim % 16 == 0;
  while (begin < end) {
    if (ahead.next >= ahead.stop && !next_table(ahead)) {
      return bags_in_step<L, 0>(work, rows, begin, end, plain, ahead, work.bags.indices + offsets[begin]);
    }
    const uint32_t fit = bags_within(offsets, begin, end, static_cast<uint64_t>(ahead.stop - ahead.next));
    if (fit > begin && ahead.lines == L::kLines) {
      bags_in_step<L, L::kLines>(work, rows, begin, fit, plain, ahead, ahead.next);
      ahead.next += offsets[fit] - offsets[begin];
      begin = fit;
      continue;
    }
    // A bag during which the cursor enters a table, or one while it is in a table with other rows.
    F32x16 sums[L::kVectors];
    for (uint32_t v = 0; v < L::kVectors; v++) sums[v] = first_sum<L::kMax>();
    float biases = 0;
    const uint32_t from = offsets[begin], lookups = offsets[begin + 1] - from;
    const float* weights = L::kWeighted ? work.bags.weights + from : nullptr;
    add_rows<L>(work, rows, work.bags.indices + from, weights, lookups, 0, sums, &biases, ahead);
    store_bag<L>(work, begin, lookups, sums, biases, plain);
    begin++;
  }
}

// The sums of any number of vectors: out [whole vectors], which may not be the scratch row.
template <typename Format, bool kMax, bool kWeighted>
void sum_wide(const BagWork& work, uint32_t begin, uint32_t end, Ahead& ahead, float* out) {
  float biases = 0;
  const float* weights = kWeighted ? work.bags.weights + begin : nullptr;
  add_wide<Format, kMax, kWeighted>(work, work.bags.indices + begin, weights, end - begin, out, &biases, ahead);
  for (uint32_t at = 0; at < work.table->dim; at += 16) {
    f_store(out + at, whole_sum<Format, kMax>(f_load(out + at), biases));
  }
}

DROVER_INLINE float* wide_sums(const BagWork& work) {
  return reinterpret_cast<float*>(work.scratch + kMostBagDim * 4 + 64);
}

template <typename Format, bool kMax, bool kWeighted>
void wide_bags(const BagWork& work, uint32_t begin, uint32_t end, Ahead& ahead) {
  float* sums = wide_sums(work);
  for (uint32_t bag = begin; bag < end; bag++) {
    const uint32_t from = work.bags.offsets[bag], to = work.bags.offsets[bag + 1];
    sum_wide<Format, kMax, kWeighted>(work, from, to, ahead, sums);
    for (uint32_t at = 0; at < work.table->dim; at += 16) {
      store_output(work.output, output_of(work, bag), at, pooled(work.pooling, f_load(sums + at), to - from),
                   smaller_of(work.table->dim - at, 16));
    }
  }
}

template <typename Format, bool kMax, bool kWeighted>
void choose_bags(const BagWork& work, uint32_t begin, uint32_t end, Ahead& ahead) {
  switch ((work.table->dim + 15) / 16) {
    case 1:
      return narrow_bags<Loop<Format, 1, kMax, kWeighted, true>>(work, begin, end, ahead);
#define DROVER_NARROW(n)                                                                   \
  case n:                                                                                  \
    if constexpr (n <= kSumVectors)                                                        \
      return narrow_bags<Loop<Format, n, kMax, kWeighted, true>>(work, begin, end, ahead); \
    break
      DROVER_NARROW(2);
      DROVER_NARROW(3);
      DROVER_NARROW(4);
      DROVER_NARROW(6);
      DROVER_NARROW(8);
#undef DROVER_NARROW
    default:
      break;
  }
  wide_bags<Format, kMax, kWeighted>(work, begin, end, ahead);
}

template <typename Format>
void run_bags(const BagWork& work, uint32_t begin, uint32_t end, Ahead& ahead) {
  if (work.pooling == Pooling::kMax) return choose_bags<Format, true, false>(work, begin, end, ahead);
  if (work.bags.weights != nullptr) return choose_bags<Format, false, true>(work, begin, end, ahead);
  choose_bags<Format, false, false>(work, begin, end, ahead);
}

template <typename Format>
void run_part(const BagWork& work, uint32_t begin, uint32_t end, Ahead& ahead, float* out) {
  float* sums = wide_sums(work);
  if (work.pooling == Pooling::kMax) {
    sum_wide<Format, true, false>(work, begin, end, ahead, sums);
  } else if (work.bags.weights != nullptr) {
    sum_wide<Format, false, true>(work, begin, end, ahead, sums);
  } else {
    sum_wide<Format, false, false>(work, begin, end, ahead, sums);
  }
  memcpy(out, sums, uint64_t{work.table->dim} * 4);
}

// ---- indices ----

bool all_below(const uint32_t* indices, uint64_t count, uint32_t rows) {
  bool below = true;
  uint64_t i = 0;
  for (; i + 16 <= count; i += 16) below &= all_words_below(indices + i, rows);
  for (; i < count; i++) below &= indices[i] < rows;
  return below;
}

bool all_below_64(const uint8_t* indices, uint64_t count, uint32_t rows) {
  bool below = true;
  for (uint64_t i = 0; i < count; i++) {
    uint64_t index;
    memcpy(&index, indices + i * 8, sizeof index);
    below &= index < rows;
  }
  return below;
}

void narrow(const uint8_t* numbers, uint64_t count, uint32_t* out) {
  for (uint64_t i = 0; i < count; i++) memcpy(out + i, numbers + i * 8, sizeof *out);
}

template <typename Format>
constexpr void set_bag(RecommendKernels& table, DType dtype) {
  table.bag[static_cast<uint32_t>(dtype)] = {run_bags<Format>, run_part<Format>};
}

constexpr void fill_bags(RecommendKernels& table) {
  set_bag<RowsF32>(table, DType::f32);
  set_bag<RowsF16>(table, DType::f16);
  set_bag<RowsBF16>(table, DType::bf16);
  set_bag<RowsI8>(table, DType::i8_rowwise);
  set_bag<RowsI8h>(table, DType::i8h_rowwise);
  set_bag<RowsI4>(table, DType::i4_rowwise);
  set_bag<RowsI2>(table, DType::i2_rowwise);
  table.merge = merge_parts;
  table.ask = ask;
  table.all_below = all_below;
  table.all_below_64 = all_below_64;
  table.narrow = narrow;
}

}  // namespace
}  // namespace drover
