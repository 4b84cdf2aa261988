#include "ttpu/server/engine_loop.h"

#include <chrono>
#include <exception>
#include <memory>

#include "ttpu/base/error.h"
#include "ttpu/base/log.h"

namespace ttpu::server {

EngineLoop::EngineLoop(engine::Engine& engine, Post post, std::function<void()> on_failure)
    : engine_(engine),
      post_(std::move(post)),
      on_failure_(std::move(on_failure)),
      thread_([this] { run(); }) {}

EngineLoop::~EngineLoop() {
  {
    const std::scoped_lock lock(mutex_);
    stop_ = true;
  }
  woken_.notify_one();
  thread_.join();
}

void EngineLoop::wake() {
  {
    const std::scoped_lock lock(mutex_);
    work_ = true;
  }
  woken_.notify_one();
}

// Requests that come together shall start in one step, not the first of them alone: an engine that
// has nothing to do is woken behind what the server has been sent meanwhile, as long as that
// brings requests.
void EngineLoop::wake_soon() {
  if (++arrived_ > 1) return;
  post_([this] { wake_behind(1); });
}

void EngineLoop::wake_behind(int64_t seen) {
  constexpr int64_t kMost = 64;
  if (arrived_ > seen && arrived_ < kMost) {
    return post_([this, now = arrived_] { wake_behind(now); });
  }
  arrived_ = 0;
  wake();
}

int64_t EngineLoop::submit(engine::Request request, Sink sink) {
  if (failed_) fail(Code::kUnavailable, "[server] the engine has failed; start the server again");
  const int64_t id =
      engine_.submit(std::move(request),
                     [this](const engine::RequestOutput& output) { outputs_.push_back(output); });
  // Outputs come by post(), and so after this.
  sinks_.emplace(id, std::move(sink));
  wake_soon();
  return id;
}

void EngineLoop::abort(int64_t id) {
  if (sinks_.erase(id) == 0) return;
  engine_.abort(id);
  wake();
}

void EngineLoop::run() {
  bool busy = false;
  while (true) {
    {
      std::unique_lock lock(mutex_);
      const auto woken = [this] { return work_ || stop_; };
      if (!busy && engine_.leads()) {
        woken_.wait_for(lock, std::chrono::seconds(1), woken);
      } else if (!busy) {
        woken_.wait(lock, woken);
      }
      work_ = false;
      if (stop_) return;
    }
    try {
      busy = engine_.step();
    } catch (const std::exception& error) {
      spdlog::error("[engine] a step has failed: {}", error.what());
      post_([this, message = std::string(error.what())] { fail_all(message); });
      return;
    }
    if (!outputs_.empty()) {
      // Shared, since a std::function must be copyable.
      auto batch = std::make_shared<std::vector<engine::RequestOutput>>(std::move(outputs_));
      outputs_.clear();
      post_([this, batch] { deliver(*batch); });
    }
  }
}

void EngineLoop::deliver(const std::vector<engine::RequestOutput>& outputs) {
  for (const engine::RequestOutput& output : outputs) {
    const auto found = sinks_.find(output.request);
    if (found == sinks_.end()) continue;
    // A sink may submit or abort, so that it must not be called in its place.
    if (output.finished) {
      const Sink sink = std::move(found->second);
      sinks_.erase(found);
      sink(output, nullptr);
    } else {
      const Sink sink = found->second;
      sink(output, nullptr);
    }
  }
}

void EngineLoop::fail_all(const std::string& error) {
  failed_ = true;
  auto sinks = std::move(sinks_);
  sinks_.clear();
  for (const auto& [id, sink] : sinks) sink({}, &error);
  on_failure_();
}

}  // namespace ttpu::server
