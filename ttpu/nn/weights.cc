#include "ttpu/nn/weights.h"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"

namespace ttpu::nn {

namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool only_whole(const std::string& axis) { return axis == "heads" || axis == "kv_heads"; }

parallel::Division division_of(const parallel::Layout& layout, const std::string& axis,
                               int64_t units) {
  return only_whole(axis) ? layout.division(axis, units) : layout.division(axis);
}

int64_t local_size(const parallel::Division& division, int64_t size, int64_t units) {
  const int64_t count = units > 0 ? units : size;
  return ceil_div(count, division.parts) * (size / count);
}

// Decides how the weight is divided; what a device has of it stands in `local`.
void divide(const parallel::Layout& layout, WeightDecl* decl) {
  decl->local = decl->dims;
  if (layout.one_device()) return;
  decl->placement.resize(decl->dims.size());
  for (size_t i = 0; i < decl->dims.size(); ++i) {
    const int64_t units = i < decl->units.size() ? decl->units[i] : 0;
    if (i < decl->axes.size()) {
      decl->placement[i] = division_of(layout, decl->axes[i], units);
      decl->local[i] = local_size(decl->placement[i], decl->dims[i], units);
    }
  }
  if (decl->segments.empty()) return;
  const size_t rows = segments_axis(*decl);
  decl->local[rows] = 0;
  decl->segment_parts.clear();
  for (const Segment& segment : decl->segments) {
    const parallel::Division division = division_of(layout, segment.axis, segment.units);
    decl->placement[rows] = join(layout.mesh(), decl->placement[rows], division);
    const int64_t local = local_size(division, segment.rows, segment.units);
    decl->segment_parts.push_back({division.parts, local});
    decl->local[rows] += local;
  }
}

// Rows that share scales must not be of two devices, or of two segments.
int64_t rows_with_scales(const WeightDecl& decl) {
  const size_t axis = decl.dims.size() - 2;
  int64_t rows = std::gcd(decl.dims[axis], decl.local[axis]);
  for (size_t i = 0; i < decl.segment_parts.size(); ++i) {
    rows = std::gcd(rows, std::gcd(decl.segments[i].rows, decl.segment_parts[i][1]));
  }
  return fitting_rows(decl.quantization->rows, rows);
}

// The dimensions of the scales of a weight.
void shrink_to_scales(WeightDecl* decl) {
  const Quantization& quantization = *decl->quantization;
  const size_t axis = decl->dims.size() - 2;
  for (Dims* dims : {&decl->dims, &decl->local}) {
    dims->at(axis) /= quantization.rows;
    dims->back() /= quantization.group;
  }
  for (Segment& segment : decl->segments) segment.rows /= quantization.rows;
  for (Dims& parts : decl->segment_parts) parts[1] /= quantization.rows;
}

WeightDecl named(const std::string& name, Dims dims, const Axes& axes) {
  WeightDecl decl;
  decl.names = {name};
  decl.dims = std::move(dims);
  decl.axes = axes;
  return decl;
}

std::string argument_name(const WeightDecl& decl) {
  std::string name =
      decl.places == 0 ? decl.names[0] : fmt::format("{}_of_{}_after", decl.names[0], decl.places);
  switch (decl.part) {
    case WeightDecl::Part::kScales:
      return name + "_scale";
    case WeightDecl::Part::kZeroPoints:
      return name + "_zero_point";
    case WeightDecl::Part::kValues:
      break;
  }
  return name;
}

}  // namespace

size_t segments_axis(const WeightDecl& decl) {
  const int64_t rows =
      std::accumulate(decl.segments.begin(), decl.segments.end(), int64_t{0},
                      [](int64_t sum, const Segment& segment) { return sum + segment.rows; });
  const size_t rank = decl.dims.size();
  return rank > 1 && decl.dims[rank - 2] == rows ? rank - 2 : rank - 1;
}

bool is_by_groups(const WeightDecl& decl) {
  return decl.encoding == Encoding::kDense && decl.part == WeightDecl::Part::kValues &&
         decl.quantization && decl.quantization->group > 0 && decl.quantization->rows == 1;
}

Shape argument_shape(const WeightDecl& decl) {
  Dims dims = decl.local.empty() ? decl.dims : decl.local;
  if (is_by_groups(decl)) {
    dims = kernels::dims_by_groups(dims, dims.back() / decl.quantization->group);
  }
  if (decl.encoding == Encoding::kDense) return {decl.dtype, dims};
  dims.back() = dims.back() / block_elements(decl.encoding) * block_bytes(decl.encoding);
  return {DType::kU8, dims};
}

parallel::Placement argument_placement(const WeightDecl& decl, const parallel::Mesh& mesh) {
  parallel::Placement placement = decl.placement;
  if (is_by_groups(decl) && !placement.empty()) {
    const parallel::Division out = placement[placement.size() - 2];
    placement[placement.size() - 2] = placement.back();
    placement.back() = {};
    placement.push_back(out);
  }
  if (!decl.stages.whole()) placement.at(0) = parallel::join(mesh, decl.stages, placement.at(0));
  return placement;
}

bool same_weight(const WeightDecl& one, const WeightDecl& other) {
  return one.names == other.names && one.row_offset == other.row_offset &&
         one.places == other.places;
}

Context::Key Context::key_of(const WeightDecl& decl) {
  return {decl.names.at(0), decl.row_offset, decl.places, decl.part};
}

WeightDecl of_stage(const WeightDecl& decl, int64_t stage) {
  WeightDecl own = decl;
  own.stages = {};
  const size_t count = decl.names.size() / static_cast<size_t>(decl.stages.parts);
  const auto first = decl.names.begin() + static_cast<std::ptrdiff_t>(count) * stage;
  own.names.assign(first, first + static_cast<std::ptrdiff_t>(count));
  return own;
}

ir::Value Context::of_turn(ir::Value value) const {
  return takes_turns() ? ir::dynamic_index(value, loop_->index) : value;
}

const Context::Entry& Context::declare(WeightDecl decl) {
  if (loop_) decl = loop_->stacked(decl);
  const auto found = by_name_.find(key_of(decl));
  if (found != by_name_.end()) {
    require(weights_[found->second.index].dims == decl.dims,
            "[weights] '{}' is declared as {} and as {}", decl.names[0],
            dims_to_string(weights_[found->second.index].dims), dims_to_string(decl.dims));
    return found->second;
  }
  divide(layout_, &decl);
  WeightFormat format = format_of_(decl);
  if (format.encoding != Encoding::kDense && decl.local.back() != decl.dims.back() &&
      decl.local.back() % block_elements(format.encoding) != 0) {
    decl.cut_blocks = true;
    format = format_of_(decl);
  }
  decl.dtype = format.dtype;
  decl.encoding = format.encoding;
  decl.quantization = format.quantization;
  if (decl.quantization) {
    decl.quantization->group =
        fitting_group(decl.quantization->group, std::gcd(decl.dims.back(), decl.local.back()));
    // The kernel of experts' products reads no f16, nor does a TPU's vector unit.
    const bool of_experts = std::ranges::find(decl.axes, "experts") != decl.axes.end();
    if (of_experts && target_.platform == kernels::Platform::kTpu &&
        decl.quantization->scales == DType::kF16) {
      decl.quantization->scales = DType::kF32;
    }
    decl.quantization->rows = rows_with_scales(decl);
  } else if (decl.whole_lanes && decl.encoding == Encoding::kDense &&
             decl.local.back() == decl.dims.back()) {
    decl.local.back() = ceil_div(decl.local.back(), kernels::kTpuLanes) * kernels::kTpuLanes;
  }
  return add(std::move(decl));
}

const Context::Entry& Context::add(WeightDecl decl) {
  const ir::Value value =
      function_->add_argument(argument_shape(decl), names_arguments_ ? argument_name(decl) : "");
  const Key key = key_of(decl);
  weights_.push_back(std::move(decl));
  return by_name_.emplace(key, Entry{value, weights_.size() - 1}).first->second;
}

ir::Value Context::declare_part(size_t index, WeightDecl::Part part) {
  WeightDecl decl = weights_[index];
  decl.part = part;
  const auto found = by_name_.find(key_of(decl));
  if (found != by_name_.end()) return of_turn(found->second.value);
  const Quantization& quantization = *decl.quantization;
  // Zero points are integers, but those of ggml's blocks, whose scales are f32.
  const bool fine = part == WeightDecl::Part::kScales || quantization.scales == DType::kF32;
  decl.dtype = fine ? quantization.scales : DType::kBF16;
  if (quantization.group == 0) {
    decl.dims.pop_back();
    decl.local.pop_back();
    if (!decl.placement.empty()) decl.placement.pop_back();
  } else {
    shrink_to_scales(&decl);
  }
  return of_turn(add(std::move(decl)).value);
}

ir::Value Context::tensor(const std::string& name, const Dims& dims, const Axes& axes) {
  return tensor(named(name, dims, axes));
}

ir::Value Context::tensor(WeightDecl decl) { return of_turn(declare(std::move(decl)).value); }

int64_t Context::least_tokens() const {
  // On CPU, where several devices serve to try programs, two halves of one row pay.
  return target_.platform == kernels::Platform::kTpu ? kLeastTokensOnTpu : 2;
}

void Context::divide_tokens(int64_t tokens) {
  tokens_ = layout_.division("tokens");
  if (tokens % tokens_.parts != 0 || tokens / tokens_.parts < least_tokens()) tokens_ = {};
  ring_.reset();
  if (tokens_.whole()) return;
  const bool tpu = target_.platform == kernels::Platform::kTpu;
  ring_.emplace(layout_.mesh(), tokens_, tpu);
}

kernels::WeightOperand Context::matrix(WeightDecl decl) {
  decl.is_matrix = true;
  const Entry entry = declare(std::move(decl));
  kernels::WeightOperand operand;
  operand.value = of_turn(entry.value);
  operand.encoding = weights_[entry.index].encoding;
  operand.dims = weights_[entry.index].local;
  if (takes_turns()) operand.dims.erase(operand.dims.begin());
  const std::optional<Quantization> quantization = weights_[entry.index].quantization;
  if (!quantization || operand.encoding != Encoding::kDense) return operand;
  operand.quantize_activations = quantization->activations;
  operand.scales = declare_part(entry.index, WeightDecl::Part::kScales);
  if (quantization->zero_points) {
    operand.zero_points = declare_part(entry.index, WeightDecl::Part::kZeroPoints);
  }
  return operand;
}

kernels::WeightOperand Context::matrix(const std::string& name, int64_t out, int64_t in,
                                       const Axes& axes) {
  return matrix(named(name, {out, in}, axes));
}

kernels::WeightOperand Context::table(const std::string& name, int64_t rows, int64_t columns,
                                      const Axes& axes) {
  WeightDecl decl = named(name, {rows, columns}, axes);
  decl.whole_lanes = target_.platform == kernels::Platform::kTpu;
  return matrix(std::move(decl));
}

}  // namespace ttpu::nn
