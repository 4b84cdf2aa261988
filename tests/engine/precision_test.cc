// With --dtype f32 products are products of f32 on every platform: by default a GPU would multiply
// as TF32, and a TPU as bf16.
#include <filesystem>
#include <sstream>

#include <gtest/gtest.h>

#include "ttpu/engine/engine_plan.h"
#include "ttpu/engine/weight_loader.h"
#include "ttpu/models/registry.h"

namespace ttpu::engine {
namespace {

std::string step_of(const std::filesystem::path& model) {
  const Json config = read_json(model / "config.json");
  const nn::DecoderSpec spec = models::decoder_from_config(config);
  EngineOptions options;
  options.dtype = DType::kF32;
  options.max_model_len = 32;
  options.max_num_seqs = 2;
  options.max_num_batched_tokens = 16;
  kernels::Target target;
  target.platform = kernels::Platform::kCuda;
  const EnginePlan plan = plan_engine(spec, options, int64_t{1} << 30, 0, target.platform);
  return build_engine_program(spec, plan.shape, plan.buckets.back(), target, options.dtype,
                              format_without_weights({options.dtype}, config), plan.layout)
      .module->to_string();
}

TEST(Precision, NoProductOfF32IsLeftToThePlatform) {
  int64_t products = 0;
  for (const auto& entry : std::filesystem::directory_iterator(
           std::filesystem::path(TTPU_SOURCE_DIR) / "tests/fixtures/models")) {
    if (!std::filesystem::exists(entry.path() / "config.json")) continue;
    std::istringstream text(step_of(entry.path()));
    for (std::string line; std::getline(text, line);) {
      const size_t types = line.rfind(" : (");
      if (line.find("stablehlo.dot_general") == std::string::npos) continue;
      ASSERT_NE(types, std::string::npos) << line;
      if (line.find("xf32>", types) > line.find(" -> ", types)) continue;  // of other numbers
      ++products;
      EXPECT_NE(line.find("precision = [HIGHEST, HIGHEST]"), std::string::npos)
          << entry.path().filename() << ": " << line;
    }
  }
  EXPECT_GT(products, 500);
}

}  // namespace
}  // namespace ttpu::engine
