// GEMM: every ISA gives the scalar kernels' bits, at odd sizes and for every way of cutting the work; the scalar
// kernels agree with float64 sums over independently decoded operands.
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "check.h"
#include "kernels/panels.h"
#include "kernels/prepare.h"
#include "kernels/simd/half.h"
#include "tables.h"

using namespace drover;

namespace {

template <typename T>
struct Aligned {
  T* data;
  explicit Aligned(size_t count) : data(static_cast<T*>(std::aligned_alloc(64, (count * sizeof(T) + 127) / 64 * 64))) {
    std::memset(static_cast<void*>(data), 0, (count * sizeof(T) + 127) / 64 * 64);
  }
  ~Aligned() { std::free(data); }
};

const char* name_of(DType dtype) {
  static const char* names[] = {
#define DROVER_DTYPE(name, elements, bytes) #name,
#include "kernels/dtypes.def"
#undef DROVER_DTYPE
  };
  return names[static_cast<uint32_t>(dtype)];
}

// Random file rows whose scales are ordinary numbers.
std::vector<uint8_t> random_rows(DType dtype, uint32_t rows, uint32_t cols, Random& random) {
  std::vector<uint8_t> bytes(row_bytes(dtype, cols) * rows);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.next());
  const auto put = [&](size_t at, uint16_t half) { std::memcpy(&bytes[at], &half, 2); };
  const auto scale = [&] { return float_to_half((random.uniform() - 0.3f) * 0.1f); };
  switch (dtype) {
    case DType::f32:
      for (size_t i = 0; i < bytes.size(); i += 4) {
        const float value = random.normal();
        std::memcpy(&bytes[i], &value, 4);
      }
      break;
    case DType::f16:
      for (size_t i = 0; i < bytes.size(); i += 2) put(i, float_to_half(random.normal()));
      break;
    case DType::bf16:
      for (size_t i = 0; i < bytes.size(); i += 2) put(i, static_cast<uint16_t>(float_to_bits(random.normal()) >> 16));
      break;
    case DType::q8_0:
      for (size_t i = 0; i < bytes.size(); i += 34) put(i, scale());
      break;
    case DType::q4_0:
    case DType::iq4_nl:
      for (size_t i = 0; i < bytes.size(); i += 18) put(i, scale());
      break;
    case DType::q4_k:
    case DType::q5_k:
      for (size_t i = 0; i < bytes.size(); i += dtype == DType::q4_k ? 144 : 176) put(i, scale()), put(i + 2, scale());
      break;
    case DType::q6_k:
      for (size_t i = 0; i < bytes.size(); i += 210) put(i + 208, scale());
      break;
    default:
      break;
  }
  return bytes;
}

// Activations as the kernel wants them, and what they stand for.
struct Input {
  Aligned<uint8_t> stored;
  uint64_t stride;
  std::vector<float> meant;
};
Input make_input(const KernelTable& table, DType type, uint32_t rows, uint32_t depth, const std::vector<float>& x) {
  const uint64_t stride = activation_row_bytes(type, depth);
  Input input{Aligned<uint8_t>(stride * rows), stride, std::vector<float>(uint64_t{rows} * depth)};
  for (uint32_t r = 0; r < rows; r++) {
    uint8_t* to = input.stored.data + r * stride;
    const float* from = x.data() + uint64_t{r} * depth;
    if (type == DType::f32) std::memcpy(to, from, depth * 4);
    if (type == DType::a8_32) table.quantize_a8_32(from, depth, to);
    if (type == DType::a8_256) table.quantize_a8_256(from, depth, to);
    for (uint32_t k = 0; k < depth; k++) {
      float value = from[k];
      if (type != DType::f32) {
        const uint32_t block = type == DType::a8_32 ? 32 : 256;
        const uint64_t scales = type == DType::a8_32 ? a8_32_scales(depth) : a8_256_scales(depth);
        float scale;
        std::memcpy(&scale, to + scales + k / block * 4, 4);
        value = scale * static_cast<float>(reinterpret_cast<const int8_t*>(to)[k]);
      }
      input.meant[uint64_t{r} * depth + k] = value;
    }
  }
  return input;
}

void check_gemm(DType dtype, uint32_t rows, uint32_t cols, uint32_t depth, bool decoded, bool epilogue, Random& random) {
  const auto tables = runnable_tables();
  const uint32_t index = static_cast<uint32_t>(dtype);
  const std::vector<uint8_t> file = random_rows(dtype, cols, depth, random);
  const uint32_t panels = (cols + 15) / 16;
  Aligned<uint8_t> prepared(prepared_bytes(dtype, cols, depth));
  if (!decoded) prepare_panels(dtype, file.data(), cols, depth, 0, panels, prepared.data);
  std::vector<float> x(uint64_t{rows} * depth), bias(cols), residual(uint64_t{rows} * cols);
  for (float& v : x) v = random.normal();
  for (float& v : bias) v = random.normal();
  for (float& v : residual) v = random.normal();
  std::vector<float> weights(uint64_t{cols} * depth), row(depth);
  for (uint32_t c = 0; c < cols; c++) {
    decode_row(dtype, file.data() + c * row_bytes(dtype, depth), depth, &weights[uint64_t{c} * depth]);
    if (decoded) continue;
    decode_prepared_row(dtype, prepared.data, cols, depth, c, row.data());
    CHECK(std::memcmp(row.data(), &weights[uint64_t{c} * depth], depth * 4) == 0, "%s prepared row %u", name_of(dtype), c);
  }
  Aligned<uint8_t> scratch(kGemmScratchBytes);
  std::vector<float> first;
  for (const KernelTable* table : tables) {
    const DType activations = decoded ? DType::f32 : table->gemm[index].activations;
    const GemmFunction run = decoded ? table->gemm_decode[index] : table->gemm[index].run;
    Input input = make_input(*table, activations, rows, depth, x);
    std::vector<float> y(uint64_t{rows} * cols + 1, 7.0f);
    GemmArgs args{};
    args.x = input.stored.data;
    args.x_stride_bytes = input.stride;
    args.w = decoded ? file.data() : prepared.data;
    args.rows = rows;
    args.cols = cols;
    args.depth = depth;
    args.y = y.data();
    args.y_stride = cols;
    if (epilogue) {
      args.bias = bias.data();
      args.activation = Activation::kRelu;
      args.residual = y.data();  // in place
      args.residual_stride = cols;
      std::memcpy(y.data(), residual.data(), residual.size() * 4);
    }
    // Cut rows and panels at random places: bits must not depend on it.
    for (uint32_t r = 0; r < rows;) {
      const uint32_t to_row = table == tables[0] ? rows : r + 1 + random.below(rows - r);
      for (uint32_t p = 0; p < panels;) {
        const uint32_t to_panel = table == tables[0] ? panels : p + 1 + random.below(panels - p);
        run(args, r, to_row, p, to_panel, scratch.data);
        p = to_panel;
      }
      r = to_row;
    }
    CHECK(y.back() == 7.0f, "%s wrote past its output", name_of(dtype));
    if (table == tables[0]) {
      first = y;
      double worst = 0;
      for (uint32_t r = 0; r < rows; r++) {
        for (uint32_t c = 0; c < cols; c++) {
          double sum = 0, magnitude = 1e-3;
          for (uint32_t k = 0; k < depth; k++) {
            const double term = double{input.meant[uint64_t{r} * depth + k]} * weights[uint64_t{c} * depth + k];
            sum += term;
            magnitude += std::fabs(term);
          }
          if (epilogue) {
            sum += bias[c];
            sum = (sum > 0 ? sum : 0) + residual[uint64_t{r} * cols + c];
            magnitude += 4;
          }
          worst = std::fmax(worst, std::fabs(sum - y[uint64_t{r} * cols + c]) / magnitude);
        }
      }
      CHECK(worst < 2e-5, "%s %ux%ux%u: worst relative error %g", name_of(dtype), rows, cols, depth, worst);
    } else {
      CHECK(std::memcmp(first.data(), y.data(), y.size() * 4) == 0, "%s %ux%ux%u decoded %d: %s differs from scalar",
            name_of(dtype), rows, cols, depth, decoded, table->isa);
    }
  }
}

}  // namespace

int main() {
  Random random(1);
  const DType types[] = {DType::f32,  DType::f16,  DType::bf16, DType::q8_0, DType::q4_0,
                         DType::iq4_nl, DType::q4_k, DType::q5_k, DType::q6_k};
  const uint32_t rows[] = {1, 2, 3, 5, 7, 8, 9, 13, 33};
  const uint32_t cols[] = {1, 15, 16, 17, 65, 100};
  for (const DType dtype : types) {
    const uint32_t unit = dtype < DType::q4_0 ? 1 : superblock(dtype).depth == 256 ? 256 : 32;
    for (uint32_t i = 0; i < 24; i++) {
      const uint32_t depth = unit == 1 ? 1 + random.below(600) : unit * (1 + random.below(unit == 32 ? 9 : 4));
      check_gemm(dtype, rows[random.below(9)], cols[random.below(6)], depth, i % 4 == 3, i % 2 == 1, random);
    }
  }
  check_gemm(DType::f32, 200, 70, 300, false, false, random);
  check_gemm(DType::f16, 200, 70, 300, false, true, random);
  return check_summary();
}
