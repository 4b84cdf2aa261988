// Random ragged batches through the attention kernel itself, on every instruction set, against sums
// in float64; and calls from several threads at once.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "cache_testing.h"
#include "ttpu/base/error.h"
#include "ttpu/kernels/ragged_paged_attention/cpu/kernel.h"

namespace ttpu::kernels::cpu {
namespace {

struct Shape {
  int64_t groups, kv_heads, key_dim, value_dim, page_size;
  bool latent;  // values are the front of the keys, one key head (MLA)
  DType dtype, cache_dtype;
  int64_t window;
  float soft_cap;
  bool sinks, causal;
};

std::vector<char> encode(const std::vector<float>& values, DType dtype) {
  std::vector<char> bytes(values.size() * (dtype == DType::kF32 ? 4 : 2));
  for (size_t i = 0; i < values.size(); ++i) {
    if (dtype == DType::kF32) {
      std::memcpy(&bytes[4 * i], &values[i], 4);
    } else {
      const uint16_t half = bf16_from_f32(values[i]);
      std::memcpy(&bytes[2 * i], &half, 2);
    }
  }
  return bytes;
}
float decode(const std::vector<char>& bytes, size_t i, DType dtype) {
  if (dtype == DType::kF32) {
    float value;
    std::memcpy(&value, &bytes[4 * i], 4);
    return value;
  }
  uint16_t half;
  std::memcpy(&half, &bytes[2 * i], 2);
  return f32_from_bf16(half);
}

// A batch in memory; pages that no sequence owns, and what lies behind a sequence's end, are NaN.
class Ragged {
 public:
  Ragged(const Shape& s, std::vector<std::pair<int32_t, int32_t>> lengths, int64_t padding,
         uint32_t seed)
      : s_(s), rng_(seed) {
    cu_ = {0};
    int64_t longest = 1;
    for (const auto& [q, kv] : lengths) {
      cu_.push_back(cu_.back() + q);
      kv_lens_.push_back(kv);
      longest = std::max<int64_t>(longest, kv);
    }
    real_ = static_cast<int64_t>(lengths.size());
    sequences_ = real_ + padding;
    for (int64_t i = 0; i < padding; ++i) {
      cu_.push_back(-5);  // never looked at
      kv_lens_.push_back(1 << 20);
    }
    tokens_ = cu_[static_cast<size_t>(real_)] + padding;
    per_sequence_ = (longest + s.page_size - 1) / s.page_size;
    width_ = s.latent ? s.key_dim : s.kv_heads * (s.key_dim + s.value_dim);
    q_heads_ = s.groups * s.kv_heads;
    assign_pages();
    q_ = encode(randoms(tokens_ * q_heads_ * s.key_dim), s.dtype);
    rows_ = encode(randoms(tokens_ * width_), s.dtype);
    sinks_ = randoms(q_heads_);
    fill_cache();
  }

  // The greatest difference from what float64 sums give, beside the largest value.
  double difference(TaskPool* pool, Isa isa) {
    std::vector<char> cache = encode_heads(cache_, s_.cache_dtype, s_.key_dim);
    std::vector<char> output(static_cast<size_t>(tokens_ * q_heads_ * s_.value_dim) *
                             (s_.dtype == DType::kF32 ? 4 : 2));
    attention(call(cache, output), pool, isa);
    const int64_t heads = all_pages_ * s_.page_size * width_ / s_.key_dim;
    const std::vector<float> held = decode_heads(cache.data(), s_.cache_dtype, s_.key_dim, heads);
    double worst = 0;
    for (int64_t s = 0; s < real_; ++s) {
      const auto at = static_cast<size_t>(s);
      for (int64_t t = cu_[at]; t < cu_[at + 1]; ++t) {
        const int64_t position = kv_lens_[at] - (cu_[at + 1] - t);
        for (int64_t head = 0; head < q_heads_; ++head) {
          const std::vector<double> expected = attend(held, s, t, position, head);
          for (int64_t d = 0; d < s_.value_dim; ++d) {
            const auto i = static_cast<size_t>((t * q_heads_ + head) * s_.value_dim + d);
            const double error = std::abs(static_cast<double>(decode(output, i, s_.dtype)) -
                                          expected[static_cast<size_t>(d)]);
            worst = error <= worst ? worst : error;  // NaN counts
          }
        }
      }
    }
    for (auto i = static_cast<size_t>(cu_[static_cast<size_t>(real_)] * q_heads_ * s_.value_dim);
         i < static_cast<size_t>(tokens_ * q_heads_ * s_.value_dim); ++i) {
      if (decode(output, i, s_.dtype) != 0) worst = HUGE_VAL;
    }
    return worst;
  }

 private:
  std::vector<float> randoms(int64_t count) {
    std::normal_distribution<float> normal;
    std::vector<float> values(static_cast<size_t>(count));
    for (float& v : values) v = normal(rng_);
    return values;
  }

  void assign_pages() {
    pages_.resize(static_cast<size_t>(sequences_ * per_sequence_ + 1));
    std::iota(pages_.begin(), pages_.end(), 0);
    std::shuffle(pages_.begin(), pages_.end(), rng_);
    all_pages_ = static_cast<int64_t>(pages_.size());
  }
  size_t row_of(int64_t sequence, int64_t position) const {
    const auto entry = static_cast<size_t>(sequence * per_sequence_ + position / s_.page_size);
    return static_cast<size_t>(pages_[entry] * s_.page_size + position % s_.page_size);
  }
  void fill_cache() {
    cache_.assign(static_cast<size_t>(all_pages_ * s_.page_size * width_), std::nanf(""));
    for (int64_t s = 0; s < real_; ++s) {
      for (int64_t j = 0; j < kv_lens_[static_cast<size_t>(s)]; ++j) {
        const std::vector<float> row = randoms(width_);
        std::copy(row.begin(), row.end(),
                  cache_.begin() + static_cast<std::ptrdiff_t>(row_of(s, j)) * width_);
      }
    }
  }

  Attention call(std::vector<char>& cache, std::vector<char>& output) {
    distribution_ = {0, 0, static_cast<int32_t>(real_)};
    const int64_t head = s_.key_dim + (s_.cache_dtype == DType::kS8 ? 4 : 0);
    return {.dtype = s_.dtype,
            .cache_dtype = s_.cache_dtype,
            .q = q_.data(),
            .keys = rows_.data(),
            .cache = cache.data(),
            .output = output.data(),
            .kv_lens = kv_lens_.data(),
            .page_indices = pages_.data(),
            .cu_q_lens = cu_.data(),
            .distribution = distribution_.data(),
            .sinks = s_.sinks ? sinks_.data() : nullptr,
            .tokens = tokens_,
            .q_heads = q_heads_,
            .kv_heads = s_.kv_heads,
            .key_dim = s_.key_dim,
            .value_dim = s_.value_dim,
            .width = width_ / s_.key_dim * head,
            .head_stride = s_.latent ? 0 : 2 * head,
            .value_offset = s_.latent ? 0 : head,
            .pages = all_pages_,
            .page_size = s_.page_size,
            .sequences = sequences_,
            .pages_per_sequence = per_sequence_,
            .scale = scale(),
            .soft_cap = s_.soft_cap,
            .window = s_.window,
            .causal = s_.causal};
  }
  float scale() const { return 1.5f / std::sqrt(static_cast<float>(s_.key_dim)); }

  std::vector<double> attend(const std::vector<float>& cache, int64_t sequence, int64_t token,
                             int64_t position, int64_t head) const {
    const int64_t stride = s_.latent ? 0 : s_.key_dim + s_.value_dim;
    const auto at = [&](int64_t j, int64_t d) {
      const auto row = static_cast<int64_t>(row_of(sequence, j));
      return static_cast<double>(
          cache[static_cast<size_t>(row * width_ + head / s_.groups * stride + d)]);
    };
    const int64_t end = s_.causal ? position + 1 : kv_lens_[static_cast<size_t>(sequence)];
    const int64_t begin = s_.window > 0 ? std::max<int64_t>(0, position - s_.window + 1) : 0;
    const double sink = static_cast<double>(sinks_[static_cast<size_t>(head)]);
    double most = s_.sinks ? sink : -HUGE_VAL;
    std::vector<double> scores;
    for (int64_t j = begin; j < end; ++j) {
      double score = 0;
      for (int64_t d = 0; d < s_.key_dim; ++d) {
        const auto i = static_cast<size_t>((token * q_heads_ + head) * s_.key_dim + d);
        score += static_cast<double>(decode(q_, i, s_.dtype)) * at(j, d);
      }
      score *= static_cast<double>(scale());
      const auto cap = static_cast<double>(s_.soft_cap);
      if (cap > 0) score = cap * std::tanh(score / cap);
      scores.push_back(score);
      most = std::max(most, score);
    }
    double total = s_.sinks ? std::exp(sink - most) : 0;
    for (double& score : scores) total += score = std::exp(score - most);
    std::vector<double> sums(static_cast<size_t>(s_.value_dim), 0);
    for (int64_t j = begin; j < end; ++j) {
      for (int64_t d = 0; d < s_.value_dim; ++d) {
        sums[static_cast<size_t>(d)] += scores[static_cast<size_t>(j - begin)] / total *
                                        at(j, (s_.latent ? 0 : s_.key_dim) + d);
      }
    }
    return sums;
  }

  Shape s_;
  std::mt19937 rng_;
  int64_t real_ = 0, sequences_ = 0, tokens_ = 0, per_sequence_ = 0, width_ = 0, q_heads_ = 0;
  int64_t all_pages_ = 0;
  std::vector<int32_t> cu_, kv_lens_, pages_, distribution_;
  std::vector<char> q_, rows_;
  std::vector<float> sinks_, cache_;
};

bool all_bf16(const Shape& s) { return s.dtype == DType::kBF16; }

Shape any_shape() {
  Shape s;
  s.latent = *rc::gen::weightedElement<bool>({{3, false}, {1, true}});
  s.kv_heads = s.latent ? 1 : *rc::gen::inRange<int64_t>(1, 4);
  s.groups = *rc::gen::element<int64_t>(1, 2, 3, 4, 5, 7, 8, 9, 16, 50);
  s.value_dim = *rc::gen::element<int64_t>(1, 8, 16, 31, 32, 48, 64, 72, 128);
  s.key_dim = s.latent ? s.value_dim + *rc::gen::element<int64_t>(0, 8, 16) : s.value_dim;
  s.page_size = *rc::gen::element<int64_t>(1, 3, 8, 16, 64);
  s.dtype = *rc::gen::element(DType::kBF16, DType::kF32);
  s.cache_dtype = *rc::gen::element(DType::kBF16, DType::kF32, DType::kS8, DType::kF8E4M3FN);
  s.window = *rc::gen::weightedElement<int64_t>({{3, 0}, {1, 1}, {1, 20}, {1, 100}});
  s.soft_cap = *rc::gen::weightedElement<float>({{3, 0.f}, {1, 2.f}});
  s.sinks = *rc::gen::arbitrary<bool>();
  s.causal = *rc::gen::weightedElement<bool>({{4, true}, {1, false}});
  return s;
}

TEST(AttentionProperty, RandomRaggedBatchesGiveTheSumsOfFloat64) {
  auto pool = make_thread_pool(3);
  const bool holds = rc::check("ragged batches", [&] {
    const Shape shape = any_shape();
    std::vector<std::pair<int32_t, int32_t>> lengths;
    for (int i = *rc::gen::inRange(1, 5); i > 0; --i) {
      const auto q = *rc::gen::weightedOneOf<int32_t>(
          {{3, rc::gen::just(1)}, {1, rc::gen::inRange(0, 8)}, {1, rc::gen::inRange(8, 90)}});
      const auto past = *rc::gen::weightedOneOf<int32_t>(
          {{1, rc::gen::just(0)}, {2, rc::gen::inRange(0, 70)}, {1, rc::gen::inRange(70, 600)}});
      lengths.emplace_back(q, std::max(q + past, 1));
    }
    Ragged batch(shape, lengths, *rc::gen::inRange<int64_t>(0, 3), *rc::gen::arbitrary<uint32_t>());
    // Weights and results of bf16 have 8 bits.
    const double bound = all_bf16(shape) ? 0.04 : 2e-4;
    for (const Isa isa : supported_isas()) {
      const double alone = batch.difference(nullptr, isa);
      RC_ASSERT(alone < bound);
      const double together = batch.difference(pool.get(), isa);
      RC_ASSERT(together < bound);
    }
  });
  EXPECT_TRUE(holds);
}

TEST(AttentionProperty, CallsFromSeveralThreadsDoNotDisturbEachOther) {
  auto pool = make_thread_pool(3);
  std::vector<std::thread> threads;
  std::vector<double> worst(4, 0);
  for (size_t i = 0; i < worst.size(); ++i) {
    threads.emplace_back([&, i] {
      const Shape shape = {3, 2, 64, 64, 16, false, DType::kBF16, DType::kBF16, 0, 0, false, true};
      Ragged batch(shape, {{1, 700}, {40, 60}, {1, 5}}, 1, static_cast<uint32_t>(i));
      for (int times = 0; times < 5; ++times) {
        worst[i] = std::max(worst[i], batch.difference(pool.get(), best_isa()));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const double one : worst) EXPECT_LT(one, 0.04);
}

}  // namespace
}  // namespace ttpu::kernels::cpu
