// Chat templates, rendered byte for byte as transformers' apply_chat_template renders them.
#pragma once

#include <cstdint>
#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "ttpu/base/json.h"

struct TtpuTemplate;

namespace ttpu::text {

struct RenderOptions {
  Json tools;      // an array of tool schemas, or null
  Json documents;  // an array of objects, or null
  bool add_generation_prompt = false;
  // End the text inside the last message, for the model to go on from there. Not together with
  // add_generation_prompt. `continue_field` is the field of the message that is continued.
  bool continue_final_message = false;
  std::string continue_field = "content";
  // Further variables: bos_token, eos_token, enable_thinking and so on. An object, or null.
  Json variables;
  // The time that strftime_now sees (local time); the system's when unset.
  std::optional<std::tm> now;
  // What one rendering may use, beyond which it ends with kResourceExhausted. A step is an
  // operation of the template or 64 bytes of text that it makes; more than 16 million are never
  // granted.
  uint64_t max_steps = 4'000'000;
  size_t max_output_bytes = size_t{64} << 20;
};

// Cheap to copy; render() may run on several threads at once.
class ChatTemplate {
 public:
  // Jinja source. Throws kInvalidArgument with the line when it does not parse.
  explicit ChatTemplate(std::string source);

  // `messages` is an array of objects with "role" and "content". Throws kInvalidArgument, with the
  // template's own words where it calls raise_exception, and kResourceExhausted beyond the limits.
  std::string render(const Json& messages, const RenderOptions& options = {}) const;

  const std::string& source() const { return source_; }

 private:
  std::string source_;
  std::shared_ptr<const TtpuTemplate> handle_;
};

}  // namespace ttpu::text
