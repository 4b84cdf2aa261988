#include "ttpu/parallel/control/control_plane.h"

#include <algorithm>

#include "ttpu/base/error.h"
#include "ttpu/base/file.h"
#include "ttpu/base/strings.h"
#include "ttpu/parallel/control/coordinator.h"
#include "ttpu/parallel/control/link.h"

namespace ttpu::parallel {
namespace {

constexpr size_t kMostHeard = 1 << 20;

int number_from(const char* name, int fallback) {
  const std::string text = env_or(name);
  if (text.empty()) return fallback;
  const std::optional<int> value = parse_count(text);
  require(value.has_value(), "[control] {} is '{}', expected a number; it is set by `ttpu launch`",
          name, text);
  return *value;
}

}  // namespace

std::optional<ControlOptions> control_options_from_environment() {
  ControlOptions options;
  options.processes = number_from("TTPU_NUM_PROCESSES", 1);
  if (options.processes <= 1) return std::nullopt;
  options.coordinator = env_or("TTPU_COORDINATOR");
  require(!options.coordinator.empty(),
          "[control] TTPU_NUM_PROCESSES is {}, but TTPU_COORDINATOR is not set; start the "
          "processes with `ttpu launch`",
          options.processes);
  options.process = number_from("TTPU_PROCESS_ID", -1);
  options.hosts = split(env_or("TTPU_HOSTS"), ',');
  options.job = env_or("TTPU_JOB");
  options.start_timeout = std::chrono::seconds(number_from("TTPU_START_TIMEOUT", 300));
  options.peer_timeout = std::chrono::seconds(number_from("TTPU_PEER_TIMEOUT", 15));
  return options;
}

std::string name_of(const ControlOptions& options, int process) {
  const auto place = static_cast<size_t>(process);
  if (place >= options.hosts.size()) return fmt::format("process {}", process);
  return fmt::format("process {} ({})", process, options.hosts[place]);
}

ControlPlane::ControlPlane(const ControlOptions& options) : options_(options) {
  require(options.process >= 0 && options.process < options.processes,
          "[control] process {} of {} there cannot be", options.process, options.processes);
  if (options.process == 0) {
    coordinator_ = std::make_unique<Coordinator>(options_, *this);
  } else {
    link_ = std::make_unique<Link>(options_, *this);
  }
  try {
    barrier(kStartBarrier, options.start_timeout);
  } catch (const Error& error) {
    if (coordinator_) coordinator_->fail_all(error.what());  // so that all say the same
    throw;
  }
}

ControlPlane::~ControlPlane() = default;

int ControlPlane::processes_on_this_host() const {
  const auto place = static_cast<size_t>(options_.process);
  if (place >= options_.hosts.size()) return 1;
  return static_cast<int>(
      std::count(options_.hosts.begin(), options_.hosts.end(), options_.hosts[place]));
}

void ControlPlane::on_frame(Frame frame) {
  const std::scoped_lock lock(mutex_);
  switch (frame.kind) {
    case FrameKind::kValue:
    case FrameKind::kPassed:
    case FrameKind::kError:
      answers_[frame.name].push_back(std::move(frame));
      break;
    case FrameKind::kBroadcast:
      heard_bytes_ += frame.body.size();
      heard_.push_back(std::move(frame.body));
      break;
    case FrameKind::kBye:
      ended_ = true;
      break;
    default:
      return;
  }
  changed_.notify_all();
}

void ControlPlane::fail_all(const std::string& why) {
  const std::scoped_lock lock(mutex_);
  if (!ended_ && failure_.empty()) failure_ = why;
  ended_ = true;
  changed_.notify_all();
}

void ControlPlane::end() {
  const std::scoped_lock lock(mutex_);
  ended_ = true;
  changed_.notify_all();
}

bool ControlPlane::is_full() const {
  const std::scoped_lock lock(mutex_);
  return heard_bytes_ > kMostHeard;
}

void ControlPlane::send(Frame frame) {
  if (coordinator_) return coordinator_->take(std::move(frame));
  link_->send(frame);
}

Frame ControlPlane::ask(Frame frame) {
  const std::string name = frame.name;
  send(std::move(frame));
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return ended_ || !answers_[name].empty(); });
  std::deque<Frame>& answers = answers_[name];
  if (answers.empty()) {
    throw Error(
        Code::kUnavailable,
        failure_.empty() ? fmt::format("[control] {} has ended", name_of(options_, 0)) : failure_);
  }
  Frame answer = std::move(answers.front());
  answers.pop_front();
  if (answers.empty()) answers_.erase(name);
  if (answer.kind == FrameKind::kError) throw Error(Code::kDeadlineExceeded, answer.body);
  return answer;
}

void ControlPlane::give_up(const std::string& why) { send({FrameKind::kFailed, {}, why}); }

void ControlPlane::check() const {
  const std::scoped_lock lock(mutex_);
  if (!failure_.empty()) throw Error(Code::kUnavailable, failure_);
}

void ControlPlane::set(std::string_view key, std::string value) {
  check();
  send({FrameKind::kSet, "key/" + std::string(key), std::move(value)});
}

std::string ControlPlane::get(std::string_view key, std::chrono::milliseconds timeout) {
  return ask({FrameKind::kGet,
              "key/" + std::string(key),
              {},
              static_cast<uint32_t>(timeout.count())})
      .body;
}

void ControlPlane::barrier(std::string_view name, std::chrono::milliseconds timeout) {
  ask({FrameKind::kBarrier, std::string(name), {}, static_cast<uint32_t>(timeout.count())});
}

void ControlPlane::broadcast(std::string bytes) {
  require(coordinator_ != nullptr, "[control] process {} broadcasts; only process 0 may",
          options_.process);
  coordinator_->broadcast(std::move(bytes));
}

std::optional<std::string> ControlPlane::receive() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return ended_ || !heard_.empty(); });
  if (heard_.empty()) {
    if (!failure_.empty()) throw Error(Code::kUnavailable, failure_);
    return std::nullopt;
  }
  std::string bytes = std::move(heard_.front());
  heard_.pop_front();
  heard_bytes_ -= bytes.size();
  lock.unlock();
  if (link_) link_->resume();
  return bytes;
}

}  // namespace ttpu::parallel
