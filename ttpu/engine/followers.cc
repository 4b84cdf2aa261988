#include "ttpu/engine/followers.h"

#include <algorithm>
#include <chrono>

namespace ttpu::engine {
namespace {

// Loading may take long, and who is lost meanwhile ends all waiting.
constexpr std::chrono::hours kLoading(24);

std::string key_of(const std::string& name, int process) {
  return fmt::format("engine/{}/{}", name, process);
}

void compare(const parallel::ControlPlane& control, const Json& own, int process,
             const Json& other) {
  for (const auto& [field, value] : own.items()) {
    const Json theirs = other.value(field, Json());
    if (theirs == value) continue;
    fail(Code::kFailedPrecondition,
         "[processes] {} is not the same: {} has {}, {} has {}; start all with the same model, "
         "options and plugin",
         field, control.name(control.process()), value.dump(), control.name(process),
         theirs.dump());
  }
}

// Whoever ends takes its values along: the others are to have read them by then.
void let_others_read(parallel::ControlPlane& control, const std::string& name) {
  constexpr std::chrono::seconds kPatience(2);  // some may find nothing different, and not come
  try {
    control.barrier("engine/" + name + "/different", kPatience);
  } catch (const Error&) {
    // What differs is the error to tell.
  }
}

}  // namespace

void require_same(parallel::ControlPlane& control, const std::string& name, const Json& own) {
  control.set(key_of(name, control.process()), own.dump());
  const bool leads = control.process() == 0;
  for (int other = leads ? 1 : 0; other < (leads ? control.processes() : 1); ++other) {
    const std::string theirs = control.get(key_of(name, other), kLoading);
    try {
      compare(control, own, other, parse_json(theirs, control.name(other)));
    } catch (const Error&) {
      let_others_read(control, name);
      throw;
    }
  }
}

int64_t smallest(parallel::ControlPlane& control, const std::string& name, int64_t own) {
  control.set(key_of(name, control.process()), std::to_string(own));
  int64_t least = own;
  for (int other = 0; other < control.processes(); ++other) {
    least = std::min<int64_t>(least, std::stoll(control.get(key_of(name, other), kLoading)));
  }
  return least;
}

// Finishes the steps that process 0 has finished, and no more: it may have as many in flight.
void RunnerFollower::catch_up(const StepsDone& leader) {
  while (done_.steps < leader.steps) {
    if (failed_) throw Error(*failed_);
    done_.add(runner_.finish().tokens);
  }
  if (done_ == leader) return;
  fail(Code::kDataLoss,
       "[processes] the tokens of {} steps are not those of process 0; are the hosts of one kind?",
       leader.steps);
}

void RunnerFollower::run(StepMessage& message) {
  switch (message.kind) {
    case StepMessage::Kind::kLaunch:
      return runner_.launch(std::move(message.inputs));
    case StepMessage::Kind::kSetHistory:
      return runner_.set_history(message.replica, message.slot, message.prompt, message.output);
    case StepMessage::Kind::kCopyBlocks:
      return runner_.copy_blocks(message.replica, message.copies);
    case StepMessage::Kind::kReset:
    case StepMessage::Kind::kEnd:
      return;
  }
}

void RunnerFollower::apply(StepMessage message) {
  catch_up(message.done);
  if (message.kind == StepMessage::Kind::kReset) {
    runner_.reset();
    failed_.reset();
  }
  if (failed_) return;
  try {
    run(message);
  } catch (const Error& error) {
    failed_ = error;
  }
}

int64_t follow(parallel::ControlPlane& control, std::span<Runner* const> runners) {
  std::vector<RunnerFollower> followers;
  for (Runner* runner : runners) followers.emplace_back(*runner);
  while (const std::optional<std::string> bytes = control.receive()) {
    StepMessage message = parse_step_message(*bytes);
    const auto place = static_cast<size_t>(message.runner);
    require(place < followers.size(), "[processes] process 0 has a runner {}, here are {}",
            message.runner, followers.size());
    followers[place].apply(std::move(message));
  }
  return followers.front().steps();
}

}  // namespace ttpu::engine
