// Words changed at random, for checks that hostile programs and steps are refused or harmless.
#ifndef DROVER_TEST_MUTANTS_H_
#define DROVER_TEST_MUTANTS_H_

#include "programs.h"

inline uint32_t other_word(const Words& words, uint32_t old, Random& random) {
  const uint32_t numbers[] = {0, 1, 2, 3, 16, 31, 32, 33, 64, 255, 256, 0x7fffffffu, 0x80000000u, 0xfffffff0u, ~0u};
  switch (random.below(6)) {
    case 0:
      return old ^ 1u << random.below(32);
    case 1:
      return numbers[random.below(sizeof numbers / sizeof *numbers)];
    case 2:
      return words[random.below(static_cast<uint32_t>(words.size()))];
    case 3:
      return old + 1;
    case 4:
      return old - 1;
    default:
      return random.below(80);
  }
}

inline Words changed(const Words& words, uint32_t spared, Random& random) {
  Words copy(words);
  for (uint32_t count = random.below(3) == 0 ? 2 : 1; count > 0; count--) {
    const uint32_t at = spared + random.below(static_cast<uint32_t>(words.size()) - spared);
    copy[at] = other_word(words, copy[at], random);
  }
  return copy;
}

// A refusal says why.
inline bool told(int code, const drover_error& error) {
  return code == error.code && error.message[0] != '\0' && error.message[sizeof error.message - 1] == '\0';
}

#endif  // DROVER_TEST_MUTANTS_H_
