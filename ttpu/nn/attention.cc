#include "ttpu/nn/attention.h"

#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"
#include "ttpu/kernels/rotary/rotary.h"

namespace ttpu::nn {
namespace {

struct Projections {
  ir::Value q, k, v;  // [tokens, heads, head_dim]
};

ir::Value split_heads(ir::Value x, int64_t heads) {
  return ir::reshape(x, {x.dim(0), heads, x.dim(1) / heads});
}

ir::Value columns(ir::Value x, int64_t begin, int64_t end) {
  return ir::slice(x, {0, begin}, {x.dim(0), end});
}

Projections fused_projection(Context& context, const AttentionSpec& spec, ir::Value x) {
  const int64_t q = spec.heads * spec.head_dim;
  const int64_t kv = spec.kv_heads * spec.head_dim;
  const ir::Value all = linear(
      context,
      {spec.qkv, spec.hidden, q + 2 * kv, spec.qkv_bias, {"heads", "embed"}, spec.transposed}, x);
  if (spec.layout == AttentionSpec::Layout::kConcatenated) {
    return {split_heads(columns(all, 0, q), spec.heads),
            split_heads(columns(all, q, q + kv), spec.kv_heads),
            split_heads(columns(all, q + kv, q + 2 * kv), spec.kv_heads)};
  }
  // Each head's q, k and v stand together.
  const ir::Value heads = ir::reshape(all, {x.dim(0), spec.heads, 3, spec.head_dim});
  const auto part = [&](int64_t i) {
    return ir::reshape(ir::slice(heads, {0, 0, i, 0}, {x.dim(0), spec.heads, i + 1, spec.head_dim}),
                       {x.dim(0), spec.heads, spec.head_dim});
  };
  return {part(0), part(1), part(2)};
}

Projections project(Context& context, const AttentionSpec& spec, ir::Value x) {
  if (!spec.qkv.empty()) return fused_projection(context, spec, x);
  const int64_t q = spec.heads * spec.head_dim;
  const int64_t kv = spec.kv_heads * spec.head_dim;
  const std::vector<LinearSpec> parts = {
      {spec.q, spec.hidden, q, spec.qkv_bias, {"heads", "embed"}},
      {spec.k, spec.hidden, kv, spec.qkv_bias, {"kv_heads", "embed"}},
      {spec.v, spec.hidden, kv, spec.qkv_bias, {"kv_heads", "embed"}}};
  std::vector<kernels::WeightOperand> weights;
  std::vector<std::optional<ir::Value>> biases;
  for (const LinearSpec& part : parts) {
    weights.push_back(linear_weight(context, part));
    biases.push_back(linear_bias(context, part));
  }
  const ir::Values out = kernels::linear_group(context.target(), x, weights, biases);
  return {split_heads(out[0], spec.heads), split_heads(out[1], spec.kv_heads),
          split_heads(out[2], spec.kv_heads)};
}

ir::Value head_norm(Context& context, const AttentionSpec& spec, const NormSpec& norm_spec,
                    ir::Value x) {
  if (norm_spec.kind == NormKind::kNone) return x;
  if (!spec.norm_whole) return norm(context, norm_spec, x);
  const Dims dims = x.dims();
  return ir::reshape(norm(context, norm_spec, ir::reshape(x, {dims[0], dims[1] * dims[2]})), dims);
}

// [tokens, heads, a] x [heads, a, b] -> [tokens, heads, b]
ir::Value per_head(ir::Value x, ir::Value weights) {
  const ir::Value product = ir::dot_general(
      x, weights,
      {.lhs_batching = {1}, .rhs_batching = {0}, .lhs_contracting = {2}, .rhs_contracting = {1}});
  return ir::transpose(product, {1, 0, 2});
}

}  // namespace

kernels::RaggedBatch StepInputs::batch_for(std::optional<int64_t> sliding_window) const {
  kernels::RaggedBatch result = batch;
  for (const auto& [window, pages] : window_pages) {
    if (window == sliding_window) result.page_indices = pages;
  }
  return result;
}

const RotaryTable& RotaryTables::get(const RopeSpec& spec) {
  for (const auto& [known, table] : tables_) {
    if (known == spec) return table;
  }
  return tables_.emplace_back(spec, rotary_table(spec, positions_)).second;
}

Dims cache_dims(const AttentionSpec& spec, DType cache_dtype) {
  return {2 * spec.kv_heads, kernels::cache_elements(cache_dtype, spec.head_dim)};
}
Dims cache_dims(const MlaSpec& spec, DType cache_dtype) {
  return {kernels::cache_elements(cache_dtype, spec.kv_lora_rank + spec.qk_rope_head_dim)};
}

LayerResult attention(Context& context, const AttentionSpec& spec, ir::Value x, ir::Value cache,
                      const StepInputs& inputs, RotaryTables& tables) {
  Projections heads = project(context, spec, x);
  heads.q = head_norm(context, spec, spec.q_norm, heads.q);
  heads.k = head_norm(context, spec, spec.k_norm, heads.k);
  kernels::AttentionOptions options;
  options.scale = spec.scale;
  options.causal = spec.causal;
  options.sliding_window = spec.sliding_window;
  options.soft_cap = spec.soft_cap;
  if (spec.rope) {
    const RotaryTable& table = tables.get(*spec.rope);
    options.rotary = kernels::Rotary{table.cos, table.sin};
  }
  if (!spec.sinks.empty()) options.sinks = context.tensor(spec.sinks, {spec.heads}, {"heads"});
  const kernels::AttentionResult result =
      kernels::ragged_paged_attention(context.target(), heads.q, heads.k, heads.v, cache,
                                      inputs.batch_for(spec.sliding_window), options);
  const ir::Value joined = ir::reshape(result.output, {x.dim(0), spec.heads * spec.head_dim});
  return {linear(context,
                 {spec.o,
                  spec.heads * spec.head_dim,
                  spec.hidden,
                  spec.o_bias,
                  {"embed", "heads"},
                  spec.transposed},
                 joined),
          result.cache};
}

LayerResult attention(Context& context, const MlaSpec& spec, ir::Value x, ir::Value cache,
                      const StepInputs& inputs, RotaryTables& tables) {
  const int64_t qk = spec.qk_nope_head_dim + spec.qk_rope_head_dim;
  const auto named = [&](const char* name) { return spec.prefix + name; };
  ir::Value q;
  if (spec.q_lora_rank > 0) {
    const ir::Value low =
        linear(context,
               {named("q_a_proj"), spec.hidden, spec.q_lora_rank, spec.bias, {"lora", "embed"}}, x);
    const NormSpec low_norm{NormKind::kRms, named("q_a_layernorm"), spec.q_lora_rank, spec.epsilon};
    q = linear(context,
               {named("q_b_proj"), spec.q_lora_rank, spec.heads * qk, false, {"heads", "lora"}},
               norm(context, low_norm, low));
  } else {
    q = linear(context, {named("q_proj"), spec.hidden, spec.heads * qk, false, {"heads", "embed"}},
               x);
  }
  q = split_heads(q, spec.heads);
  const int64_t tokens = x.dim(0);
  const ir::Value q_nope = ir::slice(q, {0, 0, 0}, {tokens, spec.heads, spec.qk_nope_head_dim});
  const ir::Value q_rope = ir::slice(q, {0, 0, spec.qk_nope_head_dim}, {tokens, spec.heads, qk});

  const ir::Value kv = linear(context,
                              {named("kv_a_proj_with_mqa"),
                               spec.hidden,
                               spec.kv_lora_rank + spec.qk_rope_head_dim,
                               spec.bias,
                               {"lora", "embed"}},
                              x);
  const NormSpec kv_norm{NormKind::kRms, named("kv_a_layernorm"), spec.kv_lora_rank, spec.epsilon};
  const ir::Value latent = norm(context, kv_norm, columns(kv, 0, spec.kv_lora_rank));
  const ir::Value k_rope = columns(kv, spec.kv_lora_rank, kv.dim(1));

  const RotaryTable& table = tables.get(spec.rope);
  const auto style =
      spec.interleaved_rope ? kernels::RotaryStyle::kInterleaved : kernels::RotaryStyle::kHalf;
  const auto rotate = [&](ir::Value v) {
    return kernels::rotary(context.target(), v, table.cos, table.sin, style);
  };
  const ir::Value k_rotated = ir::squeeze(rotate(ir::expand_dims(k_rope, 1)), 1);

  // kv_b_proj [heads * (nope + v), latent] is split by head: its key half moves to the queries, its
  // value half behind the attention.
  const int64_t rows = spec.qk_nope_head_dim + spec.v_head_dim;
  const kernels::WeightOperand kv_b = context.matrix(named("kv_b_proj.weight"), spec.heads * rows,
                                                     spec.kv_lora_rank, {"heads", "lora"});
  const ir::Value kv_b_dense =
      ir::reshape(kernels::dense(kv_b, x.dtype()), {spec.heads, rows, spec.kv_lora_rank});
  const ir::Value key_half =
      ir::slice(kv_b_dense, {0, 0, 0}, {spec.heads, spec.qk_nope_head_dim, spec.kv_lora_rank});
  const ir::Value value_half =
      ir::slice(kv_b_dense, {0, spec.qk_nope_head_dim, 0}, {spec.heads, rows, spec.kv_lora_rank});
  const ir::Value q_latent = per_head(q_nope, key_half);

  kernels::MlaOptions options;
  options.scale = spec.scale;
  const kernels::AttentionResult result = kernels::mla_attention(
      context.target(), q_latent, rotate(q_rope), latent, k_rotated, cache, inputs.batch, options);
  const ir::Value values = per_head(result.output, ir::transpose(value_half, {0, 2, 1}));
  const ir::Value joined = ir::reshape(values, {tokens, spec.heads * spec.v_head_dim});
  return {linear(context,
                 {named("o_proj"),
                  spec.heads * spec.v_head_dim,
                  spec.hidden,
                  spec.bias,
                  {"embed", "heads"}},
                 joined),
          result.cache};
}

}  // namespace ttpu::nn
