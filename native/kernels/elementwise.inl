// Norms, gates, rotary embedding and softmax: one row per call.
namespace drover {
namespace {

// Whole vectors first, then the tail: body(index, count) with count 16 or less.
template <typename Body>
DROVER_INLINE void for_lanes(uint32_t cols, Body body) {
  uint32_t i = 0;
  for (; i + 16 <= cols; i += 16) body(i, 16u);
  if (i < cols) body(i, cols - i);
}
DROVER_INLINE F32x16 load_lanes(const float* p, uint32_t count) {
  return count == 16 ? f_load(p) : f_load_part(p, count);
}
DROVER_INLINE void store_lanes(float* p, F32x16 a, uint32_t count) {
  if (count == 16) {
    f_store(p, a);
  } else {
    f_store_part(p, a, count);
  }
}

void round_bf16(const float* x, uint32_t cols, float* out) {
  for (uint32_t i = 0; i < cols; i++) out[i] = bfloat_to_float(float_to_bfloat(x[i]));
}
void write_bf16(const float* x, uint32_t cols, uint16_t* out) {
  for (uint32_t i = 0; i < cols; i++) out[i] = float_to_bfloat(x[i]);
}

void rms_norm(const float* x, const float* weight, float eps, uint32_t cols, float* out) {
  F32x16 squares = f_zero();
  for_lanes(cols, [&](uint32_t i, uint32_t count) {
    const F32x16 v = load_lanes(x + i, count);
    squares = f_fma(v, v, squares);
  });
  const F32x16 scale = f_set(1.0f / __builtin_sqrtf(f_sum(squares) / static_cast<float>(cols) + eps));
  for_lanes(cols, [&](uint32_t i, uint32_t count) {
    const F32x16 v = f_mul(load_lanes(x + i, count), scale);
    store_lanes(out + i, f_mul(v, load_lanes(weight + i, count)), count);
  });
}

void swiglu(const float* gate, const float* up, uint32_t cols, float* out) {
  for_lanes(cols, [&](uint32_t i, uint32_t count) {
    store_lanes(out + i, f_mul(f_silu(load_lanes(gate + i, count)), load_lanes(up + i, count)), count);
  });
}

void rope(float* x, const float* table, uint32_t heads, uint32_t head_dim, uint32_t half, bool adjacent) {
  const float* cosines = table;
  const float* sines = table + half;
  for (uint32_t h = 0; h < heads; h++, x += head_dim) {
    if (adjacent) {
      for (uint32_t i = 0; i < half; i++) {
        const float a = x[2 * i], b = x[2 * i + 1];
        x[2 * i] = __builtin_fmaf(a, cosines[i], -(b * sines[i]));
        x[2 * i + 1] = __builtin_fmaf(b, cosines[i], a * sines[i]);
      }
    } else {
      for_lanes(half, [&](uint32_t i, uint32_t count) {
        const F32x16 a = load_lanes(x + i, count), b = load_lanes(x + half + i, count);
        const F32x16 c = load_lanes(cosines + i, count), s = load_lanes(sines + i, count);
        store_lanes(x + i, f_fnma(b, s, f_mul(a, c)), count);
        store_lanes(x + half + i, f_fma(a, s, f_mul(b, c)), count);
      });
    }
  }
}

// Largest lane; -infinity for no columns. A NaN may or may not win: the sums below then carry it.
DROVER_INLINE float row_max(const float* x, uint32_t cols) {
  const F32x16 lowest = f_set(-__builtin_inff());
  F32x16 largest = lowest;
  for_lanes(cols, [&](uint32_t i, uint32_t count) {
    largest = f_max(largest, f_keep_first(load_lanes(x + i, count), count, lowest));
  });
  return f_largest(largest);
}

DROVER_INLINE float sum_exp(const float* x, uint32_t cols, float shift, float* out) {
  F32x16 sum = f_zero();
  for_lanes(cols, [&](uint32_t i, uint32_t count) {
    const F32x16 e = f_exp(f_sub(load_lanes(x + i, count), f_set(shift)));
    sum = f_add(sum, f_keep_first(e, count, f_zero()));
    if (out != nullptr) store_lanes(out + i, e, count);
  });
  return f_sum(sum);
}

// A row of -infinity alone has no finite shift: 0 keeps its exponentials 0 and its result NaN or -infinity.
DROVER_INLINE float finite_shift(float largest) { return largest == -__builtin_inff() ? 0.0f : largest; }

float log_sum_exp(const float* x, uint32_t cols) {
  const float shift = finite_shift(row_max(x, cols));
  return shift + static_cast<float>(__builtin_log(static_cast<double>(sum_exp(x, cols, shift, nullptr))));
}

void softmax(const float* x, uint32_t cols, float* out) {
  const float sum = sum_exp(x, cols, finite_shift(row_max(x, cols)), out);
  for_lanes(cols, [&](uint32_t i, uint32_t count) {
    store_lanes(out + i, f_div(load_lanes(out + i, count), f_set(sum)), count);
  });
}

void log_softmax(const float* x, uint32_t cols, float* out) {
  const F32x16 shift = f_set(finite_shift(row_max(x, cols)));
  float first[16];
  f_store(first, shift);
  const float log_sum = static_cast<float>(__builtin_log(static_cast<double>(sum_exp(x, cols, first[0], nullptr))));
  for_lanes(cols, [&](uint32_t i, uint32_t count) {
    store_lanes(out + i, f_sub(f_sub(load_lanes(x + i, count), shift), f_set(log_sum)), count);
  });
}

constexpr void fill_elementwise(KernelTable& table) {
  table.round_bf16 = round_bf16;
  table.write_bf16 = write_bf16;
  table.rms_norm = rms_norm;
  table.swiglu = swiglu;
  table.rope = rope;
  table.softmax = softmax;
  table.log_softmax = log_softmax;
  table.log_sum_exp = log_sum_exp;
}

}  // namespace
}  // namespace drover
