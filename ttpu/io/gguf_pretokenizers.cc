#include "ttpu/io/gguf_pretokenizers.h"

#include <array>
#include <cstdint>

#include "ttpu/base/error.h"

namespace ttpu::io {
namespace {

// The expressions are those of the models' own tokenizer.json files; llama.cpp's llama-vocab.cpp
// pairs them with names.
constexpr std::string_view kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kGpt4o =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kDeepSeek3Words =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kDeepSeek3Han = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+";

// DeepSeek's first tokenizers: cased letters, punctuation, Chinese and Korean. Where the models'
// own files spell out the cased letters, here is their property.
constexpr std::string_view kDeepSeekLetters = R"(\s?[\p{Lu}\p{Ll}\p{Lt}]+)";
constexpr std::string_view kDeepSeekMarks =
    "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+";
constexpr std::string_view kDeepSeekHan = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+";

enum class Kind {
  kByteLevel,
  kDigits,
  kLlama3,
  kQwen2,
  kTekken,
  kGpt4o,
  kDeepSeekLlm,
  kDeepSeekCoder,
  kDeepSeek3,
};

struct Entry {
  std::string_view name;
  Kind kind;
};
constexpr std::array kEntries = {
    Entry{"default", Kind::kByteLevel},
    Entry{"gpt-2", Kind::kByteLevel},
    Entry{"gpt2", Kind::kByteLevel},
    Entry{"phi-2", Kind::kByteLevel},
    Entry{"olmo", Kind::kByteLevel},
    Entry{"mpt", Kind::kByteLevel},
    Entry{"jais", Kind::kByteLevel},
    Entry{"trillion", Kind::kByteLevel},
    Entry{"granite-docling", Kind::kByteLevel},
    Entry{"smollm", Kind::kDigits},
    Entry{"starcoder", Kind::kDigits},
    Entry{"refact", Kind::kDigits},
    Entry{"command-r", Kind::kDigits},
    Entry{"codeshell", Kind::kDigits},
    Entry{"exaone", Kind::kDigits},
    Entry{"minerva-7b", Kind::kDigits},
    Entry{"llama-bpe", Kind::kLlama3},
    Entry{"llama3", Kind::kLlama3},
    Entry{"llama-v3", Kind::kLlama3},
    Entry{"falcon3", Kind::kLlama3},
    Entry{"falcon-h1", Kind::kLlama3},
    Entry{"pixtral", Kind::kLlama3},
    Entry{"lfm2", Kind::kLlama3},
    Entry{"dbrx", Kind::kLlama3},
    Entry{"smaug-bpe", Kind::kLlama3},
    Entry{"qwen2", Kind::kQwen2},
    Entry{"stablelm2", Kind::kQwen2},
    Entry{"hunyuan", Kind::kQwen2},
    Entry{"deepseek-r1-qwen", Kind::kQwen2},
    Entry{"megrez", Kind::kQwen2},
    Entry{"tekken", Kind::kTekken},
    Entry{"gpt-4o", Kind::kGpt4o},
    Entry{"llama4", Kind::kGpt4o},
    Entry{"deepseek-llm", Kind::kDeepSeekLlm},
    Entry{"deepseek-coder", Kind::kDeepSeekCoder},
    Entry{"deepseek-v3", Kind::kDeepSeek3},
    Entry{"hunyuan-dense", Kind::kDeepSeek3},
};

Json byte_level(bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

Json split(std::string_view expression) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", expression}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}

Json digits() { return {{"type", "Digits"}, {"individual_digits", true}}; }

Json sequence(std::initializer_list<Json> parts) {
  Json list = Json::array();
  for (const Json& part : parts) list.push_back(part);
  return {{"type", "Sequence"}, {"pretokenizers", list}};
}

const Entry* find_entry(std::string_view name) {
  for (const Entry& entry : kEntries) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

// The Llama 3 tokenizers proper, not all that split as they do.
bool is_llama3(std::string_view name) {
  return name == "llama-bpe" || name == "llama3" || name == "llama-v3" || name == "falcon3" ||
         name == "falcon-h1" || name == "pixtral" || name == "lfm2";
}

}  // namespace

PreTokenizer pre_tokenizer_named(std::string_view name, const std::string& what) {
  const Entry* entry = find_entry(name);
  if (entry == nullptr) {
    std::string known;
    for (const Entry& each : kEntries) known += fmt::format(" {}", each.name);
    fail(Code::kUnimplemented,
         "[gguf] {} splits its text as '{}', which is not known here; known are:{}. Put the "
         "model's tokenizer.json and safetensors into a folder and use that",
         what, name, known);
  }
  PreTokenizer result;
  result.ignore_merges = is_llama3(name) || entry->kind == Kind::kTekken;
  switch (entry->kind) {
    case Kind::kByteLevel:
      result.json = byte_level(true);
      break;
    case Kind::kDigits:  // each digit by itself
      result.json = sequence({digits(), byte_level(true)});
      break;
    case Kind::kLlama3:
      result.json = sequence({split(kLlama3), byte_level(false)});
      break;
    case Kind::kQwen2:
      result.json = sequence({split(kQwen2), byte_level(false)});
      result.normalizer = {{"type", "NFC"}};
      break;
    case Kind::kTekken:
      result.json = sequence({split(kTekken), byte_level(false)});
      break;
    case Kind::kGpt4o:
      result.json = sequence({split(kGpt4o), byte_level(false)});
      break;
    case Kind::kDeepSeekLlm:
      result.json = sequence({split("[\r\n]"), split(kDeepSeekLetters), split(kDeepSeekMarks),
                              split(R"(\s+$)"), split(kDeepSeekHan), digits(), byte_level(false)});
      break;
    case Kind::kDeepSeekCoder:
      result.json = sequence({split("[\r\n]"), split(R"(\s?\p{L}+)"), split(R"(\s?\p{P}+)"),
                              split(kDeepSeekHan), digits(), byte_level(false)});
      break;
    case Kind::kDeepSeek3:
      result.json = sequence({split(R"(\p{N}{1,3})"), split(kDeepSeek3Han), split(kDeepSeek3Words),
                              byte_level(false)});
      break;
  }
  return result;
}

bool adds_bos_by_default(std::string_view name) { return is_llama3(name) || name == "tekken"; }

}  // namespace ttpu::io
