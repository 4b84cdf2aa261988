// y = x Wᵀ (+ bias), with W row-major [out, in] as checkpoints store it, dense or in ggml's blocks.
// One custom call where the target has the CPU kernel, else StableHLO. Sums are f32.
//
// The reference computes in f32 when x or a dense W is f32, else in bf16 (f16 weights are widened
// to f32); blocked weights and those with scales of groups are expanded to the dtype of x. Scales
// of rows are multiplied after the product; those of blocks, where x has no more rows than a block,
// with x before it, so that the weight is read as it is stored. With rounded Rows the product is
// i8 x i8 -> i32 or f8 x f8 -> f32. What the CPU kernels round: linear/cpu/kernel.h; they take i8
// weights with scales of rows and leave x as it is.
#pragma once

#include <optional>
#include <vector>

#include "ttpu/base/encoding.h"
#include "ttpu/ir/value.h"
#include "ttpu/kernels/registry.h"

namespace ttpu::kernels {

struct WeightOperand {
  // Dense: bf16, f16, f32, or i4, i8, f4E2M1FN or f8E4M3FN with `scales`, of shape `dims`, but with
  // scales of groups [.., groups, group, out], so that the TPU compiler makes the numbers where a
  // product reads the values: of [.., out, in] it spreads the scales first, which takes ten times
  // as long as the product of a step of decoding. Blocked: ui8, the last dimension being the bytes
  // of a row.
  ir::Value value;
  Encoding encoding = Encoding::kDense;
  Dims dims;  // [out, in], or [experts, out, in]
  // A factor for each row (dims without the last, f32), or for each block of equally many rows and
  // columns (dims with the numbers of blocks as the last two; any floats). Groups are blocks of one
  // row.
  ir::Value scales = {};
  ir::Value zero_points = {};  // of blocks, taken from the values first; floats
  bool quantize_activations = false;
};

enum class Activation { kSilu, kGeluTanh, kGelu };

// [.., out, in] to [.., groups, group, out], as a weight of groups is stored. Small groups lie
// together, as many as make up to 64 columns, where the TPU compiler would make their numbers apart
// from the product: rows that are no whole tiles, of groups of fewer than 32 or more than 64 of
// them.
Dims dims_by_groups(Dims dims, int64_t groups);

// Activations [..., in]: numbers, or values of a weight's type with a scale for each row, f32
// [...], that brings its largest number to the type's largest.
struct Rows {
  // NOLINTNEXTLINE(google-explicit-constructor): numbers are rows as they are
  Rows(ir::Value numbers) : values(numbers), dtype(numbers.dtype()) {}
  // As parts() gives them of what were numbers of `dtype`.
  Rows(const ir::Values& parts, DType dtype);
  ir::Values parts() const;

  ir::Value values;
  ir::Value scales = {};
  DType dtype;
};

// x as the products with these weights on so many devices take it. It is rounded where all weights
// have `quantize_activations`; on TPU only where that costs less than it saves: not so few rows
// that they wait for the weight, nor for few columns. linear() and the like do so themselves;
// beforehand where x travels.
Rows rows_for(const Target& target, const Rows& x, const std::vector<WeightOperand>& weights,
              int64_t devices = 1);

// x [..., in] -> [..., out] of `result` (the dtype of x unless given; f32 or bf16). bias: [out].
// Throws kInvalidArgument, with the shapes, where they do not fit.
ir::Value linear(const Target& target, const Rows& x, const WeightOperand& weight,
                 std::optional<ir::Value> bias = std::nullopt,
                 std::optional<DType> result = std::nullopt);

// The products of one x with several weights (q, k and v), in one call. `biases`: empty, or one
// entry a weight.
std::vector<ir::Value> linear_group(const Target& target, const Rows& x,
                                    const std::vector<WeightOperand>& weights,
                                    const std::vector<std::optional<ir::Value>>& biases = {});

// activation(x gateᵀ + gate_bias) * (x upᵀ + up_bias), in one call.
ir::Value gated_linear(const Target& target, const Rows& x, const WeightOperand& gate,
                       const WeightOperand& up, Activation activation,
                       std::optional<ir::Value> gate_bias = std::nullopt,
                       std::optional<ir::Value> up_bias = std::nullopt);

// y[t] = x[t] · W[expert_ids[t]]ᵀ (+ bias[expert_ids[t]]) with x [rows, in], expert_ids [rows] i32
// in any order, stacked dims [experts, out, in], bias [experts, out]. An id outside [0, experts)
// gives zeros. The reference gathers weights for few rows, computes all experts for some, and for
// many sorts them by expert and multiplies blocks of one expert's rows in a loop.
ir::Value expert_linear(const Target& target, ir::Value x, ir::Value expert_ids,
                        const WeightOperand& stacked, std::optional<ir::Value> bias = std::nullopt);

// Rows of the table [vocab, hidden] for tokens (i32, any shape), as `dtype`; blocked rows are
// expanded after they were taken.
ir::Value embedding(const Target& target, const WeightOperand& table, ir::Value tokens,
                    DType dtype);

// The activation alone, computed in f32 and rounded to the dtype of x.
ir::Value activate(Activation activation, ir::Value x);

// The whole weight, expanded, of shape dims.
ir::Value dense(const WeightOperand& weight, DType dtype);

// Rows of ggml blocks, ui8 [..., row_bytes], to numbers [..., in], in StableHLO.
ir::Value dequantize(ir::Value bytes, Encoding encoding, DType dtype);

}  // namespace ttpu::kernels
