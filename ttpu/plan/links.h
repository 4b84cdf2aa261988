// What collectives take of the links of a slice.
#pragma once

#include <cstdint>
#include <map>
#include <string_view>
#include <utility>
#include <vector>

#include "ttpu/plan/chips.h"
#include "ttpu/plan/hlo.h"

namespace ttpu::plan {

struct LinkLoad {
  std::vector<double> seconds;  // that each link sends
  double sent_bytes = 0;        // by a device
  double latency = 0;           // of the hops, seconds

  double longest() const;
};

// The links of a slice: from each chip one to the next of each dimension, and one back.
//
// - An all-reduce, all-gather or reduce-scatter is a ring over all of them (Slice::ici_bandwidth).
// - An all-to-all and a permute are messages, each sent along one dimension after the other by the
//   shorter way; where both ways round are equal, half by each. So the busiest link of an
//   all-to-all is one in the middle of the slice.
class Links {
 public:
  // `devices`: HloModule::devices.
  explicit Links(const Slice& slice, std::vector<int64_t> devices = {})
      : slice_(slice), devices_(std::move(devices)) {}

  size_t count() const;
  // Of a collective whose result has so many bytes on a device. Throws kInvalidArgument where it
  // names devices that the slice does not have.
  LinkLoad load_of(const HloInstruction& op, double bytes);

 private:
  // Bytes on each link, and the hops of the longest way.
  struct Traffic {
    std::vector<double> bytes;
    int64_t hops = 0;
  };
  // Between partitions.
  void send(int64_t from, int64_t to, double bytes, Traffic* traffic) const;
  // Where every device of a group sends every other one a byte.
  const Traffic& all_to_all(const DeviceGroups& groups);
  LinkLoad to_load(const Traffic& traffic, double bytes) const;

  const Slice& slice_;
  std::vector<int64_t> devices_;
  std::map<DeviceGroups, Traffic> known_;
};

bool is_collective(std::string_view opcode);
// Devices of `slice` that meet in it.
int64_t group_size(const HloInstruction& op, const Slice& slice);

}  // namespace ttpu::plan
