#include "ttpu/parallel/launch/rank.h"

#include "ttpu/base/error.h"

namespace ttpu::parallel {
namespace {

constexpr std::chrono::hours kForever(24 * 40);

ControlOptions options_of(const Cluster& cluster, const JobSettings& settings) {
  ControlOptions options;
  const Host& first = cluster.hosts.front();
  options.coordinator = to_string(Address{first.address, settings.ports.coordinator + 1});
  options.process = *cluster.self;
  options.processes = static_cast<int>(cluster.hosts.size());
  for (const Host& host : cluster.hosts) options.hosts.push_back(host.name);
  options.job = "launchers";
  options.start_timeout = std::chrono::seconds(settings.start_timeout_s);
  options.peer_timeout = std::chrono::seconds(settings.peer_timeout_s);
  return options;
}

std::string key(const char* name, int attempt) { return fmt::format("{}/{}", name, attempt); }
std::string key(const char* name, int attempt, size_t host) {
  return fmt::format("{}/{}/{}", name, attempt, host);
}

// Empty where all have succeeded.
std::string text_of(const Outcome& outcome) {
  if (outcome.why.empty()) return "";
  // What it quotes may be any bytes.
  return Json{{"why", outcome.why}, {"code", outcome.code}}.dump(-1, ' ', false,
                                                                 Json::error_handler_t::replace);
}

Outcome outcome_of(const std::string& text) {
  if (text.empty()) return {};
  const Json json = parse_json(text, "the outcome of a job");
  const JsonView view(json, "the outcome of a job");
  return {view.get<std::string>("why"), static_cast<int>(view.get<int64_t>("code"))};
}

}  // namespace

Ranks::Ranks(const Cluster& cluster, const JobSettings& settings)
    : cluster_(cluster),
      patience_(std::chrono::seconds(settings.start_timeout_s)),
      plane_(options_of(cluster, settings)) {}

// Whoever still waits for another host's word hears that the job is over.
Ranks::~Ranks() {
  plane_.end();
  for (std::thread& watcher : watchers_) watcher.join();
}

std::vector<NamedCheck> Ranks::share(int attempt, const NamedCheck& mine) {
  plane_.set(key("facts", attempt, static_cast<size_t>(*cluster_.self)), mine.facts.dump());
  std::vector<NamedCheck> all;
  for (size_t host = 0; host < cluster_.hosts.size(); ++host) {
    const std::string facts = plane_.get(key("facts", attempt, host), patience_);
    all.push_back({cluster_.hosts[host].name, parse_json(facts, cluster_.hosts[host].name)});
  }
  return all;
}

std::string Ranks::job(int attempt, const std::string& name) {
  if (*cluster_.self == 0) plane_.set(key("job", attempt), name);
  std::string job = plane_.get(key("job", attempt), patience_);
  watchers_.emplace_back([this, attempt] { watch(attempt); });
  return job;
}

// The outcome is that of the first failure, or, when all have succeeded, the first host's word.
void Ranks::watch(int attempt) {
  try {
    if (*cluster_.self == 0) {
      std::string failed;
      for (size_t host = 0; host < cluster_.hosts.size() && failed.empty(); ++host) {
        failed = plane_.get(key("result", attempt, host), kForever);
      }
      if (failed.empty()) plane_.set(key("outcome", attempt), "");
    }
    set_outcome(outcome_of(plane_.get(key("outcome", attempt), kForever)));
  } catch (const Error& error) {
    set_outcome({error.what(), 1});
  }
}

void Ranks::set_outcome(const Outcome& outcome) {
  const std::scoped_lock lock(mutex_);
  if (!outcome_) outcome_ = outcome;
}

void Ranks::succeed(int attempt) {
  {
    const std::scoped_lock lock(mutex_);
    if (succeeded_ || outcome_) return;
    succeeded_ = true;
  }
  try {
    plane_.set(key("result", attempt, static_cast<size_t>(*cluster_.self)), "");
  } catch (const Error& error) {
    set_outcome({error.what(), 1});
  }
}

void Ranks::fail(int attempt, const Outcome& outcome) {
  try {
    plane_.set(key("outcome", attempt), text_of(outcome));
    // Whoever waits for the results of all hears that there is one failure.
    for (size_t host = 0; host < cluster_.hosts.size(); ++host) {
      plane_.set(key("result", attempt, host), outcome.why);
    }
  } catch (const Error&) {  // the others have found out themselves
  }
}

std::optional<Outcome> Ranks::outcome() {
  const std::scoped_lock lock(mutex_);
  return outcome_;
}

void Ranks::stopped(int attempt) {
  for (std::thread& watcher : watchers_) watcher.join();
  watchers_.clear();
  try {
    plane_.barrier(key("stopped", attempt), patience_);
    const std::scoped_lock lock(mutex_);
    outcome_.reset();
    succeeded_ = false;
  } catch (const Error&) {  // a host that is lost; the next start says so
  }
}

}  // namespace ttpu::parallel
