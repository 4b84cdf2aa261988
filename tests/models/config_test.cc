// What config.json says and leaves out: defaults are transformers', and what is not built here is
// refused.
#include <filesystem>

#include <gtest/gtest.h>

#include "ttpu/base/error.h"
#include "ttpu/models/common.h"
#include "ttpu/models/registry.h"

namespace ttpu::models {
namespace {

const std::filesystem::path kFixtures = std::filesystem::path(TTPU_SOURCE_DIR) / "tests/fixtures";

Json fixture(const std::string& name) {
  return read_json(kFixtures / "models" / name / "config.json");
}

nn::DecoderSpec decoder_of(const std::string& name, const Json& changes) {
  Json config = fixture(name);
  config.update(changes);
  return decoder_from_config(config);
}

Json without(Json config, const std::vector<const char*>& fields) {
  for (const char* field : fields) config.erase(field);
  return config;
}

std::string refusal(const std::string& name, const Json& changes) {
  try {
    decoder_of(name, changes);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

std::vector<int64_t> windows(nn::DecoderSpec spec) {
  std::vector<int64_t> all;
  for (nn::LayerSpec& layer : spec.layers) {
    all.push_back(attention_of(layer).sliding_window.value_or(0));
  }
  return all;
}

TEST(Config, EveryPublishedSizeIsRead) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kFixtures / "configs")) {
    if (entry.path().extension() != ".json") continue;
    EXPECT_NO_THROW(decoder_from_config(read_json(entry.path()))) << entry.path();
    ++count;
  }
  EXPECT_GE(count, 27);
}

TEST(Config, GemmaThreeTakesWhatItsPublishedFileLeavesOut) {
  nn::DecoderSpec spec = decoder_from_config(read_json(kFixtures / "configs/gemma-3-27b.json"));
  EXPECT_EQ(spec.vocab, 262208);
  EXPECT_EQ(attention_of(spec.layers[0]).rope->theta, 10000);
  EXPECT_EQ(attention_of(spec.layers[5]).rope->theta, 1000000);
  EXPECT_EQ(attention_of(spec.layers[5]).rope->factor, 8);
  EXPECT_EQ(attention_of(spec.layers[0]).rope->type, "default");
}

TEST(Config, LeftOutAndNullAreNotTheSame) {
  const Json mistral = without(fixture("mistral"), {"sliding_window"});
  EXPECT_EQ(windows(decoder_from_config(mistral))[0], 4096);
  EXPECT_EQ(windows(decoder_of("mistral", {{"sliding_window", nullptr}}))[0], 0);
  const Json gemma = without(fixture("gemma2"), {"final_logit_softcapping"});
  EXPECT_EQ(decoder_from_config(gemma).logit_soft_cap, 30.0);
  EXPECT_FALSE(decoder_of("gemma2", {{"final_logit_softcapping", nullptr}}).logit_soft_cap);
}

TEST(Config, QwenThreeHasHeadsOf128WhenNothingIsSaid) {
  nn::DecoderSpec spec = decoder_from_config(without(fixture("qwen3"), {"head_dim"}));
  EXPECT_EQ(attention_of(spec.layers[0]).head_dim, 128);
  nn::DecoderSpec moe = decoder_from_config(without(fixture("qwen3_moe"), {"head_dim"}));
  EXPECT_EQ(attention_of(moe.layers[0]).head_dim, 8);  // hidden 32 over 4 heads
}

TEST(Config, WindowsOfQwenFollowTheRuleOfEachFamily) {
  const Json window = {
      {"use_sliding_window", true}, {"sliding_window", 8}, {"max_window_layers", 2}};
  const auto of = [&](const char* name, int64_t layers) {
    Json config = without(fixture(name), {"layer_types", "mlp_only_layers"});
    config.update(window);
    config["num_hidden_layers"] = layers;
    return windows(decoder_from_config(config));
  };
  using W = std::vector<int64_t>;
  EXPECT_EQ(of("qwen2", 4), (W{0, 0, 8, 8}));
  EXPECT_EQ(of("qwen3", 4), (W{0, 0, 8, 8}));
  EXPECT_EQ(of("qwen2_moe", 4), (W{8, 0, 0, 0}));
  EXPECT_EQ(of("qwen3_moe", 3), (W{8, 8, 8}));
}

TEST(Config, PhiThreeMeansLongropeWithYarn) {
  Json config = fixture("phi3_longrope");
  nn::DecoderSpec expected = decoder_from_config(config);
  config["rope_scaling"]["type"] = "yarn";
  config["rope_scaling"]["factor"] = 4.0;
  nn::RopeSpec rope = *attention_of(decoder_from_config(config).layers[0]).rope;
  rope.factor = 1;
  EXPECT_EQ(rope, *attention_of(expected.layers[0]).rope);
  EXPECT_NE(refusal("phi3_longrope", {{"rope_scaling", {{"type", "linear"}, {"factor", 2.0}}}})
                .find("longrope"),
            std::string::npos);
}

TEST(Config, ThePublishedNameOfTheHeadAndTheOneInGgufFilesAreBothFound) {
  const nn::DecoderSpec spec = decoder_of("gpt_neox", Json::object());
  EXPECT_EQ(spec.head.name, "embed_out");
  ASSERT_EQ(spec.name_prefixes.size(), 1U);
  EXPECT_EQ(spec.name_prefixes[0], (std::pair<std::string, std::string>("embed_out", "lm_head")));
}

TEST(Config, OldAndNewFormsOfNeoxTurnAlike) {
  const Json base = without(fixture("gpt_neox"), {"rope_scaling", "rotary_emb_base", "rotary_pct"});
  Json old_form = base;
  old_form["rotary_emb_base"] = 500;
  Json new_form = base;
  new_form["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 500.0}};
  nn::DecoderSpec expected = decoder_from_config(old_form);
  nn::DecoderSpec actual = decoder_from_config(new_form);
  EXPECT_EQ(*attention_of(actual.layers[0]).rope, *attention_of(expected.layers[0]).rope);
  EXPECT_EQ(attention_of(actual.layers[0]).rope->dim, 4);  // a quarter of 16
}

TEST(Config, TheOldFormOfRopeScalingHoldsWhereBothAreGiven) {
  nn::DecoderSpec spec =
      decoder_of("llama", {{"rope_scaling", {{"rope_type", "linear"}, {"factor", 4.0}}}});
  EXPECT_EQ(attention_of(spec.layers[0]).rope->type, "linear");
}

TEST(Config, GemmaOneAloneMeansTheTanhFormByGelu) {
  nn::DecoderSpec one = decoder_of("gemma", {{"hidden_act", "gelu"}});
  EXPECT_EQ(mlp_of(one.layers[0]).activation, kernels::Activation::kGeluTanh);
  nn::DecoderSpec two = decoder_of("gemma2", {{"hidden_activation", "gelu"}});
  EXPECT_EQ(mlp_of(two.layers[0]).activation, kernels::Activation::kGelu);
}

struct Refused {
  const char* name;
  const char* model;
  Json changes;
  const char* in_message;
};

class RefusedTest : public testing::TestWithParam<Refused> {};

TEST_P(RefusedTest, IsAnErrorThatNamesTheField) {
  const std::string message = refusal(GetParam().model, GetParam().changes);
  EXPECT_NE(message.find(GetParam().in_message), std::string::npos) << message;
}

INSTANTIATE_TEST_SUITE_P(
    Config, RefusedTest,
    testing::Values(
        Refused{"Activation", "llama", {{"hidden_act", "relu6"}}, "relu6"},
        Refused{"ClippedQkv", "olmo2", {{"clip_qkv", 8.0}}, "clip_qkv"},
        Refused{"Bidirectional",
                "gemma3_text",
                {{"use_bidirectional_attention", true}},
                "use_bidirectional_attention"},
        Refused{"CrossAttention", "gpt2", {{"add_cross_attention", true}}, "add_cross_attention"},
        Refused{"SoftCapElsewhere", "llama", {{"attn_logit_softcapping", 50.0}}, "softcapping"},
        Refused{
            "PartialRotary", "llama", {{"partial_rotary_factor", 0.5}}, "partial_rotary_factor"},
        Refused{"MixedWindows",
                "mistral",
                {{"layer_types", {"full_attention", "sliding_attention"}}},
                "layer_types"},
        Refused{"ChunkedAttention",
                "gemma2",
                {{"layer_types", {"full_attention", "chunked_attention"}}},
                "chunked_attention"},
        Refused{"Scoring", "deepseek_v3", {{"scoring_func", "softmax"}}, "scoring_func"},
        Refused{"TopK", "deepseek_v2", {{"topk_method", "noaux_tc"}}, "topk_method"},
        Refused{"Normalized", "deepseek_v2", {{"norm_topk_prob", true}}, "norm_topk_prob"},
        Refused{"SparseStep", "deepseek_v3", {{"moe_layer_freq", 2}}, "moe_layer_freq"},
        Refused{"ExpertsOfAToken",
                "mixtral",
                {{"num_experts_per_tok", 5}},
                "num_experts_per_tok of config.json is 5, expected 1 to its num_local_experts (4)"},
        Refused{"ExpertsOfATokenByAnotherName",
                "qwen2_moe",
                {{"num_experts_per_tok", 9}},
                "expected 1 to its num_experts (4)"},
        Refused{"ExpertsOfATokenOfGptOss",
                "gpt_oss",
                {{"num_experts_per_tok", 5}},
                "num_experts_per_tok"},
        Refused{"UnequalGroups",
                "deepseek_v3",
                {{"n_group", 3}},
                "n_group of config.json is 3, expected a number that divides its n_routed_experts "
                "(8)"},
        Refused{"GroupsOfAToken",
                "deepseek_v3",
                {{"topk_group", 99}},
                "topk_group of config.json is 99, expected 1 to its n_group (4)"},
        Refused{"GroupsOfOneExpert", "deepseek_v3", {{"n_group", 8}}, "n_group"},
        Refused{"TooFewExpertsInTheGroups",
                "deepseek_v2",
                {{"topk_group", 1}},
                "topk_group (1) of n_group (4) groups have 2 of its 8 n_routed_experts"},
        Refused{"RopeKind",
                "llama",
                {{"rope_scaling", {{"rope_type", "mrope"}, {"factor", 2.0}}}},
                "mrope"},
        Refused{
            "RopeWithoutFactor", "llama", {{"rope_scaling", {{"rope_type", "yarn"}}}}, "factor"},
        Refused{"FlatRopeOfGemma",
                "gemma3_text",
                {{"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 1e6}}}},
                "full_attention"}),
    [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace ttpu::models
