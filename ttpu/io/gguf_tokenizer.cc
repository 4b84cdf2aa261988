#include "ttpu/io/gguf_tokenizer.h"

#include <algorithm>
#include <map>
#include <optional>
#include <unordered_map>

#include "ttpu/base/error.h"
#include "ttpu/io/gguf_pretokenizers.h"

namespace ttpu::io {
namespace {

constexpr std::string_view kMetaspace = "\u2581";  // SentencePiece's mark for a space
constexpr int64_t kControl = 3;                    // token types of llama.cpp
constexpr int64_t kUserDefined = 4;

using Vocabulary = std::unordered_map<std::string_view, int64_t>;
using Merge = std::pair<std::string_view, std::string_view>;

// The lists of the metadata, checked against each other.
struct Lists {
  std::vector<std::string_view> tokens;
  std::vector<float> scores;
  std::vector<int64_t> types;
  std::vector<std::string> respelled;  // owns the text of the tokens that were changed
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

// JSON strings are written by hand: half a million of them go through here.
void append_json_string(std::string& out, std::string_view text, const Gguf& gguf) {
  out += '"';
  for (size_t i = 0; i < text.size();) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c >= 0x80) {
      const size_t length = utf8_length(text.substr(i));
      require(length != 0, "[gguf] a token of {} is not UTF-8; the file is damaged", gguf.what());
      out.append(text, i, length);
      i += length;
      continue;
    }
    if (c == '"' || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c < 0x20) {
      out += fmt::format("\\u{:04x}", c);
    } else {
      out += static_cast<char>(c);
    }
    ++i;
  }
  out += '"';
}

// Of equal tokens the last one wins, as in transformers.
Vocabulary make_vocabulary(const std::vector<std::string_view>& tokens) {
  Vocabulary vocabulary;
  vocabulary.reserve(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) vocabulary[tokens[i]] = static_cast<int64_t>(i);
  return vocabulary;
}

std::vector<Merge> listed_merges(const Gguf& gguf, const Vocabulary& vocabulary) {
  std::vector<Merge> merges;
  for (const std::string_view merge : gguf.get_strings("tokenizer.ggml.merges")) {
    const size_t space = merge.find(' ', 1);
    require(space != std::string_view::npos && space + 1 < merge.size(),
            "[gguf] the merge '{}' of {} is not two tokens; the file is damaged", merge,
            gguf.what());
    const Merge pair{merge.substr(0, space), merge.substr(space + 1)};
    const std::string joined = std::string(pair.first) + std::string(pair.second);
    require(vocabulary.contains(pair.first) && vocabulary.contains(pair.second) &&
                vocabulary.contains(joined),
            "[gguf] the merge '{}' of {} is of tokens that the vocabulary lacks; the file is "
            "damaged",
            merge, gguf.what());
    merges.push_back(pair);
  }
  return merges;
}

// A way to put a token together from two.
struct Candidate {
  Merge merge;
  float score;
  int64_t left_id;
  int64_t right_id;
  size_t left_length;  // in characters
  size_t right_length;
};

// generate_merges of transformers' tokenization_utils_base.py: every split of every token into two
// tokens, the best score first, then the longer left part, then the longer right part.
std::vector<Merge> recovered_merges(const Lists& lists, const Vocabulary& vocabulary,
                                    bool score_is_position) {
  constexpr size_t kMaxTokenBytes = 512;  // longer "tokens" are not worth their n * n cost
  std::vector<Candidate> all;
  for (size_t id = 0; id < lists.tokens.size(); ++id) {
    const std::string_view token = lists.tokens[id];
    // Positions keep distinct tokens in order; of equal ones Python's dict keeps the first place.
    if (token.size() > kMaxTokenBytes) continue;
    const auto last = static_cast<size_t>(vocabulary.at(token));
    if (last != id) continue;
    const size_t begin = all.size();
    const size_t characters = utf8_characters(token);
    size_t at = 0;
    for (size_t left = 1; left < characters; ++left) {
      at += utf8_length(token.substr(at));
      const auto first = vocabulary.find(token.substr(0, at));
      if (first == vocabulary.end()) continue;
      const auto second = vocabulary.find(token.substr(at));
      if (second == vocabulary.end()) continue;
      const float score = score_is_position ? -static_cast<float>(id) : lists.scores[id];
      all.push_back({{first->first, second->first},
                     score,
                     first->second,
                     second->second,
                     left,
                     characters - left});
    }
    std::sort(all.begin() + static_cast<ptrdiff_t>(begin), all.end(),
              [](const Candidate& a, const Candidate& b) {
                return std::pair(a.left_id, a.right_id) < std::pair(b.left_id, b.right_id);
              });
  }
  std::stable_sort(all.begin(), all.end(), [](const Candidate& a, const Candidate& b) {
    if (a.score != b.score) return a.score > b.score;
    return std::pair(a.left_length, a.right_length) > std::pair(b.left_length, b.right_length);
  });
  std::vector<Merge> merges;
  merges.reserve(all.size());
  for (const Candidate& candidate : all) merges.push_back(candidate.merge);
  return merges;
}

std::string vocabulary_json(const Lists& lists, const Vocabulary& vocabulary, const Gguf& gguf) {
  std::string text = "{";
  for (size_t i = 0; i < lists.tokens.size(); ++i) {
    if (vocabulary.at(lists.tokens[i]) != static_cast<int64_t>(i)) continue;
    if (text.size() > 1) text += ',';
    append_json_string(text, lists.tokens[i], gguf);
    text += fmt::format(":{}", i);
  }
  return text + "}";
}

std::string merges_json(const std::vector<Merge>& merges, const Gguf& gguf) {
  std::string text = "[";
  for (const auto& [left, right] : merges) {
    if (text.size() > 1) text += ',';
    text += '[';
    append_json_string(text, left, gguf);
    text += ',';
    append_json_string(text, right, gguf);
    text += ']';
  }
  return text + "]";
}

std::optional<size_t> special_id(const Gguf& gguf, std::string_view name, size_t tokens) {
  const auto id = gguf.get_int(fmt::format("tokenizer.ggml.{}_token_id", name));
  if (!id) return std::nullopt;
  require(*id >= 0 && static_cast<size_t>(*id) < tokens,
          "[gguf] {} names {} as its {} token and has {} tokens", gguf.what(), *id, name, tokens);
  return static_cast<size_t>(*id);
}

Json added_tokens(const Lists& lists, const Vocabulary& vocabulary) {
  Json added = Json::array();
  for (size_t i = 0; i < lists.types.size(); ++i) {
    const int64_t type = lists.types[i];
    if ((type != kControl && type != kUserDefined) || lists.tokens[i].empty()) continue;
    if (vocabulary.at(lists.tokens[i]) != static_cast<int64_t>(i)) continue;
    if (!lists.respelled.empty() && !lists.respelled[i].empty()) continue;
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

// The whole file, of which vocabulary and merges are ready as text.
std::string assemble(const Json& parts, const Json& model, const std::string& vocabulary,
                     const std::string& merges) {
  std::string model_text = model.dump();
  model_text.pop_back();
  model_text += ",\"vocab\":" + vocabulary + ",\"merges\":" + merges + "}";
  std::string text = parts.dump();
  text.pop_back();
  return text + ",\"model\":" + model_text + "}";
}

Json file_head(const Json& added, const Json& normalizer, const Json& pre_tokenizer,
               const Json& post, const Json& decoder) {
  return {{"version", "1.0"},       {"truncation", nullptr},    {"padding", nullptr},
          {"added_tokens", added},  {"normalizer", normalizer}, {"pre_tokenizer", pre_tokenizer},
          {"post_processor", post}, {"decoder", decoder}};
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

std::string byte_level_json(const Gguf& gguf) {
  const Lists lists = read_lists(gguf);
  const Vocabulary vocabulary = make_vocabulary(lists.tokens);
  const PreTokenizer pre =
      pre_tokenizer_named(gguf.get_string("tokenizer.ggml.pre").value_or("default"), gguf.what());
  const Json decoder = {{"type", "ByteLevel"},
                        {"add_prefix_space", true},
                        {"trim_offsets", true},
                        {"use_regex", true}};
  return assemble(file_head(added_tokens(lists, vocabulary), pre.normalizer, pre.json,
                            post_processor(gguf, lists), decoder),
                  bpe_model(nullptr, false, false, pre.ignore_merges),
                  vocabulary_json(lists, vocabulary, gguf),
                  merges_json(listed_merges(gguf, vocabulary), gguf));
}

// Gemma's files spell runs of spaces as spaces; the tokenizer looks them up as metaspaces.
void respell_spaces(Lists& lists) {
  lists.respelled.resize(lists.tokens.size());
  for (size_t i = 0; i < lists.tokens.size(); ++i) {
    const std::string_view token = lists.tokens[i];
    if (token.empty() || token.find_first_not_of(' ') != std::string_view::npos) continue;
    for (size_t j = 0; j < token.size(); ++j) lists.respelled[i] += kMetaspace;
    lists.tokens[i] = lists.respelled[i];
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

std::string sentencepiece_json(const Gguf& gguf) {
  const bool gemma = gguf.architecture().starts_with("gemma");
  Lists lists = read_lists(gguf);
  if (gemma) respell_spaces(lists);
  const Vocabulary vocabulary = make_vocabulary(lists.tokens);
  std::vector<Merge> merges = listed_merges(gguf, vocabulary);
  if (merges.empty()) {
    require(gemma || !lists.scores.empty(),
            "[gguf] {} has neither tokenizer.ggml.merges nor tokenizer.ggml.scores; the file is "
            "incomplete",
            gguf.what());
    // Gemma's scores do not follow its merge order; the order of its tokens does.
    merges = recovered_merges(lists, vocabulary, gemma);
  }
  const SentencePieceStyle style = sentencepiece_style(gguf, gemma);
  Json decoders = {{{"type", "Replace"}, {"pattern", {{"String", kMetaspace}}}, {"content", " "}},
                   {{"type", "ByteFallback"}},
                   {{"type", "Fuse"}}};
  if (style.strip) {
    decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  const auto unknown = special_id(gguf, "unknown", lists.tokens.size());
  return assemble(
      file_head(added_tokens(lists, vocabulary), style.normalizer, style.pre_tokenizer,
                post_processor(gguf, lists), {{"type", "Sequence"}, {"decoders", decoders}}),
      bpe_model(unknown ? Json(lists.tokens[*unknown]) : Json(nullptr), true, true, false),
      vocabulary_json(lists, vocabulary, gguf), merges_json(merges, gguf));
}

}  // namespace

std::string gguf_tokenizer_json(const Gguf& gguf) {
  const std::string_view model = gguf.get_string("tokenizer.ggml.model").value_or("");
  try {
    if (model == "gpt2") return byte_level_json(gguf);
    if (model == "llama") return sentencepiece_json(gguf);
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
