// How many blocks fit, by the type of the cache, and what "auto" takes of the rest.
#include "ttpu/engine/capacity.h"

#include <gtest/gtest.h>

#include "tests/support/error_of.h"
#include "ttpu/base/error.h"
#include "ttpu/base/json.h"
#include "ttpu/engine/cache_shape.h"
#include "ttpu/engine/engine_plan.h"
#include "ttpu/engine/parallel_plan.h"
#include "ttpu/models/registry.h"

namespace ttpu::engine {
namespace {

// Two layers of two key heads with 16 numbers.
nn::DecoderSpec tiny_spec() {
  return models::decoder_from_config({{"model_type", "llama"},
                                      {"architectures", {"LlamaForCausalLM"}},
                                      {"vocab_size", 96},
                                      {"hidden_size", 64},
                                      {"intermediate_size", 128},
                                      {"num_hidden_layers", 2},
                                      {"num_attention_heads", 4},
                                      {"num_key_value_heads", 2},
                                      {"head_dim", 16},
                                      {"max_position_embeddings", 4096},
                                      {"rms_norm_eps", 1e-6}});
}

TEST(Capacity, TheTypeOfTheCacheDecidesHowManyBlocksFit) {
  const nn::DecoderSpec spec = tiny_spec();
  const int64_t numbers = 2 * 2 * 2 * 16 * 64;  // layers, keys and values, heads, size, tokens
  const auto blocks = [&](DType dtype) {
    CapacityRequest request{.max_model_len = 640, .max_num_seqs = 64, .block_size = 64};
    request.cache_bytes = numbers * 4 * 100;  // a hundred blocks of f32
    request.cache_dtype = dtype;
    return plan_cache(spec, request).at(0).blocks;
  };
  EXPECT_EQ(blocks(DType::kF32), 100);
  EXPECT_EQ(blocks(DType::kBF16), 200);
  EXPECT_EQ(blocks(DType::kF8E4M3FN), 400);
  EXPECT_EQ(blocks(DType::kS8), 320) << "16 numbers and 4 bytes of scale";
}

TEST(Capacity, BlocksThatDoNotFitAreRefusedWithHowManyDo) {
  const nn::DecoderSpec spec = tiny_spec();
  CapacityRequest request{.max_model_len = 640, .max_num_seqs = 4, .block_size = 64};
  const int64_t block = 2 * 2 * 2 * 16 * 64 * 2;
  request.cache_bytes = 100 * block;
  request.num_blocks = 100;  // more than four sequences take
  EXPECT_EQ(plan_cache(spec, request).at(0).blocks, 100);
  for (const int64_t blocks : {int64_t{101}, int64_t{1000000000000}, INT64_MAX}) {
    request.num_blocks = blocks;
    const std::string message =
        error_of([&] { plan_cache(spec, request); }, Code::kResourceExhausted);
    EXPECT_NE(message.find(fmt::format("--num-blocks is {}, but at most 100 blocks", blocks)),
              std::string::npos)
        << message;
  }
}

// What "auto" is on so many devices of TPUs with so many GiB.
std::string settled_strategy(const std::string& config, int64_t devices, int64_t gib,
                             const std::string& strategy = "auto", int64_t step = 2048) {
  const std::string folder = std::string(TTPU_SOURCE_DIR) + "/tests/fixtures/configs/";
  EngineOptions options;
  options.dtype = DType::kBF16;
  options.parallel.strategy = strategy;
  options.max_num_batched_tokens = step;
  const EngineOptions result =
      settled(models::decoder_from_config(read_json(folder + config)), options, devices, gib << 30);
  return result.parallel.strategy;
}

TEST(Settled, ProjectionsOfAllHeadsWhereTheyTakeLittleOfWhatWeightsLeave) {
  EXPECT_EQ(settled_strategy("llama-3-8b.json", 4, 16), "ulysses");
  EXPECT_EQ(settled_strategy("llama-3-8b.json", 4, 32), "ulysses");
  EXPECT_EQ(settled_strategy("llama-3.1-70b.json", 8, 32), "auto") << "11 of 14 GiB that are left";
  EXPECT_EQ(settled_strategy("llama-3-8b.json", 4, 0), "auto") << "not a TPU";
  EXPECT_EQ(settled_strategy("llama-3-8b.json", 1, 32), "auto") << "one device";
  EXPECT_EQ(settled_strategy("llama-3-8b.json", 16, 16), "auto") << "fewer KV heads";
  EXPECT_EQ(settled_strategy("mixtral-8x7b.json", 4, 96), "expert_ulysses");
  EXPECT_EQ(settled_strategy("mixtral-8x7b.json", 4, 24), "auto") << "1.9 of 2.3 GiB that are left";
  EXPECT_EQ(settled_strategy("llama-3-8b.json", 4, 32, "auto", 1023), "auto") << "short steps";
  EXPECT_EQ(settled_strategy("llama-3-8b.json", 4, 32, "sequence"), "sequence");
}

TEST(Capacity, BlocksAreCountedAsTheDevicesHaveThem) {
  nn::DecoderSpec spec = tiny_spec();
  std::get<nn::AttentionSpec>(spec.layers[0].attention).head_dim = 128;
  const auto bytes = [&](DType dtype, kernels::Platform platform, int64_t devices) {
    ParallelOptions parallel;
    parallel.tensor_parallel_size = devices;
    parallel.strategy = "context";
    return block_bytes(spec.layers[0], 64, dtype, choose_layout(spec, parallel), platform);
  };
  const int64_t row = 2 * 2 * 128;  // keys and values, heads, size
  const auto cpu = kernels::Platform::kCpu, tpu = kernels::Platform::kTpu;
  EXPECT_EQ(bytes(DType::kBF16, cpu, 1), 64 * row * 2);
  EXPECT_EQ(bytes(DType::kBF16, tpu, 4), 64 * row * 2);
  EXPECT_EQ(bytes(DType::kS8, cpu, 1), 64 * 2 * 2 * 132) << "a scale behind each head";
  EXPECT_EQ(bytes(DType::kS8, tpu, 1), (16 + 1) * 4 * row) << "and one group of them a block";
  EXPECT_EQ(bytes(DType::kS8, tpu, 4), 2 * (8 + 1) * 4 * row) << "and half of a block";
}

TEST(Capacity, CacheTypesHaveTheNamesOfVllm) {
  EXPECT_EQ(cache_dtype_of("auto"), std::nullopt);
  EXPECT_EQ(cache_dtype_of("bfloat16"), DType::kBF16);
  EXPECT_EQ(cache_dtype_of("f32"), DType::kF32);
  EXPECT_EQ(cache_dtype_of("int8"), DType::kS8);
  EXPECT_EQ(cache_dtype_of("fp8"), DType::kF8E4M3FN);
  EXPECT_EQ(cache_dtype_of("fp8_e4m3"), DType::kF8E4M3FN);
  EXPECT_THROW(cache_dtype_of("fp8_e5m2"), Error);
}

}  // namespace
}  // namespace ttpu::engine
