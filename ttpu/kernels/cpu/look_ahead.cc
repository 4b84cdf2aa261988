#include "ttpu/kernels/cpu/look_ahead.h"

#include <mutex>

namespace ttpu::kernels {
namespace {

// Calls by where their weights begin. Two calls that meet at one place forget each other.
constexpr size_t kCalls = 4096;

struct Call {
  const char* begin = nullptr;
  Reads next;
};

size_t place_of(const char* begin) {
  const auto mixed = reinterpret_cast<uintptr_t>(begin) * uint64_t{0x9e3779b97f4a7c15};
  return mixed >> 52;
}
static_assert(kCalls == size_t{1} << (64 - 52));

}  // namespace

Reads reads_after(const Reads& now) {
  static std::mutex mutex;
  static Call calls[kCalls];
  static Call* before = nullptr;
  const std::unique_lock lock(mutex, std::try_to_lock);
  if (!lock) return {};
  Call& call = calls[place_of(now.arrays[0].begin)];
  if (call.begin != now.arrays[0].begin) call = {.begin = now.arrays[0].begin, .next = {}};
  if (before != nullptr) before->next = now;
  before = &call;
  return call.next;
}

}  // namespace ttpu::kernels
