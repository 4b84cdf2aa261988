#include "ttpu/plan/links.h"

#include <algorithm>
#include <numeric>
#include <optional>

#include "ttpu/base/error.h"

namespace ttpu::plan {
namespace {

struct Ring {
  double sent = 0;  // by a device, for each byte of the result
  double hops = 0;  // both directions at once
};

std::optional<Ring> ring_of(std::string_view opcode, double n) {
  if (opcode.starts_with("all-reduce")) return Ring{2 * (n - 1) / n, n};
  if (opcode.starts_with("all-gather")) return Ring{(n - 1) / n, n / 2};
  if (opcode.starts_with("reduce-scatter")) return Ring{n - 1, n / 2};
  if (opcode.starts_with("collective-broadcast")) return Ring{1, 1};
  return std::nullopt;
}

bool is_all_to_all(std::string_view opcode) {
  return opcode.starts_with("all-to-all") || opcode.starts_with("ragged-all-to-all");
}
bool is_permute(std::string_view opcode) { return opcode.starts_with("collective-permute"); }

}  // namespace

bool is_collective(std::string_view opcode) {
  return ring_of(opcode, 2) || is_all_to_all(opcode) || is_permute(opcode);
}

int64_t group_size(const HloInstruction& op, const Slice& slice) {
  return op.groups.empty() ? slice.devices() : static_cast<int64_t>(op.groups[0].size());
}

double LinkLoad::longest() const {
  return seconds.empty() ? 0 : *std::max_element(seconds.begin(), seconds.end());
}

size_t Links::count() const {
  return static_cast<size_t>(slice_.chips()) * slice_.shape.size() * 2;
}

void Links::send(int64_t from, int64_t to, double bytes, Traffic* traffic) const {
  const int64_t devices = slice_.devices();
  const auto device_of = [this](int64_t partition) {
    const bool known = partition >= 0 && std::cmp_less(partition, devices_.size());
    return known ? devices_[static_cast<size_t>(partition)] : partition;
  };
  from = device_of(from);
  to = device_of(to);
  require(from >= 0 && from < devices && to >= 0 && to < devices,
          "[plan] the program sends from device {} to device {}, and {} has {} devices; give the "
          "--topology that it was compiled for",
          from, to, slice_.name, devices);
  traffic->bytes.resize(count());
  int64_t at = from / slice_.chip.devices;  // the first dimension varies fastest
  const int64_t end = to / slice_.chip.devices;
  int64_t stride = 1;
  int64_t hops = 0;
  for (size_t dim = 0; dim < slice_.shape.size(); stride *= slice_.shape[dim], ++dim) {
    const int64_t size = slice_.shape[dim];
    const int64_t first = at / stride % size;
    const int64_t ahead = (end / stride % size - first + size) % size;
    if (ahead == 0) continue;
    const auto walk = [&](bool up, int64_t steps, double part) {
      int64_t place = first;
      for (int64_t step = 0; step < steps; ++step) {
        const int64_t chip = at + (place - first) * stride;
        traffic
            ->bytes[(static_cast<size_t>(chip) * slice_.shape.size() + dim) * 2 + (up ? 1 : 0)] +=
            part;
        place = (place + (up ? 1 : size - 1)) % size;
      }
    };
    const bool ring = slice_.chip.is_ring(size);
    const int64_t back = size - ahead;
    const bool up = ring ? ahead < back : first + ahead < size;
    if (ring && ahead == back) {
      walk(true, ahead, bytes / 2);
      walk(false, back, bytes / 2);
    } else {
      walk(up, up ? ahead : back, bytes);
    }
    hops += up || ahead == back ? ahead : back;
    at += ((first + ahead) % size - first) * stride;
  }
  traffic->hops = std::max(traffic->hops, hops);
}

const Links::Traffic& Links::all_to_all(const DeviceGroups& groups) {
  const auto [found, added] = known_.try_emplace(groups);
  if (!added) return found->second;
  DeviceGroups all = groups;
  if (all.empty()) {
    all.emplace_back(static_cast<size_t>(slice_.devices()));
    std::iota(all[0].begin(), all[0].end(), 0);
  }
  for (const std::vector<int64_t>& group : all) {
    for (const int64_t from : group) {
      for (const int64_t to : group) send(from, to, 1, &found->second);
    }
  }
  return found->second;
}

LinkLoad Links::to_load(const Traffic& traffic, double bytes) const {
  LinkLoad load;
  load.latency = static_cast<double>(traffic.hops) * kHopSeconds;
  for (const double one : traffic.bytes) {
    load.seconds.push_back(one * bytes / slice_.link_bandwidth());
  }
  return load;
}

LinkLoad Links::load_of(const HloInstruction& op, double bytes) {
  const int64_t group = group_size(op, slice_);
  const auto n = static_cast<double>(group);
  LinkLoad load;
  if (is_permute(op.opcode)) {
    Traffic traffic;
    for (const auto& [from, to] : op.pairs) send(from, to, 1, &traffic);
    load = to_load(traffic, bytes);
    load.sent_bytes = bytes;
  } else if (group > 1 && is_all_to_all(op.opcode)) {
    load = to_load(all_to_all(op.groups), bytes / n);
    load.sent_bytes = (n - 1) / n * bytes;
  } else if (group > 1) {
    const Ring ring = ring_of(op.opcode, n).value_or(Ring{});
    load.sent_bytes = ring.sent * bytes;
    load.latency = ring.hops * kHopSeconds;
    load.seconds.assign(count(), load.sent_bytes / slice_.ici_bandwidth(group));
  }
  return load;
}

}  // namespace ttpu::plan
