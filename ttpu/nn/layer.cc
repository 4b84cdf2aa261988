#include "ttpu/nn/layer.h"

#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"

namespace ttpu::nn {
namespace {

ir::Value scaled(ir::Value x, double factor) { return factor == 1 ? x : x * factor; }

ir::Value feed_forward(Context& context, const LayerSpec& layer, ir::Value own,
                       const StepInputs& inputs) {
  return std::visit(
      [&](const auto& spec) {
        if constexpr (std::is_same_v<std::decay_t<decltype(spec)>, MoeSpec>) {
          return moe(context, spec, own, inputs.batch);
        } else {
          return mlp(context, spec, own);
        }
      },
      layer.mlp);
}

}  // namespace

LayerResult layer_step(Context& context, const LayerSpec& layer, ir::Value x, ir::Value cache,
                       const StepInputs& inputs, RotaryTables& tables) {
  const ir::Value attention_input = norm(context, layer.attention_norm, x);
  const LayerResult attended = std::visit(
      [&](const auto& spec) {
        return attention(context, spec, attention_input, cache, inputs, tables);
      },
      layer.attention);
  // What a block adds to the residual sum.
  const auto added = [&](const NormSpec& post, ir::Value rows) {
    return scaled(norm(context, post, rows), layer.residual_scale);
  };
  if (layer.parallel) {
    const ir::Value fed = feed_forward(context, layer, norm(context, layer.mlp_norm, x), inputs);
    const ir::Value sum = x + added(layer.post_attention_norm, attended.output);
    return {sum + added(layer.post_mlp_norm, fed), attended.cache};
  }
  const kernels::AddNormResult after =
      add_norm(context, layer.mlp_norm, x, added(layer.post_attention_norm, attended.output));
  const ir::Value fed = feed_forward(context, layer, after.normed, inputs);
  return {after.sum + added(layer.post_mlp_norm, fed), attended.cache};
}

}  // namespace ttpu::nn
