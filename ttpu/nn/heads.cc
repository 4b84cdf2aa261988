#include "ttpu/nn/heads.h"

#include "ttpu/ir/ir.h"
#include "ttpu/parallel/collectives.h"

namespace ttpu::nn {
namespace {

// The parts of weights of the device k places after, for each k; the own alone where heads are not
// exchanged for tokens. Declared in this order in every program: they share the weights.
struct Part {
  std::vector<kernels::WeightOperand> weights;
  std::vector<std::optional<ir::Value>> biases;
};
std::vector<Part> parts_of(Context& context, const Heads& heads, std::vector<LinearSpec> specs) {
  std::vector<Part> parts(static_cast<size_t>(heads.projected.parts));
  for (size_t k = 0; k < parts.size(); ++k) {
    for (LinearSpec& spec : specs) {
      spec.ring = heads.projected;
      spec.places = static_cast<int64_t>(k);
      parts[k].weights.push_back(linear_weight(context, spec));
      parts[k].biases.push_back(linear_bias(context, spec));
    }
  }
  return parts;
}

// The products of x with weights whose rows are heads: of all tokens, and the device's own heads.
ir::Values products(Context& context, const Heads& heads, const std::vector<LinearSpec>& specs,
                    ir::Value x) {
  const std::vector<Part> parts = parts_of(context, heads, specs);
  const auto product = [&](const kernels::Rows& rows, int64_t places) {
    const Part& part = parts[static_cast<size_t>(places)];
    return ir::Values(kernels::linear_group(context.target(), rows, part.weights, part.biases));
  };
  if (heads.projected.whole() || !context.ring()) {
    return of_all_tokens(context, x, parts[0].weights,
                         [&](const kernels::Rows& rows) { return product(rows, 0); });
  }
  const kernels::Rows rows =
      kernels::rows_for(context.target(), x, parts[0].weights, heads.projected.parts);
  const parallel::Ring& ring = *context.ring();
  const std::vector<ir::Values> received =
      ring.trade([&](int64_t places) { return product(rows, places); });
  ir::Values out;
  for (size_t i = 0; i < specs.size(); ++i) {
    ir::Values of_devices;
    for (const ir::Values& values : received) of_devices.push_back(values[i]);
    out.push_back(ring.in_order(of_devices));
  }
  return out;
}

Projections fused_projection(Context& context, const AttentionSpec& spec, const Heads& heads,
                             ir::Value x) {
  const int64_t q = spec.heads * spec.head_dim;
  const int64_t kv = spec.kv_heads * spec.head_dim;
  LinearSpec fused{spec.qkv,           spec.hidden,     q + 2 * kv,   spec.qkv_bias,
                   {"heads", "embed"}, spec.transposed, {heads.units}};
  if (spec.layout == AttentionSpec::Layout::kConcatenated) {
    fused.segments = {{q, "heads", heads.units},
                      {kv, "kv_heads", spec.kv_heads},
                      {kv, "kv_heads", spec.kv_heads}};
    const ir::Value all = products(context, heads, {fused}, x)[0];
    const int64_t own_q = heads.q * spec.head_dim;
    const int64_t own_kv = heads.kv * spec.head_dim;
    return {split_heads(ir::slice_in_dim(all, 1, 0, own_q), heads.q),
            split_heads(ir::slice_in_dim(all, 1, own_q, own_q + own_kv), heads.kv),
            split_heads(ir::slice_in_dim(all, 1, own_q + own_kv, own_q + 2 * own_kv), heads.kv)};
  }
  // Each head's q, k and v stand together.
  const ir::Value joined = products(context, heads, {fused}, x)[0];
  const int64_t tokens = joined.dim(0);
  const ir::Value all = ir::reshape(joined, {tokens, heads.q, 3, spec.head_dim});
  const auto part = [&](int64_t i) {
    return ir::reshape(ir::slice(all, {0, 0, i, 0}, {tokens, heads.q, i + 1, spec.head_dim}),
                       {tokens, heads.q, spec.head_dim});
  };
  return {part(0), part(1), part(2)};
}

}  // namespace

Heads divide_heads(const parallel::Layout& layout, int64_t heads, int64_t kv_heads) {
  Heads result;
  result.kv_division = layout.division("kv_heads", kv_heads);
  // Finer than KV heads only where a device has one of them.
  result.units = result.kv_division.parts == kv_heads ? heads : kv_heads;
  result.q_division = layout.division("heads", result.units);
  result.q = heads / result.q_division.parts;
  result.kv = kv_heads / result.kv_division.parts;
  result.context = without(layout.mesh(), layout.division("context"), result.kv_division);
  if (!result.context.whole()) {
    result.apart = without(layout.mesh(), result.q_division, result.kv_division);
  }
  // Not where heads do not divide: devices would have copies of the same.
  if (const auto projected = layout.division("projected_tokens"); projected == result.q_division) {
    result.projected = projected;
  }
  return result;
}

ir::Value split_heads(ir::Value x, int64_t heads) {
  return ir::reshape(x, {x.dim(0), heads, x.dim(1) / heads});
}

Projections project(Context& context, const AttentionSpec& spec, const Heads& heads, ir::Value x) {
  if (!spec.qkv.empty()) return fused_projection(context, spec, heads, x);
  const int64_t q = spec.heads * spec.head_dim;
  const int64_t kv = spec.kv_heads * spec.head_dim;
  const auto rows_of = [&](const std::string& name, int64_t rows, const char* axis, int64_t units) {
    return LinearSpec{name, spec.hidden, rows, spec.qkv_bias, {axis, "embed"}, false, {units}};
  };
  const ir::Values out = products(
      context, heads,
      {rows_of(spec.q, q, "heads", heads.units), rows_of(spec.k, kv, "kv_heads", spec.kv_heads),
       rows_of(spec.v, kv, "kv_heads", spec.kv_heads)},
      x);
  return {split_heads(out[0], heads.q), split_heads(out[1], heads.kv),
          split_heads(out[2], heads.kv)};
}

ir::Value project_output(Context& context, const AttentionSpec& spec, const Heads& heads,
                         ir::Value attended) {
  const LinearSpec output{spec.o,          spec.heads * spec.head_dim, spec.hidden,
                          spec.o_bias,     {"embed", "heads"},         spec.transposed,
                          {0, heads.units}};
  if (heads.projected.whole()) return linear_sum(context, output, attended);
  LinearSpec product = output;
  product.bias = false;  // it is added to the sum
  const std::vector<Part> parts = parts_of(context, heads, {product});
  if (!context.ring()) return linear_sum(context, output, attended);
  const parallel::Ring& ring = *context.ring();
  const std::vector<ir::Values> received = ring.trade([&](int64_t places) {
    const ir::Value rows = ring.rows_of(attended, places);
    return kernels::rows_for(context.target(), rows, parts[0].weights).parts();
  });
  // What comes from the device k places before are its heads.
  ir::Value sum;
  for (size_t k = 0; k < received.size(); ++k) {
    const Part& part = parts[(parts.size() - k) % parts.size()];
    const kernels::Rows rows(received[k], attended.dtype());
    const ir::Value own = kernels::linear(context.target(), rows, part.weights[0]);
    sum = sum ? sum + own : own;
  }
  return with_bias(context, output, sum);
}

}  // namespace ttpu::nn
