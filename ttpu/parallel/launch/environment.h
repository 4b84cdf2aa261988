// The variables of each process of a job: libtpu's and ours.
#pragma once

#include <string>

#include "ttpu/parallel/launch/cluster.h"
#include "ttpu/parallel/launch/process_tree.h"

namespace ttpu::parallel {

struct JobPorts {
  int coordinator = 0;    // of the control plane, on the first host
  int first_process = 0;  // of libtpu: that of a host's n-th process is n more

  // From `first` on; the second is that of the launchers' own control plane (rank.h).
  static JobPorts from(int first) { return {first, first + 2}; }
};

struct JobSettings {
  JobPorts ports;
  std::string job;
  int start_timeout_s = 300;
  int peer_timeout_s = 15;
  int restarts = 0;        // that have been
  int chips_per_host = 0;  // 0: hosts without chips
};

// Of the `local`-th process of the `host`-th host. libtpu's names as its clients use them: those of
// Cloud TPU's documentation of several processes on a slice. TPU_PROCESS_BOUNDS and
// TPU_CHIPS_PER_PROCESS_BOUNDS where the topology is known, or where the processes of one host
// share its chips, one each. Throws kInvalidArgument where hosts and topology do not fit together.
Variables process_environment(const Cluster& cluster, int host, int local,
                              const JobSettings& settings);

}  // namespace ttpu::parallel
