// Stop strings in a text that comes in pieces.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace ttpu::text {

// Ends the text at the stop string that is completed first; of those that are completed by the same
// character, at the longest. Holds back only what may still become a stop string. Pieces may be cut
// anywhere. Linear in the text (Aho and Corasick, 1975).
class StopMatcher {
 public:
  // `include_stop` keeps the stop string in the text. Throws kInvalidArgument on an empty stop
  // string.
  explicit StopMatcher(const std::vector<std::string>& stops, bool include_stop = false);

  struct Result {
    std::string text;      // safe to show
    bool matched = false;  // a stop string was found: the text has ended
  };
  // After a match, everything further is dropped.
  Result push(std::string_view text);
  // What is held back, once no more text comes. The next push starts a new text.
  std::string flush();
  // The stop string that was found, or empty.
  const std::string& stop() const { return stop_; }

 private:
  // A state is a prefix of a stop string: the longest that the text so far ends with.
  struct State {
    std::vector<std::pair<unsigned char, size_t>> next;
    size_t fail = 0;
    size_t depth = 0;
    size_t longest_stop = 0;  // bytes of the longest stop string that ends here, 0 for none
  };
  size_t child(size_t state, unsigned char byte) const;
  size_t step(size_t state, unsigned char byte) const;
  void add(std::string_view stop);
  void link();

  bool include_stop_;
  std::vector<State> states_;
  size_t state_ = 0;
  std::string held_;
  std::string stop_;
};

}  // namespace ttpu::text
