// PJRT plugins: shared libraries that export GetPjrtApi. This is the one door to the hardware.
// C API: the header pjrt_c_api.h of OpenXLA; 0.81 is the oldest version accepted.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ttpu/pjrt/options.h"

struct PJRT_Api;

namespace ttpu::pjrt {

// The C API that this library is written against: the same major version is needed and at least
// this minor version.
inline constexpr int kApiMajor = 0;
inline constexpr int kApiMinor = 81;

// A plugin in this process. It stays loaded until the process ends: plugins leave threads behind.
class Plugin {
 public:
  const std::filesystem::path& path() const { return path_; }
  int api_major() const { return api_major_; }
  int api_minor() const { return api_minor_; }
  // "1.13.0"; "" when the plugin does not say.
  std::string stablehlo_version() const;
  const Options& attributes() const { return attributes_; }
  const PJRT_Api* api() const { return api_; }
  // Tells the kernel that the library's code is not needed for now: what only loading and compiling
  // ran stops counting as resident; what runs next comes back from the file's cache.
  void release_code() const;

 private:
  friend std::shared_ptr<const Plugin> load_plugin(const std::filesystem::path& path);
  Plugin() = default;
  std::filesystem::path path_;
  const PJRT_Api* api_ = nullptr;
  int api_major_ = 0;
  int api_minor_ = 0;
  Options attributes_;
};

// Loads and initializes the library; the same path gives the same plugin. Throws kNotFound,
// kInvalidArgument (not a plugin) or kFailedPrecondition (another API version, with both named).
std::shared_ptr<const Plugin> load_plugin(const std::filesystem::path& path);

// A place where a plugin was found. The order in which places are searched: TTPU_PLUGIN_PATH (a
// file, which then serves every name, or "cpu=/a.so,tpu=/b.so"), what `ttpu plugin install` put
// into TTPU's cache, then the Python environment ($VIRTUAL_ENV, then that of python3 on PATH).
struct PluginLocation {
  std::string name;  // "cpu", "cpu-0.81", "tpu", "cuda"
  std::filesystem::path path;
  std::string source;  // "TTPU_PLUGIN_PATH", "cache", "python environment"
};
std::vector<PluginLocation> locate_plugins();

// The path of the plugin called `name`, or `name` itself if it is a path to a file. Throws
// kNotFound with the command that installs it.
std::filesystem::path find_plugin(std::string_view name);

struct PluginInfo {
  PluginLocation location;
  int api_major = 0;
  int api_minor = 0;
  std::string stablehlo_version;
  std::string problem;  // "" when it loads
};
// Every located plugin, each loaded in turn to learn what it says of itself.
std::vector<PluginInfo> list_plugins();

}  // namespace ttpu::pjrt
