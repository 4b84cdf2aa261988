// The parts that decoders are made of: specifications as plain structs, and functions that build
// them into a program. x is [tokens, features] throughout.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "ttpu/kernels/linear/linear.h"
#include "ttpu/kernels/norm/norm.h"
#include "ttpu/nn/weights.h"

namespace ttpu::nn {

struct LinearSpec {
  std::string name;  // of the module: the weight is name + ".weight"
  int64_t in = 0;
  int64_t out = 0;
  bool bias = false;
  Axes axes = {};           // of the weight [out, in]
  bool transposed = false;  // the checkpoint has [in, out] (GPT-2's Conv1D)
  Dims units = {};          // as WeightDecl has them
  std::vector<Segment> segments = {};
  bool quantizable = true;  // as WeightDecl has it
  parallel::Division ring = {};
  int64_t places = 0;  // as WeightDecl has them
};
kernels::WeightOperand linear_weight(Context& context, const LinearSpec& spec);
std::optional<ir::Value> linear_bias(Context& context, const LinearSpec& spec);
// Where rows of the weight are divided, y is what the device has of them.
ir::Value linear(Context& context, const LinearSpec& spec, const kernels::Rows& x,
                 std::optional<DType> result = std::nullopt);
// Where columns are divided, x is what the device has of its features; the devices' products are
// added, and the sum is the device's part of the tokens.
ir::Value linear_sum(Context& context, const LinearSpec& spec, const kernels::Rows& x);
// The bias, if it has one, of a sum of devices' products.
ir::Value with_bias(Context& context, const LinearSpec& spec, ir::Value sum);

// Between attention and MLP a device may have a part of the tokens (Context::tokens). All of them:
ir::Value all_tokens(Context& context, ir::Value x);
// What `products` with these weights gives of each of all the tokens, given the device's part of
// them.
using RowProducts = std::function<ir::Values(const kernels::Rows& rows)>;
ir::Values of_all_tokens(Context& context, ir::Value own,
                         const std::vector<kernels::WeightOperand>& weights,
                         const RowProducts& products);
// Those at `indices` (i32), on every device.
ir::Value take_tokens(Context& context, ir::Value own, ir::Value indices);
// Its part of what all devices have, and of what is the sum over a division's devices.
ir::Value own_tokens(Context& context, ir::Value x);
ir::Value sum_tokens(Context& context, ir::Value partial, const parallel::Division& division);

// The rows of the table [rows, hidden] at `indices` [tokens] i32, in the compute type, of the
// device's part of the tokens. `axis`: of the rows.
ir::Value embedding(Context& context, const std::string& weight, int64_t rows, int64_t hidden,
                    ir::Value indices, const std::string& axis = "vocab");

enum class NormKind { kNone, kRms, kLayer };
struct NormSpec {
  NormKind kind = NormKind::kNone;
  std::string name;
  int64_t dim = 0;
  double epsilon = 1e-6;
  bool one_plus = false;  // Gemma: the weight is stored less one, and applied in float32
  bool bias = false;
  bool scaled_in_f32 = false;  // the weight is applied before rounding to the compute type
};
// Over the last dimension, in float32 inside.
ir::Value norm(Context& context, const NormSpec& spec, ir::Value x);
// The sum of x and what a block adds to it, and the norm of the sum.
kernels::AddNormResult add_norm(Context& context, const NormSpec& spec, ir::Value x,
                                ir::Value delta);

// By the name in transformers' ACT2FN: "silu", "gelu" and the names of its tanh form. Throws
// kInvalidArgument for another.
kernels::Activation activation_from_config(const std::string& name);

struct MlpSpec {
  std::string gate;  // empty: no gate
  std::string up;    // gate and up in one matrix where `fused` is set
  std::string down;
  int64_t hidden = 0;
  int64_t intermediate = 0;
  kernels::Activation activation = kernels::Activation::kSilu;
  bool bias = false;
  bool fused = false;       // `up` holds gate then up: [2 * intermediate, hidden]
  bool transposed = false;  // GPT-2
};
// Of the device's part of the tokens.
ir::Value mlp(Context& context, const MlpSpec& spec, ir::Value own);

}  // namespace ttpu::nn
