// A tokenizer.json of any bytes: refused with an Error, or usable.
#include <cstddef>
#include <cstdint>

#include "ttpu/base/error.h"
#include "ttpu/text/detokenizer.h"
#include "ttpu/text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto tokenizer =
        ttpu::text::Tokenizer::from_json({reinterpret_cast<const char*>(data), size});
    const std::vector<int32_t> ids = tokenizer.encode("It's 42° 🤖 ▁x\n");
    ttpu::text::Detokenizer detokenizer(tokenizer, false);
    std::string streamed;
    for (const int32_t id : ids) streamed += detokenizer.push(id);
    streamed += detokenizer.flush();
    if (streamed != tokenizer.decode(ids, false)) __builtin_trap();
  } catch (const ttpu::Error&) {
    return 0;
  }
  return 0;
}
