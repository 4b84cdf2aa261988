#include "ttpu/plan/chips.h"

#include <algorithm>
#include <charconv>
#include <functional>

#include <fmt/ranges.h>

#include "ttpu/base/error.h"
#include "ttpu/parallel/slices.h"
#include "ttpu/plan/gpus.h"

namespace ttpu::plan {
namespace {

constexpr int64_t kGiB = int64_t{1} << 30;

std::vector<int64_t> parse_shape(std::string_view text) {
  std::vector<int64_t> shape;
  while (true) {
    int64_t dim = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), dim);
    if (error != std::errc() || dim < 1 || dim > 1024) return {};
    shape.push_back(dim);
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    if (text.empty()) return shape;
    if (text[0] != 'x') return {};
    text.remove_prefix(1);
  }
}

bool is_power_of_two(int64_t dim) { return (dim & (dim - 1)) == 0; }

bool exists_flat(const std::vector<int64_t>& shape) {
  constexpr int64_t kHost = 8;  // chips
  if (std::ranges::all_of(shape, is_power_of_two) && shape[0] * shape[1] <= kHost) return true;
  return std::ranges::any_of(parallel::kFlatSlices,
                             [&](const char* known) { return parse_shape(known) == shape; });
}

// 4,096 chips of v4, 6,144 of v5p and 9,216 of tpu7x.
std::vector<int64_t> largest_cube(const Chip& chip) {
  if (chip.name == "v4") return {16, 16, 16};
  if (chip.name == "v5p") return {16, 16, 24};
  return {16, 24, 24};
}

bool exists_cube(const Chip& chip, std::vector<int64_t> shape) {
  const auto in_a_cube = [](int64_t dim) { return dim <= 4 && is_power_of_two(dim); };
  if (std::ranges::all_of(shape, in_a_cube)) return true;
  const auto of_cubes = [](int64_t dim) { return dim % 4 == 0; };
  std::ranges::sort(shape);
  return std::ranges::all_of(shape, of_cubes) &&
         std::ranges::equal(shape, largest_cube(chip), std::less_equal<>());
}

}  // namespace

const std::vector<Chip>& chips() {
  static const std::vector<Chip> kChips = {
      {"v4", 275e12 / 2, 275e12 / 2, 0, 16 * kGiB, 1200e9 / 2, 300e9 / 2, 1.05e9, 6, 4, 2},
      {"v5e", 197e12, 393e12, 0, 16 * kGiB, 819e9, 200e9, 1.5e9, 4, 16, 1},
      {"v5p", 459e12, 918e12, 459e12, 95 * kGiB, 2765e9, 600e9, 1.75e9, 6, 4, 1, 128, true},
      {"v6e", 918e12, 1836e12, 918e12, 32 * kGiB, 1638e9, 400e9, 1.75e9, 4, 16, 1, 256, true},
      {"tpu7x", 2307e12 / 2, 0, 4614e12 / 2, 96 * kGiB, 7380e9 / 2, 600e9 / 2, 2.2e9, 6, 4, 2, 256,
       true},
  };
  return kChips;
}

double Compute::seconds(const Chip& chip) const {
  const auto at = [&chip](double count, double peak) {
    return count / (peak > 0 ? peak : chip.bf16_flops);
  };
  return flops / chip.bf16_flops + at(int8_ops, chip.int8_ops) + at(fp8_flops, chip.fp8_flops);
}

const Chip& chip_of_topology(std::string_view topology) {
  const std::string_view name = topology.substr(0, topology.find(':'));
  std::string known;
  for (const Chip& chip : chips()) {
    if (chip.name == name) return chip;
    known += known.empty() ? chip.name : ", " + chip.name;
  }
  require(gpu_of_topology(topology) == nullptr,
          "[topology] \"{}\" is a GPU, and what programs cost is known here for TPUs alone ({}); "
          "`ttpu compile` compiles for GPUs and tells their memory",
          topology, known);
  fail(Code::kInvalidArgument,
       "[topology] \"{}\" names no TPU and no GPU that is known here; write CHIP:SHAPE with one of "
       "the chips {}, such as v5e:2x2 or v5p:2x2x1, or GPU:NUMBER with one of {}, such as h100:8",
       topology, known, fmt::join(gpu_names(), ", "));
}

const Chip* chip_of_kind(std::string_view kind) {
  static constexpr std::pair<std::string_view, std::string_view> kKinds[] = {
      {"TPU v4", "v4"},       {"TPU v5 lite", "v5e"}, {"TPU v5", "v5p"},
      {"TPU v6 lite", "v6e"}, {"TPU7x", "tpu7x"},
  };
  for (const auto& [name, chip] : kKinds) {
    if (name == kind) return &chip_of_topology(chip);
  }
  return nullptr;
}

int64_t Slice::chips() const {
  int64_t count = 1;
  for (const int64_t dim : shape) count *= dim;
  return count;
}

double Slice::ici_bandwidth(int64_t group) const {
  const double link = chip.ici_bandwidth / chip.links;
  int64_t links = 0;
  for (const int64_t dim : shape) {
    if (dim > 1) links += chip.is_ring(dim) ? 2 : 1;
  }
  links = std::max<int64_t>(links, 1);
  if (group < devices()) links = std::min<int64_t>(links, group <= 2 * chip.devices ? 1 : 2);
  return link * static_cast<double>(links);
}

Slice parse_slice(std::string_view topology) {
  const Chip& chip = chip_of_topology(topology);
  const size_t colon = topology.find(':');
  Slice slice{std::string(topology), chip, {}};
  if (colon != std::string_view::npos) slice.shape = parse_shape(topology.substr(colon + 1));
  const auto dims = static_cast<size_t>(chip.links / 2);
  const bool flat = dims == 2;
  if (slice.shape.size() == dims &&
      (flat ? exists_flat(slice.shape) : exists_cube(chip, slice.shape))) {
    return slice;
  }
  const std::string larger =
      flat ? ""
           : fmt::format(", and larger ones whose dimensions are multiples of 4, up to {}",
                         fmt::join(largest_cube(chip), "x"));
  fail(Code::kInvalidArgument,
       "[topology] \"{}\" is no slice of {}: write CHIP:SHAPE with {} dimensions; known are {}{}",
       topology, chip.name, dims, fmt::join(known_slices(chip), ", "), larger);
}

std::vector<std::string> known_slices(const Chip& chip) {
  std::vector<std::string> names;
  if (chip.links == 4) {
    for (const char* shape : parallel::kFlatSlices) names.push_back(chip.name + ":" + shape);
  } else {
    for (const char* shape : parallel::kCubeSlices) names.push_back(chip.name + ":" + shape);
  }
  return names;
}

}  // namespace ttpu::plan
