#include "ttpu/parallel/launch/process_tree.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <fstream>
#include <map>

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "ttpu/base/error.h"

extern char** environ;

namespace ttpu::parallel {
namespace {

struct Pipe {
  Descriptor read;
  Descriptor write;
};

Pipe make_pipe() {
  std::array<int, 2> fds{};
  if (::pipe2(fds.data(), O_CLOEXEC) != 0) {
    fail(Code::kResourceExhausted, "[launch] no pipe can be made: {}", std::strerror(errno));
  }
  return {Descriptor(fds[0]), Descriptor(fds[1])};
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> result;
  for (std::string& text : strings) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

std::vector<std::string> environment_with(const Variables& variables) {
  std::vector<std::string> result;
  for (char** it = environ; *it != nullptr; ++it) {
    const std::string_view entry = *it;
    const bool replaced = std::any_of(variables.begin(), variables.end(), [&](const auto& item) {
      return entry.starts_with(item.first + "=");
    });
    if (!replaced) result.emplace_back(entry);
  }
  for (const auto& [name, value] : variables) result.push_back(fmt::format("{}={}", name, value));
  return result;
}

// In the child, between fork and exec: only what is safe there. Never returns.
[[noreturn]] void become(char** argv, char** variables, int input, int output, int errors,
                         pid_t parent, int report) {
  ::setsid();
  if (parent != 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(127);  // it has died meanwhile
  }
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGXFSZ, SIGCHLD}) {
    ::signal(signal, SIG_DFL);
  }
  ::dup2(input, STDIN_FILENO);
  ::dup2(output, STDOUT_FILENO);
  ::dup2(errors, STDERR_FILENO);
  ::environ = variables;
  ::execvp(argv[0], argv);
  const int error = errno;
  [[maybe_unused]] const ssize_t written = ::write(report, &error, sizeof(error));
  ::_exit(127);
}

// The parent of each process.
std::multimap<pid_t, pid_t> children_of_all() {
  std::multimap<pid_t, pid_t> children;
  DIR* folder = ::opendir("/proc");
  if (folder == nullptr) return children;
  while (const dirent* entry = ::readdir(folder)) {
    const std::string_view name = entry->d_name;
    pid_t pid = 0;
    if (std::from_chars(name.data(), name.data() + name.size(), pid).ec != std::errc()) continue;
    std::ifstream file("/proc/" + std::string(name) + "/stat");
    const std::string stat((std::istreambuf_iterator<char>(file)), {});
    // "pid (name) state parent": the name may hold anything.
    const size_t end = stat.rfind(')');
    if (end == std::string::npos || end + 4 >= stat.size()) continue;
    pid_t parent = 0;
    std::from_chars(stat.data() + end + 4, stat.data() + stat.size(), parent);
    children.emplace(parent, pid);
  }
  ::closedir(folder);
  return children;
}

}  // namespace

void adopt_orphans() { ::prctl(PR_SET_CHILD_SUBREAPER, 1); }

Child start_child(const std::vector<std::string>& argv, const Variables& variables,
                  bool with_input) {
  require(!argv.empty(), "[launch] no command was given");
  Pipe output = make_pipe();
  Pipe errors = make_pipe();
  Pipe report = make_pipe();
  Pipe input;
  if (with_input) {
    input = make_pipe();
  } else {
    input.read = Descriptor(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  }
  std::vector<std::string> words = argv;
  std::vector<std::string> settings = environment_with(variables);
  const std::vector<char*> c_words = pointers(words);
  const std::vector<char*> c_settings = pointers(settings);
  const pid_t parent = with_input ? 0 : ::getpid();
  Child child;
  child.pid = ::fork();
  if (child.pid == 0) {
    become(const_cast<char**>(c_words.data()), const_cast<char**>(c_settings.data()),
           input.read.get(), output.write.get(), errors.write.get(), parent, report.write.get());
  }
  if (child.pid < 0) {
    fail(Code::kResourceExhausted, "[launch] no process can be started: {}", std::strerror(errno));
  }
  report.write.close();
  int error = 0;
  if (::read(report.read.get(), &error, sizeof(error)) > 0) {
    fail(Code::kNotFound, "[launch] cannot start '{}': {}", argv[0], std::strerror(error));
  }
  child.output = std::move(output.read);
  child.errors = std::move(errors.read);
  child.input = std::move(input.write);
  ::fcntl(child.output.get(), F_SETFL, O_NONBLOCK);
  ::fcntl(child.errors.get(), F_SETFL, O_NONBLOCK);
  if (with_input) ::fcntl(child.input.get(), F_SETFL, O_NONBLOCK);
  return child;
}

std::vector<pid_t> descendants() {
  const std::multimap<pid_t, pid_t> children = children_of_all();
  std::vector<pid_t> found;
  std::vector<pid_t> next = {::getpid()};
  while (!next.empty()) {
    const pid_t parent = next.back();
    next.pop_back();
    const auto [begin, end] = children.equal_range(parent);
    for (auto it = begin; it != end; ++it) {
      found.push_back(it->second);
      next.push_back(it->second);
    }
  }
  return found;
}

void signal_descendants(int signal) {
  for (const pid_t pid : descendants()) ::kill(pid, signal);
}

}  // namespace ttpu::parallel
