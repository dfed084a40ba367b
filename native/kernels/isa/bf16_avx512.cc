// What AVX-512's instructions for products of bf16 are used in.
#define DROVER_AVX512 1
#include "../simd/pairs_avx512.h"
// clang-format off
#include "../kernels.h"
#include "../math.inl"
#include "../elementwise.inl"
#include "../gemm_float.inl"
#include "../gemm_bf16.inl"
// clang-format on

namespace drover {
namespace {

uint64_t bf16_dot_loop(uint32_t rounds) {
  constexpr uint32_t kChains = 10;
  F32x16 chain[kChains];
#pragma GCC unroll 10
  for (uint32_t c = 0; c < kChains; c++) chain[c] = f_set(static_cast<float>(c));
  const Pairs16 pairs{_mm512_set1_epi32(0x3e803f00)};
  for (uint32_t i = 0; i < rounds; i++) {
#pragma GCC unroll 10
    for (uint32_t c = 0; c < kChains; c++) chain[c] = p_dot(chain[c], 0xbe803f00, pairs);
  }
#pragma GCC unroll 10
  for (uint32_t c = 1; c < kChains; c++) chain[0] = f_add(chain[0], chain[c]);
  return uint64_t{rounds} * kChains * 32 * 2 + (f_sum(chain[0]) == 0.5f ? 1 : 0);
}

}  // namespace

void use_bf16_avx512(KernelTable& table) {
  table.gemm_bf16 = gemm_bf16;
  table.bf16_dot_loop = bf16_dot_loop;
}

}  // namespace drover
