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
  if (layout.shared) return "the kernel has no keys that are values too";
  if (!options.causal) return "the kernel is for attention to what stands before";
  if (q.dtype() != DType::kBF16) {
    return fmt::format("queries of {}; the kernel is for bf16", dtype_name(q.dtype()));
  }
  if (cache.dtype() == DType::kS8) {
    return fmt::format(
        "an int8 cache with blocks of {} tokens and {} key heads of {} on a device; "
        "the kernel is for blocks of multiples of 4 and heads that fill lanes of 128",
        cache.dim(1), layout.kv_heads, q.dim(2));
  }
  if (cache.dtype() != DType::kBF16 && cache.dtype() != DType::kF8E4M3FN) {
    return fmt::format("a cache of {}; the kernel is for bf16 and fp8", dtype_name(cache.dtype()));
  }
  const int64_t size = q.dim(2);
  const bool small = size == 64;
  if (!small && size % 128 != 0) {
    return fmt::format("heads of {}; the kernel is for 64 and multiples of 128", size);
  }
  if (options.context) {
    return fmt::format("{} slots of a block on each of {} devices; raise the block size",
                       cache.dim(1), options.context->parts);
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

ir::TextBody attention_work(const AttentionSizes& sizes, const RaggedBatch& batch) {
  const int64_t sequences = batch.kv_lens.dim(0);
  const auto tokens = static_cast<double>(sizes.tokens);
  const int64_t pages = batch.page_indices.dim(0) / sequences;
  const auto own = static_cast<double>(pages * sizes.page_size);
  const auto parts = static_cast<double>(sizes.parts);
  ir::TextBody work;
  work.flops = sizes.flops / parts *
               visible_pairs(tokens, static_cast<double>(sequences), own * parts, sizes.window);
  const double read =
      sizes.row_bytes * std::min(static_cast<double>(sizes.slots),
                                 own * std::min(static_cast<double>(sequences), tokens));
  work.updates = {{sizes.cache, sizes.result, read, sizes.row_bytes * tokens / parts}};
  return work;
}

Json attention_key(const TpuKernels& kernels, const char* op, ir::Value q, DType cache,
                   const AttentionSizes& sizes, const RaggedBatch& batch, double scale,
                   const ir::TextBody& work) {
  const int64_t sequences = batch.kv_lens.dim(0);
  const ir::TextBody::Update& cached = work.updates.at(0);
  return {{"kernel", op},
          {"chip", kernels.chip()},
          {"tokens", q.dim(0)},
          {"q_heads", q.dim(1)},
          {"head_dim", q.dim(2)},
          {"pages", sizes.slots / sizes.page_size},
          {"page_size", sizes.page_size},
          {"sequences", sequences},
          {"pages_per_sequence", batch.page_indices.dim(0) / sequences},
          {"dtype", dtype_name(q.dtype())},
          {"cache_dtype", dtype_name(cache)},
          {"scale", scale},
          {"flops", static_cast<int64_t>(work.flops)},
          {"bytes", static_cast<int64_t>(cached.read_bytes + cached.written_bytes)}};
}

ir::Values call_tpu_attention(TpuKernels& kernels, const Json& key, const ir::Values& operands,
                              const std::vector<Shape>& results, ir::TextBody work) {
  std::vector<Shape> shapes;
  for (const ir::Value operand : operands) shapes.push_back(operand.shape());
  const ir::Function* function =
      kernels.function(operands[0].function().module(), key, shapes, results, std::move(work));
  return function == nullptr ? ir::Values{} : ir::Values(ir::call(*function, operands));
}

std::optional<AttentionResult> tpu_attention(TpuKernels& kernels, ir::Value q, const NewRows& rows,
                                             ir::Value cache, const CacheLayout& layout,
                                             const RaggedBatch& batch,
                                             const AttentionOptions& options) {
  if (const std::string reason = reason_against(q, cache, layout, options); !reason.empty()) {
    kernels.note_reference(kOp, reason);
    return std::nullopt;
  }
  const auto row_bytes =
      static_cast<double>(cache.dim(2) * cache.dim(3)) * bit_width(cache.dtype()) / 8;
  const double flops = 4 * static_cast<double>(q.dim(1) * q.dim(2));
  const AttentionSizes sizes{
      flops, row_bytes, q.dim(0), cache.dim(0) * cache.dim(1), cache.dim(1), options.sliding_window,
      3};
  ir::TextBody work = attention_work(sizes, batch);
  Json key = attention_key(kernels, kOp, q, cache.dtype(), sizes, batch, options.scale, work);
  key.update({{"kv_heads", layout.kv_heads},
              {"window", options.sliding_window.value_or(0)},
              {"soft_cap", options.soft_cap.value_or(0)},
              {"sinks", options.sinks.has_value()}});
  ir::Values operands = {q,
                         rows.keys,
                         *rows.values,
                         cache,
                         batch.kv_lens,
                         batch.page_indices,
                         batch.cu_q_lens,
                         batch.distribution};
  if (options.sinks) operands.push_back(ir::convert(*options.sinks, DType::kF32));
  const ir::Values made =
      call_tpu_attention(kernels, key, operands, {q.shape(), cache.shape()}, std::move(work));
  if (made.empty()) return std::nullopt;
  return AttentionResult{made[0], made[1]};
}

}  // namespace ttpu::kernels
