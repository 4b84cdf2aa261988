#include "ttpu/parallel/launch/host_check.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstring>
#include <fstream>
#include <map>

#include <fcntl.h>
#include <fmt/ranges.h>
#include <sys/file.h>
#include <unistd.h>
#include <xxhash.h>

#include "ttpu/base/error.h"
#include "ttpu/base/file.h"
#include "ttpu/parallel/control/socket.h"
#include "ttpu/pjrt/plugin.h"

namespace ttpu::parallel {
namespace {

namespace fs = std::filesystem;

constexpr int kLargestDim = 1024;  // so that the product of three is an int

bool is_number(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(),
                                      [](unsigned char c) { return std::isdigit(c) != 0; });
}

// Chips are /dev/accel0... on some machines and /dev/vfio/0... on others.
std::vector<fs::path> chips_in(const fs::path& devices) {
  std::vector<fs::path> chips;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(devices, error)) {
    const std::string name = entry.path().filename();
    if (name.starts_with("accel") && is_number(std::string_view(name).substr(5))) {
      chips.push_back(entry.path());
    }
  }
  if (chips.empty()) {
    for (const auto& entry : fs::directory_iterator(devices / "vfio", error)) {
      if (is_number(entry.path().filename().string())) chips.push_back(entry.path());
    }
  }
  std::sort(chips.begin(), chips.end());
  return chips;
}

// "process 17 (python3)" for each process that has one of the files open.
std::map<fs::path, std::vector<std::string>> holders_of(const std::vector<fs::path>& files) {
  std::map<fs::path, std::vector<std::string>> holders;
  if (files.empty()) return holders;
  std::error_code error;
  for (const auto& process : fs::directory_iterator("/proc", error)) {
    const std::string pid = process.path().filename();
    if (!is_number(pid)) continue;
    for (auto link = fs::directory_iterator(process.path() / "fd", error);
         !error && link != fs::directory_iterator(); link.increment(error)) {
      const fs::path target = fs::read_symlink(link->path(), error);
      if (error || std::find(files.begin(), files.end(), target) == files.end()) continue;
      std::ifstream comm(process.path() / "comm");
      std::string name;
      std::getline(comm, name);
      const std::string who = fmt::format("process {} ({})", pid, name);
      std::vector<std::string>& list = holders[target];
      if (list.empty() || list.back() != who) list.push_back(who);
    }
    error.clear();
  }
  return holders;
}

// libtpu locks the file while it has the chips; what a killed process leaves behind is not locked.
std::string clean_lock(const fs::path& file) {
  const Descriptor lock(::open(file.c_str(), O_RDWR | O_CLOEXEC));
  std::error_code error;
  const auto foreign = [&](const char* what) {
    return fmt::format("cannot be {}; remove {} as its owner", what, file.string());
  };
  if (!lock.open()) return fs::exists(file, error) ? foreign("opened") : "";
  struct flock region {};
  region.l_type = F_WRLCK;
  region.l_whence = SEEK_SET;
  const bool taken = ::flock(lock.get(), LOCK_EX | LOCK_NB) != 0 ||
                     (::fcntl(lock.get(), F_GETLK, &region) == 0 && region.l_type != F_UNLCK);
  std::vector<std::string> holders = holders_of({fs::weakly_canonical(file, error)})[file];
  const std::string self = fmt::format("process {} (", ::getpid());
  std::erase_if(holders, [&](const std::string& who) { return who.starts_with(self); });
  if (taken || !holders.empty()) {
    return holders.empty() ? "is held by a process that cannot be seen from here"
                           : fmt::format("is held by {}", fmt::join(holders, ", "));
  }
  if (fs::remove(file, error)) return "removed";
  return error ? foreign("removed") : "";  // another has removed it meanwhile
}

// Two hosts with the same library have the same.
std::string plugin_identity(const std::string& device) {
  fs::path path;
  try {
    path = pjrt::find_plugin(device);
  } catch (const Error&) {
    return "";
  }
  const MappedFile file(path);
  const std::string digest =
      fmt::format("{:016x}", XXH3_64bits(file.bytes().data(), file.bytes().size()));
  return fmt::format("{} {} ({} bytes)", path.filename().string(), digest, file.size());
}

// "1.2 on a, b; 1.3 on c", or nothing where all have the same.
std::string differences(const std::vector<NamedCheck>& hosts, const char* fact) {
  std::map<std::string, std::vector<std::string>> values;
  for (const NamedCheck& host : hosts) {
    values[JsonView(host.facts, host.host).get<std::string>(fact)].push_back(host.host);
  }
  if (values.size() < 2) return "";
  std::string text;
  for (const auto& [value, names] : values) {
    text += fmt::format("{}{} on {}", text.empty() ? "" : "; ", value.empty() ? "none" : value,
                        fmt::join(names, ", "));
  }
  return text;
}

}  // namespace

Json to_json(const HostCheckOptions& options) {
  return {{"ports", options.ports},
          {"device", options.device},
          {"devices", options.devices.string()},
          {"lockfile", options.lockfile.string()}};
}

HostCheckOptions host_check_options(const Json& json) {
  const JsonView view(json, "the launcher's checks");
  HostCheckOptions options;
  for (const int64_t port : view.get<std::vector<int64_t>>("ports")) {
    options.ports.push_back(static_cast<int>(port));
  }
  options.device = view.get<std::string>("device");
  options.devices = view.get<std::string>("devices");
  options.lockfile = view.get<std::string>("lockfile");
  return options;
}

Json check_host(const HostCheckOptions& options) {
  const std::vector<fs::path> chips = chips_in(options.devices);
  Json busy = Json::array();
  for (const auto& [chip, holders] : holders_of(chips)) {
    busy.push_back(fmt::format("{} is used by {}", chip.string(), fmt::join(holders, ", ")));
  }
  Json ports = Json::array();
  for (const int port : options.ports) {
    if (!is_free(port)) ports.push_back(port);
  }
  return {{"version", TTPU_VERSION},
          {"plugin", plugin_identity(options.device)},
          {"chips", chips.size()},
          {"busy", busy},
          {"lock", clean_lock(options.lockfile)},
          {"ports", ports}};
}

std::vector<int> topology_dims(const std::string& topology) {
  std::vector<int> dims;
  const size_t colon = topology.find(':');
  const std::string_view text = std::string_view(topology).substr(std::min(colon, topology.size()));
  for (size_t begin = 1; begin < text.size();) {
    const size_t end = std::min(text.find('x', begin), text.size());
    int dim = 0;
    const auto result = std::from_chars(text.data() + begin, text.data() + end, dim);
    if (result.ec != std::errc() || result.ptr != text.data() + end || dim < 1 ||
        dim > kLargestDim) {
      dims.clear();
      break;
    }
    dims.push_back(dim);
    begin = end + 1;
  }
  require(dims.size() == 2 || dims.size() == 3,
          "[launch] '{}' is no topology; expected a chip and a shape of two or three numbers up to "
          "{}, such as v5e:4x4",
          topology, kLargestDim);
  return dims;
}

void check_together(const std::vector<NamedCheck>& hosts, const std::string& topology) {
  std::vector<std::string> wrong;
  for (const auto& [fact, what] : {std::pair("version", "ttpu"), std::pair("plugin", "plugins")}) {
    const std::string text = differences(hosts, fact);
    if (!text.empty()) wrong.push_back(fmt::format("the hosts have different {}: {}", what, text));
  }
  int64_t chips = 0;
  std::vector<std::string> counts;
  for (const NamedCheck& host : hosts) {
    const JsonView view(host.facts, host.host);
    for (const std::string& line : view.get<std::vector<std::string>>("busy")) {
      wrong.push_back(fmt::format("{}: {}", host.host, line));
    }
    const auto ports = view.get<std::vector<int64_t>>("ports");
    if (!ports.empty()) {
      wrong.push_back(fmt::format("{}: port {} is in use; choose others with --port", host.host,
                                  fmt::join(ports, ", ")));
    }
    const auto lock = view.get<std::string>("lock");
    if (!lock.empty() && lock != "removed") {
      wrong.push_back(fmt::format("{}: libtpu's lock file {}", host.host, lock));
    }
    const auto here = view.get<int64_t>("chips");
    chips += here;
    counts.push_back(fmt::format("{} ({})", host.host, here));
  }
  if (!topology.empty()) {
    int64_t expected = 1;
    for (const int dim : topology_dims(topology)) expected *= dim;
    if (chips != expected) {
      wrong.push_back(fmt::format("{} has {} chips, the hosts have {}: {}", topology, expected,
                                  chips, fmt::join(counts, ", ")));
    }
  }
  if (wrong.empty()) return;
  fail(Code::kFailedPrecondition, "[launch] {}; --no-preflight starts all the same",
       fmt::join(wrong, "; "));
}

}  // namespace ttpu::parallel
