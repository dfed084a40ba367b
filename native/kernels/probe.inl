// Loops that reach the machine's limits and nothing else: reading memory, and fused multiply-adds in registers.
namespace drover {
namespace {

uint64_t read_bytes(const uint8_t* data, uint64_t bytes) {
  I32x16 sums[4] = {i_zero(), i_zero(), i_zero(), i_zero()};
  for (uint64_t i = 0; i + 256 <= bytes; i += 256) {
    __builtin_prefetch(data + i + 2048);
    __builtin_prefetch(data + i + 2112);
    __builtin_prefetch(data + i + 2176);
    __builtin_prefetch(data + i + 2240);
#pragma GCC unroll 4
    for (uint32_t j = 0; j < 4; j++)
      sums[j] = i_add(sums[j], i_load(reinterpret_cast<const int32_t*>(data + i) + j * 16));
  }
  return static_cast<uint64_t>(i_sum(i_add(i_add(sums[0], sums[1]), i_add(sums[2], sums[3]))));
}

uint64_t fma_loop(uint32_t rounds) {
#ifdef DROVER_AVX512
  constexpr uint32_t kChains = 10;  // hides the latency of two ports and stays in registers
#else
  constexpr uint32_t kChains = 6;
#endif
  // Lanes differ: the compiler would compute two halves that are equal only once.
  float start[32];
  for (uint32_t i = 0; i < 32; i++) start[i] = static_cast<float>(i);
  F32x16 chain[kChains];
#pragma GCC unroll 10
  for (uint32_t c = 0; c < kChains; c++) chain[c] = f_load(start + c);
  const F32x16 a = f_set(0.999f), b = f_set(0.001f);
  for (uint32_t i = 0; i < rounds; i++) {
#pragma GCC unroll 10
    for (uint32_t c = 0; c < kChains; c++) chain[c] = f_fma(chain[c], a, b);
  }
  F32x16 sum = chain[0];
#pragma GCC unroll 10
  for (uint32_t c = 1; c < kChains; c++) sum = f_add(sum, chain[c]);
  // The result decides nothing but must be computed.
  return uint64_t{rounds} * kChains * 16 * 2 + (f_sum(sum) < 0 ? 1 : 0);
}

constexpr void fill_probe(KernelTable& table) {
  table.read_bytes = read_bytes;
  table.fma_loop = fma_loop;
}

}  // namespace
}  // namespace drover
