#include "ttpu/kernels/ragged_paged_attention/dispatch.h"

#include "ttpu/ir/ir.h"
#include "ttpu/kernels/ragged_paged_attention/cpu/handlers.h"

namespace ttpu::kernels {
namespace {

bool kernel_takes(DType dtype) { return dtype == DType::kBF16 || dtype == DType::kF32; }

AttentionResult call(ir::Value q, ir::Value rows, ir::Value cache, const CacheLayout& layout,
                     const RaggedBatch& batch, const AttentionOptions& options) {
  ir::Values operands = {
      cache, q, rows, batch.kv_lens, batch.page_indices, batch.cu_q_lens, batch.distribution};
  if (options.sinks) operands.push_back(ir::convert(*options.sinks, DType::kF32));
  ir::CustomCallOptions custom;
  custom.backend_config = {{"kv_heads", layout.kv_heads},
                           {"head_stride", layout.shared ? int64_t{0} : 2 * layout.key_dim},
                           {"value_offset", layout.shared ? int64_t{0} : layout.key_dim},
                           {"window", options.sliding_window.value_or(0)},
                           {"causal", static_cast<int64_t>(options.causal)},
                           {"scale", static_cast<float>(options.scale)},
                           {"soft_cap", static_cast<float>(options.soft_cap.value_or(0))}};
  custom.output_operand_aliases = {{1, 0}};
  const Shape output(q.dtype(), {q.dim(0), q.dim(1), layout.value_dim});
  const ir::Values results =
      ir::custom_call(q.function(), kAttentionTarget, operands, {output, cache.shape()}, custom);
  return {results[0], results[1]};
}

}  // namespace

AttentionResult paged_attention(const Target& target, ir::Value q, ir::Value rows, ir::Value cache,
                                const CacheLayout& layout, const RaggedBatch& batch,
                                const AttentionOptions& options) {
  if (target.cpu_kernels() && kernel_takes(q.dtype()) && kernel_takes(cache.dtype())) {
    return call(q, rows, cache, layout, batch, options);
  }
  return reference::paged_attention(q, rows, cache, layout, batch, options);
}

}  // namespace ttpu::kernels
