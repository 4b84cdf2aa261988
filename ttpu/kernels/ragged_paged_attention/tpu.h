// The Mosaic kernel of tpu-inference, ragged paged attention v3, in the operator's place.
#pragma once

#include <optional>
#include <vector>

#include "ttpu/kernels/ragged_paged_attention/reference.h"

namespace ttpu::kernels {

// As reference::paged_attention, queries and keys turned already; nothing where no kernel fits, the
// reason noted in `kernels`.
std::optional<AttentionResult> tpu_attention(TpuKernels& kernels, ir::Value q, const NewRows& rows,
                                             ir::Value cache, const CacheLayout& layout,
                                             const RaggedBatch& batch,
                                             const AttentionOptions& options);

// What one call of such a kernel does, for those who price it.
struct AttentionSizes {
  double flops = 0;      // of a query, in all its heads, and a position that it sees
  double row_bytes = 0;  // of one position in the cache
  int64_t tokens = 0;
  int64_t slots = 0;      // positions that the device's cache holds
  int64_t page_size = 0;  // of them in a page
  std::optional<int64_t> window = {};
  size_t cache = 0;   // the place of the cache among the arguments
  size_t result = 1;  // and among the results
  int64_t parts = 1;  // devices among which a page is divided
};
ir::TextBody attention_work(const AttentionSizes& sizes, const RaggedBatch& batch);

// What the keys of all of these kernels tell (tools/tpu_kernels/kernels.py). `work` as above.
Json attention_key(const TpuKernels& kernels, const char* op, ir::Value q, DType cache,
                   const AttentionSizes& sizes, const RaggedBatch& batch, double scale,
                   const ir::TextBody& work);

// Calls the kernel of `key`; without results there is none.
ir::Values call_tpu_attention(TpuKernels& kernels, const Json& key, const ir::Values& operands,
                              const std::vector<Shape>& results, ir::TextBody work);

}  // namespace ttpu::kernels
