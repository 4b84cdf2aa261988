#include "ttpu/parallel/launch/environment.h"

#include <array>
#include <utility>
#include <vector>

#include <fmt/ranges.h>

#include "ttpu/base/error.h"
#include "ttpu/parallel/control/socket.h"
#include "ttpu/parallel/launch/host_check.h"

namespace ttpu::parallel {
namespace {

using Bounds = std::array<int, 3>;

std::string text_of(const Bounds& bounds) { return fmt::format("{}", fmt::join(bounds, ",")); }

// How a host's chips lie: 2x2 where it has four, 2x4 where it has eight.
Bounds chips_of_host(int chips) {
  switch (chips) {
    case 1:
      return {1, 1, 1};
    case 2:
      return {1, 2, 1};
    case 4:
      return {2, 2, 1};
    case 8:
      return {2, 4, 1};
    default:
      fail(Code::kInvalidArgument, "[launch] a host with {} TPU chips is not known; 1, 2, 4 or 8",
           chips);
  }
}

// Processes as a slice has them, and the chips of each.
std::pair<Bounds, Bounds> bounds_of(const Cluster& cluster, const JobSettings& settings) {
  const Bounds of_host = chips_of_host(settings.chips_per_host);
  Bounds hosts = {1, 1, 1};
  if (!cluster.topology.empty()) {
    const std::vector<int> dims = topology_dims(cluster.topology);
    int total = 1;
    for (size_t i = 0; i < dims.size(); ++i) {
      require(dims[i] % of_host[i] == 0,
              "[launch] hosts of {} chips do not make {}: {} is no multiple of {}",
              settings.chips_per_host, cluster.topology, dims[i], of_host[i]);
      total *= hosts[i] = dims[i] / of_host[i];
    }
    require(total == static_cast<int>(cluster.hosts.size()),
            "[launch] {} is {} hosts of {} chips, and there are {}", cluster.topology, total,
            settings.chips_per_host, cluster.hosts.size());
  }
  const int each = cluster.hosts.front().processes;
  if (each == 1) return {hosts, of_host};
  require(each == settings.chips_per_host,
          "[launch] {} processes on a host with {} chips; one, or one a chip", each,
          settings.chips_per_host);
  for (size_t i = 0; i < 3; ++i) hosts[i] *= of_host[i];
  return {hosts, {1, 1, 1}};
}

}  // namespace

Variables process_environment(const Cluster& cluster, int host, int local,
                              const JobSettings& settings) {
  std::vector<std::string> names;
  std::vector<std::string> workers;
  std::vector<std::string> addresses;
  int process = -1;
  for (size_t h = 0; h < cluster.hosts.size(); ++h) {
    const Host& each = cluster.hosts[h];
    workers.push_back(each.address);
    for (int p = 0; p < each.processes; ++p) {
      if (static_cast<int>(h) == host && p == local) process = static_cast<int>(names.size());
      names.push_back(each.name);
      addresses.push_back(to_string(Address{each.address, settings.ports.first_process + p}));
    }
  }
  const std::string coordinator = to_string(Address{workers.front(), settings.ports.coordinator});
  Variables variables = {
      {"TTPU_COORDINATOR", coordinator},
      {"TTPU_PROCESS_ID", std::to_string(process)},
      {"TTPU_NUM_PROCESSES", std::to_string(names.size())},
      {"TTPU_LOCAL_PROCESS_ID", std::to_string(local)},
      {"TTPU_HOSTS", fmt::format("{}", fmt::join(names, ","))},
      {"TTPU_JOB", settings.job},
      {"TTPU_START_TIMEOUT", std::to_string(settings.start_timeout_s)},
      {"TTPU_PEER_TIMEOUT", std::to_string(settings.peer_timeout_s)},
      {"TTPU_RESTARTS", std::to_string(settings.restarts)},
      {"TPU_WORKER_ID", std::to_string(host)},
      {"TPU_WORKER_HOSTNAMES", fmt::format("{}", fmt::join(workers, ","))},
      {"CLOUD_TPU_TASK_ID", std::to_string(process)},
      {"TPU_PROCESS_ADDRESSES", fmt::format("{}", fmt::join(addresses, ","))},
      {"TPU_PROCESS_PORT", std::to_string(settings.ports.first_process + local)},
  };
  if (!cluster.accelerator_type.empty()) {
    variables.emplace_back("TPU_ACCELERATOR_TYPE", cluster.accelerator_type);
  }
  const bool split = cluster.hosts.front().processes > 1;
  if (settings.chips_per_host > 0 && (split || !cluster.topology.empty())) {
    const auto [processes, chips] = bounds_of(cluster, settings);
    variables.emplace_back("TPU_PROCESS_BOUNDS", text_of(processes));
    variables.emplace_back("TPU_CHIPS_PER_PROCESS_BOUNDS", text_of(chips));
    if (split) variables.emplace_back("TPU_VISIBLE_CHIPS", std::to_string(local));
  }
  return variables;
}

}  // namespace ttpu::parallel
