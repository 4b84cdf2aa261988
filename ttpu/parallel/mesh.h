// Devices in a grid with named axes, and dimensions of arrays that are divided along them.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "ttpu/base/shape.h"
#include "ttpu/ir/sharding.h"

namespace ttpu::parallel {

// Devices are numbered row-major: the last axis varies fastest.
class Mesh {
 public:
  Mesh() = default;  // one device
  // Axes of size one are left out. Throws kInvalidArgument for a size below one, a name given twice
  // or more than 2^16 devices.
  explicit Mesh(const std::vector<std::pair<std::string, int64_t>>& axes);

  const std::vector<std::pair<std::string, int64_t>>& axes() const { return axes_; }
  int64_t size(const std::string& axis) const;  // 1 for an axis that the mesh does not have
  int64_t num_devices() const;
  bool operator==(const Mesh& other) const { return axes_ == other.axes_; }
  std::string to_string() const;  // "data=2, tensor=4"; "one device"

  // Each axis as a product of primes, major first, since a dimension may be divided along the major
  // part of an axis alone: "tensor" of 8 is tensor.0, tensor.1 and tensor.2 of 2.
  struct Factor {
    std::string name;
    std::string axis;
    int64_t size = 1;
    int64_t stride = 1;  // between the numbers of neighbours
  };
  const std::vector<Factor>& factors() const { return factors_; }
  const Factor& factor(const std::string& name) const;
  // By factors; its name is kMeshName.
  ir::Mesh to_ir() const;

 private:
  std::vector<std::pair<std::string, int64_t>> axes_;
  std::vector<Factor> factors_;
};

inline constexpr const char* kMeshName = "mesh";

// How one dimension is divided: by these factors of the mesh in turn, major first.
struct Division {
  std::vector<std::string> factors;
  int64_t parts = 1;

  bool whole() const { return parts == 1; }
  bool operator==(const Division&) const = default;
};

// Which of a division's parts a device has.
int64_t part_of(const Mesh& mesh, const Division& division, int64_t device);
// Devices that differ in nothing but their part, each group in the order of the parts.
std::vector<Dims> groups_of(const Mesh& mesh, const Division& division);
// The one that is `places` after it in its group, the first coming after the last.
int64_t device_after(const Mesh& mesh, const Division& division, int64_t places, int64_t device);
// The factors of `a` that are not in `b`.
Division without(const Mesh& mesh, const Division& a, const Division& b);
// The factors of both, those of `a` first.
Division join(const Mesh& mesh, const Division& a, const Division& b);

// How an array is divided: one entry a dimension; none at all: every device has the whole.
using Placement = std::vector<Division>;
ir::Sharding to_sharding(const Placement& placement, int rank);
// The shape of the whole, of which every device has `local`.
Shape whole_shape(const Shape& local, const Placement& placement);

}  // namespace ttpu::parallel
