// GEMM: every ISA gives the scalar kernels' bits, at odd sizes and for every way of cutting the work; the scalar
// kernels agree with float64 sums over independently decoded operands.
#include <cmath>
#include <cstring>
#include <vector>

#include "buffers.h"
#include "kernels/panels.h"
#include "kernels/prepare.h"
#include "kernels/simd/half.h"
#include "tables.h"

using namespace drover;

namespace {

// Random file rows whose values an f32 holds: blocks get random codes, and scales that are ordinary numbers.
Buffer<uint8_t> random_rows(DType dtype, uint32_t rows, uint32_t cols, Random& random) {
  const uint64_t stride = row_bytes(dtype, cols), block = row_bytes(dtype, 1);
  Buffer<uint8_t> bytes = random_bytes(stride * rows, random);
  const auto put = [&](uint64_t at, auto value) { std::memcpy(bytes.data() + at, &value, sizeof value); };
  const auto normal = [&] { return random.normal(); };
  const auto scale = [&] { return float_to_half((random.uniform() - 0.3f) * 0.1f); };
  for (uint64_t i = 0; i < bytes.count(); i += block) {
    switch (dtype) {
      case DType::f32:
        put(i, normal());
        break;
      case DType::f64:
        put(i, static_cast<double>(normal()));
        break;
      case DType::f16:
        put(i, float_to_half(normal()));
        break;
      case DType::bf16:
        put(i, static_cast<uint16_t>(float_to_bits(normal()) >> 16));
        break;
      case DType::f8_e4m3:
      case DType::f8_e5m2:
        bytes[i] &= 0xbf;
        break;
      case DType::i8:
      case DType::i16:
      case DType::i32:
      case DType::i64:
      case DType::i4:
        break;
      case DType::q8_k:
        put(i, normal() * 0.01f);
        break;
      case DType::mxfp4:
        bytes[i] = static_cast<uint8_t>(120 + random.below(8));
        break;
      case DType::q4_1:
      case DType::q5_1:
      case DType::q4_k:
      case DType::q5_k:
        put(i, scale()), put(i + 2, scale());
        break;
      case DType::q2_k:
        put(i + 80, scale()), put(i + 82, scale());
        break;
      case DType::q3_k:
        put(i + 108, scale());
        break;
      case DType::q6_k:
        put(i + 208, scale());
        break;
      case DType::tq1_0:
        put(i + 52, scale());
        break;
      case DType::tq2_0:
        put(i + 64, scale());
        break;
      case DType::iq1_m:
        bytes[i + 55] = static_cast<uint8_t>(0x20 | (bytes[i + 55] & 0x8f));
        break;
      default:
        put(i, scale());
        break;
    }
  }
  return bytes;
}

// Activations as the kernel wants them, and what they stand for.
struct Input {
  Buffer<uint8_t> stored;
  uint64_t stride;
  std::vector<float> meant;
};
Input make_input(const KernelTable& table, DType type, uint32_t rows, uint32_t depth, const Buffer<float>& x) {
  const uint64_t stride = activation_row_bytes(type, depth);
  Input input{Buffer<uint8_t>(stride * rows), stride, std::vector<float>(uint64_t{rows} * depth)};
  for (uint32_t r = 0; r < rows; r++) {
    uint8_t* to = input.stored.data() + r * stride;
    const float* from = x.data() + uint64_t{r} * depth;
    if (type == DType::f32) std::memcpy(to, from, depth * 4);
    if (type == DType::bf16) table.write_bf16(from, depth, reinterpret_cast<uint16_t*>(to));
    if (type == DType::a8_32) table.quantize_a8_32(from, depth, to);
    if (type == DType::a8_256) table.quantize_a8_256(from, depth, to);
    if (type == DType::a8_row) table.quantize_a8_row(from, depth, to);
    if (type == DType::f8_row) table.quantize_f8_row(from, depth, INFINITY, to);
    for (uint32_t k = 0; k < depth; k++) {
      float value = from[k];
      if (type == DType::bf16) {
        value = bfloat_to_float(reinterpret_cast<const uint16_t*>(to)[k]);
      } else if (type != DType::f32) {
        const uint32_t block = type == DType::a8_32 ? 32 : type == DType::a8_256 ? 256 : depth;
        const uint64_t scales = type == DType::a8_32    ? a8_32_scales(depth)
                                : type == DType::a8_256 ? a8_256_scales(depth)
                                : type == DType::a8_row ? a8_row_scale(depth)
                                                        : f8_row_scale(depth);
        float scale;
        std::memcpy(&scale, to + scales + k / block * 4, 4);
        float code = static_cast<float>(reinterpret_cast<const int8_t*>(to)[k]);
        if (type == DType::f8_row) std::memcpy(&code, to + k * 4, 4);
        value = scale * code;
      }
      input.meant[uint64_t{r} * depth + k] = value;
    }
  }
  return input;
}

double activated(Activation activation, double x) {
  switch (activation) {
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kGeluErf:
      return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case Activation::kGeluTanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::kRelu:
      return x > 0 ? x : 0;
    default:
      return x;
  }
}

// A random divisor of n.
uint32_t divisor(uint32_t n, Random& random) {
  uint32_t d = 1 + random.below(n);
  while (n % d != 0) d--;
  return d;
}

// Scales beside the weight, where its format takes them: any float type, and for i4 groups of any whole 32-blocks.
struct SideScales {
  SideScales(DType dtype, uint32_t rows, uint32_t depth, Random& random)
      : type(kTypes[random.below(3)]),
        groups(dtype == DType::i4 ? divisor(depth / 32, random) : 1),
        bytes(random_rows(type, rows, groups, random)) {
    if (may_have_scales(dtype, depth, groups)) scales = {bytes.data(), type, groups};
  }
  static constexpr DType kTypes[] = {DType::f32, DType::f16, DType::bf16};
  DType type;
  uint32_t groups;
  Buffer<uint8_t> bytes;
  Scales scales;
};

struct Case {
  DType dtype;
  uint32_t rows, cols, depth;
  bool decoded;  // on the file's rows
  bool epilogue;
  Activation activation;
  bool bf16_rows = false;
};

void check_gemm(const Case& c, Random& random) {
  char what[120];
  std::snprintf(what, sizeof what, "%s %ux%ux%u decoded %d epilogue %d activation %u", name_of(c.dtype), c.rows, c.cols,
                c.depth, c.decoded, c.epilogue, static_cast<uint32_t>(c.activation));
  const auto tables = runnable_tables();
  const uint32_t index = static_cast<uint32_t>(c.dtype), depth = c.depth, panels = (c.cols + kPanel - 1) / kPanel;
  const Buffer<uint8_t> file = random_rows(c.dtype, c.cols, depth, random);
  Buffer<uint8_t> prepared(c.decoded ? 0 : prepared_bytes(c.dtype, c.cols, depth));
  const SideScales side(c.dtype, c.cols, depth, random);
  if (!c.decoded) prepare_panels(c.dtype, file.data(), c.cols, depth, 0, panels, prepared.data(), side.scales);
  const Buffer<float> x = normals(uint64_t{c.rows} * depth, random), bias = normals(c.cols, random);
  const uint32_t stride = c.cols + random.below(3);
  const uint64_t last = uint64_t{c.rows - 1} * stride + c.cols;  // the output ends with its last row
  const Buffer<float> residual = normals(last, random);
  Buffer<float> weights(uint64_t{c.cols} * depth), first(last);
  for (uint32_t i = 0; i < c.cols; i++) {
    decode_row(c.dtype, file.data() + i * row_bytes(c.dtype, depth), depth, weights.data() + uint64_t{i} * depth);
    scale_values(side.scales, i, depth, 0, depth, weights.data() + uint64_t{i} * depth);
  }
  // The scalar set whole, which is compared with the oracle; then every set, itself too, cut at random places.
  for (uint32_t turn = 0; turn <= tables.size(); turn++) {
    const KernelTable* table = tables[turn == 0 ? 0 : turn - 1];
    const DType activations = c.decoded ? DType::f32 : c.bf16_rows ? DType::bf16 : table->gemm[index].activations;
    const GemmFunction run = c.decoded     ? table->gemm_decode[index]
                             : c.bf16_rows ? table->gemm_bf16
                                           : table->gemm[index].run;
    const Input input = make_input(*table, activations, c.rows, depth, x);
    Buffer<float> y(residual);
    Buffer<uint8_t> scratch(kGemmScratchBytes);
    GemmArgs args{};
    args.x = input.stored.data();
    args.x_stride_bytes = input.stride;
    args.w = c.decoded ? file.data() : prepared.data();
    args.scales = c.decoded ? side.scales : Scales{};
    args.rows = c.rows;
    args.cols = c.cols;
    args.depth = depth;
    args.y = y.data();
    args.y_stride = stride;
    args.activation = c.activation;
    if (c.epilogue) {
      args.bias = bias.data();
      args.residual = y.data();  // in place
      args.residual_stride = stride;
    }
    for (uint32_t r = 0; r < c.rows;) {
      const uint32_t to_row = turn == 0 ? c.rows : r + 1 + random.below(c.rows - r);
      for (uint32_t p = 0; p < panels;) {
        const uint32_t to_panel = turn == 0 ? panels : p + 1 + random.below(panels - p);
        run(args, r, to_row, p, to_panel, scratch.data());
        p = to_panel;
      }
      r = to_row;
    }
    if (turn != 0) {
      CHECK(std::memcmp(first.data(), y.data(), y.bytes()) == 0, "%s: %s, cut, differs from scalar, whole", what,
            table->isa);
      continue;
    }
    std::memcpy(first.data(), y.data(), y.bytes());
    double worst = 0;
    bool between = true;  // rows are further apart than they are long: what lies between is nobody's
    for (uint64_t i = 0; i < last; i++) {
      const uint64_t row = i / stride, col = i % stride;
      if (col >= c.cols) {
        between = between && y[i] == residual[i];
        continue;
      }
      double sum = 0, magnitude = 1e-3;
      for (uint32_t k = 0; k < depth; k++) {
        const double term = double{input.meant[row * depth + k]} * weights[col * depth + k];
        sum += term;
        magnitude += std::fabs(term);
      }
      if (c.epilogue) magnitude += 4;
      sum = activated(c.activation, sum + (c.epilogue ? bias[col] : 0)) + (c.epilogue ? residual[i] : 0);
      const double error = std::fabs(sum - y[i]) / magnitude;
      worst = std::isnan(error) ? INFINITY : std::max(worst, error);
    }
    CHECK(worst < 1e-5, "%s: worst relative error %g", what, worst);
    CHECK(between, "%s: writes between its rows", what);
  }
}

// Any bytes at all: kernels stay within panels and code books, agree, and a scale that is no number shows in the
// output. Of every three rows one has only the largest code and one only the smallest: sums at their ends.
void check_any_bytes(DType dtype, uint32_t rows, Random& random) {
  const uint32_t cols = 37, depth = 2 * (elements_of(dtype) == 256 ? 256 : 96), panels = 3;
  const uint64_t stride = row_bytes(dtype, depth);
  Buffer<uint8_t> file = random_bytes(stride * cols, random), prepared(prepared_bytes(dtype, cols, depth));
  std::memset(file.data(), 0xff, stride);
  prepare_panels(dtype, file.data(), cols, depth, 0, panels, prepared.data());
  Buffer<float> x = normals(uint64_t{rows} * depth, random);
  for (uint64_t i = 0; i < x.count(); i++) {
    if (i / depth % 3 != 0) x[i] = i / depth % 3 == 1 ? 1.0f : -1.0f;
  }
  Buffer<float> first(uint64_t{rows} * cols), y(first.count());
  const auto tables = runnable_tables();
  for (const KernelTable* table : tables) {
    const GemmKernel& kernel = table->gemm[static_cast<uint32_t>(dtype)];
    const Input input = make_input(*table, kernel.activations, rows, depth, x);
    Buffer<uint8_t> scratch(kGemmScratchBytes);
    GemmArgs args{};
    args.x = input.stored.data();
    args.x_stride_bytes = input.stride;
    args.w = prepared.data();
    args.rows = rows;
    args.cols = cols;
    args.depth = depth;
    args.y = table == tables[0] ? first.data() : y.data();
    args.y_stride = cols;
    kernel.run(args, 0, rows, 0, panels, scratch.data());
    if (table == tables[0]) continue;
    CHECK(same_floats(first.data(), y.data(), y.count()), "%s: %s reads random bytes otherwise than scalar",
          name_of(dtype), table->isa);
  }
  uint32_t hidden = 0;
  for (uint32_t c = 0; c < cols; c++) {
    if (row_is_finite(dtype, file.data() + c * stride, depth)) continue;
    for (uint32_t r = 0; r < rows; r++) hidden += std::isfinite(first[uint64_t{r} * cols + c]) ? 1 : 0;
  }
  // The scale 2^128 of mxfp4 is its NaN, which kernels treat as a number.
  CHECK(hidden == 0 || dtype == DType::mxfp4, "%s: %u outputs hide what is not finite", name_of(dtype), hidden);
}

// Sums at the ends of 32 bits, and where 16-bit sums of pairs would saturate.
void check_i8_extremes() {
  const uint32_t depth = kMostByteDepth, cols = 19;
  Buffer<uint8_t> file(uint64_t{cols} * depth), prepared(prepared_bytes(DType::i8, cols, depth));
  for (uint64_t i = 0; i < file.count(); i++) file[i] = i / depth % 3 == 0 ? 0x80 : i / depth % 3 == 1 ? 0x7f : 0;
  prepare_panels(DType::i8, file.data(), cols, depth, 0, 2, prepared.data());
  for (const uint32_t rows : {1u, 9u}) {
    Buffer<float> x(uint64_t{rows} * depth), y(uint64_t{rows} * cols);
    for (uint64_t i = 0; i < x.count(); i++) x[i] = i / depth % 2 == 0 ? -127.0f : 127.0f;
    for (const KernelTable* table : runnable_tables()) {
      const Input input = make_input(*table, DType::a8_row, rows, depth, x);
      Buffer<uint8_t> scratch(kGemmScratchBytes);
      GemmArgs args{};
      args.x = input.stored.data();
      args.x_stride_bytes = input.stride;
      args.w = prepared.data();
      args.rows = rows;
      args.cols = cols;
      args.depth = depth;
      args.y = y.data();
      args.y_stride = cols;
      table->gemm[static_cast<uint32_t>(DType::i8)].run(args, 0, rows, 0, 2, scratch.data());
      for (uint64_t i = 0; i < y.count(); i++) {
        const int32_t w = i % cols % 3 == 0 ? -128 : i % cols % 3 == 1 ? 127 : 0, sign = i / cols % 2 == 0 ? -127 : 127;
        const int32_t sum = w * sign * static_cast<int32_t>(depth);
        CHECK(y[i] == static_cast<float>(sum), "%s: %u rows, output %llu is %g, not %d", table->isa, rows,
              static_cast<unsigned long long>(i), y[i], sum);
      }
    }
  }
}

// Numbers around the smallest normal one: what is below counts as zero, in weights, rows and sums, in every set.
void check_bf16_subnormals() {
  Random random(7);
  const uint32_t depth = 71, cols = 35, panels = 3;
  const auto tiny = [&] { return static_cast<uint16_t>((random.below(2) << 15) | random.below(60 << 7)); };
  const auto small = [&] {
    return static_cast<uint16_t>((random.below(2) << 15) | ((62 << 7) + random.below(8 << 7)));
  };
  Buffer<uint16_t> file(cols * depth);
  for (uint64_t i = 0; i < file.count(); i++) file[i] = i % 3 == 0 ? static_cast<uint16_t>(random.below(300)) : small();
  Buffer<uint8_t> prepared(prepared_bytes(DType::bf16, cols, depth)), scratch(kGemmScratchBytes);
  prepare_panels(DType::bf16, reinterpret_cast<uint8_t*>(file.data()), cols, depth, 0, panels, prepared.data());
  for (const uint32_t rows : {1u, 7u, 30u}) {
    const uint64_t stride = activation_row_bytes(DType::bf16, depth);
    Buffer<uint8_t> x(stride * rows);
    for (uint32_t r = 0; r < rows; r++)
      for (uint32_t k = 0; k < depth; k++)
        reinterpret_cast<uint16_t*>(x.data() + r * stride)[k] = r % 2 == 0 ? tiny() : small();
    Buffer<float> first(uint64_t{rows} * cols), y(first.count());
    uint32_t kept = 0, lost = 0;
    for (const KernelTable* table : runnable_tables()) {
      GemmArgs args{};
      args.x = x.data();
      args.x_stride_bytes = stride;
      args.w = prepared.data();
      args.rows = rows;
      args.cols = cols;
      args.depth = depth;
      args.y = y.data();
      args.y_stride = cols;
      table->gemm_bf16(args, 0, rows, 0, panels, scratch.data());
      if (table == runnable_tables()[0]) std::memcpy(first.data(), y.data(), y.bytes());
      CHECK(std::memcmp(first.data(), y.data(), y.bytes()) == 0, "%s: %u rows of subnormal numbers", table->isa, rows);
      for (uint64_t i = 0; i < y.count(); i++) {
        kept += y[i] != 0 ? 1 : 0;
        lost += y[i] == 0 ? 1 : 0;
        CHECK(y[i] == 0 || std::fabs(y[i]) >= 0x1p-126f, "%s: %g is subnormal", table->isa, y[i]);
      }
    }
    CHECK(lost > 0 && (rows == 1 || kept > 0), "%u rows: %u sums were kept, %u flushed", rows, kept, lost);
    // The switch is put back.
    const volatile float smallest = 0x1p-126f;
    CHECK(smallest / 2 != 0, "subnormal numbers are flushed from now on");
  }
}

// A NaN among the codes shows in its column and nowhere else.
void check_f8_nan() {
  Random random(5);
  const uint32_t depth = 70, cols = 20, bad = 17;
  Buffer<uint8_t> file = random_rows(DType::f8_e4m3, cols, depth, random);
  file[bad * depth + 33] = 0xff;
  Buffer<uint8_t> prepared(prepared_bytes(DType::f8_e4m3, cols, depth)), scratch(kGemmScratchBytes);
  prepare_panels(DType::f8_e4m3, file.data(), cols, depth, 0, 2, prepared.data());
  const Buffer<float> x = normals(depth, random);
  for (const KernelTable* table : runnable_tables()) {
    const Input input = make_input(*table, DType::f8_row, 1, depth, x);
    Buffer<float> y(cols);
    GemmArgs args{};
    args.x = input.stored.data();
    args.x_stride_bytes = input.stride;
    args.w = prepared.data();
    args.rows = 1;
    args.cols = cols;
    args.depth = depth;
    args.y = y.data();
    args.y_stride = cols;
    table->gemm[static_cast<uint32_t>(DType::f8_e4m3)].run(args, 0, 1, 0, 2, scratch.data());
    for (uint32_t i = 0; i < cols; i++) CHECK(std::isfinite(y[i]) == (i != bad), "%s: output %u", table->isa, i);
  }
}

}  // namespace

int main() {
  Random random(1);
  const uint32_t rows[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 17, 33}, cols[] = {1, 15, 16, 17, 31, 33, 65, 300};
  for (uint32_t i = 0; i < kWeightTypes; i++) {
    const DType dtype = static_cast<DType>(i);
    const uint32_t unit = elements_of(dtype), most = unit == 1 ? 600 : unit == 32 ? 9 : 4;
    const bool panels = panel_bytes(dtype, 256) != 0;
    const auto next = [&](bool decoded, uint32_t turn) {
      const Activation activation = turn % 2 == 0 ? Activation::kNone : static_cast<Activation>(turn / 2 % 5);
      check_gemm({dtype, rows[random.below(12)], cols[random.below(8)], unit * (1 + random.below(most)), decoded,
                  turn % 3 != 0, activation},
                 random);
    };
    for (uint32_t turn = 0; turn < 18 && panels; turn++) next(false, turn);
    for (uint32_t turn = 0; turn < 5; turn++) next(true, turn);
    for (uint32_t turn = 0; turn < 6 && panels && !is_float(dtype); turn++)
      check_any_bytes(dtype, rows[turn * 2], random);
    // More rows than one pass holds, and a second pass along the depth.
    if (panels) check_gemm({dtype, 100, 48, unit == 1 ? 300u : 512u, false, false, Activation::kNone}, random);
  }
  // Chunks of i8, whole and broken, and panels that fill no tile.
  check_gemm({DType::i8, 100, 16 * 7, 1100, false, true, Activation::kNone}, random);
  check_gemm({DType::i8, 7, 16 * 9, 1025, false, true, Activation::kNone}, random);
  check_i8_extremes();
  check_f8_nan();
  check_bf16_subnormals();
  for (uint32_t turn = 0; turn < 24; turn++) {
    const uint32_t depth = turn % 4 == 3 ? 257 + random.below(500) : 1 + random.below(100);
    check_gemm({DType::bf16, rows[random.below(12)], cols[random.below(8)], depth, false, turn % 3 != 0,
                static_cast<Activation>(turn % 5), true},
               random);
  }
  check_gemm({DType::bf16, 300, 530, 271, false, true, Activation::kNone, true}, random);
  // More than fits beside the sums: few rows take the way of many.
  check_gemm({DType::bf16, 5, 33, 60001, false, false, Activation::kNone, true}, random);
  for (const DType dtype : {DType::f32, DType::f16}) {
    check_gemm({dtype, 200, 70, 30, false, true, Activation::kNone}, random);
    check_gemm({dtype, 200, 20, 30, true, true, Activation::kNone}, random);
    // More than a block of rows, than its panels, and than a chunk of the depth.
    check_gemm({dtype, 300, 530, 270, false, true, Activation::kNone}, random);
  }
  return check_summary();
}
