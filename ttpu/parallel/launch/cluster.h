// Which hosts a job has, and who knows it: flags, a file, the TPU VM's metadata server, SLURM, or
// the variables that Kubernetes sets on TPU nodes.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace ttpu::parallel {

struct Host {
  std::string name;     // in front of its lines
  std::string address;  // where the other hosts find it
  int processes = 1;
};

struct Cluster {
  std::vector<Host> hosts;
  // The command runs on every host, and this one is hosts[*self]: it starts only its own processes.
  // None: this process starts those of all hosts, here or through a remote shell.
  std::optional<int> self;
  bool local = false;            // all on this machine, without a remote shell
  std::string remote_shell;      // empty: ssh
  std::string accelerator_type;  // "v5litepod-16", from the metadata
  std::string topology;          // "v5e:4x4"; empty: not known

  int processes() const;
};

Cluster local_cluster(int processes);
// "a,b=10.0.0.2": names, each with its address where that is another. A host that comes again has
// one more process.
Cluster cluster_of(const std::string& hosts);
// A line a host: "name", "name 10.0.0.2", "name slots=4"; # begins a comment. Throws naming the
// line.
Cluster cluster_from_file(const std::string& path);
// The slice that this TPU VM belongs to: agent-worker-number, worker-network-endpoints,
// accelerator-type and tpu-env of the metadata server at `url`.
Cluster cluster_from_metadata(const std::string& url);
// From the variables of a pod: TPU_WORKER_ID and TPU_WORKER_HOSTNAMES.
Cluster cluster_from_tpu_environment();
// Of this allocation: a task that srun has started is one of the hosts (SLURM_NODEID of
// SLURM_STEP_NODELIST, else of SLURM_JOB_NODELIST); the batch script starts tasks through srun.
// Throws kFailedPrecondition outside of an allocation.
Cluster cluster_from_slurm();
// "tpu[01-03,7],x", "rack[1-2]n[1-2]" as SLURM writes it.
std::vector<std::string> expand_hostlist(const std::string& text);

// Where `ttpu launch` without a word about hosts finds itself. Throws kInvalidArgument with the
// choices.
Cluster detect_cluster();

}  // namespace ttpu::parallel
