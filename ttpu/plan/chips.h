// What TPU chips can do, for estimates.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ttpu::plan {

// Of one device as PJRT counts them. A chip of v5e and v6e has one core; the two cores of a v4 or
// v5p chip work as one device (megacore); the two of tpu7x (chiplets, each with its half of the
// HBM) are two devices, so "tpu7x:2x2x1" has 8, and a figure of tpu7x here is half of the chip's.
//
// Source: Google Cloud's page of each version, https://cloud.google.com/tpu/docs/v4 and its
// siblings v5e, v5p, v6e and tpu7x, the table of key specifications. Interconnect: half of the
// bidirectional bandwidth of a chip (400, 1200, 800 and 1200 GB/s for v5e, v5p, v6e, tpu7x). v4's
// page gives none: six links of 50 GB/s, from Jouppi et al., "TPU v4" (ISCA 2023,
// arXiv:2304.01433). v5p's page has no int8 figure: 918, twice its bf16, is what
// was reported of its announcement. Where none is published the peak is 0.
struct Chip {
  std::string name;       // as topologies are named: "v5e" of "v5e:2x2"
  double bf16_flops = 0;  // per second, dense
  double int8_ops = 0;
  double fp8_flops = 0;
  int64_t hbm_bytes = 0;
  double hbm_bandwidth = 0;  // bytes per second
  double ici_bandwidth = 0;  // bytes per second that all links together send
};

const std::vector<Chip>& chips();

// The chip of a topology's name. Throws kInvalidArgument and lists the names that are known.
const Chip& chip_of_topology(std::string_view topology);

}  // namespace ttpu::plan
