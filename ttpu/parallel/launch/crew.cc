#include "ttpu/parallel/launch/crew.h"

#include <cerrno>
#include <condition_variable>
#include <csignal>

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ttpu/base/error.h"

namespace ttpu::parallel {
namespace {

constexpr std::chrono::milliseconds kPing(1000);
constexpr std::chrono::milliseconds kEnding(5);
constexpr int kTick = 100;
constexpr size_t kLastWords = 1000;

std::string how_it_ended(int status) {
  if (WIFSIGNALED(status)) return fmt::format("died of signal {}", WTERMSIG(status));
  return fmt::format("ended with {}", WEXITSTATUS(status));
}

}  // namespace

void Crew::add(const std::string& name, const std::vector<std::string>& argv) {
  Agent agent;
  agent.name = name;
  agent.child = start_child(argv, {}, true);
  const std::scoped_lock lock(mutex_);
  agents_.push_back(std::move(agent));
  // Of its own, since the launcher may wait for whoever reads its output.
  if (!pings_.joinable())
    pings_ = std::jthread([this](const std::stop_token& stop) { keep_pinging(stop); });
}

Crew::~Crew() {
  pings_ = {};
  for (Agent& agent : agents_) {
    agent.child.input.close();
    // Nobody reads what it still says: to an agent that is the same as the end of its input.
    agent.child.output.close();
    agent.child.errors.close();
  }
  const Clock::time_point deadline = Clock::now() + patience_;
  for (Agent& agent : agents_) {
    if (agent.child.pid <= 0) continue;
    while (!agent.lost && !agent.mute && Clock::now() < deadline) {
      if (::waitpid(agent.child.pid, nullptr, WNOHANG) != 0) {
        agent.child.pid = -1;
        break;
      }
      std::this_thread::sleep_for(kEnding);
    }
    if (agent.child.pid <= 0) continue;
    ::kill(agent.child.pid, SIGKILL);  // a remote shell that waits for a lost host
    while (::waitpid(agent.child.pid, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
}

void Crew::keep_pinging(const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any changed;
  std::unique_lock lock(mutex);
  while (!changed.wait_for(lock, stop, kPing, [&] { return stop.stop_requested(); })) {
    const std::scoped_lock writing(mutex_);
    for (Agent& agent : agents_) write(agent, "{\"ping\":true}\n");
    if (stop.stop_requested()) return;
  }
}

// An agent that does not read is silent, too, and found out by that.
void Crew::write(Agent& agent, const std::string& line) {
  size_t sent = 0;
  while (agent.child.input.open() && sent < line.size()) {
    const ssize_t count = ::write(agent.child.input.get(), line.data() + sent, line.size() - sent);
    if (count > 0) {
      sent += static_cast<size_t>(count);
    } else if (errno == EAGAIN && sent > 0) {
      pollfd ready{agent.child.input.get(), POLLOUT, 0};
      if (::poll(&ready, 1, 1000) == 0) return agent.child.input.close();
    } else if (errno != EINTR) {
      return;
    }
  }
}

void Crew::order(size_t agent, const Json& what) {
  const std::string line = what.dump() + "\n";
  const std::scoped_lock lock(mutex_);
  if (!agents_[agent].lost) write(agents_[agent], line);
}

void Crew::order_all(const Json& what) {
  for (size_t agent = 0; agent < agents_.size(); ++agent) order(agent, what);
}

void Crew::poll(const Sink& sink, int wake, std::chrono::milliseconds silence) {
  std::vector<pollfd> fds = {{wake, POLLIN, 0}};
  for (const Agent& agent : agents_) {
    fds.push_back({agent.child.output.get(), POLLIN, 0});
    fds.push_back({agent.child.errors.get(), POLLIN, 0});
  }
  ::poll(fds.data(), fds.size(), kTick);
  const Clock::time_point start = Clock::now();
  for (size_t index = 0; index < agents_.size(); ++index) {
    if (!agents_[index].lost) read(index, sink);
  }
  // The time that our own writing took is no silence of theirs.
  const Clock::duration writing = Clock::now() - start;
  for (size_t index = 0; index < agents_.size(); ++index) {
    Agent& agent = agents_[index];
    agent.heard += writing;
    if (!agent.lost && silence.count() > 0 && Clock::now() - agent.heard > silence) {
      lose(index, sink,
           fmt::format("has not been heard of for {} s",
                       std::chrono::duration<double>(silence).count()));
    }
  }
}

void Crew::read(size_t index, const Sink& sink) {
  Agent& agent = agents_[index];
  if (agent.child.errors.open()) {
    const bool more = agent.err.read(agent.child.errors, [&](std::string_view line) {
      agent.last_words.append(line).append("\n");
      if (agent.last_words.size() > kLastWords) {
        agent.last_words.erase(0, agent.last_words.size() - kLastWords);
      }
    });
    if (!more) agent.child.errors.close();
  }
  const bool more = agent.out.read(agent.child.output, [&](std::string_view line) {
    agent.heard = Clock::now();
    agent.mute = false;
    try {
      sink.message(index, parse_json(line, "what " + agent.name + " says"));
    } catch (const Error&) {  // a greeting of the remote shell, say
      agent.last_words.append(line).append("\n");
    }
  });
  if (more) return;
  int status = 0;
  while (::waitpid(agent.child.pid, &status, 0) < 0 && errno == EINTR) {
  }
  agent.child.pid = -1;
  lose(index, sink, "has lost its agent, which " + how_it_ended(status));
}

void Crew::lose(size_t index, const Sink& sink, std::string why) {
  Agent& agent = agents_[index];
  {
    const std::scoped_lock lock(mutex_);
    agent.lost = true;
    agent.child.input.close();
  }
  while (agent.last_words.ends_with('\n')) agent.last_words.pop_back();
  if (!agent.last_words.empty()) why += ": " + agent.last_words;
  sink.lost(index, why);
}

}  // namespace ttpu::parallel
