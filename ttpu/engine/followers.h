// One engine over the processes of a job. Process 0 leads: it has the requests, schedules and
// samples. What its runners do, those of the others do after it, each on devices of its own.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "ttpu/base/error.h"
#include "ttpu/base/json.h"
#include "ttpu/engine/runner.h"
#include "ttpu/parallel/control/control_plane.h"

namespace ttpu::engine {

// Both are called by every process, with the same name.
// Throws kFailedPrecondition for a field of `own` that another process has otherwise than process
// 0, with both values and both hosts.
void require_same(parallel::ControlPlane& control, const std::string& name, const Json& own);
// Of all processes.
int64_t smallest(parallel::ControlPlane& control, const std::string& name, int64_t own);

// Does with a runner what was done with that of process 0.
class RunnerFollower {
 public:
  explicit RunnerFollower(Runner& runner) : runner_(runner) {}

  // Throws what the plugin says when a step fails that has not failed on process 0, and kDataLoss
  // when it has sampled other tokens here.
  void apply(StepMessage message);
  int64_t steps() const { return done_.steps; }

 private:
  void catch_up(const StepsDone& leader);
  void run(StepMessage& message);

  Runner& runner_;
  StepsDone done_;
  std::optional<Error> failed_;  // and process 0 has not said yet that it failed there, too
};

// Until process 0 ends, with the runners that its messages number. Returns how many steps were
// done. Throws as RunnerFollower, and kUnavailable when a process is lost.
int64_t follow(parallel::ControlPlane& control, std::span<Runner* const> runners);

}  // namespace ttpu::engine
