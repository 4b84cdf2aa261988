// What TPU chips and slices can do, for estimates.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ttpu::plan {

// Of one device as libtpu counts them for a topology. A chip of v5e and v6e has one core; the two
// cores of a v5p chip work as one device (megacore); the two of v4 and of tpu7x (chiplets, each
// with its half of the HBM) are two devices, so "tpu7x:2x2x1" has 8, and a figure of v4 and tpu7x
// here is half of the chip's.
//
// Source: Google Cloud's page of each version, https://cloud.google.com/tpu/docs/v4 and its
// siblings v5e, v5p, v6e and tpu7x, the table of key specifications. Interconnect: half of the
// bidirectional bandwidth of a chip (400, 1200, 800 and 1200 GB/s for v5e, v5p, v6e, tpu7x). v4's
// page gives none: six links of 50 GB/s, from Jouppi et al., "TPU v4" (ISCA 2023,
// arXiv:2304.01433), which also has its clock. v5p's page has no int8 figure: 918, twice its bf16,
// is what was reported of its announcement. Where none is published the peak is 0. The clocks of
// the others are not published: they are those with which the matrix units (four of 128 x 128 in
// v5e, eight in v5p, two and four of 256 x 256 in v6e and tpu7x) come to the published peak.
struct Chip {
  std::string name;       // as topologies are named: "v5e" of "v5e:2x2"
  double bf16_flops = 0;  // per second, dense
  double int8_ops = 0;
  double fp8_flops = 0;
  int64_t hbm_bytes = 0;
  double hbm_bandwidth = 0;   // bytes per second
  double ici_bandwidth = 0;   // bytes per second that all links together send
  double clock = 0;           // cycles per second of the compiler's `estimated_cycles`
  int links = 0;              // of a chip: two for each dimension of the largest slice
  int wraps_at = 0;           // a dimension that this divides is a ring, not a line
  int devices = 1;            // of a chip
  int matrix_unit = 128;      // rows and columns
  bool sparse_cores = false;  // which may run collectives beside the program

  // A dimension of a slice; else it is a line.
  bool is_ring(int64_t dim) const { return dim % wraps_at == 0; }
};

// "About a microsecond a hop": J. Austin et al., "How to Scale Your Model" (2025), chapter on TPUs.
inline constexpr double kHopSeconds = 1e-6;

// Operations of matrix products, by the types that are multiplied.
struct Compute {
  double flops = 0;     // of bf16 and wider
  double int8_ops = 0;  // of integers of 8 bits and less
  double fp8_flops = 0;
  // Seconds at the chip's peaks; types for which it has none are multiplied as bf16.
  double seconds(const Chip& chip) const;
};

const std::vector<Chip>& chips();

// The TPU of a topology's name. Throws kInvalidArgument, for GPUs too, and lists the known names.
const Chip& chip_of_topology(std::string_view topology);

// That of a device as PJRT names its kind ("TPU v5 lite"); null for what is not known.
const Chip* chip_of_kind(std::string_view kind);

// A slice: "v5e:2x4", "v5p:2x2x1".
struct Slice {
  std::string name;
  Chip chip;
  std::vector<int64_t> shape;  // chips in each dimension

  int64_t chips() const;
  int64_t devices() const { return chips() * chip.devices; }
  // Bytes a second that one link sends.
  double link_bandwidth() const { return chip.ici_bandwidth * chip.devices / chip.links; }
  // Bytes a second that a device can send to a group of `group` devices, by the links that are
  // there: one in each dimension, two where it is a ring. Groups that are a part of the slice are
  // taken as neighbours: two of them share one link, more have two and up to the slice's.
  double ici_bandwidth(int64_t group) const;
};

// Throws kInvalidArgument for another form, an unknown chip, or a shape that no slice of the chip
// has, and names those that are possible. Shapes are those of known_slices() and, since a replica
// may run on them, parts: of a host's 8 chips in two dimensions, of a cube of 4x4x4 in three. In
// three, multiples of 4 are slices too, up to the largest of the chip's page.
Slice parse_slice(std::string_view topology);

// The slices of a chip that are offered, smallest first (Google Cloud's page of each version).
std::vector<std::string> known_slices(const Chip& chip);

}  // namespace ttpu::plan
