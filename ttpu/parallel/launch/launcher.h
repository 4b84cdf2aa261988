// Starts the processes of a job on all its hosts through an agent on each (agent.h), brings their
// output together, and ends them all when one fails.
#pragma once

#include <string>
#include <vector>

#include "ttpu/parallel/launch/cluster.h"
#include "ttpu/parallel/launch/environment.h"
#include "ttpu/parallel/launch/host_check.h"

namespace ttpu::parallel {

struct LaunchOptions {
  Cluster cluster;
  std::vector<std::string> command;
  Variables variables;         // for all processes, besides those of process_environment()
  std::string folder;          // empty: where the agent starts
  std::string remote_shell;    // "ssh -p 2222": {host} stands for the name, else it comes last
  std::string remote_command;  // the ttpu of the other hosts; empty: where it is on this one
  std::string topology;        // empty: that of the cluster
  JobPorts ports;              // 0: any that are free, on one machine
  int max_restarts = 0;
  int start_timeout_s = 300;
  int peer_timeout_s = 15;
  int grace_s = 30;
  bool preflight = true;
  HostCheckOptions check;
};

// The exit code: 0, that of the first process that failed (128 + the signal that killed it), or 1.
// SIGINT, SIGTERM and SIGHUP are handed on. Throws when the job cannot be started.
int launch(const LaunchOptions& options);

}  // namespace ttpu::parallel
