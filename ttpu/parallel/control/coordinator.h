// The coordinator's side of the control plane, in process 0.
#pragma once

#include <chrono>
#include <condition_variable>
#include <list>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "ttpu/parallel/control/control_plane.h"
#include "ttpu/parallel/control/socket.h"
#include "ttpu/parallel/control/wire.h"

namespace ttpu::parallel {

class Coordinator {
 public:
  // `local` is process 0's own: it gets its answers without a socket.
  Coordinator(const ControlOptions& options, ControlPlane& local);
  ~Coordinator();
  Coordinator(const Coordinator&) = delete;
  Coordinator& operator=(const Coordinator&) = delete;

  // What process 0 sends.
  void take(Frame frame);
  void broadcast(std::string body);
  void fail_all(const std::string& why);

 private:
  using Clock = std::chrono::steady_clock;
  struct Peer {
    Descriptor socket;
    FrameReader reader;
    std::string out;
    Clock::time_point heard = Clock::now();
    bool left = false;  // said goodbye
  };
  struct Wait {
    int process;
    bool barrier;
    std::string name;
    Clock::time_point deadline;
  };

  void run();
  void accept_all();
  void greet(std::list<Peer>::iterator stranger);
  // What has come of a peer; false when that was no frame, and the peer is lost.
  bool handle_all(int process);
  void read_from(int process);
  void handle(int process, Frame frame);
  void enter_barrier(int process, const Frame& frame);
  void deliver(int process, Frame frame);
  void lose(int process, const std::string& how);
  void give_up(int process, const std::string& why);
  void spread(const std::string& why);
  void check_times();
  void expire(const Wait& wait);
  std::string missing(const std::string& barrier) const;
  size_t most_unsent() const;

  const ControlOptions options_;
  ControlPlane& local_;
  Descriptor listener_;
  Waker waker_;
  std::mutex mutex_;  // of what follows
  std::condition_variable drained_;
  std::vector<Peer> peers_;    // by process; that of process 0 stays unused
  std::list<Peer> strangers_;  // have not said who they are
  std::map<std::string, std::string> values_;
  std::map<std::string, std::set<int>> barriers_;
  std::list<Wait> waits_;
  Clock::time_point last_beat_ = Clock::now();
  std::string failure_;
  bool closing_ = false;
  std::thread thread_;
};

}  // namespace ttpu::parallel
