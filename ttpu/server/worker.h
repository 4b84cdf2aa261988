// A thread for work that would hold up the server's own.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace ttpu::server {

class Worker {
 public:
  Worker();
  // What has not begun is dropped.
  ~Worker();
  // Tasks run one after the other; they must not throw.
  void run(std::function<void()> task);

 private:
  void serve();

  std::mutex mutex_;
  std::condition_variable woken_;
  std::deque<std::function<void()>> tasks_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace ttpu::server
