#include "ttpu/kernels/linear/tpu.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "ttpu/ir/ir.h"
#include "ttpu/kernels/linear/scales.h"
#include "ttpu/kernels/tpu/lanes.h"

namespace ttpu::kernels {
namespace {

using ir::Value;

constexpr const char* kOp = "expert_linear";
constexpr int64_t kTile = 128;                      // rows: as many as the matrix units are wide
constexpr int64_t kPacked = 16;                     // rows of bf16 that are stored together
constexpr int64_t kWeightBytes = int64_t{8} << 20;  // of an expert's weight in bf16, at once

int64_t up_to(int64_t x, int64_t multiple) { return (x + multiple - 1) / multiple * multiple; }

int64_t tile_of(int64_t rows) { return std::min(kTile, up_to(rows, kPacked)); }

int64_t tiles_of(int64_t rows) { return up_to(rows, tile_of(rows)) / tile_of(rows); }

int64_t most_visits(int64_t rows, int64_t experts) { return tiles_of(rows) + experts - 1; }

// Rows of a weight [out, in] that a call takes at once.
int64_t columns_of(int64_t out, int64_t in) {
  const int64_t parts = up_to(out * in * 2, kWeightBytes) / kWeightBytes;
  return parts == 1 ? out : std::min(out, up_to((out + parts - 1) / parts, kTpuLanes));
}

enum class Form { kDense, kScaled, kGroups, kBlocks };

Form form_of(const WeightOperand& weight) {
  if (!weight.scales) return Form::kDense;
  if (has_row_scales(weight)) return Form::kScaled;
  return has_group_scales(weight) ? Form::kGroups : Form::kBlocks;
}

const char* form_name(Form form) {
  constexpr const char* kNames[] = {"dense", "scaled", "groups", "blocks"};
  return kNames[static_cast<size_t>(form)];
}

// Whether the kernel takes a weight with its rows along the lanes: groups are stored so, and a TPU
// stores an array [.., out, in] so where that fills tiles of 8 x 128 better.
bool turned(const WeightOperand& weight) {
  const Form form = form_of(weight);
  if (form == Form::kGroups || form == Form::kBlocks) return form == Form::kGroups;
  const int64_t out = weight.dims[1], in = weight.dims[2];
  return up_to(in, 8) * up_to(out, kTpuLanes) < up_to(out, 8) * up_to(in, kTpuLanes);
}

// As below, of a weight with scales of blocks of rows and columns.
std::string reason_against_blocks(const WeightOperand& weight) {
  const int64_t rows = rows_in_block(weight);
  const int64_t columns = weight.dims[2] / weight.scales.dim(-1);
  const bool whole = columns_of(weight.dims[1], weight.dims[2]) % rows == 0;
  if (!weight.zero_points && whole && rows % kPacked == 0 && columns % kTpuLanes == 0) return "";
  return fmt::format(
      "scales of blocks of {} x {}{}; the kernel is for multiples of {} x {} that divide {}, "
      "without zero points",
      rows, columns, weight.zero_points ? " and zero points" : "", kPacked, kTpuLanes, kTpuLanes);
}

std::string reason_against_groups(const WeightOperand& weight) {
  const int64_t group = weight.value.dim(-2);
  if (group % kPacked != 0) {
    return fmt::format("groups of {}; the kernel is for multiples of {}", group, kPacked);
  }
  const DType scales = weight.scales.dtype();
  if (scales == DType::kBF16 || scales == DType::kF32) return "";
  return fmt::format("scales of {}; the kernel is for bf16 and f32", dtype_name(scales));
}

// Whether a TPU has the scales of groups [experts, out, groups] with the groups before the experts,
// as it stores an array where that fills tiles better; the kernel then takes those of all experts.
bool factors_first(const WeightOperand& weight) {
  if (form_of(weight) != Form::kGroups) return false;
  constexpr int64_t kMostBytes = int64_t{16} << 20;
  const int64_t experts = weight.dims[0], groups = weight.scales.dim(-1);
  const int64_t columns = columns_of(weight.dims[1], weight.dims[2]);
  const int64_t kinds = weight.zero_points ? 2 : 1;
  const int64_t bytes = kinds * groups * experts * columns * bit_width(weight.scales.dtype()) / 8;
  return groups * up_to(experts, 8) < experts * up_to(groups, 8) && experts % 2 == 0 &&
         bytes <= kMostBytes;
}

// Why the kernel cannot be asked for; empty when it can.
std::string reason_against(DType dtype, const WeightOperand& weight) {
  if (dtype != DType::kBF16) {
    return fmt::format("rows of {}; the kernel is for bf16", dtype_name(dtype));
  }
  if (weight.encoding != Encoding::kDense) {
    return fmt::format("weights in blocks of {}", encoding_name(weight.encoding));
  }
  const DType values = weight.value.dtype();
  switch (form_of(weight)) {
    case Form::kDense:
      if (values == DType::kBF16) return "";
      return fmt::format("weights of {}; the kernel is for bf16", dtype_name(values));
    case Form::kBlocks:
      return reason_against_blocks(weight);
    case Form::kGroups:
      return reason_against_groups(weight);
    case Form::kScaled:
      break;
  }
  return "";
}

// What the kernel takes of a weight.
struct Part {
  Value value;
  DType dtype;     // that it takes it as
  Dims axes = {};  // in the order in which it takes them; none: as they are

  Shape shape() const {
    Shape shape(dtype, value.dims());
    for (size_t i = 0; i < axes.size(); ++i) shape.dims[i] = value.dim(static_cast<int>(axes[i]));
    return shape;
  }
  Value operand() const {
    const Value own = ir::convert(value, dtype);
    return axes.empty() ? own : ir::transpose(own, axes);
  }
};

std::vector<Part> parts_of(const WeightOperand& weight, const std::optional<Value>& bias) {
  const bool groups = form_of(weight) == Form::kGroups;
  const auto part = [](Value value, Dims axes) {
    return Part{value, value.dtype(), std::move(axes)};
  };
  const Dims exchanged = {0, 2, 1};
  const Dims of_factors = !groups ? Dims{} : factors_first(weight) ? Dims{2, 0, 1} : exchanged;
  std::vector<Part> parts = {part(weight.value, !groups && turned(weight) ? exchanged : Dims{})};
  // Those of rows and blocks are few; a row of bf16 shares its words with another.
  if (weight.scales && !groups) parts.push_back({weight.scales, DType::kF32});
  if (weight.scales && groups) parts.push_back(part(weight.scales, of_factors));
  if (weight.zero_points) parts.push_back(part(weight.zero_points, of_factors));
  if (bias) parts.push_back({*bias, DType::kF32});
  return parts;
}

double bytes_of(const Shape& shape) {
  return static_cast<double>(shape.num_elements()) * bit_width(shape.dtype) / 8;
}

// What a call does, whose arguments from `first` on are the parts of the weight. Every visit
// multiplies a whole tile, and reads the weight of an expert that has rows.
ir::TextBody work_of(int64_t rows, const WeightOperand& weight, const std::vector<Part>& parts,
                     size_t first) {
  const Dims& dims = weight.dims;
  const int64_t active = std::min(rows, dims[0]);
  ir::TextBody work;
  work.flops =
      2.0 * static_cast<double>((tiles_of(rows) + active - 1) * tile_of(rows) * dims[1] * dims[2]);
  const double share = static_cast<double>(active) / static_cast<double>(dims[0]);
  const size_t factors = factors_first(weight) ? (weight.zero_points ? 2 : 1) : 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const bool of_all = i > 0 && i <= factors;
    work.reads.push_back({first + i, bytes_of(parts[i].shape()) * (of_all ? 1 : share)});
  }
  return work;
}

// The bytes of the weight, and of rows, which are read once for each part of it.
double moved_bytes(int64_t rows, const Dims& dims, const ir::TextBody& work) {
  const int64_t columns = columns_of(dims[1], dims[2]);
  const int64_t parts = up_to(dims[1], columns) / columns;
  double moved = 2.0 * static_cast<double>(rows * (parts * dims[2] + dims[1]));
  for (const auto& read : work.reads) moved += read.bytes;
  return moved;
}

Json key_of(const TpuKernels& kernels, int64_t rows, const WeightOperand& weight,
            const std::optional<Value>& bias, const ir::TextBody& work) {
  const Dims& dims = weight.dims;
  const Form form = form_of(weight);
  Json key = {{"kernel", kOp},
              {"chip", kernels.chip()},
              {"rows", rows},
              {"in", dims[2]},
              {"out", dims[1]},
              {"experts", dims[0]},
              {"visits", most_visits(rows, dims[0])},
              {"tile", tile_of(rows)},
              {"columns", columns_of(dims[1], dims[2])},
              {"dtype", dtype_name(DType::kBF16)},
              {"weight_dtype", dtype_name(weight.value.dtype())},
              {"form", form_name(form)},
              {"turned", turned(weight)},
              {"zero_points", static_cast<bool>(weight.zero_points)},
              {"bias", bias.has_value()},
              {"flops", static_cast<int64_t>(work.flops)},
              {"bytes", static_cast<int64_t>(moved_bytes(rows, dims, work))}};
  if (form == Form::kGroups) key["scale_dtype"] = dtype_name(weight.scales.dtype());
  if (form == Form::kGroups) {
    key["groups"] = {weight.value.dim(1), weight.value.dim(2)};
    key["factors"] = weight.scales.dim(-1);
    key["factors_first"] = factors_first(weight);
  } else if (form == Form::kBlocks) {
    key["factors"] = {weight.scales.dim(1), weight.scales.dim(2)};
  }
  return key;
}

// A call of the kernel with the parts of a weight.
struct Kernel {
  Json key;
  std::vector<Part> parts;
  std::vector<Shape> shapes;  // of all its arguments
  ir::TextBody work;
};

Kernel kernel_of(const TpuKernels& kernels, int64_t rows, const WeightOperand& weight,
                 const std::optional<Value>& bias) {
  const int64_t experts = weight.dims[0];
  const Shape visits(DType::kS32, {most_visits(rows, experts)});
  Kernel kernel;
  kernel.shapes = {Shape(DType::kBF16, {rows, weight.dims[2]}), visits, visits,
                   Shape(DType::kS32, {experts + 1}), Shape(DType::kS32, {})};
  kernel.parts = parts_of(weight, bias);
  kernel.work = work_of(rows, weight, kernel.parts, kernel.shapes.size());
  for (const Part& part : kernel.parts) kernel.shapes.push_back(part.shape());
  kernel.key = key_of(kernels, rows, weight, bias, kernel.work);
  return kernel;
}

}  // namespace

TpuSortedRows sorted_for_tpu(Value ids, int64_t experts, bool sorted_before) {
  ir::Function& function = ids.function();
  const int64_t rows = ids.dim(0), tile = tile_of(rows);
  const int64_t most = most_visits(rows, experts);
  const SortedRows sorted = sorted_rows(ids, experts, sorted_before);
  const Value starts = sums_before(sorted.counts);
  const Value ends = starts + sorted.counts;
  const Value tile_rows = ir::full_like(starts, static_cast<double>(tile));
  const Value first = ir::divide(starts, tile_rows);
  const Value end = ir::divide(ends + static_cast<double>(tile - 1), tile_rows);
  const Value none = ir::compare(sorted.counts, 0, ir::ComparisonDirection::kEq);
  const Value visits = ir::select(none, ir::full_like(starts, 0), end - first);
  const Value before = sums_before(visits);
  TpuSortedRows result;
  result.rows.known = has_expert(ids, experts);
  if (!sorted_before) {
    result.rows.sources = sorted.order;
    result.rows.places = unsorted(sorted, ir::iota(function, ids.shape(), 0));
  }
  result.experts = ranges_of(before + visits, most);
  const Value tiles = ir::take(first - before, result.experts, 0) +
                      ir::iota(function, Shape(DType::kS32, {most}), 0);
  // Those behind the last visit are not made.
  result.tiles = ir::clamp(ir::scalar_like(tiles, 0), tiles,
                           ir::scalar_like(tiles, static_cast<double>(tiles_of(rows) - 1)));
  result.bounds = ir::concatenate({starts, ir::slice(ends, {experts - 1}, {experts})}, 0);
  // At least one, which changes nothing: no kernel is asked for an empty grid.
  result.visits = ir::maximum(ir::reduce_sum(visits, {0}), ir::scalar(function, DType::kS32, 1));
  return result;
}

bool has_tpu_expert_linear(TpuKernels& kernels, Value ids, DType dtype, const WeightOperand& weight,
                           const std::optional<Value>& bias) {
  if (const std::string reason = reason_against(dtype, weight); !reason.empty()) {
    kernels.note_reference(kOp, reason);
    return false;
  }
  return kernels.has(kernel_of(kernels, ids.dim(0), weight, bias).key);
}

std::optional<Value> tpu_expert_linear(TpuKernels& kernels, Value x, const TpuSortedRows& sorted,
                                       const WeightOperand& weight,
                                       const std::optional<Value>& bias) {
  Kernel kernel = kernel_of(kernels, x.dim(0), weight, bias);
  const Shape result(DType::kBF16, {x.dim(0), weight.dims[1]});
  const ir::Function* function = kernels.function(x.function().module(), kernel.key, kernel.shapes,
                                                  {result}, std::move(kernel.work));
  if (function == nullptr) return std::nullopt;
  ir::Values operands = {x, sorted.experts, sorted.tiles, sorted.bounds, sorted.visits};
  for (const Part& part : kernel.parts) operands.push_back(part.operand());
  return ir::call(*function, operands)[0];
}

}  // namespace ttpu::kernels
