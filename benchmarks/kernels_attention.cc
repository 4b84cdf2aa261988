// The attention kernel without XLA, on the shapes of SmolLM2-135M (9 query heads, 3 key heads, head
// dimension 64, pages of 64) unless the name says otherwise, one layer a call. Caches are those of
// 30 layers, taken in turn, so that decode reads them from memory as a model does.
//   build: cmake -DTTPU_BUILD_BENCHMARKS=ON; run: ttpu_kernels_attention_benchmark
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "ttpu/kernels/ragged_paged_attention/cpu/kernel.h"

namespace {

using namespace ttpu::kernels;
using ttpu::DType;

// The caller is one of them. TTPU_BENCHMARK_THREADS=1 measures one core.
int num_threads() {
  static const char* text = std::getenv("TTPU_BENCHMARK_THREADS");
  return text == nullptr ? 2 : std::atoi(text);
}
constexpr int64_t kPageSize = 64;

struct Shape {
  const char* name;
  int64_t q_heads, kv_heads, key_dim, value_dim;
  bool shared = false;  // MLA: values are the front of the keys
};
constexpr Shape kSmol = {"smollm2", 9, 3, 64, 64};
constexpr Shape kGemma = {"gemma3_270m", 4, 1, 256, 256};
constexpr Shape kLlama = {"llama3_8b", 32, 8, 128, 128};
constexpr Shape kMla = {"deepseek_v2_lite", 16, 1, 576, 512, true};

// `sequences` with q_len new tokens each at a length of kv_len.
class Workload {
 public:
  Workload(const Shape& shape, DType dtype, int64_t sequences, int64_t q_len, int64_t kv_len,
           size_t layers) {
    const int64_t tokens = sequences * q_len;
    const int64_t pages = (kv_len + kPageSize - 1) / kPageSize;
    const int64_t width = shape.shared ? shape.key_dim : 2 * shape.kv_heads * shape.key_dim;
    const int64_t size = dtype == DType::kF32 ? 4 : 2;
    fill(q_, tokens * shape.q_heads * shape.key_dim * size, dtype);
    fill(rows_, tokens * width * size, dtype);
    caches_.resize(layers);
    for (auto& cache : caches_) fill(cache, sequences * pages * kPageSize * width * size, dtype);
    output_.resize(static_cast<size_t>(tokens * shape.q_heads * shape.value_dim * size));
    kv_lens_.assign(static_cast<size_t>(sequences), static_cast<int32_t>(kv_len));
    pages_.resize(static_cast<size_t>(sequences * pages));
    std::iota(pages_.begin(), pages_.end(), 0);
    for (int64_t s = 0; s <= sequences; ++s) cu_.push_back(static_cast<int32_t>(s * q_len));
    distribution_ = {0, 0, static_cast<int32_t>(sequences)};
    call_ = {.dtype = dtype,
             .cache_dtype = dtype,
             .q = q_.data(),
             .keys = rows_.data(),
             .output = output_.data(),
             .kv_lens = kv_lens_.data(),
             .page_indices = pages_.data(),
             .cu_q_lens = cu_.data(),
             .distribution = distribution_.data(),
             .tokens = tokens,
             .q_heads = shape.q_heads,
             .kv_heads = shape.kv_heads,
             .key_dim = shape.key_dim,
             .value_dim = shape.value_dim,
             .width = width,
             .head_stride = shape.shared ? 0 : 2 * shape.key_dim,
             .value_offset = shape.shared ? 0 : shape.key_dim,
             .pages = sequences * pages,
             .page_size = kPageSize,
             .sequences = sequences,
             .pages_per_sequence = pages,
             .scale = 0.125f};
  }

  void run(TaskPool* pool, Isa isa) {
    call_.cache = caches_[next_++ % caches_.size()].data();
    cpu::attention(call_, pool, isa);
  }
  double cache_bytes() const { return static_cast<double>(caches_[0].size()); }

 private:
  void fill(std::vector<char>& bytes, int64_t size, DType dtype) {
    bytes.resize(static_cast<size_t>(size));
    for (size_t i = 0; i < bytes.size(); i += dtype == DType::kF32 ? 4 : 2) {
      const float value = static_cast<float>(random_() % 2001) / 1000.0f - 1.0f;
      if (dtype == DType::kF32) {
        std::memcpy(&bytes[i], &value, 4);
      } else {
        const uint16_t half = ttpu::bf16_from_f32(value);
        std::memcpy(&bytes[i], &half, 2);
      }
    }
  }

  std::minstd_rand random_{1};
  std::vector<char> q_, rows_, output_;
  std::vector<std::vector<char>> caches_;
  std::vector<int32_t> kv_lens_, pages_, cu_, distribution_;
  cpu::Attention call_;
  size_t next_ = 0;
};

void prefill(benchmark::State& state, const Shape& shape, DType dtype, Isa isa, int64_t tokens) {
  Workload work(shape, dtype, 1, tokens, tokens, 1);
  auto pool = make_thread_pool(num_threads());
  for (auto _ : state) work.run(pool.get(), isa);
  const double products = static_cast<double>(tokens) * static_cast<double>(tokens + 1) / 2 *
                          static_cast<double>(shape.q_heads * (shape.key_dim + shape.value_dim));
  state.counters["GFLOP/s"] =
      benchmark::Counter(2e-9 * products, benchmark::Counter::kIsIterationInvariantRate);
}

void decode(benchmark::State& state, const Shape& shape, DType dtype, Isa isa, int64_t kv_len,
            int64_t sequences) {
  Workload work(shape, dtype, sequences, 1, kv_len, 30);
  auto pool = make_thread_pool(num_threads());
  for (auto _ : state) work.run(pool.get(), isa);
  state.counters["GB/s"] =
      benchmark::Counter(work.cache_bytes() * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

void add_prefill(const Shape& shape, DType dtype, Isa isa, int64_t tokens) {
  const auto function = [=](benchmark::State& state) { prefill(state, shape, dtype, isa, tokens); };
  const std::string name = std::string("prefill/") + shape.name + "/" +
                           std::string(ttpu::dtype_name(dtype)) + "/" + isa_name(isa) + "/" +
                           std::to_string(tokens);
  benchmark::RegisterBenchmark(name.c_str(), function)
      ->Unit(benchmark::kMillisecond)
      ->UseRealTime();
}

void add_decode(const Shape& shape, DType dtype, Isa isa, int64_t kv_len, int64_t sequences) {
  const auto function = [=](benchmark::State& state) {
    decode(state, shape, dtype, isa, kv_len, sequences);
  };
  const std::string name = std::string("decode/") + shape.name + "/" +
                           std::string(ttpu::dtype_name(dtype)) + "/" + isa_name(isa) + "/" +
                           std::to_string(sequences) + "x" + std::to_string(kv_len);
  benchmark::RegisterBenchmark(name.c_str(), function)
      ->Unit(benchmark::kMicrosecond)
      ->UseRealTime();
}

}  // namespace

int main(int argc, char** argv) {
  for (const Isa isa : supported_isas()) {
    for (const DType dtype : {DType::kBF16, DType::kF32}) {
      add_prefill(kSmol, dtype, isa, 2048);
      add_prefill(kSmol, dtype, isa, 128);
      for (const int64_t kv_len : {100, 500, 2048}) add_decode(kSmol, dtype, isa, kv_len, 1);
      add_decode(kSmol, dtype, isa, 250, 32);
    }
  }
  for (const Shape& shape : {kGemma, kLlama, kMla}) {
    add_prefill(shape, DType::kBF16, best_isa(), 1024);
    add_decode(shape, DType::kBF16, best_isa(), 1024, 1);
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
