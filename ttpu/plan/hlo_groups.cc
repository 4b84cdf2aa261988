// Which devices meet in a collective.
#include <algorithm>
#include <numeric>

#include "ttpu/base/error.h"
#include "ttpu/plan/hlo.h"

namespace ttpu::plan {
namespace {

constexpr int64_t kMostDevices = 1 << 16;

}  // namespace

DeviceGroups iota_groups(const std::vector<int64_t>& dims, std::vector<int64_t> order,
                         int64_t size) {
  for (auto i = static_cast<int64_t>(order.size()); order.size() < dims.size(); ++i) {
    order.push_back(i);
  }
  int64_t count = 1;
  bool valid = size >= 1 && order.size() == dims.size();
  for (const int64_t dim : dims) {
    valid = valid && dim >= 1 && dim <= kMostDevices / count;
    if (valid) count *= dim;
  }
  std::vector<int64_t> sorted = order;
  std::sort(sorted.begin(), sorted.end());
  for (size_t i = 0; i < sorted.size(); ++i) valid = valid && std::cmp_equal(sorted[i], i);
  if (!valid || count % size != 0) {
    fail(Code::kDataLoss,
         "[cost] the compiled program has groups of {} devices, of {} numbers in {} dimensions, "
         "which cannot be",
         size, count, dims.size());
  }
  std::vector<int64_t> strides(dims.size(), 1);
  for (size_t i = dims.size(); i-- > 1;) strides[i - 1] = strides[i] * dims[i];
  DeviceGroups groups(static_cast<size_t>(count / size));
  for (int64_t place = 0; place < count; ++place) {
    int64_t device = 0;
    int64_t rest = place;
    for (size_t i = order.size(); i-- > 0;) {
      const auto axis = static_cast<size_t>(order[i]);
      device += rest % dims[axis] * strides[axis];
      rest /= dims[axis];
    }
    groups[static_cast<size_t>(place / size)].push_back(device);
  }
  return groups;
}

DeviceGroups mesh_groups(const std::vector<int64_t>& sizes, const std::vector<int64_t>& axes) {
  std::vector<int64_t> order(sizes.size());
  std::iota(order.begin(), order.end(), 0);
  int64_t size = 1;
  for (const int64_t axis : axes) {
    std::erase(order, axis);
    if (std::cmp_less(axis, sizes.size()) && axis >= 0) size *= sizes[static_cast<size_t>(axis)];
  }
  order.insert(order.end(), axes.begin(), axes.end());
  return iota_groups(sizes, order, size);
}

}  // namespace ttpu::plan
