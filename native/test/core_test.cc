// The life of programs through drover.h: budgets, refusals, aborting, releasing while a step runs, many threads with
// many programs, pages, profile. scripts/test-native.mjs --tsan runs this file under ThreadSanitizer.
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <thread>

#include "programs.h"

namespace {

drover_region* region_of(const WeightBytes& weights) {
  drover_region* region = nullptr;
  drover_error error{};
  CHECK(drover_region_copy(weights.bytes.data(), weights.bytes.size(), &region, &error) == DROVER_OK, "%s",
        error.message);
  return region;
}

// A loaded Everything.
struct Loaded {
  Everything everything;
  drover_program* program = nullptr;
  explicit Loaded(uint64_t seed, uint32_t threads = 0, const char* kv_type = "q8_0") : everything(seed, kv_type) {
    drover_region* region = region_of(everything.weights);
    drover_load_options options = load_options();
    options.threads = threads;
    drover_error error{};
    const int code = load(everything.program.words(), region, &options, &program, &error);
    CHECK(code == DROVER_OK, "%s", error.message);
    drover_region_release(region);  // the program holds it
  }
  ~Loaded() { drover_program_release(program); }
  Loaded(const Loaded&) = delete;
  Loaded& operator=(const Loaded&) = delete;

  // What a step leaves behind: probabilities, draws, losses and what comes of fixed inputs.
  Words results() {
    Words all;
    drover_error error{};
    const auto read = [&](uint32_t tensor, uint32_t rows, uint32_t cols) {
      Words part(uint64_t{rows} * cols);
      CHECK(drover_program_read(program, tensor, 0, rows, part.data(), part.size() * 4, &error) == DROVER_OK, "%s",
            error.message);
      all.insert(all.end(), part.begin(), part.end());
    };
    read(everything.probabilities, 2, Everything::kVocabulary);
    read(everything.logits, 2, Everything::kVocabulary);
    read(everything.sampled, 2, 14);
    read(everything.losses, 2, 1);
    read(everything.wide, 20, 20);
    return all;
  }
  // A prompt and a few more positions.
  Words generate(uint64_t seed) {
    Random random(seed);
    Words all;
    drover_error error{};
    for (uint32_t start = 0, rows = 30; start < 80; start += rows, rows = 10) {
      const int code = run(program, everything.step(start, rows, random).words(), &error);
      CHECK(code == DROVER_OK, "%s", error.message);
      const Words part = results();
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  }
};

void check_results() {
  Loaded one(1, 1), many(1, 4);
  const Words right = one.generate(2);
  CHECK(right == many.generate(2), "four workers and one differ");
  CHECK(right == many.generate(2), "a second time differs");
  double sum = 0;
  for (uint32_t i = 0; i < Everything::kVocabulary; i++)
    sum += static_cast<double>(__builtin_bit_cast(float, right[i]));
  CHECK(std::fabs(sum - 1) < 1e-5, "probabilities sum to %g", sum);
}

void check_budget() {
  Everything everything(3);
  const Words words = everything.program.words();
  drover_region* region = region_of(everything.weights);
  drover_load_options options = load_options();
  options.memory_budget = 1;
  drover_program* program = nullptr;
  drover_error error{};
  CHECK(load(words, region, &options, &program, &error) == DROVER_MEMORY, "a budget of one byte");
  CHECK(error.expected == 1 && error.found > 1, "needs %lld", static_cast<long long>(error.found));
  options.memory_budget = static_cast<uint64_t>(error.found) - 1;
  CHECK(load(words, region, &options, &program, &error) == DROVER_MEMORY, "one byte too few");
  options.memory_budget++;
  CHECK(load(words, region, &options, &program, &error) == DROVER_OK, "%s", error.message);
  drover_memory memory{};
  drover_program_memory(program, &memory);
  const uint64_t total = memory.activations + memory.kv + memory.prepared + memory.scratch;
  CHECK(total >= options.memory_budget && total < options.memory_budget + 4 * 4096 && memory.mapped == 0,
        "%llu bytes in pages", static_cast<unsigned long long>(total));
  drover_program_release(program);
  drover_region_release(region);
}

void check_load() {
  Everything everything(4);
  const Words words = everything.program.words();
  WeightBytes weights = everything.weights;
  drover_region* region = region_of(weights);
  drover_load_options options = load_options();
  drover_program* program = nullptr;
  drover_error error{};
  struct Progress {
    std::atomic<uint64_t> most{0}, total{0};
  } progress;
  options.progress = [](void* user, uint64_t done, uint64_t total) {
    Progress* p = static_cast<Progress*>(user);
    p->total = total;
    for (uint64_t most = p->most; most < done && !p->most.compare_exchange_weak(most, done);) {
    }
  };
  options.user = &progress;
  options.verify_weights = 1;
  CHECK(load(words, region, &options, &program, &error) == DROVER_OK, "%s", error.message);
  CHECK(progress.most == progress.total && progress.total > 0, "%llu of %llu bytes",
        static_cast<unsigned long long>(progress.most), static_cast<unsigned long long>(progress.total));
  drover_program_release(program);
  const int32_t cancel = 1;
  options.cancel = &cancel;
  CHECK(load(words, region, &options, &program, &error) == DROVER_ABORTED, "a cancelled load");
  options.cancel = nullptr;
  options.struct_bytes--;
  CHECK(load(words, region, &options, &program, &error) == DROVER_ARGUMENT, "options of another version");
  drover_region_release(region);
  weights.bytes[3] = 0x7f, weights.bytes[2] = 0xc0;  // the table's first number is NaN
  region = region_of(weights);
  options = load_options();
  options.verify_weights = 1;
  CHECK(load(words, region, &options, &program, &error) == DROVER_FORMAT && error.found == 0, "NaN among the weights");
  options.verify_weights = 0;
  CHECK(load(words, region, &options, &program, &error) == DROVER_OK, "%s", error.message);
  drover_program_release(program);
  drover_region_release(region);
}

void check_regions() {
  char path[] = "/tmp/drover-core-test-XXXXXX";
  const int file = mkstemp(path);
  Everything everything(5);
  const std::vector<uint8_t>& bytes = everything.weights.bytes;
  CHECK(write(file, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()), "temporary file");
  close(file);
  drover_region *mapped = nullptr, *none = nullptr;
  drover_error error{};
  CHECK(drover_region_map(path, bytes.size(), &mapped, &error) == DROVER_OK, "%s", error.message);
  CHECK(drover_region_map(path, bytes.size() + 1, &none, &error) == DROVER_IO, "another size");
  CHECK(error.found == static_cast<int64_t>(bytes.size()), "found %lld", static_cast<long long>(error.found));
  CHECK(drover_region_map("/nowhere/at all", 1, &none, &error) == DROVER_IO, "no such file");
  CHECK(drover_region_map("/", 4096, &none, &error) == DROVER_IO, "a folder");
  CHECK(drover_region_copy(nullptr, 1, &none, &error) == DROVER_ARGUMENT && none == nullptr, "no bytes");
  unlink(path);
  drover_program* program = nullptr;
  CHECK(load(everything.program.words(), mapped, nullptr, &program, &error) == DROVER_OK, "%s", error.message);
  drover_region_release(mapped);
  drover_memory memory{};
  drover_program_memory(program, &memory);
  CHECK(memory.mapped == bytes.size(), "%llu mapped bytes", static_cast<unsigned long long>(memory.mapped));
  Random random(6);
  CHECK(run(program, everything.step(0, 20, random).words(), &error) == DROVER_OK, "%s", error.message);
  drover_program_release(program);
  drover_program_release(nullptr);
  drover_region_release(nullptr);
}

void check_access() {
  Loaded loaded(7, 0, "f32");
  drover_program* p = loaded.program;
  const uint32_t x = loaded.everything.hidden, width = Everything::kWidth, most = Everything::kMostRows;
  drover_error error{};
  std::vector<float> row(width * 2), back(width * 2);
  for (uint32_t i = 0; i < width * 2; i++) row[i] = static_cast<float>(i);
  CHECK(drover_program_write(p, x, most - 2, 2, row.data(), width * 8, &error) == DROVER_OK, "%s", error.message);
  CHECK(drover_program_read(p, x, most - 2, 2, back.data(), width * 8, &error) == DROVER_OK && back == row, "rows");
  CHECK(drover_program_read(p, x, most, 0, back.data(), 0, &error) == DROVER_OK, "no rows at the end");
  CHECK(drover_program_read(p, x, most - 1, 2, back.data(), width * 8, &error) == DROVER_RANGE, "past the end");
  CHECK(drover_program_read(p, x, ~0u, 2, back.data(), width * 8, &error) == DROVER_RANGE, "far past the end");
  CHECK(drover_program_read(p, x, 0, 2, back.data(), width * 8 - 1, &error) == DROVER_SHAPE, "a byte too few");
  CHECK(drover_program_read(p, 999, 0, 1, back.data(), 4, &error) == DROVER_RANGE, "no such tensor");
  CHECK(drover_program_write(p, 2, 0, 1, row.data(), 64 * 2, &error) != DROVER_OK, "a quantised tensor");
  Random random(8);
  CHECK(run(p, loaded.everything.step(0, 30, random).words(), &error) == DROVER_OK, "%s", error.message);
  // The cache: pages 5, 2, 7 are the first sequence's. A copied page reads the same.
  const uint32_t pages[] = {5, 2}, copy[] = {3, 2}, dim = drover_program_kv_head_dim(p);
  std::vector<float> keys(30 * dim), again(30 * dim);
  CHECK(drover_program_read_kv(p, 0, 1, 0, pages, 30, keys.data(), &error) == DROVER_OK, "%s", error.message);
  CHECK(drover_program_copy_page(p, 5, 3, &error) == DROVER_OK, "%s", error.message);
  CHECK(drover_program_read_kv(p, 0, 1, 0, copy, 30, again.data(), &error) == DROVER_OK && again == keys,
        "a copied page");
  double sum = 0;
  for (const float key : keys) sum += std::fabs(static_cast<double>(key));
  CHECK(sum > 1 && std::isfinite(sum), "keys of size %g", sum);
  CHECK(drover_program_copy_page(p, 0, Everything::kPages, &error) == DROVER_RANGE, "no such page");
  const uint32_t bad[] = {Everything::kPages};
  CHECK(drover_program_read_kv(p, 0, 1, 0, bad, 1, keys.data(), &error) == DROVER_RANGE, "no such page");
  CHECK(drover_program_read_kv(p, 1, 0, 0, pages, 1, keys.data(), &error) != DROVER_OK, "no such layer");
  CHECK(drover_program_read_kv(p, 0, 2, 0, pages, 1, keys.data(), &error) != DROVER_OK, "no such head");
  CHECK(drover_program_read_kv(p, 0, 0, 2, pages, 1, keys.data(), &error) != DROVER_OK, "neither key nor value");
  const uint32_t threads = drover_program_threads(p), per_op = 2 + threads;
  std::vector<uint64_t> profile(uint64_t{loaded.everything.op_count} * per_op);
  CHECK(drover_program_profile(p, profile.data(), profile.size(), &error) == DROVER_OK, "%s", error.message);
  for (uint32_t i = 0; i < loaded.everything.op_count; i++) {
    const uint64_t* line = profile.data() + uint64_t{i} * per_op;
    CHECK(line[0] > 0 && line[1] >= line[0] && (i == 0 || line[0] >= *(line - per_op + 1)), "op %u follows the last",
          i);
    uint64_t busy = 0;
    for (uint32_t worker = 0; worker < threads; worker++) {
      CHECK(line[2 + worker] <= line[1] - line[0], "op %u: worker %u is busy for longer than it lasts", i, worker);
      busy += line[2 + worker];
    }
    CHECK(busy > 0 || line[1] == line[0], "op %u: nobody works", i);
  }
  CHECK(drover_program_profile(p, profile.data(), profile.size() - 1, &error) == DROVER_SHAPE, "another length");
}

void check_probe() {
  drover_limits limits{};
  drover_error error{};
  CHECK(drover_probe(1, 4u << 20, &limits, &error) == DROVER_OK, "%s", error.message);
  CHECK(limits.buffer_bytes == 4u << 20, "%llu bytes", static_cast<unsigned long long>(limits.buffer_bytes));
  for (const double rate : {limits.read_bytes_per_second, limits.f32_per_second, limits.int8_per_second})
    CHECK(rate > 1e5 && std::isfinite(rate), "%g per second", rate);
  CHECK(limits.bf16_per_second >= 0 && std::isfinite(limits.bf16_per_second), "%g", limits.bf16_per_second);
}

// A program whose step takes a while: `ops` products of 64 rows with 512 x 512 weights.
struct Slow {
  static constexpr uint32_t kRows64 = 64, kSize = 512;
  drover_program* program = nullptr;
  Words step;
  explicit Slow(uint32_t ops) {
    Random random(9);
    WeightBytes weights;
    ProgramWords p;
    p.header[3] = 1;
    const uint32_t w = p.weight(0, "f16", weights.add("f16", kSize, kSize, random), kSize, kSize, kPrepared);
    const uint32_t x = p.tensor("f32", kSize, kFixed, kRows64), y = p.tensor("f32", kSize, kFixed, kRows64);
    for (uint32_t i = 0; i < ops; i++) p.op("gemm", {i % 2 == 0 ? y : x, i % 2 == 0 ? x : y, w, kAbsent, kAbsent, 0});
    drover_region* region = region_of(weights);
    drover_error error{};
    CHECK(load(p.words(), region, nullptr, &program, &error) == DROVER_OK, "%s", error.message);
    drover_region_release(region);
    StepWords s;
    s.end_op = ops;
    step = s.words();
  }
};

struct Outcome {
  std::atomic<int> calls{0}, code{-1};
  static void done(void* user, int code, const drover_error* error) {
    Outcome* outcome = static_cast<Outcome*>(user);
    outcome->code = (code == DROVER_OK) == (error == nullptr) ? code : DROVER_INTERNAL;
    outcome->calls++;
  }
  int wait() {
    while (calls == 0) std::this_thread::yield();
    return code;
  }
};

void check_abort() {
  Slow slow(400);
  drover_error error{};
  uint32_t aborted = 0;
  for (uint32_t turn = 0; turn < 20; turn++) {
    Outcome outcome;
    CHECK(drover_program_submit(slow.program, bytes_of(slow.step), slow.step.size() * 4, Outcome::done, &outcome,
                                &error) == DROVER_OK,
          "%s", error.message);
    float value = 0;
    const int second = drover_program_run(slow.program, bytes_of(slow.step), slow.step.size() * 4, &error);
    CHECK(second == DROVER_BUSY || outcome.calls == 1, "a second step: %d", second);
    const int read = drover_program_read(slow.program, 0, 0, 0, &value, 0, &error);
    CHECK(read == DROVER_BUSY || outcome.calls == 1, "reading beside a step: %d", read);
    std::thread other([&] { drover_program_abort(slow.program); });
    const int code = outcome.wait();
    other.join();
    CHECK(code == DROVER_ABORTED || code == DROVER_OK, "code %d", code);
    if (code == DROVER_ABORTED) aborted++;
    CHECK(outcome.calls == 1, "told %d times", outcome.calls.load());
  }
  CHECK(aborted > 10, "%u of 20 steps aborted", aborted);
  // An abort without a step in flight does not reach the next one.
  Loaded loaded(1);
  drover_program_abort(loaded.program);
  loaded.generate(2);
  drover_program_abort(nullptr);
  drover_program_release(slow.program);
}

void check_release_while_running() {
  for (uint32_t turn = 0; turn < 10; turn++) {
    Slow slow(200);
    Outcome outcome;
    drover_error error{};
    CHECK(drover_program_submit(slow.program, bytes_of(slow.step), slow.step.size() * 4, Outcome::done, &outcome,
                                &error) == DROVER_OK,
          "%s", error.message);
    if (turn % 2 == 1) std::this_thread::sleep_for(std::chrono::milliseconds(turn));
    drover_program_release(slow.program);
    const int code = outcome.wait();
    CHECK(code == DROVER_ABORTED || code == DROVER_OK, "code %d", code);
  }
}

// Each thread loads, runs and releases programs of its own; what they give is what one thread gives.
void check_threads() {
  constexpr uint32_t kThreads = 6, kTurns = 3;
  std::vector<Words> right;
  for (uint32_t i = 0; i < kThreads; i++) right.push_back(Loaded(100 + i, 1).generate(i));
  std::vector<Words> found(kThreads);
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < kThreads; i++) {
    threads.emplace_back([&, i] {
      for (uint32_t turn = 0; turn < kTurns; turn++) {
        Loaded mine(100 + i);
        found[i] = mine.generate(i);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (uint32_t i = 0; i < kThreads; i++) CHECK(found[i] == right[i], "thread %u has other numbers", i);
}

}  // namespace

int main() {
  setenv("DROVER_THREADS", "4", 1);  // more workers than most machines of CI have cores
  check_results();
  check_budget();
  check_load();
  check_regions();
  check_access();
  check_probe();
  check_abort();
  check_release_while_running();
  check_threads();
  return check_summary();
}
