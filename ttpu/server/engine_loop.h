// The engine on a thread of its own, and its answers back on the server's.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "ttpu/engine/engine.h"

namespace ttpu::server {

// All but the constructor and the destructor is called on the server's thread, on which the sinks
// are called too.
class EngineLoop {
 public:
  // `error` is set once, in place of the output that would have ended the request.
  using Sink = std::function<void(const engine::RequestOutput& output, const std::string* error)>;
  using Post = std::function<void(std::function<void()>)>;

  // `post` runs a task on the server's thread; `on_failure` is told there when the engine has
  // failed for good, after all sinks have been.
  EngineLoop(engine::Engine& engine, Post post, std::function<void()> on_failure);
  ~EngineLoop();

  // Throws what Engine::check throws, and kUnavailable once the engine has failed.
  int64_t submit(engine::Request request, Sink sink);
  // Its sink is told nothing more.
  void abort(int64_t id);
  // Requests that have been submitted and have not ended.
  int64_t live() const { return static_cast<int64_t>(sinks_.size()); }
  const engine::Engine& engine() const { return engine_; }

 private:
  void run();
  void deliver(const std::vector<engine::RequestOutput>& outputs);
  void fail_all(const std::string& error);
  void wake();
  void wake_soon();
  void wake_behind(int64_t seen);

  engine::Engine& engine_;
  Post post_;
  std::function<void()> on_failure_;
  std::unordered_map<int64_t, Sink> sinks_;
  int64_t arrived_ = 0;  // requests since the engine was last woken for some
  bool failed_ = false;
  std::vector<engine::RequestOutput> outputs_;  // of the step; the engine's thread alone

  std::mutex mutex_;  // of what follows
  std::condition_variable woken_;
  bool work_ = false;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace ttpu::server
