#include "ttpu/kernels/ragged_paged_attention/tpu_rows.h"

#include <string>
#include <vector>

#include <fmt/format.h>

#include "ttpu/ir/ir.h"
#include "ttpu/kernels/ragged_paged_attention/tpu.h"

namespace ttpu::kernels {
namespace {

// Why the kernel cannot be asked for; empty when it can.
std::string reason_against(ir::Value q, ir::Value cache, const CacheLayout& layout,
                           const AttentionOptions& options) {
  if (!options.causal) return "the kernel is for attention to what stands before";
  if (q.dtype() != DType::kBF16 || cache.dtype() == DType::kF32) {
    return fmt::format("queries of {} and a cache of {}; the kernel is for bf16",
                       dtype_name(q.dtype()), dtype_name(cache.dtype()));
  }
  if (layout.shared && layout.value_dim % kTpuLanes != 0) {
    return fmt::format("a latent of {}; the kernel is for multiples of {}", layout.value_dim,
                       kTpuLanes);
  }
  if (!layout.shared && layout.key_dim % kTpuLanes != 0 && 2 * layout.key_dim != kTpuLanes) {
    return fmt::format("heads of {}; the kernel is for {} and multiples of {}", layout.key_dim,
                       kTpuLanes / 2, kTpuLanes);
  }
  return "";
}

// The devices' outputs [tokens, heads, size] f32, joined by the logarithms of the sums of their
// weights, [tokens, heads].
ir::Value joined(ir::Value output, ir::Value logarithm, const AttentionOptions& options) {
  ir::Value most = options.context->maximum(logarithm);
  std::optional<ir::Value> sinks;
  if (options.sinks) {
    sinks = ir::broadcast_in_dim(ir::convert(*options.sinks, DType::kF32), most.dims(), {1});
    most = ir::maximum(most, *sinks);
  }
  const ir::Value weight = ir::exponential(logarithm - most);
  ir::Value total = options.context->sum(weight);
  if (sinks) total = total + ir::exponential(*sinks - most);
  const ir::Value share = ir::broadcast_in_dim(weight / total, output.dims(), {0, 1});
  return options.context->sum(output * share);
}

}  // namespace

std::optional<AttentionResult> tpu_row_attention(TpuKernels& kernels, ir::Value q,
                                                 const NewRows& rows, ir::Value cache,
                                                 const CacheLayout& layout,
                                                 const RaggedBatch& batch,
                                                 const AttentionOptions& options) {
  const char* op = layout.shared ? "mla_attention" : "ragged_paged_attention";
  if (const std::string reason = reason_against(q, cache, layout, options); !reason.empty()) {
    kernels.note_reference(op, reason);
    return std::nullopt;
  }
  const bool divided = options.context.has_value();
  const int64_t parts = divided ? options.context->parts : 1;
  const int64_t slots = slots_of_page(cache, layout);
  const double row_bytes = static_cast<double>(cache.dim(3)) * bit_width(cache.dtype()) / 8;
  const auto flops = static_cast<double>(2 * q.dim(1) * (layout.key_dim + layout.value_dim));
  const size_t place = rows.values ? 3 : 2;
  const AttentionSizes sizes{flops,    row_bytes,
                             q.dim(0), cache.dim(0) * slots,
                             slots,    options.sliding_window,
                             place,    divided ? size_t{2} : size_t{1},
                             parts};
  ir::TextBody work = attention_work(sizes, batch);
  const bool sinks = options.sinks && !divided;
  Json key = attention_key(kernels, op, q, cache.dtype(), sizes, batch, options.scale, work);
  key.update({{"parts", parts},
              {"kv_heads", layout.kv_heads},
              {"rank", layout.shared ? layout.value_dim : 0},
              {"window", options.sliding_window.value_or(0)},
              {"soft_cap", options.soft_cap.value_or(0)},
              {"sinks", sinks}});
  ir::Values operands = {q, rows.keys};
  if (rows.values) operands.push_back(*rows.values);
  operands.insert(operands.end(),
                  {cache, batch.kv_lens, batch.page_indices, batch.cu_q_lens, batch.distribution});
  if (divided) operands.push_back(options.context->index);
  if (sinks) operands.push_back(ir::convert(*options.sinks, DType::kF32));
  const Dims output = {q.dim(0), q.dim(1), layout.value_dim};
  std::vector<Shape> results = {Shape(divided ? DType::kF32 : q.dtype(), output), cache.shape()};
  if (divided) results.insert(results.begin() + 1, Shape(DType::kF32, {q.dim(0), q.dim(1)}));
  const ir::Values made = call_tpu_attention(kernels, key, operands, results, std::move(work));
  if (made.empty()) return std::nullopt;
  if (!divided) return AttentionResult{made[0], made[1]};
  return AttentionResult{ir::convert(joined(made[0], made[1], options), q.dtype()), made[2]};
}

}  // namespace ttpu::kernels
