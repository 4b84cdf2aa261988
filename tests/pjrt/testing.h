// What the tests of this folder share.
#pragma once

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "ttpu/base/error.h"
#include "ttpu/pjrt/client.h"
#include "ttpu/pjrt/install.h"

namespace ttpu::pjrt {

// Installs the plugin unless TTPU_PLUGIN_PATH or the cache has it.
inline std::shared_ptr<const Plugin> plugin_called(const std::string& name) {
  try {
    return load_plugin(find_plugin(name));
  } catch (const Error& error) {
    if (error.code() != Code::kNotFound) throw;
  }
  return load_plugin(install_plugin(pinned_plugin(name)));
}

// The error that `action` throws; fails the test if there is none.
template <typename Action>
Error error_of(Action action) {
  try {
    action();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "no error was thrown";
  return Error(Code::kUnknown, "");
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}
inline bool contains(const Error& error, const std::string& part) {
  return contains(std::string(error.what()), part);
}

// Every test runs on both CPU plugins.
class OnCpuPlugins : public testing::TestWithParam<const char*> {
 protected:
  std::shared_ptr<const Plugin> plugin() const { return plugin_called(GetParam()); }
  Client client(int64_t devices = 1) const {
    return Client::create(plugin(), {{"cpu_device_count", devices}});
  }
};

inline std::string plugin_label(const testing::TestParamInfo<const char*>& parameter) {
  return std::string(parameter.param) == "cpu" ? "Newer" : "Older";
}
#define TTPU_ON_CPU_PLUGINS(Suite) \
  INSTANTIATE_TEST_SUITE_P(Cpu, Suite, testing::Values("cpu", "cpu-0.81"), plugin_label)

}  // namespace ttpu::pjrt
