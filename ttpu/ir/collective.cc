#include "ttpu/ir/collective.h"

#include <algorithm>

#include "ttpu/ir/function.h"
#include "ttpu/ir/infer.h"

namespace ttpu::ir {
namespace {

int64_t group_size(const OpContext& op) {
  const auto& groups = op.attributes.get<IntMatrix>("replica_groups");
  check(!groups.rows.empty() && groups.columns > 0, op, "no groups of devices given");
  Dims all;
  for (const Dims& row : groups.rows) {
    check(static_cast<int64_t>(row.size()) == groups.columns, op,
          "groups of different sizes: {} and {}", groups.columns, row.size());
    all.insert(all.end(), row.begin(), row.end());
  }
  std::sort(all.begin(), all.end());
  check(all.front() >= 0 && std::adjacent_find(all.begin(), all.end()) == all.end(), op,
        "groups name a device twice or a negative one: {}", dims_to_string(all));
  return groups.columns;
}

int64_t axis_of(const OpContext& op, const char* name) {
  const auto axis = op.attributes.get<int64_t>(name);
  check(axis >= 0 && axis < op.shape(0).rank(), op, "{} {} of {}", name, axis,
        op.shape(0).to_string());
  return axis;
}

void check_combiner(const OpContext& op) {
  const Shape element(op.shape(0).dtype, {});
  check_region(op, 0, {element, element}, {element});
}

Shape divided(const OpContext& op, const Shape& shape, int64_t axis, int64_t count) {
  Shape result = shape;
  int64_t& dim = result.dims[static_cast<size_t>(axis)];
  check(dim % count == 0, op, "dimension {} of {} does not divide by {}", axis, shape.to_string(),
        count);
  dim /= count;
  return result;
}

IntMatrix matrix(const std::vector<Dims>& groups) {
  return {groups.empty() ? 0 : static_cast<int64_t>(groups[0].size()), groups};
}

Attributes common(const CollectiveOptions& options, bool may_be_global) {
  Attributes attributes{{"replica_groups", matrix(options.groups)}};
  if (options.channel > 0) attributes.set("channel_handle", ChannelHandle{options.channel, 1});
  if (may_be_global && options.channel > 0 && options.use_global_device_ids) {
    attributes.set("use_global_device_ids", std::monostate{});
  }
  return attributes;
}

Region* combiner(Value x, const BinaryBody& body) {
  const Shape element(x.dtype(), {});
  return x.function().build_region({element, element}, true, [&](const Values& arguments) {
    return Values{body(arguments[0], arguments[1])};
  });
}

}  // namespace

std::vector<Shape> infer_all_reduce(const OpContext& op) {
  group_size(op);
  check_combiner(op);
  return {op.shape(0)};
}

std::vector<Shape> infer_all_gather(const OpContext& op) {
  const int64_t count = group_size(op);
  Shape result = op.shape(0);
  result.dims[static_cast<size_t>(axis_of(op, "all_gather_dim"))] *= count;
  return {result};
}

std::vector<Shape> infer_reduce_scatter(const OpContext& op) {
  check_combiner(op);
  return {divided(op, op.shape(0), axis_of(op, "scatter_dimension"), group_size(op))};
}

std::vector<Shape> infer_all_to_all(const OpContext& op) {
  const auto count = op.attributes.get<int64_t>("split_count");
  const int64_t size = group_size(op);
  check(count == size, op, "split_count {} in groups of {}", count, size);
  Shape result = divided(op, op.shape(0), axis_of(op, "split_dimension"), count);
  result.dims[static_cast<size_t>(axis_of(op, "concat_dimension"))] *= count;
  return {result};
}

std::vector<Shape> infer_collective_permute(const OpContext& op) {
  const auto& pairs = op.attributes.get<IntMatrix>("source_target_pairs");
  for (size_t column : {size_t{0}, size_t{1}}) {
    Dims ids;
    for (const Dims& row : pairs.rows) ids.push_back(row.at(column));
    std::sort(ids.begin(), ids.end());
    check(ids.empty() ||
              (ids.front() >= 0 && std::adjacent_find(ids.begin(), ids.end()) == ids.end()),
          op, "{} named twice or negative: {}", column == 0 ? "a source" : "a target",
          dims_to_string(ids));
  }
  return {op.shape(0)};
}

std::vector<Shape> infer_collective_broadcast(const OpContext& op) {
  group_size(op);
  return {op.shape(0)};
}

std::vector<Shape> infer_device_id(const OpContext&) { return {Shape(DType::kU32, {})}; }

Value all_reduce(Value x, const CollectiveOptions& options, const BinaryBody& body) {
  Region* region = combiner(x, body);
  return x.function().append(OpKind::kAllReduce, {x}, common(options, true), {region}).result();
}

Value all_gather(Value x, int64_t axis, const CollectiveOptions& options) {
  Attributes attributes = common(options, true);
  attributes.set("all_gather_dim", normalize_axis("all_gather", axis, x.rank()));
  return x.function().append(OpKind::kAllGather, {x}, std::move(attributes)).result();
}

Value reduce_scatter(Value x, int64_t axis, const CollectiveOptions& options,
                     const BinaryBody& body) {
  Attributes attributes = common(options, true);
  attributes.set("scatter_dimension", normalize_axis("reduce_scatter", axis, x.rank()));
  Region* region = combiner(x, body);
  return x.function().append(OpKind::kReduceScatter, {x}, std::move(attributes), {region}).result();
}

Value all_to_all(Value x, int64_t split_axis, int64_t concat_axis,
                 const CollectiveOptions& options) {
  Attributes attributes = common(options, false);
  attributes.set("split_dimension", normalize_axis("all_to_all", split_axis, x.rank()));
  attributes.set("concat_dimension", normalize_axis("all_to_all", concat_axis, x.rank()));
  attributes.set("split_count", matrix(options.groups).columns);
  return x.function().append(OpKind::kAllToAll, {x}, std::move(attributes)).result();
}

Value collective_permute(Value x, const std::vector<std::pair<int64_t, int64_t>>& source_target,
                         int64_t channel) {
  IntMatrix pairs{2, {}};
  for (const auto& [source, target] : source_target) pairs.rows.push_back({source, target});
  Attributes attributes{{"source_target_pairs", pairs}};
  if (channel > 0) attributes.set("channel_handle", ChannelHandle{channel, 1});
  return x.function().append(OpKind::kCollectivePermute, {x}, std::move(attributes)).result();
}

Value collective_broadcast(Value x, const std::vector<Dims>& groups, int64_t channel) {
  CollectiveOptions options;
  options.groups = groups;
  options.channel = channel;
  return x.function().append(OpKind::kCollectiveBroadcast, {x}, common(options, false)).result();
}

Value partition_id(Function& function) {
  return function.append(OpKind::kPartitionId, {}).result();
}
Value replica_id(Function& function) { return function.append(OpKind::kReplicaId, {}).result(); }

}  // namespace ttpu::ir
