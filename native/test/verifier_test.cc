// The verifier against programs and steps with words changed at random: each is refused with a code, or runs without a
// read or write out of place (the sanitizers watch; arenas are guarded in sanitized builds).
#include <cstdlib>

#include "mutants.h"
#include "programs.h"

namespace {

constexpr uint64_t kBudget = 32u << 20;

void check_programs(const char* kv_type, Random& random) {
  const Everything everything(random.next(), kv_type);
  const Words words = Everything(everything).program.words();
  drover_region* region = nullptr;
  drover_error error{};
  CHECK(drover_region_copy(everything.weights.bytes.data(), everything.weights.bytes.size(), &region, &error) ==
            DROVER_OK,
        "%s", error.message);
  drover_load_options options = load_options();
  options.memory_budget = kBudget;
  uint32_t accepted = 0, refused = 0;
  for (uint32_t turn = 0; turn < 2000; turn++) {
    const Words mutant = turn == 0 ? words : changed(words, 0, random);
    drover_program* program = nullptr;
    error = {};
    options.verify_weights = turn % 8 == 7;
    const int code = load(mutant, region, &options, &program, &error);
    if (code != DROVER_OK) {
      refused++;
      CHECK(program == nullptr && told(code, error), "turn %u: code %d, \"%s\"", turn, code, error.message);
      continue;
    }
    accepted++;
    // What is accepted runs: prefill, decoding, and steps that are wrong themselves.
    const Words steps[] = {everything.step(0, 30, random).words(), everything.step(100, 1, random).words(),
                           changed(everything.step(60, 9, random).words(), 0, random)};
    for (const Words& step : steps) {
      error = {};
      const int end = run(program, step, &error);
      CHECK(end == DROVER_OK || told(end, error), "turn %u: code %d, \"%s\"", turn, end, error.message);
    }
    drover_program_release(program);
  }
  CHECK(accepted > 150 && refused > 1000, "%u accepted, %u refused", accepted, refused);
  drover_region_release(region);
}

void check_steps(const char* kv_type, Random& random) {
  Everything everything(random.next(), kv_type);
  drover_region* region = nullptr;
  drover_program* program = nullptr;
  drover_error error{};
  CHECK(drover_region_copy(everything.weights.bytes.data(), everything.weights.bytes.size(), &region, &error) ==
            DROVER_OK,
        "%s", error.message);
  CHECK(load(everything.program.words(), region, nullptr, &program, &error) == DROVER_OK, "%s", error.message);
  uint32_t accepted = 0, refused = 0;
  for (uint32_t turn = 0; turn < 1500; turn++) {
    const Words step = everything.step(random.below(150), 1 + random.below(30), random).words();
    error = {};
    const int code = run(program, turn % 10 == 0 ? step : changed(step, 0, random), &error);
    (code == DROVER_OK ? accepted : refused)++;
    CHECK(code == DROVER_OK || (code == DROVER_RANGE && told(code, error)), "turn %u: code %d, \"%s\"", turn, code,
          error.message);
    CHECK(code == DROVER_OK || turn % 10 != 0, "a right step: %s", error.message);
  }
  CHECK(accepted > 300 && refused > 300, "%u accepted, %u refused", accepted, refused);
  drover_program_release(program);
  drover_region_release(region);
}

// Bytes that are no program or step at all, of every short length.
void check_noise(Random& random) {
  for (uint32_t length = 0; length < 400; length++) {
    std::vector<uint8_t> bytes(length + 1);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.next());
    if (length >= 12) {  // let it pass for a program
      const uint32_t start[3] = {0x50565244, 1, length / 4};
      std::memcpy(bytes.data(), start, sizeof start);
    }
    drover_program* program = nullptr;
    drover_error error{};
    const int code = drover_program_load(bytes.data(), length, nullptr, 0, nullptr, &program, &error);
    CHECK(code == (length % 4 != 0 ? DROVER_ARGUMENT : DROVER_PROGRAM) && told(code, error), "length %u: %d", length,
          code);
    CHECK(drover_program_load(bytes.data(), length, nullptr, 0, nullptr, &program, nullptr) == code,
          "without an error");
  }
}

}  // namespace

int main() {
  setenv("DROVER_THREADS", "2", 1);
  Random random(8);
  check_noise(random);
  for (const char* kv_type : {"f32", "f16", "q8_0"}) {
    check_programs(kv_type, random);
    check_steps(kv_type, random);
  }
  return check_summary();
}
