// A member's side of the control plane: its connection to the coordinator.
#pragma once

#include <chrono>
#include <mutex>
#include <string>
#include <thread>

#include "ttpu/parallel/control/control_plane.h"
#include "ttpu/parallel/control/socket.h"
#include "ttpu/parallel/control/wire.h"

namespace ttpu::parallel {

class Link {
 public:
  // Tries until the coordinator answers; throws kDeadlineExceeded, kFailedPrecondition when it
  // sends this process away.
  Link(const ControlOptions& options, ControlPlane& plane);
  ~Link();
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  void send(const Frame& frame);
  // Wakes the thread: there is room again for what comes.
  void resume() const { waker_.wake(); }

 private:
  using Clock = std::chrono::steady_clock;
  void greet();
  void run();
  // False when the connection is over.
  bool read();

  const ControlOptions options_;
  ControlPlane& plane_;
  Descriptor socket_;
  Waker waker_;
  FrameReader reader_;
  std::mutex mutex_;  // of what follows
  std::string out_;
  bool closing_ = false;
  std::thread thread_;
};

}  // namespace ttpu::parallel
