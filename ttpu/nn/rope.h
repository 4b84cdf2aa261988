// Rotary position embedding and its scalings, as transformers computes them
// (modeling_rope_utils.py): default, linear, dynamic, yarn, longrope and llama3.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "ttpu/base/json.h"
#include "ttpu/ir/value.h"

namespace ttpu::nn {

struct RopeSpec {
  std::string type = "default";
  int64_t dim = 0;  // rotated dimensions of a head, even
  double theta = 10000;
  double factor = 1;
  int64_t max_positions = 0;           // the model's
  int64_t original_max_positions = 0;  // before scaling
  // llama3
  double low_freq_factor = 1;
  double high_freq_factor = 4;
  // yarn
  double beta_fast = 32;
  double beta_slow = 1;
  bool truncate = true;
  std::optional<double> mscale;
  std::optional<double> mscale_all_dim;
  std::optional<double> attention_factor;
  // longrope
  std::vector<double> short_factor;
  std::vector<double> long_factor;

  bool operator==(const RopeSpec&) const = default;
};

// Reads `rope_scaling` (before transformers 5) or `rope_parameters`, with `rope_theta` beside it
// where they have none. When both stand there, the old form holds, as in transformers.
RopeSpec rope_from_config(const JsonView& config, int64_t head_dim);

// The factor on cos and sin.
double rope_attention_factor(const RopeSpec& spec);
// yarn's 0.1 * mscale * ln(scale) + 1
double yarn_mscale(double scale, double mscale);

struct RotaryTable {
  ir::Value cos;  // [tokens, dim / 2] f32
  ir::Value sin;
};
// positions: [tokens] i32.
RotaryTable rotary_table(const RopeSpec& spec, ir::Value positions);

}  // namespace ttpu::nn
