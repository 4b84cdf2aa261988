// Self-attention over the paged cache: plain multi-head and grouped-query attention with its
// options, and DeepSeek's multi-head latent attention.
#pragma once

#include <optional>
#include <string>

#include "ttpu/kernels/mla_attention/mla_attention.h"
#include "ttpu/kernels/ragged_paged_attention/ragged_paged_attention.h"
#include "ttpu/nn/layers.h"
#include "ttpu/nn/rope.h"

namespace ttpu::nn {

struct AttentionSpec {
  // Names of the modules. `qkv` not empty: one fused matrix, laid out as `layout` says.
  std::string q, k, v, o;
  std::string qkv;
  enum class Layout {
    kConcatenated,
    kPerHead
  } layout = Layout::kConcatenated;  // kPerHead: GPT-NeoX
  bool transposed = false;           // GPT-2
  int64_t hidden = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  bool qkv_bias = false;
  bool o_bias = false;
  NormSpec q_norm, k_norm;       // kNone: none
  bool norm_whole = false;       // OLMo 2: over all heads together, not each
  std::optional<RopeSpec> rope;  // none: no positions (NoPE layers, GPT-2)
  double scale = 0;
  bool causal = true;  // false: every token sees the whole sequence
  std::optional<int64_t> sliding_window;
  std::optional<double> soft_cap;
  std::string sinks;  // name of the tensor [heads], empty: none
};

// Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434), in its absorbed form: the cache
// holds the latent and the shared rotary key alone.
struct MlaSpec {
  std::string prefix;  // "model.layers.0.self_attn."
  int64_t hidden = 0;
  int64_t heads = 0;
  int64_t q_lora_rank = 0;  // 0: q_proj straight from hidden
  int64_t kv_lora_rank = 0;
  int64_t qk_nope_head_dim = 0;
  int64_t qk_rope_head_dim = 0;
  int64_t v_head_dim = 0;
  bool bias = false;
  double epsilon = 1e-6;
  RopeSpec rope;
  bool interleaved_rope = true;
  double scale = 0;
};

// What one step of the engine brings to every layer.
struct StepInputs {
  ir::Value tokens;     // [tokens] i32
  ir::Value positions;  // [tokens] i32
  kernels::RaggedBatch batch;
  // Tables of pages of layers with a sliding window, where those have pages of their own; others
  // use the batch's.
  std::vector<std::pair<int64_t, ir::Value>> window_pages = {};
  // In training, where there is no cache (and no batch): tokens are sequences of so many each, one
  // after another.
  int64_t sequence_length = 0;

  kernels::RaggedBatch batch_for(std::optional<int64_t> sliding_window) const;
};

// Gives the rotary table of a specification, made once a program.
class RotaryTables {
 public:
  explicit RotaryTables(ir::Value positions) : positions_(positions) {}
  const RotaryTable& get(const RopeSpec& spec);

 private:
  ir::Value positions_;
  std::vector<std::pair<RopeSpec, RotaryTable>> tables_;
};

// One layer's cache of a type: [pages, page_size, ...]; the dimensions after those two.
Dims cache_dims(const AttentionSpec& spec, DType cache_dtype);
Dims cache_dims(const MlaSpec& spec, DType cache_dtype);

// How it is divided, and what a device has of `shape`, that of a whole replica's cache.
parallel::Placement cache_placement(const parallel::Layout& layout, const AttentionSpec& spec);
parallel::Placement cache_placement(const parallel::Layout& layout, const MlaSpec& spec);

struct LayerResult {
  ir::Value output;  // [tokens, hidden], of the device's part of the tokens
  ir::Value cache;   // updated
};
// x: the device's part of the tokens. cache: what it has of it, empty in training.
LayerResult attention(Context& context, const AttentionSpec& spec, ir::Value x, ir::Value cache,
                      const StepInputs& inputs, RotaryTables& tables);
LayerResult attention(Context& context, const MlaSpec& spec, ir::Value x, ir::Value cache,
                      const StepInputs& inputs, RotaryTables& tables);

}  // namespace ttpu::nn
