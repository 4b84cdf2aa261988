// Tokenizers in the Hugging Face format (tokenizer.json), by the `tokenizers` library.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ttpu/io/tokenizer_source.h"

struct TtpuTokenizer;

namespace ttpu::text {

// Cheap to copy; all copies share one vocabulary. Const methods may run on several threads at once.
// Truncation and padding that a file asks for are ignored, as transformers ignores them.
class Tokenizer {
 public:
  // The contents of a tokenizer.json. Throws kInvalidArgument when malformed or without vocabulary.
  static Tokenizer from_json(std::string_view tokenizer_json);
  // What a model's files hold. Throws kNotFound as well, when they hold no tokenizer.
  static Tokenizer from_source(const io::TokenizerSource& source);
  // Throws kNotFound as well.
  static Tokenizer from_file(const std::filesystem::path& path);

  // `add_special_tokens` adds what the post-processor adds (for example a begin token). Special
  // tokens written out in the text are recognized either way. Throws kInvalidArgument, with the
  // offset of the byte, when the text is not UTF-8.
  std::vector<int32_t> encode(std::string_view text, bool add_special_tokens = true) const;
  // Always valid UTF-8. Ids outside the vocabulary give nothing; negative ones throw
  // kInvalidArgument.
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens = true) const;

  // Entries, added tokens included. The highest id may be above this where ids have gaps.
  int64_t vocab_size() const;
  std::optional<int32_t> token_to_id(std::string_view token) const;
  std::optional<std::string> id_to_token(int32_t id) const;
  bool is_special(int32_t id) const;

  const TtpuTokenizer* handle() const { return handle_.get(); }

 private:
  explicit Tokenizer(std::shared_ptr<const TtpuTokenizer> handle) : handle_(std::move(handle)) {}
  std::shared_ptr<const TtpuTokenizer> handle_;
};

}  // namespace ttpu::text
