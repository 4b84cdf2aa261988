#include "ttpu/pjrt/plugin.h"

#include <cstdlib>
#include <map>
#include <mutex>

#include <dlfcn.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ttpu/pjrt/capi.h"

namespace ttpu::pjrt {
namespace {

static_assert(PJRT_API_MAJOR == kApiMajor && PJRT_API_MINOR == kApiMinor,
              "the C header is another version than plugin.h says");

constexpr const char* kNextStep =
    "run `ttpu plugin install cpu` (or tpu, cuda) for one that fits, or point TTPU_PLUGIN_PATH to "
    "it";

using GetPjrtApi = const PJRT_Api* (*)();

// What plugins read from the environment when they are loaded; what is set already stays.
void prepare_environment(const std::filesystem::path& path) {
  // Their errors reach the caller as exceptions; a second copy on standard error is noise.
  ::setenv("TF_CPP_MIN_LOG_LEVEL", "3", /*overwrite=*/0);
  if (path.filename().string().find("libtpu") == std::string::npos) return;
  // Without a TPU libtpu would ask the cloud's metadata server for minutes, and two processes that
  // hold it would abort over its lock file.
  ::setenv("TPU_SKIP_MDS_QUERY", "1", 0);
  ::setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1", 0);
  if (std::filesystem::exists("/dev/accel0") || std::filesystem::exists("/dev/vfio/0")) return;
  // It would complain that it does not know the machine; to compile ahead of time it need not.
  ::setenv("TPU_WORKER_HOSTNAMES", "localhost", 0);
  ::setenv("TPU_ACCELERATOR_TYPE", "v5litepod-1", 0);
}

const PJRT_Api* open_library(const std::filesystem::path& path) {
  if (std::error_code error; !std::filesystem::is_regular_file(path, error)) {
    fail(Code::kNotFound, "[plugin] there is no file '{}'; {}", path.string(), kNextStep);
  }
  prepare_environment(path);
  void* library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    fail(Code::kInvalidArgument, "[plugin] '{}' cannot be loaded as a shared library: {}; {}",
         path.string(), ::dlerror(), kNextStep);
  }
  const auto get_api = reinterpret_cast<GetPjrtApi>(::dlsym(library, "GetPjrtApi"));
  const PJRT_Api* api = get_api == nullptr ? nullptr : get_api();
  if (api == nullptr) {
    ::dlclose(library);
    fail(Code::kInvalidArgument, "[plugin] '{}' is a shared library but not a PJRT plugin ({}); {}",
         path.string(),
         get_api == nullptr ? "it has no function GetPjrtApi" : "GetPjrtApi gave nothing",
         kNextStep);
  }
  return api;
}

// The pages of a library that hold nothing but code.
int release_code_of(dl_phdr_info* info, size_t, void* data) {
  const auto inside = reinterpret_cast<uintptr_t>(data);
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  bool found = false;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr)& part = info->dlpi_phdr[i];
    const uintptr_t begin = info->dlpi_addr + part.p_vaddr;
    found = found || (part.p_type == PT_LOAD && begin <= inside && inside < begin + part.p_memsz);
  }
  for (int i = 0; found && i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr)& part = info->dlpi_phdr[i];
    if (part.p_type != PT_LOAD || (part.p_flags & (PF_X | PF_W)) != PF_X) continue;
    const uintptr_t begin = (info->dlpi_addr + part.p_vaddr + page - 1) / page * page;
    const uintptr_t end = (info->dlpi_addr + part.p_vaddr + part.p_filesz) / page * page;
    if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
  }
  return found ? 1 : 0;
}

// The table's size comes first and its version next, in every version of the C API.
void check_version(const PJRT_Api* api, const std::filesystem::path& path) {
  if (api->struct_size < PJRT_STRUCT_SIZE(PJRT_Api, pjrt_api_version)) {
    fail(Code::kFailedPrecondition,
         "[plugin] '{}' says that its function table has {} bytes, too few to hold even a version; "
         "TTPU is written against PJRT API {}.{}; {}",
         path.string(), api->struct_size, kApiMajor, kApiMinor, kNextStep);
  }
  const int major = api->pjrt_api_version.major_version;
  const int minor = api->pjrt_api_version.minor_version;
  if (major != kApiMajor || minor < kApiMinor) {
    fail(Code::kFailedPrecondition,
         "[plugin] '{}' implements PJRT API {}.{}, but TTPU needs {}.{} or a later minor version; "
         "{}",
         path.string(), major, minor, kApiMajor, kApiMinor, kNextStep);
  }
  if (api->struct_size < PJRT_Api_STRUCT_SIZE) {
    fail(Code::kFailedPrecondition,
         "[plugin] '{}' says it implements PJRT API {}.{}, but its function table has {} bytes and "
         "that "
         "of {}.{}, which TTPU needs, has {}: the file is broken; {}",
         path.string(), major, minor, api->struct_size, kApiMajor, kApiMinor,
         static_cast<size_t>(PJRT_Api_STRUCT_SIZE), kNextStep);
  }
}

}  // namespace

std::shared_ptr<const Plugin> load_plugin(const std::filesystem::path& path) {
  static std::mutex mutex;
  // Never destroyed: plugins' threads outlive the end of main.
  static auto& loaded = *new std::map<std::filesystem::path, std::shared_ptr<const Plugin>>();
  const std::lock_guard lock(mutex);
  std::error_code ignored;
  const std::filesystem::path canonical = std::filesystem::weakly_canonical(path, ignored);
  const std::filesystem::path key = canonical.empty() ? path : canonical;
  if (const auto found = loaded.find(key); found != loaded.end()) return found->second;

  const PJRT_Api* api = open_library(key);
  check_version(api, key);
  TTPU_PJRT_ARGS(PJRT_Plugin_Initialize_Args, initialize);
  check(api, api->PJRT_Plugin_Initialize(&initialize), "plugin '" + key.string() + "'");
  TTPU_PJRT_ARGS(PJRT_Plugin_Attributes_Args, attributes);
  check(api, api->PJRT_Plugin_Attributes(&attributes), "plugin '" + key.string() + "'");

  const std::shared_ptr<Plugin> plugin(new Plugin());
  plugin->path_ = key;
  plugin->api_ = api;
  plugin->api_major_ = api->pjrt_api_version.major_version;
  plugin->api_minor_ = api->pjrt_api_version.minor_version;
  plugin->attributes_ = from_named_values(attributes.attributes, attributes.num_attributes);
  loaded.emplace(key, plugin);
  return plugin;
}

void Plugin::release_code() const {
  ::dl_iterate_phdr(release_code_of, const_cast<PJRT_Api*>(api_));
}

std::string Plugin::stablehlo_version() const {
  const auto found = attributes_.find("stablehlo_current_version");
  if (found == attributes_.end()) return "";
  const auto* parts = std::get_if<std::vector<int64_t>>(&found->second);
  if (parts == nullptr) return option_to_string(found->second);
  return fmt::format("{}", fmt::join(*parts, "."));
}

}  // namespace ttpu::pjrt
