#include "ttpu/base/subprocess.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ttpu/base/error.h"

extern char** environ;

namespace ttpu {
namespace {

using Clock = std::chrono::steady_clock;

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() { close(); }
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  int get() const { return fd_; }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

 private:
  int fd_ = -1;
};

struct Channel {
  Descriptor ours;
  Descriptor child;
};

// A socket pair and not a pipe: writing to a child that has closed its end then fails instead of
// raising SIGPIPE.
Channel make_channel() {
  std::array<int, 2> fds{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds.data()) != 0) {
    fail(Code::kResourceExhausted, "[subprocess] cannot create a channel: {}",
         std::strerror(errno));
  }
  Channel channel{Descriptor(fds[0]), Descriptor(fds[1])};
  ::fcntl(channel.ours.get(), F_SETFL, O_NONBLOCK);
  return channel;
}

// dup2 would leave one that has the number already to be closed by exec.
void place(int fd, int number) {
  if (fd == number) {
    ::fcntl(fd, F_SETFD, 0);
  } else {
    ::dup2(fd, number);
  }
}

// What the child of a fork does; only what is safe between fork and exec.
struct Start {
  char* const* argv;
  char* const* variables;
  std::array<int, 3> streams;  // input, output, errors
  int report;                  // told why exec failed
  pid_t parent;
  sigset_t signals;

  [[noreturn]] void become() const {
    // The child must not outlive who waits for it: killed too, it could not end the child itself.
    // The kernel means the thread that forked; run_subprocess() waits in it.
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(127);  // it has died meanwhile
    // This process's own handlers are not for the child.
    for (int signal = 1; signal < NSIG; ++signal) {
      struct sigaction action {};
      if (::sigaction(signal, nullptr, &action) == 0 && action.sa_handler != SIG_IGN) {
        ::signal(signal, SIG_DFL);
      }
    }
    ::sigprocmask(SIG_SETMASK, &signals, nullptr);
    for (int i = 0; i < 3; ++i) place(streams[static_cast<size_t>(i)], i);
    ::execvpe(argv[0], argv, variables);
    const int error = errno;
    [[maybe_unused]] const ssize_t written = ::write(report, &error, sizeof(error));
    ::_exit(127);
  }
};

// The part of a child's standard error that says why it ended.
std::string tail(const std::string& text) {
  constexpr size_t kLimit = 2000;
  if (text.empty()) return "It wrote nothing to standard error.";
  std::string end = text.size() <= kLimit ? text : "..." + text.substr(text.size() - kLimit);
  while (!end.empty() && end.back() == '\n') end.pop_back();
  return "It wrote: " + end;
}

class Child {
 public:
  Child(const std::vector<std::string>& argv, const SubprocessOptions& options)
      : name_(argv[0]), input_(make_channel()), output_(make_channel()), errors_(make_channel()) {
    spawn(argv, options);
    input_.child.close();
    output_.child.close();
    errors_.child.close();
    pid_fd_ = Descriptor(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
    if (pid_fd_.get() < 0) {
      const int error = errno;
      kill();
      fail(Code::kInternal, "[subprocess] cannot watch '{}': {}", name_, std::strerror(error));
    }
  }
  ~Child() { kill(); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // False when the deadline came first.
  bool run(const std::string& input, std::optional<Clock::time_point> deadline,
           SubprocessResult& result) {
    size_t written = 0;
    if (input.empty()) input_.ours.close();
    while (true) {
      int wait_ms = -1;
      if (deadline) {
        const auto left =
            std::chrono::duration_cast<std::chrono::milliseconds>(*deadline - Clock::now()).count();
        if (left <= 0) return false;
        wait_ms = static_cast<int>(std::min<int64_t>(left, 1 << 30));
      }
      std::array<pollfd, 4> fds = {{{pid_fd_.get(), POLLIN, 0},
                                    {output_.ours.get(), POLLIN, 0},
                                    {errors_.ours.get(), POLLIN, 0},
                                    {input_.ours.get(), POLLOUT, 0}}};
      if (::poll(fds.data(), fds.size(), wait_ms) < 0 && errno != EINTR) {
        fail(Code::kInternal, "[subprocess] poll: {}", std::strerror(errno));
      }
      if (fds[3].revents != 0) feed(input, written);
      // Read even when the child has ended: what it wrote last is still in the channels. What its
      // own children still write later is not waited for.
      drain(output_.ours, result.output);
      drain(errors_.ours, result.errors);
      if ((fds[0].revents & POLLIN) != 0) {
        drain(output_.ours, result.output);
        drain(errors_.ours, result.errors);
        return true;
      }
    }
  }

  int wait() {
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return status;
  }

  void kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    wait();
  }

 private:
  void spawn(const std::vector<std::string>& argv, const SubprocessOptions& options) {
    std::vector<std::string> variables;
    for (char** it = environ; *it != nullptr; ++it) {
      const std::string_view entry = *it;
      const bool replaced =
          std::any_of(options.environment.begin(), options.environment.end(),
                      [&](const auto& item) { return entry.starts_with(item.first + "="); });
      if (!replaced) variables.emplace_back(entry);
    }
    for (const auto& [key, value] : options.environment) {
      variables.push_back(key);
      variables.back().append("=").append(value);
    }
    const std::vector<char*> c_argv = pointers(argv);
    const std::vector<char*> c_environment = pointers(variables);

    std::array<int, 2> report{};
    if (::pipe2(report.data(), O_CLOEXEC) != 0) {
      fail(Code::kResourceExhausted, "[subprocess] cannot create a channel: {}",
           std::strerror(errno));
    }
    const Descriptor told(report[0]);
    Descriptor tells(report[1]);
    Start start{c_argv.data(),
                c_environment.data(),
                {input_.child.get(), output_.child.get(), errors_.child.get()},
                tells.get(),
                ::getpid(),
                {}};
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &start.signals);
    pid_ = ::fork();
    if (pid_ == 0) start.become();
    int error = pid_ < 0 ? errno : 0;
    ::pthread_sigmask(SIG_SETMASK, &start.signals, nullptr);
    if (pid_ < 0) {
      fail(Code::kResourceExhausted, "[subprocess] no process can be started for '{}': {}", name_,
           std::strerror(error));
    }
    tells.close();
    while (::read(told.get(), &error, sizeof(error)) < 0 && errno == EINTR) {
    }
    if (error != 0) {
      kill();
      fail(Code::kNotFound, "[subprocess] cannot start '{}': {}; check that it is installed", name_,
           std::strerror(error));
    }
  }

  static std::vector<char*> pointers(const std::vector<std::string>& strings) {
    std::vector<char*> result;
    for (const std::string& text : strings) result.push_back(const_cast<char*>(text.c_str()));
    result.push_back(nullptr);
    return result;
  }

  void feed(const std::string& input, size_t& written) {
    while (written < input.size()) {
      const ssize_t count =
          ::send(input_.ours.get(), input.data() + written, input.size() - written, MSG_NOSIGNAL);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0 && errno == EAGAIN) return;
      if (count < 0) break;  // the child no longer reads
      written += static_cast<size_t>(count);
    }
    input_.ours.close();
  }

  static void drain(Descriptor& from, std::string& to) {
    std::array<char, 65536> block;
    while (from.get() >= 0) {
      const ssize_t count = ::read(from.get(), block.data(), block.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0 && errno == EAGAIN) return;
      if (count <= 0) {
        from.close();
        return;
      }
      to.append(block.data(), static_cast<size_t>(count));
    }
  }

  std::string name_;
  Channel input_;
  Channel output_;
  Channel errors_;
  pid_t pid_ = -1;
  Descriptor pid_fd_;
};

}  // namespace

SubprocessResult run_subprocess(const std::vector<std::string>& argv,
                                const SubprocessOptions& options) {
  require(!argv.empty(), "[subprocess] no command was given");
  std::optional<Clock::time_point> deadline;
  if (options.timeout) deadline = Clock::now() + *options.timeout;
  Child child(argv, options);
  SubprocessResult result;
  if (!child.run(options.input, deadline, result)) {
    child.kill();
    fail(Code::kDeadlineExceeded,
         "[subprocess] '{}' was stopped after {} ms; give it more time. {}", argv[0],
         options.timeout->count(), tail(result.errors));
  }
  const int status = child.wait();
  if (WIFSIGNALED(status)) {
    const int signal = WTERMSIG(status);
    if (signal == SIGKILL) {
      fail(Code::kResourceExhausted,
           "[subprocess] '{}' was killed, as happens when memory runs out; use a machine with more "
           "memory or a smaller program. {}",
           argv[0], tail(result.errors));
    }
    fail(Code::kAborted, "[subprocess] '{}' died of signal {} ({}). {}", argv[0], signal,
         ::strsignal(signal), tail(result.errors));
  }
  result.exit_code = WEXITSTATUS(status);
  return result;
}

}  // namespace ttpu
