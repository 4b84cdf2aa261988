// A device of a client. A cheap value; the client must outlive it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "ttpu/pjrt/options.h"

struct PJRT_Api;
struct PJRT_Device;

namespace ttpu::pjrt {

struct MemoryStats {
  int64_t bytes_in_use = 0;
  std::optional<int64_t> peak_bytes_in_use;
  std::optional<int64_t> bytes_limit;
};

class Device {
 public:
  Device() = default;
  Device(const PJRT_Api* api, PJRT_Device* device) : api_(api), device_(device) {}

  int id() const;
  std::string kind() const;         // "cpu", "TPU v5 lite"
  std::string description() const;  // the plugin's own words
  bool addressable() const;         // by this process
  Options attributes() const;
  // Nothing when the plugin keeps no statistics, as those for CPUs do.
  std::optional<MemoryStats> memory_stats() const;
  PJRT_Device* get() const { return device_; }
  bool operator==(const Device&) const = default;

 private:
  const PJRT_Api* api_ = nullptr;
  PJRT_Device* device_ = nullptr;
};

}  // namespace ttpu::pjrt
