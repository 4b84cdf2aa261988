#include "ttpu/io/gguf_tokenizer.h"

#include <deque>
#include <optional>

#include "ttpu/base/error.h"
#include "ttpu/base/utf8.h"
#include "ttpu/io/gguf_pretokenizers.h"

namespace ttpu::io {
namespace {

constexpr std::string_view kMetaspace = "\u2581";  // SentencePiece's mark for a space
constexpr int64_t kNormal = 1;                     // token types of llama.cpp
constexpr int64_t kControl = 3;
constexpr int64_t kUserDefined = 4;

// The lists of the metadata, checked against each other.
struct Lists {
  std::vector<std::string_view> tokens;
  std::vector<float> scores;
  std::vector<int64_t> types;
};

Lists read_lists(const Gguf& gguf) {
  Lists lists;
  lists.tokens = gguf.get_strings("tokenizer.ggml.tokens");
  lists.scores = gguf.get_floats("tokenizer.ggml.scores");
  lists.types = gguf.get_ints("tokenizer.ggml.token_type");
  require(!lists.tokens.empty(),
          "[gguf] {} has no tokenizer.ggml.tokens; the file holds no "
          "tokenizer",
          gguf.what());
  require(lists.types.empty() || lists.types.size() == lists.tokens.size(),
          "[gguf] {} has {} tokens and {} token types; the file is damaged", gguf.what(),
          lists.tokens.size(), lists.types.size());
  require(lists.scores.empty() || lists.scores.size() == lists.tokens.size(),
          "[gguf] {} has {} tokens and {} scores; the file is damaged", gguf.what(),
          lists.tokens.size(), lists.scores.size());
  return lists;
}

Texts to_texts(const std::vector<std::string_view>& list) {
  Texts texts;
  size_t bytes = 0;
  for (const std::string_view text : list) bytes += text.size();
  texts.reserve(list.size(), bytes);
  for (const std::string_view text : list) texts.add(text);
  return texts;
}

std::optional<size_t> special_id(const Gguf& gguf, std::string_view name, size_t tokens) {
  const auto id = gguf.get_int(fmt::format("tokenizer.ggml.{}_token_id", name));
  if (!id) return std::nullopt;
  require(*id >= 0 && static_cast<size_t>(*id) < tokens,
          "[gguf] {} names {} as its {} token and has {} tokens", gguf.what(), *id, name, tokens);
  return static_cast<size_t>(*id);
}

Json added_tokens(const Lists& lists) {
  Json added = Json::array();
  for (size_t i = 0; i < lists.types.size(); ++i) {
    const int64_t type = lists.types[i];
    if ((type != kControl && type != kUserDefined) || lists.tokens[i].empty()) continue;
    added.push_back({{"id", i},
                     {"content", lists.tokens[i]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", type == kControl}});
  }
  return added;
}

bool adds_token(const Gguf& gguf, std::string_view which, bool fallback) {
  return gguf.get_bool(fmt::format("tokenizer.ggml.add_{}_token", which)).value_or(fallback);
}

bool default_add_bos(const Gguf& gguf) {
  if (gguf.get_string("tokenizer.ggml.model") == "llama") return true;
  return adds_bos_by_default(gguf.get_string("tokenizer.ggml.pre").value_or("default"));
}

// Puts the begin token before and the end token after a text, where the file says so.
Json post_processor(const Gguf& gguf, const Lists& lists) {
  Json single = Json::array();
  Json pair = Json::array();
  Json specials = Json::object();
  const auto add = [&](size_t id, int type_id, Json& list) {
    const std::string token(lists.tokens[id]);
    list.push_back({{"SpecialToken", {{"id", token}, {"type_id", type_id}}}});
    specials[token] = {{"id", token}, {"ids", Json::array({id})}, {"tokens", Json::array({token})}};
  };
  const auto bos = special_id(gguf, "bos", lists.tokens.size());
  const auto eos = special_id(gguf, "eos", lists.tokens.size());
  const bool begin = bos && adds_token(gguf, "bos", default_add_bos(gguf));
  const bool end = eos && adds_token(gguf, "eos", false);
  if (!begin && !end) return nullptr;
  for (const auto& [name, type_id] : {std::pair("A", 0), std::pair("B", 1)}) {
    if (begin && type_id == 0) add(*bos, type_id, single);
    if (begin) add(*bos, type_id, pair);
    const Json sequence = {{"Sequence", {{"id", name}, {"type_id", type_id}}}};
    if (type_id == 0) single.push_back(sequence);
    pair.push_back(sequence);
    if (end && type_id == 0) add(*eos, type_id, single);
    if (end) add(*eos, type_id, pair);
  }
  return {{"type", "TemplateProcessing"},
          {"single", single},
          {"pair", pair},
          {"special_tokens", specials}};
}

// A tokenizer.json, less the lists of its model.
std::string frame(const Json& added, const Json& normalizer, const Json& pre_tokenizer,
                  const Json& post, const Json& decoder, const Json& model) {
  const Json json = {
      {"version", "1.0"},       {"truncation", nullptr},    {"padding", nullptr},
      {"added_tokens", added},  {"normalizer", normalizer}, {"pre_tokenizer", pre_tokenizer},
      {"post_processor", post}, {"decoder", decoder},       {"model", model}};
  return json.dump();
}

Json bpe_model(const Json& unknown, bool fuse, bool byte_fallback, bool ignore_merges) {
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", unknown},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", fuse},
          {"byte_fallback", byte_fallback},
          {"ignore_merges", ignore_merges}};
}

TokenizerSource byte_level(const Gguf& gguf) {
  const Lists lists = read_lists(gguf);
  const PreTokenizer pre =
      pre_tokenizer_named(gguf.get_string("tokenizer.ggml.pre").value_or("default"), gguf.what());
  const Json decoder = {{"type", "ByteLevel"},
                        {"add_prefix_space", true},
                        {"trim_offsets", true},
                        {"use_regex", true}};
  TokenizerSource source;
  source.json = frame(added_tokens(lists), pre.normalizer, pre.json, post_processor(gguf, lists),
                      decoder, bpe_model(nullptr, false, false, pre.ignore_merges));
  source.tokens = to_texts(lists.tokens);
  source.merges = to_texts(gguf.get_strings("tokenizer.ggml.merges"));
  return source;
}

// Gemma's files spell runs of spaces as spaces; the tokenizer looks them up as metaspaces. The
// texts are kept in `respelled`.
void respell_spaces(Lists& lists, std::deque<std::string>& respelled) {
  for (size_t i = 0; i < lists.tokens.size(); ++i) {
    const std::string_view token = lists.tokens[i];
    if (token.empty() || token.find_first_not_of(' ') != std::string_view::npos) continue;
    std::string& text = respelled.emplace_back();
    for (size_t j = 0; j < token.size(); ++j) text += kMetaspace;
    lists.tokens[i] = text;
    if (!lists.types.empty()) lists.types[i] = kNormal;
  }
}

struct SentencePieceStyle {
  Json normalizer;
  Json pre_tokenizer;
  bool strip = false;  // the decoder drops the space that was put in front
};

SentencePieceStyle sentencepiece_style(const Gguf& gguf, bool gemma) {
  const bool prefix = gguf.get_bool("tokenizer.ggml.add_space_prefix").value_or(true);
  const Json replace = {
      {"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kMetaspace}};
  if (gemma) {
    return {replace,
            {{"type", "Split"},
             {"pattern", {{"String", " "}}},
             {"behavior", "MergedWithPrevious"},
             {"invert", false}},
            false};
  }
  if (gguf.architecture() == "phi3" && prefix) {
    const Json prepend = {{"type", "Prepend"}, {"prepend", kMetaspace}};
    return {{{"type", "Sequence"}, {"normalizers", {prepend, replace}}}, nullptr, true};
  }
  return {nullptr,
          {{"type", "Metaspace"},
           {"replacement", kMetaspace},
           {"prepend_scheme", prefix ? "first" : "never"},
           {"split", false}},
          prefix};
}

TokenizerSource sentencepiece(const Gguf& gguf) {
  const bool gemma = gguf.architecture().starts_with("gemma");
  Lists lists = read_lists(gguf);
  std::deque<std::string> respelled;
  if (gemma) respell_spaces(lists, respelled);
  TokenizerSource source;
  source.tokens = to_texts(lists.tokens);
  source.merges = to_texts(gguf.get_strings("tokenizer.ggml.merges"));
  if (source.merges.size() == 0) {
    require(gemma || !lists.scores.empty(),
            "[gguf] {} has neither tokenizer.ggml.merges nor tokenizer.ggml.scores; the file is "
            "incomplete",
            gguf.what());
    // Gemma's scores do not follow its merge order; the order of its tokens does.
    source.rule = gemma ? MergeRule::kInOrder : MergeRule::kScored;
    if (!gemma) source.scores = lists.scores;
  }
  const SentencePieceStyle style = sentencepiece_style(gguf, gemma);
  Json decoders = {{{"type", "Replace"}, {"pattern", {{"String", kMetaspace}}}, {"content", " "}},
                   {{"type", "ByteFallback"}},
                   {{"type", "Fuse"}}};
  if (style.strip) {
    decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  const auto unknown = special_id(gguf, "unknown", lists.tokens.size());
  source.json =
      frame(added_tokens(lists), style.normalizer, style.pre_tokenizer, post_processor(gguf, lists),
            {{"type", "Sequence"}, {"decoders", decoders}},
            bpe_model(unknown ? Json(lists.tokens[*unknown]) : Json(nullptr), true, true, false));
  return source;
}

}  // namespace

TokenizerSource gguf_tokenizer(const Gguf& gguf) {
  const std::string_view model = gguf.get_string("tokenizer.ggml.model").value_or("");
  try {
    if (model == "gpt2") return byte_level(gguf);
    if (model == "llama") return sentencepiece(gguf);
  } catch (const nlohmann::json::exception& error) {
    fail(Code::kInvalidArgument, "[gguf] the tokenizer of {} holds text that is not UTF-8: {}",
         gguf.what(), error.what());
  }
  fail(Code::kUnimplemented,
       "[gguf] {} has a tokenizer of the kind '{}'; known are: gpt2 llama. Put the model's "
       "tokenizer.json and safetensors into a folder and use that",
       gguf.what(), model);
}

Json gguf_tokenizer_config(const Gguf& gguf) {
  const std::vector<std::string_view> tokens = gguf.get_strings("tokenizer.ggml.tokens");
  Json config = Json::object();
  for (const auto& [field, name] :
       std::initializer_list<std::pair<const char*, const char*>>{{"bos_token", "bos"},
                                                                  {"eos_token", "eos"},
                                                                  {"unk_token", "unknown"},
                                                                  {"pad_token", "padding"}}) {
    const auto id = special_id(gguf, name, tokens.size());
    if (!id) continue;
    require(utf8_valid(tokens[*id]), "[gguf] the {} of {} is not UTF-8", field, gguf.what());
    config[field] = tokens[*id];
  }
  config["add_bos_token"] = adds_token(gguf, "bos", default_add_bos(gguf));
  config["add_eos_token"] = adds_token(gguf, "eos", false);
  if (const auto text = gguf.get_string("tokenizer.chat_template")) {
    require(utf8_valid(*text), "[gguf] the chat template of {} is not UTF-8", gguf.what());
    config["chat_template"] = *text;
  }
  return config;
}

}  // namespace ttpu::io
