// A chat template of any bytes: refused with an Error, or rendered within the limits.
#include <cstddef>
#include <cstdint>

#include "ttpu/base/error.h"
#include "ttpu/text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const ttpu::Json messages = ttpu::parse_json(
      R"([{"role": "system", "content": "s"}, {"role": "user", "content": "é <b>"},
          {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f",
           "arguments": {"x": [1, 2.5, true]}}}]}])",
      "messages");
  ttpu::text::RenderOptions options;
  options.tools = messages[2]["tool_calls"];
  options.add_generation_prompt = true;
  options.variables = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
  options.max_steps = 100'000;
  options.max_output_bytes = size_t{1} << 20;
  try {
    const ttpu::text::ChatTemplate chat(std::string(reinterpret_cast<const char*>(data), size));
    static_cast<void>(chat.render(messages, options));
  } catch (const ttpu::Error&) {
    return 0;
  }
  return 0;
}
