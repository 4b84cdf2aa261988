// The body of a request of any bytes: refused with an error that can be said as JSON, or read.
#include <cstddef>
#include <cstdint>

#include "tests/server/testing.h"
#include "ttpu/base/error.h"
#include "ttpu/server/chat.h"
#include "ttpu/server/completions.h"
#include "ttpu/server/responses.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using ttpu::server::ModelFacts;
  static const ttpu::engine::TextProcessor texts = ttpu::server::word_texts();
  static const ModelFacts facts = ttpu::server::word_facts(texts);
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (auto* read :
       {ttpu::server::read_chat, ttpu::server::read_completion, ttpu::server::read_response}) {
    try {
      const auto format = read(ttpu::parse_json(text, "the body"), facts);
      static_cast<void>(format->request.engine_request(0));
    } catch (const ttpu::server::ApiError& error) {
      static_cast<void>(error.json().dump());
    } catch (const ttpu::Error& error) {
      static_cast<void>(ttpu::server::to_api_error(error));
    }
  }
  return 0;
}
