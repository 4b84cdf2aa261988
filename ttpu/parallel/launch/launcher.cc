#include "ttpu/parallel/launch/launcher.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <future>
#include <memory>
#include <optional>
#include <random>
#include <sstream>

#include <fmt/ranges.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ttpu/base/error.h"
#include "ttpu/base/log.h"
#include "ttpu/base/utf8.h"
#include "ttpu/parallel/control/control_plane.h"
#include "ttpu/parallel/launch/crew.h"
#include "ttpu/parallel/launch/rank.h"

namespace ttpu::parallel {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr int kTick = 100;  // milliseconds
constexpr milliseconds kBetweenLooks(20);

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

  // Waits for other hosts, while none of this one's processes runs: a signal ends the launcher
  // then, and the others hear of that. On a thread of its own, since its waits do not end earlier.
  template <typename Wait>
  auto for_others(const Wait& wait) {
    auto result = std::async(std::launch::async, wait);
    while (result.wait_for(kBetweenLooks) != std::future_status::ready) {
      const int signal = signals_.next();
      if (signal == 0) continue;
      mute_at_ = Clock::now();
      note(fmt::format("signal {} came while other hosts were waited for", signal));
      crew_.reset();
      std::_Exit(128 + signal);
    }
    return result.get();
  }

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
      ranks_ = for_others([&] { return std::make_unique<Ranks>(cluster_, settings_); });
    }
    check();
    if (signal_ != 0) return 128 + signal_;
    settings_.job = random_name();
    if (ranks_) settings_.job = for_others([&] { return ranks_->job(attempt, settings_.job); });
    start();
    while (!over()) step();
    if (ranks_ && signal_ == 0) for_others([&] { ranks_->stopped(attempt); });
    return code_;
  }

  // Those of the options, or others at each start.
  JobPorts ports() const {
    if (options_.ports.coordinator != 0) return options_.ports;
    return JobPorts::from(free_ports(2 + cluster_.hosts.front().processes));
  }

  void call_agents() {
    crew_ = std::make_unique<Crew>(seconds(options_.grace_s) + seconds(5));
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
    if (ranks_) all = for_others([&] { return ranks_->share(settings_.restarts, all.front()); });
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
                             {"grace_ms", int64_t{1000} * options_.grace_s},
                             {"silence_ms", int64_t{1000} * options_.peer_timeout_s}}}});
    }
  }

  bool over() {
    const auto done = [&](const Station& station) {
      return station.done || crew_->is_lost(static_cast<size_t>(&station - stations_.data()));
    };
    if (!std::all_of(stations_.begin(), stations_.end(), done)) return false;
    if (!ranks_ || !failure_.empty() || signal_ != 0) return true;
    ranks_->succeed(settings_.restarts);
    const std::optional<Outcome> outcome = ranks_->outcome();
    if (outcome && !outcome->why.empty()) end_because(outcome->why, outcome->code);
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
      const std::optional<Outcome> outcome = ranks_->outcome();
      if (outcome && !outcome->why.empty()) end_because(outcome->why, outcome->code);
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
      mute_at_ = Clock::now();
      crew_->order_all({{"kill", true}});
      return;
    }
    stop_at_ = mute_at_ = Clock::now() + seconds(options_.grace_s);
    crew_->order_all({{"signal", signal}});
    if (ranks_) {
      const std::string& name = cluster_.hosts.at(static_cast<size_t>(*cluster_.self)).name;
      ranks_->fail(settings_.restarts,
                   {fmt::format("{} was told to end by signal {}", name, signal), 1});
    }
    note(fmt::format("signal {} is handed on; what still runs after {} s is killed", signal,
                     options_.grace_s));
  }

  // Waits for whoever reads, and takes signals meanwhile; what is not read once the grace period
  // after one is over is given up.
  void write(int fd, std::string_view bytes) {
    while (!bytes.empty()) {
      std::array<pollfd, 2> fds = {{{fd, POLLOUT, 0}, {signals_.fd(), POLLIN, 0}}};
      const bool muted = mute_at_ && Clock::now() >= *mute_at_;
      ::poll(fds.data(), fds.size(), muted ? 0 : kTick);
      if (fds[1].revents != 0) {
        while (const int signal = signals_.next()) take_signal(signal);
      }
      if (fds[0].revents == 0) {
        if (muted) return;
        continue;
      }
      // So many fit into a pipe that takes any: this does not wait.
      const ssize_t count = ::write(fd, bytes.data(), std::min<size_t>(bytes.size(), PIPE_BUF));
      if (count > 0) bytes.remove_prefix(static_cast<size_t>(count));
      if (count < 0 && errno != EINTR && errno != EAGAIN) return;  // nobody reads any more
    }
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
      const int signal = message["exit"].at(2).get<int>();
      const std::string who = label(agent, message["exit"].at(0).get<int>());
      if (signal_ != 0) {
        if (code != 0 || signal != 0) code_ = 128 + signal_;
      } else if (signal != 0) {
        end_because(fmt::format("{} was ended by signal {} ({})", who, signal, ::strsignal(signal)),
                    128 + signal);
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
    if (ranks_) ranks_->fail(settings_.restarts, {why, code});
    crew_->order_all({{"stop", true}});
  }

  std::string label(size_t agent, int local) const {
    const Host& host = cluster_.hosts[static_cast<size_t>(stations_[agent].host)];
    if (cluster_.local) return fmt::format("process {}", local);
    return host.processes == 1 ? host.name : fmt::format("{}/{}", host.name, local);
  }

  void print(int fd, size_t agent, const Json& line) {
    const int local = line.at(0).get<int>();
    const std::string who = cluster_.local ? std::to_string(local) : label(agent, local);
    write(fd, fmt::format("[{}] {}\n", who, line.at(1).get<std::string>()));
  }

  void note(const std::string& text) { write(STDERR_FILENO, fmt::format("[launch] {}\n", text)); }

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
  std::optional<Clock::time_point> mute_at_;  // then output is given up that nobody reads
};

// Agents are told of it in JSON.
void check_text(const LaunchOptions& options) {
  const auto check = [](const char* what, const std::string& text) {
    require(utf8_valid(text), "[launch] {} '{}' is not UTF-8, and cannot be handed on", what, text);
  };
  for (const std::string& word : options.command) check("the argument", word);
  for (const auto& [name, value] : options.variables) {
    check("the variable", fmt::format("{}={}", name, value));
  }
  check("the folder", options.folder);
  check("the device", options.check.device);
}

}  // namespace

int launch(const LaunchOptions& options) {
  require(!options.command.empty(),
          "[launch] no command was given; write it behind --, as in `ttpu launch --local 2 -- ttpu "
          "generate MODEL`");
  check_text(options);
  return Launcher(options).run();
}

}  // namespace ttpu::parallel
