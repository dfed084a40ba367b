// The smallest test harness that can fail: CHECK counts, main returns nonzero and prints `N passed, N failed`.
#ifndef DROVER_TEST_CHECK_H_
#define DROVER_TEST_CHECK_H_

#include <atomic>
#include <cstdint>
#include <cstdio>

inline std::atomic<int> checks_passed{0};
inline std::atomic<int> checks_failed{0};

#define CHECK(condition, ...)                                     \
  do {                                                            \
    if (condition) {                                              \
      checks_passed++;                                            \
    } else {                                                      \
      checks_failed++;                                            \
      std::printf("%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      std::printf("  " __VA_ARGS__);                              \
      std::printf("\n");                                          \
    }                                                             \
  } while (0)

inline int check_summary() {
  std::printf("%d passed, %d failed\n", checks_passed.load(), checks_failed.load());
  return checks_failed == 0 && checks_passed > 0 ? 0 : 1;
}

// splitmix64: the same numbers everywhere.
struct Random {
  uint64_t state;
  explicit Random(uint64_t seed) : state(seed) {}
  uint64_t next() {
    uint64_t z = (state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  uint32_t below(uint32_t bound) { return static_cast<uint32_t>(next() % bound); }
  float uniform() { return static_cast<float>(next() >> 40) * 0x1p-24f; }
  float normal() {  // sum of uniforms: close enough for test data
    float sum = 0;
    for (int i = 0; i < 12; i++) sum += uniform();
    return sum - 6.0f;
  }
};

#endif  // DROVER_TEST_CHECK_H_
