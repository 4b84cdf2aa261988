// The launchers of a job that has one on every host: what they must know of each other.
#pragma once

#include <atomic>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "ttpu/parallel/control/control_plane.h"
#include "ttpu/parallel/launch/environment.h"
#include "ttpu/parallel/launch/host_check.h"

namespace ttpu::parallel {

// How an attempt has ended.
struct Outcome {
  std::string why;  // "": all have succeeded
  int code = 0;     // that the launchers end with
};

class Ranks {
 public:
  // Their control plane has the port after that of the processes. Throws as ControlPlane does when
  // not all come up.
  Ranks(const Cluster& cluster, const JobSettings& settings);
  ~Ranks();
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;

  // What all hosts say of themselves.
  std::vector<NamedCheck> share(int attempt, const NamedCheck& mine);
  // The name of the job, that of the first host's launcher for all.
  std::string job(int attempt, const std::string& name);
  void succeed(int attempt);
  void fail(int attempt, const Outcome& outcome);
  // Nothing: they still run.
  std::optional<Outcome> outcome();
  // Waits until all have stopped; outcome() is that of the next attempt then.
  void stopped(int attempt);

 private:
  void watch(int attempt);
  void set_outcome(const Outcome& outcome);

  Cluster cluster_;
  std::chrono::milliseconds patience_;
  std::mutex mutex_;  // of outcome_
  std::optional<Outcome> outcome_;
  bool succeeded_ = false;
  ControlPlane plane_;
  std::vector<std::thread> watchers_;
};

}  // namespace ttpu::parallel
