// When the engine's thread begins.
#include "ttpu/server/engine_loop.h"

#include <chrono>
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <functional>
#include <mutex>

#include <gtest/gtest.h>

#include "tests/engine/support/answers.h"

namespace ttpu::server {
namespace {

// The server's thread: what is posted waits until the test runs it.
class Tasks {
 public:
  void post(std::function<void()> task) {
    const std::scoped_lock lock(mutex_);
    tasks_.push_back(std::move(task));
    woken_.notify_one();
  }
  // False when nothing came for a minute.
  bool run_one() {
    std::unique_lock lock(mutex_);
    if (!woken_.wait_for(lock, std::chrono::minutes(1), [this] { return !tasks_.empty(); })) {
      return false;
    }
    const std::function<void()> task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task();
    return true;
  }

 private:
  std::mutex mutex_;
  std::condition_variable woken_;
  std::deque<std::function<void()>> tasks_;
};

TEST(EngineLoop, RequestsThatComeTogetherStartInOneStep) {
  engine::EngineOptions options = engine::small_options({});
  options.max_num_seqs = 4;
  engine::Engine engine(std::filesystem::path(TTPU_SOURCE_DIR) / "tests/fixtures/models/llama",
                        options);
  Tasks tasks;
  const auto fail = [] { FAIL() << "the engine has failed"; };
  EngineLoop loop(
      engine, [&](std::function<void()> task) { tasks.post(std::move(task)); }, fail);
  constexpr int64_t kAnswer = 4;
  for (int32_t i = 0; i < 3; ++i) {
    engine::Request request;
    request.prompt = {5 + i, 6, 7};
    request.sampling.max_tokens = kAnswer;
    request.sampling.ignore_eos = true;
    loop.submit(std::move(request), [](const engine::RequestOutput&, const std::string*) {});
  }
  while (loop.live() > 0) ASSERT_TRUE(tasks.run_one());
  EXPECT_EQ(engine.metrics().finished, 3);
  EXPECT_EQ(engine.metrics().steps, kAnswer);
}

}  // namespace
}  // namespace ttpu::server
