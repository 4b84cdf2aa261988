// Every device has its own values, and the loss is the sum of what the devices make of it, so that
// a collective is a linear map of the values of all devices. Its rule is the transposed map.
#include "ttpu/grad/rules.h"
#include "ttpu/ir/ir.h"

namespace ttpu::grad {
namespace {

using ir::Value;

Value add(Value a, Value b) { return a + b; }

int64_t channel_of(const Reverse& reverse) {
  const auto* channel = reverse.operation().attributes.get_if<ir::ChannelHandle>("channel_handle");
  return channel == nullptr ? 0 : channel->handle;
}

ir::CollectiveOptions options_of(const Reverse& reverse) {
  const ir::Attributes& attributes = reverse.operation().attributes;
  ir::CollectiveOptions options;
  options.groups = attributes.get<ir::IntMatrix>("replica_groups").rows;
  options.channel = channel_of(reverse);
  options.use_global_device_ids = attributes.has("use_global_device_ids");
  return options;
}

void require_sum(const Reverse& reverse) {
  if (!combines_by(reverse.operation(), ir::OpKind::kAdd)) {
    reverse.refuse("has a gradient where it is a sum");
  }
}

}  // namespace

void reverse_all_reduce(const Reverse& reverse) {
  require_sum(reverse);
  reverse.give(0, [&] { return ir::all_reduce(reverse.cotangent(), options_of(reverse), add); });
}

void reverse_all_gather(const Reverse& reverse) {
  reverse.give(0, [&] {
    return ir::reduce_scatter(reverse.cotangent(), reverse.attribute<int64_t>("all_gather_dim"),
                              options_of(reverse), add);
  });
}

void reverse_reduce_scatter(const Reverse& reverse) {
  require_sum(reverse);
  reverse.give(0, [&] {
    return ir::all_gather(reverse.cotangent(), reverse.attribute<int64_t>("scatter_dimension"),
                          options_of(reverse));
  });
}

void reverse_all_to_all(const Reverse& reverse) {
  reverse.give(0, [&] {
    return ir::all_to_all(reverse.cotangent(), reverse.attribute<int64_t>("concat_dimension"),
                          reverse.attribute<int64_t>("split_dimension"), options_of(reverse));
  });
}

void reverse_collective_permute(const Reverse& reverse) {
  reverse.give(0, [&] {
    std::vector<std::pair<int64_t, int64_t>> back;
    for (const Dims& pair : reverse.attribute<ir::IntMatrix>("source_target_pairs").rows) {
      back.emplace_back(pair.at(1), pair.at(0));
    }
    return ir::collective_permute(reverse.cotangent(), back, channel_of(reverse));
  });
}

}  // namespace ttpu::grad
