#include "ttpu/nn/moe.h"

#include <limits>

#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"
#include "ttpu/kernels/linear/expert_rows.h"
#include "ttpu/nn/expert_dispatch.h"
#include "ttpu/parallel/collectives.h"

namespace ttpu::nn {
namespace {

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
  if (spec.router_in_f32) x = ir::convert(x, DType::kF32);
  const ir::Value logits = ir::convert(linear(context, router, x), DType::kF32);
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

// What a device has of the experts' matrices and biases.
struct ExpertOperands {
  kernels::ExpertProduct gate, up, down;
};

ExpertOperands expert_operands(Context& context, const MoeSpec& spec) {
  const auto matrix = [&](WeightDecl decl) {
    decl.quantizable = true;
    return context.matrix(std::move(decl));
  };
  ExpertOperands operands;
  operands.gate.weight = matrix(spec.gate);
  operands.up.weight = matrix(spec.up);
  operands.down.weight = matrix(spec.down);
  if (!spec.gate_up_bias.empty()) {
    WeightDecl decl;
    decl.names = {spec.gate_up_bias};
    decl.dims = {spec.experts, 2 * spec.intermediate};
    decl.axes = {"experts", "expert_mlp"};
    decl.units = {0, spec.intermediate};
    const ir::Value both = context.tensor(std::move(decl));
    operands.gate.bias = alternate(both, 0);
    operands.up.bias = alternate(both, 1);
  }
  if (spec.down_bias.empty()) return operands;
  ir::Value bias =
      context.tensor(spec.down_bias, {spec.experts, spec.hidden}, {"experts", "embed"});
  const parallel::Division parts = context.layout().division("expert_mlp");
  if (!parts.whole()) {  // added by one of the devices
    const ir::Value part = parallel::part_index(bias.function(), context.layout().mesh(), parts);
    const ir::Value first = ir::compare(part, 0, ir::ComparisonDirection::kEq);
    bias = ir::select(ir::broadcast_to(first, bias.dims()), bias, ir::full_like(bias, 0));
  }
  operands.down.bias = bias;
  return operands;
}

// What the device's experts, or its parts of all experts, give for rows.
Experts experts_of(Context& context, const MoeSpec& spec, bool training) {
  kernels::Target target = context.target();
  if (training) target.tpu = nullptr;  // the kernel knows no gradient
  return [target, spec, operands = expert_operands(context, spec)](ir::Value x, ir::Value ids,
                                                                   bool sorted) {
    const auto& [gate, up, down] = operands;
    const kernels::ExpertRows rows(target, ids, x.dtype(), {gate, up, down}, sorted);
    const ir::Value own = rows.ordered(x);
    const ir::Value inner = combine(spec, rows.linear(own, gate), rows.linear(own, up));
    return ir::convert(rows.restored(rows.linear(inner, down)), DType::kF32);
  };
}

// Tokens from cu_q_lens[distribution[2]] on are padding, which chooses no expert.
Routing without_padding(const Context& context, const ExpertParts& parts, const Routing& routing,
                        const kernels::RaggedBatch& batch) {
  ir::Function& function = routing.experts.function();
  const Dims& dims = routing.experts.dims();
  const ir::Value sequences = ir::reshape(ir::slice(batch.distribution, {2}, {3}), {});
  const ir::Value count = ir::reshape(ir::dynamic_slice(batch.cu_q_lens, {sequences}, {1}), {});
  const ir::Value part = parallel::part_index(function, parts.mesh, context.tokens());
  const ir::Value left = count - part * static_cast<double>(dims[0]);
  const ir::Value known = ir::compare(ir::iota(function, Shape(DType::kS32, dims), 0),
                                      ir::broadcast_to(left, dims), ir::ComparisonDirection::kLt);
  const ir::Value none =
      ir::full(function, routing.experts.shape(), static_cast<double>(parts.none()));
  return {ir::select(known, routing.experts, none), routing.weights};
}

// How many tokens a device sends each other one at once, where each has tokens of its own and an
// all-to-all of them is shorter than bringing all together.
std::optional<int64_t> traded_tokens(const Context& context, const MoeSpec& spec, int64_t tokens) {
  const parallel::Layout& layout = context.layout();
  const parallel::Mesh& mesh = layout.mesh();
  const parallel::Division experts = layout.division("experts");
  const parallel::Division own = join(mesh, layout.division("batch"), context.tokens());
  if (experts.whole() || !without(mesh, experts, own).whole()) return std::nullopt;
  if (!layout.division("expert_mlp").whole() || tokens < context.least_tokens()) {
    return std::nullopt;
  }
  const int64_t size = round_size(tokens_for_each(tokens, spec.top_k, experts.parts), tokens);
  if (!all_to_all_is_shorter(size, tokens, experts.parts)) return std::nullopt;
  return size;
}

// The experts' sum for the device's part of the tokens.
ir::Value routed_experts(Context& context, const MoeSpec& spec, ir::Value own,
                         const kernels::RaggedBatch& batch) {
  const parallel::Layout& layout = context.layout();
  const parallel::Mesh& mesh = layout.mesh();
  const parallel::Division experts = layout.division("experts");
  Routing own_routing = route(context, spec, own);
  const ExpertParts parts{mesh, experts, (spec.experts + experts.parts - 1) / experts.parts,
                          experts_of(context, spec, !batch.kv_lens)};
  if (!experts.whole()) own_routing = without_padding(context, parts, own_routing, batch);
  if (const std::optional<int64_t> size = traded_tokens(context, spec, own.dim(0))) {
    return sum_by_all_to_all(parts, own, own_routing, *size);
  }
  // Where replicas of the model share the experts, each sees the tokens of all.
  const parallel::Division within = without(mesh, experts, layout.division("batch"));
  const parallel::Division shared_by = without(mesh, experts, within);
  const auto all = [&](ir::Value x) {
    return parallel::gather(all_tokens(context, x), 0, mesh, shared_by);
  };
  const bool alone = context.tokens().whole() && shared_by.whole();
  const ir::Value x = all(own);
  const Routing routing = alone ? own_routing : unpacked(all(packed(own_routing)));
  const int64_t rows = x.dim(0) * spec.top_k;
  const double expected = static_cast<double>(rows) / static_cast<double>(experts.parts);
  const bool few = rows < context.least_tokens();
  const int64_t size = experts.whole() || few ? rows : round_size(expected, rows);
  return sum_tokens(
      context,
      parallel::sum_scatter(sum_of_own_experts(parts, x, routing, size), 0, mesh, shared_by),
      join(mesh, within, layout.division("expert_mlp")));
}

}  // namespace

ir::Value moe(Context& context, const MoeSpec& spec, ir::Value own,
              const kernels::RaggedBatch& batch) {
  const ir::Value routed = routed_experts(context, spec, own, batch);
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
