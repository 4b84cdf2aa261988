#include "ttpu/kernels/linear/linear.h"

#include <functional>

#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"
#include "ttpu/kernels/linear/cpu/handlers.h"
#include "ttpu/kernels/linear/cpu/kernel.h"
#include "ttpu/kernels/linear/reference.h"
#include "ttpu/kernels/linear/rows.h"
#include "ttpu/kernels/linear/scales.h"

namespace ttpu::kernels {
namespace {

using ir::Value;

bool is_activation(DType dtype) { return dtype == DType::kBF16 || dtype == DType::kF32; }

void check_scales(const char* op, const WeightOperand& weight) {
  const DType dtype = weight.value.dtype();
  const bool small = dtype == DType::kS4 || dtype == DType::kS8 || dtype == DType::kF4E2M1FN ||
                     dtype == DType::kF8E4M3FN;
  const bool quantized = weight.encoding == Encoding::kDense && small;
  require(quantized == static_cast<bool>(weight.scales), "[{}] {}", op,
          quantized ? fmt::format("an {} weight needs scales", dtype_name(dtype))
                    : "scales belong to i4, i8, f4E2M1FN and f8E4M3FN weights only");
  if (!quantized) return;
  Dims rows(weight.dims.begin(), weight.dims.end() - 1);
  if (has_row_scales(weight)) {
    require(weight.scales.shape() == Shape(DType::kF32, rows) && !weight.zero_points,
            "[{}] scales are {}, expected {} and no zero points", op,
            weight.scales.shape().to_string(), Shape(DType::kF32, rows).to_string());
    return;
  }
  const Dims& blocks = weight.scales.dims();
  bool fits = blocks.size() == weight.dims.size() && is_float(weight.scales.dtype());
  for (size_t i = 0; fits && i < blocks.size(); ++i) {
    const bool divides = blocks[i] > 0 && weight.dims[i] % blocks[i] == 0;
    fits = i + 2 < blocks.size() ? blocks[i] == weight.dims[i] : divides;
  }
  require(fits,
          "[{}] scales are {} for a weight {}; expected floats, one for each group of columns or "
          "block of rows and columns",
          op, weight.scales.shape().to_string(), dims_to_string(weight.dims));
  require(!weight.zero_points ||
              (weight.zero_points.dims() == blocks && is_float(weight.zero_points.dtype())),
          "[{}] zero points and scales differ in shape", op);
}

void check_weight(const char* op, const WeightOperand& weight, size_t rank) {
  require(static_cast<bool>(weight.value), "[{}] no weight was given", op);
  require(weight.dims.size() == rank, "[{}] weight has logical dimensions {}, expected {} of them",
          op, dims_to_string(weight.dims), rank);
  Dims stored = weight.dims;
  if (weight.encoding != Encoding::kDense) {
    const int64_t elements = block_elements(weight.encoding);
    require(stored.back() % elements == 0,
            "[{}] a row of {} elements is no whole number of {} blocks of {}", op, stored.back(),
            encoding_name(weight.encoding), elements);
    stored.back() = stored.back() / elements * block_bytes(weight.encoding);
    require(weight.value.dtype() == DType::kU8, "[{}] {} weight is {}, expected ui8", op,
            encoding_name(weight.encoding), weight.value.shape().to_string());
  }
  check_scales(op, weight);
  if (has_group_scales(weight)) {
    stored = dims_by_groups(stored, weight.scales.dim(-1));
  }
  require(weight.value.dims() == stored, "[{}] {} weight of {} is stored as {}, expected {}", op,
          encoding_name(weight.encoding), dims_to_string(weight.dims),
          dims_to_string(weight.value.dims()), dims_to_string(stored));
}

void check_operands(const char* op, const Rows& rows, const WeightOperand& weight,
                    const std::optional<Value>& bias, size_t rank) {
  check_weight(op, weight, rank);
  const Value x = rows.values;
  require(!rows.scales || (x.dtype() == weight.value.dtype() && has_row_scales(weight)),
          "[{}] activations are rounded to {} for a weight {} with {}", op, dtype_name(x.dtype()),
          weight.value.shape().to_string(),
          has_row_scales(weight) ? "scales of rows" : "no scales of rows");
  require(x.rank() >= 1 && x.dim(-1) == weight.dims.back(),
          "[{}] activations {} and weight {} differ in the last dimension", op,
          x.shape().to_string(), dims_to_string(weight.dims));
  if (!bias) return;
  const Dims expected(weight.dims.begin(), weight.dims.end() - 1);
  require(bias->dims() == expected, "[{}] bias is {}, expected {}", op, bias->shape().to_string(),
          dims_to_string(expected));
}

bool has_kernel(const Target& target, const Rows& x, const WeightOperand& weight,
                const std::optional<Value>& bias = std::nullopt) {
  if (!target.cpu_kernels() || x.scales || !is_activation(x.dtype)) return false;
  if (bias && !is_activation(bias->dtype())) return false;
  if (weight.encoding != Encoding::kDense) return true;
  const DType dtype = weight.value.dtype();
  return is_activation(dtype) || dtype == DType::kF16 ||
         (dtype == DType::kS8 && has_row_scales(weight));
}

// Appends a product's operands and returns its flags.
int64_t add_operands(const WeightOperand& weight, const std::optional<Value>& bias,
                     ir::Values& operands) {
  int64_t flags = static_cast<int64_t>(weight.encoding);
  operands.push_back(weight.value);
  if (weight.scales) {
    flags |= kHasScales;
    operands.push_back(weight.scales);
  }
  if (bias) {
    flags |= kHasBias;
    operands.push_back(*bias);
  }
  return flags;
}

Shape result_shape(Value x, int64_t out, DType dtype) {
  Dims dims = x.dims();
  dims.back() = out;
  return {dtype, dims};
}

ir::Values call(Value x, const std::vector<const WeightOperand*>& weights,
                const std::vector<std::optional<Value>>& biases, const std::vector<Shape>& results,
                cpu::Activation gate) {
  ir::Values operands = {x};
  Dims products;
  for (size_t i = 0; i < weights.size(); ++i) {
    products.push_back(add_operands(*weights[i], biases[i], operands));
  }
  ir::CustomCallOptions options;
  options.backend_config = {{"gate", static_cast<int64_t>(gate)}, {"products", products}};
  return ir::row_major_call(x.function(), kLinearTarget, operands, results, options);
}

cpu::Activation cpu_activation(Activation activation) {
  switch (activation) {
    case Activation::kSilu:
      return cpu::Activation::kSilu;
    case Activation::kGeluTanh:
      return cpu::Activation::kGeluTanh;
    case Activation::kGelu:
      return cpu::Activation::kGelu;
  }
  return cpu::Activation::kNone;
}

// The TPU compiler computes a product with a single row number by number, several times slower than
// memory gives the weight; with rows of zeros beside it, the matrix unit does it.
Value with_more_rows(const Target& target, const Rows& rows,
                     const std::function<Value(const Rows&)>& product) {
  constexpr int64_t kRows = 8;
  const Value x = rows.values;
  const bool one = x.rank() == 2 && x.dim(0) == 1;
  if (target.platform != Platform::kTpu || !one || rows.scales) return product(rows);
  const Value padded = ir::pad(x, ir::scalar(x.function(), x.dtype(), 0), {0, 0}, {kRows - 1, 0});
  const Value y = product(padded);
  return ir::slice(y, {0, 0}, {1, y.dim(1)});
}

}  // namespace

Rows rows_for(const Target& target, const Rows& x, const std::vector<WeightOperand>& weights,
              int64_t devices) {
  for (const WeightOperand& weight : weights) {
    if (has_kernel(target, x, weight)) return x;
  }
  return reference::rounded_rows(target, x, weights, devices);
}

Value linear(const Target& target, const Rows& x, const WeightOperand& weight,
             std::optional<Value> bias, std::optional<DType> result) {
  check_operands("linear", x, weight, bias, 2);
  const DType dtype = result.value_or(x.dtype);
  if (!has_kernel(target, x, weight, bias) || !is_activation(dtype)) {
    return with_more_rows(target, x, [&](const Rows& rows) {
      return reference::linear(target, rows, weight, bias, dtype);
    });
  }
  const Shape shape = result_shape(x.values, weight.dims[0], dtype);
  return call(x.values, {&weight}, {bias}, {shape}, cpu::Activation::kNone)[0];
}

std::vector<Value> linear_group(const Target& target, const Rows& x,
                                const std::vector<WeightOperand>& weights,
                                const std::vector<std::optional<Value>>& biases) {
  require(biases.empty() || biases.size() == weights.size(),
          "[linear_group] {} weights and {} biases", weights.size(), biases.size());
  std::vector<std::optional<Value>> given(weights.size());
  if (!biases.empty()) given = biases;
  bool kernel = weights.size() <= kMaxProducts;
  std::vector<const WeightOperand*> list;
  std::vector<Shape> shapes;
  for (size_t i = 0; i < weights.size(); ++i) {
    check_operands("linear_group", x, weights[i], given[i], 2);
    kernel = kernel && has_kernel(target, x, weights[i], given[i]);
    list.push_back(&weights[i]);
    shapes.push_back(result_shape(x.values, weights[i].dims[0], x.dtype));
  }
  if (kernel) return call(x.values, list, given, shapes, cpu::Activation::kNone);
  const Rows rows = rows_for(target, x, weights);
  std::vector<Value> results;
  for (size_t i = 0; i < weights.size(); ++i) {
    results.push_back(linear(target, rows, weights[i], given[i]));
  }
  return results;
}

Value gated_linear(const Target& target, const Rows& x, const WeightOperand& gate,
                   const WeightOperand& up, Activation activation, std::optional<Value> gate_bias,
                   std::optional<Value> up_bias) {
  check_operands("gated_linear", x, gate, gate_bias, 2);
  check_operands("gated_linear", x, up, up_bias, 2);
  require(gate.dims == up.dims, "[gated_linear] gate is {} and up {}; they must be equal",
          dims_to_string(gate.dims), dims_to_string(up.dims));
  if (!has_kernel(target, x, gate, gate_bias) || !has_kernel(target, x, up, up_bias)) {
    return with_more_rows(target, rows_for(target, x, {gate, up}), [&](const Rows& rows) {
      return reference::gated_linear(target, rows, gate, up, activation, gate_bias, up_bias);
    });
  }
  const Shape shape = result_shape(x.values, gate.dims[0], x.dtype);
  return call(x.values, {&gate, &up}, {gate_bias, up_bias}, {shape}, cpu_activation(activation))[0];
}

Value expert_linear(const Target& target, Value x, Value expert_ids, const WeightOperand& stacked,
                    std::optional<Value> bias) {
  check_operands("expert_linear", x, stacked, bias, 3);
  require(x.rank() == 2 && expert_ids.shape() == Shape(DType::kS32, {x.dim(0)}),
          "[expert_linear] activations are {} and expert ids {}; expected [rows, in] and [rows] "
          "of i32",
          x.shape().to_string(), expert_ids.shape().to_string());
  if (!has_kernel(target, x, stacked, bias)) {
    return reference::expert_linear(target, x, expert_ids, stacked, bias);
  }
  ir::Values operands = {x, expert_ids};
  const Dims products = {add_operands(stacked, bias, operands)};
  ir::CustomCallOptions options;
  options.backend_config = {{"products", products}};
  const Shape shape = result_shape(x, stacked.dims[1], x.dtype());
  return ir::row_major_call(x.function(), kExpertLinearTarget, operands, {shape}, options)[0];
}

Value embedding(const Target&, const WeightOperand& table, Value tokens, DType dtype) {
  check_weight("embedding", table, 2);
  require(is_signed_int(tokens.dtype()) || is_unsigned_int(tokens.dtype()),
          "[embedding] tokens are {}, expected integers", tokens.shape().to_string());
  const int64_t count = tokens.shape().num_elements();
  const Value ids = ir::reshape(tokens, {count});
  WeightOperand rows = table;
  rows.value = ir::take(table.value, ids, has_group_scales(table) ? 2 : 0);
  if (rows_in_block(table) > 1) {  // each has scales of its own, as those of groups have
    const Dims by_groups = dims_by_groups({count, table.dims[1]}, table.scales.dim(1));
    const Dims grouped = {count, by_groups[0], by_groups[1]};
    rows.value = ir::transpose(ir::reshape(rows.value, grouped), {1, 2, 0});
  }
  const auto own = [&](Value of_blocks) {
    const int64_t size = table.dims[0] / of_blocks.dim(0);
    const Value sizes = ir::full_like(ids, static_cast<double>(size));
    return ir::take(of_blocks, size == 1 ? ids : ir::divide(ids, sizes), 0);
  };
  if (table.scales) rows.scales = own(table.scales);
  if (table.zero_points) rows.zero_points = own(table.zero_points);
  rows.dims = {count, table.dims[1]};
  Dims result = tokens.dims();
  result.push_back(table.dims[1]);
  return ir::reshape(dense(rows, dtype), result);
}

}  // namespace ttpu::kernels
