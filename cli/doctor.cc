// `ttpu doctor`: what was found, what is wrong, and how to mend it.
#include <cstdio>
#include <filesystem>

#include <unistd.h>

#include "cli/commands.h"
#include "ttpu/base/error.h"
#include "ttpu/base/file.h"
#include "ttpu/kernels/cpu/isa.h"
#include "ttpu/pjrt/client.h"

namespace {

int64_t folder_bytes(const std::filesystem::path& folder) {
  int64_t total = 0;
  std::error_code error;
  for (auto entry = std::filesystem::recursive_directory_iterator(folder, error);
       !error && entry != std::filesystem::recursive_directory_iterator(); entry.increment(error)) {
    if (entry->is_regular_file(error) && !error)
      total += static_cast<int64_t>(entry->file_size(error));
  }
  return total;
}

void show_machine() {
  const auto pages = static_cast<double>(sysconf(_SC_PHYS_PAGES));
  const auto page = static_cast<double>(sysconf(_SC_PAGESIZE));
  std::printf("ttpu        %s\nprocessors  %ld, kernels for %s\nmemory      %.1f GB\n",
              TTPU_VERSION, sysconf(_SC_NPROCESSORS_ONLN),
              ttpu::kernels::isa_name(ttpu::kernels::best_isa()), pages * page / 1e9);
}

// The number of problems found.
int show_plugins() {
  int problems = 0;
  bool cpu = false;
  for (const ttpu::pjrt::PluginInfo& info : ttpu::pjrt::list_plugins()) {
    std::printf("plugin      %s, API %d.%d, StableHLO %s, from %s: %s\n",
                info.location.name.c_str(), info.api_major, info.api_minor,
                info.stablehlo_version.c_str(), info.location.source.c_str(),
                info.location.path.c_str());
    if (info.problem.empty()) {
      cpu = cpu || info.location.name == "cpu";
      continue;
    }
    ++problems;
    std::printf("  problem   %s\n", info.problem.c_str());
  }
  if (!cpu) {
    ++problems;
    std::puts("  problem   no CPU plugin works here; run `ttpu plugin install cpu`");
  }
  return problems;
}

int show_devices() {
  try {
    const auto client =
        ttpu::pjrt::Client::create(ttpu::pjrt::load_plugin(ttpu::pjrt::find_plugin("cpu")));
    std::printf("devices     %zu of platform %s (%s)\n", client.devices().size(),
                client.platform_name().c_str(), client.platform_version().c_str());
    return 0;
  } catch (const ttpu::Error& error) {
    std::printf("  problem   the CPU plugin makes no client: %s\n", error.what());
    return 1;
  }
}

int show_cache() {
  const std::filesystem::path cache = ttpu::cache_dir();
  std::printf("cache       %s, %.1f MB\n", cache.c_str(),
              static_cast<double>(folder_bytes(cache)) / 1e6);
  const std::filesystem::path probe = cache / ".doctor";
  try {
    ttpu::write_file(probe, "probe");
    std::filesystem::remove(probe);
    return 0;
  } catch (const ttpu::Error& error) {
    std::printf("  problem   %s; set TTPU_CACHE to a folder that can be written\n", error.what());
    return 1;
  }
}

}  // namespace

void add_doctor_command(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("doctor", "Say what was found, what is wrong, and how to mend it");
  command->callback([] {
    show_machine();
    const int problems = show_plugins() + show_devices() + show_cache();
    std::puts(problems == 0 ? "Everything works." : "See the problems above.");
    if (problems > 0) throw CLI::RuntimeError(1);
  });
}
