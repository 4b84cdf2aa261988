// Grammars over a tokenizer's tokens: which of them may come next, so that the text is what a JSON
// schema, a regular expression, a list of choices or a Lark grammar asks for. By `llguidance`; the
// syntax of each is its own (https://github.com/guidance-ai/llguidance/tree/main/docs).
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "ttpu/text/tokenizer.h"

struct TtpuGrammar;
struct TtpuGrammarCompiler;

namespace ttpu::text {

enum class GrammarKind {
  kJsonSchema,  // JSON text
  kRegex,       // the whole text matches it
  kChoices,     // a JSON list of texts, one of which it is
  kLark,
};

// A text on its way through a grammar. Movable; not for several threads at once.
class GrammarMatcher {
 public:
  // A bit a token, the first in the lowest bit of the first word: those that may come next. Where
  // the text is whole, the tokens that end it are among them; alone when nothing can follow. Throws
  // kInvalidArgument when the grammar takes more work than a step may.
  void mask(std::span<uint32_t> words);
  // Goes on by tokens until one is not allowed; gives how many were.
  size_t accept(std::span<const int32_t> tokens);
  // How many accept() would take.
  size_t validate(std::span<const int32_t> tokens);
  // Takes back the last `count` accepted tokens.
  void rollback(size_t count);
  // Tokens that must come next; often none.
  std::vector<int32_t> forced();
  // The text is whole, and nothing can follow.
  bool is_stopped() const;

 private:
  friend class Grammar;
  friend class GrammarCompiler;
  struct Free {
    void operator()(TtpuGrammar* handle) const;
  };
  explicit GrammarMatcher(TtpuGrammar* handle) : handle_(handle) {}
  std::unique_ptr<TtpuGrammar, Free> handle_;
};

// A compiled grammar, for any number of texts and threads.
class Grammar {
 public:
  GrammarMatcher matcher() const;
  // What matcher() allows at the start.
  std::span<const uint32_t> first_mask() const { return first_mask_; }

 private:
  friend class GrammarCompiler;
  Grammar(GrammarMatcher start, size_t words);
  mutable std::mutex mutex_;
  GrammarMatcher start_;
  std::vector<uint32_t> first_mask_;
};

// Compiles grammars for a tokenizer. Const methods may run on several threads at once.
class GrammarCompiler {
 public:
  // `vocab`: tokens that have logits. `end_tokens` end a text. What takes long (the vocabulary as a
  // tree) is made by the first compile().
  GrammarCompiler(Tokenizer tokenizer, int64_t vocab, std::vector<int32_t> end_tokens);
  ~GrammarCompiler();

  // The last few are kept, and given again for the same text. Throws kInvalidArgument for what does
  // not parse, cannot be met, or takes too much to compile, with the reason; and for tokenizers
  // whose tokens are not pieces of text.
  std::shared_ptr<const Grammar> compile(GrammarKind kind, const std::string& text) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ttpu::text
