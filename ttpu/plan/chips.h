// What TPU chips can do, for estimates.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ttpu::plan {

// Of one device as PJRT counts them: a chip, but half a chip of tpu7x.
struct Chip {
  std::string name;       // as topologies are named: "v5e" of "v5e:2x2"
  double bf16_flops = 0;  // per second, dense
  int64_t hbm_bytes = 0;
  double hbm_bandwidth = 0;  // bytes per second
  double ici_bandwidth = 0;  // bytes per second that all links together send
};

const std::vector<Chip>& chips();

// The chip of a topology's name. Throws kInvalidArgument and lists the names that are known.
const Chip& chip_of_topology(std::string_view topology);

}  // namespace ttpu::plan
