#include "ttpu/nn/layers.h"

#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"

namespace ttpu::nn {

kernels::WeightOperand linear_weight(Context& context, const LinearSpec& spec) {
  WeightDecl decl;
  decl.names = {spec.name + ".weight"};
  decl.dims = {spec.out, spec.in};
  decl.axes = spec.axes;
  decl.transposed = spec.transposed;
  return context.matrix(std::move(decl));
}

std::optional<ir::Value> linear_bias(Context& context, const LinearSpec& spec) {
  if (!spec.bias) return std::nullopt;
  return context.tensor(spec.name + ".bias", {spec.out},
                        {spec.axes.empty() ? std::string("mlp") : spec.axes[0]});
}

ir::Value linear(Context& context, const LinearSpec& spec, ir::Value x,
                 std::optional<DType> result) {
  return kernels::linear(context.target(), x, linear_weight(context, spec),
                         linear_bias(context, spec), result);
}

ir::Value embedding(Context& context, const std::string& weight, int64_t vocab, int64_t hidden,
                    ir::Value tokens) {
  const kernels::WeightOperand table = context.matrix(weight, vocab, hidden, {"vocab", "embed"});
  return kernels::embedding(context.target(), table, tokens, context.compute());
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

ir::Value mlp(Context& context, const MlpSpec& spec, ir::Value x) {
  const LinearSpec down{spec.down, spec.intermediate, spec.hidden,
                        spec.bias, {"embed", "mlp"},  spec.transposed};
  LinearSpec up{spec.up,   spec.hidden,      spec.intermediate,
                spec.bias, {"mlp", "embed"}, spec.transposed};
  if (spec.fused) {
    up.out = 2 * spec.intermediate;
    const ir::Value both = linear(context, up, x);
    const Dims rows = {0, 0};
    const int64_t tokens = x.dim(0);
    const ir::Value gate = ir::slice(both, rows, {tokens, spec.intermediate});
    const ir::Value value =
        ir::slice(both, {0, spec.intermediate}, {tokens, 2 * spec.intermediate});
    return linear(context, down, kernels::activate(spec.activation, gate) * value);
  }
  if (spec.gate.empty()) {
    return linear(context, down, kernels::activate(spec.activation, linear(context, up, x)));
  }
  LinearSpec gate = up;
  gate.name = spec.gate;
  const ir::Value inner = kernels::gated_linear(
      context.target(), x, linear_weight(context, gate), linear_weight(context, up),
      spec.activation, linear_bias(context, gate), linear_bias(context, up));
  return linear(context, down, inner);
}

}  // namespace ttpu::nn
