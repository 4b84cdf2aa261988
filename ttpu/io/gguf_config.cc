#include "ttpu/io/gguf_config.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <map>
#include <numbers>

#include "ttpu/base/error.h"
#include "ttpu/io/gguf_names.h"

namespace ttpu::io {
namespace {

constexpr int64_t kMaxLayers = 100'000;

// Metadata holds float32; the shortest decimal that means the same one is what the config said.
double shortest(double value) {
  const std::string text = fmt::format("{}", static_cast<float>(value));
  return std::strtod(text.c_str(), nullptr);
}

// Reads of "<architecture>.<name>".
class Metadata {
 public:
  explicit Metadata(const Gguf& gguf) : gguf_(gguf), prefix_(gguf.architecture()) {
    prefix_ += ".";
  }
  bool has(std::string_view name) const { return gguf_.has(key(name)); }
  std::optional<int64_t> get_int(std::string_view name) const { return gguf_.get_int(key(name)); }
  std::optional<double> get_float(std::string_view name) const {
    const auto value = gguf_.get_float(key(name));
    return value ? std::optional(shortest(*value)) : std::nullopt;
  }
  std::optional<bool> get_bool(std::string_view name) const { return gguf_.get_bool(key(name)); }
  std::optional<std::string_view> get_string(std::string_view name) const {
    return gguf_.get_string(key(name));
  }
  int64_t need_int(std::string_view name) const {
    const auto value = get_int(name);
    if (!value) fail_missing(name);
    return *value;
  }
  double need_float(std::string_view name) const {
    const auto value = get_float(name);
    if (!value) fail_missing(name);
    return *value;
  }
  const Gguf& gguf() const { return gguf_; }

 private:
  std::string key(std::string_view name) const { return prefix_ + std::string(name); }
  [[noreturn]] void fail_missing(std::string_view name) const {
    fail(Code::kInvalidArgument,
         "[gguf] {} has no metadata '{}'; the file is incomplete, convert the model again",
         gguf_.what(), key(name));
  }
  const Gguf& gguf_;
  std::string prefix_;
};

int64_t layers_of(const Metadata& meta) {
  const int64_t layers = meta.need_int("block_count");
  require(layers >= 0 && layers <= kMaxLayers, "[gguf] {} claims {} layers", meta.gguf().what(),
          layers);
  return layers;
}

Json layer_types(int64_t layers, const std::function<bool(int64_t)>& is_full) {
  Json types = Json::array();
  for (int64_t i = 0; i < layers; ++i) {
    types.push_back(is_full(i) ? "full_attention" : "sliding_attention");
  }
  return types;
}

void put_int(Json& config, const char* field, const Metadata& meta, std::string_view name) {
  if (const auto value = meta.get_int(name)) config[field] = *value;
}

void put_float(Json& config, const char* field, const Metadata& meta, std::string_view name) {
  if (const auto value = meta.get_float(name)) config[field] = *value;
}

std::vector<float> f32_tensor(const Gguf& gguf, std::string_view name) {
  const Tensor* tensor = gguf.find_tensor(name);
  if (tensor == nullptr) return {};
  require(tensor->dims.size() == 1 && tensor->encoding == Encoding::kDense,
          "[gguf] tensor '{}' of {} should be a plain vector", name, gguf.what());
  std::vector<float> values(static_cast<size_t>(tensor->num_elements()));
  copy_tensor(*tensor, DType::kF32, reinterpret_cast<std::byte*>(values.data()));
  return values;
}

Json shortest_list(const std::vector<float>& values) {
  Json list = Json::array();
  for (const float value : values) list.push_back(shortest(static_cast<double>(value)));
  return list;
}

// The divisor of one frequency in Llama 3's scaling (transformers' modeling_rope_utils.py).
double llama3_divisor(double inverse_frequency, double factor, double original_context) {
  constexpr double kLow = 1;
  constexpr double kHigh = 4;
  const double wavelength = 2 * std::numbers::pi / inverse_frequency;
  if (wavelength < original_context / kHigh) return 1;
  if (wavelength > original_context / kLow) return factor;
  const double smooth = (original_context / wavelength - kLow) / (kHigh - kLow);
  return 1 / ((1 - smooth) / factor + smooth);
}

// Llama 3's scaling is stored as one divisor per frequency (rope_freqs). The original factor is the
// largest; the other parameters are the same in every published model, which is checked.
void add_llama3_scaling(Json& rope, const Gguf& gguf, int64_t rotary, double theta) {
  constexpr double kOriginalContext = 8192;
  const std::vector<float> divisors = f32_tensor(gguf, "rope_freqs.weight");
  if (divisors.empty()) return;
  const auto factor = static_cast<double>(*std::max_element(divisors.begin(), divisors.end()));
  for (size_t i = 0; i < divisors.size(); ++i) {
    const double frequency =
        std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(rotary));
    const double expected = llama3_divisor(frequency, factor, kOriginalContext);
    if (!(std::fabs(expected - static_cast<double>(divisors[i])) <= 1e-3 * expected)) {
      fail(Code::kUnimplemented,
           "[gguf] {} scales its rotary frequencies in a way that is not Llama 3's; use the "
           "model's safetensors",
           gguf.what());
    }
  }
  rope["rope_type"] = "llama3";
  rope["factor"] = shortest(factor);
  rope["low_freq_factor"] = 1.0;
  rope["high_freq_factor"] = 4.0;
  rope["original_max_position_embeddings"] = 8192;
}

void add_longrope(Json& rope, const Metadata& meta) {
  const std::vector<float> longer = f32_tensor(meta.gguf(), "rope_factors_long.weight");
  const std::vector<float> shorter = f32_tensor(meta.gguf(), "rope_factors_short.weight");
  if (longer.empty() || shorter.empty()) return;
  rope["rope_type"] = "longrope";
  rope["long_factor"] = shortest_list(longer);
  rope["short_factor"] = shortest_list(shorter);
  put_int(rope, "original_max_position_embeddings", meta, "rope.scaling.original_context_length");
  put_float(rope, "attention_factor", meta, "rope.scaling.attn_factor");
}

Json rope_parameters(const Metadata& meta, int64_t rotary, double default_theta) {
  Json rope = Json::object();
  const double theta = meta.get_float("rope.freq_base").value_or(default_theta);
  rope["rope_theta"] = theta;
  rope["rope_type"] = "default";
  const std::string type(meta.get_string("rope.scaling.type").value_or("none"));
  if (type == "linear" || type == "yarn") {
    rope["rope_type"] = type;
    put_float(rope, "factor", meta, "rope.scaling.factor");
    if (type == "yarn") {
      put_int(rope, "original_max_position_embeddings", meta,
              "rope.scaling.original_context_length");
      put_float(rope, "beta_fast", meta, "rope.scaling.yarn_beta_fast");
      put_float(rope, "beta_slow", meta, "rope.scaling.yarn_beta_slow");
    }
  } else if (meta.has("rope.scale_linear")) {  // files of before 2024
    rope["rope_type"] = "linear";
    put_float(rope, "factor", meta, "rope.scale_linear");
  }
  add_longrope(rope, meta);
  add_llama3_scaling(rope, meta.gguf(), rotary, theta);
  return rope;
}

// The fields that nearly every family has, under the names that nearly every family uses.
Json common_config(const Metadata& meta, const std::string& model_type) {
  const Gguf& gguf = meta.gguf();
  Json config = Json::object();
  config["model_type"] = model_type;
  const int64_t heads = meta.need_int("attention.head_count");
  const int64_t hidden = meta.need_int("embedding_length");
  require(heads > 0 && hidden > 0, "[gguf] {} claims {} attention heads and a width of {}",
          gguf.what(), heads, hidden);
  config["hidden_size"] = hidden;
  config["intermediate_size"] = meta.get_int("feed_forward_length").value_or(0);
  config["num_hidden_layers"] = layers_of(meta);
  config["num_attention_heads"] = heads;
  config["num_key_value_heads"] = meta.get_int("attention.head_count_kv").value_or(heads);
  config["max_position_embeddings"] = meta.need_int("context_length");
  put_float(config, "rms_norm_eps", meta, "attention.layer_norm_rms_epsilon");
  put_float(config, "layer_norm_eps", meta, "attention.layer_norm_epsilon");
  const Tensor* embedding = gguf.find_tensor("token_embd.weight");
  if (embedding != nullptr && embedding->dims.size() == 2) {
    config["vocab_size"] = embedding->dims[0];
  } else {
    config["vocab_size"] = meta.need_int("vocab_size");
  }
  const int64_t head_dim = meta.get_int("attention.key_length")
                               .value_or(heads > 0 && hidden % heads == 0 ? hidden / heads : 0);
  config["head_dim"] = head_dim;
  const int64_t rotary = meta.get_int("rope.dimension_count").value_or(head_dim);
  config["rope_parameters"] = rope_parameters(meta, rotary, 10000.0);
  config["tie_word_embeddings"] = gguf.find_tensor("output.weight") == nullptr;
  for (const auto& [field, name] : std::initializer_list<std::pair<const char*, const char*>>{
           {"bos_token_id", "bos"}, {"eos_token_id", "eos"}, {"pad_token_id", "padding"}}) {
    if (const auto id = gguf.get_int(fmt::format("tokenizer.ggml.{}_token_id", name))) {
      config[field] = *id;
    }
  }
  return config;
}

void add_partial_rotary(Json& config, const Metadata& meta) {
  const auto head_dim = config["head_dim"].get<int64_t>();
  const int64_t rotary = meta.get_int("rope.dimension_count").value_or(head_dim);
  if (head_dim <= 0) return;
  const double factor = static_cast<double>(rotary) / static_cast<double>(head_dim);
  config["rope_parameters"]["partial_rotary_factor"] = factor;
}

void finish_llama(Json& config, const Metadata& meta) {
  const Gguf& gguf = meta.gguf();
  config["hidden_act"] = "silu";
  config["attention_bias"] = gguf.find_tensor("blk.0.attn_q.bias") != nullptr;
  config["mlp_bias"] = gguf.find_tensor("blk.0.ffn_gate.bias") != nullptr;
}

void finish_mixtral(Json& config, const Metadata& meta) {
  config["hidden_act"] = "silu";
  config["num_local_experts"] = meta.need_int("expert_count");
  config["num_experts_per_tok"] = meta.need_int("expert_used_count");
  put_int(config, "sliding_window", meta, "attention.sliding_window");
}

void finish_qwen(Json& config, const Metadata& meta) {
  config["hidden_act"] = "silu";
  config["attention_bias"] = meta.gguf().find_tensor("blk.0.attn_q.bias") != nullptr;
}

void finish_qwen_moe(Json& config, const Metadata& meta) {
  finish_qwen(config, meta);
  config["num_experts"] = meta.need_int("expert_count");
  config["num_experts_per_tok"] = meta.need_int("expert_used_count");
  put_int(config, "moe_intermediate_size", meta, "expert_feed_forward_length");
  put_int(config, "shared_expert_intermediate_size", meta, "expert_shared_feed_forward_length");
  config["decoder_sparse_step"] = 1;
  config["mlp_only_layers"] = Json::array();
  // llama.cpp normalizes the weights of Qwen 3's experts and not those of Qwen 2's.
  config["norm_topk_prob"] = config["model_type"] == "qwen3_moe";
}

void finish_gemma(Json& config, const Metadata&) {
  config["hidden_activation"] = "gelu_pytorch_tanh";
  config["tie_word_embeddings"] = true;
}

// The largest models of Gemma 2 and 3 scale queries by the width per head, not by the head's size.
int64_t gemma_query_scalar(const Json& config, int64_t largest_layers) {
  if (config["num_hidden_layers"] != largest_layers) return config["head_dim"].get<int64_t>();
  return config["hidden_size"].get<int64_t>() / config["num_attention_heads"].get<int64_t>();
}

void finish_gemma2(Json& config, const Metadata& meta) {
  finish_gemma(config, meta);
  config["query_pre_attn_scalar"] = gemma_query_scalar(config, 46);
  config["sliding_window"] = meta.get_int("attention.sliding_window").value_or(4096);
  config["attn_logit_softcapping"] = meta.get_float("attn_logit_softcapping").value_or(50.0);
  config["final_logit_softcapping"] = meta.get_float("final_logit_softcapping").value_or(30.0);
  config["layer_types"] = layer_types(config["num_hidden_layers"].get<int64_t>(),
                                      [](int64_t layer) { return layer % 2 == 1; });
}

void finish_gemma3(Json& config, const Metadata& meta) {
  finish_gemma(config, meta);
  config["query_pre_attn_scalar"] = gemma_query_scalar(config, 62);
  config["sliding_window"] = meta.need_int("attention.sliding_window");
  put_float(config, "final_logit_softcapping", meta, "final_logit_softcapping");
  const int64_t pattern = meta.get_int("attention.sliding_window_pattern").value_or(6);
  require(pattern > 0, "[gguf] {} has a sliding window pattern of {}", meta.gguf().what(), pattern);
  config["layer_types"] =
      layer_types(config["num_hidden_layers"].get<int64_t>(),
                  [pattern](int64_t layer) { return (layer + 1) % pattern == 0; });
  Json rope = Json::object();
  rope["full_attention"] = config["rope_parameters"];
  rope["sliding_attention"] = {
      {"rope_theta", meta.get_float("rope.freq_base_swa").value_or(10000.0)},
      {"rope_type", "default"}};
  config["rope_parameters"] = rope;
}

void finish_phi3(Json& config, const Metadata& meta) {
  config["hidden_act"] = "silu";
  add_partial_rotary(config, meta);
  put_int(config, "sliding_window", meta, "attention.sliding_window");
  config["original_max_position_embeddings"] =
      meta.get_int("rope.scaling.original_context_length")
          .value_or(config["max_position_embeddings"].get<int64_t>());
}

void finish_gpt2(Json& config, const Metadata&) {
  config["n_embd"] = config["hidden_size"];
  config["n_layer"] = config["num_hidden_layers"];
  config["n_head"] = config["num_attention_heads"];
  config["n_inner"] = config["intermediate_size"];
  config["n_positions"] = config["max_position_embeddings"];
  config["activation_function"] = "gelu_new";
  if (config.contains("layer_norm_eps")) config["layer_norm_epsilon"] = config["layer_norm_eps"];
  config.erase("rope_parameters");
}

void finish_gpt_neox(Json& config, const Metadata& meta) {
  config["hidden_act"] = "gelu";
  config["use_parallel_residual"] = meta.get_bool("use_parallel_residual").value_or(true);
  config["attention_bias"] = meta.gguf().find_tensor("blk.0.attn_qkv.bias") != nullptr;
  add_partial_rotary(config, meta);
}

void finish_granite(Json& config, const Metadata& meta) {
  finish_llama(config, meta);
  put_float(config, "attention_multiplier", meta, "attention.scale");
  put_float(config, "embedding_multiplier", meta, "embedding_scale");
  put_float(config, "residual_multiplier", meta, "residual_scale");
  put_float(config, "logits_scaling", meta, "logit_scale");
}

void finish_smollm3(Json& config, const Metadata& meta) {
  finish_llama(config, meta);
  // Every fourth layer goes without rotary embedding, as llama.cpp has it too.
  config["no_rope_layer_interval"] = 4;
  Json layers = Json::array();
  for (int64_t i = 0; i < config["num_hidden_layers"].get<int64_t>(); ++i) {
    layers.push_back((i + 1) % 4 != 0 ? 1 : 0);
  }
  config["no_rope_layers"] = layers;
}

void finish_starcoder2(Json& config, const Metadata& meta) {
  config["hidden_act"] = "gelu_pytorch_tanh";
  config["use_bias"] = meta.gguf().find_tensor("blk.0.attn_q.bias") != nullptr;
  if (config.contains("layer_norm_eps")) config["norm_epsilon"] = config["layer_norm_eps"];
  put_int(config, "sliding_window", meta, "attention.sliding_window");
}

void finish_gpt_oss(Json& config, const Metadata& meta) {
  config["hidden_act"] = "silu";
  config["attention_bias"] = true;
  config["num_local_experts"] = meta.need_int("expert_count");
  config["num_experts_per_tok"] = meta.need_int("expert_used_count");
  put_int(config, "intermediate_size", meta, "expert_feed_forward_length");
  config["sliding_window"] = meta.need_int("attention.sliding_window");
  config["swiglu_limit"] = 7.0;
  config["layer_types"] = layer_types(config["num_hidden_layers"].get<int64_t>(),
                                      [](int64_t layer) { return layer % 2 == 1; });
  config["rope_parameters"]["truncate"] = false;
}

void finish_deepseek(Json& config, const Metadata& meta) {
  config["hidden_act"] = "silu";
  const int64_t rotary = meta.need_int("rope.dimension_count");
  const int64_t key =
      meta.get_int("attention.key_length_mla").value_or(meta.need_int("attention.key_length"));
  require(rotary >= 0 && rotary <= key, "[gguf] {} claims {} rotary values in heads of {}",
          meta.gguf().what(), rotary, key);
  config["qk_rope_head_dim"] = rotary;
  config["qk_nope_head_dim"] = key - rotary;
  config["v_head_dim"] =
      meta.get_int("attention.value_length_mla").value_or(meta.need_int("attention.value_length"));
  config["head_dim"] = rotary;
  config["num_key_value_heads"] = config["num_attention_heads"];
  config["q_lora_rank"] = nullptr;
  put_int(config, "q_lora_rank", meta, "attention.q_lora_rank");
  config["kv_lora_rank"] = meta.need_int("attention.kv_lora_rank");
  config["first_k_dense_replace"] = meta.get_int("leading_dense_block_count").value_or(0);
  config["n_routed_experts"] = meta.need_int("expert_count");
  config["num_experts_per_tok"] = meta.need_int("expert_used_count");
  put_int(config, "n_shared_experts", meta, "expert_shared_count");
  put_int(config, "moe_intermediate_size", meta, "expert_feed_forward_length");
  config["n_group"] = meta.get_int("expert_group_count").value_or(1);
  config["topk_group"] = meta.get_int("expert_group_used_count").value_or(1);
  config["topk_method"] = config["n_group"] == 1 ? "greedy" : "group_limited_greedy";
  config["routed_scaling_factor"] = meta.get_float("expert_weights_scale").value_or(1.0);
  config["norm_topk_prob"] = meta.get_bool("expert_weights_norm").value_or(false);
  if (const auto multiplier = meta.get_float("rope.scaling.yarn_log_multiplier")) {
    // Stored as a tenth of mscale_all_dim, which published models also use as mscale.
    config["rope_parameters"]["mscale"] = shortest(*multiplier * 10);
    config["rope_parameters"]["mscale_all_dim"] = shortest(*multiplier * 10);
  }
}

using Finish = void (*)(Json&, const Metadata&);

Finish finisher(const std::string& model_type) {
  static const std::map<std::string, Finish> kFinishers = {
      {"llama", finish_llama},
      {"mistral", finish_llama},
      {"mixtral", finish_mixtral},
      {"qwen2", finish_qwen},
      {"qwen3", finish_qwen},
      {"qwen2_moe", finish_qwen_moe},
      {"qwen3_moe", finish_qwen_moe},
      {"gemma", finish_gemma},
      {"gemma2", finish_gemma2},
      {"gemma3_text", finish_gemma3},
      {"phi3", finish_phi3},
      {"gpt2", finish_gpt2},
      {"gpt_neox", finish_gpt_neox},
      {"olmo2", finish_llama},
      {"granite", finish_granite},
      {"smollm3", finish_smollm3},
      {"starcoder2", finish_starcoder2},
      {"gpt_oss", finish_gpt_oss},
      {"deepseek_v2", finish_deepseek},
      {"deepseek_v3", finish_deepseek},
  };
  return kFinishers.at(model_type);
}

}  // namespace

Json gguf_config(const Gguf& gguf) {
  const std::string model_type = model_type_of(gguf);
  const Metadata meta(gguf);
  Json config = common_config(meta, model_type);
  finisher(model_type)(config, meta);
  return config;
}

Json gguf_generation_config(const Gguf& gguf) {
  Json config = Json::object();
  if (const auto id = gguf.get_int("tokenizer.ggml.bos_token_id")) config["bos_token_id"] = *id;
  Json ends = Json::array();
  for (const char* name : {"eos", "eot", "eom"}) {
    const auto id = gguf.get_int(fmt::format("tokenizer.ggml.{}_token_id", name));
    if (id && std::find(ends.begin(), ends.end(), Json(*id)) == ends.end()) ends.push_back(*id);
  }
  if (ends.size() == 1) {
    config["eos_token_id"] = ends[0];
  } else if (!ends.empty()) {
    config["eos_token_id"] = ends;
  }
  if (const auto id = gguf.get_int("tokenizer.ggml.padding_token_id")) {
    config["pad_token_id"] = *id;
  }
  return config;
}

std::string gguf_chat_template(const Gguf& gguf) {
  return std::string(gguf.get_string("tokenizer.chat_template").value_or(""));
}

}  // namespace ttpu::io
