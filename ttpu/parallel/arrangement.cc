#include "ttpu/parallel/arrangement.h"

#include <algorithm>
#include <map>
#include <numeric>

namespace ttpu::parallel {
namespace {

using Point = std::vector<int64_t>;

int64_t product(const Point& dims) {
  return std::accumulate(dims.begin(), dims.end(), int64_t{1}, std::multiplies<>());
}

// To and fro: each point a neighbour of the one before. The first dimension is gone along first.
std::vector<Point> path(const Point& grid) {
  std::vector<Point> points = {Point(grid.size(), 0)};
  for (size_t dim = 0; dim < grid.size(); ++dim) {
    const std::vector<Point> before = points;
    for (int64_t i = 1; i < grid[dim]; ++i) {
      std::vector<Point> next = before;
      if (i % 2 == 1) std::reverse(next.begin(), next.end());
      for (Point& point : next) point[dim] = i;
      points.insert(points.end(), next.begin(), next.end());
    }
  }
  return points;
}

// A path that ends beside its start, where the grid has an even number of points and is no line:
// along one side to the end, and back through the rest of each row in turn.
std::vector<Point> cycle(const Point& grid) {
  const auto wide = std::find_if(grid.begin(), grid.end(), [](int64_t n) { return n > 1; });
  if (wide == grid.end()) return path(grid);
  const auto across = static_cast<size_t>(wide - grid.begin());
  Point side = grid;
  side[across] = 1;
  std::vector<Point> points = path(side);
  const std::vector<Point> along = points;
  const bool closes = along.size() > 1 && (along.size() % 2 == 0 || grid[across] == 2);
  if (!closes) return path(grid);
  bool back = false;
  for (auto row = along.rbegin(); row != along.rend(); ++row, back = !back) {
    for (int64_t i = 1; i < grid[across]; ++i) {
      Point point = *row;
      point[across] = back ? grid[across] - i : i;
      points.push_back(std::move(point));
    }
  }
  return points;
}

}  // namespace

std::optional<Point> part_of_grid(const Point& grid, int64_t count) {
  Point part(grid.size(), 1);
  int64_t left = count;
  // Every dimension is doubled in turn.
  for (bool grew = true; left > 1 && grew;) {
    grew = false;
    for (size_t i = part.size(); i-- > 0 && left > 1;) {
      if (left % 2 != 0 || grid[i] % (part[i] * 2) != 0) continue;
      part[i] *= 2;
      left /= 2;
      grew = true;
    }
  }
  return left == 1 ? std::optional(part) : std::nullopt;
}

std::vector<size_t> arrange(const std::vector<Position>& positions, int64_t group) {
  std::vector<size_t> order(positions.size());
  std::iota(order.begin(), order.end(), 0);
  if (positions.empty()) return order;
  Point low = positions[0].coordinates;
  Point high = low;
  int64_t cores = 1;
  std::map<std::pair<Point, int64_t>, size_t> places;
  for (size_t i = 0; i < positions.size(); ++i) {
    const auto& [point, core] = positions[i];
    if (point.size() != low.size()) return order;
    for (size_t dim = 0; dim < point.size(); ++dim) {
      low[dim] = std::min(low[dim], point[dim]);
      high[dim] = std::max(high[dim], point[dim]);
    }
    cores = std::max(cores, core + 1);
    places[{point, core}] = i;
  }
  Point grid(low.size());
  for (size_t dim = 0; dim < grid.size(); ++dim) grid[dim] = high[dim] - low[dim] + 1;
  const auto part = part_of_grid(grid, std::max<int64_t>(1, group / cores));
  const auto count = static_cast<int64_t>(positions.size());
  const bool whole = std::ssize(places) == count && product(grid) * cores == count;
  if (!whole || !part) return order;
  Point tiles(grid.size());
  for (size_t dim = 0; dim < grid.size(); ++dim) tiles[dim] = grid[dim] / (*part)[dim];
  order.clear();
  for (const Point& tile : path(tiles)) {
    for (Point point : cycle(*part)) {
      for (size_t dim = 0; dim < grid.size(); ++dim) {
        point[dim] += low[dim] + tile[dim] * (*part)[dim];
      }
      for (int64_t core = 0; core < cores; ++core) order.push_back(places.at({point, core}));
    }
  }
  return order;
}

}  // namespace ttpu::parallel
