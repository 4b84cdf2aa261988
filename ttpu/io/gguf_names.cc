#include "ttpu/io/gguf_names.h"

#include <array>
#include <charconv>
#include <map>
#include <optional>
#include <set>

#include "ttpu/base/error.h"
#include "ttpu/io/composite.h"

namespace ttpu::io {
namespace {

constexpr int64_t kMaxExperts = 1 << 16;

using Names = std::map<std::string_view, std::string_view>;

// How one architecture's tensors are called and what its converter did to them. Names are without
// the layer and without ".weight" or ".bias"; a layer's own begin with "blk.".
struct Architecture {
  std::string_view model_type;
  Names names;  // on top of kCommon
  std::string_view layer = "model.layers.";
  bool permuted = false;                        // rotary rows of q and k are interleaved
  bool norms_plus_one = false;                  // norms are stored as 1 + w
  std::set<std::string_view> transposed = {};   // matrices stored as [out, in], wanted as [in, out]
  std::set<std::string_view> interleaved = {};  // fused q, k, v, wanted head by head
  std::string_view experts = "mlp.experts.";    // prefix of one expert's number
  std::array<std::string_view, 3> expert_parts = {"gate_proj", "up_proj", "down_proj"};
};

const Names& common_names() {
  static const Names kCommon = {
      {"token_embd", "model.embed_tokens"},
      {"output_norm", "model.norm"},
      {"output", "lm_head"},
      {"blk.attn_norm", "input_layernorm"},
      {"blk.attn_q", "self_attn.q_proj"},
      {"blk.attn_k", "self_attn.k_proj"},
      {"blk.attn_v", "self_attn.v_proj"},
      {"blk.attn_output", "self_attn.o_proj"},
      {"blk.attn_q_norm", "self_attn.q_norm"},
      {"blk.attn_k_norm", "self_attn.k_norm"},
      {"blk.ffn_norm", "post_attention_layernorm"},
      {"blk.ffn_gate", "mlp.gate_proj"},
      {"blk.ffn_up", "mlp.up_proj"},
      {"blk.ffn_down", "mlp.down_proj"},
      {"blk.ffn_gate_inp", "mlp.gate"},
  };
  return kCommon;
}

// Norms before and after both halves of a layer (Gemma 2 and 3).
const Names kFourNorms = {
    {"blk.post_attention_norm", "post_attention_layernorm"},
    {"blk.ffn_norm", "pre_feedforward_layernorm"},
    {"blk.post_ffw_norm", "post_feedforward_layernorm"},
};

Architecture gpt2() {
  return {.model_type = "gpt2",
          .names = {{"token_embd", "transformer.wte"},
                    {"position_embd", "transformer.wpe"},
                    {"output_norm", "transformer.ln_f"},
                    {"blk.attn_norm", "ln_1"},
                    {"blk.attn_qkv", "attn.c_attn"},
                    {"blk.attn_output", "attn.c_proj"},
                    {"blk.ffn_norm", "ln_2"},
                    {"blk.ffn_up", "mlp.c_fc"},
                    {"blk.ffn_down", "mlp.c_proj"}},
          .layer = "transformer.h.",
          .transposed = {"blk.attn_qkv", "blk.attn_output", "blk.ffn_up", "blk.ffn_down"}};
}

Architecture gpt_neox() {
  return {.model_type = "gpt_neox",
          .names = {{"token_embd", "gpt_neox.embed_in"},
                    {"output_norm", "gpt_neox.final_layer_norm"},
                    {"blk.attn_qkv", "attention.query_key_value"},
                    {"blk.attn_output", "attention.dense"},
                    {"blk.ffn_up", "mlp.dense_h_to_4h"},
                    {"blk.ffn_down", "mlp.dense_4h_to_h"}},
          .layer = "gpt_neox.layers.",
          .interleaved = {"blk.attn_qkv"}};
}

Architecture deepseek2() {
  return {.model_type = "deepseek_v2",
          .names = {{"blk.attn_q_a", "self_attn.q_a_proj"},
                    {"blk.attn_q_b", "self_attn.q_b_proj"},
                    {"blk.attn_q_a_norm", "self_attn.q_a_layernorm"},
                    {"blk.attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa"},
                    {"blk.attn_kv_a_norm", "self_attn.kv_a_layernorm"},
                    {"blk.attn_kv_b", "self_attn.kv_b_proj"},
                    {"blk.ffn_gate_shexp", "mlp.shared_experts.gate_proj"},
                    {"blk.ffn_up_shexp", "mlp.shared_experts.up_proj"},
                    {"blk.ffn_down_shexp", "mlp.shared_experts.down_proj"}}};
}

Architecture qwen2_moe() {
  return {.model_type = "qwen2_moe",
          .names = {{"blk.ffn_gate_inp_shexp", "mlp.shared_expert_gate"},
                    {"blk.ffn_gate_shexp", "mlp.shared_expert.gate_proj"},
                    {"blk.ffn_up_shexp", "mlp.shared_expert.up_proj"},
                    {"blk.ffn_down_shexp", "mlp.shared_expert.down_proj"}}};
}

// Architectures by general.architecture; "mixtral" stands for llama with experts. The names are
// those of the `gguf` package (constants.py), the transformations those of convert_hf_to_gguf.py.
const std::map<std::string_view, Architecture>& architectures() {
  static const std::map<std::string_view, Architecture> kArchitectures = {
      {"llama", {.model_type = "llama", .names = {}, .permuted = true}},
      {"mistral", {.model_type = "mistral", .names = {}, .permuted = true}},
      {"mixtral",
       {.model_type = "mixtral",
        .names = {{"blk.ffn_gate_inp", "block_sparse_moe.gate"}},
        .permuted = true,
        .experts = "block_sparse_moe.experts.",
        .expert_parts = {"w1", "w3", "w2"}}},
      {"qwen2", {.model_type = "qwen2", .names = {}}},
      {"qwen3", {.model_type = "qwen3", .names = {}}},
      {"qwen2moe", qwen2_moe()},
      {"qwen3moe", {.model_type = "qwen3_moe", .names = {}}},
      {"gemma", {.model_type = "gemma", .names = {}, .norms_plus_one = true}},
      {"gemma2", {.model_type = "gemma2", .names = kFourNorms, .norms_plus_one = true}},
      {"gemma3", {.model_type = "gemma3_text", .names = kFourNorms, .norms_plus_one = true}},
      {"phi3",
       {.model_type = "phi3",
        .names = {{"blk.attn_qkv", "self_attn.qkv_proj"}, {"blk.ffn_up", "mlp.gate_up_proj"}}}},
      {"gpt2", gpt2()},
      {"gptneox", gpt_neox()},
      {"olmo2",
       {.model_type = "olmo2",
        .names = {{"blk.post_attention_norm", "post_attention_layernorm"},
                  {"blk.post_ffw_norm", "post_feedforward_layernorm"}}}},
      {"granite", {.model_type = "granite", .names = {}, .permuted = true}},
      {"smollm3", {.model_type = "smollm3", .names = {}, .permuted = true}},
      {"starcoder2",
       {.model_type = "starcoder2",
        .names = {{"blk.ffn_up", "mlp.c_fc"}, {"blk.ffn_down", "mlp.c_proj"}}}},
      {"gpt-oss",
       {.model_type = "gpt_oss",
        .names = {{"blk.post_attention_norm", "post_attention_layernorm"},
                  {"blk.ffn_gate_inp", "mlp.router"}}}},
      {"deepseek2", deepseek2()},
  };
  return kArchitectures;
}

std::string key_of(const Gguf& gguf, std::string_view name) {
  return fmt::format("{}.{}", gguf.architecture(), name);
}

const Architecture& find_architecture(const Gguf& gguf) {
  std::string_view name = gguf.architecture();
  if (name == "llama" && gguf.get_int("llama.expert_count").value_or(0) > 0) name = "mixtral";
  const auto found = architectures().find(name);
  if (found != architectures().end()) return found->second;
  std::string known;
  for (const auto& [key, value] : architectures()) {
    if (key != "mixtral") known += fmt::format(" {}", key);
  }
  fail(Code::kUnimplemented,
       "[gguf] {} has the architecture '{}', which is not known here; known are:{}. Use the "
       "model's safetensors if its family is supported",
       gguf.what(), name, known);
}

// "blk.12.attn_q.weight" in its parts.
struct ParsedName {
  std::string key;     // "blk.attn_q"
  std::string layer;   // "12" or ""
  std::string expert;  // "3" in "blk.12.ffn_gate.3.weight" (old Mixtral files), or ""
  std::string suffix;  // ".weight", ".bias" or ""
};

bool is_number(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

ParsedName parse_name(std::string_view name) {
  ParsedName parsed;
  for (const std::string_view suffix : {".weight", ".bias"}) {
    if (!name.ends_with(suffix)) continue;
    parsed.suffix = suffix;
    name.remove_suffix(suffix.size());
    break;
  }
  if (name.starts_with("blk.")) {
    name.remove_prefix(4);
    const size_t dot = name.find('.');
    if (dot != std::string_view::npos && is_number(name.substr(0, dot))) {
      parsed.layer = name.substr(0, dot);
      name.remove_prefix(dot + 1);
    }
  }
  if (const size_t dot = name.rfind('.');
      dot != std::string_view::npos && is_number(name.substr(dot + 1))) {
    parsed.expert = name.substr(dot + 1);
    name = name.substr(0, dot);
  }
  parsed.key = parsed.layer.empty() ? std::string(name) : "blk." + std::string(name);
  return parsed;
}

// Tensors that llama.cpp keeps for itself; what they say is in the config.
bool is_internal(const ParsedName& name) {
  static const std::set<std::string_view> kInternal = {"rope_freqs",
                                                       "rope_factors_long",
                                                       "rope_factors_short",
                                                       "blk.rope_freqs",
                                                       "blk.attn_rot_embd",
                                                       "blk.attn_rope_freqs",
                                                       "blk.rope_factors_long",
                                                       "blk.rope_factors_short"};
  return kInternal.contains(name.key);
}

// Which part of an expert "blk.ffn_gate_exps" holds: 0 gate, 1 up, 2 down, -1 none.
int expert_part(std::string_view key) {
  if (key == "blk.ffn_gate_exps") return 0;
  if (key == "blk.ffn_up_exps") return 1;
  if (key == "blk.ffn_down_exps") return 2;
  return -1;
}

class Mapper {
 public:
  explicit Mapper(const Gguf& gguf) : gguf_(gguf), architecture_(find_architecture(gguf)) {
    heads_ = gguf.get_int(key_of(gguf, "attention.head_count")).value_or(0);
    kv_heads_ = gguf.get_int(key_of(gguf, "attention.head_count_kv")).value_or(heads_);
  }

  void map(const Tensor& stored, std::vector<Tensor>& out) {
    const ParsedName name = parse_name(stored.name);
    if (is_internal(name)) return;
    if (keep_part(stored, name)) return;
    if (const int part = expert_part(name.key); part >= 0)
      return map_experts(stored, name, part, out);
    Tensor tensor = stored;
    if (!name.expert.empty()) {
      const int part = expert_part(name.key + "_exps");
      if (part < 0) fail_unknown(stored);
      tensor.name = expert_name(name, part, name.expert);
    } else {
      tensor.name = full_name(stored, name);
      transform(tensor, name);
    }
    out.push_back(std::move(tensor));
  }

  // The tensors that are put together from parts; call when all parts have been given to map().
  void finish(std::vector<Tensor>& out) const {
    for (const auto& [name, parts] : parts_) {
      const bool pair = !name.ends_with("down_proj") && !name.ends_with("down_proj_bias");
      if (!parts[0] || (pair && !parts[1])) {
        const Tensor& other = parts[0] ? *parts[0] : *parts[1];
        fail(Code::kInvalidArgument,
             "[gguf] {} has '{}' without its other half, which '{}' needs; the file is incomplete",
             gguf_.what(), other.name, name);
      }
      if (architecture_.model_type == "deepseek_v2") {
        out.push_back(deepseek_kv_b(name, *parts[0], *parts[1]));
      } else {
        out.push_back(gpt_oss_experts(
            name, pair ? std::vector{*parts[0], *parts[1]} : std::vector{*parts[0]}));
      }
    }
  }

 private:
  // Whether the tensor is a part of one that transformers has whole; it is kept for finish().
  bool keep_part(const Tensor& stored, const ParsedName& name) {
    const auto keep = [&](std::string_view whole, size_t index) {
      parts_[fmt::format("{}{}.{}", architecture_.layer, name.layer, whole)][index] = stored;
      return true;
    };
    if (architecture_.model_type == "deepseek_v2" && name.suffix == ".weight") {
      if (name.key == "blk.attn_k_b") return keep("self_attn.kv_b_proj.weight", 0);
      if (name.key == "blk.attn_v_b") return keep("self_attn.kv_b_proj.weight", 1);
    }
    if (architecture_.model_type == "gpt_oss") {
      const bool bias = name.suffix == ".bias";
      const int part = expert_part(name.key);
      if (part == 0 || part == 1) {
        return keep(bias ? "mlp.experts.gate_up_proj_bias" : "mlp.experts.gate_up_proj",
                    static_cast<size_t>(part));
      }
      if (part == 2) return keep(bias ? "mlp.experts.down_proj_bias" : "mlp.experts.down_proj", 0);
    }
    return false;
  }

  [[noreturn]] void fail_unknown(const Tensor& stored) const {
    fail(Code::kInvalidArgument,
         "[gguf] tensor '{}' of {} has no place in a model of architecture '{}'; the file is of "
         "another or a newer kind, use the model's safetensors",
         stored.name, gguf_.what(), gguf_.architecture());
  }

  std::string full_name(const Tensor& stored, const ParsedName& name) const {
    if (architecture_.model_type == "gpt_oss" && name.key == "blk.attn_sinks") {
      return fmt::format("{}{}.self_attn.sinks", architecture_.layer, name.layer);
    }
    if (architecture_.model_type == "deepseek_v2" && name.key == "blk.exp_probs_b") {
      return fmt::format("{}{}.mlp.gate.e_score_correction_bias", architecture_.layer, name.layer);
    }
    auto found = architecture_.names.find(name.key);
    if (found == architecture_.names.end()) {
      found = common_names().find(name.key);
      if (found == common_names().end()) fail_unknown(stored);
    }
    if (name.layer.empty()) return std::string(found->second) + name.suffix;
    return fmt::format("{}{}.{}{}", architecture_.layer, name.layer, found->second, name.suffix);
  }

  std::string expert_name(const ParsedName& name, int part, std::string_view expert) const {
    return fmt::format("{}{}.{}{}.{}{}", architecture_.layer, name.layer, architecture_.experts,
                       expert, architecture_.expert_parts[static_cast<size_t>(part)], name.suffix);
  }

  void transform(Tensor& tensor, const ParsedName& name) const {
    if (architecture_.permuted && name.key == "blk.attn_q") tensor.transform.permute_heads = heads_;
    if (architecture_.permuted && name.key == "blk.attn_k") {
      tensor.transform.permute_heads = kv_heads_;
    }
    if (architecture_.interleaved.contains(name.key)) tensor.transform.interleave_heads = heads_;
    if (architecture_.norms_plus_one && name.suffix == ".weight" && name.key.ends_with("norm")) {
      tensor.transform.add = -1;
    }
    if (architecture_.transposed.contains(name.key) && tensor.dims.size() == 2) {
      std::swap(tensor.dims[0], tensor.dims[1]);
      tensor.transform.transpose = true;
    }
    if (name.key == "blk.ffn_gate_inp_shexp" && tensor.dims.size() == 1) {
      tensor.dims.insert(tensor.dims.begin(), 1);
    }
  }

  // One stacked tensor [experts, ...] becomes one per expert.
  void map_experts(const Tensor& stored, const ParsedName& name, int part,
                   std::vector<Tensor>& out) const {
    require(stored.dims.size() >= 2 && stored.dims[0] > 0 && stored.dims[0] <= kMaxExperts &&
                stored.bytes.size() % static_cast<size_t>(stored.dims[0]) == 0,
            "[gguf] tensor '{}' of {} has shape {}, expected one matrix per expert", stored.name,
            gguf_.what(), dims_to_string(stored.dims));
    const auto experts = static_cast<size_t>(stored.dims[0]);
    const size_t size = stored.bytes.size() / experts;
    for (size_t i = 0; i < experts; ++i) {
      Tensor tensor = stored;
      tensor.name = expert_name(name, part, std::to_string(i));
      tensor.dims.erase(tensor.dims.begin());
      tensor.bytes = stored.bytes.subspan(i * size, size);
      out.push_back(std::move(tensor));
    }
  }

  const Gguf& gguf_;
  const Architecture& architecture_;
  int64_t heads_ = 0;
  int64_t kv_heads_ = 0;
  std::map<std::string, std::array<std::optional<Tensor>, 2>> parts_;  // by the name of the whole
};

}  // namespace

std::vector<Tensor> transformers_tensors(const Gguf& head, const std::vector<Tensor>& tensors) {
  Mapper mapper(head);
  std::vector<Tensor> out;
  out.reserve(tensors.size());
  for (const Tensor& tensor : tensors) mapper.map(tensor, out);
  mapper.finish(out);
  return out;
}

std::vector<Tensor> transformers_tensors(const Gguf& gguf) {
  return transformers_tensors(gguf, gguf.tensors());
}

std::string model_type_of(const Gguf& gguf) {
  std::string type(find_architecture(gguf).model_type);
  // Gating by sigmoid (2) came with DeepSeek-V3.
  if (type == "deepseek_v2" && gguf.get_int("deepseek2.expert_gating_func").value_or(1) == 2) {
    return "deepseek_v3";
  }
  return type;
}

}  // namespace ttpu::io
