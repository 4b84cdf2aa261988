// How the processes of a job find and tell each other what no device can: a key-value store,
// barriers, and what process 0 says to all. Process 0 is the coordinator, the others connect to it.
// Whoever dies or is not heard of any more fails the job, and every call on every process says who.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ttpu/parallel/control/wire.h"

namespace ttpu::parallel {

// Where the processes meet first.
inline constexpr const char* kStartBarrier = "start";

struct ControlOptions {
  std::string coordinator;  // HOST:PORT of process 0
  int process = 0;
  int processes = 1;
  std::vector<std::string> hosts;                   // of each process, for errors; may be empty
  std::string job;                                  // processes of another job are sent away
  std::chrono::milliseconds start_timeout{300000};  // for all to come up
  std::chrono::milliseconds peer_timeout{15000};    // who is silent for so long is lost
};

// What `ttpu launch` has set: TTPU_COORDINATOR, TTPU_PROCESS_ID, TTPU_NUM_PROCESSES, TTPU_HOSTS,
// TTPU_JOB, TTPU_START_TIMEOUT and TTPU_PEER_TIMEOUT (seconds). None: this process is alone.
std::optional<ControlOptions> control_options_from_environment();
// "process 1 (host-b)"
std::string name_of(const ControlOptions& options, int process);

class Coordinator;
class Link;

class ControlPlane {
 public:
  // Returns when all processes are there. Throws kDeadlineExceeded naming those that are not.
  explicit ControlPlane(const ControlOptions& options);
  // Says goodbye; process 0 waits until what it has said has been sent.
  ~ControlPlane();
  ControlPlane(const ControlPlane&) = delete;
  ControlPlane& operator=(const ControlPlane&) = delete;

  int process() const { return options_.process; }
  int processes() const { return options_.processes; }
  // "process 1 (host-b)"
  std::string name(int process) const { return name_of(options_, process); }
  // This one too.
  int processes_on_this_host() const;

  // All calls: from any thread; throw kUnavailable when a process is lost, saying which.
  void set(std::string_view key, std::string value);
  // Waits until somebody has set it. Throws kDeadlineExceeded naming the key.
  std::string get(std::string_view key, std::chrono::milliseconds timeout);
  // Waits until all have called it with that name, which serves once. Throws kDeadlineExceeded
  // naming who is missing.
  void barrier(std::string_view name, std::chrono::milliseconds timeout);
  // From process 0 to all others, in order. Waits where they do not keep up.
  void broadcast(std::string bytes);
  // This process cannot go on: every call on every process throws, saying who gave up and why.
  void give_up(const std::string& why);
  // Throws kUnavailable when a process is lost.
  void check() const;
  // Calls that wait end with kUnavailable.
  void end();
  // The next that process 0 has said; nothing once it has said goodbye.
  std::optional<std::string> receive();

 private:
  friend class Coordinator;
  friend class Link;
  void on_frame(Frame frame);
  void fail_all(const std::string& why);
  void send(Frame frame);
  Frame ask(Frame frame);
  bool is_full() const;  // what was heard waits for receive()

  ControlOptions options_;
  mutable std::mutex mutex_;  // of what follows
  std::condition_variable changed_;
  std::map<std::string, std::deque<Frame>, std::less<>> answers_;
  std::deque<std::string> heard_;
  size_t heard_bytes_ = 0;
  std::string failure_;
  bool ended_ = false;  // goodbye was said
  // Last, since their threads use what is above.
  std::unique_ptr<Coordinator> coordinator_;  // of process 0
  std::unique_ptr<Link> link_;                // of the others
};

}  // namespace ttpu::parallel
