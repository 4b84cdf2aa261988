#include "ttpu/pjrt/install.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>

#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>
#include <zip.h>

#include "ttpu/base/error.h"
#include "ttpu/base/file.h"
#include "ttpu/base/json.h"
#include "ttpu/base/subprocess.h"
#include "ttpu/pjrt/wheels.h"

namespace ttpu::pjrt {
namespace {

namespace fs = std::filesystem;

// A folder that is removed when the work on it fails or is done.
class TemporaryFolder {
 public:
  // Beside `final`, so that renaming into place is atomic. The name carries this process's id.
  explicit TemporaryFolder(const fs::path& final) {
    fs::create_directories(final.parent_path());
    remove_abandoned(final.parent_path());
    std::string name =
        (final.parent_path() / fmt::format("{}{}-XXXXXX", kPrefix, ::getpid())).string();
    if (::mkdtemp(name.data()) == nullptr) {
      fail(errno == ENOSPC ? Code::kResourceExhausted : Code::kPermissionDenied,
           "[plugin] cannot create a folder in '{}': {}; free some space, or set TTPU_CACHE to "
           "another "
           "folder",
           final.parent_path().string(), std::strerror(errno));
    }
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const fs::path& path() const { return path_; }

 private:
  static constexpr std::string_view kPrefix = ".partial-";

  // What processes that were killed while they installed left behind.
  static void remove_abandoned(const fs::path& parent) {
    std::error_code error;
    for (fs::directory_iterator it(parent, error), end; !error && it != end; it.increment(error)) {
      const std::string name = it->path().filename().string();
      if (!name.starts_with(kPrefix)) continue;
      const auto pid = static_cast<pid_t>(std::strtol(name.c_str() + kPrefix.size(), nullptr, 10));
      std::error_code ignored;
      if (pid > 0 && ::kill(pid, 0) != 0 && errno == ESRCH) fs::remove_all(it->path(), ignored);
    }
  }

  fs::path path_;
};

std::string sha256_of(const fs::path& file) {
  const MappedFile mapped(file);
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  if (EVP_Digest(mapped.bytes().data(), mapped.size(), digest.data(), &size, EVP_sha256(),
                 nullptr) != 1) {
    fail(Code::kInternal, "[plugin] OpenSSL cannot compute a SHA-256");
  }
  return fmt::format("{:02x}", fmt::join(digest.begin(), digest.begin() + size, ""));
}

[[noreturn]] void fail_write(const fs::path& path) {
  const int error = errno;
  fail(error == ENOSPC || error == EDQUOT ? Code::kResourceExhausted : Code::kPermissionDenied,
       "[plugin] cannot write '{}': {}; free some space, or set TTPU_CACHE to another folder, then "
       "run "
       "the command again",
       path.string(), std::strerror(error));
}

void write_all(int fd, const char* data, size_t size, const fs::path& path) {
  while (size > 0) {
    const ssize_t count = ::write(fd, data, size);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_write(path);
    data += count;
    size -= static_cast<size_t>(count);
  }
}

struct CloseDescriptor {
  int fd;
  ~CloseDescriptor() { ::close(fd); }
};

void unpack_member(zip_t* archive, const std::string& member, const fs::path& wheel,
                   const fs::path& target) {
  const std::unique_ptr<zip_file_t, int (*)(zip_file_t*)> file(
      zip_fopen(archive, member.c_str(), 0), zip_fclose);
  if (file == nullptr) {
    fail(Code::kDataLoss, "[plugin] the wheel '{}' has no readable file '{}': {}", wheel.string(),
         member, zip_strerror(archive));
  }
  fs::create_directories(target.parent_path());
  const mode_t mode = target.parent_path().filename() == "bin" ? 0755 : 0644;
  const CloseDescriptor out{::open(target.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode)};
  if (out.fd < 0) fail_write(target);
  std::vector<char> block(1 << 20);
  while (true) {
    const zip_int64_t count = zip_fread(file.get(), block.data(), block.size());
    if (count < 0) {
      fail(Code::kDataLoss,
           "[plugin] '{}' in the wheel '{}' is damaged: {}; delete the wheel and try again", member,
           wheel.string(), zip_file_strerror(file.get()));
    }
    if (count == 0) break;
    write_all(out.fd, block.data(), static_cast<size_t>(count), target);
  }
  if (::fsync(out.fd) != 0) fail_write(target);
}

// "lammps_jax_pjrt_cpu-0.11.2-": how the file of the wheel begins.
std::string file_prefix(const Wheel& wheel) {
  std::string name = wheel.name;
  std::replace(name.begin(), name.end(), '-', '_');
  return name + "-" + wheel.version + "-";
}

fs::path find_wheel(const Wheel& wheel, const fs::path& folder) {
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name.starts_with(file_prefix(wheel)) && name.ends_with(".whl")) return it->path();
  }
  return {};
}

fs::path download(const Wheel& wheel, const fs::path& folder) {
  const std::string what = wheel.name + "==" + wheel.version;
  SubprocessOptions options;
  // The temporary copies of pip go where there has to be room anyway.
  options.environment = {{"TMPDIR", folder.string()}, {"PIP_DISABLE_PIP_VERSION_CHECK", "1"}};
  const SubprocessResult pip =
      run_subprocess({"python3", "-m", "pip", "download", "--quiet", "--no-deps",
                      "--only-binary=:all:", "--python-version", wheel.python_version, "--platform",
                      wheel.platform, "--dest", folder.string(), what},
                     options);
  fs::path file = find_wheel(wheel, folder);
  if (pip.exit_code == 0 && !file.empty()) return file;
  const bool full = pip.errors.find("No space left on device") != std::string::npos;
  fail(full ? Code::kResourceExhausted : Code::kUnavailable,
       "[plugin] pip could not download {} (exit code {}): {}\n{}", what, pip.exit_code,
       pip.errors.substr(0, 2000),
       full ? "Free some space, or set TTPU_CACHE to another folder."
            : "Check the network and that `python3 -m pip` works, or put the wheel into '" +
                  (cache_dir() / "wheels").string() + "'.");
}

// Where a member of a plugin's wheel lies in the plugin's folder.
fs::path place_of(const Wheel& wheel, const std::string& member) {
  return wheel.parts.empty() ? fs::path(member).filename() : fs::path(member);
}

fs::path plugin_folder(const Wheel& wheel) {
  return cache_dir() / "plugins" / (wheel.id + "-" + wheel.version);
}

std::vector<Wheel> parse_wheels(const Json& list) {
  std::vector<Wheel> wheels;
  for (const Json& item : list) {
    const JsonView view(item, "wheels.json");
    wheels.push_back({view.get<std::string>("id"), view.get<std::string>("name"),
                      view.get<std::string>("version"), view.get<std::string>("sha256"),
                      view.get<std::string>("python_version"), view.get<std::string>("platform"),
                      view.get<std::vector<std::string>>("members"), view.get<std::string>("kind"),
                      parse_wheels(item.value("parts", Json::array()))});
  }
  return wheels;
}

// Gives `use` the file of the wheel, from cache_dir()/wheels or downloaded.
void with_wheel(const Wheel& wheel, const fs::path& folder,
                const std::function<void(const fs::path& file)>& use) {
  try {
    const fs::path kept = find_wheel(wheel, cache_dir() / "wheels");
    if (!kept.empty()) {
      verify_wheel(wheel, kept);
      return use(kept);
    }
    if (env_flag("TTPU_OFFLINE")) {
      fail(
          Code::kUnavailable,
          "[plugin] TTPU_OFFLINE is set and '{}' has no file {}*.whl; put the wheel there or unset "
          "TTPU_OFFLINE",
          (cache_dir() / "wheels").string(), file_prefix(wheel));
    }
    const TemporaryFolder downloads(folder);
    const fs::path file = download(wheel, downloads.path());
    verify_wheel(wheel, file);
    use(file);
  } catch (const fs::filesystem_error& error) {
    fail(error.code() == std::errc::no_space_on_device ? Code::kResourceExhausted
                                                       : Code::kPermissionDenied,
         "[plugin] cannot install into '{}': {}; check that the folder can be written to, or set "
         "TTPU_CACHE "
         "to another",
         folder.string(), error.what());
  }
}

using Archive = std::unique_ptr<zip_t, void (*)(zip_t*)>;

Archive open_wheel(const fs::path& file) {
  int zip_error = 0;
  Archive archive(zip_open(file.c_str(), ZIP_RDONLY, &zip_error), zip_discard);
  if (archive == nullptr) {
    fail(Code::kDataLoss,
         "[plugin] '{}' is not a readable wheel (zip error {}); delete it and try again",
         file.string(), zip_error);
  }
  return archive;
}

bool is_there(const fs::path& file) {
  std::error_code ignored;
  return fs::exists(file, ignored);
}

}  // namespace

const std::vector<Wheel>& pinned_wheels() {
  static const std::vector<Wheel> wheels =
      parse_wheels(parse_json(kWheelsJson, "wheels.json").at("wheels"));
  return wheels;
}

const Wheel& pinned_plugin(std::string_view id) {
  std::string known;
  for (const Wheel& wheel : pinned_wheels()) {
    if (wheel.kind != "plugin") continue;
    if (wheel.id == id) return wheel;
    known += (known.empty() ? "" : ", ") + wheel.id;
  }
  fail(Code::kInvalidArgument, "[plugin] there is no plugin '{}'; known are: {}", id, known);
}

std::filesystem::path installed_path(const Wheel& wheel) {
  return plugin_folder(wheel) / place_of(wheel, wheel.members[0]);
}

void verify_wheel(const Wheel& wheel, const std::filesystem::path& file) {
  const std::string actual = sha256_of(file);
  if (actual == wheel.sha256) return;
  fail(Code::kDataLoss,
       "[plugin] '{}' is not the wheel {} {} that TTPU pins: its SHA-256 is {}, expected {}; "
       "delete it and "
       "try again",
       file.string(), wheel.name, wheel.version, actual, wheel.sha256);
}

void unpack_wheel(const Wheel& wheel, const std::filesystem::path& file,
                  const std::filesystem::path& folder) {
  const Archive archive = open_wheel(file);
  const TemporaryFolder beside(folder);
  const fs::path tree = beside.path() / "tree";
  for (const std::string& member : wheel.members) {
    if (!member.ends_with(".so")) continue;  // headers, which only a build needs
    unpack_member(archive.get(), member, file, tree / place_of(wheel, member));
  }
  if (::rename(tree.c_str(), folder.c_str()) == 0) return;
  // Another process may have installed the same meanwhile.
  if (!is_there(folder / place_of(wheel, wheel.members[0]))) fail_write(folder);
}

std::filesystem::path install_plugin(const Wheel& wheel) {
  fs::path library = installed_path(wheel);
  if (is_there(library)) return library;
  const fs::path folder = plugin_folder(wheel);
  with_wheel(wheel, folder, [&](const fs::path& file) { unpack_wheel(wheel, file, folder); });
  return library;
}

bool is_installed(const Wheel& plugin, const Wheel& part) {
  return std::all_of(part.members.begin(), part.members.end(), [&](const std::string& member) {
    return is_there(plugin_folder(plugin) / member);
  });
}

void install_part(const Wheel& plugin, const Wheel& part) {
  if (is_installed(plugin, part)) return;
  const fs::path folder = plugin_folder(plugin);
  with_wheel(part, folder, [&](const fs::path& file) {
    const Archive archive = open_wheel(file);
    const TemporaryFolder beside(folder);
    for (const std::string& member : part.members) {
      unpack_member(archive.get(), member, file, beside.path() / member);
    }
    // Each appears whole; the part is there when the last of them is.
    for (const std::string& member : part.members) {
      fs::create_directories((folder / member).parent_path());
      fs::rename(beside.path() / member, folder / member);
    }
  });
}

std::vector<std::string> missing_parts(const std::filesystem::path& path) {
  std::vector<std::string> missing;
  for (const Wheel& wheel : pinned_wheels()) {
    if (wheel.kind != "plugin" || path != installed_path(wheel)) continue;
    for (const Wheel& part : wheel.parts) {
      if (!is_installed(wheel, part)) missing.push_back(part.name);
    }
  }
  return missing;
}

}  // namespace ttpu::pjrt
