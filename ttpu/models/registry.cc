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

// Fields that change what other models compute, and the families that read them.
struct Feature {
  const char* field;
  std::vector<const char*> families;
};

const std::vector<Feature>& features() {
  static const std::vector<const char*> kGemmas = {"gemma2", "gemma3", "gemma3_text"};
  static const std::vector<Feature> kFeatures = {
      {"add_cross_attention", {}},
      {"alibi", {}},
      {"attention_chunk_size", {}},
      {"attention_multiplier", {"granite"}},
      {"attn_logit_softcapping", kGemmas},
      {"clip_qkv", {}},
      {"embedding_multiplier", {"granite"}},
      {"final_logit_softcapping", kGemmas},
      {"is_encoder_decoder", {}},
      {"logits_scaling", {"granite"}},
      {"moe_layer_freq", {}},
      {"qk_layernorm", {}},
      {"residual_multiplier", {"granite"}},
      {"use_bidirectional_attention", {}},
      {"use_qk_norm", {}},
  };
  return kFeatures;
}

// Absent, null, false, no times one, an empty list: as if the field were not there.
bool is_neutral(const Json& value) {
  if (value.is_boolean()) return !value.get<bool>();
  if (value.is_number()) return value.get<double>() == 1;
  return value.empty();
}

void check_supported(const std::string& model_type, const JsonView& config) {
  for (const Feature& feature : features()) {
    if (!config.has(feature.field)) continue;
    const Json& value = config.json().at(feature.field);
    const auto reads = [&](const char* family) { return model_type == family; };
    if (is_neutral(value) || std::ranges::any_of(feature.families, reads)) continue;
    fail(Code::kUnimplemented,
         "[config] {} has '{}': {}, which the family {} does not have here; the answers would be "
         "wrong. Remove the field if the model was trained without it",
         config.what(), feature.field, value.dump(), model_type);
  }
}

void check_nested(const JsonView& whole, const JsonView& text) {
  const auto tied = [](const JsonView& view) {
    return view.get_optional<bool>("tie_word_embeddings");
  };
  require(!tied(whole) || !tied(text) || tied(whole) == tied(text),
          "[config] tie_word_embeddings is {} in {} and {} in {}; make them agree", *tied(whole),
          whole.what(), *tied(text), text.what());
}

// Numbers of experts that no router can choose from are refused here, in the words of config.json:
// programs would fail in terms of tensors.
void check_experts(const JsonView& config, const nn::DecoderSpec& spec) {
  const char* const counted = config.has("n_routed_experts") ? "n_routed_experts"
                              : config.has("num_experts")    ? "num_experts"
                                                             : "num_local_experts";
  for (const nn::LayerSpec& layer : spec.layers) {
    const auto* moe = std::get_if<nn::MoeSpec>(&layer.mlp);
    if (moe == nullptr) continue;
    require(moe->top_k >= 1 && moe->top_k <= moe->experts,
            "[config] num_experts_per_tok of {} is {}, expected 1 to its {} ({})", config.what(),
            moe->top_k, counted, moe->experts);
    require(moe->groups >= 1 && moe->experts % moe->groups == 0,
            "[config] n_group of {} is {}, expected a number that divides its {} ({})",
            config.what(), moe->groups, counted, moe->experts);
    require(moe->top_groups >= 1 && moe->top_groups <= moe->groups,
            "[config] topk_group of {} is {}, expected 1 to its n_group ({})", config.what(),
            moe->top_groups, moe->groups);
    const int64_t size = moe->experts / moe->groups;
    require(moe->groups == 1 || !moe->group_by_top2 || size >= 2,
            "[config] n_group of {} is {}, which leaves one of its {} {} to a group; a group is "
            "chosen by its two best, lower n_group",
            config.what(), moe->groups, moe->experts, counted);
    require(moe->top_k <= size * moe->top_groups,
            "[config] num_experts_per_tok of {} is {}, but its topk_group ({}) of n_group ({}) "
            "groups have {} of its {} {}; lower num_experts_per_tok or raise topk_group",
            config.what(), moe->top_k, moe->top_groups, moe->groups, size * moe->top_groups,
            moe->experts, counted);
  }
}

Json with_defaults(const JsonView& given, const char* defaults) {
  Json full = given.json();
  const Json missing = parse_json(defaults, "the defaults of a family");
  for (const auto& [field, value] : missing.items()) {
    if (!full.contains(field)) full[field] = value;
  }
  return full;
}

}  // namespace

const std::vector<Family>& families() {
  static const std::vector<Family> kFamilies = {
      {"deepseek_v2", build_deepseek_v2, kDeepseekV2Defaults},
      {"deepseek_v3", build_deepseek_v3, kDeepseekV3Defaults},
      {"gemma", build_gemma, kGemmaDefaults},
      {"gemma2", build_gemma2, kGemma2Defaults},
      {"gemma3", build_gemma3, kGemma3Defaults},
      {"gemma3_text", build_gemma3, kGemma3Defaults},
      {"gpt2", build_gpt2, kGpt2Defaults},
      {"gpt_neox", build_gpt_neox, kGptNeoxDefaults},
      {"gpt_oss", build_gpt_oss, kGptOssDefaults},
      {"granite", build_granite, kGraniteDefaults},
      {"llama", build_llama, kLlamaDefaults},
      {"mistral", build_mistral, kMistralDefaults},
      {"mixtral", build_mixtral, kMixtralDefaults},
      {"olmo2", build_olmo2, kOlmo2Defaults},
      {"phi3", build_phi3, kPhi3Defaults},
      {"qwen2", build_qwen2, kQwen2Defaults},
      {"qwen2_moe", build_qwen2_moe, kQwen2MoeDefaults},
      {"qwen3", build_qwen3, kQwen3Defaults},
      {"qwen3_moe", build_qwen3_moe, kQwen3MoeDefaults},
      {"seed_oss", build_seed_oss, kSeedOssDefaults},
      {"smollm3", build_smollm3, kSmollm3Defaults},
      {"starcoder2", build_starcoder2, kStarcoder2Defaults},
  };
  return kFamilies;
}

nn::DecoderSpec decoder_from_config(const Json& config) {
  const JsonView whole(config, "config.json");
  const std::string model_type = whole.get<std::string>("model_type");
  for (const Family& family : families()) {
    if (family.model_type != model_type) continue;
    const JsonView given = whole.has("text_config") ? whole.child("text_config") : whole;
    check_nested(whole, given);
    check_supported(model_type, given);
    const Json full = with_defaults(given, family.defaults);
    const JsonView view(full, given.what());
    nn::DecoderSpec spec = family.build(view);
    check_experts(view, spec);
    return spec;
  }
  fail_unknown(model_type);
}

}  // namespace ttpu::models
