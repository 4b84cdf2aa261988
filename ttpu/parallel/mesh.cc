#include "ttpu/parallel/mesh.h"

#include <algorithm>

#include <fmt/ranges.h>

#include "ttpu/base/error.h"

namespace ttpu::parallel {
namespace {

constexpr int64_t kMostDevices = 1 << 16;

int64_t smallest_prime(int64_t n) {
  for (int64_t p = 2; p * p <= n; ++p) {
    if (n % p == 0) return p;
  }
  return n;
}

bool contains(const Division& division, const std::string& factor) {
  return std::find(division.factors.begin(), division.factors.end(), factor) !=
         division.factors.end();
}

}  // namespace

Mesh::Mesh(const std::vector<std::pair<std::string, int64_t>>& axes) {
  int64_t stride = 1;
  for (const auto& [name, size] : axes) {
    require(size >= 1 && size <= kMostDevices && stride * size <= kMostDevices,
            "[mesh] axis '{}' has {} devices; expected 1 or more, and at most {} in all", name,
            size, kMostDevices);
    stride *= size;
    const auto same = [&key = name](const auto& known) { return known.first == key; };
    require(std::none_of(axes_.begin(), axes_.end(), same), "[mesh] axis '{}' is given twice",
            name);
    if (size > 1) axes_.emplace_back(name, size);
  }
  for (const auto& [name, size] : axes_) {
    int64_t index = 0;
    for (int64_t left = size; left > 1; ++index) {
      const int64_t prime = smallest_prime(left);
      stride /= prime;
      left /= prime;
      factors_.push_back({fmt::format("{}.{}", name, index), name, prime, stride});
    }
  }
}

int64_t Mesh::size(const std::string& axis) const {
  for (const auto& [name, size] : axes_) {
    if (name == axis) return size;
  }
  return 1;
}

int64_t Mesh::num_devices() const {
  int64_t count = 1;
  for (const auto& [name, size] : axes_) count *= size;
  return count;
}

std::string Mesh::to_string() const {
  if (axes_.empty()) return "one device";
  std::vector<std::string> parts;
  for (const auto& [name, size] : axes_) parts.push_back(fmt::format("{}={}", name, size));
  return fmt::format("{}", fmt::join(parts, ", "));
}

const Mesh::Factor& Mesh::factor(const std::string& name) const {
  for (const Factor& factor : factors_) {
    if (factor.name == name) return factor;
  }
  fail(Code::kInvalidArgument, "[mesh] {} has no factor '{}'", to_string(), name);
}

ir::Mesh Mesh::to_ir() const {
  ir::Mesh mesh{kMeshName, {}};
  for (const Factor& factor : factors_) mesh.axes.emplace_back(factor.name, factor.size);
  return mesh;
}

int64_t part_of(const Mesh& mesh, const Division& division, int64_t device) {
  int64_t part = 0;
  for (const std::string& name : division.factors) {
    const Mesh::Factor& factor = mesh.factor(name);
    part = part * factor.size + device / factor.stride % factor.size;
  }
  return part;
}

std::vector<Dims> groups_of(const Mesh& mesh, const Division& division) {
  std::vector<Dims> groups;
  for (int64_t device = 0; device < mesh.num_devices(); ++device) {
    if (part_of(mesh, division, device) != 0) continue;
    Dims group(static_cast<size_t>(division.parts));
    for (int64_t part = 0; part < division.parts; ++part) {
      int64_t other = device;
      int64_t rest = part;
      for (auto name = division.factors.rbegin(); name != division.factors.rend(); ++name) {
        const Mesh::Factor& factor = mesh.factor(*name);
        other += rest % factor.size * factor.stride;
        rest /= factor.size;
      }
      group[static_cast<size_t>(part)] = other;
    }
    groups.push_back(std::move(group));
  }
  return groups;
}

int64_t device_after(const Mesh& mesh, const Division& division, int64_t places, int64_t device) {
  const auto part = static_cast<size_t>(part_of(mesh, division, device));
  for (const Dims& group : groups_of(mesh, division)) {
    if (group[part] == device) return group[(part + static_cast<size_t>(places)) % group.size()];
  }
  return device;
}

Division without(const Mesh& mesh, const Division& a, const Division& b) {
  Division result;
  for (const std::string& name : a.factors) {
    if (contains(b, name)) continue;
    result.factors.push_back(name);
    result.parts *= mesh.factor(name).size;
  }
  return result;
}

Division join(const Mesh& mesh, const Division& a, const Division& b) {
  Division result = a;
  const Division more = without(mesh, b, a);
  result.factors.insert(result.factors.end(), more.factors.begin(), more.factors.end());
  result.parts *= more.parts;
  return result;
}

ir::Sharding to_sharding(const Placement& placement, int rank) {
  ir::Sharding sharding{kMeshName, std::vector<ir::DimSharding>(static_cast<size_t>(rank))};
  for (size_t i = 0; i < placement.size(); ++i) sharding.dims.at(i).axes = placement[i].factors;
  return sharding;
}

Shape whole_shape(const Shape& local, const Placement& placement) {
  Shape shape = local;
  for (size_t i = 0; i < placement.size(); ++i) shape.dims.at(i) *= placement[i].parts;
  return shape;
}

}  // namespace ttpu::parallel
