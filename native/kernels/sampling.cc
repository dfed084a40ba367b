// What sampling needs beside its kernel (sampling.inl): the generator and the size of the scratch.
#include "sampling.h"

#include "kernels.h"

namespace drover {
namespace {

void philox(uint32_t counter[4], uint32_t key0, uint32_t key1) {
  for (uint32_t round = 0; round < 10; round++) {
    const uint64_t a = uint64_t{0xd2511f53u} * counter[0], b = uint64_t{0xcd9e8d57u} * counter[2];
    const uint32_t next[4] = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key0, static_cast<uint32_t>(b),
                              static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key1, static_cast<uint32_t>(a)};
    for (uint32_t i = 0; i < 4; i++) counter[i] = next[i];
    key0 += 0x9e3779b9u;
    key1 += 0xbb67ae85u;
  }
}

}  // namespace

uint64_t sampling_array_bytes(uint32_t vocabulary) { return round_up(uint64_t{vocabulary} * sizeof(double), 64); }

uint64_t sampling_scratch_bytes(uint32_t vocabulary) { return 5 * sampling_array_bytes(vocabulary); }

double sampling_uniform(uint64_t seed, uint32_t counter) {
  uint32_t words[4] = {counter, 0, 0, 0};
  philox(words, static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
  return (static_cast<double>(words[0] >> 5) * 67108864.0 + static_cast<double>(words[1] >> 6)) * 0x1p-53;
}

}  // namespace drover
