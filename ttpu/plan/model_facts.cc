#include "ttpu/plan/model_facts.h"

#include <algorithm>
#include <cmath>

#include "ttpu/plan/depth.h"

namespace ttpu::plan {
namespace {

double product(int64_t a, int64_t b) { return static_cast<double>(a) * static_cast<double>(b); }

double norm_params(const nn::NormSpec& norm) {
  if (norm.kind == nn::NormKind::kNone) return 0;
  return static_cast<double>(norm.dim) * (norm.bias ? 2 : 1);
}

double mlp_params(const nn::MlpSpec& mlp) {
  if (mlp.up.empty()) return 0;
  const bool gated = mlp.fused || !mlp.gate.empty();
  const double bias =
      mlp.bias ? static_cast<double>(mlp.intermediate * (gated ? 2 : 1) + mlp.hidden) : 0;
  return product(mlp.hidden, mlp.intermediate) * (gated ? 3 : 2) + bias;
}

ModelFacts::Attention attention_facts(const nn::AttentionSpec& spec, ModelFacts* facts) {
  const int64_t q = spec.heads * spec.head_dim;
  const int64_t kv = spec.kv_heads * spec.head_dim;
  facts->head_params += 2 * product(spec.hidden, q);
  facts->kv_params += 2 * product(spec.hidden, kv);
  if (spec.qkv_bias) facts->whole_params += static_cast<double>(q + 2 * kv);
  if (spec.o_bias) facts->whole_params += static_cast<double>(spec.hidden);
  if (!spec.sinks.empty()) facts->whole_params += static_cast<double>(spec.heads);
  facts->whole_params += norm_params(spec.q_norm) + norm_params(spec.k_norm);
  return {0, spec.heads, spec.kv_heads, 2 * kv, 4.0 * static_cast<double>(q), spec.sliding_window,
          q, q};
}

ModelFacts::Attention attention_facts(const nn::MlaSpec& spec, ModelFacts* facts) {
  const int64_t head = spec.qk_nope_head_dim + spec.qk_rope_head_dim;
  const int64_t q_in = spec.q_lora_rank > 0 ? spec.q_lora_rank : spec.hidden;
  const int64_t cached = spec.kv_lora_rank + spec.qk_rope_head_dim;
  facts->head_params +=
      product(q_in, spec.heads * head) +
      product(spec.kv_lora_rank, spec.heads * (spec.qk_nope_head_dim + spec.v_head_dim)) +
      product(spec.heads * spec.v_head_dim, spec.hidden);
  facts->whole_params += product(spec.hidden, cached) + static_cast<double>(spec.kv_lora_rank);
  if (spec.q_lora_rank > 0) {
    facts->whole_params +=
        product(spec.hidden, spec.q_lora_rank) + static_cast<double>(spec.q_lora_rank);
  }
  const double pair = 2 * product(spec.heads, cached) + 2 * product(spec.heads, spec.kv_lora_rank);
  return {0,
          spec.heads,
          0,
          cached,
          pair,
          std::nullopt,
          spec.heads * head,
          spec.heads * spec.v_head_dim};
}

void add_layer(const nn::LayerSpec& layer, ModelFacts* facts) {
  const ModelFacts::Attention one =
      std::visit([&](const auto& spec) { return attention_facts(spec, facts); }, layer.attention);
  const auto alike = [&](const ModelFacts::Attention& known) {
    return known.heads == one.heads && known.kv_heads == one.kv_heads &&
           known.cache_width == one.cache_width && known.window == one.window;
  };
  auto entry = std::find_if(facts->attention.begin(), facts->attention.end(), alike);
  if (entry == facts->attention.end()) entry = facts->attention.insert(entry, one);
  ++entry->layers;
  for (const nn::NormSpec* norm :
       {&layer.attention_norm, &layer.post_attention_norm, &layer.mlp_norm, &layer.post_mlp_norm}) {
    facts->whole_params += norm_params(*norm);
  }
  if (const auto* mlp = std::get_if<nn::MlpSpec>(&layer.mlp)) {
    facts->mlp_params += mlp_params(*mlp);
    facts->intermediate = std::max(facts->intermediate, mlp->intermediate);
    return;
  }
  const auto& moe = std::get<nn::MoeSpec>(layer.mlp);
  facts->expert_params +=
      static_cast<double>(moe.experts) * 3 * product(moe.hidden, moe.intermediate);
  facts->whole_params += product(moe.experts, moe.hidden);
  facts->mlp_params += mlp_params(moe.shared);
  facts->experts = moe.experts;
  facts->top_k = moe.top_k;
  ++facts->moe_layers;
  facts->intermediate = std::max(facts->intermediate, moe.intermediate * moe.top_k);
}

}  // namespace

double ModelFacts::params() const {
  return vocab_params + head_params + kv_params + mlp_params + expert_params + whole_params;
}

double ModelFacts::reached_experts(double tokens) const {
  if (experts == 0) return 0;
  const double each = static_cast<double>(top_k) / static_cast<double>(experts);
  return 1 - std::pow(1 - each, tokens);
}

double ModelFacts::active_params() const {
  const double share = experts == 0 ? 0 : static_cast<double>(top_k) / static_cast<double>(experts);
  return product(vocab, hidden) + head_params + kv_params + mlp_params + whole_params +
         expert_params * share;
}

ModelFacts facts_of(const nn::DecoderSpec& spec) {
  ModelFacts facts;
  facts.layers = static_cast<int64_t>(spec.layers.size());
  facts.stages = stages_of(spec);
  facts.hidden = spec.hidden;
  facts.vocab = spec.vocab;
  facts.max_positions = spec.max_positions;
  facts.vocab_params = product(spec.vocab, spec.hidden) * (spec.head.name.empty() ? 1 : 2);
  if (!spec.position_embedding.empty()) {
    facts.whole_params += product(spec.max_positions, spec.hidden);
  }
  facts.whole_params += norm_params(spec.final_norm);
  for (const nn::LayerSpec& layer : spec.layers) add_layer(layer, &facts);
  return facts;
}

}  // namespace ttpu::plan
