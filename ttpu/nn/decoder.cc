#include "ttpu/nn/decoder.h"

#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"

namespace ttpu::nn {
namespace {

// A number as the compute type rounds it.
double rounded(double value, DType dtype) {
  return dtype == DType::kBF16 ? f32_from_bf16(bf16_from_f32(static_cast<float>(value))) : value;
}

ir::Value scaled(ir::Value x, double factor) { return factor == 1 ? x : x * factor; }

ir::Value feed_forward(Context& context, const LayerSpec& layer, ir::Value x) {
  return std::visit(
      [&](const auto& spec) {
        if constexpr (std::is_same_v<std::decay_t<decltype(spec)>, MoeSpec>) {
          return moe(context, spec, x);
        } else {
          return mlp(context, spec, x);
        }
      },
      layer.mlp);
}

LayerResult layer_step(Context& context, const LayerSpec& layer, ir::Value x, ir::Value cache,
                       const StepInputs& inputs, RotaryTables& tables) {
  const ir::Value attention_input = norm(context, layer.attention_norm, x);
  LayerResult result = std::visit(
      [&](const auto& spec) {
        return attention(context, spec, attention_input, cache, inputs, tables);
      },
      layer.attention);
  const ir::Value attended = norm(context, layer.post_attention_norm, result.output);
  const auto feed = [&](ir::Value from) {
    return scaled(norm(context, layer.post_mlp_norm,
                       feed_forward(context, layer, norm(context, layer.mlp_norm, from))),
                  layer.residual_scale);
  };
  const ir::Value after = x + scaled(attended, layer.residual_scale);
  return {after + feed(layer.parallel ? x : after), result.cache};
}

ir::Value head(Context& context, const DecoderSpec& spec, ir::Value x) {
  if (!spec.head.name.empty()) return linear(context, spec.head, x, DType::kF32);
  const kernels::WeightOperand table =
      context.matrix(spec.embedding, spec.vocab, spec.hidden, {"vocab", "embed"});
  return kernels::linear(context.target(), x, table, std::nullopt, DType::kF32);
}

}  // namespace

Dims cache_dims(const LayerSpec& layer) {
  return std::visit([](const auto& spec) { return cache_dims(spec); }, layer.attention);
}

DecoderResult decoder(Context& context, const DecoderSpec& spec, const StepInputs& inputs,
                      const std::vector<ir::Value>& caches, ir::Value rows) {
  require(caches.size() == spec.layers.size(), "[decoder] {} caches for {} layers", caches.size(),
          spec.layers.size());
  RotaryTables tables(inputs.positions);
  ir::Value x = embedding(context, spec.embedding, spec.vocab, spec.hidden, inputs.tokens);
  x = scaled(x, rounded(spec.embedding_scale, context.compute()));
  if (!spec.position_embedding.empty()) {
    x = x + embedding(context, spec.position_embedding, spec.max_positions, spec.hidden,
                      inputs.positions);
  }
  DecoderResult result;
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const LayerResult step = layer_step(context, spec.layers[i], x, caches[i], inputs, tables);
    x = step.output;
    result.caches.push_back(step.cache);
  }
  x = norm(context, spec.final_norm, ir::take(x, rows, 0));
  ir::Value logits = scaled(head(context, spec, x), spec.logit_scale);
  if (spec.logit_soft_cap) {
    logits = ir::tanh(logits / *spec.logit_soft_cap) * *spec.logit_soft_cap;
  }
  result.logits = logits;
  return result;
}

}  // namespace ttpu::nn
