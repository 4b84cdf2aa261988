#include "ttpu/parallel/collectives.h"

#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"

namespace ttpu::parallel {
namespace {

ir::CollectiveOptions options_of(const Mesh& mesh, const Division& division) {
  ir::CollectiveOptions options;
  options.groups = groups_of(mesh, division);
  return options;
}

int64_t part_size(ir::Value x, int64_t axis, const Division& division) {
  const int64_t size = x.dim(static_cast<int>(axis));
  require(size % division.parts == 0, "[parallel] dimension {} of {} does not divide by {}", axis,
          x.shape().to_string(), division.parts);
  return size / division.parts;
}

}  // namespace

ir::Value part_index(ir::Function& function, const Mesh& mesh, const Division& division) {
  if (division.whole()) return ir::scalar(function, DType::kS32, 0);
  const ir::Value id = ir::convert(ir::partition_id(function), DType::kS32);
  const auto number = [&](int64_t n) { return ir::scalar_like(id, static_cast<double>(n)); };
  ir::Value part;
  for (const std::string& name : division.factors) {
    const Mesh::Factor& factor = mesh.factor(name);
    const ir::Value own = ir::remainder(ir::divide(id, number(factor.stride)), number(factor.size));
    part = part ? part * static_cast<double>(factor.size) + own : own;
  }
  return part;
}

ir::Value sum(ir::Value x, const Mesh& mesh, const Division& division) {
  if (division.whole()) return x;
  return ir::all_reduce(x, options_of(mesh, division),
                        [](ir::Value a, ir::Value b) { return a + b; });
}

ir::Value maximum(ir::Value x, const Mesh& mesh, const Division& division) {
  if (division.whole()) return x;
  return ir::all_reduce(x, options_of(mesh, division),
                        [](ir::Value a, ir::Value b) { return ir::maximum(a, b); });
}

ir::Value gather(ir::Value x, int64_t axis, const Mesh& mesh, const Division& division) {
  if (division.whole()) return x;
  return ir::all_gather(x, axis, options_of(mesh, division));
}

ir::Value sum_scatter(ir::Value x, int64_t axis, const Mesh& mesh, const Division& division) {
  if (division.whole()) return x;
  part_size(x, axis, division);
  return ir::reduce_scatter(x, axis, options_of(mesh, division),
                            [](ir::Value a, ir::Value b) { return a + b; });
}

ir::Value exchange(ir::Value x, int64_t from, int64_t to, const Mesh& mesh,
                   const Division& division) {
  if (division.whole()) return x;
  part_size(x, to, division);
  return ir::all_to_all(x, to, from, options_of(mesh, division));
}

ir::Value trade(ir::Value x, int64_t axis, const Mesh& mesh, const Division& division) {
  return exchange(x, axis, axis, mesh, division);
}

ir::Value own_part(ir::Value x, int64_t axis, const Mesh& mesh, const Division& division) {
  if (division.whole()) return x;
  const int64_t size = part_size(x, axis, division);
  const ir::Value index = part_index(x.function(), mesh, division);
  ir::Values starts(static_cast<size_t>(x.rank()), ir::scalar_like(index, 0));
  starts[static_cast<size_t>(axis)] = index * static_cast<double>(size);
  Dims sizes = x.dims();
  sizes[static_cast<size_t>(axis)] = size;
  return ir::dynamic_slice(x, starts, sizes);
}

}  // namespace ttpu::parallel
