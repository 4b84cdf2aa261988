// The agents of a job's hosts as the launcher sees them.
#pragma once

#include <chrono>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "ttpu/base/json.h"
#include "ttpu/parallel/launch/lines.h"
#include "ttpu/parallel/launch/process_tree.h"

namespace ttpu::parallel {

class Crew {
 public:
  using Clock = std::chrono::steady_clock;

  // `argv` starts the agent of the host called `name`.
  void add(const std::string& name, const std::vector<std::string>& argv);
  // Ends all: agents stop what they have started before they end, for which they get so long.
  ~Crew();
  explicit Crew(std::chrono::milliseconds patience) : patience_(patience) {}
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;

  size_t size() const { return agents_.size(); }
  const std::string& name(size_t agent) const { return agents_[agent].name; }
  void order(size_t agent, const Json& what);
  void order_all(const Json& what);

  // What comes from an agent; `lost` says why when nothing will come any more.
  struct Sink {
    std::function<void(size_t agent, const Json& message)> message;
    std::function<void(size_t agent, const std::string& why)> lost;
  };
  // Waits for a moment at most, or until `wake` can be read, and hands on what has come.
  // `silence`: who has not been heard of for so long is lost.
  void poll(const Sink& sink, int wake, std::chrono::milliseconds silence);
  bool is_lost(size_t agent) const { return agents_[agent].lost; }

 private:
  struct Agent {
    std::string name;
    Child child;
    LineReader out{1 << 24};
    LineReader err{1 << 16};
    std::string last_words;  // of the remote shell
    Clock::time_point heard = Clock::now();
    bool lost = false;
    bool mute = true;  // has never answered, and so has started nothing
  };
  void read(size_t index, const Sink& sink);
  void lose(size_t index, const Sink& sink, std::string why);
  void write(Agent& agent, const std::string& line);
  void keep_pinging(const std::stop_token& stop);

  std::chrono::milliseconds patience_;
  std::mutex mutex_;  // of writing to agents
  std::vector<Agent> agents_;
  std::jthread pings_;
};

}  // namespace ttpu::parallel
