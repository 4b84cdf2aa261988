// What a host says of itself before a job starts, and whether the hosts fit together.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "ttpu/base/json.h"

namespace ttpu::parallel {

struct HostCheckOptions {
  std::vector<int> ports;                                   // that the job wants to listen on
  std::string device = "tpu";                               // the plugin that is compared
  std::filesystem::path devices = "/dev";                   // where the chips' files are
  std::filesystem::path lockfile = "/tmp/libtpu_lockfile";  // libtpu's
};

Json to_json(const HostCheckOptions& options);
HostCheckOptions host_check_options(const Json& json);

// {"version", "plugin", "chips", "busy": [...], "lock", "ports": [...]}: `plugin` is "" where there
// is none; `busy` and `ports` say who is in the way; `lock` is "", "removed", or why the file
// stays. A lock file of libtpu that no process holds is removed.
Json check_host(const HostCheckOptions& options);

struct NamedCheck {
  std::string host;
  Json facts;
};
// "v5e:4x4" has 16 chips. Throws kInvalidArgument for what is no topology.
std::vector<int> topology_dims(const std::string& topology);
// Throws kFailedPrecondition with all that is wrong, each with the hosts' names: versions or
// plugins that differ, chips or ports in use, another number of chips than the topology has ("":
// any).
void check_together(const std::vector<NamedCheck>& hosts, const std::string& topology);

}  // namespace ttpu::parallel
