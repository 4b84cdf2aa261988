// Attention over the paged cache, run through the CPU plugin as references and as CPU kernels,
// against sums in float64 over random ragged batches.
#include <cmath>
#include <random>
#include <vector>

#include "cache_testing.h"
#include "program_testing.h"
#include "ttpu/kernels/mla_attention/mla_attention.h"
#include "ttpu/kernels/ragged_paged_attention/ragged_paged_attention.h"
#include "ttpu/kernels/rotary/rotary.h"

namespace ttpu::kernels {
namespace {

using Floats = std::vector<float>;
using Ints = std::vector<int32_t>;

const pjrt::Client& client() { return test_client(); }
Target target_of(bool custom_calls) { return test_target(custom_calls); }

struct Case {
  const char* name;
  int64_t q_heads = 4, kv_heads = 2, head_dim = 32, value_dim = 32;
  int64_t page_size = 4, pages = 6;  // of each sequence
  Ints q_lens, kv_lens;
  int64_t padding_sequences = 0, padding_tokens = 0;
  AttentionOptions options = {.scale = 0.2};
  bool sinks = false;
  bool mla = false;  // value_dim of head_dim are the latent
  bool tpu_cache = false;
  DType dtype = DType::kF32, cache_dtype = DType::kF32;
};

Floats rounded(Floats values, DType dtype) {
  if (dtype == DType::kBF16) {
    for (float& value : values) value = f32_from_bf16(bf16_from_f32(value));
  }
  return values;
}

Floats random_floats(int64_t count, std::mt19937& rng, DType dtype = DType::kF32) {
  std::normal_distribution<float> normal;
  Floats values(static_cast<size_t>(count));
  for (float& value : values) value = normal(rng);
  return rounded(values, dtype);
}

pjrt::Buffer to_device(const Floats& values, DType dtype, Dims dims) {
  if (dtype == DType::kF32) return client().to_device(values.data(), Shape(dtype, dims));
  std::vector<uint16_t> half;
  for (const float value : values) half.push_back(bf16_from_f32(value));
  return client().to_device(half.data(), Shape(dtype, dims));
}

Floats to_host(const pjrt::Buffer& buffer) {
  if (buffer.shape().dtype == DType::kF32) return buffer.to_vector<float>();
  Floats values;
  for (const uint16_t half : buffer.to_vector<uint16_t>()) values.push_back(f32_from_bf16(half));
  return values;
}

// Heads of `size` numbers, as a cache of this type holds them.
Floats held(const Floats& values, DType dtype, int64_t size) {
  const auto heads = static_cast<int64_t>(values.size()) / size;
  return decode_heads(encode_heads(values, dtype, size).data(), dtype, size, heads);
}

ir::Value part(ir::Value x, int axis, int64_t begin, int64_t end) {
  Dims start(x.dims().size(), 0), limit = x.dims();
  start[static_cast<size_t>(axis)] = begin;
  limit[static_cast<size_t>(axis)] = end;
  return ir::slice(x, start, limit);
}

ir::Value padded(ir::Value x, int axis, int64_t size) {
  Dims none(x.dims().size(), 0), more = none;
  more[static_cast<size_t>(axis)] = size - x.dim(axis);
  return ir::pad(x, ir::scalar(x.function(), x.dtype(), 0), none, more);
}

// A plain cache as row_cache() has it, and back.
ir::Value to_rows(ir::Value cache) {
  const Dims rows = row_cache(cache.dims(), cache.dtype());
  const int64_t pages = cache.dim(0), slots = cache.dim(1), size = cache.dim(-1) - 4;
  const bool scales = cache.dtype() == DType::kS8;
  if (cache.rank() == 3) {
    if (!scales) return ir::reshape(padded(cache, 2, rows[3]), rows);
    const ir::Value numbers = padded(part(cache, 2, 0, size), 2, rows[3] - 4);
    return ir::reshape(ir::concatenate({numbers, part(cache, 2, size, size + 4)}, 2), rows);
  }
  if (!scales) return ir::reshape(cache, rows);
  const int64_t heads = cache.dim(2), width = std::min<int64_t>(size, 128), groups = slots / 4;
  const int64_t behind = rows[1] - groups;
  ir::Value words = ir::bitcast_convert(part(cache, 3, size, size + 4), DType::kF32);
  words = ir::reshape(padded(words, 1, behind * width), {pages, behind, width, heads});
  words = padded(ir::transpose(words, {0, 1, 3, 2}), 3, size);
  words = ir::reshape(ir::bitcast_convert(words, DType::kS8), {pages, behind, rows[3], 4});
  return ir::concatenate({ir::reshape(part(cache, 3, 0, size), {pages, groups, 4, rows[3]}),
                          ir::transpose(words, {0, 1, 3, 2})},
                         1);
}

ir::Value from_rows(ir::Value rows, const Dims& plain) {
  const int64_t pages = plain[0], slots = plain[1], size = plain.back() - 4;
  const bool scales = rows.dtype() == DType::kS8;
  if (plain.size() == 3) {
    const ir::Value all = ir::reshape(rows, {pages, slots, rows.dim(3)});
    if (!scales) return part(all, 2, 0, plain[2]);
    return ir::concatenate({part(all, 2, 0, size), part(all, 2, rows.dim(3) - 4, rows.dim(3))}, 2);
  }
  if (!scales) return ir::reshape(rows, plain);
  const int64_t heads = plain[2], width = std::min<int64_t>(size, 128), groups = slots / 4;
  const int64_t behind = rows.dim(1) - groups;
  ir::Value words = ir::transpose(part(rows, 1, groups, rows.dim(1)), {0, 1, 3, 2});
  words = ir::reshape(words, {pages, behind, heads, size, 4});
  words = ir::transpose(part(words, 3, 0, width), {0, 1, 3, 2, 4});
  words = part(ir::reshape(words, {pages, behind * width, heads, 4}), 1, 0, slots);
  return ir::concatenate(
      {ir::reshape(part(rows, 1, 0, groups), {pages, slots, heads, size}), words}, 3);
}

// A batch with numbers, what a plain computation makes of it, and the program that must agree.
class Batch {
 public:
  Batch(const Case& c, uint32_t seed) : c_(c), rng_(seed) {
    real_sequences_ = static_cast<int64_t>(c.q_lens.size());
    sequences_ = real_sequences_ + c.padding_sequences;
    cu_ = {0};
    for (const int32_t length : c.q_lens) cu_.push_back(cu_.back() + length);
    real_tokens_ = cu_.back();
    tokens_ = real_tokens_ + c.padding_tokens;
    cu_.resize(static_cast<size_t>(sequences_ + 1), cu_.back());
    kv_lens_ = c.kv_lens;
    kv_lens_.resize(static_cast<size_t>(sequences_), 0);
    all_pages_ = sequences_ * c.pages + 1;
    for (int32_t page = 0; page + 1 < all_pages_; ++page) pages_.push_back(page);
    std::shuffle(pages_.begin(), pages_.end(), rng_);
    width_ = c.mla ? c.head_dim : 2 * c.kv_heads * c.head_dim;
    q_ = random_floats(tokens_ * c.q_heads * c.head_dim, rng_, c.dtype);
    rows_ = random_floats(tokens_ * width_, rng_, c.dtype);
    cache_ = random_floats(all_pages_ * c.page_size * width_, rng_);
    sinks_ = random_floats(c.q_heads, rng_);
    expect();
  }

  void check(bool custom_calls) {
    const std::vector<pjrt::Buffer> results = run(custom_calls);
    const Floats output = to_host(results[0]);
    std::vector<char> bytes(static_cast<size_t>(results[1].shape().byte_size()));
    results[1].to_host(bytes.data(), static_cast<int64_t>(bytes.size())).wait();
    const Floats cache = decode_heads(bytes.data(), c_.cache_dtype, c_.head_dim,
                                      static_cast<int64_t>(cache_.size()) / c_.head_dim);
    EXPECT_EQ(cache, expected_cache_) << c_.name << ": the cache differs";
    ASSERT_EQ(output.size(), expected_.size());
    double error = 0, norm = 1e-12;
    for (size_t i = 0; i < output.size(); ++i) {
      error += (output[i] - expected_[i]) * (output[i] - expected_[i]);
      norm += expected_[i] * expected_[i];
    }
    EXPECT_LT(error / norm, c_.dtype == DType::kF32 ? 1e-10 : 1e-4) << c_.name;
    const auto real = static_cast<size_t>(real_tokens_ * c_.q_heads * c_.value_dim);
    for (size_t i = real; i < output.size(); ++i) ASSERT_EQ(output[i], 0) << c_.name;
  }

 private:
  size_t row_of(int64_t sequence, int64_t position) const {
    const int32_t page = pages_[static_cast<size_t>(sequence * c_.pages + position / c_.page_size)];
    return static_cast<size_t>(page * c_.page_size + position % c_.page_size);
  }

  void expect() {
    expected_cache_ = held(cache_, c_.cache_dtype, c_.head_dim);
    const Floats rows = held(rows_, c_.cache_dtype, c_.head_dim);
    expected_.assign(static_cast<size_t>(tokens_ * c_.q_heads * c_.value_dim), 0);
    const auto width = static_cast<size_t>(width_);
    for (int64_t s = 0; s < real_sequences_; ++s) {
      const auto at = static_cast<size_t>(s);
      const int64_t first = kv_lens_[at] - c_.q_lens[at];
      for (int64_t i = 0; i < c_.q_lens[at]; ++i) {
        for (size_t d = 0; d < width; ++d) {
          expected_cache_[row_of(s, first + i) * width + d] =
              rows[static_cast<size_t>(cu_[at] + i) * width + d];
        }
      }
      for (int64_t i = 0; i < c_.q_lens[at]; ++i) {
        for (int64_t head = 0; head < c_.q_heads; ++head) attend(s, cu_[at] + i, first + i, head);
      }
    }
  }

  void attend(int64_t sequence, int64_t token, int64_t position, int64_t head) {
    const int64_t kv_head = head / (c_.q_heads / c_.kv_heads);
    const int64_t length =
        c_.options.causal ? position + 1 : kv_lens_[static_cast<size_t>(sequence)];
    const auto key_at = [&](int64_t j) {
      return &expected_cache_[row_of(sequence, j) * static_cast<size_t>(width_) +
                              static_cast<size_t>(c_.mla ? 0 : 2 * kv_head * c_.head_dim)];
    };
    const float* q = &q_[static_cast<size_t>((token * c_.q_heads + head) * c_.head_dim)];
    std::vector<std::pair<int64_t, double>> scores;
    double most = c_.sinks ? static_cast<double>(sinks_[static_cast<size_t>(head)]) : -1e300;
    for (int64_t j = 0; j < length; ++j) {
      if (c_.options.sliding_window && j <= position - *c_.options.sliding_window) continue;
      double score = 0;
      for (int64_t d = 0; d < c_.head_dim; ++d) score += static_cast<double>(q[d]) * key_at(j)[d];
      score *= c_.options.scale;
      if (c_.options.soft_cap)
        score = std::tanh(score / *c_.options.soft_cap) * *c_.options.soft_cap;
      scores.emplace_back(j, score);
      most = std::max(most, score);
    }
    double total = c_.sinks ? std::exp(sinks_[static_cast<size_t>(head)] - most) : 0;
    for (const auto& [j, score] : scores) total += std::exp(score - most);
    double* out = &expected_[static_cast<size_t>((token * c_.q_heads + head) * c_.value_dim)];
    for (const auto& [j, score] : scores) {
      const float* value = key_at(j) + (c_.mla ? 0 : c_.head_dim);
      for (int64_t d = 0; d < c_.value_dim; ++d)
        out[d] += std::exp(score - most) / total * value[d];
    }
  }

  std::vector<pjrt::Buffer> run(bool custom_calls) {
    ir::Module module("attention");
    ir::Function& main = module.add_function();
    std::vector<pjrt::Buffer> buffers;
    const auto floats = [&](const Floats& values, DType dtype, const Dims& dims) {
      buffers.push_back(to_device(values, dtype, dims));
      return main.add_argument(Shape(dtype, dims));
    };
    const auto ints = [&](const Ints& values) {
      const Shape shape(DType::kS32, {static_cast<int64_t>(values.size())});
      buffers.push_back(client().to_device(values.data(), shape));
      return main.add_argument(shape);
    };
    const int64_t head = cache_elements(c_.cache_dtype, c_.head_dim);
    Dims cache_dims = {all_pages_, c_.page_size, 2 * c_.kv_heads, head};
    if (c_.mla) cache_dims = {all_pages_, c_.page_size, head};
    const Shape cache_shape(c_.cache_dtype, cache_dims);
    buffers.push_back(
        client().to_device(encode_heads(cache_, c_.cache_dtype, c_.head_dim).data(), cache_shape));
    const ir::Value cache = main.add_argument(cache_shape);
    const ir::Value q = floats(q_, c_.dtype, {tokens_, c_.q_heads, c_.head_dim});
    const ir::Value rows = floats(rows_, c_.dtype, {tokens_, width_});
    const int32_t count = static_cast<int32_t>(real_sequences_);
    const RaggedBatch batch{ints(kv_lens_), ints(pages_), ints(cu_), ints({0, 0, count})};
    AttentionOptions options = c_.options;
    if (c_.sinks) options.sinks = floats(sinks_, DType::kF32, {c_.q_heads});
    const Target target = target_of(custom_calls);
    const ir::Value given = c_.tpu_cache ? to_rows(cache) : cache;
    AttentionResult result;
    if (c_.mla) {
      result =
          mla_attention(target, part(q, 2, 0, c_.value_dim), part(q, 2, c_.value_dim, c_.head_dim),
                        part(rows, 1, 0, c_.value_dim), part(rows, 1, c_.value_dim, c_.head_dim),
                        given, batch, {.scale = c_.options.scale});
    } else {
      const ir::Value pairs = ir::reshape(rows, {tokens_, c_.kv_heads, 2, c_.head_dim});
      const Dims dims = {tokens_, c_.kv_heads, c_.head_dim};
      result =
          ragged_paged_attention(target, q, ir::reshape(part(pairs, 2, 0, 1), dims),
                                 ir::reshape(part(pairs, 2, 1, 2), dims), given, batch, options);
    }
    if (c_.tpu_cache) result.cache = from_rows(result.cache, cache_dims);
    main.alias(cache, 1);
    main.set_results({result.output, result.cache});
    module.verify();
    const pjrt::LoadedExecutable program = client().compile(module.to_string());
    std::vector<const pjrt::Buffer*> pointers;
    for (const pjrt::Buffer& buffer : buffers) pointers.push_back(&buffer);
    const uintptr_t before = buffers[0].unsafe_pointer();
    std::vector<pjrt::Buffer> results = program.execute(pointers);
    results[1].ready().wait();
    EXPECT_TRUE(buffers[0].deleted()) << c_.name << ": the cache was not donated";
    if (!c_.tpu_cache) {
      EXPECT_EQ(results[1].unsafe_pointer(), before) << c_.name << ": the cache moved";
    }
    return results;
  }

  Case c_;
  std::mt19937 rng_;
  int64_t real_sequences_ = 0, sequences_ = 0, real_tokens_ = 0, tokens_ = 0;
  int64_t all_pages_ = 0, width_ = 0;
  Ints cu_, kv_lens_, pages_;
  Floats q_, rows_, cache_, sinks_, expected_cache_;
  std::vector<double> expected_;
};

std::vector<Case> cases() {
  const DType bf16 = DType::kBF16;
  return {
      {.name = "one_decode", .q_lens = {1}, .kv_lens = {23}},
      {.name = "one_prefill", .q_lens = {20}, .kv_lens = {20}, .padding_tokens = 4},
      {.name = "chunk", .q_lens = {7}, .kv_lens = {22}},
      {.name = "decodes",
       .q_lens = {1, 1, 1},
       .kv_lens = {1, 24, 9},
       .padding_sequences = 1,
       .padding_tokens = 1},
      {.name = "mixed",
       .q_lens = {1, 9, 5},
       .kv_lens = {17, 9, 20},
       .padding_sequences = 2,
       .padding_tokens = 3},
      {.name = "long_prefill", .page_size = 16, .pages = 20, .q_lens = {300}, .kv_lens = {310}},
      {.name = "window",
       .q_lens = {12, 1},
       .kv_lens = {20, 20},
       .options = {.scale = 0.2, .sliding_window = 5}},
      {.name = "long_window",
       .page_size = 16,
       .pages = 20,
       .q_lens = {200, 1},
       .kv_lens = {310, 300},
       .options = {.scale = 0.2, .sliding_window = 70}},
      {.name = "soft_cap",
       .q_lens = {12, 1},
       .kv_lens = {20, 20},
       .options = {.scale = 0.5, .soft_cap = 2.0}},
      {.name = "sinks", .q_lens = {12, 1}, .kv_lens = {20, 20}, .sinks = true},
      {.name = "not_causal",
       .q_lens = {12, 3},
       .kv_lens = {12, 20},
       .options = {.scale = 0.2, .causal = false}},
      {.name = "odd_head",
       .q_heads = 9,
       .kv_heads = 3,
       .head_dim = 72,
       .value_dim = 72,
       .page_size = 5,
       .q_lens = {9, 1},
       .kv_lens = {9, 30}},
      {.name = "head_256",
       .q_heads = 4,
       .kv_heads = 1,
       .head_dim = 256,
       .value_dim = 256,
       .q_lens = {9, 1},
       .kv_lens = {9, 20}},
      {.name = "bf16",
       .q_heads = 9,
       .kv_heads = 3,
       .head_dim = 64,
       .value_dim = 64,
       .page_size = 16,
       .pages = 20,
       .q_lens = {130, 1, 1},
       .kv_lens = {200, 310, 1},
       .dtype = bf16,
       .cache_dtype = bf16},
      {.name = "bf16_cache", .q_lens = {9, 1}, .kv_lens = {9, 20}, .cache_dtype = bf16},
      {.name = "f32_cache", .q_lens = {9, 1}, .kv_lens = {9, 20}, .dtype = bf16},
      {.name = "int8",
       .q_heads = 9,
       .kv_heads = 3,
       .head_dim = 64,
       .value_dim = 64,
       .page_size = 16,
       .pages = 20,
       .q_lens = {130, 1, 3},
       .kv_lens = {200, 310, 5},
       .padding_sequences = 1,
       .cache_dtype = DType::kS8},
      {.name = "int8_bf16",
       .q_lens = {9, 1},
       .kv_lens = {9, 20},
       .options = {.scale = 0.2, .sliding_window = 7},
       .sinks = true,
       .dtype = bf16,
       .cache_dtype = DType::kS8},
      {.name = "fp8",
       .q_heads = 9,
       .kv_heads = 3,
       .head_dim = 64,
       .value_dim = 64,
       .page_size = 16,
       .pages = 20,
       .q_lens = {130, 1, 3},
       .kv_lens = {200, 310, 5},
       .padding_tokens = 2,
       .cache_dtype = DType::kF8E4M3FN},
      {.name = "fp8_bf16",
       .head_dim = 72,
       .value_dim = 72,
       .q_lens = {9, 1},
       .kv_lens = {9, 20},
       .dtype = bf16,
       .cache_dtype = DType::kF8E4M3FN},
      {.name = "mla_int8",
       .q_heads = 6,
       .kv_heads = 1,
       .head_dim = 80,
       .value_dim = 64,
       .q_lens = {9, 1},
       .kv_lens = {12, 20},
       .mla = true,
       .cache_dtype = DType::kS8},
      {.name = "mla_fp8",
       .q_heads = 6,
       .kv_heads = 1,
       .head_dim = 80,
       .value_dim = 64,
       .q_lens = {9, 1},
       .kv_lens = {12, 20},
       .mla = true,
       .dtype = bf16,
       .cache_dtype = DType::kF8E4M3FN},
      {.name = "mla",
       .q_heads = 6,
       .kv_heads = 1,
       .head_dim = 80,
       .value_dim = 64,
       .q_lens = {9, 1},
       .kv_lens = {12, 20},
       .padding_tokens = 2,
       .mla = true},
      {.name = "mla_tpu_cache",
       .q_heads = 4,
       .kv_heads = 1,
       .head_dim = 24,
       .value_dim = 16,
       .q_lens = {9, 1, 1},
       .kv_lens = {9, 20, 13},
       .mla = true,
       .tpu_cache = true,
       .dtype = bf16,
       .cache_dtype = bf16},
      {.name = "tpu_cache",
       .q_heads = 6,
       .kv_heads = 2,
       .head_dim = 64,
       .value_dim = 64,
       .q_lens = {9, 1, 1},
       .kv_lens = {9, 20, 13},
       .options = {.scale = 0.2, .sliding_window = 7},
       .sinks = true,
       .tpu_cache = true,
       .dtype = bf16,
       .cache_dtype = bf16},
      {.name = "tpu_cache_int8",
       .q_heads = 6,
       .kv_heads = 2,
       .head_dim = 64,
       .value_dim = 64,
       .page_size = 80,  // more than a head has lanes: the scales take two groups
       .pages = 3,
       .q_lens = {9, 1, 90},
       .kv_lens = {9, 200, 130},
       .tpu_cache = true,
       .cache_dtype = DType::kS8},
      {.name = "mla_tpu_cache_int8",
       .q_heads = 4,
       .kv_heads = 1,
       .head_dim = 80,
       .value_dim = 64,
       .q_lens = {9, 1},
       .kv_lens = {12, 20},
       .mla = true,
       .tpu_cache = true,
       .cache_dtype = DType::kS8},
      {.name = "mla_bf16",
       .q_heads = 16,
       .kv_heads = 1,
       .head_dim = 576,
       .value_dim = 512,
       .q_lens = {3, 1},
       .kv_lens = {12, 20},
       .options = {.scale = 0.05},
       .mla = true,
       .dtype = bf16,
       .cache_dtype = bf16},
  };
}

TEST(Attention, TheReferenceAgreesWithPlainSums) {
  uint32_t seed = 1;
  for (const Case& c : cases()) Batch(c, seed++).check(false);
}

TEST(Attention, TheCpuKernelAgreesWithPlainSums) {
  uint32_t seed = 1;
  for (const Case& c : cases()) Batch(c, seed++).check(true);
}

TEST(Attention, ShapesThatDoNotFitAreRefused) {
  ir::Module module;
  ir::Function& main = module.add_function();
  const auto f32 = [&](Dims dims) { return main.add_argument(Shape(DType::kF32, dims)); };
  const auto i32 = [&](int64_t size) { return main.add_argument(Shape(DType::kS32, {size})); };
  const RaggedBatch batch{i32(2), i32(6), i32(3), i32(3)};
  const ir::Value q = f32({5, 4, 32}), kv = f32({5, 2, 32}), cache = f32({6, 4, 4, 32});
  EXPECT_NO_THROW(ragged_paged_attention({}, q, kv, kv, cache, batch, {}));
  EXPECT_THROW(ragged_paged_attention({}, q, f32({5, 3, 32}), f32({5, 3, 32}), cache, batch, {}),
               Error);
  EXPECT_THROW(ragged_paged_attention({}, q, kv, kv, f32({6, 4, 2, 32}), batch, {}), Error);
  EXPECT_THROW(ragged_paged_attention({}, q, kv, kv, cache, {i32(2), i32(5), i32(3), i32(3)}, {}),
               Error);
  EXPECT_THROW(ragged_paged_attention({}, q, kv, kv, cache, batch, {.sliding_window = 0}), Error);
  EXPECT_THROW(ragged_paged_attention({}, q, kv, kv, cache, batch, {.sinks = f32({3})}), Error);
}

ir::Value random_argument(TestProgram& program, std::mt19937& rng, const Dims& dims) {
  const int64_t count = Shape(DType::kF32, dims).num_elements();
  return program.argument(random_floats(count, rng), DType::kF32, dims);
}

// Both outcomes of one batch whose q and k are turned: inside the operator or before it.
TEST(Attention, RotaryInsideIsRotaryBefore) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const RotaryStyle style : {RotaryStyle::kHalf, RotaryStyle::kInterleaved}) {
      for (const int64_t rot : {64, 40, 6}) {
        TestProgram program;
        std::mt19937 rng(static_cast<uint32_t>(rot));
        const auto floats = [&](const Dims& dims) { return random_argument(program, rng, dims); };
        const auto ints = [&](const Ints& values) {
          return program.argument(values, DType::kS32, {static_cast<int64_t>(values.size())});
        };
        const ir::Value cache = ir::convert(floats({6, 8, 4, 64}), dtype);
        const ir::Value q = ir::convert(floats({70, 6, 64}), dtype);
        const ir::Value k = ir::convert(floats({70, 2, 64}), dtype);
        const ir::Value v = ir::convert(floats({70, 2, 64}), dtype);
        const ir::Value cos = floats({70, rot / 2}), sin = floats({70, rot / 2});
        const RaggedBatch batch{ints({20, 0}), ints({5, 2, 3, 0, 1, 4}), ints({0, 12, 12}),
                                ints({0, 0, 1})};
        const Target target = test_target(true);
        const auto inside = ragged_paged_attention(
            target, q, k, v, cache, batch, {.scale = 0.125, .rotary = Rotary{cos, sin, style}});
        const auto before = ragged_paged_attention(target, rotary(target, q, cos, sin, style),
                                                   rotary(target, k, cos, sin, style), v, cache,
                                                   batch, {.scale = 0.125});
        const auto f32 = [](ir::Value x) { return ir::convert(x, DType::kF32); };
        const auto out = program.run(
            {f32(inside.output), f32(before.output), f32(inside.cache), f32(before.cache)});
        const double bound = dtype == DType::kF32 ? 1e-5 : 0.05;
        for (size_t i = 0; i < 4; i += 2) {
          const Floats a = out[i].to_vector<float>(), b = out[i + 1].to_vector<float>();
          double worst = 0;
          for (size_t j = 0; j < a.size(); ++j) {
            worst = std::max(worst, static_cast<double>(std::abs(a[j] - b[j])));
          }
          EXPECT_LT(worst, bound) << "rot " << rot;
        }
      }
    }
  }
}

TEST(Rotary, TurnsPairsAndPassesTheRest) {
  for (const RotaryStyle style : {RotaryStyle::kHalf, RotaryStyle::kInterleaved}) {
    ir::Module module;
    ir::Function& main = module.add_function();
    const ir::Value x = main.add_argument(Shape(DType::kF32, {1, 1, 5}));
    const ir::Value cos = main.add_argument(Shape(DType::kF32, {1, 2}));
    const ir::Value sin = main.add_argument(Shape(DType::kF32, {1, 2}));
    main.set_results({rotary({}, x, cos, sin, style)});
    const pjrt::Buffer bx = to_device({1, 2, 3, 4, 5}, DType::kF32, {1, 1, 5});
    const pjrt::Buffer bc = to_device({0, 1}, DType::kF32, {1, 2});  // a quarter turn, and none
    const pjrt::Buffer bs = to_device({1, 0}, DType::kF32, {1, 2});
    const auto results = client()
                             .compile(module.to_string())
                             .execute(std::vector<const pjrt::Buffer*>{&bx, &bc, &bs});
    const Floats expected =
        style == RotaryStyle::kHalf ? Floats{-3, 2, 1, 4, 5} : Floats{-2, 1, 3, 4, 5};
    EXPECT_EQ(to_host(results[0]), expected);
  }
}

TEST(Rotary, AProductTurnsAsSlicesDo) {
  for (const int64_t heads : {1, 2, 7}) {
    TestProgram program;
    std::mt19937 rng(static_cast<uint32_t>(heads));
    const auto floats = [&](const Dims& dims) { return random_argument(program, rng, dims); };
    const ir::Value x = ir::convert(floats({9, heads, 64}), DType::kBF16);
    const ir::Value cos = floats({9, 32}), sin = floats({9, 32});
    const auto turned = [&](Platform platform) {
      return ir::convert(rotary({.platform = platform}, x, cos, sin, RotaryStyle::kHalf),
                         DType::kF32);
    };
    const auto out = program.run({turned(Platform::kTpu), turned(Platform::kCpu)});
    EXPECT_EQ(out[0].to_vector<float>(), out[1].to_vector<float>()) << heads << " heads";
  }
}

}  // namespace
}  // namespace ttpu::kernels
