// Sampling: the CPU kernel against a plain computation in float64, the reference against the
// kernel, and what is drawn against the distribution it should have.
#include "ttpu/kernels/sampling/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>

#include "program_testing.h"
#include "ttpu/kernels/sampling/cpu/kernel.h"

namespace ttpu::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::pair<uint32_t, uint32_t> plain_threefry(uint32_t k0, uint32_t k1, uint32_t c0, uint32_t c1) {
  const uint32_t keys[3] = {k0, k1, k0 ^ k1 ^ 0x1BD11BDAu};
  const int turns[2][4] = {{13, 15, 26, 6}, {17, 29, 16, 24}};
  c0 += keys[0];
  c1 += keys[1];
  for (uint32_t group = 0; group < 5; ++group) {
    for (const int turn : turns[group % 2]) {
      c0 += c1;
      c1 = (c1 << turn | c1 >> (32 - turn)) ^ c0;
    }
    c0 += keys[(group + 1) % 3];
    c1 += keys[(group + 2) % 3] + group + 1;
  }
  return {c0, c1};
}

// The inputs of some rows, as the host would upload them.
struct Batch {
  int64_t rows, vocab;
  std::vector<float> logits, temperature, top_p, min_p;
  std::vector<int32_t> top_k;
  std::vector<uint32_t> seeds, position;
  int64_t slot_count = 0;
  std::vector<uint16_t> counts;
  std::vector<int32_t> slots;
  std::vector<float> repetition, frequency, presence;
  int64_t biases = 0;
  std::vector<int32_t> bias_tokens;
  std::vector<float> bias_values;
  std::vector<uint32_t> allowed;

  Batch(int64_t rows_, int64_t vocab_) : rows(rows_), vocab(vocab_) {
    const auto n = static_cast<size_t>(rows);
    logits.resize(n * static_cast<size_t>(vocab));
    temperature.assign(n, 1);
    top_p.assign(n, 1);
    min_p.assign(n, 0);
    top_k.assign(n, 0);
    seeds.resize(2 * n);
    position.resize(n);
    for (size_t r = 0; r < n; ++r) position[r] = static_cast<uint32_t>(r);
  }
  float& logit(int64_t row, int64_t token) {
    return logits[static_cast<size_t>(row * vocab + token)];
  }

  cpu::Sampling call(std::vector<int32_t>& tokens) {
    tokens.resize(static_cast<size_t>(rows));
    return {.rows = rows,
            .vocab = vocab,
            .logits = logits.data(),
            .temperature = temperature.data(),
            .top_k = top_k.data(),
            .top_p = top_p.data(),
            .min_p = min_p.data(),
            .seeds = seeds.data(),
            .position = position.data(),
            .counts = slot_count > 0 ? counts.data() : nullptr,
            .slot_count = slot_count,
            .slots = slots.data(),
            .repetition = repetition.data(),
            .frequency = frequency.data(),
            .presence = presence.data(),
            .biases = biases,
            .bias_tokens = bias_tokens.data(),
            .bias_values = bias_values.data(),
            .allowed = allowed.empty() ? nullptr : allowed.data(),
            .tokens = tokens.data()};
  }
  std::vector<int32_t> sample(Isa isa = best_isa()) {
    std::vector<int32_t> tokens;
    cpu::sample(call(tokens), nullptr, isa);
    return tokens;
  }
};

// Every option at random, with ties among the logits; the penalties round nothing, so that ties are
// the same in every precision.
Batch random_batch(int64_t rows, int64_t vocab, uint32_t seed) {
  Batch b(rows, vocab);
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, 3);
  const auto pick = [&](auto... values) {
    const std::common_type_t<decltype(values)...> list[] = {values...};
    return list[rng() % sizeof...(values)];
  };
  for (float& x : b.logits) x = normal(rng);
  for (int64_t i = 0; i < rows * vocab / 10; ++i) {
    b.logits[rng() % b.logits.size()] = static_cast<float>(rng() % 8);
  }
  for (auto& word : b.seeds) word = static_cast<uint32_t>(rng());
  b.slot_count = rows + 2;
  b.counts.resize(static_cast<size_t>(b.slot_count * vocab));
  for (auto& count : b.counts) count = rng() % 4 == 0 ? rng() % 12 : 0;
  b.biases = 3;
  for (size_t r = 0; r < static_cast<size_t>(rows); ++r) {
    b.temperature[r] = pick(0.f, 0.3f, 0.7f, 1.f, 1.f, 2.f);
    b.top_k[r] = pick(0, 0, 1, 5, 40, -1, 1 << 30);
    b.top_p[r] = pick(1.f, 1.f, 0.9f, 0.5f, 0.01f);
    b.min_p[r] = pick(0.f, 0.f, 0.05f, 0.3f);
    b.position[r] = static_cast<uint32_t>(rng());
    b.slots.push_back(rng() % 5 == 0 ? -1 : static_cast<int32_t>(r));
    b.repetition.push_back(pick(1.f, 2.f));
    b.frequency.push_back(pick(0.f, 0.25f, -0.5f));
    b.presence.push_back(pick(0.f, 0.5f));
    for (int64_t i = 0; i < b.biases; ++i) {
      b.bias_tokens.push_back(static_cast<int32_t>(rng() % static_cast<uint32_t>(vocab)));
      b.bias_values.push_back(pick(4.f, -2.f, -kInfinity));
    }
    b.bias_tokens.back() = pick(-1, 1 << 29);
    for (int64_t w = 0; w < (vocab + 31) / 32; ++w) {
      b.allowed.push_back(r % 3 == 0 ? static_cast<uint32_t>(rng() | rng()) : ~0u);
    }
  }
  return b;
}

// What the documentation of sampling.h says, word by word, in float64.
class Plain {
 public:
  Plain(const Batch& b, int64_t row) : b_(b), r_(static_cast<size_t>(row)) {
    const auto* x = &b.logits[r_ * static_cast<size_t>(b.vocab)];
    logits_.assign(x, x + b.vocab);
    penalize();
    for (int64_t i = 0; i < b.biases; ++i) {
      const auto at = r_ * static_cast<size_t>(b.biases) + static_cast<size_t>(i);
      const int32_t token = b.bias_tokens[at];
      if (token >= 0 && token < b.vocab)
        logits_[static_cast<size_t>(token)] += static_cast<double>(b.bias_values[at]);
    }
    const size_t words = static_cast<size_t>(b.vocab + 31) / 32;
    for (size_t t = 0; t < logits_.size() && !b.allowed.empty(); ++t) {
      if ((b.allowed[r_ * words + t / 32] >> t % 32 & 1) == 0) logits_[t] = -HUGE_VAL;
    }
    order_.resize(logits_.size());
    std::iota(order_.begin(), order_.end(), 0);
    std::stable_sort(order_.begin(), order_.end(),
                     [&](size_t i, size_t j) { return logits_[i] > logits_[j]; });
    filter();
  }

  int32_t token() const {
    if (kept_ == 0) return static_cast<int32_t>(order_[0]);
    size_t best = order_[0];
    double high = -HUGE_VAL;
    for (size_t i = 0; i < kept_; ++i) {
      const auto t = static_cast<uint32_t>(order_[i]);
      const auto [even, odd] =
          plain_threefry(b_.seeds[2 * r_], b_.seeds[2 * r_ + 1], t / 2, b_.position[r_]);
      const double u =
          std::min((static_cast<double>(t % 2 == 0 ? even : odd) + 0.5) * 0x1p-32, 1 - 0x1p-24);
      const double score = scaled(i) - std::log(-std::log1p(-u));
      if (score > high) best = t;
      high = std::max(high, score);
    }
    return static_cast<int32_t>(best);
  }
  std::map<int32_t, double> distribution() const {
    std::map<int32_t, double> p;
    for (size_t i = 0; i < kept_; ++i) p[static_cast<int32_t>(order_[i])] = weight(i);
    double total = 0;
    for (const auto& [token, w] : p) total += w;
    for (auto& [token, w] : p) w /= total;
    return p;
  }

 private:
  void penalize() {
    if (b_.slot_count == 0 || b_.slots[r_] < 0 || b_.slots[r_] >= b_.slot_count) return;
    for (size_t t = 0; t < logits_.size(); ++t) {
      const int count = b_.counts[static_cast<size_t>(b_.slots[r_] * b_.vocab) + t];
      double& x = logits_[t];
      if (count > 0)
        x = x > 0 ? x / static_cast<double>(b_.repetition[r_])
                  : x * static_cast<double>(b_.repetition[r_]);
      x -= count / 2 * static_cast<double>(b_.frequency[r_]);
      if (count / 2 > 0) x -= static_cast<double>(b_.presence[r_]);
    }
  }
  double scaled(size_t i) const {
    return logits_[order_[i]] / static_cast<double>(b_.temperature[r_]);
  }
  double weight(size_t i) const { return std::exp(scaled(i) - scaled(0)); }
  void filter() {
    if (b_.temperature[r_] < 1e-5f || logits_[order_[0]] == -HUGE_VAL) return;
    kept_ = logits_.size();
    while (kept_ > 0 &&
           (weight(kept_ - 1) < static_cast<double>(b_.min_p[r_]) || weight(kept_ - 1) == 0))
      --kept_;
    const auto k = static_cast<size_t>(std::max(b_.top_k[r_], 0));
    if (k > 0) {
      while (kept_ > k && logits_[order_[kept_ - 1]] < logits_[order_[k - 1]]) --kept_;
    }
    if (b_.top_p[r_] >= 1) return;
    double total = 0;
    for (size_t i = 0; i < kept_; ++i) total += weight(i);
    double sum = 0;
    size_t count = 0;
    while (count < kept_ && (count == 0 || sum < static_cast<double>(b_.top_p[r_]) * total))
      sum += weight(count++);
    kept_ = count;
  }

  const Batch& b_;
  size_t r_;
  std::vector<double> logits_;
  std::vector<size_t> order_;
  size_t kept_ = 0;
};

TEST(Sampling, TheGeneratorIsThreefry) {
  // The vectors that come with Random123.
  EXPECT_EQ(plain_threefry(0, 0, 0, 0), std::make_pair(0x6b200159u, 0x99ba4efeu));
  EXPECT_EQ(plain_threefry(~0u, ~0u, ~0u, ~0u), std::make_pair(0x1cb996fcu, 0xbb002be7u));
  EXPECT_EQ(plain_threefry(0x13198a2e, 0x03707344, 0x243f6a88, 0x85a308d3),
            std::make_pair(0xc4923a9cu, 0x483df7a0u));
}

TEST(Sampling, TheKernelPicksWhatThePlainComputationPicks) {
  for (const Isa isa : supported_isas()) {
    for (const int64_t vocab : {1, 3, 63, 64, 65, 1000, 5003}) {
      const int64_t rows = vocab > 1000 ? 60 : 120;
      Batch b = random_batch(rows, vocab, static_cast<uint32_t>(vocab));
      std::vector<int32_t> expected;
      for (int64_t r = 0; r < rows; ++r) expected.push_back(Plain(b, r).token());
      EXPECT_EQ(b.sample(isa), expected) << isa_name(isa) << ", vocabulary " << vocab;
    }
  }
}

TEST(Sampling, DrawsFollowTheFilteredDistribution) {
  struct Setting {
    float temperature, top_p, min_p;
    int32_t top_k;
  };
  constexpr int64_t kDraws = 40000, kVocab = 97;
  for (const Setting& s :
       {Setting{1, 1, 0, 0}, Setting{0.5, 1, 0, 0}, Setting{1.5, 1, 0, 20}, Setting{1, 0.8f, 0, 0},
        Setting{1, 1, 0.1f, 0}, Setting{0.8f, 0.95f, 0.02f, 30}}) {
    Batch b(kDraws, kVocab);
    std::mt19937 rng(5);
    std::normal_distribution<float> normal(0, 1.5f);
    for (int64_t t = 0; t < kVocab; ++t) b.logit(0, t) = normal(rng);
    for (int64_t r = 0; r < kDraws; ++r) {
      const auto at = static_cast<size_t>(r);
      std::copy_n(b.logits.begin(), kVocab, b.logits.begin() + r * kVocab);
      b.seeds[2 * at] = 77;
      b.temperature[at] = s.temperature;
      b.top_p[at] = s.top_p;
      b.min_p[at] = s.min_p;
      b.top_k[at] = s.top_k;
    }
    std::map<int32_t, double> seen;
    for (const int32_t token : b.sample()) seen[token] += 1;
    const std::map<int32_t, double> expected = Plain(b, 0).distribution();
    double chi = 0, rare = 0, rare_seen = 0;
    int cells = 0;
    for (const auto& [token, p] : expected) {
      const double n = p * kDraws;
      if (n < 10) {
        rare += n;
        rare_seen += seen[token];
        continue;
      }
      chi += (seen[token] - n) * (seen[token] - n) / n;
      ++cells;
    }
    if (rare > 0) chi += (rare_seen - rare) * (rare_seen - rare) / rare;
    for (const auto& [token, n] : seen) EXPECT_TRUE(n == 0 || expected.count(token) == 1) << token;
    // Wilson and Hilferty: a normal number, beyond 4 once in 30,000 settings.
    const double freedom = cells;
    const double z =
        (std::cbrt(chi / freedom) - (1 - 2 / (9 * freedom))) / std::sqrt(2 / (9 * freedom));
    EXPECT_LT(std::abs(z), 4) << "chi-square " << chi << " with " << cells << " cells";
  }
}

TEST(Sampling, ARowsTokenDoesNotDependOnTheBatch) {
  Batch b = random_batch(64, 700, 3);
  const std::vector<int32_t> together = b.sample();
  b.slot_count = 0;
  const std::vector<int32_t> before = b.sample();
  for (const int64_t r : {0, 17, 63}) {
    Batch alone(1, 700);
    const auto at = static_cast<size_t>(r);
    std::copy_n(b.logits.begin() + r * 700, 700, alone.logits.begin());
    alone.temperature = {b.temperature[at]};
    alone.top_k = {b.top_k[at]};
    alone.top_p = {b.top_p[at]};
    alone.min_p = {b.min_p[at]};
    alone.seeds = {b.seeds[2 * at], b.seeds[2 * at + 1]};
    alone.position = {b.position[at]};
    alone.biases = b.biases;
    alone.bias_tokens.assign(b.bias_tokens.begin() + 3 * r, b.bias_tokens.begin() + 3 * r + 3);
    alone.bias_values.assign(b.bias_values.begin() + 3 * r, b.bias_values.begin() + 3 * r + 3);
    alone.allowed.assign(b.allowed.begin() + 22 * r, b.allowed.begin() + 22 * r + 22);
    EXPECT_EQ(alone.sample()[0], before[at]);
  }
  auto pool = make_thread_pool(2);
  b = random_batch(64, 700, 3);
  std::vector<int32_t> tokens;
  cpu::sample(b.call(tokens), pool.get());
  EXPECT_EQ(tokens, together);
}

TEST(Sampling, GreedyTakesTheLowestOfEquals) {
  for (const Isa isa : supported_isas()) {
    Batch b(3, 300);
    b.temperature = {0, 0, 1};
    for (const int64_t t : {70, 71, 250}) b.logit(0, t) = 5;
    b.logit(1, 0) = std::nanf("");
    b.logit(1, 299) = 1;
    for (int64_t t = 0; t < 300; ++t) b.logit(2, t) = -kInfinity;
    EXPECT_EQ(b.sample(isa), (std::vector<int32_t>{70, 299, 0}));
  }
}

TEST(Sampling, PickedTokensAreCountedUpToALimit) {
  Batch b(4, 8);
  b.temperature.assign(4, 0);
  for (int64_t r = 0; r < 4; ++r) b.logit(r, 2 * r) = 9;
  b.slot_count = 3;
  b.counts.assign(24, 0);
  b.counts[8 + 2] = 1;
  b.counts[4] = 65535;
  b.slots = {2, 1, 0, 7};
  b.repetition.assign(4, 1);
  b.frequency.assign(4, 0);
  b.presence.assign(4, 0);
  EXPECT_EQ(b.sample(), (std::vector<int32_t>{0, 2, 4, 6}));
  std::vector<uint16_t> expected(24, 0);
  expected[16] = 2;
  expected[8 + 2] = 3;
  expected[4] = 65535;
  EXPECT_EQ(b.counts, expected);
}

struct Outcome {
  std::vector<int32_t> tokens, top_tokens;
  std::vector<float> logprobs, top_logprobs;
  std::vector<uint16_t> counts;
  bool counts_in_place = false;
};

Outcome run_program(const Batch& b, bool custom_calls, int64_t top) {
  TestProgram program;
  const Dims row = {b.rows};
  SamplingInputs in;
  TokenHistory history;
  history.counts = program.argument(b.counts, DType::kU16, {b.slot_count, b.vocab});
  in.logits = program.argument(b.logits, DType::kF32, {b.rows, b.vocab});
  in.temperature = program.argument(b.temperature, DType::kF32, row);
  in.top_k = program.argument(b.top_k, DType::kS32, row);
  in.top_p = program.argument(b.top_p, DType::kF32, row);
  in.min_p = program.argument(b.min_p, DType::kF32, row);
  in.seeds = program.argument(b.seeds, DType::kU32, {b.rows, 2});
  in.position = program.argument(b.position, DType::kU32, row);
  history.slots = program.argument(b.slots, DType::kS32, row);
  history.repetition = program.argument(b.repetition, DType::kF32, row);
  history.frequency = program.argument(b.frequency, DType::kF32, row);
  history.presence = program.argument(b.presence, DType::kF32, row);
  in.history = history;
  in.bias = LogitBias{program.argument(b.bias_tokens, DType::kS32, {b.rows, b.biases}),
                      program.argument(b.bias_values, DType::kF32, {b.rows, b.biases})};
  in.allowed = program.argument(b.allowed, DType::kU32, {b.rows, (b.vocab + 31) / 32});
  const SamplingResult r = sample(test_target(custom_calls), in, {.logprobs = true, .top = top});
  program.main().alias(history.counts, 1);
  const uintptr_t before = program.arguments()[0].unsafe_pointer();
  const auto results =
      program.run({r.tokens, *r.counts, *r.logprobs, *r.top_tokens, *r.top_logprobs});
  return {results[0].to_vector<int32_t>(),  results[3].to_vector<int32_t>(),
          results[2].to_vector<float>(),    results[4].to_vector<float>(),
          results[1].to_vector<uint16_t>(), results[1].unsafe_pointer() == before};
}

TEST(Sampling, TheReferenceAndTheKernelAgree) {
  for (const int64_t vocab : {1, 2, 65, 1000}) {
    Batch b = random_batch(200, vocab, 11);
    const int64_t top = std::min<int64_t>(vocab, 7);
    const Outcome reference = run_program(b, false, top), kernel = run_program(b, true, top);
    EXPECT_EQ(reference.tokens, kernel.tokens) << "vocabulary " << vocab;
    EXPECT_EQ(reference.counts, kernel.counts);
    EXPECT_TRUE(kernel.counts_in_place);
    EXPECT_EQ(reference.top_tokens, kernel.top_tokens);
    for (size_t i = 0; i < kernel.logprobs.size(); ++i) {
      EXPECT_NEAR(reference.logprobs[i], kernel.logprobs[i], 1e-5);
    }
    for (size_t i = 0; i < kernel.top_logprobs.size(); ++i) {
      EXPECT_NEAR(reference.top_logprobs[i], kernel.top_logprobs[i], 1e-5);
    }
    EXPECT_EQ(kernel.tokens, b.sample());
  }
}

// Where the end of what is kept lies among equal logits, those of the lowest ids stay.
TEST(Sampling, TheReferenceKeepsEqualsInTheOrderOfTheirIds) {
  Batch b = random_batch(60, 300, 13);
  std::mt19937 rng(13);
  for (float& x : b.logits) x = static_cast<float>(rng() % 3) - 1;
  for (float& x : b.logits) x = x == 0 && rng() % 2 == 0 ? -0.f : x;
  b.temperature.assign(60, 1);
  b.top_p.assign(60, 0.3f);
  for (size_t r = 0; r < 60; r += 2) b.top_p[r] = 0.77f;
  EXPECT_EQ(run_program(b, false, 1).tokens, run_program(b, true, 1).tokens);
}

// The reference goes another way where no row is filtered, and where none draws.
TEST(Sampling, TheReferenceAndTheKernelAgreeOnPlainBatches) {
  Batch b = random_batch(100, 1000, 12);
  b.top_k.assign(100, 0);
  b.top_p.assign(100, 1);
  b.min_p.assign(100, 0);
  EXPECT_EQ(run_program(b, false, 1).tokens, run_program(b, true, 1).tokens);
  b.temperature.assign(100, 0);
  EXPECT_EQ(run_program(b, false, 1).tokens, run_program(b, true, 1).tokens);
}

TEST(Sampling, LogProbabilitiesOfGivenTokens) {
  const int64_t vocab = 200;
  std::vector<float> logits(3 * 200, -kInfinity);
  std::mt19937 rng(2);
  for (size_t i = 0; i < 200; ++i) logits[i] = static_cast<float>(rng() % 1000) / 100;
  logits[200 + 150] = 3;
  logits[200 + 20] = 3;
  logits[400] = 1;
  const std::vector<int32_t> tokens = {7, 20, 500};
  double total = 0;
  for (size_t i = 0; i < 200; ++i) total += std::exp(static_cast<double>(logits[i]));
  for (const bool custom_calls : {false, true}) {
    TestProgram program;
    const ir::Value x = program.argument(logits, DType::kF32, {3, vocab});
    const ir::Value t = program.argument(tokens, DType::kS32, {3});
    const LogprobsResult r = token_logprobs(test_target(custom_calls), x, t, 3);
    const auto results = program.run({r.logprobs, *r.top_tokens, *r.top_logprobs});
    const auto logprobs = results[0].to_vector<float>();
    EXPECT_NEAR(logprobs[0], static_cast<double>(logits[7]) - std::log(total), 1e-5);
    EXPECT_NEAR(logprobs[1], -std::log(2.0), 1e-5);
    EXPECT_EQ(logprobs[2], -kInfinity);
    const auto top = results[1].to_vector<int32_t>();
    EXPECT_EQ(std::vector<int32_t>(top.begin() + 3, top.end()),
              (std::vector<int32_t>{20, 150, 0, 0, 1, 2}));
    EXPECT_EQ(results[2].to_vector<float>()[5], -kInfinity);
  }
}

TEST(Sampling, ShapesThatDoNotFitAreRefused) {
  ir::Module module;
  ir::Function& main = module.add_function();
  const auto arg = [&](DType dtype, Dims dims) { return main.add_argument(Shape(dtype, dims)); };
  SamplingInputs in;
  in.logits = arg(DType::kF32, {4, 100});
  in.temperature = in.top_p = in.min_p = arg(DType::kF32, {4});
  in.top_k = arg(DType::kS32, {4});
  in.seeds = arg(DType::kU32, {4, 2});
  in.position = arg(DType::kU32, {4});
  EXPECT_NO_THROW(sample({}, in));
  const auto refused = [&](auto change) {
    SamplingInputs other = in;
    change(other);
    EXPECT_THROW(sample({}, other), Error);
  };
  refused([&](SamplingInputs& x) { x.logits = arg(DType::kBF16, {4, 100}); });
  refused([&](SamplingInputs& x) { x.top_k = arg(DType::kS32, {3}); });
  refused([&](SamplingInputs& x) { x.seeds = {}; });
  refused([&](SamplingInputs& x) { x.allowed = arg(DType::kU32, {4, 3}); });
  refused([&](SamplingInputs& x) {
    x.bias = LogitBias{arg(DType::kS32, {4, 2}), arg(DType::kF32, {4, 3})};
  });
  refused([&](SamplingInputs& x) {
    x.history = TokenHistory{arg(DType::kS32, {9, 100}), x.top_k, x.top_p, x.top_p, x.top_p};
  });
  EXPECT_THROW(sample({}, in, {.logprobs = true, .top = 101}), Error);
  EXPECT_THROW(token_logprobs({}, in.logits, in.temperature), Error);
}

}  // namespace
}  // namespace ttpu::kernels
