// Norm, gate, rotary embedding, softmax and its kin: every length of tail, in place and not; the scalar kernels against
// float64, the other ISAs against the scalar kernels' bits; rows with NaN and infinities.
#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "buffers.h"
#include "tables.h"

using namespace drover;

namespace {

using Row = std::vector<double>;

Row widen(const Buffer<float>& x) { return Row(x.data(), x.data() + x.count()); }

// Largest difference, relative to `unit` plus the size of what is right.
double worst(const Row& right, const Buffer<float>& found, double unit) {
  double error = 0;
  for (uint64_t i = 0; i < right.size(); i++) {
    const double e = std::fabs(right[i] - found[i]) / (unit + std::fabs(right[i]));
    if (!(e <= error)) error = e;
  }
  return error;
}

double log_sum(const Row& x) {
  const double peak = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (const double v : x) sum += std::exp(v - peak);
  return peak + std::log(sum);
}

// One input row to one output row, with the reference and the way to run it in place.
struct Unary {
  const char* name;
  std::function<void(const KernelTable&, const float*, uint32_t, float*)> run;
  std::function<Row(const Row&)> right;
  double unit, tolerance;
};

void check_unary(const Unary& kernel, const Buffer<float>& x) {
  const uint32_t cols = static_cast<uint32_t>(x.count());
  Buffer<float> first(cols);
  kernel.run(*kernels_scalar(), x.data(), cols, first.data());
  const double error = worst(kernel.right(widen(x)), first, kernel.unit);
  CHECK(error < kernel.tolerance, "%s of %u: error %g", kernel.name, cols, error);
  for (const KernelTable* table : runnable_tables()) {
    Buffer<float> out(cols), place(x);
    kernel.run(*table, x.data(), cols, out.data());
    kernel.run(*table, place.data(), cols, place.data());
    CHECK(std::memcmp(out.data(), first.data(), first.bytes()) == 0, "%s of %u: %s", kernel.name, cols, table->isa);
    CHECK(std::memcmp(place.data(), first.data(), first.bytes()) == 0, "%s of %u in place: %s", kernel.name, cols,
          table->isa);
  }
}

// Rows whose numbers are not all finite: what must come out, and the same from every ISA.
void check_special(const char* name, const Unary& kernel, const Buffer<float>& x,
                   const std::function<bool(uint64_t, float)>& right) {
  const uint32_t cols = static_cast<uint32_t>(x.count());
  Buffer<float> first(cols);
  kernel.run(*kernels_scalar(), x.data(), cols, first.data());
  for (uint32_t i = 0; i < cols; i++) {
    CHECK(right(i, first[i]), "%s with %s: column %u of %u is %g", kernel.name, name, i, cols, first[i]);
  }
  for (const KernelTable* table : runnable_tables()) {
    Buffer<float> out(cols);
    kernel.run(*table, x.data(), cols, out.data());
    CHECK(same_floats(out.data(), first.data(), cols), "%s with %s: %s", kernel.name, name, table->isa);
  }
}

void check_log_sum_exp(const Buffer<float>& x) {
  const uint32_t cols = static_cast<uint32_t>(x.count());
  const float first = kernels_scalar()->log_sum_exp(x.data(), cols);
  const double right = log_sum(widen(x));
  CHECK(std::fabs(right - first) < 2e-6 * (1 + std::fabs(right)), "log_sum_exp of %u: %g", cols, right - first);
  for (const KernelTable* table : runnable_tables()) {
    const float found = table->log_sum_exp(x.data(), cols);
    CHECK(std::memcmp(&found, &first, sizeof first) == 0, "log_sum_exp of %u: %s", cols, table->isa);
  }
}

void check_swiglu(uint32_t cols, Random& random) {
  const Buffer<float> gate = normals(cols, random, 20), up = normals(cols, random);
  Row right(cols);
  for (uint32_t i = 0; i < cols; i++) right[i] = gate[i] / (1 + std::exp(-double{gate[i]})) * up[i];
  Buffer<float> first(cols);
  kernels_scalar()->swiglu(gate.data(), up.data(), cols, first.data());
  const double error = worst(right, first, 1e-6);
  CHECK(error < 1e-6, "swiglu of %u: error %g", cols, error);
  for (const KernelTable* table : runnable_tables()) {
    Buffer<float> out(cols), in_gate(gate), in_up(up);
    table->swiglu(gate.data(), up.data(), cols, out.data());
    table->swiglu(in_gate.data(), up.data(), cols, in_gate.data());
    table->swiglu(gate.data(), in_up.data(), cols, in_up.data());
    for (const Buffer<float>* found : {&out, &in_gate, &in_up}) {
      CHECK(std::memcmp(found->data(), first.data(), first.bytes()) == 0, "swiglu of %u: %s", cols, table->isa);
    }
  }
}

void check_rope(uint32_t half, uint32_t head_dim, uint32_t heads, bool adjacent, Random& random) {
  const Buffer<float> x = normals(uint64_t{heads} * head_dim, random);
  Buffer<float> table(2 * half);
  Row right = widen(x);
  for (uint32_t i = 0; i < half; i++) {
    const double angle = 7.0 * random.uniform();
    table[i] = static_cast<float>(std::cos(angle));
    table[half + i] = static_cast<float>(std::sin(angle));
    for (uint32_t h = 0; h < heads; h++) {
      const uint32_t a = h * head_dim + (adjacent ? 2 * i : i), b = adjacent ? a + 1 : a + half;
      right[a] = double{x[a]} * table[i] - double{x[b]} * table[half + i];
      right[b] = double{x[b]} * table[i] + double{x[a]} * table[half + i];
    }
  }
  Buffer<float> first(x);
  kernels_scalar()->rope(first.data(), table.data(), heads, head_dim, half, adjacent);
  const double error = worst(right, first, 1);
  CHECK(error < 1e-6, "rope half %u of %u: error %g", half, head_dim, error);
  bool rest = true;  // what is not rotated keeps its bits
  for (uint32_t i = 0; i < x.count(); i++) rest = rest && (i % head_dim < 2 * half || first[i] == x[i]);
  CHECK(rest, "rope half %u of %u touches the rest", half, head_dim);
  for (const KernelTable* kernels : runnable_tables()) {
    Buffer<float> out(x);
    kernels->rope(out.data(), table.data(), heads, head_dim, half, adjacent);
    CHECK(std::memcmp(out.data(), first.data(), first.bytes()) == 0, "rope half %u of %u: %s", half, head_dim,
          kernels->isa);
  }
}

Unary softmax_kernel() {
  return {"softmax", [](const KernelTable& t, const float* x, uint32_t cols, float* out) { t.softmax(x, cols, out); },
          [](const Row& x) {
            const double sum = log_sum(x);
            Row y(x);
            for (double& v : y) v = std::exp(v - sum);
            return y;
          },
          1e-9, 3e-6};
}
Unary log_softmax_kernel() {
  return {"log_softmax",
          [](const KernelTable& t, const float* x, uint32_t cols, float* out) { t.log_softmax(x, cols, out); },
          [](const Row& x) {
            const double sum = log_sum(x);
            Row y(x);
            for (double& v : y) v -= sum;
            return y;
          },
          1, 2e-6};
}
Unary rms_norm_kernel(const Buffer<float>& weight, float eps) {
  return {"rms_norm",
          [&weight, eps](const KernelTable& t, const float* x, uint32_t cols, float* out) {
            t.rms_norm(x, weight.data(), eps, cols, out);
          },
          [&weight, eps](const Row& x) {
            double squares = 0;
            for (const double v : x) squares += v * v;
            Row y(x);
            for (uint64_t i = 0; i < y.size(); i++) {
              y[i] *= weight[i] / std::sqrt(squares / static_cast<double>(x.size()) + static_cast<double>(eps));
            }
            return y;
          },
          1e-6, 2e-6};
}

void check_specials(uint32_t cols, Random& random) {
  const Unary softmax = softmax_kernel(), log_softmax = log_softmax_kernel();
  const Buffer<float> weight = normals(cols, random);
  const Unary rms_norm = rms_norm_kernel(weight, 1e-5f);
  const uint32_t at = random.below(cols);
  const auto nan = [](uint64_t, float v) { return v != v; };
  Buffer<float> x = normals(cols, random);
  x[at] = std::nanf("");
  for (const Unary* kernel : {&softmax, &log_softmax, &rms_norm}) check_special("NaN", *kernel, x, nan);
  x[at] = INFINITY;
  for (const Unary* kernel : {&softmax, &log_softmax}) check_special("infinity", *kernel, x, nan);
  check_special("infinity", rms_norm, x, [&](uint64_t i, float v) { return i == at ? v != v : v == 0; });
  x[at] = -INFINITY;  // a token that cannot be: no share
  if (cols > 1) {
    check_special("-infinity", softmax, x, [&](uint64_t i, float v) { return i == at ? v == 0 : v > 0 && v <= 1; });
    check_special("-infinity", log_softmax, x, [&](uint64_t i, float v) { return i == at ? v == -INFINITY : v <= 0; });
  }
  for (uint32_t i = 0; i < cols; i++) x[i] = -INFINITY;
  check_special("only -infinity", softmax, x, nan);
  for (const KernelTable* table : runnable_tables()) {
    CHECK(table->log_sum_exp(x.data(), cols) == -INFINITY, "log_sum_exp of -infinity: %s", table->isa);
    x[at] = std::nanf("");
    const float sum = table->log_sum_exp(x.data(), cols);
    CHECK(sum != sum, "log_sum_exp with NaN: %s", table->isa);
    x[at] = -INFINITY;
  }
  for (uint32_t i = 0; i < cols; i++) x[i] = 0;
  check_special("zeros", rms_norm, x, [](uint64_t, float v) { return v == 0; });
  for (uint32_t i = 0; i < cols; i++) x[i] = 3e38f;  // far from what an exponential holds
  check_special("large values", softmax, x,
                [&](uint64_t, float v) { return std::fabs(v * static_cast<float>(cols) - 1) < 1e-5f; });
  for (uint32_t i = 0; i < cols; i++) x[i] = i % 2 == 0 ? -3e38f : 3e38f;
  check_special("extremes", softmax, x, [&](uint64_t i, float v) { return cols == 1 || (i % 2 == 0) == (v == 0); });
}

}  // namespace

int main() {
  Random random(4);
  std::vector<uint32_t> sizes;
  for (uint32_t cols = 1; cols <= 70; cols++) sizes.push_back(cols);
  for (const uint32_t cols : {127u, 128u, 129u, 1000u, 4101u, 20000u}) sizes.push_back(cols);
  for (const uint32_t cols : sizes) {
    const Buffer<float> weight = normals(cols, random);
    for (const float size : {1.0f, 30.0f}) {
      const Buffer<float> x = normals(cols, random, size);
      check_unary(rms_norm_kernel(weight, size > 1 ? 0.0f : 1e-5f), x);
      check_unary(softmax_kernel(), x);
      check_unary(log_softmax_kernel(), x);
      check_log_sum_exp(x);
    }
    check_swiglu(cols, random);
    if (cols <= 70) check_specials(cols, random);
    if (cols <= 70) {
      const uint32_t spare = random.below(4);
      for (const bool adjacent : {false, true}) {
        check_rope(cols, 2 * cols, 1 + random.below(3), adjacent, random);
        check_rope(cols, 2 * cols + spare, 3, adjacent, random);
      }
    }
  }
  return check_summary();
}
