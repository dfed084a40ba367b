// Sampling over the whole vocabulary (contract in sampling.h). Selection is by buckets and quickselect, never by a
// sort, so a flat distribution of 128,256 tokens costs a few passes over it. The loops are plain, for the compiler to
// vectorise; sums run in eight lanes, so that every ISA adds in the same order.
namespace drover {
namespace {

constexpr double kInfinity = __builtin_inf();
constexpr float kInfinityF = __builtin_inff();
constexpr double kLeastScore = -708.0;  // below, e^score is no normal number: such a token weighs nothing
constexpr uint32_t kBuckets = 512;

// Parallel arrays in scratch. The first three describe the tokens that are still in, in the order of the vocabulary.
struct Survivors {
  double* score;   // adjusted logit over temperature, less the largest
  double* weight;  // e^score
  uint32_t* token;
  uint32_t count;
  double* key;  // room for a selection
  double* mass;
};

Survivors split_scratch(void* memory, uint32_t vocabulary) {
  uint8_t* base = static_cast<uint8_t*>(memory);
  const uint64_t step = sampling_array_bytes(vocabulary);
  const auto part = [&](uint32_t i) { return reinterpret_cast<double*>(base + i * step); };
  return {part(0), part(1), reinterpret_cast<uint32_t*>(base + 4 * step), vocabulary, part(2), part(3)};
}

// e^x for kLeastScore <= x <= 0 within 2 ulp, without branches.
DROVER_INLINE double exp_negative(double x) {
  constexpr double kShift = 0x1.8p52;  // adding it rounds to an integer and leaves that integer in the low bits
  const double shifted = x * 1.4426950408889634 + kShift;
  const double n = shifted - kShift;
  const double r = x - n * 6.93147180369123816490e-01 - n * 1.90821492927058770002e-10;
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
  return p * __builtin_bit_cast(double, exponent);
}

// value(i) over [0, count), in eight lanes.
template <typename Value>
DROVER_INLINE double sum_lanes(uint32_t count, Value value) {
  double lane[8] = {};
  uint32_t i = 0;
  for (; i + 8 <= count; i += 8) {
    for (uint32_t l = 0; l < 8; l++) lane[l] += value(i + l);
  }
  for (uint32_t l = 0; i < count; i++, l++) lane[l] += value(i);
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

template <typename Real>
DROVER_INLINE Real largest_of(const Real* x, uint32_t count) {
  Real lane[16];
  for (Real& best : lane) best = static_cast<Real>(-kInfinity);
  uint32_t i = 0;
  for (; i + 16 <= count; i += 16) {
    for (uint32_t l = 0; l < 16; l++) lane[l] = x[i + l] > lane[l] ? x[i + l] : lane[l];
  }
  for (; i < count; i++) lane[0] = x[i] > lane[0] ? x[i] : lane[0];
  for (uint32_t l = 1; l < 16; l++) lane[0] = lane[l] > lane[0] ? lane[l] : lane[0];
  return lane[0];
}

template <typename Real>
uint32_t first_of(const Real* x, Real value) {
  uint32_t i = 0;
  while (x[i] != value) i++;
  return i;
}

// Whether a logit is NaN or +infinity: a broken row. -infinity is a token that cannot be drawn.
bool is_broken(const float* logits, uint32_t vocabulary) {
  uint32_t broken = 0;
  for (uint32_t i = 0; i < vocabulary; i++) {
    const uint32_t bits = __builtin_bit_cast(uint32_t, logits[i]);
    broken |= static_cast<uint32_t>((bits & 0x7fffffffu) > 0x7f800000u) | static_cast<uint32_t>(bits == 0x7f800000u);
  }
  return broken != 0;
}

// To f32: what transformers computes with up to the softmax. Beyond f32's range values stay as they are.
DROVER_INLINE double rounded(double x) {
  const double narrow = static_cast<double>(static_cast<float>(x));
  return x > 1.7e38 ? x : x < -1.7e38 ? x : narrow;
}

// Logits after penalties, bias and mask.
void adjust(const float* logits, uint32_t vocabulary, const SamplingRecord& s, const uint32_t* tail, double* score) {
  for (uint32_t i = 0; i < vocabulary; i++) score[i] = static_cast<double>(logits[i]);
  for (uint32_t i = 0; i < s.history_count; i++) {
    double& v = score[tail[s.history_begin + 2 * i]];
    const double count = static_cast<double>(tail[s.history_begin + 2 * i + 1]);
    const double penalty = static_cast<double>(s.repetition_penalty);
    v = rounded(v > 0 ? v / penalty : v * penalty);
    v = rounded(v - rounded(static_cast<double>(s.frequency_penalty) * count));
    v = rounded(v - (count > 0 ? static_cast<double>(s.presence_penalty) : 0.0));
  }
  for (uint32_t i = 0; i < s.bias_count; i++) {
    double& v = score[tail[s.bias_begin + 2 * i]];
    v = rounded(v + static_cast<double>(__builtin_bit_cast(float, tail[s.bias_begin + 2 * i + 1])));
  }
  if (s.mask_begin == 0xffffffffu) return;
  const uint32_t* mask = tail + s.mask_begin;
  for (uint32_t i = 0; i < vocabulary; i++) {
    if ((mask[i / 32] >> (i % 32) & 1) == 0) score[i] = -kInfinity;
  }
}

// Keeps the survivors that `stays(i)` names; asked once for each, in order.
template <typename Stays>
DROVER_INLINE void keep(Survivors& s, Stays stays) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < s.count; i++) {
    const bool in = stays(i);
    s.score[count] = s.score[i];
    s.weight[count] = s.weight[i];
    s.token[count] = s.token[i];
    count += static_cast<uint32_t>(in);
  }
  s.count = count;
}

// Scores over the temperature, less the largest; tokens too unlikely to weigh anything are out.
void apply_temperature(Survivors& s, double temperature, double best) {
  const double peak = rounded(best / temperature);
  for (uint32_t i = 0; i < s.count; i++) s.score[i] = rounded(s.score[i] / temperature) - peak;
  uint32_t count = 0;
  for (uint32_t i = 0; i < s.count; i++) {
    const double score = s.score[i];
    s.score[count] = score;
    s.token[count] = i;
    count += static_cast<uint32_t>(score >= kLeastScore);
  }
  s.count = count;
}

void weigh(Survivors& s) {
  for (uint32_t i = 0; i < s.count; i++) s.weight[i] = exp_negative(s.score[i]);
}

double total_weight(const Survivors& s) {
  return sum_lanes(s.count, [&](uint32_t i) { return s.weight[i]; });
}

// Equal steps from the lowest score to 0; a higher score never has a lower bucket.
struct Buckets {
  double least, steps;
  explicit Buckets(const Survivors& s) : least(0) {
    double lane[8] = {};
    uint32_t i = 0;
    for (; i + 8 <= s.count; i += 8) {
      for (uint32_t l = 0; l < 8; l++) lane[l] = s.score[i + l] < lane[l] ? s.score[i + l] : lane[l];
    }
    for (; i < s.count; i++) lane[0] = s.score[i] < lane[0] ? s.score[i] : lane[0];
    for (const double v : lane) least = v < least ? v : least;
    steps = least < -1e-200 ? kBuckets / -least : 0;
  }
  DROVER_INLINE uint32_t of(double score) const {
    const uint32_t bucket = static_cast<uint32_t>((score - least) * steps);
    return bucket < kBuckets ? bucket : kBuckets - 1;
  }
};

// Copies what a bucket holds into the selection's arrays; returns how many.
uint32_t take_bucket(Survivors& s, const Buckets& buckets, uint32_t bucket) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < s.count; i++) {
    s.key[count] = s.score[i];
    s.mass[count] = s.weight[i];
    count += static_cast<uint32_t>(buckets.of(s.score[i]) == bucket);
  }
  return count;
}

// A pivot that sorted, flat and organ-pipe inputs cannot spoil: the median of three spread places.
double pivot_of(const double* key, uint32_t begin, uint32_t end) {
  const double a = key[begin], b = key[begin + (end - begin) / 2], c = key[end - 1];
  const double low = a < b ? a : b, high = a < b ? b : a;
  return c < low ? low : c > high ? high : c;
}

// Three-way partition of [begin, end): less than, equal to and more than the pivot, with the masses of the first two.
struct Parts {
  uint32_t equal_begin, equal_end;
  double less_mass, equal_mass;
};
Parts partition(Survivors& s, uint32_t begin, uint32_t end, double pivot) {
  uint32_t less = begin, at = begin, more = end;
  double less_mass = 0, equal_mass = 0;
  const auto swap = [&](uint32_t i, uint32_t j) {
    const double key = s.key[i], mass = s.mass[i];
    s.key[i] = s.key[j], s.mass[i] = s.mass[j];
    s.key[j] = key, s.mass[j] = mass;
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

// Keeps the k highest scores and what ties with the lowest of them.
void apply_top_k(Survivors& s, uint32_t k) {
  if (k >= s.count) return;
  const Buckets buckets(s);
  uint32_t held[kBuckets] = {};
  for (uint32_t i = 0; i < s.count; i++) held[buckets.of(s.score[i])]++;
  uint32_t bucket = kBuckets - 1, above = 0;
  while (above + held[bucket] < k) above += held[bucket--];
  uint32_t begin = 0, end = take_bucket(s, buckets, bucket);
  const uint32_t wanted = end - (k - above);  // place of the k-th highest in the bucket's ascending order
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
  keep(s, [&](uint32_t i) { return s.score[i] >= threshold; });
}

// Drops tokens from the unlikeliest up while what is dropped weighs at most 1 - p of all; of equal ones the lower token
// goes first. The likeliest, whose score is 0, stays.
void apply_top_p(Survivors& s, double p) {
  const double limit = (1.0 - p) * total_weight(s);
  const Buckets buckets(s);
  double held[kBuckets] = {};
  for (uint32_t i = 0; i < s.count; i++) held[buckets.of(s.score[i])] += s.weight[i];
  const uint32_t last = buckets.of(0);
  uint32_t bucket = 0;
  double dropped = 0;
  while (bucket < last && dropped + held[bucket] <= limit) dropped += held[bucket++];
  uint32_t begin = 0, end = take_bucket(s, buckets, bucket), going = 0;
  double border = 0;  // what scores less goes, and `going` of those that score as much
  while (begin < end) {
    border = pivot_of(s.key, begin, end);
    const Parts parts = partition(s, begin, end, border);
    if (dropped + parts.less_mass > limit) {
      end = parts.equal_begin;
      continue;
    }
    dropped += parts.less_mass;
    if (border < 0 && dropped + parts.equal_mass <= limit) {
      dropped += parts.equal_mass;
      begin = parts.equal_end;
      going = parts.equal_end - parts.equal_begin;
      continue;
    }
    // The border runs through equal ones: they have one weight each, so how many go is a division.
    const uint32_t equals = parts.equal_end - parts.equal_begin;
    going = static_cast<uint32_t>((limit - dropped) / s.mass[parts.equal_begin]);
    if (going >= equals) going = equals - 1;
    break;
  }
  keep(s, [&](uint32_t i) {
    if (s.score[i] != border) return s.score[i] > border;
    if (going == 0) return true;
    going--;
    return false;
  });
}

// Keeps tokens whose surprise is nearest the entropy until they weigh p; those as near as the last are kept too.
void apply_typical(Survivors& s, double p) {
  const double total = total_weight(s), log_total = __builtin_log(total);
  // surprise = -log(weight / total) = log_total - score
  const double entropy = sum_lanes(s.count, [&](uint32_t i) { return s.weight[i] / total * (log_total - s.score[i]); });
  const auto distance = [&](uint32_t i) { return __builtin_fabs(log_total - s.score[i] - entropy); };
  for (uint32_t i = 0; i < s.count; i++) {
    s.key[i] = distance(i);
    s.mass[i] = s.weight[i];
  }
  const double wanted = p * total;
  uint32_t begin = 0, end = s.count;
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
  keep(s, [&](uint32_t i) { return distance(i) <= threshold; });
}

// The survivor at which the sum of the weights exceeds `uniform` of their total.
uint32_t draw(const Survivors& s, double total, double uniform) {
  const double wanted = uniform * total;
  double sum = 0;
  uint32_t i = 0;
  for (; i + 1 < s.count; i++) {  // the last one, should rounding leave the sum below its total
    sum += s.weight[i];
    if (sum > wanted) break;
  }
  return s.token[i];
}

double row_log_sum(const float* logits, uint32_t vocabulary) {
  const double peak = static_cast<double>(largest_of(logits, vocabulary));
  const double sum = sum_lanes(vocabulary, [&](uint32_t i) {
    const double x = static_cast<double>(logits[i]) - peak;
    const double e = exp_negative(x < kLeastScore ? kLeastScore : x);
    return x < kLeastScore ? 0.0 : e;
  });
  return peak + __builtin_log(sum);
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
  for (uint32_t i = 0; i < count; i++) {
    out[i].logprob = static_cast<float>(static_cast<double>(out[i].logprob) - log_sum);
  }
  return count;
}

double uniform_of(const SamplingRecord& r) {
  if ((r.flags & 1) != 0) return __builtin_bit_cast(double, uint64_t{r.uniform_high} << 32 | r.uniform_low);
  return sampling_uniform(uint64_t{r.seed_high} << 32 | r.seed_low, r.counter);
}

// The token, and the distribution it comes from where asked; kNoToken when nothing can be drawn.
constexpr uint32_t kNoToken = 0xffffffffu;
uint32_t choose(const float* logits, uint32_t vocabulary, const SamplingRecord& r, const uint32_t* tail,
                float* probabilities, void* scratch) {
  if (vocabulary == 0 || is_broken(logits, vocabulary)) return kNoToken;
  const bool plain = r.history_count == 0 && r.bias_count == 0 && r.mask_begin == 0xffffffffu;
  if (plain && r.temperature == 0.0f) {
    const float best = largest_of(logits, vocabulary);
    if (best == -kInfinityF) return kNoToken;
    const uint32_t token = first_of(logits, best);
    if (probabilities != nullptr) probabilities[token] = 1;
    return token;
  }
  Survivors s = split_scratch(scratch, vocabulary);
  adjust(logits, vocabulary, r, tail, s.score);
  const double best = largest_of(s.score, vocabulary);
  if (best == -kInfinity || best == kInfinity) return kNoToken;
  if (r.temperature == 0.0f) {
    const uint32_t token = first_of(s.score, best);
    if (probabilities != nullptr) probabilities[token] = 1;
    return token;
  }
  apply_temperature(s, static_cast<double>(r.temperature), best);
  if (r.top_k > 0) apply_top_k(s, r.top_k);
  weigh(s);
  if (r.top_p < 1.0f) apply_top_p(s, static_cast<double>(r.top_p));
  if (r.min_p > 0.0f) {
    // The likeliest weighs 1 and stays.
    const double least = r.min_p < 1.0f ? static_cast<double>(r.min_p) : 1.0;
    keep(s, [&](uint32_t i) { return s.weight[i] >= least; });
  }
  if (r.typical_p < 1.0f) apply_typical(s, static_cast<double>(r.typical_p));
  const double total = total_weight(s);
  if (probabilities != nullptr) {
    for (uint32_t i = 0; i < s.count; i++) probabilities[s.token[i]] = static_cast<float>(s.weight[i] / total);
  }
  return draw(s, total, uniform_of(r));
}

SampleResult sample_row(const float* logits, uint32_t vocabulary, const SamplingRecord& record, const uint32_t* tail,
                        Candidate* candidates, float* probabilities, void* scratch) {
  SampleResult result{0, __builtin_nanf(""), 0, false};
  if (probabilities != nullptr) {
    for (uint32_t i = 0; i < vocabulary; i++) probabilities[i] = 0;
  }
  const uint32_t token = choose(logits, vocabulary, record, tail, probabilities, scratch);
  if (token == kNoToken) return result;
  result.token = token;
  result.allowed_any = true;
  if ((record.flags & 2) == 0 && record.top_logprobs == 0) return result;
  const double log_sum = row_log_sum(logits, vocabulary);
  result.logprob = static_cast<float>(static_cast<double>(logits[token]) - log_sum);
  if (candidates != nullptr && record.top_logprobs > 0) {
    const uint32_t wanted = record.top_logprobs < vocabulary ? record.top_logprobs : vocabulary;
    result.candidate_count = best_candidates(logits, vocabulary, log_sum, wanted, candidates);
  }
  return result;
}

constexpr void fill_sampling(KernelTable& table) { table.sample_row = sample_row; }

}  // namespace
}  // namespace drover
