#include "ttpu/nn/layers.h"

#include <functional>

#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"
#include "ttpu/parallel/collectives.h"

namespace ttpu::nn {

kernels::WeightOperand linear_weight(Context& context, const LinearSpec& spec) {
  WeightDecl decl;
  decl.names = {spec.name + ".weight"};
  decl.dims = {spec.out, spec.in};
  decl.axes = spec.axes;
  decl.transposed = spec.transposed;
  decl.units = spec.units;
  decl.segments = spec.segments;
  decl.quantizable = spec.quantizable;
  decl.ring = spec.ring;
  decl.places = spec.places;
  return context.matrix(std::move(decl));
}

std::optional<ir::Value> linear_bias(Context& context, const LinearSpec& spec) {
  if (!spec.bias) return std::nullopt;
  WeightDecl decl;
  decl.names = {spec.name + ".bias"};
  decl.dims = {spec.out};
  if (!spec.axes.empty()) decl.axes = {spec.axes[0]};
  if (!spec.units.empty()) decl.units = {spec.units[0]};
  decl.segments = spec.segments;
  decl.ring = spec.ring;
  decl.places = spec.places;
  return context.tensor(std::move(decl));
}

ir::Value linear(Context& context, const LinearSpec& spec, const kernels::Rows& x,
                 std::optional<DType> result) {
  return kernels::linear(context.target(), x, linear_weight(context, spec),
                         linear_bias(context, spec), result);
}

namespace {

// How the columns of a weight are divided.
parallel::Division columns_of(const Context& context, const LinearSpec& spec) {
  const int64_t units = spec.units.size() > 1 ? spec.units[1] : 0;
  return units > 0 ? context.layout().division(spec.axes.at(1), units)
                   : context.layout().division(spec.axes.at(1));
}

bool goes_round(const Context& context, const LinearSpec& spec) {
  return context.ring() && columns_of(context, spec) == context.tokens();
}

}  // namespace

ir::Value with_bias(Context& context, const LinearSpec& spec, ir::Value sum) {
  const std::optional<ir::Value> bias = linear_bias(context, spec);
  return bias ? sum + ir::convert(*bias, sum.dtype()) : sum;
}

ir::Value linear_sum(Context& context, const LinearSpec& spec, const kernels::Rows& x) {
  const parallel::Division division = columns_of(context, spec);
  if (division.whole()) return own_tokens(context, linear(context, spec, x));
  const kernels::WeightOperand weight = linear_weight(context, spec);
  const auto partial = [&](const kernels::Rows& rows) {
    return kernels::linear(context.target(), rows, weight);
  };
  ir::Value sum;
  if (goes_round(context, spec)) {
    sum = context.ring()->sum_scatter(kernels::rows_for(context.target(), x, {weight}).parts(),
                                      [&](const ir::Values& rows) {
                                        return partial({rows, x.dtype});
                                      });
  } else {
    sum = sum_tokens(context, partial(x), division);
  }
  return with_bias(context, spec, sum);
}

ir::Value all_tokens(Context& context, ir::Value x) {
  return parallel::gather(x, 0, context.layout().mesh(), context.tokens());
}

namespace {

// What travels of a device's own tokens to be multiplied with these weights everywhere.
parallel::Ring::Form travelling(const Context& context,
                                const std::vector<kernels::WeightOperand>& weights) {
  return [&context, &weights](ir::Value rows) {
    return kernels::rows_for(context.target(), rows, weights, context.tokens().parts).parts();
  };
}

}  // namespace

ir::Values of_all_tokens(Context& context, ir::Value own,
                         const std::vector<kernels::WeightOperand>& weights,
                         const RowProducts& products) {
  const parallel::Ring::Form form = travelling(context, weights);
  const auto of = [&](const ir::Values& rows) { return products({rows, own.dtype()}); };
  if (context.ring()) return context.ring()->gather(own, form, of);
  ir::Values all;
  for (const ir::Value value : form(own)) all.push_back(all_tokens(context, value));
  return of(all);
}

ir::Value own_tokens(Context& context, ir::Value x) {
  return parallel::own_part(x, 0, context.layout().mesh(), context.tokens());
}

ir::Value sum_tokens(Context& context, ir::Value partial, const parallel::Division& division) {
  const parallel::Mesh& mesh = context.layout().mesh();
  if (division == context.tokens()) return parallel::sum_scatter(partial, 0, mesh, division);
  return own_tokens(context, parallel::sum(partial, mesh, division));
}

namespace {

// Of rows that are divided, `count` to a device, those at `indices`; zeros where another has them.
ir::Value take_own(Context& context, const parallel::Division& division, int64_t count,
                   ir::Value indices, const std::function<ir::Value(ir::Value own)>& take) {
  const ir::Value part =
      parallel::part_index(indices.function(), context.layout().mesh(), division);
  const auto rows = static_cast<double>(count);
  const ir::Value own = indices - ir::broadcast_to(part * rows, indices.dims());
  const ir::Value zero = ir::full_like(own, 0);
  const ir::Value has = ir::and_(ir::compare(own, zero, ir::ComparisonDirection::kGe),
                                 ir::compare(own, rows, ir::ComparisonDirection::kLt));
  const ir::Value found = take(ir::select(has, own, zero));
  const ir::Value nothing = ir::full_like(found, 0);
  return ir::select(ir::broadcast_in_dim(has, found.dims(), {0}), found, nothing);
}

}  // namespace

ir::Value take_tokens(Context& context, ir::Value own, ir::Value indices) {
  const auto take = [&](ir::Value at) { return ir::take(own, at, 0); };
  if (context.tokens().whole()) return take(indices);
  const ir::Value part = take_own(context, context.tokens(), own.dim(0), indices, take);
  return parallel::sum(part, context.layout().mesh(), context.tokens());
}

ir::Value embedding(Context& context, const std::string& weight, int64_t rows, int64_t hidden,
                    ir::Value indices, const std::string& axis) {
  const kernels::WeightOperand table = context.table(weight, rows, hidden, {axis, "embed"});
  const auto take = [&](ir::Value own) {
    const ir::Value found = kernels::embedding(context.target(), table, own, context.compute());
    return found.dim(-1) == hidden ? found : ir::slice_in_dim(found, found.rank() - 1, 0, hidden);
  };
  const parallel::Division division = context.layout().division(axis);
  if (division.whole()) return own_tokens(context, take(indices));
  return sum_tokens(context, take_own(context, division, table.dims[0], indices, take), division);
}

namespace {

kernels::NormWeights norm_weights(Context& context, const NormSpec& spec) {
  kernels::NormWeights weights{context.tensor(spec.name + ".weight", {spec.dim}, {"norm"})};
  if (spec.bias) weights.bias = context.tensor(spec.name + ".bias", {spec.dim}, {"norm"});
  return weights;
}

kernels::NormOptions norm_options(const NormSpec& spec) {
  kernels::NormOptions options;
  options.epsilon = spec.epsilon;
  if (spec.kind == NormKind::kLayer) {
    options.kind = kernels::NormKind::kLayer;
    options.scale = kernels::NormScale::kF32;
  } else if (spec.one_plus) {
    options.scale = kernels::NormScale::kOnePlus;
  } else if (spec.scaled_in_f32) {
    options.scale = kernels::NormScale::kF32;
  }
  return options;
}

}  // namespace

ir::Value norm(Context& context, const NormSpec& spec, ir::Value x) {
  if (spec.kind == NormKind::kNone) return x;
  return kernels::norm(context.target(), x, norm_weights(context, spec), norm_options(spec));
}

kernels::AddNormResult add_norm(Context& context, const NormSpec& spec, ir::Value x,
                                ir::Value delta) {
  if (spec.kind != NormKind::kNone) {
    return kernels::add_norm(context.target(), x, delta, norm_weights(context, spec),
                             norm_options(spec));
  }
  const ir::Value sum = x + delta;
  return {sum, sum};
}

kernels::Activation activation_from_config(const std::string& name) {
  if (name == "silu" || name == "swish") return kernels::Activation::kSilu;
  if (name == "gelu") return kernels::Activation::kGelu;
  if (name == "gelu_pytorch_tanh" || name == "gelu_new" || name == "gelu_fast") {
    return kernels::Activation::kGeluTanh;
  }
  fail(Code::kInvalidArgument,
       "[config] the activation '{}' is not known; known are silu, gelu, gelu_pytorch_tanh, "
       "gelu_new",
       name);
}

namespace {

// What is multiplied with the input: gate, if there is one, and up.
std::vector<LinearSpec> input_specs(const MlpSpec& spec) {
  LinearSpec up{spec.up,   spec.hidden,      spec.intermediate,
                spec.bias, {"mlp", "embed"}, spec.transposed};
  if (spec.fused) {
    up.out = 2 * spec.intermediate;
    up.segments = {{spec.intermediate, "mlp"}, {spec.intermediate, "mlp"}};
  }
  if (spec.fused || spec.gate.empty()) return {up};
  LinearSpec gate = up;
  gate.name = spec.gate;
  return {gate, up};
}

// What comes before the last product.
ir::Value mlp_inner(Context& context, const MlpSpec& spec, const std::vector<LinearSpec>& specs,
                    const kernels::Rows& x) {
  if (specs.size() == 2) {
    return kernels::gated_linear(context.target(), x, linear_weight(context, specs[0]),
                                 linear_weight(context, specs[1]), spec.activation,
                                 linear_bias(context, specs[0]), linear_bias(context, specs[1]));
  }
  const ir::Value y = linear(context, specs[0], x);
  if (!spec.fused) return kernels::activate(spec.activation, y);
  const int64_t own = y.dim(1) / 2;
  return kernels::activate(spec.activation, ir::slice_in_dim(y, 1, 0, own)) *
         ir::slice_in_dim(y, 1, own, 2 * own);
}

}  // namespace

ir::Value mlp(Context& context, const MlpSpec& spec, ir::Value own) {
  const LinearSpec down{spec.down, spec.intermediate, spec.hidden,
                        spec.bias, {"embed", "mlp"},  spec.transposed};
  const std::vector<LinearSpec> specs = input_specs(spec);
  std::vector<kernels::WeightOperand> weights;
  for (const LinearSpec& input : specs) weights.push_back(linear_weight(context, input));
  const kernels::Target& target = context.target();
  if (!goes_round(context, down)) {
    const ir::Value made = of_all_tokens(context, own, weights, [&](const kernels::Rows& rows) {
      return ir::Values{mlp_inner(context, spec, specs, rows)};
    })[0];
    kernels::Rows inner = kernels::rows_for(target, made, {linear_weight(context, down)});
    // The TPU compiler would join the products before and after it, and wait for both weights;
    // not where rows are rounded in between.
    if (target.platform == kernels::Platform::kTpu && !inner.scales) {
      inner = ir::optimization_barrier({made})[0];
    }
    return linear_sum(context, down, inner);
  }
  const auto inner = [&](const ir::Values& rows) {
    return mlp_inner(context, spec, specs, {rows, own.dtype()});
  };
  const auto outer = [&](ir::Value made) {
    return kernels::linear(target, made, linear_weight(context, down));
  };
  const ir::Value sum =
      context.ring()->gather_sum_scatter(own, travelling(context, weights), inner, outer);
  return with_bias(context, down, sum);
}

}  // namespace ttpu::nn
