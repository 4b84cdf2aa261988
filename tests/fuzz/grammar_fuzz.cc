// A grammar of any text: refused with the reason, or tokens that it allows are taken.
#include <array>
#include <cstddef>
#include <cstdint>

#include "ttpu/base/error.h"
#include "ttpu/base/json.h"
#include "ttpu/text/grammar.h"

namespace {

constexpr int64_t kVocab = 96;
constexpr int32_t kEnd = 95;

// A token for each printable letter.
ttpu::text::Tokenizer letters() {
  ttpu::Json vocab = ttpu::Json::object();
  for (int32_t i = 0; i < kEnd; ++i) {
    vocab[i == 0 ? "\u0120" : std::string(1, static_cast<char>(' ' + i))] = i;
  }
  return ttpu::text::Tokenizer::from_json(
      ttpu::Json({{"version", "1.0"},
                  {"added_tokens",
                   {{{"id", kEnd},
                     {"content", "<end>"},
                     {"special", true},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false}}}},
                  {"decoder",
                   {{"type", "ByteLevel"},
                    {"add_prefix_space", false},
                    {"trim_offsets", false},
                    {"use_regex", false}}},
                  {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", ttpu::Json::array()}}}})
          .dump());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using ttpu::text::GrammarKind;
  static const ttpu::text::GrammarCompiler compiler(letters(), kVocab, {kEnd});
  if (size == 0) return 0;
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    auto matcher = compiler.compile(static_cast<GrammarKind>(data[0] % 4), text)->matcher();
    std::array<uint32_t, kVocab / 32> mask{};
    for (int step = 0; step < 8 && !matcher.is_stopped(); ++step) {
      matcher.mask(mask);
      for (int32_t token = 0; token < kVocab; ++token) {
        if ((mask[static_cast<size_t>(token) / 32] >> (token % 32) & 1) == 0) continue;
        matcher.accept({&token, 1});
        break;
      }
    }
  } catch (const ttpu::Error&) {
  }
  return 0;
}
