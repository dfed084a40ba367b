// Sampling against a plain float64 reference that sorts: every filter alone and together, penalties, bias, mask, the
// draw and the reported log-probabilities; the generator against published vectors; rows without a token.
#include "kernels/sampling.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "buffers.h"
#include "tables.h"

using namespace drover;

namespace {

// ---- Philox 4x32-10, as its authors define it ----

using Words = std::array<uint32_t, 4>;

Words philox(Words counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; round++) {
    const uint64_t left = uint64_t{0xD2511F53} * counter[0], right = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(right >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(right),
               static_cast<uint32_t>(left >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(left)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

void check_generator(Random& random) {
  CHECK((philox({0, 0, 0, 0}, {0, 0}) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}), "known answer 1");
  CHECK((philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}) == Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}),
        "known answer 2");
  CHECK((philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
         Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}),
        "known answer 3");
  double sum = 0;
  const uint32_t draws = 20000;
  for (uint32_t i = 0; i < draws; i++) {
    const uint64_t seed = i == 0 ? 0 : random.next();
    const uint32_t counter = i == 0 ? 0 : static_cast<uint32_t>(random.next());
    const Words w = philox({counter, 0, 0, 0}, {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
    const double right = std::ldexp(static_cast<double>(uint64_t{w[0] >> 5} << 26 | w[1] >> 6), -53);
    const double found = sampling_uniform(seed, counter);
    CHECK(found == right && found >= 0 && found < 1, "seed %llx counter %u: %g", static_cast<unsigned long long>(seed),
          counter, found);
    sum += found;
  }
  CHECK(std::fabs(sum / draws - 0.5) < 0.01, "mean %g", sum / draws);
}

// ---- the reference ----

struct Request {
  SamplingRecord record;
  std::vector<uint32_t> tail;
};

struct Answer {
  bool any;
  bool close;  // a filter's border or the draw lies within rounding of where it was decided
  uint32_t token;
  std::vector<double> probabilities;
};

constexpr double kClose = 1e-10;

double bits(uint32_t word) { return static_cast<double>(__builtin_bit_cast(float, word)); }
// What adjusts a logit is computed in f32, one rounding a step; only numbers too large for it stay as they are.
double narrow(double value) {
  return std::fabs(value) > 1.7e38 ? value : static_cast<double>(static_cast<float>(value));
}

Answer sample(const std::vector<float>& logits, const Request& request) {
  const SamplingRecord& r = request.record;
  const uint32_t n = static_cast<uint32_t>(logits.size());
  Answer answer{false, false, 0, std::vector<double>(n)};
  std::vector<double> score(logits.begin(), logits.end());
  for (const double v : score) {
    if (std::isnan(v) || v == INFINITY) return answer;
  }
  for (uint32_t i = 0; i < r.history_count; i++) {
    double& v = score[request.tail[r.history_begin + 2 * i]];
    const uint32_t count = request.tail[r.history_begin + 2 * i + 1];
    const double penalty = static_cast<double>(r.repetition_penalty);
    v = narrow(v > 0 ? v / penalty : v * penalty);
    v = narrow(v - narrow(static_cast<double>(r.frequency_penalty) * count));
    if (count > 0) v = narrow(v - static_cast<double>(r.presence_penalty));
  }
  for (uint32_t i = 0; i < r.bias_count; i++) {
    double& v = score[request.tail[r.bias_begin + 2 * i]];
    v = narrow(v + bits(request.tail[r.bias_begin + 2 * i + 1]));
  }
  for (uint32_t i = 0; i < n && r.mask_begin != ~0u; i++) {
    if ((request.tail[r.mask_begin + i / 32] >> i % 32 & 1) == 0) score[i] = -INFINITY;
  }
  const auto best = std::max_element(score.begin(), score.end());
  if (*best == -INFINITY) return answer;
  answer.any = true;
  if (r.temperature == 0) {
    answer.token = static_cast<uint32_t>(best - score.begin());
    answer.probabilities[answer.token] = 1;
    return answer;
  }
  const double temperature = static_cast<double>(r.temperature), peak = narrow(*best / temperature);
  std::vector<uint32_t> left;  // ascending by score, then token
  std::vector<double> weight(n);
  for (uint32_t i = 0; i < n; i++) {
    score[i] = narrow(score[i] / temperature) - peak;
    weight[i] = score[i] < -708 ? 0 : std::exp(score[i]);
    if (weight[i] > 0) left.push_back(i);
  }
  std::stable_sort(left.begin(), left.end(), [&](uint32_t a, uint32_t b) { return score[a] < score[b]; });
  const auto total = [&] {
    double sum = 0;
    for (const uint32_t i : left) sum += weight[i];
    return sum;
  };
  if (r.top_k > 0 && r.top_k < left.size()) {
    const double least = score[left[left.size() - r.top_k]];
    left.erase(left.begin(), std::find_if(left.begin(), left.end(), [&](uint32_t i) { return score[i] >= least; }));
  }
  if (r.top_p < 1) {
    const double limit = (1 - static_cast<double>(r.top_p)) * total();
    double dropped = 0;
    uint64_t going = 0;
    while (going + 1 < left.size() && dropped + weight[left[going]] <= limit) dropped += weight[left[going++]];
    if (going + 1 < left.size() && dropped + weight[left[going]] - limit < kClose * limit) answer.close = true;
    if (going > 0 && limit - dropped < kClose * limit) answer.close = true;
    left.erase(left.begin(), left.begin() + static_cast<int64_t>(going));
  }
  if (r.min_p > 0) {
    const double least = std::min(1.0, static_cast<double>(r.min_p));  // the likeliest stays
    for (const uint32_t i : left) answer.close |= weight[i] < 1 && std::fabs(weight[i] - least) < kClose;
    const auto out = [&](uint32_t i) { return weight[i] < least; };
    left.erase(std::remove_if(left.begin(), left.end(), out), left.end());
  }
  if (r.typical_p < 1) {
    const double sum = total();
    double entropy = 0;
    for (const uint32_t i : left) entropy -= weight[i] / sum * std::log(weight[i] / sum);
    std::vector<double> distance(n);
    for (const uint32_t i : left) distance[i] = std::fabs(-std::log(weight[i] / sum) - entropy);
    std::stable_sort(left.begin(), left.end(), [&](uint32_t a, uint32_t b) { return distance[a] < distance[b]; });
    const double wanted = static_cast<double>(r.typical_p) * sum;
    double kept = 0, last = -1;
    uint64_t count = 0;
    for (; count < left.size() && (count == 0 || kept < wanted || distance[left[count]] == last); count++) {
      answer.close |= count > 0 && std::fabs(kept - wanted) < kClose * sum;
      kept += weight[left[count]];
      last = distance[left[count]];
    }
    answer.close |= count < left.size() && distance[left[count]] - last < kClose;
    left.resize(count);
  }
  std::sort(left.begin(), left.end());
  const double sum = total();
  double uniform = __builtin_bit_cast(double, uint64_t{r.uniform_high} << 32 | r.uniform_low);
  if ((r.flags & 1) == 0) uniform = sampling_uniform(uint64_t{r.seed_high} << 32 | r.seed_low, r.counter);
  double reached = 0;
  bool drawn = false;
  for (const uint32_t i : left) {
    answer.probabilities[i] = weight[i] / sum;
    reached += weight[i];
    answer.close |= std::fabs(reached - uniform * sum) < kClose * sum && i != left.back();
    if (!drawn) answer.token = i;
    drawn = drawn || reached > uniform * sum;
  }
  return answer;
}

const KernelTable* kernels = nullptr;  // the set that is being checked
uint32_t compared = 0, close_calls = 0;

void check_sample(const char* what, const std::vector<float>& logits, const Request& request) {
  const uint32_t n = static_cast<uint32_t>(logits.size()), most = request.record.top_logprobs;
  Buffer<float> row(n), probabilities(n);
  std::memcpy(row.data(), logits.data(), row.bytes());
  Buffer<uint32_t> tail(request.tail.size());
  std::copy(request.tail.begin(), request.tail.end(), tail.data());
  Buffer<Candidate> candidates(std::min(most, n));
  Buffer<uint8_t> scratch(sampling_scratch_bytes(n));
  const SampleResult found = kernels->sample_row(row.data(), n, request.record, tail.data(), candidates.data(),
                                                 probabilities.data(), scratch.data());
  const Answer right = sample(logits, request);
  CHECK(found.allowed_any == right.any, "%s: any token is %d", what, found.allowed_any);
  if (!right.any) {
    bool zero = true;
    for (uint32_t i = 0; i < n; i++) zero = zero && probabilities[i] == 0;
    CHECK(zero, "%s: probabilities without a token", what);
    return;
  }
  compared++;
  if (right.close) {
    close_calls++;
  } else {
    double error = 0;
    for (uint32_t i = 0; i < n; i++) {
      const double e = std::fabs(right.probabilities[i] - probabilities[i]);
      if (!(e <= error)) error = e;  // NaN counts
    }
    CHECK(error < 1e-7, "%s: probabilities differ by %g", what, error);
    CHECK(found.token == right.token, "%s: token %u, not %u", what, found.token, right.token);
  }
  // What is reported comes from the raw logits.
  double peak = -INFINITY, sum = 0;
  for (const float v : logits) peak = std::fmax(peak, v);
  for (const float v : logits) sum += std::exp(v - peak);
  const double log_sum = peak + std::log(sum);
  if ((request.record.flags & 2) == 0 && most == 0) return;
  const auto near = [](double a, float b) { return std::fabs(a - b) <= 1e-6 * (1 + std::fabs(a)) || a == b; };
  CHECK(near(logits[found.token] - log_sum, found.logprob), "%s: log-probability %g", what, found.logprob);
  std::vector<uint32_t> order(n);
  for (uint32_t i = 0; i < n; i++) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return logits[a] > logits[b]; });
  CHECK(found.candidate_count == std::min(most, n), "%s: %u candidates", what, found.candidate_count);
  for (uint32_t i = 0; i < found.candidate_count; i++) {
    CHECK(candidates[i].token == order[i] && near(logits[order[i]] - log_sum, candidates[i].logprob),
          "%s: candidate %u is token %u (%g), not %u", what, i, candidates[i].token, candidates[i].logprob, order[i]);
  }
}

// ---- requests ----

Request plain(Random& random) {
  Request request{};
  SamplingRecord& r = request.record;
  r.temperature = 1;
  r.top_p = r.typical_p = r.repetition_penalty = 1;
  r.mask_begin = ~0u;
  r.seed_low = static_cast<uint32_t>(random.next());
  r.seed_high = static_cast<uint32_t>(random.next());
  r.counter = static_cast<uint32_t>(random.next());
  return request;
}

std::vector<float> make_logits(uint32_t n, Random& random) {
  std::vector<float> logits(n);
  const uint32_t kind = random.below(5);
  for (uint32_t i = 0; i < n; i++) {
    const float v = random.normal();
    logits[i] = kind == 0 ? v : kind == 1 ? v * 12 : kind == 2 ? std::round(v * 2) : kind == 3 ? 0.25f : v * 200;
  }
  if (random.below(4) == 0) logits[random.below(n)] = -INFINITY;
  return logits;
}

void add_lists(Request& request, uint32_t n, Random& random) {
  SamplingRecord& r = request.record;
  request.tail.assign(random.below(3), 0xffffffffu);
  if (random.below(2) == 0) {  // a history of different tokens
    r.history_begin = static_cast<uint32_t>(request.tail.size());
    for (uint32_t i = random.below(3); i < n && r.history_count < 20; i += 1 + random.below(5), r.history_count++) {
      request.tail.push_back(i);
      request.tail.push_back(random.below(4));
    }
    r.repetition_penalty = 0.5f + random.uniform() * 1.5f;
    r.presence_penalty = random.normal();
    r.frequency_penalty = random.normal() * 0.5f;
  }
  if (random.below(2) == 0) {
    r.bias_begin = static_cast<uint32_t>(request.tail.size());
    for (r.bias_count = 0; r.bias_count < 1 + n / 8; r.bias_count++) {
      const float bias = random.below(9) == 0 ? -INFINITY : random.normal() * 3;
      request.tail.push_back(random.below(n));
      request.tail.push_back(__builtin_bit_cast(uint32_t, bias));
    }
  }
  if (random.below(2) == 0) {
    r.mask_begin = static_cast<uint32_t>(request.tail.size());
    for (uint32_t i = 0; i < (n + 31) / 32; i++) request.tail.push_back(static_cast<uint32_t>(random.next()));
  }
}

void check_random(Random& random) {
  for (uint32_t turn = 0; turn < 6000; turn++) {
    const uint32_t n = turn % 100 == 0 ? 3000 + random.below(2000) : 1 + random.below(turn % 3 == 0 ? 8 : 200);
    const std::vector<float> logits = make_logits(n, random);
    Request request = plain(random);
    SamplingRecord& r = request.record;
    const float temperatures[] = {0, 0.05f, 0.7f, 1, 1, 3, 1e-30f, 1e30f};
    r.temperature = temperatures[random.below(8)];
    if (random.below(3) == 0) r.top_k = 1 + random.below(n + 2);
    if (random.below(3) == 0) r.top_p = random.below(8) == 0 ? 0 : random.uniform();
    if (random.below(3) == 0) r.min_p = random.below(8) == 0 ? 1.5f : random.uniform() * 0.3f;
    if (random.below(3) == 0) r.typical_p = random.below(8) == 0 ? 0 : random.uniform();
    if (random.below(3) == 0) r.top_logprobs = random.below(n + 3);
    r.flags = random.below(2) == 0 ? 2 : 0;
    if (random.below(3) == 0) {
      const double uniform = random.below(4) == 0 ? 0x1.fffffffffffffp-1 : static_cast<double>(random.uniform());
      const uint64_t word = __builtin_bit_cast(uint64_t, random.below(5) == 0 ? 0.0 : uniform);
      r.flags |= 1;
      r.uniform_low = static_cast<uint32_t>(word);
      r.uniform_high = static_cast<uint32_t>(word >> 32);
    }
    if (random.below(2) == 0) add_lists(request, n, random);
    char what[200];
    std::snprintf(what, sizeof what, "turn %u: V %u temperature %g top-k %u top-p %g min-p %g typical-p %g", turn, n,
                  r.temperature, r.top_k, r.top_p, r.min_p, r.typical_p);
    check_sample(what, logits, request);
  }
  CHECK(compared > 4000 && close_calls * 8 < compared, "%u of %u were too close to call", close_calls, compared);
}

void check_no_token(Random& random) {
  for (const uint32_t n : {1u, 5u, 33u, 200u}) {
    std::vector<float> logits(n, 1.0f);
    Request request = plain(random);
    for (const float bad : {NAN, INFINITY}) {
      logits[random.below(n)] = bad;
      for (const float temperature : {0.0f, 1.0f}) {
        request.record.temperature = temperature;
        check_sample("a row that is not finite", logits, request);
      }
      std::fill(logits.begin(), logits.end(), 1.0f);
    }
    request.record.mask_begin = 0;
    request.tail.assign((n + 31) / 32, 0);
    check_sample("everything masked", logits, request);
    request.record.mask_begin = ~0u;
    std::fill(logits.begin(), logits.end(), -INFINITY);
    check_sample("only -infinity", logits, request);
  }
}

// Frequencies of many draws follow the probabilities.
void check_frequencies(Random& random) {
  const std::vector<float> logits = {0, 1, 2, 0.5f, -1};
  Buffer<uint8_t> scratch(sampling_scratch_bytes(5));
  Request request = plain(random);
  std::array<uint32_t, 5> count{};
  const uint32_t draws = 40000;
  for (uint32_t i = 0; i < draws; i++) {
    request.record.counter = i;
    const SampleResult drawn =
        kernels->sample_row(logits.data(), 5, request.record, nullptr, nullptr, nullptr, scratch.data());
    count[drawn.token]++;
  }
  const Answer right = sample(logits, request);
  for (uint32_t i = 0; i < 5; i++) {
    const double wanted = right.probabilities[i] * draws;
    CHECK(std::fabs(count[i] - wanted) < 5 * std::sqrt(wanted), "token %u: %u draws of %g", i, count[i], wanted);
  }
}

}  // namespace

int main() {
  for (const KernelTable* table : runnable_tables()) {
    kernels = table;
    compared = close_calls = 0;
    Random random(7);
    check_generator(random);
    check_random(random);
    check_no_token(random);
    check_frequencies(random);
  }
  return check_summary();
}
