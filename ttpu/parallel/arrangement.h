// In which order the devices of a slice become those of a mesh. Devices of a mesh that follow each
// other send to each other most: rings of those that share a layer, stages of a pipeline. On a
// slice, which is a grid, numbers that follow each other may be two links apart.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace ttpu::parallel {

// The grid of a part of a slice that has `count` chips, as square as the slice allows. Nothing
// where there is none.
std::optional<std::vector<int64_t>> part_of_grid(const std::vector<int64_t>& grid, int64_t count);

// Where a device stands.
struct Position {
  std::vector<int64_t> coordinates;  // of its chip
  int64_t core = 0;                  // of the chip
};

// Places in `positions` in the order of a mesh of which each `group` devices in turn share layers:
// these are a part of the slice, neighbours in turn, and the last a neighbour of the first where it
// can be; the parts are neighbours in turn. The given order where positions are no whole grid.
std::vector<size_t> arrange(const std::vector<Position>& positions, int64_t group);

}  // namespace ttpu::parallel
