// ttpu plugin install NAME... | list [--json]
#include "ttpu/pjrt/plugin.h"

#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "cli/commands.h"
#include "ttpu/base/json.h"
#include "ttpu/pjrt/install.h"

namespace {

void announce(const ttpu::pjrt::Wheel& wheel) {
  std::cerr << fmt::format("{} {} ...\n", wheel.name, wheel.version) << std::flush;
}

void install(const std::vector<std::string>& names, bool compile_only) {
  for (const std::string& name : names)
    ttpu::pjrt::pinned_plugin(name);  // all are known before any is fetched
  for (const std::string& name : names) {
    const ttpu::pjrt::Wheel& wheel = ttpu::pjrt::pinned_plugin(name);
    announce(wheel);
    const std::filesystem::path library = ttpu::pjrt::install_plugin(wheel);
    for (const ttpu::pjrt::Wheel& part : wheel.parts) {
      if (compile_only && part.kind == "run") continue;
      announce(part);
      ttpu::pjrt::install_part(wheel, part);
    }
    std::cout << library.string() << "\n";
  }
}

ttpu::Json to_json(const ttpu::pjrt::PluginInfo& info) {
  ttpu::Json json;
  json["name"] = info.location.name;
  json["path"] = info.location.path.string();
  json["source"] = info.location.source;
  if (!info.problem.empty()) {
    json["problem"] = info.problem;
    return json;
  }
  json["api_version"] = fmt::format("{}.{}", info.api_major, info.api_minor);
  json["stablehlo_version"] = info.stablehlo_version;
  if (const auto missing = ttpu::pjrt::missing_parts(info.location.path); !missing.empty()) {
    json["missing"] = missing;
  }
  return json;
}

void list(bool as_json) {
  const std::vector<ttpu::pjrt::PluginInfo> infos = ttpu::pjrt::list_plugins();
  if (as_json) {
    ttpu::Json all = ttpu::Json::array();
    for (const ttpu::pjrt::PluginInfo& info : infos) all.push_back(to_json(info));
    std::cout << all.dump(2) << "\n";
    return;
  }
  if (infos.empty()) {
    std::cout << "No plugin was found. Run `ttpu plugin install cpu`.\n";
    return;
  }
  constexpr const char* kRow = "{:<10} {:<7} {:<10} {:<19} {}\n";
  std::cout << fmt::format(kRow, "NAME", "API", "STABLEHLO", "FROM", "PATH");
  for (const ttpu::pjrt::PluginInfo& info : infos) {
    const bool good = info.problem.empty();
    const std::string api = good ? fmt::format("{}.{}", info.api_major, info.api_minor) : "-";
    std::cout << fmt::format(kRow, info.location.name, api, good ? info.stablehlo_version : "-",
                             info.location.source, info.location.path.string());
    if (!good) std::cout << "  " << info.problem << "\n";
    if (const auto missing = ttpu::pjrt::missing_parts(info.location.path); !missing.empty()) {
      std::cout << fmt::format("  without {}; `ttpu plugin install {}` brings them\n",
                               fmt::join(missing, ", "), info.location.name);
    }
  }
}

}  // namespace

void add_plugin_command(CLI::App& app) {
  CLI::App* plugin = app.add_subcommand("plugin", "Install or list the PJRT plugins");
  plugin->require_subcommand(1);

  CLI::App* install_command =
      plugin->add_subcommand("install", "Download pinned plugins into TTPU's cache");
  auto names = std::make_shared<std::vector<std::string>>();
  install_command->add_option("names", *names, "cpu, cpu-0.81, tpu or cuda")->required();
  auto compile_only = std::make_shared<bool>(false);
  install_command->add_flag(
      "--compile-only", *compile_only,
      "Of cuda, what `ttpu compile --topology` needs (0.25 GB), without the 2 "
      "GB of libraries that only running on a GPU takes");
  install_command->callback([names, compile_only] { install(*names, *compile_only); });

  CLI::App* list_command = plugin->add_subcommand("list", "Show the plugins that were found");
  auto as_json = std::make_shared<bool>(false);
  list_command->add_flag("--json", *as_json, "Print JSON");
  list_command->callback([as_json] { list(*as_json); });
}
