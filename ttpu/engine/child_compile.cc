#include "ttpu/engine/child_compile.h"

#include <algorithm>
#include <filesystem>
#include <optional>

#include <fmt/ranges.h>
#include <xxhash.h>

#include "ttpu/base/file.h"
#include "ttpu/base/log.h"
#include "ttpu/base/subprocess.h"
#include "ttpu/kernels/tpu/tpu_kernels.h"
#include "ttpu/pjrt/plugin.h"

namespace ttpu::engine {
namespace {

namespace fs = std::filesystem;

// Path, size and time: another build or another plugin compiles again.
std::string identity_of(const fs::path& path) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  const auto time = fs::last_write_time(path, error).time_since_epoch().count();
  return fmt::format("{} {} {}", path.string(), size, time);
}

std::optional<fs::path> kept_at(const ChildCompile& child) {
  if (child.identity.empty()) return std::nullopt;
  const std::string identity =
      fmt::format("{}|{}|{}|{}|{}", child.identity, fmt::join(child.command, " "),
                  identity_of(child.command.at(0)), identity_of(pjrt::find_plugin("tpu")),
                  kernels::tpu_kernel_tool().value_or(""));
  const XXH128_hash_t hash = XXH3_128bits(identity.data(), identity.size());
  return cache_dir() / "plans" / fmt::format("{:016x}{:016x}.json", hash.high64, hash.low64);
}

// The last line of the output: plugins write to it as well.
Json last_line(const std::string& output) {
  const size_t end = output.find_last_not_of('\n');
  const size_t before = end == std::string::npos ? end : output.rfind('\n', end);
  const std::string line = output.substr(before == std::string::npos ? 0 : before + 1);
  return parse_json(line, "output of the compiling process");
}

// Nothing where nothing is kept; a file that cannot be read says so into `broken`.
std::optional<plan::ProgramReport> read_kept(const std::optional<fs::path>& path,
                                             std::string* broken) {
  if (!path || !fs::exists(*path)) return std::nullopt;
  try {
    return plan::report_from_json(read_json(*path));
  } catch (const Error& error) {
    *broken = error.what();
    return std::nullopt;
  }
}

}  // namespace

bool is_kept(const ChildCompile& child) {
  std::string broken;
  return read_kept(kept_at(child), &broken).has_value();
}

plan::ProgramReport compile_in_child(const ChildCompile& child) {
  const auto path = kept_at(child);
  std::string broken;
  if (auto report = read_kept(path, &broken)) return *report;
  if (!broken.empty()) {
    spdlog::warn("[plan] '{}' cannot be read and is compiled again: {}", path->string(), broken);
  }
  SubprocessOptions options;
  options.timeout = child.timeout;
  const SubprocessResult result = run_subprocess(child.command, options);
  if (result.exit_code != 0) {
    fail(Code::kInternal, "[compile] the compiling process ended with exit code {}: {}",
         result.exit_code,
         result.errors.substr(result.errors.size() - std::min<size_t>(result.errors.size(), 2000)));
  }
  const Json line = last_line(result.output);
  const JsonView view(line, "output of the compiling process");
  if (view.has("error")) {
    const JsonView error = view.child("error");
    throw Error(static_cast<Code>(error.get<int64_t>("code")), error.get<std::string>("message"));
  }
  plan::ProgramReport report = plan::report_from_json(view.child("report").json());
  if (path) {
    try {
      write_file(*path, plan::to_json(report).dump());
    } catch (const Error& error) {
      spdlog::warn("[plan] what was compiled is not kept: {}", error.what());
    }
  }
  return report;
}

}  // namespace ttpu::engine
