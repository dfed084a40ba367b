// Loops that reach the machine's limits and nothing else: reading memory, and multiply-adds in registers.
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

// Independent chains: as many as hide the latency of two ports, and no more than registers hold.
#ifdef DROVER_AVX512
constexpr uint32_t kFmaChains = 10;
#else
constexpr uint32_t kFmaChains = 6;
#endif

uint64_t fma_loop(uint32_t rounds) {
  // Lanes differ: the compiler would compute two halves that are equal only once.
  float start[32];
  for (uint32_t i = 0; i < 32; i++) start[i] = static_cast<float>(i);
  F32x16 chain[kFmaChains];
#pragma GCC unroll 10
  for (uint32_t c = 0; c < kFmaChains; c++) chain[c] = f_load(start + c);
  const F32x16 a = f_set(0.999f), b = f_set(0.001f);
  for (uint32_t i = 0; i < rounds; i++) {
#pragma GCC unroll 10
    for (uint32_t c = 0; c < kFmaChains; c++) chain[c] = f_fma(chain[c], a, b);
  }
  F32x16 sum = chain[0];
#pragma GCC unroll 10
  for (uint32_t c = 1; c < kFmaChains; c++) sum = f_add(sum, chain[c]);
  // The result decides nothing but must be computed.
  return uint64_t{rounds} * kFmaChains * 16 * 2 + (f_sum(sum) < 0 ? 1 : 0);
}

#ifdef DROVER_MATRIX
// Products as the integer kernels make them of two rows or more.
uint64_t byte_dot_loop(uint32_t rounds) {
  constexpr uint32_t kChains = 3, kSteps = 8;  // of four registers each
  uint8_t ones[32];
  for (uint8_t& one : ones) one = 1;
  TwoCodes codes = TwoRows::codes(ones);
  TwoI sums[kChains];
#pragma GCC unroll 3
  for (uint32_t c = 0; c < kChains; c++) sums[c] = TwoRows::none();
  for (uint32_t i = 0; i < rounds; i++) {
#pragma GCC unroll 8
    for (uint32_t step = 0; step < kSteps; step++) {
#pragma GCC unroll 3
      for (uint32_t c = 0; c < kChains; c++) {
        __asm__("" : "+w"(codes.at[0]), "+w"(codes.at[1]));
        sums[c] = s_dot(s_dot(sums[c], codes, TwoCodesOfRows<0>{codes.at[0]}), codes, TwoCodesOfRows<1>{codes.at[0]});
      }
    }
  }
  int32x4_t all = vdupq_n_s32(0);  // every sum counts for the result
#pragma GCC unroll 3
  for (uint32_t c = 0; c < kChains; c++)
    for (const int32x4_t sum : sums[c].at) all = vorrq_s32(all, sum);
  constexpr uint64_t kProducts = kSteps * kChains * kColumns * 2 * 8;
  return rounds * kProducts * 2 + (vaddvq_s32(all) == -1 ? 1 : 0);
}
#else
// Products as the integer kernels make them. Where sums have 16 bits they are widened as rarely as codes of 4 bits
// allow: no kernel can do with less, so this is the limit of them all.
uint64_t byte_dot_loop(uint32_t rounds) {
  constexpr uint32_t kChains = kDot32 ? 10 : 6;
  uint8_t ones[64];
  for (uint8_t& one : ones) one = 1;
  int8_t x[4] = {1, 1, 1, 1};
  __asm__("" : "+m"(x));  // else plain C++ would add without multiplying
  Bytes codes = b_load(ones);
  ColI total = i_columns(0);
  Sum sums[kChains];
#pragma GCC unroll 10
  for (uint32_t c = 0; c < kChains; c++) sums[c] = s_begin(total);
  for (uint32_t i = 0; i < rounds; i++) {
#pragma GCC unroll 8
    for (uint32_t group = 0; group < kGroups15; group++) {
#pragma GCC unroll 10
      for (uint32_t c = 0; c < kChains; c++) {
        codes = b_opaque(codes);
        sums[c] = s_dot(sums[c], codes, x);
      }
    }
    if constexpr (!kDot32) {
#pragma GCC unroll 10
      for (uint32_t c = 0; c < kChains; c++) {
        total = s_total(sums[c], total);
        sums[c] = s_begin(total);
      }
    }
  }
  // Every lane of every chain counts for the result, else the compiler would leave some out.
  ColF all = c_zero();
#pragma GCC unroll 10
  for (uint32_t c = 0; c < kChains; c++) all = c_fma(c_from(s_total(sums[c], total)), c_set(1), all);
  float lanes[kColumns], sum = 0;
  c_store(lanes, all);
  for (const float lane : lanes) sum += lane;
  return uint64_t{rounds} * kGroups15 * kChains * kColumns * 4 * 2 + (sum == 0.5f ? 1 : 0);
}
#endif

constexpr void fill_probe(KernelTable& table) {
  table.read_bytes = read_bytes;
  table.fma_loop = fma_loop;
  table.byte_dot_loop = byte_dot_loop;
  table.float_path = kFmaPath;
  table.byte_path = kDotPath;
}

}  // namespace
}  // namespace drover
