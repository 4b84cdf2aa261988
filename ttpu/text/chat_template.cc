#include "ttpu/text/chat_template.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>

#include "ttpu/text/rust_call.h"

namespace ttpu::text {
namespace {

constexpr std::string_view kWhitespace = " \t\n\r\f\v\x1c\x1d\x1e\x1f";
// The names under which reasoning is passed; the first is the one that templates read.
constexpr std::array<std::string_view, 3> kReasoningFields = {"reasoning_content", "thinking",
                                                              "reasoning"};
// What transformers puts at the end of the message to be continued, to find it in the text.
constexpr std::string_view kContinueTag = "CONTINUE_FINAL_MESSAGE_TAG ";
constexpr std::string_view kContinueTagStripped = kContinueTag.substr(0, kContinueTag.size() - 1);

std::string_view rstrip(std::string_view text) {
  return text.substr(0, text.find_last_not_of(kWhitespace) + 1);
}

std::string_view strip(std::string_view text) {
  text = rstrip(text);
  return text.substr(std::min(text.size(), text.find_first_not_of(kWhitespace)));
}

struct Clock {
  std::tm time{};
  int microseconds = 0;
};

Clock make_clock(const std::optional<std::tm>& fixed) {
  if (fixed) return {*fixed, 0};
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const auto rest = now - std::chrono::floor<std::chrono::seconds>(now);
  Clock clock;
  localtime_r(&seconds, &clock.time);
  clock.microseconds = static_cast<int>(rest / std::chrono::microseconds(1));
  return clock;
}

// datetime.strftime of a time without a zone: %f are microseconds, %z and %Z print nothing.
std::string python_format(std::string_view format, const Clock& clock) {
  std::string result;
  for (size_t i = 0; i < format.size(); ++i) {
    const char next = format[i] == '%' && i + 1 < format.size() ? format[i + 1] : '\0';
    if (next == 'f') result += fmt::format("{:06}", clock.microseconds);
    if (next != 'f' && next != 'z' && next != 'Z') result += format[i];
    if (next == '%') result += next;
    if (next == 'f' || next == 'z' || next == 'Z' || next == '%') ++i;
  }
  return result;
}

uintptr_t strftime_callback(const void* context, const uint8_t* format, uintptr_t size,
                            uint8_t* out, uintptr_t capacity) {
  const auto& clock = *static_cast<const Clock*>(context);
  const std::string text = python_format({reinterpret_cast<const char*>(format), size}, clock);
  return std::strftime(reinterpret_cast<char*>(out), capacity, text.c_str(), &clock.time);
}

// Fills "reasoning_content" from its older names and "thinking" for templates that read that.
Json alias_reasoning(const Json& message) {
  for (const std::string_view field : kReasoningFields) {
    const auto found = message.find(field);
    if (found == message.end() || found->is_null()) continue;
    Json result = Json::object();
    result["thinking"] = *found;
    for (const auto& [key, value] : message.items()) result[key] = value;
    result["reasoning_content"] = *found;
    return result;
  }
  return message;
}

Json checked_messages(const Json& messages) {
  require(messages.is_array(), "[chat_template] messages are {}, expected an array of objects",
          messages.type_name());
  Json result = Json::array();
  for (const Json& message : messages) {
    require(message.is_object(), "[chat_template] message {} is {}, expected an object",
            result.size(), message.type_name());
    result.push_back(alias_reasoning(message));
  }
  return result;
}

// The text of the last message that is to be continued; the tag is put behind it.
std::string tag_final_message(Json& messages, const std::string& field, const std::string& source) {
  require(!messages.empty(), "[chat_template] no message to continue: the conversation is empty");
  Json& last = messages.back();
  const auto value = last.find(field);
  require(value != last.end() && !value->is_null(),
          "[chat_template] the last message has no \"{}\" to continue", field);
  const Json text = *value;
  std::vector<std::string> fields = {field};
  if (std::ranges::find(kReasoningFields, field) != kReasoningFields.end()) {
    fields.clear();
    for (const std::string_view name : kReasoningFields) {
      if (last.contains(name) && last[std::string(name)] == text) fields.emplace_back(name);
    }
  }
  require(std::ranges::any_of(
              fields, [&](const auto& name) { return source.find(name) != std::string::npos; }),
          "[chat_template] the template does not read \"{}\", so it cannot be continued", field);
  if (text.is_string()) {
    for (const std::string& name : fields) {
      last[name] = text.get<std::string>() + std::string(kContinueTag);
    }
    return text;
  }
  if (text.is_array()) {
    for (size_t i = text.size(); i-- > 0;) {
      Json& block = last[field][i];
      if (!block.is_object() || !block.contains("text") || !block["text"].is_string()) continue;
      std::string result = block["text"];
      block["text"] = result + std::string(kContinueTag);
      return result;
    }
  }
  fail(Code::kInvalidArgument, "[chat_template] the last message has no text in \"{}\" to continue",
       field);
}

// Ends the rendered text where the tag stands.
std::string cut_at_tag(const std::string& rendered, std::string_view final_text) {
  const size_t tag = rendered.rfind(kContinueTagStripped);
  require(tag != std::string::npos && rendered.find(strip(final_text)) != std::string::npos,
          "[chat_template] the template does not show the last message as it is, so it cannot be "
          "continued");
  const std::string_view before = std::string_view(rendered).substr(0, tag);
  // A template that strips its messages strips the space of the tag, and then also what precedes
  // it.
  const bool kept = rendered.compare(tag, kContinueTag.size(), kContinueTag) == 0;
  return std::string(kept ? before : rstrip(before));
}

std::string dump(const Json& context) {
  try {
    return context.dump();
  } catch (const Json::type_error&) {
    fail(Code::kInvalidArgument, "[chat_template] a message or a variable is not valid UTF-8");
  }
}

}  // namespace

ChatTemplate::ChatTemplate(std::string source) : source_(std::move(source)) {
  TtpuTemplate* handle = nullptr;
  rust_call("chat_template", [&](TtpuBytes* error) {
    return ttpu_template_new(as_bytes(source_), source_.size(), &handle, error);
  });
  handle_ = {handle,
             [](const TtpuTemplate* p) { ttpu_template_free(const_cast<TtpuTemplate*>(p)); }};
}

std::string ChatTemplate::render(const Json& messages, const RenderOptions& options) const {
  require(!(options.continue_final_message && options.add_generation_prompt),
          "[chat_template] add_generation_prompt and continue_final_message exclude each other");
  require(options.variables.is_null() || options.variables.is_object(),
          "[chat_template] variables are {}, expected an object", options.variables.type_name());
  Json context = options.variables.is_object() ? options.variables : Json::object();
  Json chat = checked_messages(messages);
  std::string final_text;
  if (options.continue_final_message) {
    final_text = tag_final_message(chat, options.continue_field, source_);
  }
  context["messages"] = std::move(chat);
  context["tools"] = options.tools;
  context["documents"] = options.documents;
  context["add_generation_prompt"] = options.add_generation_prompt;

  const std::string json = dump(context);
  const Clock clock = make_clock(options.now);
  const TtpuRenderLimits limits{options.max_steps, options.max_output_bytes};
  TtpuBytes text{};
  rust_call("chat_template", [&](TtpuBytes* error) {
    return ttpu_template_render(handle_.get(), as_bytes(json), json.size(), strftime_callback,
                                &clock, limits, &text, error);
  });
  std::string rendered = take(text);
  return options.continue_final_message ? cut_at_tag(rendered, final_text) : rendered;
}

}  // namespace ttpu::text
