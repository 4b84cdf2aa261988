#include "ttpu/text/tokenizer.h"

#include "ttpu/base/file.h"
#include "ttpu/text/rust_call.h"

namespace ttpu::text {

namespace {

// `make(TtpuTokenizer** out, TtpuBytes* error)` gives a status.
template <typename Make>
std::shared_ptr<const TtpuTokenizer> make_handle(Make&& make) {
  TtpuTokenizer* handle = nullptr;
  rust_call("tokenizer", [&](TtpuBytes* error) { return make(&handle, error); });
  return {handle,
          [](const TtpuTokenizer* p) { ttpu_tokenizer_free(const_cast<TtpuTokenizer*>(p)); }};
}

TtpuTexts to_rust(const io::Texts& texts) {
  return {as_bytes(texts.text), texts.text.size(), texts.ends.data(), texts.ends.size()};
}

int32_t to_rust(io::MergeRule rule) {
  switch (rule) {
    case io::MergeRule::kListed:
      return TTPU_MERGES_LISTED;
    case io::MergeRule::kScored:
      return TTPU_MERGES_SCORED;
    case io::MergeRule::kInOrder:
      return TTPU_MERGES_IN_ORDER;
  }
  fail(Code::kInternal, "[tokenizer] rule {} has no number", static_cast<int>(rule));
}

}  // namespace

Tokenizer Tokenizer::from_json(std::string_view tokenizer_json) {
  return Tokenizer(make_handle([&](TtpuTokenizer** out, TtpuBytes* error) {
    return ttpu_tokenizer_new(as_bytes(tokenizer_json), tokenizer_json.size(), out, error);
  }));
}

Tokenizer Tokenizer::from_source(const io::TokenizerSource& source) {
  if (source.json.empty()) {
    fail(Code::kNotFound,
         "[tokenizer] the model has no tokenizer.json (and no tokenizer in a GGUF file); fetch it "
         "from where the weights came from, or make it with transformers: "
         "AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER)");
  }
  if (source.tokens.size() == 0) return from_json(source.json);
  require(source.rule != io::MergeRule::kScored || source.scores.size() == source.tokens.size(),
          "[tokenizer] {} scores for {} tokens; expected one each", source.scores.size(),
          source.tokens.size());
  return Tokenizer(make_handle([&](TtpuTokenizer** out, TtpuBytes* error) {
    return ttpu_tokenizer_from_lists(as_bytes(source.json), source.json.size(),
                                     to_rust(source.tokens), to_rust(source.rule),
                                     to_rust(source.merges), source.scores.data(), out, error);
  }));
}

Tokenizer Tokenizer::from_file(const std::filesystem::path& path) {
  const std::string json = read_file(path);
  try {
    return from_json(json);
  } catch (const Error& error) {
    fail(error.code(), "{}: {}", path.string(), error.what());
  }
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  TtpuIds ids{};
  rust_call("tokenizer", [&](TtpuBytes* error) {
    return ttpu_tokenizer_encode(handle(), as_bytes(text), text.size(), add_special_tokens, &ids,
                                 error);
  });
  std::vector<int32_t> result(ids.data, ids.data + ids.len);
  ttpu_text_ids_free(ids);
  return result;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  for (const int32_t id : ids) require(id >= 0, "[tokenizer] decode: negative token id {}", id);
  TtpuBytes text{};
  rust_call("tokenizer", [&](TtpuBytes* error) {
    return ttpu_tokenizer_decode(handle(), reinterpret_cast<const uint32_t*>(ids.data()),
                                 ids.size(), skip_special_tokens, &text, error);
  });
  return take(text);
}

int64_t Tokenizer::vocab_size() const {
  return static_cast<int64_t>(ttpu_tokenizer_vocab_size(handle()));
}

std::optional<int32_t> Tokenizer::token_to_id(std::string_view token) const {
  const int64_t id = ttpu_tokenizer_token_to_id(handle(), as_bytes(token), token.size());
  if (id < 0) return std::nullopt;
  return static_cast<int32_t>(id);
}

std::optional<std::string> Tokenizer::id_to_token(int32_t id) const {
  TtpuBytes token{};
  if (id < 0 || !ttpu_tokenizer_id_to_token(handle(), static_cast<uint32_t>(id), &token)) {
    return std::nullopt;
  }
  return take(token);
}

bool Tokenizer::is_special(int32_t id) const {
  return id >= 0 && ttpu_tokenizer_is_special(handle(), static_cast<uint32_t>(id));
}

}  // namespace ttpu::text
