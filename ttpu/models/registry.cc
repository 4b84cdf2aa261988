#include "ttpu/models/registry.h"

#include <algorithm>

#include <fmt/ranges.h>

#include "ttpu/base/edit_distance.h"
#include "ttpu/base/error.h"
#include "ttpu/models/families.h"

namespace ttpu::models {
namespace {

[[noreturn]] void fail_unknown(const std::string& model_type) {
  std::vector<std::string> names;
  for (const Family& family : families()) names.push_back(family.model_type);
  std::stable_sort(names.begin(), names.end(), [&](const std::string& a, const std::string& b) {
    return edit_distance(a, model_type) < edit_distance(b, model_type);
  });
  names.resize(std::min<size_t>(names.size(), 5));
  fail(Code::kUnimplemented,
       "[models] model_type '{}' is not supported; the nearest supported ones are {}. If its "
       "architecture is one of those, set that model_type in config.json",
       model_type, fmt::join(names, ", "));
}

}  // namespace

const std::vector<Family>& families() {
  static const std::vector<Family> kFamilies = {
      {"deepseek_v2", build_deepseek_v2},
      {"deepseek_v3", build_deepseek_v3},
      {"gemma", build_gemma},
      {"gemma2", build_gemma2},
      {"gemma3", build_gemma3},
      {"gemma3_text", build_gemma3},
      {"gpt2", build_gpt2},
      {"gpt_neox", build_gpt_neox},
      {"gpt_oss", build_gpt_oss},
      {"granite", build_granite},
      {"llama", build_llama},
      {"mistral", build_mistral},
      {"mixtral", build_mixtral},
      {"olmo2", build_olmo2},
      {"phi3", build_phi3},
      {"qwen2", build_qwen2},
      {"qwen2_moe", build_qwen2_moe},
      {"qwen3", build_qwen3},
      {"qwen3_moe", build_qwen3_moe},
      {"smollm3", build_smollm3},
      {"starcoder2", build_starcoder2},
  };
  return kFamilies;
}

nn::DecoderSpec decoder_from_config(const Json& config) {
  const JsonView view(config, "config.json");
  const std::string model_type = view.get<std::string>("model_type");
  for (const Family& family : families()) {
    if (family.model_type != model_type) continue;
    return family.build(view.has("text_config") ? view.child("text_config") : view);
  }
  fail_unknown(model_type);
}

}  // namespace ttpu::models
