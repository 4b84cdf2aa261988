// What other schedulers are given: a Kubernetes JobSet, a script for sbatch.
#pragma once

#include <string>
#include <vector>

namespace ttpu::parallel {

struct ManifestOptions {
  std::string name = "ttpu";
  std::string image;
  std::string topology;                // "v5e:4x4"
  std::vector<std::string> arguments;  // for `ttpu launch`, in front of --
  std::vector<std::string> command;
  int max_restarts = 0;
  int port = 0;
  int grace_s = 30;  // that of `ttpu launch`; the pods get more
};

// A JobSet (jobset.x-k8s.io/v1alpha2) for a slice of TPU nodes of GKE: a pod a host, each with
// `ttpu launch`, which finds the others by what GKE's webhook sets in TPU_WORKER_HOSTNAMES. Throws
// kInvalidArgument for slices that there are not, or names that Kubernetes does not take.
std::string jobset_manifest(const ManifestOptions& options);

std::string sbatch_script(const std::vector<std::string>& arguments,
                          const std::vector<std::string>& command, int nodes, int port);

}  // namespace ttpu::parallel
