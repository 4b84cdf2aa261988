#include "ttpu/kernels/ragged_paged_attention/tpu.h"

#include <algorithm>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "ttpu/ir/ir.h"

namespace ttpu::kernels {
namespace {

constexpr const char* kOp = "ragged_paged_attention";

// Why the kernel cannot be asked for; empty when it can.
std::string reason_against(ir::Value q, ir::Value cache, const CacheLayout& layout,
                           const AttentionOptions& options) {
  if (layout.shared) {
    return "the kernel has no keys that are values too (multi-head latent attention)";
  }
  if (options.context) return "the kernel has whole sequences, not parts of them";
  if (!options.causal) return "the kernel is for attention to what stands before";
  if (q.dtype() != DType::kBF16) {
    return fmt::format("queries of {}; the kernel is for bf16", dtype_name(q.dtype()));
  }
  if (cache.dtype() == DType::kS8) return "the kernel has no int8 cache with a scale for each head";
  if (cache.dtype() != DType::kBF16 && cache.dtype() != DType::kF8E4M3FN) {
    return fmt::format("a cache of {}; the kernel is for bf16 and fp8", dtype_name(cache.dtype()));
  }
  const int64_t size = q.dim(2);
  const bool small = size == 64;
  if (!small && size % 128 != 0) {
    return fmt::format("heads of {}; the kernel is for 64 and multiples of 128", size);
  }
  if (options.sinks && !small) {
    return fmt::format("sinks with heads of {}; the kernel has them with 64 alone", size);
  }
  // So many rows share the 32 bits of a register's lane.
  const int64_t packed = 32 / bit_width(cache.dtype());
  if ((small ? 1 : 2) * layout.kv_heads % packed != 0) {
    return fmt::format("{} key heads of {} on a device; the kernel takes {} together",
                       layout.kv_heads, size, small ? packed : packed / 2);
  }
  if (cache.dim(1) % packed != 0) {
    return fmt::format("blocks of {} tokens; the kernel wants multiples of {}", cache.dim(1),
                       packed);
  }
  return "";
}

// Pairs of a query and a position that it sees, in the step that has the most: all sequences at
// their longest, prompts the last pieces of theirs.
double visible_pairs(double tokens, double sequences, double context,
                     std::optional<int64_t> window) {
  double seen = context;
  if (tokens > sequences) {
    seen = tokens < context ? context - (tokens - 1) / 2 : (context + 1) / 2;
  }
  if (window) seen = std::min(seen, static_cast<double>(*window));
  return tokens * seen;
}

}  // namespace

std::optional<AttentionResult> tpu_attention(TpuKernels& kernels, ir::Value q, const NewRows& rows,
                                             ir::Value cache, const CacheLayout& layout,
                                             const RaggedBatch& batch,
                                             const AttentionOptions& options) {
  if (const std::string reason = reason_against(q, cache, layout, options); !reason.empty()) {
    kernels.note_reference(kOp, reason);
    return std::nullopt;
  }
  const int64_t sequences = batch.kv_lens.dim(0);
  const int64_t pages = batch.page_indices.dim(0) / sequences;
  const auto context = static_cast<double>(pages * cache.dim(1));
  const auto row_bytes =
      static_cast<double>(cache.dim(2) * cache.dim(3)) * bit_width(cache.dtype()) / 8;
  const auto slots = static_cast<double>(cache.dim(0) * cache.dim(1));
  ir::TextBody cost;
  cost.flops = 4 * static_cast<double>(q.dim(1) * q.dim(2)) *
               visible_pairs(static_cast<double>(q.dim(0)), static_cast<double>(sequences), context,
                             options.sliding_window);
  const double read =
      row_bytes * std::min(slots, context * static_cast<double>(std::min(sequences, q.dim(0))));
  const double written = row_bytes * static_cast<double>(q.dim(0));
  cost.updates = {{3, 1, read, written}};

  const Json key = {{"kernel", kOp},
                    {"chip", kernels.chip()},
                    {"tokens", q.dim(0)},
                    {"q_heads", q.dim(1)},
                    {"kv_heads", layout.kv_heads},
                    {"head_dim", q.dim(2)},
                    {"pages", cache.dim(0)},
                    {"page_size", cache.dim(1)},
                    {"sequences", sequences},
                    {"pages_per_sequence", pages},
                    {"dtype", dtype_name(q.dtype())},
                    {"cache_dtype", dtype_name(cache.dtype())},
                    {"scale", options.scale},
                    {"window", options.sliding_window.value_or(0)},
                    {"soft_cap", options.soft_cap.value_or(0)},
                    {"sinks", options.sinks.has_value()},
                    {"flops", static_cast<int64_t>(cost.flops)},
                    {"bytes", static_cast<int64_t>(read + written)}};
  ir::Values operands = {q,
                         rows.keys,
                         *rows.values,
                         cache,
                         batch.kv_lens,
                         batch.page_indices,
                         batch.cu_q_lens,
                         batch.distribution};
  if (options.sinks) operands.push_back(ir::convert(*options.sinks, DType::kF32));
  std::vector<Shape> shapes;
  for (const ir::Value operand : operands) shapes.push_back(operand.shape());
  const ir::Function* function = kernels.function(q.function().module(), key, shapes,
                                                  {q.shape(), cache.shape()}, std::move(cost));
  if (function == nullptr) return std::nullopt;
  const ir::Values results = ir::call(*function, operands);
  return AttentionResult{results[0], results[1]};
}

}  // namespace ttpu::kernels
