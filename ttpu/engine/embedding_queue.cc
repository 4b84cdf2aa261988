#include "ttpu/engine/embedding_queue.h"

#include <exception>
#include <set>
#include <utility>

#include "ttpu/base/error.h"
#include "ttpu/base/log.h"

namespace ttpu::engine {

EmbeddingQueue::EmbeddingQueue(Embedder& embedder)
    : embedder_(embedder), thread_([this] { run(); }) {}

EmbeddingQueue::~EmbeddingQueue() {
  {
    const std::scoped_lock lock(mutex_);
    stop_ = true;
  }
  woken_.notify_one();
  thread_.join();
}

int64_t EmbeddingQueue::submit(std::vector<std::vector<int32_t>> texts, Callback on_done) {
  require(!texts.empty(), "[embed] a request has no texts");
  for (const auto& text : texts) embedder_.check(text);
  int64_t id = 0;
  {
    const std::scoped_lock lock(mutex_);
    if (failed_) fail(Code::kUnavailable, "[embed] a step has failed; start the program again");
    id = next_id_++;
    Job& job = jobs_[id];
    job.vectors.resize(texts.size());
    job.left = texts.size();
    job.texts = std::move(texts);
    job.on_done = std::move(on_done);
    turns_.push_back(id);
    ++metrics_.requests;
  }
  woken_.notify_one();
  return id;
}

bool EmbeddingQueue::abort(int64_t request) {
  const std::scoped_lock lock(mutex_);
  if (jobs_.erase(request) == 0) return false;
  --metrics_.requests;
  return true;
}

void EmbeddingQueue::run() {
  while (true) {
    std::vector<Place> places;
    std::vector<std::vector<int32_t>> texts;
    {
      std::unique_lock lock(mutex_);
      woken_.wait(lock, [this] { return stop_ || !turns_.empty(); });
      if (stop_) return;
      fill(places, texts);
    }
    if (places.empty()) continue;
    Vectors vectors;
    try {
      vectors = embedder_.embed(texts);
    } catch (const std::exception& error) {
      spdlog::error("[embed] a step has failed: {}", error.what());
      fail_all(error.what());
      return;
    }
    for (const auto& text : texts) metrics_.tokens += static_cast<int64_t>(text.size());
    metrics_.texts += static_cast<int64_t>(texts.size());
    ++metrics_.steps;
    finish(places, std::move(vectors));
  }
}

void EmbeddingQueue::fill(std::vector<Place>& places, std::vector<std::vector<int32_t>>& texts) {
  int64_t tokens = 0;
  std::set<int64_t> requests;
  while (!turns_.empty() && static_cast<int64_t>(texts.size()) < embedder_.step_texts()) {
    const int64_t id = turns_.front();
    const auto found = jobs_.find(id);
    if (found == jobs_.end()) {  // it has been aborted
      turns_.pop_front();
      continue;
    }
    Job& job = found->second;
    std::vector<int32_t>& text = job.texts[job.next];
    tokens += static_cast<int64_t>(text.size());
    if (tokens > embedder_.step_tokens()) break;
    places.push_back({id, job.next++});
    texts.push_back(std::move(text));
    requests.insert(id);
    turns_.pop_front();
    if (job.next < job.texts.size()) turns_.push_back(id);
  }
  metrics_.running = static_cast<int64_t>(requests.size());
}

void EmbeddingQueue::finish(const std::vector<Place>& places, Vectors vectors) {
  std::vector<Job> ended;
  {
    const std::scoped_lock lock(mutex_);
    metrics_.running = 0;
    for (size_t i = 0; i < places.size(); ++i) {
      const auto found = jobs_.find(places[i].request);
      if (found == jobs_.end()) continue;
      Job& job = found->second;
      job.vectors[places[i].text] = std::move(vectors[i]);
      if (--job.left > 0) continue;
      ended.push_back(std::move(job));
      jobs_.erase(found);
      --metrics_.requests;
    }
  }
  for (Job& job : ended) job.on_done(std::move(job.vectors), nullptr);
}

void EmbeddingQueue::fail_all(const std::string& error) {
  std::unordered_map<int64_t, Job> jobs;
  {
    const std::scoped_lock lock(mutex_);
    failed_ = true;
    jobs.swap(jobs_);
    turns_.clear();
    metrics_.running = 0;
    metrics_.requests = 0;
  }
  for (auto& [id, job] : jobs) job.on_done({}, &error);
}

}  // namespace ttpu::engine
