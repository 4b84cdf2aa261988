#include "ttpu/engine/structured_output.h"

#include <algorithm>

#include "ttpu/base/error.h"
#include "ttpu/base/json.h"

namespace ttpu::engine {

std::shared_ptr<const text::Grammar> compile_grammar(const text::GrammarCompiler& compiler,
                                                     const StructuredOutputsParams& params) {
  using text::GrammarKind;
  const int kinds = (params.json ? 1 : 0) + (params.regex ? 1 : 0) +
                    (params.choice.empty() ? 0 : 1) + (params.grammar ? 1 : 0) +
                    (params.json_object ? 1 : 0);
  require(kinds == 1,
          "[structured outputs] {} of json, regex, choice, grammar and json_object are given, "
          "expected one",
          kinds);
  if (params.json) return compiler.compile(GrammarKind::kJsonSchema, *params.json);
  if (params.json_object) return compiler.compile(GrammarKind::kJsonSchema, R"({"type":"object"})");
  if (params.regex) return compiler.compile(GrammarKind::kRegex, *params.regex);
  if (params.grammar) return compiler.compile(GrammarKind::kLark, *params.grammar);
  for (const std::string& choice : params.choice) {
    require(!choice.empty(), "[structured outputs] a choice is empty");
  }
  const Json list = params.choice;
  return compiler.compile(GrammarKind::kChoices,
                          list.dump(-1, ' ', false, Json::error_handler_t::replace));
}

Constraint::Constraint(std::shared_ptr<const text::Grammar> grammar)
    : grammar_(std::move(grammar)), matcher_(grammar_->matcher()), masks_(1), prepared_(1) {
  masks_[0].assign(grammar_->first_mask().begin(), grammar_->first_mask().end());
}

void Constraint::propose(std::vector<int32_t>& drafts, size_t most) {
  try {
    std::vector<int32_t> forced = matcher_.forced();
    if (!forced.empty()) drafts = std::move(forced);
    if (drafts.size() > most) drafts.resize(most);
    drafts.resize(matcher_.validate(drafts));
  } catch (const Error& error) {
    drafts.clear();
    error_ = error.what();
  }
}

void Constraint::prepare(std::span<const int32_t> drafts) {
  try {
    if (masks_.size() < drafts.size() + 1) masks_.resize(drafts.size() + 1);
    size_t accepted = 0;
    for (size_t i = 0; i <= drafts.size(); ++i) {
      if (i >= prepared_) {
        masks_[i].resize(masks_[0].size());
        matcher_.mask(masks_[i]);
      }
      if (i < drafts.size()) accepted += matcher_.accept(drafts.subspan(i, 1));
    }
    prepared_ = 1;  // those behind drafts are of this step alone
    if (accepted > 0) matcher_.rollback(accepted);
  } catch (const Error& error) {
    error_ = error.what();
  }
}

bool Constraint::accept(int32_t token) {
  prepared_ = 0;
  try {
    return matcher_.accept({&token, 1}) == 1;
  } catch (const Error& error) {
    error_ = error.what();
    return false;
  }
}

MaskWorkers::~MaskWorkers() {
  {
    const std::scoped_lock lock(mutex_);
    stop_ = true;
  }
  wanted_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void MaskWorkers::run(size_t count, const std::function<void(size_t)>& work) {
  if (count == 0) return;
  if (count == 1) return work(0);
  if (threads_.empty()) {
    const unsigned helpers = std::clamp(std::thread::hardware_concurrency(), 2U, 8U) - 1;
    for (unsigned i = 0; i < helpers; ++i) threads_.emplace_back([this] { serve(); });
  }
  std::unique_lock lock(mutex_);
  work_ = &work;
  next_ = 0;
  count_ = left_ = count;
  wanted_.notify_all();
  take(lock);
  done_.wait(lock, [this] { return left_ == 0; });
  work_ = nullptr;
}

// Works until nothing is left to begin.
void MaskWorkers::take(std::unique_lock<std::mutex>& lock) {
  while (next_ < count_) {
    const size_t index = next_++;
    const auto& work = *work_;
    lock.unlock();
    work(index);
    lock.lock();
    if (--left_ == 0) done_.notify_all();
  }
}

void MaskWorkers::serve() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    take(lock);
    wanted_.wait(lock, [this] { return stop_ || next_ < count_; });
  }
}

}  // namespace ttpu::engine
