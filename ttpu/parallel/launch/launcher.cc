#include "ttpu/parallel/launch/launcher.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <random>
#include <sstream>

#include <fmt/ranges.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ttpu/base/error.h"
#include "ttpu/base/log.h"
#include "ttpu/parallel/control/control_plane.h"
#include "ttpu/parallel/launch/crew.h"
#include "ttpu/parallel/launch/rank.h"

namespace ttpu::parallel {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

std::string random_name() {
  std::random_device source;
  return fmt::format("{:08x}{:08x}", source(), source());
}

std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> words;
  std::stringstream stream(text);
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

// For the shell at the other end of ssh.
std::string quoted(const std::string& text) {
  std::string result = "'";
  for (const char c : text) result += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return result + "'";
}

// SIGINT, SIGTERM and SIGHUP as something to read, for as long as this lives.
class SignalReader {
 public:
  SignalReader() {
    sigset_t set;
    ::sigemptyset(&set);
    for (const int each : {SIGINT, SIGTERM, SIGHUP}) ::sigaddset(&set, each);
    ::pthread_sigmask(SIG_BLOCK, &set, &before_);
    fd_ = Descriptor(::signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
    std::signal(SIGPIPE, SIG_IGN);
  }
  ~SignalReader() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalReader(const SignalReader&) = delete;
  SignalReader& operator=(const SignalReader&) = delete;
  int fd() const { return fd_.get(); }
  // 0: none has come.
  int next() const {
    signalfd_siginfo info{};
    return ::read(fd_.get(), &info, sizeof(info)) == sizeof(info) ? static_cast<int>(info.ssi_signo)
                                                                  : 0;
  }

 private:
  sigset_t before_{};
  Descriptor fd_;
};

class Launcher {
 public:
  explicit Launcher(const LaunchOptions& options) : options_(options), cluster_(options.cluster) {
    if (!options_.topology.empty()) cluster_.topology = options_.topology;
    settings_.start_timeout_s = options_.start_timeout_s;
    settings_.peer_timeout_s = options_.peer_timeout_s;
    adopt_orphans();
  }
  // What agents that were killed have left to this process.
  ~Launcher() {
    crew_.reset();
    signal_descendants(SIGKILL);
    while (::waitpid(-1, nullptr, 0) > 0 || errno == EINTR) {
    }
  }
  Launcher(const Launcher&) = delete;
  Launcher& operator=(const Launcher&) = delete;

  int run() {
    for (int attempt = 0;; ++attempt) {
      const int code = run_once(attempt);
      if (code == 0 || signal_ != 0 || attempt >= options_.max_restarts || !restartable_) {
        return code;
      }
      note(fmt::format("starting again ({} of {} times)", attempt + 1, options_.max_restarts));
    }
  }

 private:
  // Of a host whose processes this launcher starts.
  struct Station {
    int host = 0;
    int running = 0;
    bool checked = false;
    bool done = true;
    Json facts;
  };

  int run_once(int attempt) {
    failure_.clear();
    started_ = false;
    code_ = 0;
    stop_at_.reset();
    restartable_ = true;
    settings_.restarts = attempt;
    settings_.ports = ports();
    if (!crew_ || std::any_of(stations_.begin(), stations_.end(), [&](const Station& station) {
          return crew_->is_lost(static_cast<size_t>(&station - stations_.data()));
        })) {
      call_agents();
    }
    if (cluster_.self && !ranks_) {
      ranks_ = std::make_unique<Ranks>(cluster_, settings_);
    }
    check();
    if (signal_ != 0) return 128 + signal_;
    settings_.job = ranks_ ? ranks_->job(attempt, random_name()) : random_name();
    start();
    while (!over()) step();
    if (ranks_ && signal_ == 0) ranks_->stopped(attempt);
    return code_;
  }

  // Those of the options, or others at each start.
  JobPorts ports() const {
    if (options_.ports.coordinator != 0) return options_.ports;
    return JobPorts::from(free_ports(2 + cluster_.hosts.front().processes));
  }

  void call_agents() {
    crew_ = std::make_unique<Crew>(seconds(options_.grace_s + 5));
    stations_.clear();
    for (size_t host = 0; host < cluster_.hosts.size(); ++host) {
      if (cluster_.self && static_cast<int>(host) != *cluster_.self) continue;
      Station station;
      station.host = static_cast<int>(host);
      stations_.push_back(station);
      crew_->add(cluster_.hosts[host].name, agent_command(cluster_.hosts[host]));
    }
  }

  std::vector<std::string> agent_command(const Host& host) const {
    const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
    if (cluster_.local || cluster_.self) return {self, "launch", "--agent"};
    std::string shell = options_.remote_shell;
    if (shell.empty()) shell = cluster_.remote_shell;
    if (shell.empty())
      shell = fmt::format("ssh -o BatchMode=yes -o ConnectTimeout={}", options_.start_timeout_s);
    std::vector<std::string> command = words_of(shell);
    bool placed = false;
    for (std::string& word : command) {
      const size_t place = word.find("{host}");
      if (place == std::string::npos) continue;
      word.replace(place, 6, host.name);
      placed = true;
    }
    if (!placed) command.push_back(host.name);
    const std::string there = options_.remote_command.empty() ? self : options_.remote_command;
    const bool ssh = std::filesystem::path(command.front()).filename() == "ssh";
    command.insert(command.end(), {ssh ? quoted(there) : there, "launch", "--agent"});
    return command;
  }

  // Waits until every host has answered.
  void check() {
    for (size_t agent = 0; agent < stations_.size(); ++agent) {
      HostCheckOptions check = options_.check;
      const Host& host = cluster_.hosts[static_cast<size_t>(stations_[agent].host)];
      for (int p = 0; p < host.processes; ++p)
        check.ports.push_back(settings_.ports.first_process + p);
      if (stations_[agent].host == 0) check.ports.push_back(settings_.ports.coordinator);
      stations_[agent].checked = false;
      crew_->order(agent, {{"check", to_json(check)}});
    }
    const Clock::time_point deadline = Clock::now() + seconds(options_.start_timeout_s);
    const auto waits = [](const Station& station) { return !station.checked; };
    while (std::any_of(stations_.begin(), stations_.end(), waits) && signal_ == 0) {
      step();
      if (!failure_.empty()) fail(Code::kUnavailable, "[launch] {}", failure_);
      if (Clock::now() < deadline) continue;
      std::vector<std::string> silent;
      for (size_t agent = 0; agent < stations_.size(); ++agent) {
        if (waits(stations_[agent])) silent.push_back(crew_->name(agent));
      }
      fail(Code::kDeadlineExceeded,
           "[launch] not up within {} s: {}; look whether they can be reached, or raise "
           "--start-timeout",
           options_.start_timeout_s, fmt::join(silent, ", "));
    }
    if (signal_ != 0) return;
    std::vector<NamedCheck> all;
    for (const Station& station : stations_) {
      all.push_back({cluster_.hosts[static_cast<size_t>(station.host)].name, station.facts});
    }
    if (ranks_) all = ranks_->share(settings_.restarts, all.front());
    settings_.chips_per_host = all.front().facts.at("chips").get<int>();
    for (const NamedCheck& host : all) {
      if (host.facts.at("lock") == "removed")
        note(host.host + ": a stale lock file of libtpu was removed");
    }
    if (options_.preflight) check_together(all, options_.topology);
  }

  void start() {
    started_ = true;
    for (size_t agent = 0; agent < stations_.size(); ++agent) {
      Station& station = stations_[agent];
      const Host& host = cluster_.hosts[static_cast<size_t>(station.host)];
      Json commands = Json::array();
      for (int local = 0; local < host.processes; ++local) {
        Json variables = Json::object();
        for (const auto& [name, value] : options_.variables) variables[name] = value;
        for (const auto& [name, value] :
             process_environment(cluster_, station.host, local, settings_)) {
          variables[name] = value;
        }
        commands.push_back(
            {{"argv", options_.command}, {"variables", variables}, {"folder", options_.folder}});
      }
      station.running = host.processes;
      station.done = false;
      crew_->order(agent, {{"start",
                            {{"commands", commands},
                             {"grace_ms", 1000 * options_.grace_s},
                             {"silence_ms", 1000 * options_.peer_timeout_s}}}});
    }
  }

  bool over() {
    const auto done = [&](const Station& station) {
      return station.done || crew_->is_lost(static_cast<size_t>(&station - stations_.data()));
    };
    if (!std::all_of(stations_.begin(), stations_.end(), done)) return false;
    if (!ranks_ || !failure_.empty() || signal_ != 0) return true;
    ranks_->succeed(settings_.restarts);
    const std::optional<std::string> outcome = ranks_->outcome();
    if (outcome && !outcome->empty()) end_because(*outcome, 1);
    return outcome.has_value();
  }

  void step() {
    const Crew::Sink sink = {[this](size_t agent, const Json& message) { take(agent, message); },
                             [this](size_t agent, const std::string& why) {
                               stations_[agent].done = true;
                               end_because(fmt::format("{} {}", crew_->name(agent), why), 1);
                             }};
    const bool started = std::any_of(stations_.begin(), stations_.end(),
                                     [](const Station& station) { return !station.done; });
    crew_->poll(sink, signals_.fd(), started ? seconds(options_.peer_timeout_s) : seconds(0));
    while (const int signal = signals_.next()) take_signal(signal);
    if (ranks_) {
      const std::optional<std::string> outcome = ranks_->outcome();
      if (outcome && !outcome->empty()) end_because(*outcome, 1);
    }
    if (stop_at_ && Clock::now() > *stop_at_) {
      stop_at_.reset();
      crew_->order_all({{"kill", true}});
    }
  }

  void take_signal(int signal) {
    const bool again = signal_ != 0;
    signal_ = signal;
    if (again) {
      crew_->order_all({{"kill", true}});
      return;
    }
    note(fmt::format("signal {} is handed on; what still runs after {} s is killed", signal,
                     options_.grace_s));
    crew_->order_all({{"signal", signal}});
    if (ranks_) {
      ranks_->fail(
          settings_.restarts,
          fmt::format("{} was told to end by signal {}",
                      cluster_.hosts.at(static_cast<size_t>(*cluster_.self)).name, signal));
    }
    stop_at_ = Clock::now() + seconds(options_.grace_s);
  }

  void take(size_t agent, const Json& message) {
    Station& station = stations_[agent];
    const JsonView view(message, crew_->name(agent));
    if (message.contains("checked")) {
      station.facts = view.child("checked").json();
      station.checked = true;
    } else if (message.contains("out")) {
      print(STDOUT_FILENO, agent, message["out"]);
    } else if (message.contains("err")) {
      print(STDERR_FILENO, agent, message["err"]);
    } else if (message.contains("exit")) {
      const int code = message["exit"].at(1).get<int>();
      const std::string who = label(agent, message["exit"].at(0).get<int>());
      if (signal_ != 0) {
        if (code != 0) code_ = 128 + signal_;
      } else if (code > 128) {
        end_because(
            fmt::format("{} was ended by signal {} ({})", who, code - 128, ::strsignal(code - 128)),
            code);
      } else if (code != 0) {
        end_because(fmt::format("{} has ended with {}", who, code), code);
      }
    } else if (message.contains("done")) {
      station.done = true;
    } else if (message.contains("error")) {
      station.done = true;
      restartable_ = false;
      end_because(fmt::format("{}: {}", crew_->name(agent), view.get<std::string>("error")), 1);
    }
  }

  // The first reason counts: what follows from it is no news.
  void end_because(const std::string& why, int code) {
    if (!failure_.empty() || signal_ != 0) return;
    failure_ = why;
    code_ = code;
    if (started_) note(fmt::format("{}; the others are stopped", why));  // else it is thrown
    if (ranks_) ranks_->fail(settings_.restarts, why);
    crew_->order_all({{"stop", true}});
  }

  std::string label(size_t agent, int local) const {
    const Host& host = cluster_.hosts[static_cast<size_t>(stations_[agent].host)];
    if (cluster_.local) return fmt::format("process {}", local);
    return host.processes == 1 ? host.name : fmt::format("{}/{}", host.name, local);
  }

  void print(int fd, size_t agent, const Json& line) const {
    const int local = line.at(0).get<int>();
    const std::string who = cluster_.local ? std::to_string(local) : label(agent, local);
    write_all(fd, fmt::format("[{}] {}\n", who, line.at(1).get<std::string>()));
  }

  static void note(const std::string& text) {
    write_all(STDERR_FILENO, fmt::format("[launch] {}\n", text));
  }

  LaunchOptions options_;
  Cluster cluster_;
  JobSettings settings_;
  SignalReader signals_;
  std::vector<Station> stations_;  // as the agents in crew_
  std::unique_ptr<Crew> crew_;
  std::unique_ptr<Ranks> ranks_;  // where every host has a launcher
  std::string failure_;
  int code_ = 0;
  int signal_ = 0;
  bool started_ = false;
  bool restartable_ = true;
  std::optional<Clock::time_point> stop_at_;
};

}  // namespace

int launch(const LaunchOptions& options) {
  require(!options.command.empty(),
          "[launch] no command was given; write it behind --, as in `ttpu launch --local 2 -- ttpu "
          "generate MODEL`");
  return Launcher(options).run();
}

}  // namespace ttpu::parallel
