#include "ttpu/engine/capacity.h"

#include <algorithm>
#include <fstream>
#include <tuple>

#include "ttpu/base/error.h"
#include "ttpu/engine/cache_shape.h"

namespace ttpu::engine {
namespace {

int64_t total_bytes(const nn::DecoderSpec& spec, const std::vector<KvGroup>& groups,
                    const CapacityRequest& request) {
  int64_t bytes = 0;
  for (const nn::LayerSpec& layer : spec.layers) {
    const int64_t of_block = block_bytes(layer, request.block_size, request.cache_dtype,
                                         request.layout, request.platform);
    for (const KvGroup& group : groups) {
      if (group.window == window_of(layer)) bytes += group.blocks * of_block;
    }
  }
  return bytes;
}

// Holds --num-blocks against the memory, and against what numbers of pages count.
void check_num_blocks(const nn::DecoderSpec& spec, std::vector<KvGroup> groups,
                      const CapacityRequest& request) {
  const auto bytes_with = [&](int64_t blocks) {
    for (KvGroup& group : groups) {
      if (!group.window) group.blocks = blocks;
    }
    return total_bytes(spec, groups, request);
  };
  const int64_t windows = bytes_with(0);
  const int64_t of_block = bytes_with(1) - windows;
  if (of_block == 0) return;  // every layer has a window
  const int64_t fit = std::max<int64_t>(request.cache_bytes - windows, 0) / of_block;
  const int64_t most = std::min<int64_t>(fit, INT32_MAX);
  if (request.num_blocks <= most) return;
  fail(Code::kResourceExhausted,
       "[cache] --num-blocks is {}, but at most {} blocks of {} tokens, {} bytes each, fit; lower "
       "it{}",
       request.num_blocks, most, request.block_size, of_block,
       windows > 0 ? " or --max-num-seqs" : "");
}

}  // namespace

std::optional<DType> cache_dtype_of(std::string_view name) {
  if (name == "auto") return std::nullopt;
  if (name == "bf16" || name == "bfloat16") return DType::kBF16;
  if (name == "f32" || name == "float32") return DType::kF32;
  if (name == "int8") return DType::kS8;
  if (name == "fp8" || name == "fp8_e4m3") return DType::kF8E4M3FN;
  fail(Code::kInvalidArgument,
       "[cache] --kv-cache-dtype is '{}', expected auto, bf16, f32, int8 or fp8", name);
}

std::vector<KvGroup> plan_cache(const nn::DecoderSpec& spec, const CapacityRequest& request) {
  std::vector<KvGroup> least;
  for (const std::optional<int64_t>& window : kv_windows(spec)) {
    least.push_back({blocks_of_sequence(window, request.max_model_len,
                                        request.max_num_batched_tokens, request.block_size),
                     window});
  }
  const int64_t least_bytes = total_bytes(spec, least, request);
  if (least_bytes > request.cache_bytes) {
    fail(Code::kResourceExhausted,
         "[cache] one sequence of {} tokens needs {} MB of cache, {} MB are left for it; lower "
         "--max-model-len or raise --memory-fraction",
         request.max_model_len, least_bytes >> 20, request.cache_bytes >> 20);
  }
  const auto wanted = static_cast<double>(request.max_num_seqs);
  const double fit = static_cast<double>(request.cache_bytes) / static_cast<double>(least_bytes);
  const double sequences = request.num_blocks > 0 ? wanted : std::min(wanted, fit);
  std::vector<KvGroup> groups = least;
  for (KvGroup& group : groups) {
    const auto most = static_cast<int64_t>(static_cast<double>(group.blocks) * sequences);
    if (request.num_blocks == 0 || group.window) {
      group.blocks = most;
      continue;
    }
    require(request.num_blocks >= group.blocks,
            "[cache] --num-blocks is {}, but one sequence of {} tokens takes {}; raise it or lower "
            "--max-model-len",
            request.num_blocks, request.max_model_len, group.blocks);
    group.blocks = request.num_blocks;
  }
  if (request.num_blocks > 0) check_num_blocks(spec, groups, request);
  return groups;
}

std::vector<Bucket> plan_buckets(int64_t max_num_seqs, int64_t max_num_batched_tokens,
                                 int64_t drafts) {
  std::vector<Bucket> buckets;
  const int64_t rows = 1 + drafts;
  const auto add = [&](int64_t tokens, int64_t sequences, int64_t of_each) {
    buckets.push_back({tokens, sequences, sequences * of_each});
  };
  std::vector<int64_t> sizes;
  for (int64_t size = 1; size < max_num_seqs; size *= 2) sizes.push_back(size);
  sizes.push_back(max_num_seqs);
  for (const int64_t size : sizes) {
    add(size, size, 1);
    if (drafts > 0) add(size * rows, size, rows);
  }
  for (int64_t tokens = 16; tokens < max_num_batched_tokens; tokens *= 2) {
    if (tokens > max_num_seqs) add(tokens, max_num_seqs, rows);
  }
  if (max_num_batched_tokens > max_num_seqs) add(max_num_batched_tokens, max_num_seqs, rows);
  // The one that computes least comes first.
  std::sort(buckets.begin(), buckets.end(), [](const Bucket& a, const Bucket& b) {
    return std::tie(a.tokens, a.rows, a.sequences) < std::tie(b.tokens, b.rows, b.sequences);
  });
  buckets.erase(std::unique(buckets.begin(), buckets.end()), buckets.end());
  return buckets;
}

int64_t available_memory() {
  std::ifstream file("/proc/meminfo");
  std::string name;
  int64_t kilobytes = 0;
  std::string unit;
  while (file >> name >> kilobytes) {
    std::getline(file, unit);
    if (name == "MemAvailable:") return kilobytes * 1024;
  }
  fail(Code::kUnavailable,
       "[cache] /proc/meminfo does not say how much memory is available; give "
       "--num-blocks");
}

}  // namespace ttpu::engine
