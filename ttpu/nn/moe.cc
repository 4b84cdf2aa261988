#include "ttpu/nn/moe.h"

#include <limits>

#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"
#include "ttpu/parallel/collectives.h"

namespace ttpu::nn {
namespace {

struct Routing {
  ir::Value experts;  // [tokens, top_k] i32
  ir::Value weights;  // [tokens, top_k] f32
};

ir::Value softmax(ir::Value x) {
  const ir::Value shifted = ir::exponential(x - ir::reduce_max(x, {-1}, true));
  return shifted / ir::reduce_sum(shifted, {-1}, true);
}

// x [tokens, n], indices [tokens, k] -> [tokens, k], by a one-hot product.
ir::Value pick(ir::Value x, ir::Value indices) {
  ir::Function& function = x.function();
  const Dims dims = {x.dim(0), indices.dim(1), x.dim(1)};
  const ir::Value hot =
      ir::compare(ir::broadcast_to(ir::expand_dims(indices, 2), dims),
                  ir::iota(function, Shape(DType::kS32, dims), 2), ir::ComparisonDirection::kEq);
  const ir::Value spread = ir::broadcast_to(ir::expand_dims(x, 1), dims);
  return ir::reduce_sum(ir::select(hot, spread, ir::full(function, spread.shape(), 0)), {2});
}

// Scores of experts outside the best groups become `masked`.
ir::Value limit_to_groups(const MoeSpec& spec, ir::Value scores, double masked) {
  if (spec.groups <= 1) return scores;
  ir::Function& function = scores.function();
  const int64_t tokens = scores.dim(0);
  const int64_t size = spec.experts / spec.groups;
  const ir::Value grouped = ir::reshape(scores, {tokens, spec.groups, size});
  const ir::Value group_scores = spec.group_by_top2
                                     ? ir::reduce_sum(ir::top_k(grouped, 2).first, {2})
                                     : ir::reduce_max(grouped, {2});
  const ir::Value chosen = ir::top_k(group_scores, spec.top_groups).second;
  const Dims dims = {tokens, spec.top_groups, spec.groups};
  const ir::Value hot =
      ir::compare(ir::broadcast_to(ir::expand_dims(chosen, 2), dims),
                  ir::iota(function, Shape(DType::kS32, dims), 2), ir::ComparisonDirection::kEq);
  const ir::Value keep =
      ir::broadcast_in_dim(ir::reduce_or(hot, {1}), {tokens, spec.groups, size}, {0, 1});
  return ir::reshape(ir::select(keep, grouped, ir::full(function, grouped.shape(), masked)),
                     scores.dims());
}

Routing route(Context& context, const MoeSpec& spec, ir::Value x) {
  LinearSpec router{spec.router, spec.hidden, spec.experts, spec.router_bias, {"router", "embed"}};
  router.quantizable = false;
  const bool wide = spec.scoring == MoeSpec::Scoring::kSigmoid;
  ir::Value logits = linear(context, router, wide ? ir::convert(x, DType::kF32) : x);
  logits = ir::convert(logits, DType::kF32);
  if (spec.softmax_after_top_k) {
    const auto [best, experts] = ir::top_k(logits, spec.top_k);
    return {experts, softmax(best)};
  }
  const ir::Value scores =
      spec.scoring == MoeSpec::Scoring::kSigmoid ? ir::logistic(logits) : softmax(logits);
  ir::Value choice = scores;
  if (!spec.correction_bias.empty()) {
    choice = choice + ir::convert(context.tensor(spec.correction_bias, {spec.experts}, {"router"}),
                                  DType::kF32);
  }
  // V2 masks with zero, V3 (whose bias may be negative) with -inf.
  const double masked =
      spec.scoring == MoeSpec::Scoring::kSigmoid ? -std::numeric_limits<double>::infinity() : 0.0;
  const ir::Value experts = ir::top_k(limit_to_groups(spec, choice, masked), spec.top_k).second;
  ir::Value weights = pick(scores, experts);
  if (spec.normalize) {
    const double tiny = spec.scoring == MoeSpec::Scoring::kSigmoid ? 1e-20 : 0.0;
    weights = weights / (ir::reduce_sum(weights, {1}, true) + tiny);
  }
  if (spec.scaling != 1) weights = weights * spec.scaling;
  return {experts, weights};
}

// Every second entry of a [experts, 2n] bias, from `offset`.
ir::Value alternate(ir::Value bias, int64_t offset) {
  return ir::slice(bias, {0, offset}, bias.dims(), {1, 2});
}

ir::Value combine(const MoeSpec& spec, ir::Value gate, ir::Value up) {
  if (spec.combine == MoeSpec::Combine::kGated)
    return kernels::activate(spec.activation, gate) * up;
  const double limit = spec.swiglu_limit;
  const double infinity = std::numeric_limits<double>::infinity();
  const auto bounded = [](ir::Value v, double low, double high) {
    return ir::clamp(ir::scalar_like(v, low), v, ir::scalar_like(v, high));
  };
  gate = bounded(gate, -infinity, limit);
  up = bounded(up, -limit, limit);
  return (up + 1.0) * (gate * ir::logistic(gate * spec.swiglu_alpha));
}

// Of all experts' ids, those of the device's own experts from 0 on; others lie outside of them.
ir::Value own_ids(const Context& context, const parallel::Division& experts, int64_t count,
                  ir::Value ids) {
  if (experts.whole()) return ids;
  const ir::Value part = parallel::part_index(ids.function(), context.layout().mesh(), experts);
  const int64_t own = (count + experts.parts - 1) / experts.parts;
  return ids - ir::broadcast_to(part * static_cast<double>(own), ids.dims());
}

// What the device's experts, or its parts of all experts, give: a part of a sum over devices.
ir::Value run_experts(Context& context, const MoeSpec& spec, ir::Value x, const Routing& routing) {
  const int64_t tokens = x.dim(0);
  const int64_t rows = tokens * spec.top_k;
  const parallel::Division division = context.layout().division("experts");
  const ir::Value ids =
      own_ids(context, division, spec.experts, ir::reshape(routing.experts, {rows}));
  const ir::Value spread = ir::reshape(
      ir::broadcast_in_dim(x, {tokens, spec.top_k, spec.hidden}, {0, 2}), {rows, spec.hidden});
  const auto run = [&](WeightDecl decl, ir::Value input, std::optional<ir::Value> bias) {
    decl.quantizable = true;
    return kernels::expert_linear(context.target(), input, ids, context.matrix(std::move(decl)),
                                  bias);
  };
  std::optional<ir::Value> gate_bias;
  std::optional<ir::Value> up_bias;
  std::optional<ir::Value> down_bias;
  if (!spec.gate_up_bias.empty()) {
    WeightDecl decl;
    decl.names = {spec.gate_up_bias};
    decl.dims = {spec.experts, 2 * spec.intermediate};
    decl.axes = {"experts", "expert_mlp"};
    decl.units = {0, spec.intermediate};
    const ir::Value both = context.tensor(std::move(decl));
    gate_bias = alternate(both, 0);
    up_bias = alternate(both, 1);
  }
  if (!spec.down_bias.empty()) {
    down_bias = context.tensor(spec.down_bias, {spec.experts, spec.hidden}, {"experts", "embed"});
    const parallel::Division parts = context.layout().division("expert_mlp");
    if (!parts.whole()) {  // added by one of the devices
      const ir::Value part = parallel::part_index(x.function(), context.layout().mesh(), parts);
      const ir::Value first =
          ir::compare(part, ir::scalar_like(part, 0), ir::ComparisonDirection::kEq);
      down_bias = ir::select(ir::broadcast_to(first, down_bias->dims()), *down_bias,
                             ir::full(x.function(), down_bias->shape(), 0));
    }
  }
  const ir::Value inner =
      combine(spec, run(spec.gate, spread, gate_bias), run(spec.up, spread, up_bias));
  const ir::Value out = ir::convert(run(spec.down, inner, down_bias), DType::kF32);
  const ir::Value weighted =
      ir::reshape(out, {tokens, spec.top_k, spec.hidden}) * ir::expand_dims(routing.weights, 2);
  return ir::convert(ir::reduce_sum(weighted, {1}), x.dtype());
}

}  // namespace

ir::Value moe(Context& context, const MoeSpec& spec, ir::Value own) {
  const parallel::Layout& layout = context.layout();
  const parallel::Division experts = layout.division("experts");
  // Where replicas of the model share the experts, each sees the tokens of all.
  const parallel::Division within = without(layout.mesh(), experts, layout.division("batch"));
  const parallel::Division shared_by = without(layout.mesh(), experts, within);
  const ir::Value tokens = parallel::gather(all_tokens(context, own), 0, layout.mesh(), shared_by);
  const ir::Value partial = run_experts(context, spec, tokens, route(context, spec, tokens));
  const ir::Value routed =
      sum_tokens(context, parallel::sum_scatter(partial, 0, layout.mesh(), shared_by),
                 join(layout.mesh(), within, layout.division("expert_mlp")));
  if (spec.shared.up.empty()) return routed;
  ir::Value shared = mlp(context, spec.shared, own);
  if (!spec.shared_gate.empty()) {
    LinearSpec gate{spec.shared_gate, spec.hidden, 1, false, {"norm", "embed"}};
    gate.quantizable = false;
    shared = shared * ir::logistic(linear(context, gate, own));
  }
  return routed + shared;
}

}  // namespace ttpu::nn
