#include "ttpu/parallel/arrangement.h"

#include <cstdlib>

#include <gtest/gtest.h>

namespace ttpu::parallel {
namespace {

using Grid = std::vector<int64_t>;
using Order = std::vector<size_t>;

// As libtpu numbers them: the cores of a chip, then the first dimension.
std::vector<Position> devices_of(const Grid& grid, int64_t cores = 1) {
  std::vector<Position> positions = {{Grid(grid.size(), 0), 0}};
  for (bool more = true; more;) {
    Position next = positions.back();
    more = ++next.core < cores;
    if (!more) next.core = 0;
    for (size_t dim = 0; dim < grid.size() && !more; ++dim) {
      more = ++next.coordinates[dim] < grid[dim];
      if (!more) next.coordinates[dim] = 0;
    }
    if (more) positions.push_back(next);
  }
  return positions;
}

int64_t hops(const Position& a, const Position& b) {
  int64_t sum = 0;
  for (size_t dim = 0; dim < a.coordinates.size(); ++dim) {
    sum += std::abs(a.coordinates[dim] - b.coordinates[dim]);
  }
  return sum;
}

TEST(Arrangement, OrdersOfSmallSlices) {
  EXPECT_EQ(arrange(devices_of({2, 2}), 4), (Order{0, 2, 3, 1}));
  EXPECT_EQ(arrange(devices_of({2, 4}), 8), (Order{0, 2, 4, 6, 7, 5, 3, 1}));
  EXPECT_EQ(arrange(devices_of({2, 4}), 4), (Order{0, 2, 3, 1, 4, 6, 7, 5}));
  EXPECT_EQ(arrange(devices_of({2, 4}), 2), (Order{0, 2, 1, 3, 5, 7, 4, 6}));
  EXPECT_EQ(arrange(devices_of({2, 2}), 1), (Order{0, 1, 3, 2}));
  EXPECT_EQ(arrange(devices_of({2, 2, 1}, 2), 8), (Order{0, 1, 4, 5, 6, 7, 2, 3}));
}

TEST(Arrangement, EachDeviceOfAGroupIsBesideTheNext) {
  for (const Grid& grid : {Grid{4, 4}, Grid{8, 8}, Grid{16, 16}, Grid{2, 2, 4}, Grid{4, 4, 4}}) {
    const std::vector<Position> devices = devices_of(grid);
    const auto count = static_cast<int64_t>(devices.size());
    for (int64_t group = 4; group <= count; group *= 2) {
      const Order order = arrange(devices, group);
      ASSERT_EQ(order.size(), devices.size());
      Order sorted = order;
      std::sort(sorted.begin(), sorted.end());
      for (size_t i = 0; i < sorted.size(); ++i) EXPECT_EQ(sorted[i], i);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t first = i / group * group;
        const int64_t next = first + (i - first + 1) % group;
        EXPECT_EQ(hops(devices[order[i]], devices[order[next]]), 1) << group << " " << i;
      }
    }
  }
}

TEST(Arrangement, StagesOfOneDeviceAreBesideEachOther) {
  const std::vector<Position> devices = devices_of({4, 8});
  const Order order = arrange(devices, 1);
  for (size_t i = 0; i + 1 < order.size(); ++i) {
    EXPECT_EQ(hops(devices[order[i]], devices[order[i + 1]]), 1);
  }
}

TEST(Arrangement, WhatIsNoGridKeepsItsOrder) {
  std::vector<Position> devices = devices_of({2, 4});
  devices.pop_back();
  EXPECT_EQ(arrange(devices, 7), (Order{0, 1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(arrange({{{0, 0}, 0}, {{0, 0}, 0}}, 2), (Order{0, 1}));
  EXPECT_EQ(arrange(devices_of({3, 1}), 3), (Order{0, 1, 2}));
  EXPECT_EQ(arrange({}, 1), Order{});
}

}  // namespace
}  // namespace ttpu::parallel
