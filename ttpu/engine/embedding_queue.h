// Embeddings for many clients at once: texts that wait share steps, one of each request in turn, so
// that a long list does not hold up a short one.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "ttpu/engine/embedder.h"

namespace ttpu::engine {

struct EmbeddingMetrics {
  std::atomic<int64_t> steps{0};
  std::atomic<int64_t> tokens{0};
  std::atomic<int64_t> texts{0};
  std::atomic<int64_t> requests{0};  // submitted and not ended
  std::atomic<int64_t> running{0};   // of them, with texts in the step that runs
};

// All may be called from any thread.
class EmbeddingQueue {
 public:
  using Vectors = std::vector<std::vector<float>>;  // one a text
  // Called once on the queue's thread: with the vectors, or with what has gone wrong.
  using Callback = std::function<void(Vectors vectors, const std::string* error)>;

  // Steps run on a thread of the queue's own.
  explicit EmbeddingQueue(Embedder& embedder);
  // Those that wait are told nothing.
  ~EmbeddingQueue();

  // At least one text. Throws as Embedder::check, and kUnavailable once a step has failed.
  int64_t submit(std::vector<std::vector<int32_t>> texts, Callback on_done);
  // False when it has ended, and its callback has been or is being called.
  bool abort(int64_t request);

  const EmbeddingMetrics& metrics() const { return metrics_; }

 private:
  struct Job {
    std::vector<std::vector<int32_t>> texts;
    Callback on_done;
    Vectors vectors;
    size_t next = 0;  // text that has not been in a step
    size_t left = 0;  // texts without a vector
  };
  struct Place {
    int64_t request = 0;
    size_t text = 0;
  };
  void run();
  // Takes texts from those that wait until a step is full.
  void fill(std::vector<Place>& places, std::vector<std::vector<int32_t>>& texts);
  void finish(const std::vector<Place>& places, Vectors vectors);
  void fail_all(const std::string& error);

  Embedder& embedder_;
  EmbeddingMetrics metrics_;
  std::mutex mutex_;  // of what follows
  std::condition_variable woken_;
  std::unordered_map<int64_t, Job> jobs_;
  std::deque<int64_t> turns_;  // who has texts that wait
  int64_t next_id_ = 1;
  bool failed_ = false;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace ttpu::engine
