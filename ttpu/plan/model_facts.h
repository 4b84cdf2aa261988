// What a model needs of a machine, counted from its specification alone.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "ttpu/nn/decoder.h"

namespace ttpu::plan {

struct ModelFacts {
  // Parameters, by what divides them among devices.
  double vocab_params = 0;   // embedding, and the head where it is not tied to it
  double head_params = 0;    // query and output projections: by heads
  double kv_params = 0;      // key and value projections: by KV heads
  double mlp_params = 0;     // dense MLPs and shared experts: by inner dimension
  double expert_params = 0;  // of all experts
  double whole_params = 0;   // norms, routers, latent projections: on every device

  // Layers that attend alike.
  struct Attention {
    int64_t layers = 0;
    int64_t heads = 0;
    int64_t kv_heads = 0;     // 0: a latent that all heads share
    int64_t cache_width = 0;  // numbers that a token takes in the cache of one layer
    double pair_flops = 0;    // of all heads, for a token and a position that it sees
    std::optional<int64_t> window;
    // Numbers of a token in queries and outputs of all heads. Where it trains, a latent is written
    // out as keys as wide as the queries, and values as wide as the outputs.
    int64_t query_width = 0;
    int64_t output_width = 0;
  };
  std::vector<Attention> attention;
  int64_t layers = 0;
  std::vector<int64_t> stages;  // of a pipeline, more than one, which would be alike
  int64_t hidden = 0;
  int64_t vocab = 0;
  int64_t intermediate = 0;  // the widest inner dimension that a token goes through
  int64_t moe_layers = 0;
  int64_t experts = 0;
  int64_t top_k = 0;
  int64_t max_positions = 0;

  double params() const;
  // Of experts, the share that `tokens` tokens reach, each choosing evenly.
  double reached_experts(double tokens) const;
  // Parameters that a token is multiplied with.
  double active_params() const;
};

ModelFacts facts_of(const nn::DecoderSpec& spec);

}  // namespace ttpu::plan
