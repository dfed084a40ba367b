// Sampling over the whole vocabulary (contract in sampling.h). Selection is by quickselect on weights, never by a sort,
// so a flat distribution of 128,256 tokens costs a few passes over it.
#include "sampling.h"

namespace drover {
namespace {

constexpr double kInfinity = __builtin_inf();

// Parallel arrays in scratch: what a token scores, what it weighs, and room to partition them.
struct Scratch {
  double* score;   // adjusted logits over temperature; -infinity once a token is out
  double* weight;  // e^(score - largest score), 0 once it is out
  double* key;     // selection
  double* mass;
  uint32_t* token;
};

constexpr uint64_t round64(uint64_t bytes) { return (bytes + 63) / 64 * 64; }

Scratch split(void* memory, uint32_t vocabulary) {
  uint8_t* base = static_cast<uint8_t*>(memory);
  const uint64_t step = round64(uint64_t{vocabulary} * sizeof(double));
  return {reinterpret_cast<double*>(base), reinterpret_cast<double*>(base + step),
          reinterpret_cast<double*>(base + 2 * step), reinterpret_cast<double*>(base + 3 * step),
          reinterpret_cast<uint32_t*>(base + 4 * step)};
}

// e^x for x <= 0 within 2 ulp, without branches, so that loops over it vectorise. Below -708 the result is 0.
inline double exp_negative(double x) {
  constexpr double kShift = 0x1.8p52;  // adding it rounds to an integer and leaves that integer in the low bits
  const double clamped = x < -708.0 ? -708.0 : x;
  const double shifted = clamped * 1.4426950408889634 + kShift;
  const double n = shifted - kShift;
  const double r = clamped - n * 6.93147180369123816490e-01 - n * 1.90821492927058770002e-10;
  double p = 1.6059043836821613e-10;
  p = p * r + 2.0876756987868099e-09;
  p = p * r + 2.5052108385441719e-08;
  p = p * r + 2.7557319223985893e-07;
  p = p * r + 2.7557319223985888e-06;
  p = p * r + 2.4801587301587302e-05;
  p = p * r + 1.9841269841269841e-04;
  p = p * r + 1.3888888888888889e-03;
  p = p * r + 8.3333333333333332e-03;
  p = p * r + 4.1666666666666664e-02;
  p = p * r + 1.6666666666666666e-01;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  const uint64_t exponent = (__builtin_bit_cast(uint64_t, shifted) + 1023) << 52;
  const double result = p * __builtin_bit_cast(double, exponent);
  return x < -708.0 ? 0.0 : result;
}

// To f32: what transformers computes with up to the softmax. Beyond f32's range values stay as they are.
inline double rounded(double x) {
  return x > 1.7e38 ? x : x < -1.7e38 ? x : static_cast<double>(static_cast<float>(x));
}

// Adjusts logits by penalties, bias and mask. False when one is NaN or +infinity, or none is left.
bool adjust(const float* logits, uint32_t vocabulary, const SamplingRecord& s, const uint32_t* tail, double* score) {
  double poison = 0;
  for (uint32_t i = 0; i < vocabulary; i++) {
    score[i] = static_cast<double>(logits[i]);
    // -infinity is a token that cannot be drawn; NaN and +infinity are a broken row.
    poison += logits[i] < 0.0f ? 0.0 : score[i] * 0.0;
  }
  if (poison != 0.0) return false;
  for (uint32_t i = 0; i < s.history_count; i++) {
    const uint32_t token = tail[s.history_begin + 2 * i];
    const double count = static_cast<double>(tail[s.history_begin + 2 * i + 1]);
    const double penalty = static_cast<double>(s.repetition_penalty);
    score[token] = rounded(score[token] > 0 ? score[token] / penalty : score[token] * penalty);
    score[token] = rounded(score[token] - rounded(static_cast<double>(s.frequency_penalty) * count));
    score[token] = rounded(score[token] - (count > 0 ? static_cast<double>(s.presence_penalty) : 0.0));
  }
  for (uint32_t i = 0; i < s.bias_count; i++) {
    double& biased = score[tail[s.bias_begin + 2 * i]];
    biased = rounded(biased + static_cast<double>(__builtin_bit_cast(float, tail[s.bias_begin + 2 * i + 1])));
  }
  if (s.mask_begin != 0xffffffffu) {
    const uint32_t* mask = tail + s.mask_begin;
    for (uint32_t i = 0; i < vocabulary; i++) {
      if ((mask[i / 32] >> (i % 32) & 1) == 0) score[i] = -kInfinity;
    }
  }
  return true;
}

uint32_t largest(const double* score, uint32_t vocabulary) {
  // Maximum first (it vectorises), then its first place.
  double best = -kInfinity;
  for (uint32_t i = 0; i < vocabulary; i++) best = score[i] > best ? score[i] : best;
  for (uint32_t i = 0; i < vocabulary; i++) {
    if (score[i] == best) return i;
  }
  return vocabulary;
}

// A pivot that sorted, flat and organ-pipe inputs cannot spoil: the median of three spread places.
double pivot_of(const double* key, uint32_t begin, uint32_t end) {
  const double a = key[begin], b = key[begin + (end - begin) / 2], c = key[end - 1];
  const double low = a < b ? a : b, high = a < b ? b : a;
  return c < low ? low : c > high ? high : c;
}

// Three-way partition of [begin, end): less than, equal to and more than the pivot. Equal ones keep ascending tokens
// only if they were in order, so callers that care about ties look at tokens themselves.
struct Parts {
  uint32_t equal_begin, equal_end;
  double less_mass, equal_mass;
};
Parts partition(Scratch& s, uint32_t begin, uint32_t end, double pivot) {
  uint32_t less = begin, at = begin, more = end;
  double less_mass = 0, equal_mass = 0;
  const auto swap = [&](uint32_t i, uint32_t j) {
    const double key = s.key[i], mass = s.mass[i];
    const uint32_t token = s.token[i];
    s.key[i] = s.key[j], s.mass[i] = s.mass[j], s.token[i] = s.token[j];
    s.key[j] = key, s.mass[j] = mass, s.token[j] = token;
  };
  while (at < more) {
    if (s.key[at] < pivot) {
      less_mass += s.mass[at];
      swap(less++, at++);
    } else if (s.key[at] > pivot) {
      swap(at, --more);
    } else {
      equal_mass += s.mass[at++];
    }
  }
  return {less, more, less_mass, equal_mass};
}

// Fills the selection arrays with the tokens that are still in; returns how many.
template <typename Key>
uint32_t gather(Scratch& s, uint32_t vocabulary, Key key) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < vocabulary; i++) {
    if (s.weight[i] == 0.0) continue;
    s.key[count] = key(i);
    s.mass[count] = s.weight[i];
    s.token[count] = i;
    count++;
  }
  return count;
}

void drop(Scratch& s, uint32_t token) { s.weight[token] = 0; }

void apply_top_k(Scratch& s, uint32_t vocabulary, uint32_t k) {
  uint32_t count = gather(s, vocabulary, [&](uint32_t i) { return s.score[i]; });
  if (k >= count) return;
  uint32_t begin = 0, end = count;
  const uint32_t wanted = count - k;  // place of the k-th largest in ascending order
  double threshold = 0;
  for (;;) {
    threshold = pivot_of(s.key, begin, end);
    const Parts parts = partition(s, begin, end, threshold);
    if (wanted < parts.equal_begin) {
      end = parts.equal_begin;
    } else if (wanted >= parts.equal_end) {
      begin = parts.equal_end;
    } else {
      break;
    }
  }
  for (uint32_t i = 0; i < vocabulary; i++) {
    if (s.score[i] < threshold) drop(s, i);
  }
}

double total_weight(const Scratch& s, uint32_t vocabulary) {
  double total = 0;
  for (uint32_t i = 0; i < vocabulary; i++) total += s.weight[i];
  return total;
}

// Drops tokens from the unlikeliest up while what is dropped weighs at most 1 - p of all; of equal ones the lower token
// goes first. The likeliest stays.
void apply_top_p(Scratch& s, uint32_t vocabulary, double p) {
  const double limit = (1.0 - p) * total_weight(s, vocabulary);
  uint32_t begin = 0, end = gather(s, vocabulary, [&](uint32_t i) { return s.score[i]; });
  double dropped = 0;
  while (begin < end) {
    const double pivot = pivot_of(s.key, begin, end);
    const Parts parts = partition(s, begin, end, pivot);
    if (dropped + parts.less_mass > limit) {
      end = parts.equal_begin;
      continue;
    }
    for (uint32_t i = begin; i < parts.equal_begin; i++) drop(s, s.token[i]);
    dropped += parts.less_mass;
    if (pivot < 0 && dropped + parts.equal_mass <= limit) {  // the likeliest score 0
      for (uint32_t i = parts.equal_begin; i < parts.equal_end; i++) drop(s, s.token[i]);
      dropped += parts.equal_mass;
      begin = parts.equal_end;
      continue;
    }
    // The border runs through equal ones: they have one weight each, so how many go is a division.
    const double each = s.mass[parts.equal_begin];
    uint32_t going = static_cast<uint32_t>((limit - dropped) / each);
    const uint32_t equals = parts.equal_end - parts.equal_begin;
    if (going >= equals) going = equals - 1;
    for (uint32_t i = 0; i < vocabulary && going > 0; i++) {
      if (s.weight[i] != 0.0 && s.score[i] == pivot) {
        drop(s, i);
        going--;
      }
    }
    break;
  }
}

// Keeps tokens whose surprise is nearest the entropy until they weigh p; those as near as the last are kept too.
void apply_typical(Scratch& s, uint32_t vocabulary, double p) {
  const double total = total_weight(s, vocabulary);
  double entropy = 0;
  for (uint32_t i = 0; i < vocabulary; i++) {
    if (s.weight[i] != 0.0) entropy -= s.weight[i] / total * __builtin_log(s.weight[i] / total);
  }
  const auto distance = [&](uint32_t i) { return __builtin_fabs(-__builtin_log(s.weight[i] / total) - entropy); };
  uint32_t begin = 0, end = gather(s, vocabulary, distance);
  const double wanted = p * total;
  double kept = 0, threshold = kInfinity;
  while (begin < end) {
    const double pivot = pivot_of(s.key, begin, end);
    const Parts parts = partition(s, begin, end, pivot);
    if (kept + parts.less_mass >= wanted && parts.equal_begin > begin) {
      end = parts.equal_begin;
      continue;
    }
    threshold = pivot;
    kept += parts.less_mass + parts.equal_mass;
    if (kept >= wanted) break;
    begin = parts.equal_end;
  }
  for (uint32_t i = 0; i < vocabulary; i++) {
    if (s.weight[i] != 0.0 && distance(i) > threshold) s.score[i] = kInfinity;  // marked: distances use all weights
  }
  for (uint32_t i = 0; i < vocabulary; i++) {
    if (s.score[i] == kInfinity) drop(s, i);
  }
}

// Best first by value, lower token first among equals.
uint32_t best_candidates(const float* logits, uint32_t vocabulary, double log_sum, uint32_t wanted, Candidate* out) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < vocabulary; i++) {
    if (count == wanted && !(logits[i] > out[count - 1].logprob)) continue;
    uint32_t at = count < wanted ? count++ : count - 1;
    for (; at > 0 && out[at - 1].logprob < logits[i]; at--) out[at] = out[at - 1];
    out[at] = {i, logits[i]};
  }
  for (uint32_t i = 0; i < count; i++) out[i].logprob = static_cast<float>(static_cast<double>(out[i].logprob) - log_sum);
  return count;
}

double log_sum_exp(const float* logits, uint32_t vocabulary) {
  float peak = -__builtin_inff();
  for (uint32_t i = 0; i < vocabulary; i++) peak = logits[i] > peak ? logits[i] : peak;
  const double shift = static_cast<double>(peak);
  double sum = 0;
  for (uint32_t i = 0; i < vocabulary; i++) sum += exp_negative(static_cast<double>(logits[i]) - shift);
  return shift + __builtin_log(sum);
}

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

uint64_t sampling_scratch_bytes(uint32_t vocabulary) {
  return 4 * round64(uint64_t{vocabulary} * sizeof(double)) + round64(uint64_t{vocabulary} * sizeof(uint32_t));
}

double sampling_uniform(uint64_t seed, uint32_t counter) {
  uint32_t words[4] = {counter, 0, 0, 0};
  philox(words, static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
  return (static_cast<double>(words[0] >> 5) * 67108864.0 + static_cast<double>(words[1] >> 6)) * 0x1p-53;
}

SampleResult sample_row(const float* logits, uint32_t vocabulary, const SamplingRecord& record, const uint32_t* tail,
                        Candidate* candidates, float* probabilities, void* memory) {
  SampleResult result{0, __builtin_nanf(""), 0, false};
  Scratch s = split(memory, vocabulary);
  if (probabilities != nullptr) {
    for (uint32_t i = 0; i < vocabulary; i++) probabilities[i] = 0;
  }
  if (vocabulary == 0 || !adjust(logits, vocabulary, record, tail, s.score)) return result;
  const uint32_t best = largest(s.score, vocabulary);
  if (best >= vocabulary || s.score[best] == -kInfinity || s.score[best] == kInfinity) return result;
  result.allowed_any = true;
  if (record.temperature == 0.0f) {
    result.token = best;
    if (probabilities != nullptr) probabilities[best] = 1;
  } else {
    const double temperature = static_cast<double>(record.temperature);
    const double peak = rounded(s.score[best] / temperature);
    for (uint32_t i = 0; i < vocabulary; i++) {
      s.score[i] = rounded(s.score[i] / temperature) - peak;
      s.weight[i] = exp_negative(s.score[i]);
    }
    if (record.top_k > 0 && record.top_k < vocabulary) apply_top_k(s, vocabulary, record.top_k);
    if (record.top_p < 1.0f) apply_top_p(s, vocabulary, static_cast<double>(record.top_p));
    if (record.min_p > 0.0f) {
      // The likeliest weighs 1 and stays.
      const double least = record.min_p < 1.0f ? static_cast<double>(record.min_p) : 1.0;
      for (uint32_t i = 0; i < vocabulary; i++) s.weight[i] = s.weight[i] < least ? 0.0 : s.weight[i];
    }
    if (record.typical_p < 1.0f) apply_typical(s, vocabulary, static_cast<double>(record.typical_p));
    const double total = total_weight(s, vocabulary);
    const uint64_t seed = uint64_t{record.seed_high} << 32 | record.seed_low;
    const double uniform =
        (record.flags & 1) != 0
            ? __builtin_bit_cast(double, uint64_t{record.uniform_high} << 32 | record.uniform_low)
            : sampling_uniform(seed, record.counter);
    double sum = 0;
    bool drawn = false;
    for (uint32_t i = 0; i < vocabulary && !drawn; i++) {
      if (s.weight[i] == 0.0) continue;
      result.token = i;  // the last one with weight, should rounding leave the sum below its total
      sum += s.weight[i];
      drawn = sum > uniform * total;
    }
    if (probabilities != nullptr) {
      for (uint32_t i = 0; i < vocabulary; i++) probabilities[i] = static_cast<float>(s.weight[i] / total);
    }
  }
  if ((record.flags & 2) != 0 || record.top_logprobs > 0) {
    const double log_sum = log_sum_exp(logits, vocabulary);
    result.logprob = static_cast<float>(static_cast<double>(logits[result.token]) - log_sum);
    if (candidates != nullptr && record.top_logprobs > 0) {
      result.candidate_count = best_candidates(logits, vocabulary, log_sum, record.top_logprobs < vocabulary ? record.top_logprobs : vocabulary, candidates);
    }
  }
  return result;
}

}  // namespace drover
