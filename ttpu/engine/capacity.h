// How large the engine's caches and batches are.
#pragma once

#include <optional>
#include <string_view>

#include "ttpu/engine/engine_program.h"
#include "ttpu/engine/kv_cache.h"

namespace ttpu::engine {

// The cache's type by the name that vLLM has for it; none: that of the activations. Throws
// kInvalidArgument for another name.
std::optional<DType> cache_dtype_of(std::string_view name);

struct CapacityRequest {
  int64_t max_model_len = 0;
  int64_t max_num_seqs = 1;
  int64_t max_num_batched_tokens = 1024;
  int64_t block_size = 64;
  int64_t num_blocks = 0;   // of groups without a window; 0: as many as are useful and fit
  int64_t cache_bytes = 0;  // at most
  DType cache_dtype = DType::kBF16;
  parallel::Layout layout = {};  // of one replica: how its devices have parts of a block
  kernels::Platform platform = kernels::Platform::kCpu;
};

// The blocks of each group of layers: enough for all sequences at full length, less where memory is
// short. Throws kResourceExhausted when not even one sequence fits, or not num_blocks.
std::vector<KvGroup> plan_cache(const nn::DecoderSpec& spec, const CapacityRequest& request);

// Decode steps in powers of two, the same with `drafts` guesses a sequence, and steps with prompts
// for all sequences.
std::vector<Bucket> plan_buckets(int64_t max_num_seqs, int64_t max_num_batched_tokens,
                                 int64_t drafts);

// Bytes of memory that this machine could still give out. Throws kUnavailable when it does not say.
int64_t available_memory();

}  // namespace ttpu::engine
