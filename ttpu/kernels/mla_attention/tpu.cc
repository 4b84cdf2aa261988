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
  ir::TextBody work = attention_work(
      {flops, row_bytes, q.dim(0), cache.dim(0) * page_size, page_size, std::nullopt, 2}, batch);
  const ir::TextBody::Update& cached = work.updates.at(0);
  const Json key = {{"kernel", kOp},
                    {"chip", kernels.chip()},
                    {"tokens", q.dim(0)},
                    {"q_heads", q.dim(1)},
                    {"kv_heads", 1},
                    {"head_dim", q.dim(2)},
                    {"rank", rank},
                    {"pages", cache.dim(0)},
                    {"page_size", page_size},
                    {"sequences", batch.kv_lens.dim(0)},
                    {"pages_per_sequence", batch.page_indices.dim(0) / batch.kv_lens.dim(0)},
                    {"dtype", dtype_name(q.dtype())},
                    {"cache_dtype", dtype_name(cache.dtype())},
                    {"scale", options.scale},
                    {"flops", static_cast<int64_t>(work.flops)},
                    {"bytes", static_cast<int64_t>(cached.read_bytes + cached.written_bytes)}};
  const Shape output(q.dtype(), {q.dim(0), q.dim(1), rank});
  const ir::Values made = call_tpu_attention(
      kernels, key,
      {q, rows, cache, batch.kv_lens, batch.page_indices, batch.cu_q_lens, batch.distribution},
      {output, cache.shape()}, std::move(work));
  if (made.empty()) return std::nullopt;
  return AttentionResult{made[0], made[1]};
}

}  // namespace ttpu::kernels
