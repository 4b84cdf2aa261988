#include "ttpu/kernels/ragged_paged_attention/dispatch.h"

#include "ttpu/ir/ir.h"
#include "ttpu/kernels/ragged_paged_attention/cpu/handlers.h"
#include "ttpu/kernels/ragged_paged_attention/tpu.h"
#include "ttpu/kernels/ragged_paged_attention/tpu_rows.h"

namespace ttpu::kernels {
namespace {

bool kernel_takes(DType dtype) { return dtype == DType::kBF16 || dtype == DType::kF32; }
bool kernel_holds(DType dtype) {
  return kernel_takes(dtype) || dtype == DType::kS8 || dtype == DType::kF8E4M3FN;
}

int64_t rotary_code(const std::optional<Rotary>& rotary) {
  if (!rotary) return kNoRotary;
  return rotary->style == RotaryStyle::kHalf ? kHalfRotary : kInterleavedRotary;
}

AttentionResult call(ir::Value q, const NewRows& rows, ir::Value cache, const CacheLayout& layout,
                     const RaggedBatch& batch, const AttentionOptions& options) {
  ir::Values operands = {
      cache, q, rows.keys, batch.kv_lens, batch.page_indices, batch.cu_q_lens, batch.distribution};
  if (rows.values) operands.push_back(*rows.values);
  if (options.rotary) operands.insert(operands.end(), {options.rotary->cos, options.rotary->sin});
  if (options.sinks) operands.push_back(ir::convert(*options.sinks, DType::kF32));
  const int64_t head = cache_elements(cache.dtype(), layout.key_dim);
  ir::CustomCallOptions custom;
  custom.backend_config = {{"kv_heads", layout.kv_heads},
                           {"head_stride", layout.shared ? int64_t{0} : 2 * head},
                           {"value_offset", layout.shared ? int64_t{0} : head},
                           {"has_values", static_cast<int64_t>(rows.values.has_value())},
                           {"rotary", rotary_code(options.rotary)},
                           {"has_sinks", static_cast<int64_t>(options.sinks.has_value())},
                           {"window", options.sliding_window.value_or(0)},
                           {"causal", static_cast<int64_t>(options.causal)},
                           {"scale", static_cast<float>(options.scale)},
                           {"soft_cap", static_cast<float>(options.soft_cap.value_or(0))}};
  custom.output_operand_aliases = {{1, 0}};
  const Shape output(q.dtype(), {q.dim(0), q.dim(1), layout.value_dim});
  const ir::Values results =
      ir::row_major_call(q.function(), kAttentionTarget, operands, {output, cache.shape()}, custom);
  return {results[0], results[1]};
}

// [tokens, heads, key_dim]: keys and values in the order of the cache.
ir::Value joined(const NewRows& rows) {
  if (!rows.values) return ir::expand_dims(rows.keys, 1);
  const ir::Value pairs =
      ir::concatenate({ir::expand_dims(rows.keys, 2), ir::expand_dims(*rows.values, 2)}, 2);
  return ir::reshape(pairs, {pairs.dim(0), pairs.dim(1) * 2, pairs.dim(3)});
}

}  // namespace

AttentionResult paged_attention(const Target& target, ir::Value q, const NewRows& rows,
                                ir::Value cache, const CacheLayout& layout,
                                const RaggedBatch& batch, const AttentionOptions& options) {
  if (target.cpu_kernels() && !layout.rows && !options.context && kernel_takes(q.dtype()) &&
      kernel_holds(cache.dtype())) {
    return call(q, rows, cache, layout, batch, options);
  }
  NewRows turned = rows;
  if (options.rotary) {
    const Rotary& r = *options.rotary;
    q = rotary(target, q, r.cos, r.sin, r.style);
    turned.keys = rotary(target, rows.keys, r.cos, r.sin, r.style);
  }
  if (target.tpu) {
    const auto result =
        layout.rows ? tpu_row_attention(*target.tpu, q, turned, cache, layout, batch, options)
                    : tpu_attention(*target.tpu, q, turned, cache, layout, batch, options);
    if (result) return *result;
  }
  return reference::paged_attention(q, joined(turned), cache, layout, batch, options);
}

}  // namespace ttpu::kernels
