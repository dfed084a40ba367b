// Which GEMM serves which weight format.
#include "gemm_float.inl"
// clang-format off
#include "gemm_bf16.inl"
#include "gemm_decoded.inl"
#include "gemm_int.inl"
#include "gemm_row.inl"
// clang-format on

namespace drover {
namespace {

constexpr void set_gemm(KernelTable& table, DType dtype, GemmFunction run, DType activations) {
  table.gemm[static_cast<uint32_t>(dtype)] = {run, activations};
}

constexpr void fill_gemm(KernelTable& table) {
  table.gemm_bf16 = gemm_bf16;
  set_gemm(table, DType::f32, gemm_float<LoadF32>, DType::f32);
  set_gemm(table, DType::f16, gemm_float<LoadF16>, DType::f32);
  set_gemm(table, DType::bf16, gemm_float<LoadBF16>, DType::f32);
  set_gemm(table, DType::q8_0, gemm_int<Run32<Q8Format>, DType::q8_0>, DType::a8_32);
  set_gemm(table, DType::q4_0, gemm_int<Run32<Q4Format<DType::q4_0>>, DType::q4_0>, DType::a8_32);
  set_gemm(table, DType::q4_1, gemm_int<Run32<Q4Format<DType::q4_1>>, DType::q4_1>, DType::a8_32);
  set_gemm(table, DType::q5_0, gemm_int<Run32<Q5Format<DType::q5_0>>, DType::q5_0>, DType::a8_32);
  set_gemm(table, DType::q5_1, gemm_int<Run32<Q5Format<DType::q5_1>>, DType::q5_1>, DType::a8_32);
  set_gemm(table, DType::iq4_nl, gemm_int<Run32<BookFormat<DType::iq4_nl>>, DType::iq4_nl>, DType::a8_32);
  set_gemm(table, DType::iq4_xs, gemm_int<Run32<BookFormat<DType::iq4_xs>>, DType::iq4_xs>, DType::a8_32);
  set_gemm(table, DType::mxfp4, gemm_int<Run32<BookFormat<DType::mxfp4>>, DType::mxfp4>, DType::a8_32);
  set_gemm(table, DType::iq3_s, gemm_int<Run32<BookFormat<DType::iq3_s>>, DType::iq3_s>, DType::a8_32);
  set_gemm(table, DType::iq3_xxs, gemm_int<Run32<GridFormat<DType::iq3_xxs>>, DType::iq3_xxs>, DType::a8_32);
  set_gemm(table, DType::iq2_xxs, gemm_int<Run32<GridFormat<DType::iq2_xxs>>, DType::iq2_xxs>, DType::a8_32);
  set_gemm(table, DType::iq2_xs, gemm_int<Run32<GridFormat<DType::iq2_xs>>, DType::iq2_xs>, DType::a8_32);
  set_gemm(table, DType::iq2_s, gemm_int<Run32<GridFormat<DType::iq2_s>>, DType::iq2_s>, DType::a8_32);
  set_gemm(table, DType::iq1_s, gemm_int<Run32<GridFormat<DType::iq1_s>>, DType::iq1_s>, DType::a8_32);
  set_gemm(table, DType::iq1_m, gemm_int<Run32<GridFormat<DType::iq1_m>>, DType::iq1_m>, DType::a8_32);
  set_gemm(table, DType::tq1_0, gemm_int<Run32<TernaryFormat<DType::tq1_0>>, DType::tq1_0>, DType::a8_32);
  set_gemm(table, DType::tq2_0, gemm_int<Run32<TernaryFormat<DType::tq2_0>>, DType::tq2_0>, DType::a8_32);
  set_gemm(table, DType::i4, gemm_int<Run32<I4Format>, DType::i4>, DType::a8_32);
  set_gemm(table, DType::i8, gemm_i8, DType::a8_row);
  set_gemm(table, DType::f8_e4m3, gemm_f8, DType::f8_row);
  set_gemm(table, DType::q2_k, gemm_int<Run256<Q2kFormat>, DType::q2_k>, DType::a8_256);
  set_gemm(table, DType::q3_k, gemm_int<Run256<Q3kFormat>, DType::q3_k>, DType::a8_256);
  set_gemm(table, DType::q4_k, gemm_int<Run256<Q45kFormat<DType::q4_k>>, DType::q4_k>, DType::a8_256);
  set_gemm(table, DType::q5_k, gemm_int<Run256<Q45kFormat<DType::q5_k>>, DType::q5_k>, DType::a8_256);
  set_gemm(table, DType::q6_k, gemm_int<Run256<Q6kFormat>, DType::q6_k>, DType::a8_256);
#define DROVER_DTYPE(name, elements, bytes)                                           \
  if (DType::name < DType::u32) {                                                     \
    table.gemm_decode[static_cast<uint32_t>(DType::name)] = gemm_decode<DType::name>; \
  }
#include "dtypes.def"
#undef DROVER_DTYPE
}

}  // namespace
}  // namespace drover
