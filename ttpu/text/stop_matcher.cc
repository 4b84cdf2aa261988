#include "ttpu/text/stop_matcher.h"

#include <algorithm>
#include <utility>

#include "ttpu/base/error.h"

namespace ttpu::text {

StopMatcher::StopMatcher(const std::vector<std::string>& stops, bool include_stop)
    : include_stop_(include_stop), states_(1) {
  for (const std::string& stop : stops) {
    require(!stop.empty(), "[stop] a stop string is empty; leave it out");
    add(stop);
  }
  link();
}

size_t StopMatcher::child(size_t state, unsigned char byte) const {
  for (const auto& [label, target] : states_[state].next) {
    if (label == byte) return target;
  }
  return 0;
}

size_t StopMatcher::step(size_t state, unsigned char byte) const {
  while (true) {
    if (const size_t target = child(state, byte)) return target;
    if (state == 0) return 0;
    state = states_[state].fail;
  }
}

void StopMatcher::add(std::string_view stop) {
  size_t state = 0;
  for (const unsigned char byte : stop) {
    size_t target = child(state, byte);
    if (target == 0) {
      target = states_.size();
      states_.push_back({{}, 0, states_[state].depth + 1, 0});
      states_[state].next.emplace_back(byte, target);
    }
    state = target;
  }
  states_[state].longest_stop = stop.size();
}

// Breadth first: the failure link of a state is its longest proper suffix that is a state.
void StopMatcher::link() {
  std::vector<size_t> order = {0};
  for (size_t i = 0; i < order.size(); ++i) {
    for (const auto& [byte, target] : states_[order[i]].next) {
      State& state = states_[target];
      state.fail = order[i] == 0 ? 0 : step(states_[order[i]].fail, byte);
      state.longest_stop = std::max(state.longest_stop, states_[state.fail].longest_stop);
      order.push_back(target);
    }
  }
}

StopMatcher::Result StopMatcher::push(std::string_view text) {
  if (!stop_.empty()) return {"", true};
  if (states_.size() == 1) return {std::string(text), false};  // there are no stop strings
  for (size_t i = 0; i < text.size(); ++i) {
    state_ = step(state_, static_cast<unsigned char>(text[i]));
    const size_t stop_size = states_[state_].longest_stop;
    if (stop_size == 0) continue;
    held_ += text.substr(0, i + 1);
    stop_ = held_.substr(held_.size() - stop_size);
    if (!include_stop_) held_.resize(held_.size() - stop_size);
    return {std::exchange(held_, {}), true};
  }
  held_ += text;
  const size_t safe = held_.size() - states_[state_].depth;
  Result result{held_.substr(0, safe), false};
  held_.erase(0, safe);
  return result;
}

std::string StopMatcher::flush() {
  state_ = 0;
  stop_.clear();
  return std::exchange(held_, {});
}

}  // namespace ttpu::text
