#include "ttpu/parallel/launch/agent.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ttpu/base/error.h"
#include "ttpu/base/json.h"
#include "ttpu/parallel/launch/host_check.h"
#include "ttpu/parallel/launch/lines.h"
#include "ttpu/parallel/launch/process_tree.h"

namespace ttpu::parallel {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr size_t kLongestLine = 1 << 16;   // of what processes write
constexpr size_t kLongestOrder = 1 << 24;  // from the launcher
constexpr size_t kMostUnsent = 4 << 20;    // then the processes wait
constexpr milliseconds kPing(1000);
constexpr milliseconds kTick(100);

class Agent {
 public:
  Agent() {
    adopt_orphans();
    std::signal(SIGPIPE, SIG_IGN);
    sigset_t set;
    ::sigemptyset(&set);
    for (const int each : {SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGQUIT}) ::sigaddset(&set, each);
    ::sigprocmask(SIG_BLOCK, &set, nullptr);
    signals_ = Descriptor(::signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
    input_ = Descriptor(::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3));
    ::fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
    ::fcntl(STDOUT_FILENO, F_SETFL, O_NONBLOCK);
  }

  int run() {
    while (!(leaving_ && !busy_)) {
      wait();
      take_signals();
      if (input_.open() && !orders_.read(input_, [&](std::string_view line) { obey(line); })) {
        leave();
      }
      read_outputs();
      keep_time();
      reap();
      send();
    }
    return 0;
  }

 private:
  struct Process {
    Child child;
    LineReader out{kLongestLine};
    LineReader err{kLongestLine};
    bool ended = false;
  };

  void wait() const {
    std::vector<pollfd> fds = {{signals_.get(), POLLIN, 0}};
    if (input_.open()) fds.push_back({input_.get(), POLLIN, 0});
    if (!unsent_.empty()) fds.push_back({STDOUT_FILENO, POLLOUT, 0});
    if (unsent_.size() < kMostUnsent) {
      for (const Process& process : processes_) {
        fds.push_back({process.child.output.get(), POLLIN, 0});
        fds.push_back({process.child.errors.get(), POLLIN, 0});
      }
    }
    ::poll(fds.data(), fds.size(), static_cast<int>(kTick.count()));
  }

  void say(const Json& message) {
    // What processes write may be any bytes.
    unsent_ += message.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  }

  void send() {
    while (!unsent_.empty()) {
      const ssize_t count = ::write(STDOUT_FILENO, unsent_.data(), unsent_.size());
      if (count > 0) {
        unsent_.erase(0, static_cast<size_t>(count));
      } else if (errno == EAGAIN) {
        return;
      } else if (errno != EINTR) {
        unsent_.clear();  // nobody reads any more
        return leave();
      }
    }
  }

  void obey(std::string_view line) {
    heard_ = Clock::now();
    try {
      const Json order = parse_json(line, "the launcher's order");
      if (order.contains("check"))
        say({{"checked", check_host(host_check_options(order["check"]))}});
      if (order.contains("start")) start(JsonView(order, "the launcher's order").child("start"));
      if (order.contains("signal")) signal_descendants(order["signal"].get<int>());
      if (order.contains("stop")) stop();
      if (order.contains("kill")) kill_at_ = Clock::now();
    } catch (const std::exception& error) {
      say({{"error", error.what()}});
    }
  }

  void start(const JsonView& order) {
    require(!busy_, "[launch] the processes of before still run");
    grace_ = milliseconds(order.get<int64_t>("grace_ms"));
    silence_ = milliseconds(order.get<int64_t>("silence_ms"));
    processes_.clear();
    kill_at_.reset();
    busy_ = true;
    Json pids = Json::array();
    for (const Json& command : order.json().at("commands")) {
      const JsonView view(command, "a command");
      const auto folder = view.get<std::string>("folder");
      std::error_code error;
      if (!folder.empty()) std::filesystem::current_path(folder, error);
      require(!error, "[launch] the folder '{}' is not here: {}", folder, error.message());
      Variables variables;
      for (const auto& [name, value] : view.child("variables").json().items()) {
        variables.emplace_back(name, value.get<std::string>());
      }
      auto argv = view.get<std::vector<std::string>>("argv");
      // The same ttpu as this one.
      if (argv.at(0) == "ttpu") argv[0] = std::filesystem::read_symlink("/proc/self/exe", error);
      Process process;
      process.child = start_child(argv, variables);
      pids.push_back(process.child.pid);
      processes_.push_back(std::move(process));
    }
    say({{"started", pids}});
  }

  void stop() {
    if (!busy_ || kill_at_) return;
    signal_descendants(SIGTERM);
    kill_at_ = Clock::now() + grace_;
  }

  void leave() {
    input_.close();
    leaving_ = true;
    stop();
  }

  void take_signals() {
    signalfd_siginfo info{};
    while (::read(signals_.get(), &info, sizeof(info)) == sizeof(info)) {
      if (info.ssi_signo != SIGCHLD) leave();
    }
  }

  void read_outputs() {
    if (unsent_.size() >= kMostUnsent) return;
    for (size_t i = 0; i < processes_.size(); ++i) read_output(i);
  }

  void read_output(size_t index) {
    Process& process = processes_[index];
    const auto hand_on = [&](LineReader& reader, Descriptor& from, const char* kind) {
      if (!from.open()) return;
      const bool more = reader.read(from, [&](std::string_view line) {
        say({{kind, Json::array({index, line})}});
      });
      if (!more) from.close();
    };
    hand_on(process.out, process.child.output, "out");
    hand_on(process.err, process.child.errors, "err");
  }

  void keep_time() {
    const Clock::time_point now = Clock::now();
    if (now - said_ > kPing) {
      said_ = now;
      if (unsent_.empty()) say({{"ping", true}});
    }
    if (busy_ && silence_ > milliseconds(0) && now - heard_ > silence_ && input_.open()) {
      say({{"error", "[launch] the launcher has not been heard of"}});
      leave();
    }
    if (kill_at_ && now >= *kill_at_) signal_descendants(SIGKILL);
  }

  // Takes note of who has ended, adopted ones too.
  void reap() {
    while (true) {
      int status = 0;
      const pid_t pid = ::waitpid(-1, &status, WNOHANG);
      if (pid < 0) return finish();  // there are none
      if (pid == 0) break;
      for (size_t i = 0; i < processes_.size(); ++i) {
        if (processes_[i].child.pid != pid) continue;
        processes_[i].ended = true;
        read_output(i);
        const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
        const int signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
        say({{"exit", Json::array({i, code, signal})}});
      }
    }
    // What they have left behind is not waited for.
    const bool over = std::all_of(processes_.begin(), processes_.end(),
                                  [](const Process& process) { return process.ended; });
    if (busy_ && over) stop();
  }

  void finish() {
    if (!busy_) return;
    for (size_t i = 0; i < processes_.size(); ++i) read_output(i);
    processes_.clear();
    kill_at_.reset();
    busy_ = false;
    say({{"done", true}});
  }

  Descriptor signals_;
  Descriptor input_;
  LineReader orders_{kLongestOrder};
  std::string unsent_;
  std::vector<Process> processes_;
  milliseconds grace_{10000};
  milliseconds silence_{0};
  std::optional<Clock::time_point> kill_at_;
  Clock::time_point heard_ = Clock::now();
  Clock::time_point said_ = Clock::now();
  bool busy_ = false;     // something may still run
  bool leaving_ = false;  // once nothing runs
};

}  // namespace

int run_agent() { return Agent().run(); }

}  // namespace ttpu::parallel
