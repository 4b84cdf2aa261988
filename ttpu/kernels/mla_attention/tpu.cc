#include "ttpu/kernels/mla_attention/tpu.h"

#include <string>

#include <fmt/format.h>

#include "ttpu/ir/ir.h"
#include "ttpu/kernels/ragged_paged_attention/tpu.h"

namespace ttpu::kernels {
namespace {

constexpr const char* kOp = "mla_attention";

// Why the kernel cannot be asked for; empty when it can.
std::string reason_against(ir::Value q, int64_t rank) {
  if (q.dtype() != DType::kBF16) {
    return fmt::format("queries of {}; the kernel is for bf16", dtype_name(q.dtype()));
  }
  if (rank % 128 != 0) {
    return fmt::format("a latent of {}; the kernel is for multiples of 128", rank);
  }
  return "";
}

}  // namespace

std::optional<AttentionResult> tpu_latent_attention(TpuKernels& kernels, ir::Value q,
                                                    ir::Value rows, int64_t rank, ir::Value cache,
                                                    const RaggedBatch& batch,
                                                    const MlaOptions& options) {
  if (const std::string reason = reason_against(q, rank); !reason.empty()) {
    kernels.note_reference(kOp, reason);
    return std::nullopt;
  }
  const int64_t page_size = cache.dim(1) * cache.dim(2);
  const double row_bytes = static_cast<double>(cache.dim(3)) * bit_width(cache.dtype()) / 8;
  const double flops = 2 * static_cast<double>(q.dim(1) * (q.dim(2) + rank));
  const AttentionSizes sizes{flops,     row_bytes,    q.dim(0), cache.dim(0) * page_size,
                             page_size, std::nullopt, 2};
  ir::TextBody work = attention_work(sizes, batch);
  Json key = attention_key(kernels, kOp, q, cache.dtype(), sizes, batch, options.scale, work);
  key.update({{"kv_heads", 1}, {"rank", rank}});
  const Shape output(q.dtype(), {q.dim(0), q.dim(1), rank});
  const ir::Values made = call_tpu_attention(
      kernels, key,
      {q, rows, cache, batch.kv_lens, batch.page_indices, batch.cu_q_lens, batch.distribution},
      {output, cache.shape()}, std::move(work));
  if (made.empty()) return std::nullopt;
  return AttentionResult{made[0], made[1]};
}

}  // namespace ttpu::kernels
