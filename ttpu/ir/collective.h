// Operators across devices. Inside manual_computation and in SPMD programs the ids are partitions.
#pragma once

#include "ttpu/ir/reduce.h"

namespace ttpu::ir {

struct CollectiveOptions {
  std::vector<Dims> groups;  // device ids that work together
  // Positive: channel; with use_global_device_ids the ids are flattened (partitions of an SPMD
  // program). 0: ids are replicas.
  int64_t channel = 1;
  bool use_global_device_ids = true;
};

Value all_reduce(Value x, const CollectiveOptions& options, const BinaryBody& body);
Value all_gather(Value x, int64_t axis, const CollectiveOptions& options);
Value reduce_scatter(Value x, int64_t axis, const CollectiveOptions& options,
                     const BinaryBody& body);
// Ids are partitions (channel > 0) or replicas (channel 0).
Value all_to_all(Value x, int64_t split_axis, int64_t concat_axis,
                 const CollectiveOptions& options);
Value collective_permute(Value x, const std::vector<std::pair<int64_t, int64_t>>& source_target,
                         int64_t channel = 1);
Value collective_broadcast(Value x, const std::vector<Dims>& groups, int64_t channel = 1);
Value partition_id(Function& function);  // ui32 scalar
Value replica_id(Function& function);    // ui32 scalar

}  // namespace ttpu::ir
