// Text from tokens as they come.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "ttpu/text/tokenizer.h"

struct TtpuDetokenizer;

namespace ttpu::text {

// The pieces of push() and flush(), joined, are Tokenizer::decode() of all ids; every piece is
// valid UTF-8. Each push costs the token's own length. Characters that are spread over several
// tokens come with the last of them; a run of `<0xXX>` tokens (byte fallback) comes when it ends,
// since one bad byte changes how all of it is read. Movable; one stream per object; not for several
// threads at once.
class Detokenizer {
 public:
  explicit Detokenizer(const Tokenizer& tokenizer, bool skip_special_tokens = true);

  // The new text, often empty. Throws kInvalidArgument on a negative id.
  std::string push(int32_t id);
  // What is still held back (an unfinished character as U+FFFD). The next push starts a new stream.
  std::string flush();

 private:
  struct Free {
    void operator()(TtpuDetokenizer* handle) const;
  };
  std::unique_ptr<TtpuDetokenizer, Free> handle_;
};

}  // namespace ttpu::text
