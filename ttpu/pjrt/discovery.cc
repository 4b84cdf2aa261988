// Where plugins are looked for.
#include <algorithm>
#include <set>

#include <sys/stat.h>
#include <unistd.h>

#include "ttpu/base/error.h"
#include "ttpu/base/file.h"
#include "ttpu/pjrt/install.h"
#include "ttpu/pjrt/plugin.h"

namespace ttpu::pjrt {
namespace {

namespace fs = std::filesystem;

bool is_file(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

// The name that the file of a plugin suggests: "cpu" for a file that could be anything.
std::string guess_name(const fs::path& path) {
  const std::string file = path.filename().string();
  if (file.find("tpu") != std::string::npos) return "tpu";
  if (file.find("cuda") != std::string::npos || file.find("gpu") != std::string::npos)
    return "cuda";
  return "cpu";
}

// "/a.so" or "cpu=/a.so,tpu=/b.so"
std::vector<PluginLocation> from_variable(const std::string& text) {
  constexpr const char* kSource = "TTPU_PLUGIN_PATH";
  std::vector<PluginLocation> found;
  size_t start = 0;
  while (start < text.size()) {
    const size_t end = std::min(text.find(',', start), text.size());
    const std::string item = text.substr(start, end - start);
    start = end + 1;
    if (item.empty()) continue;
    const size_t equals = item.find('=');
    if (equals == std::string::npos) {
      found.push_back({guess_name(item), item, kSource});
    } else {
      found.push_back({item.substr(0, equals), item.substr(equals + 1), kSource});
    }
  }
  return found;
}

// The first python3 on PATH, as its prefix: the folder above bin. A virtual environment's own link
// is not followed, since its packages are beside it.
fs::path python_prefix() {
  const std::string path = env_or("PATH");
  size_t start = 0;
  while (start <= path.size()) {
    const size_t end = std::min(path.find(':', start), path.size());
    const fs::path python = fs::path(path.substr(start, end - start)) / "python3";
    start = end + 1;
    if (!is_file(python) || ::access(python.c_str(), X_OK) != 0) continue;
    fs::path prefix = python.parent_path().parent_path();
    if (is_file(prefix / "pyvenv.cfg")) return prefix;
    std::error_code error;
    const fs::path real = fs::canonical(python, error);
    return error ? prefix : real.parent_path().parent_path();
  }
  return {};
}

// The folders of one Python installation that hold packages.
std::vector<fs::path> package_folders(const fs::path& prefix) {
  std::vector<fs::path> folders;
  if (prefix.empty()) return folders;
  std::vector<fs::path> roots = {prefix / "lib"};
  if (prefix == "/usr") roots.push_back("/usr/local/lib");  // where Debian puts pip's packages
  for (const fs::path& root : roots) {
    std::error_code error;
    for (fs::directory_iterator it(root, error), end; !error && it != end; it.increment(error)) {
      if (!it->path().filename().string().starts_with("python3")) continue;
      folders.push_back(it->path() / "site-packages");
      folders.push_back(it->path() / "dist-packages");
    }
  }
  return folders;
}

void add_from_python(const fs::path& prefix, std::vector<PluginLocation>& found) {
  for (const fs::path& folder : package_folders(prefix)) {
    for (const Wheel& wheel : pinned_wheels()) {
      if (wheel.kind != "plugin") continue;
      if (is_file(folder / wheel.members[0])) {
        found.push_back({wheel.id, folder / wheel.members[0], "python environment"});
      }
    }
  }
}

bool is_path(std::string_view name) {
  return name.find('/') != std::string_view::npos || name.ends_with(".so");
}

}  // namespace

std::vector<PluginLocation> locate_plugins() {
  std::vector<PluginLocation> found = from_variable(env_or("TTPU_PLUGIN_PATH"));
  for (const Wheel& wheel : pinned_wheels()) {
    if (wheel.kind != "plugin") continue;
    if (const fs::path path = installed_path(wheel); is_file(path)) {
      found.push_back({wheel.id, path, "cache"});
    }
  }
  const fs::path environment = env_or("VIRTUAL_ENV");
  add_from_python(environment, found);
  if (const fs::path prefix = python_prefix(); prefix != environment)
    add_from_python(prefix, found);

  std::set<fs::path> seen;
  std::erase_if(found, [&](const PluginLocation& location) {
    std::error_code error;
    const fs::path real = fs::weakly_canonical(location.path, error);
    return !seen.insert(error ? location.path : real).second;
  });
  return found;
}

std::filesystem::path find_plugin(std::string_view name) {
  if (is_path(name)) {
    if (!is_file(fs::path(name))) {
      fail(Code::kNotFound,
           "[plugin] there is no file '{}'; check the path, or give a name: cpu, tpu or cuda",
           name);
    }
    return fs::path(name);
  }
  if (name == "gpu") name = "cuda";
  // A single file in the variable serves every name.
  const std::string variable = env_or("TTPU_PLUGIN_PATH");
  if (!variable.empty() && variable.find_first_of("=,") == std::string::npos) return variable;
  for (const PluginLocation& location : locate_plugins()) {
    if (location.name == name) return location.path;
  }
  const Wheel& wheel = pinned_plugin(name);  // explains an unknown name
  fail(Code::kNotFound,
       "[plugin] no plugin for '{}' was found in TTPU_PLUGIN_PATH, in '{}' or in the Python "
       "environment; "
       "run `ttpu plugin install {}`",
       name, (cache_dir() / "plugins").string(), wheel.id);
}

std::vector<PluginInfo> list_plugins() {
  std::vector<PluginInfo> infos;
  for (const PluginLocation& location : locate_plugins()) {
    PluginInfo& info = infos.emplace_back();
    info.location = location;
    try {
      const std::shared_ptr<const Plugin> plugin = load_plugin(location.path);
      info.api_major = plugin->api_major();
      info.api_minor = plugin->api_minor();
      info.stablehlo_version = plugin->stablehlo_version();
    } catch (const Error& error) {
      info.problem = error.what();
    }
  }
  return infos;
}

}  // namespace ttpu::pjrt
