// Pooled lookups. A random row costs latency, not arithmetic: what counts is how many lines are under way, so every
// lookup asks for a row far ahead of the one that it adds.
namespace drover {
namespace {

// ---- rows ahead ----

// Asks for one line. Lines go to the first level: rows are few enough there, and are read once.
DROVER_INLINE void ask_line(const uint8_t* p) { __builtin_prefetch(p); }

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
    // Rows that begin anywhere in a line may reach into one more.
    const bool aligned = table.stride % 64 == 0 && reinterpret_cast<uintptr_t>(table.rows) % 64 == 0;
    a.last = aligned ? 0 : table.row_bytes - 1;
    if (a.next < a.stop) return true;
  }
  a.next = a.stop;
  return false;
}

DROVER_INLINE void ask_row(Ahead& a) {
  if (__builtin_expect(a.next >= a.stop, 0) && !next_table(a)) return;
  const uint8_t* row = a.rows + uint64_t{*a.next++} * a.stride;
  for (uint32_t line = 0; line < a.lines; line++) ask_line(row + uint64_t{line} * 64);
  ask_line(row + a.last);
}

void ask(Ahead& ahead, uint32_t rows) {
  for (uint32_t i = 0; i < rows; i++) ask_row(ahead);
}

// ---- formats ----

template <F32x16 (*kLoad)(const uint16_t*)>
DROVER_INLINE F32x16 load_16_bits(const uint8_t* p) {
  return kLoad(reinterpret_cast<const uint16_t*>(p));
}
DROVER_INLINE F32x16 load_32_bits(const uint8_t* p) { return f_load(reinterpret_cast<const float*>(p)); }

// Elements of kBits; kParameters bytes of scale and bias together.
template <uint32_t kElementBits, F32x16 (*kLoad)(const uint8_t*), uint32_t kParameterBytes>
struct RowFormat {
  static constexpr uint32_t kBits = kElementBits;
  static constexpr bool kCoded = kParameterBytes != 0;
  static DROVER_INLINE F32x16 load(const uint8_t* codes, uint32_t vector) {
    return kLoad(codes + uint64_t{vector} * (2 * kBits));
  }
  static DROVER_INLINE void parameters(const uint8_t* p, float* scale, float* bias) {
    if constexpr (kParameterBytes == 8) {
      memcpy(scale, p, 4);
      memcpy(bias, p + 4, 4);
    } else {
      load_two_halves(p, scale, bias);
    }
  }
};
using RowsF32 = RowFormat<32, load_32_bits, 0>;
using RowsF16 = RowFormat<16, load_16_bits<f_load_half>, 0>;
using RowsBF16 = RowFormat<16, load_16_bits<f_load_bfloat>, 0>;
using RowsI8 = RowFormat<8, f_load_u8, 8>;
using RowsI8h = RowFormat<8, f_load_u8, 4>;
using RowsI4 = RowFormat<4, f_load_u4, 4>;
using RowsI2 = RowFormat<2, f_load_u2, 4>;

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

// Adds lookups to the sums of kVectors vectors of each row, from `first` on. One pass of a row's vectors, the leading
// one, asks for rows ahead and sums their biases.
template <typename Format, uint32_t kVectors, bool kMax, bool kLeading>
DROVER_INLINE void add_rows(const BagWork& work, const uint32_t* indices, const float* weights, uint32_t count,
                            uint32_t first, F32x16* sums, float* bias_sum, Ahead& ahead) {
  const BagTable& t = *work.table;
  const uint8_t* rows = t.rows;
  const uint64_t stride = t.stride;
  const uint32_t codes_at = t.codes, parameters_at = t.parameters;
  const uint64_t whole = codes_at + uint64_t{(t.dim + 15) / 16} * (2 * Format::kBits);
  const uint8_t* last_whole = static_cast<uint64_t>(t.end - rows) < whole ? rows - 1 : t.end - whole;
  F32x16 acc[kVectors];
#pragma GCC unroll 8
  for (uint32_t v = 0; v < kVectors; v++) acc[v] = sums[v];
  float biases = *bias_sum;
  for (uint32_t i = 0; i < count; i++) {
    if constexpr (kLeading) ask_row(ahead);
    const uint8_t* row = rows + uint64_t{indices[i]} * stride;
    if (__builtin_expect(row > last_whole, 0)) row = copy_row(row, t.row_bytes, work.scratch);
    const float weight = weights == nullptr ? 1.0f : weights[i];
    float factor = weight, bias = 0;
    if constexpr (Format::kCoded) {
      float scale;
      Format::parameters(row + parameters_at, &scale, &bias);
      factor = kMax ? scale : scale * weight;
      if constexpr (!kMax) biases = __builtin_fmaf(weight, bias, biases);
    }
    const F32x16 by = f_set(factor);
#pragma GCC unroll 8
    for (uint32_t v = 0; v < kVectors; v++) {
      const F32x16 x = Format::load(row + codes_at, first + v);
      if constexpr (!kMax) {
        acc[v] = f_fma(by, x, acc[v]);
      } else if constexpr (Format::kCoded) {
        acc[v] = f_max(acc[v], f_fma(by, x, f_set(bias)));
      } else {
        acc[v] = f_max(acc[v], x);
      }
    }
  }
#pragma GCC unroll 8
  for (uint32_t v = 0; v < kVectors; v++) sums[v] = acc[v];
  *bias_sum = biases;
}

// Sums of rows with more vectors than registers hold: lookups in groups whose rows stay in the first-level cache, once
// per group of vectors.
constexpr uint32_t kGroupRows = 16;

template <typename Format, bool kMax, uint32_t kVectors>
DROVER_INLINE void add_group(const BagWork& work, const uint32_t* indices, const float* weights, uint32_t count,
                             uint32_t vectors, uint32_t* first, float* sums, float* biases, Ahead& ahead) {
  for (; *first + kVectors <= vectors; *first += kVectors) {
    F32x16 part[kVectors];
    for (uint32_t v = 0; v < kVectors; v++) part[v] = f_load(sums + uint64_t{*first + v} * 16);
    if (*first == 0) {
      add_rows<Format, kVectors, kMax, true>(work, indices, weights, count, 0, part, biases, ahead);
    } else {
      float unused = 0;
      add_rows<Format, kVectors, kMax, false>(work, indices, weights, count, *first, part, &unused, ahead);
    }
    for (uint32_t v = 0; v < kVectors; v++) f_store(sums + uint64_t{*first + v} * 16, part[v]);
  }
}

template <typename Format, bool kMax>
void add_wide(const BagWork& work, const uint32_t* indices, const float* weights, uint32_t count, float* sums,
              float* biases, Ahead& ahead) {
  const uint32_t vectors = (work.table->dim + 15) / 16;
  for (uint32_t v = 0; v < vectors; v++) f_store(sums + uint64_t{v} * 16, first_sum<kMax>());
  *biases = 0;
  for (uint32_t at = 0; at < count; at += kGroupRows) {
    const uint32_t group = smaller_of(count - at, kGroupRows);
    const float* w = weights == nullptr ? nullptr : weights + at;
    uint32_t first = 0;
    add_group<Format, kMax, kSumVectors>(work, indices + at, w, group, vectors, &first, sums, biases, ahead);
    if constexpr (kSumVectors > 4) {
      add_group<Format, kMax, 4>(work, indices + at, w, group, vectors, &first, sums, biases, ahead);
    }
    if constexpr (kSumVectors > 2) {
      add_group<Format, kMax, 2>(work, indices + at, w, group, vectors, &first, sums, biases, ahead);
    }
    if constexpr (kSumVectors > 1) {
      add_group<Format, kMax, 1>(work, indices + at, w, group, vectors, &first, sums, biases, ahead);
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

template <typename Format, uint32_t kVectors, bool kMax>
void narrow_bags(const BagWork& work, uint32_t begin, uint32_t end, Ahead& shared) {
  Ahead ahead = shared;  // where no store of the loop can change it
  const uint32_t dim = work.table->dim;
  uint32_t from = work.bags.offsets[begin];
  for (uint32_t bag = begin; bag < end; bag++) {
    const uint32_t to = work.bags.offsets[bag + 1], lookups = to - from;
    F32x16 sums[kVectors];
    for (uint32_t v = 0; v < kVectors; v++) sums[v] = first_sum<kMax>();
    float biases = 0;
    const float* weights = work.bags.weights == nullptr ? nullptr : work.bags.weights + from;
    add_rows<Format, kVectors, kMax, true>(work, work.bags.indices + from, weights, lookups, 0, sums, &biases, ahead);
    uint8_t* out = output_of(work, bag);
    for (uint32_t v = 0; v < kVectors; v++) {
      const F32x16 sum = Format::kCoded && !kMax ? f_add(sums[v], f_set(biases)) : sums[v];
      store_output(work.output, out, v * 16, pooled(work.pooling, sum, lookups), smaller_of(dim - v * 16, 16));
    }
    from = to;
  }
  shared = ahead;
}

// The sums of any number of vectors: out [whole vectors], which may not be the scratch row.
template <typename Format, bool kMax>
void sum_wide(const BagWork& work, uint32_t begin, uint32_t end, Ahead& shared, float* out) {
  Ahead ahead = shared;
  float biases = 0;
  const float* weights = work.bags.weights == nullptr ? nullptr : work.bags.weights + begin;
  add_wide<Format, kMax>(work, work.bags.indices + begin, weights, end - begin, out, &biases, ahead);
  if constexpr (Format::kCoded && !kMax) {
    for (uint32_t v = 0; v < (work.table->dim + 15) / 16; v++) f_store(out + v * 16, f_add(f_load(out + v * 16), f_set(biases)));
  }
  shared = ahead;
}

DROVER_INLINE float* wide_sums(const BagWork& work) {
  return reinterpret_cast<float*>(work.scratch + kMostBagDim * 4 + 64);
}

template <typename Format, bool kMax>
void wide_bags(const BagWork& work, uint32_t begin, uint32_t end, Ahead& ahead) {
  float* sums = wide_sums(work);
  for (uint32_t bag = begin; bag < end; bag++) {
    const uint32_t from = work.bags.offsets[bag], to = work.bags.offsets[bag + 1];
    sum_wide<Format, kMax>(work, from, to, ahead, sums);
    for (uint32_t at = 0; at < work.table->dim; at += 16) {
      store_output(work.output, output_of(work, bag), at, pooled(work.pooling, f_load(sums + at), to - from),
                   smaller_of(work.table->dim - at, 16));
    }
  }
}

template <typename Format, bool kMax>
DROVER_INLINE void choose_bags(const BagWork& work, uint32_t begin, uint32_t end, Ahead& ahead) {
  const uint32_t vectors = (work.table->dim + 15) / 16;
  if (vectors <= kSumVectors) {
    switch (vectors) {
      case 1:
        return narrow_bags<Format, 1, kMax>(work, begin, end, ahead);
      case 2:
        return narrow_bags<Format, kSumVectors >= 2 ? 2 : 1, kMax>(work, begin, end, ahead);
      case 3:
        return narrow_bags<Format, kSumVectors >= 3 ? 3 : 1, kMax>(work, begin, end, ahead);
      case 4:
        return narrow_bags<Format, kSumVectors >= 4 ? 4 : 1, kMax>(work, begin, end, ahead);
      case 8:
        return narrow_bags<Format, kSumVectors >= 8 ? 8 : 1, kMax>(work, begin, end, ahead);
      default:
        break;
    }
  }
  wide_bags<Format, kMax>(work, begin, end, ahead);
}

template <typename Format>
void run_bags(const BagWork& work, uint32_t begin, uint32_t end, Ahead& ahead) {
  if (work.pooling == Pooling::kMax) return choose_bags<Format, true>(work, begin, end, ahead);
  choose_bags<Format, false>(work, begin, end, ahead);
}

template <typename Format>
void run_part(const BagWork& work, uint32_t begin, uint32_t end, Ahead& ahead, float* out) {
  float* sums = wide_sums(work);
  if (work.pooling == Pooling::kMax) {
    sum_wide<Format, true>(work, begin, end, ahead, sums);
  } else {
    sum_wide<Format, false>(work, begin, end, ahead, sums);
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
