#include "ttpu/engine/executable_cache.h"

#include <xxhash.h>

#include "ttpu/base/file.h"
#include "ttpu/base/log.h"
#include "ttpu/engine/device.h"

namespace ttpu::engine {
namespace {

std::filesystem::path entry_path(const pjrt::Client& client, const std::string& program,
                                 const parallel::Mesh& mesh) {
  const pjrt::Plugin& plugin = client.plugin();
  std::error_code error;
  const auto size = std::filesystem::file_size(plugin.path(), error);
  std::string identity =
      fmt::format("{}|{}|{}.{}|{}|{}", plugin.path().string(), error ? 0 : size, plugin.api_major(),
                  plugin.api_minor(), client.platform_version(), program);
  // One plugin drives GPUs of several kinds.
  if (platform_of(client) == kernels::Platform::kCuda) {
    identity += "|" + client.devices().at(0).kind();
  }
  // The devices that it is for, and what the compiler was told.
  identity += "|" + pjrt::encode_compile_options(compile_options(client, mesh));
  const XXH128_hash_t hash = XXH3_128bits(identity.data(), identity.size());
  return cache_dir() / "executables" / fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

}  // namespace

bool is_cached(const pjrt::Client& client, const std::string& program, const parallel::Mesh& mesh) {
  return std::filesystem::exists(entry_path(client, program, mesh));
}

CompiledStep compile_cached(const pjrt::Client& client, const std::string& program,
                            const parallel::Mesh& mesh) {
  const std::filesystem::path path = entry_path(client, program, mesh);
  if (std::filesystem::exists(path)) {
    try {
      return {client.load(read_file(path)), true};
    } catch (const Error& error) {
      spdlog::warn("[cache] '{}' cannot be loaded and is compiled again: {}", path.string(),
                   error.what());
    }
  }
  CompiledStep step{client.compile(program, compile_options(client, mesh)), false};
  try {
    write_file(path, step.executable.info().serialize());
  } catch (const Error& error) {
    spdlog::warn("[cache] the compiled program is not kept: {}", error.what());
  }
  return step;
}

}  // namespace ttpu::engine
