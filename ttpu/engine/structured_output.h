// What a request's grammar lets come next, along its answer.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "ttpu/engine/request.h"
#include "ttpu/text/grammar.h"

namespace ttpu::engine {

// Throws kInvalidArgument unless exactly one kind is given, and as GrammarCompiler::compile().
std::shared_ptr<const text::Grammar> compile_grammar(const text::GrammarCompiler& compiler,
                                                     const StructuredOutputsParams& params);

class Constraint {
 public:
  explicit Constraint(std::shared_ptr<const text::Grammar> grammar);

  // Ends guesses where the grammar refuses them; tokens that must come are guessed first.
  void propose(std::vector<int32_t>& drafts, size_t most);
  // Makes the masks of the next token and of those behind each draft. Does not throw: see error().
  void prepare(std::span<const int32_t> drafts);
  // Of what follows so many drafts, once prepared.
  std::span<const uint32_t> mask(size_t drafts) const { return masks_[drafts]; }
  // The answer goes on by a token. False when the grammar refuses it.
  bool accept(int32_t token);
  // The text is whole, and nothing can follow.
  bool ended() const { return matcher_.is_stopped(); }
  // Why it can go on no more; empty: it can.
  const std::string& error() const { return error_; }

 private:
  std::shared_ptr<const text::Grammar> grammar_;
  text::GrammarMatcher matcher_;
  std::vector<std::vector<uint32_t>> masks_;  // the first `prepared_` are those of now
  size_t prepared_ = 0;
  std::string error_;
};

// A few threads for the masks of a step; they start when there is first more than one to make.
class MaskWorkers {
 public:
  ~MaskWorkers();
  // Calls `work` for each index below `count`, on these threads and the caller's. It must not
  // throw.
  void run(size_t count, const std::function<void(size_t)>& work);

 private:
  void serve();
  void take(std::unique_lock<std::mutex>& lock);

  std::mutex mutex_;
  std::condition_variable wanted_, done_;
  const std::function<void(size_t)>* work_ = nullptr;
  size_t next_ = 0, count_ = 0, left_ = 0;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace ttpu::engine
