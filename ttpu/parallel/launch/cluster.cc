#include "ttpu/parallel/launch/cluster.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <sstream>

#include <fmt/ranges.h>

#include "ttpu/base/error.h"
#include "ttpu/base/file.h"
#include "ttpu/base/strings.h"
#include "ttpu/parallel/control/socket.h"

namespace ttpu::parallel {
namespace {

constexpr int kMostProcesses = 1 << 16;
constexpr std::chrono::seconds kMetadata(10);
// The step in which SLURM runs the shell of salloc: as a batch script, it is none of srun's tasks.
constexpr std::string_view kInteractiveStep = "4294967290";

int number(const std::string& text, const std::string& what) {
  const std::optional<int> value = parse_count(text);
  require(value.has_value(), "[launch] {} is '{}', expected a number", what, text);
  return *value;
}

void check_name(const std::string& name, const std::string& what) {
  const bool good = !name.empty() && name.front() != '-' &&
                    std::all_of(name.begin(), name.end(), [](unsigned char c) {
                      return std::isalnum(c) != 0 || std::string_view("-._@:[]").find(
                                                         static_cast<char>(c)) != std::string::npos;
                    });
  require(good, "[launch] {} names the host '{}', which cannot be one", what, name);
}

void add_host(Cluster& cluster, const Host& host, const std::string& what) {
  check_name(host.name, what);
  check_name(host.address, what);
  const auto same = std::find_if(cluster.hosts.begin(), cluster.hosts.end(),
                                 [&](const Host& other) { return other.name == host.name; });
  if (same != cluster.hosts.end()) {
    same->processes += host.processes;
  } else {
    cluster.hosts.push_back(host);
  }
}

Cluster checked(Cluster cluster, const std::string& what) {
  require(!cluster.hosts.empty(), "[launch] {} names no host", what);
  require(cluster.processes() <= kMostProcesses, "[launch] {} processes are too many, at most {}",
          cluster.processes(), kMostProcesses);
  const int hosts = static_cast<int>(cluster.hosts.size());
  require(!cluster.self || *cluster.self < hosts, "[launch] {} makes this host {} of {}", what,
          cluster.self.value_or(0), hosts);
  return cluster;
}

// ssh's user and port are no part of the address.
std::string address_in(const std::string& name) { return name.substr(name.find('@') + 1); }

std::string attribute(const std::string& url, const std::string& name) {
  try {
    return http_get(url + "/computeMetadata/v1/instance/attributes/" + name,
                    "Metadata-Flavor: Google", kMetadata);
  } catch (const Error& error) {
    fail(error.code(), "[launch] the metadata server says nothing of '{}': {}; is this a TPU VM?",
         name, error.what());
  }
}

// "KEY: 'value'" of tpu-env.
std::map<std::string, std::string> tpu_environment(const std::string& text) {
  std::map<std::string, std::string> values;
  for (const std::string& line : split(text, '\n')) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    std::string value = line.substr(colon + 1);
    std::erase_if(value, [](char c) { return c == '\'' || c == '"' || c == ' ' || c == '\r'; });
    values[line.substr(0, colon)] = value;
  }
  return values;
}

// "v5litepod-16" is of the chip that topologies call v5e.
std::string chip_of(const std::string& accelerator_type) {
  const std::string kind = accelerator_type.substr(0, accelerator_type.find('-'));
  return kind == "v5litepod" ? "v5e" : kind;
}

// How many tasks SLURM has on each node: "2(x3),1".
std::vector<int> tasks_per_node(const std::string& text) {
  std::vector<int> tasks;
  for (const std::string& part : split(text, ',')) {
    const size_t times = part.find("(x");
    const int each = number(part.substr(0, times), "SLURM_STEP_TASKS_PER_NODE");
    const int nodes =
        times == std::string::npos
            ? 1
            : number(part.substr(times + 2, part.size() - times - 3), "SLURM_STEP_TASKS_PER_NODE");
    require(nodes <= kMostProcesses, "[launch] SLURM_STEP_TASKS_PER_NODE is '{}'", text);
    tasks.insert(tasks.end(), static_cast<size_t>(nodes), each);
  }
  return tasks;
}

// "rack[1-2]n[1-2]": the last brackets count fastest, as SLURM counts them.
void expand_name(const std::string& name, std::vector<std::string>& names) {
  const size_t open = name.find('[');
  if (open == std::string::npos) {
    require(names.size() < kMostProcesses, "[launch] SLURM's list of nodes has more than {}",
            kMostProcesses);
    return names.push_back(name);
  }
  const size_t close = name.find(']', open);
  require(close != std::string::npos, "[launch] SLURM's list of nodes '{}' has no end", name);
  for (const std::string& range : split(name.substr(open + 1, close - open - 1), ',')) {
    const size_t dash = range.find('-');
    const std::string first = range.substr(0, dash);
    const int from = number(first, "SLURM's list of nodes");
    const int to =
        dash == std::string::npos ? from : number(range.substr(dash + 1), "SLURM's list of nodes");
    require(to >= from && to - from < kMostProcesses, "[launch] SLURM's list of nodes has '{}'",
            range);
    for (int i = from; i <= to; ++i) {
      expand_name(
          fmt::format("{}{:0{}}{}", name.substr(0, open), i, first.size(), name.substr(close + 1)),
          names);
    }
  }
}

}  // namespace

int Cluster::processes() const {
  int total = 0;
  for (const Host& host : hosts) total += host.processes;
  return total;
}

Cluster local_cluster(int processes) {
  require(processes > 0 && processes <= 1024, "[launch] --local {}: expected 1 to 1024 processes",
          processes);
  Cluster cluster;
  cluster.local = true;
  cluster.hosts.push_back({"localhost", "127.0.0.1", processes});
  return cluster;
}

Cluster cluster_of(const std::string& hosts) {
  Cluster cluster;
  for (const std::string& part : split(hosts, ',')) {
    const size_t equals = part.find('=');
    const std::string name = part.substr(0, equals);
    const std::string address =
        equals == std::string::npos ? address_in(name) : part.substr(equals + 1);
    add_host(cluster, {name, address, 1}, "--hosts");
  }
  return checked(cluster, "--hosts");
}

Cluster cluster_from_file(const std::string& path) {
  Cluster cluster;
  int place = 0;
  for (std::string line : split(read_file(path), '\n')) {
    ++place;
    line = line.substr(0, line.find('#'));
    std::stringstream words(line);
    Host host;
    if (!(words >> host.name)) continue;
    const std::string what = fmt::format("{}, line {},", path, place);
    host.address = address_in(host.name);
    for (std::string word; words >> word;) {
      if (word.starts_with("slots=")) {
        host.processes = number(word.substr(6), what + " slots");
        require(host.processes > 0, "[launch] {} has no slots", what);
      } else {
        host.address = word;
      }
    }
    add_host(cluster, host, what);
  }
  return checked(cluster, path);
}

Cluster cluster_from_metadata(const std::string& url) {
  Cluster cluster;
  cluster.self = number(attribute(url, "agent-worker-number"), "agent-worker-number");
  int place = 0;
  for (const std::string& worker : split(attribute(url, "worker-network-endpoints"), ',')) {
    const std::vector<std::string> parts = split(worker, ':');  // name:id:address
    require(parts.size() == 3, "[launch] worker-network-endpoints has '{}'", worker);
    add_host(cluster, {fmt::format("worker-{}", place++), parts[2], 1}, "worker-network-endpoints");
  }
  cluster.accelerator_type = attribute(url, "accelerator-type");
  const auto values = tpu_environment(attribute(url, "tpu-env"));
  if (const auto shape = values.find("TOPOLOGY"); shape != values.end()) {
    cluster.topology = chip_of(cluster.accelerator_type) + ":" + shape->second;
  }
  return checked(cluster, "the metadata server");
}

Cluster cluster_from_tpu_environment() {
  Cluster cluster;
  const std::string names = env_or("TPU_WORKER_HOSTNAMES");
  require(!names.empty(),
          "[launch] TPU_WORKER_HOSTNAMES is not set; Kubernetes sets it in pods of "
          "a job on TPU nodes that has a headless service");
  for (const std::string& name : split(names, ',')) {
    const bool numeric = name.find_first_not_of("0123456789.:") == std::string::npos;
    add_host(cluster, {numeric ? name : name.substr(0, name.find('.')), name, 1},
             "TPU_WORKER_HOSTNAMES");
  }
  cluster.self = number(env_or("TPU_WORKER_ID", env_or("JOB_COMPLETION_INDEX")), "TPU_WORKER_ID");
  return checked(cluster, "TPU_WORKER_HOSTNAMES");
}

std::vector<std::string> expand_hostlist(const std::string& text) {
  std::vector<std::string> names;
  size_t depth = 0;
  size_t begin = 0;
  for (size_t i = 0; i <= text.size(); ++i) {
    if (i < text.size() && text[i] == '[') ++depth;
    if (i < text.size() && text[i] == ']' && depth > 0) --depth;
    if (i < text.size() && (text[i] != ',' || depth > 0)) continue;
    require(depth == 0, "[launch] SLURM's list of nodes '{}' has no end", text);
    if (i > begin) expand_name(text.substr(begin, i - begin), names);
    begin = i + 1;
  }
  return names;
}

Cluster cluster_from_slurm() {
  const std::string step =
      env_or("SLURM_STEP_ID") == kInteractiveStep || env_or("SLURM_NODEID").empty()
          ? ""
          : env_or("SLURM_STEP_TASKS_PER_NODE");
  // A step may have fewer nodes than its job, and SLURM_NODEID counts the step's.
  std::string nodes = step.empty() ? "" : env_or("SLURM_STEP_NODELIST");
  if (nodes.empty()) nodes = env_or("SLURM_JOB_NODELIST", env_or("SLURM_NODELIST"));
  if (nodes.empty()) {
    fail(Code::kFailedPrecondition,
         "[launch] this is no SLURM allocation: SLURM_JOB_NODELIST is not set; `ttpu launch "
         "--slurm --print --nodes N -- COMMAND` prints a script for sbatch");
  }
  Cluster cluster;
  for (const std::string& name : expand_hostlist(nodes)) {
    add_host(cluster, {name, name, 1}, "SLURM_JOB_NODELIST");
  }
  if (step.empty()) {
    cluster.remote_shell = "srun --overlap --nodes=1 --ntasks=1 --nodelist={host}";
    return checked(cluster, "SLURM_JOB_NODELIST");
  }
  const std::vector<int> tasks = tasks_per_node(step);
  require(tasks.size() == cluster.hosts.size() &&
              std::all_of(tasks.begin(), tasks.end(), [](int each) { return each == 1; }),
          "[launch] srun has started '{}' tasks on the {} nodes; one is wanted on each: srun "
          "--ntasks-per-node=1",
          step, cluster.hosts.size());
  cluster.self = number(env_or("SLURM_NODEID"), "SLURM_NODEID");
  return checked(cluster, "SLURM_JOB_NODELIST");
}

Cluster detect_cluster() {
  if (!env_or("TPU_WORKER_HOSTNAMES").empty()) return cluster_from_tpu_environment();
  if (!env_or("SLURM_JOB_NODELIST").empty()) return cluster_from_slurm();
  fail(Code::kInvalidArgument,
       "[launch] which hosts? Give one of --local N, --hosts a,b,c, --hostfile FILE, --tpu-vm, "
       "--slurm, or --kubernetes for a manifest");
}

}  // namespace ttpu::parallel
