#include "ttpu/nn/layer.h"

#include <functional>

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

using RowsFunction = std::function<ir::Values(const ir::Values& rows)>;

// `function` of rows that do not depend on each other. Where the halves of a device's tokens travel
// a ring each its own way, it is computed of each alone: one sets out while the other is not ready.
ir::Values by_halves(const Context& context, const ir::Values& rows, const RowsFunction& function) {
  if (!context.ring()) return function(rows);
  ir::Values one_way, other_way;
  for (const ir::Value value : rows) {
    const auto [one, other] = parallel::Ring::halves(value);
    one_way.push_back(one);
    other_way.push_back(other);
  }
  const ir::Values first = function(one_way);
  const ir::Values second = function(other_way);
  return parallel::Ring::joined(first, second);
}

}  // namespace

LayerResult layer_step(Context& context, const LayerSpec& layer, ir::Value x, ir::Value cache,
                       const StepInputs& inputs, RotaryTables& tables) {
  const auto normed = [&](const NormSpec& spec, ir::Value rows) {
    return by_halves(context, {rows},
                     [&](const ir::Values& v) { return ir::Values{norm(context, spec, v[0])}; })[0];
  };
  const ir::Value attention_input = normed(layer.attention_norm, x);
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
    const ir::Value fed = feed_forward(context, layer, normed(layer.mlp_norm, x), inputs);
    const auto sum = [&](const ir::Values& v) -> ir::Values {
      return {v[0] + added(layer.post_attention_norm, v[1]) + added(layer.post_mlp_norm, v[2])};
    };
    return {by_halves(context, {x, attended.output, fed}, sum)[0], attended.cache};
  }
  const ir::Values after = by_halves(context, {x, attended.output}, [&](const ir::Values& v) {
    const kernels::AddNormResult result =
        add_norm(context, layer.mlp_norm, v[0], added(layer.post_attention_norm, v[1]));
    return ir::Values{result.sum, result.normed};
  });
  const ir::Value fed = feed_forward(context, layer, after[1], inputs);
  const auto sum = [&](const ir::Values& v) -> ir::Values {
    return {v[0] + added(layer.post_mlp_norm, v[1])};
  };
  return {by_halves(context, {after[0], fed}, sum)[0], attended.cache};
}

}  // namespace ttpu::nn
