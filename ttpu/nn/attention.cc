#include "ttpu/nn/attention.h"

#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"
#include "ttpu/kernels/rotary/rotary.h"
#include "ttpu/kernels/sequence_attention/sequence_attention.h"
#include "ttpu/nn/heads.h"
#include "ttpu/parallel/collectives.h"

namespace ttpu::nn {
namespace {

kernels::ContextParts context_parts(const Context& context, const Heads& heads,
                                    ir::Function& function) {
  const parallel::Mesh& mesh = context.layout().mesh();
  return {
      heads.context.parts, parallel::part_index(function, mesh, heads.context),
      [&mesh, parts = heads.context](ir::Value x) { return parallel::sum(x, mesh, parts); },
      [&mesh, parts = heads.context](ir::Value x) { return parallel::maximum(x, mesh, parts); }};
}

ir::Value head_norm(Context& context, const AttentionSpec& spec, const NormSpec& norm_spec,
                    const parallel::Division& division, ir::Value own) {
  if (norm_spec.kind == NormKind::kNone) return own;
  if (!spec.norm_whole) return norm(context, norm_spec, own);
  const parallel::Mesh& mesh = context.layout().mesh();
  const ir::Value x = parallel::gather(own, 1, mesh, division);
  const Dims& dims = x.dims();
  const ir::Value normed =
      ir::reshape(norm(context, norm_spec, ir::reshape(x, {dims[0], dims[1] * dims[2]})), dims);
  return parallel::own_part(normed, 1, mesh, division);
}

// Whole sequences, of which nothing is kept: as training has them.
ir::Value attend_sequences(Context& context, ir::Value q, ir::Value k, ir::Value v, int64_t length,
                           const kernels::AttentionOptions& options) {
  const auto turned = [&](ir::Value x) {
    if (!options.rotary) return x;
    return kernels::rotary(context.target(), x, options.rotary->cos, options.rotary->sin,
                           options.rotary->style);
  };
  return kernels::sequence_attention(
      context.target(), turned(q), turned(k), v, length,
      {options.scale, options.causal, options.sliding_window, options.soft_cap, options.sinks});
}

// [tokens, heads, a] x [heads, a, b] -> [tokens, heads, b]
ir::Value per_head(ir::Value x, ir::Value weights) {
  const ir::Value product = ir::dot_general(
      x, weights,
      {.lhs_batching = {1}, .rhs_batching = {0}, .lhs_contracting = {2}, .rhs_contracting = {1}},
      std::nullopt, ir::precision_for(x.dtype()));
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

namespace {

// The caches of all replicas, and of each those of all stages, lie one after another.
parallel::Division pages_division(const parallel::Layout& layout) {
  return join(layout.mesh(), layout.division("batch"), layout.division("stages"));
}

}  // namespace

parallel::Placement cache_placement(const parallel::Layout& layout, const AttentionSpec& spec) {
  const Heads heads = divide_heads(layout, spec.heads, spec.kv_heads);
  return {pages_division(layout), heads.context, heads.kv_division, {}};
}

parallel::Placement cache_placement(const parallel::Layout& layout, const MlaSpec& spec) {
  return {pages_division(layout), divide_heads(layout, spec.heads, 1).context, {}};
}

LayerResult attention(Context& context, const AttentionSpec& spec, ir::Value x, ir::Value cache,
                      const StepInputs& inputs, RotaryTables& tables) {
  const parallel::Mesh& mesh = context.layout().mesh();
  const Heads own = divide_heads(context.layout(), spec.heads, spec.kv_heads);
  Projections heads = project(context, spec, own, x);
  heads.q = head_norm(context, spec, spec.q_norm, own.q_division, heads.q);
  heads.k = head_norm(context, spec, spec.k_norm, own.kv_division, heads.k);
  kernels::AttentionOptions options;
  options.scale = spec.scale;
  options.causal = spec.causal;
  options.sliding_window = spec.sliding_window;
  options.soft_cap = spec.soft_cap;
  if (spec.rope) {
    const RotaryTable& table = tables.get(*spec.rope);
    options.rotary = kernels::Rotary{table.cos, table.sin};
  }
  if (!spec.sinks.empty()) {
    WeightDecl sinks;
    sinks.names = {spec.sinks};
    sinks.dims = {spec.heads};
    sinks.axes = {"heads"};
    sinks.units = {own.units};
    options.sinks = parallel::gather(context.tensor(std::move(sinks)), 0, mesh, own.apart);
  }
  if (!own.context.whole()) options.context = context_parts(context, own, x.function());
  const ir::Value q = parallel::gather(heads.q, 1, mesh, own.apart);
  const kernels::AttentionResult result =
      inputs.sequence_length > 0
          ? kernels::AttentionResult{attend_sequences(context, q, heads.k, heads.v,
                                                      inputs.sequence_length, options),
                                     cache}
          : kernels::ragged_paged_attention(context.target(), q, heads.k, heads.v, cache,
                                            inputs.batch_for(spec.sliding_window), options);
  const ir::Value output = parallel::own_part(result.output, 1, mesh, own.apart);
  const ir::Value joined = ir::reshape(output, {output.dim(0), own.q * spec.head_dim});
  return {project_output(context, spec, own, joined), result.cache};
}

LayerResult attention(Context& context, const MlaSpec& spec, ir::Value own_x, ir::Value cache,
                      const StepInputs& inputs, RotaryTables& tables) {
  const ir::Value x = all_tokens(context, own_x);
  const int64_t qk = spec.qk_nope_head_dim + spec.qk_rope_head_dim;
  const parallel::Mesh& mesh = context.layout().mesh();
  const Heads own = divide_heads(context.layout(), spec.heads, 1);
  const auto named = [&](const char* name) { return spec.prefix + name; };
  ir::Value q;
  if (spec.q_lora_rank > 0) {
    const ir::Value low =
        linear(context,
               {named("q_a_proj"), spec.hidden, spec.q_lora_rank, spec.bias, {"lora", "embed"}}, x);
    const NormSpec low_norm{NormKind::kRms, named("q_a_layernorm"), spec.q_lora_rank, spec.epsilon};
    q = linear(context,
               {named("q_b_proj"),
                spec.q_lora_rank,
                spec.heads * qk,
                false,
                {"heads", "lora"},
                false,
                {own.units}},
               norm(context, low_norm, low));
  } else {
    q = linear(context,
               {named("q_proj"),
                spec.hidden,
                spec.heads * qk,
                false,
                {"heads", "embed"},
                false,
                {own.units}},
               x);
  }
  q = split_heads(q, own.q);
  const int64_t tokens = x.dim(0);
  const ir::Value q_nope = ir::slice(q, {0, 0, 0}, {tokens, own.q, spec.qk_nope_head_dim});
  const ir::Value q_rope = ir::slice(q, {0, 0, spec.qk_nope_head_dim}, {tokens, own.q, qk});

  const ir::Value kv = linear(context,
                              {named("kv_a_proj_with_mqa"),
                               spec.hidden,
                               spec.kv_lora_rank + spec.qk_rope_head_dim,
                               spec.bias,
                               {"lora", "embed"}},
                              x);
  const NormSpec kv_norm{NormKind::kRms, named("kv_a_layernorm"), spec.kv_lora_rank, spec.epsilon};
  const ir::Value latent = norm(context, kv_norm, ir::slice_in_dim(kv, 1, 0, spec.kv_lora_rank));
  const ir::Value k_rope = ir::slice_in_dim(kv, 1, spec.kv_lora_rank, kv.dim(1));

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
  WeightDecl kv_b;
  kv_b.names = {named("kv_b_proj.weight")};
  kv_b.dims = {spec.heads * rows, spec.kv_lora_rank};
  kv_b.axes = {"heads", "lora"};
  kv_b.units = {own.units};
  kv_b.quantizable = true;
  const ir::Value kv_b_dense = ir::reshape(
      kernels::dense(context.matrix(std::move(kv_b)), x.dtype()), {own.q, rows, spec.kv_lora_rank});
  const ir::Value key_half =
      ir::slice(kv_b_dense, {0, 0, 0}, {own.q, spec.qk_nope_head_dim, spec.kv_lora_rank});
  const ir::Value value_half =
      ir::slice(kv_b_dense, {0, spec.qk_nope_head_dim, 0}, {own.q, rows, spec.kv_lora_rank});
  ir::Value values;
  if (inputs.sequence_length > 0) {
    // Without a cache of latents, keys and values of all heads cost less than latents do.
    const auto of_heads = [&](ir::Value half) {
      return ir::dot_general(latent, half, {{}, {}, {1}, {2}}, std::nullopt,
                             ir::precision_for(latent.dtype()));
    };
    const ir::Value shared =
        ir::broadcast_in_dim(k_rotated, {tokens, own.q, spec.qk_rope_head_dim}, {0, 2});
    values = kernels::sequence_attention(
        context.target(), ir::concatenate({q_nope, rotate(q_rope)}, 2),
        ir::concatenate({of_heads(key_half), shared}, 2), of_heads(value_half),
        inputs.sequence_length, {.scale = spec.scale});
  } else {
    kernels::MlaOptions options;
    options.scale = spec.scale;
    if (!own.context.whole()) options.context = context_parts(context, own, x.function());
    const auto together = [&](ir::Value v) { return parallel::gather(v, 1, mesh, own.apart); };
    const kernels::AttentionResult result = kernels::mla_attention(
        context.target(), together(per_head(q_nope, key_half)), together(rotate(q_rope)), latent,
        k_rotated, cache, inputs.batch, options);
    cache = result.cache;
    const ir::Value output = parallel::own_part(result.output, 1, mesh, own.apart);
    values = per_head(output, ir::transpose(value_half, {0, 2, 1}));
  }
  const ir::Value joined = ir::reshape(values, {tokens, own.q * spec.v_head_dim});
  return {linear_sum(context,
                     {named("o_proj"),
                      spec.heads * spec.v_head_dim,
                      spec.hidden,
                      spec.bias,
                      {"embed", "heads"},
                      false,
                      {0, own.units}},
                     joined),
          cache};
}

}  // namespace ttpu::nn
