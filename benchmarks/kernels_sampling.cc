// The sampling kernel without XLA: one row, or 32, of 49,152 (SmolLM2) and 151,936 (Qwen3) logits
// that fall off as a language model's do.
//   build: cmake -DTTPU_BUILD_BENCHMARKS=ON; run: ttpu_kernels_sampling_benchmark
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "ttpu/kernels/sampling/cpu/kernel.h"

namespace {

using namespace ttpu::kernels;

struct Setting {
  const char* name;
  float temperature, top_p;
  int32_t top_k;
  int64_t top = 0;  // log probabilities
  bool penalties = false;
};

void sample(benchmark::State& state, const Setting& setting, int64_t rows, int64_t vocab) {
  const auto n = static_cast<size_t>(rows);
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 2.5f);
  std::vector<float> logits(n * static_cast<size_t>(vocab));
  for (float& x : logits) x = normal(random);
  const std::vector<float> temperature(n, setting.temperature), top_p(n, setting.top_p),
      zeros(n, 0), repetition(n, setting.penalties ? 1.1f : 1.f);
  const std::vector<int32_t> top_k(n, setting.top_k);
  std::vector<int32_t> slots(n), tokens(n), top_tokens(n * 32);
  std::vector<float> logprobs(n), top_logprobs(n * 32);
  for (size_t r = 0; r < n; ++r) slots[r] = static_cast<int32_t>(r);
  std::vector<uint32_t> seeds(2 * n, 9), position(n, 0);
  std::vector<uint16_t> counts(n * static_cast<size_t>(vocab), 0);
  auto pool = make_thread_pool(2);
  for (auto _ : state) {
    for (auto& p : position) ++p;
    cpu::sample({.rows = rows,
                 .vocab = vocab,
                 .logits = logits.data(),
                 .temperature = temperature.data(),
                 .top_k = top_k.data(),
                 .top_p = top_p.data(),
                 .min_p = zeros.data(),
                 .seeds = seeds.data(),
                 .position = position.data(),
                 .counts = counts.data(),
                 .slot_count = rows,
                 .slots = slots.data(),
                 .repetition = repetition.data(),
                 .frequency = zeros.data(),
                 .presence = zeros.data(),
                 .tokens = tokens.data()},
                pool.get());
    if (setting.top == 0) continue;
    cpu::token_logprobs({.rows = rows,
                         .vocab = vocab,
                         .logits = logits.data(),
                         .tokens = tokens.data(),
                         .top = setting.top,
                         .logprobs = logprobs.data(),
                         .top_tokens = top_tokens.data(),
                         .top_logprobs = top_logprobs.data()},
                        pool.get());
  }
}

}  // namespace

int main(int argc, char** argv) {
  for (const Setting& setting :
       {Setting{"greedy", 0, 1, 0}, Setting{"all", 1, 1, 0}, Setting{"top_k", 0.8f, 1, 50},
        Setting{"top_p", 1, 0.95f, 0}, Setting{"top_k_top_p", 0.8f, 0.95f, 50},
        Setting{"penalties", 0.8f, 0.95f, 50, 0, true}, Setting{"logprobs", 0.8f, 0.95f, 50, 20}}) {
    for (const int64_t vocab : {49152, 151936}) {
      for (const int64_t rows : {1, 32}) {
        const std::string name =
            std::string(setting.name) + "/" + std::to_string(rows) + "x" + std::to_string(vocab);
        benchmark::RegisterBenchmark(
            name.c_str(), [=](benchmark::State& state) { sample(state, setting, rows, vocab); })
            ->Unit(benchmark::kMicrosecond)
            ->UseRealTime();
      }
    }
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
