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
  LayerResult result = std::visit(
      [&](const auto& spec) {
        return attention(context, spec, attention_input, cache, inputs, tables);
      },
      layer.attention);
  const ir::Value attended =
      scaled(norm(context, layer.post_attention_norm, result.output), layer.residual_scale);
  const auto feed = [&](ir::Value from) {
    return scaled(norm(context, layer.post_mlp_norm, feed_forward(context, layer, from, inputs)),
                  layer.residual_scale);
  };
  if (layer.parallel) {
    return {x + attended + feed(norm(context, layer.mlp_norm, x)), result.cache};
  }
  const auto [after, mlp_input] = add_norm(context, layer.mlp_norm, x, attended);
  return {after + feed(mlp_input), result.cache};
}

}  // namespace ttpu::nn
