// A loaded model as Python holds it, and answers that come in pieces. Knows nothing of Python.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "ttpu/engine/generator.h"

namespace ttpu::python {

// The arguments of from_pretrained.
struct LoadArguments {
  std::string backend;
  std::string task;
  std::string parallelism_strategy;
  std::string dtype;
  std::string device;
  int64_t max_model_len = 0;
};

// One answer at a time; a second caller waits for the first.
class Session {
 public:
  // Throws kUnimplemented for a value that names something else than what there is, and what
  // io::resolve_model and engine::Generator throw.
  Session(const std::string& name, const LoadArguments& arguments);

  std::vector<int32_t> encode(const std::string& text) const { return generator_.encode(text); }
  std::vector<int32_t> encode_chat(const Json& messages) const {
    return generator_.encode_chat(messages);
  }
  // Throws what engine::Engine::check does.
  void check(const engine::Request& request) { generator_.engine().check(request); }
  engine::GenerationResult generate(const engine::Request& request,
                                    const std::function<void(const std::string&)>& on_text,
                                    const std::atomic<bool>& cancelled);

 private:
  engine::Generator generator_;
  std::mutex mutex_;
};

// An answer on a thread of its own.
class Stream {
 public:
  using Duration = std::chrono::milliseconds;

  Stream(std::shared_ptr<Session> session, engine::Request request);
  ~Stream() { close(); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // Wait at most this long until next(), or result(), has something to give.
  bool wait_piece(Duration most);
  bool wait_end(Duration most);
  // Waits for a piece; nothing at the end, or after close(). Throws what the generation threw.
  std::optional<std::string> next();
  // Waits for the end. Throws what the generation threw.
  const engine::GenerationResult& result();
  // Cancels what still runs and waits for it.
  void close();
  const engine::Request& request() const { return request_; }

 private:
  void run();
  bool has_ended() const { return result_ || error_; }
  bool has_next() const { return !pieces_.empty() || has_ended() || cancelled_; }

  std::shared_ptr<Session> session_;
  engine::Request request_;
  std::atomic<bool> cancelled_ = false;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::string> pieces_;
  std::optional<engine::GenerationResult> result_;
  std::exception_ptr error_;
  std::thread worker_;  // last: starts when all else is there
};

}  // namespace ttpu::python
