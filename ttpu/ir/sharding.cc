#include "ttpu/ir/sharding.h"

#include <algorithm>

#include <fmt/ranges.h>

#include "ttpu/ir/infer.h"
#include "ttpu/ir/module.h"

namespace ttpu::ir {
namespace {

int64_t axis_size(const Mesh& mesh, const std::string& axis, const std::string& op) {
  for (const auto& [name, size] : mesh.axes) {
    if (name == axis) return size;
  }
  fail(Code::kInvalidArgument, "[{}] axis '{}' is not one of mesh '{}'", op, axis, mesh.name);
}

const Mesh& mesh_of(const OpContext& op, const std::string& name) {
  check(!op.operands.empty(), op, "no operands given");
  const Mesh* mesh = op.operands[0].function().module().find_mesh(name);
  check(mesh != nullptr, op, "mesh '{}' is not in the module; add_mesh first", name);
  return *mesh;
}

// What one device holds of `shape` along the manual axes.
Shape local_shape(const OpContext& op, const Shape& shape, const Sharding& sharding,
                  const std::vector<std::string>& manual_axes, const Mesh& mesh) {
  check_sharding(sharding, mesh, shape, std::string(op.name()));
  Shape local = shape;
  for (size_t i = 0; i < sharding.dims.size(); ++i) {
    for (const std::string& axis : sharding.dims[i].axes) {
      if (std::find(manual_axes.begin(), manual_axes.end(), axis) == manual_axes.end()) continue;
      const int64_t size = axis_size(mesh, axis, std::string(op.name()));
      check(local.dims[i] % size == 0, op, "dimension {} of {} does not divide by axis '{}' of {}",
            i, shape.to_string(), axis, size);
      local.dims[i] /= size;
    }
  }
  return local;
}

// The inverse: the whole of what devices hold.
Shape global_shape(const Shape& local, const Sharding& sharding,
                   const std::vector<std::string>& manual_axes, const Mesh& mesh) {
  Shape shape = local;
  require(static_cast<int>(sharding.dims.size()) == local.rank(),
          "[manual_computation] sharding {} of a result {}", sharding.to_string(),
          local.to_string());
  for (size_t i = 0; i < sharding.dims.size(); ++i) {
    for (const std::string& axis : sharding.dims[i].axes) {
      if (std::find(manual_axes.begin(), manual_axes.end(), axis) == manual_axes.end()) continue;
      shape.dims[i] *= axis_size(mesh, axis, "manual_computation");
    }
  }
  return shape;
}

}  // namespace

int64_t Mesh::num_devices() const {
  int64_t count = 1;
  for (const auto& [name, size] : axes) count *= size;
  return count;
}

std::string Sharding::body_to_string() const {
  std::vector<std::string> items;
  for (const DimSharding& dim : dims) {
    std::vector<std::string> axes;
    for (const std::string& axis : dim.axes) axes.push_back(quoted(axis));
    if (dim.open) axes.emplace_back("?");
    items.push_back(fmt::format("{{{}}}", fmt::join(axes, ", ")));
  }
  std::string text = fmt::format("<@{}, [{}]", mesh, fmt::join(items, ", "));
  if (!replicated.empty()) {
    std::vector<std::string> axes;
    for (const std::string& axis : replicated) axes.push_back(quoted(axis));
    text += fmt::format(", replicated={{{}}}", fmt::join(axes, ", "));
  }
  return text + ">";
}

std::string Sharding::to_string() const { return "#sdy.sharding" + body_to_string(); }

void check_sharding(const Sharding& sharding, const Mesh& mesh, const Shape& shape,
                    const std::string& op) {
  require(static_cast<int>(sharding.dims.size()) == shape.rank(),
          "[{}] sharding {} of {}: one entry a dimension expected", op, sharding.to_string(),
          shape.to_string());
  std::vector<std::string> used = sharding.replicated;
  for (const DimSharding& dim : sharding.dims) {
    used.insert(used.end(), dim.axes.begin(), dim.axes.end());
  }
  std::sort(used.begin(), used.end());
  const auto twice = std::adjacent_find(used.begin(), used.end());
  require(twice == used.end(), "[{}] sharding {} uses an axis twice", op, sharding.to_string());
  for (const std::string& axis : used) axis_size(mesh, axis, op);
}

std::vector<Shape> infer_sharding_constraint(const OpContext& op) {
  const auto& sharding = op.attributes.get<Sharding>("sharding");
  check_sharding(sharding, mesh_of(op, sharding.mesh), op.shape(0), std::string(op.name()));
  return {op.shape(0)};
}

std::vector<Shape> infer_manual_computation(const OpContext& op) {
  const auto& in = op.attributes.get<std::vector<Sharding>>("in_shardings");
  const auto& out = op.attributes.get<std::vector<Sharding>>("out_shardings");
  const auto& axes = op.attributes.get<std::vector<std::string>>("manual_axes");
  check(!in.empty() && in.size() == op.operands.size(), op, "{} in_shardings for {} operands",
        in.size(), op.operands.size());
  check(out.size() == op.declared.size(), op, "{} out_shardings for {} results", out.size(),
        op.declared.size());
  const Mesh& mesh = mesh_of(op, in[0].mesh);
  for (const std::string& axis : axes) axis_size(mesh, axis, std::string(op.name()));
  std::vector<Shape> arguments;
  for (size_t i = 0; i < in.size(); ++i) {
    check(in[i].mesh == mesh.name, op, "meshes '{}' and '{}' are mixed", mesh.name, in[i].mesh);
    arguments.push_back(local_shape(op, op.shape(i), in[i], axes, mesh));
  }
  std::vector<Shape> yields;
  for (size_t i = 0; i < out.size(); ++i) {
    check(out[i].mesh == mesh.name, op, "meshes '{}' and '{}' are mixed", mesh.name, out[i].mesh);
    yields.push_back(local_shape(op, op.declared[i], out[i], axes, mesh));
  }
  check_region(op, 0, arguments, yields);
  return op.declared;
}

Value sharding_constraint(Value x, Sharding sharding) {
  return x.function()
      .append(OpKind::kShardingConstraint, {x}, {{"sharding", std::move(sharding)}})
      .result();
}

Values manual_computation(const Values& operands, const std::vector<Sharding>& in_shardings,
                          const std::vector<Sharding>& out_shardings,
                          const std::vector<std::string>& manual_axes,
                          const std::function<Values(const Values&)>& body) {
  Attributes attributes{{"in_shardings", in_shardings},
                        {"out_shardings", out_shardings},
                        {"manual_axes", manual_axes}};
  const OpContext op{OpKind::kManualComputation, operands, attributes, {}, {}};
  check(!operands.empty() && operands.size() == in_shardings.size(), op,
        "{} in_shardings for {} operands; at least one of each", in_shardings.size(),
        operands.size());
  Function& function = operands[0].function();
  const Mesh& mesh = mesh_of(op, in_shardings[0].mesh);
  std::vector<Shape> arguments;
  for (size_t i = 0; i < operands.size(); ++i) {
    arguments.push_back(local_shape(op, operands[i].shape(), in_shardings[i], manual_axes, mesh));
  }
  Region* region = function.build_region(arguments, true, body);
  const Values& yielded = region->yielded();
  check(yielded.size() == out_shardings.size(), op, "{} out_shardings for {} results",
        out_shardings.size(), yielded.size());
  std::vector<Shape> results;
  for (size_t i = 0; i < yielded.size(); ++i) {
    results.push_back(global_shape(yielded[i].shape(), out_shardings[i], manual_axes, mesh));
  }
  return function
      .append(OpKind::kManualComputation, operands, std::move(attributes), {region}, results)
      .results;
}

}  // namespace ttpu::ir
