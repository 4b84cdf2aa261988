#include "ttpu/text/grammar.h"

#include <algorithm>
#include <list>

#include "ttpu/text/rust_call.h"

namespace ttpu::text {
namespace {

constexpr size_t kKept = 32;
constexpr const char* kPart = "grammar";

int32_t number_of(GrammarKind kind) {
  switch (kind) {
    case GrammarKind::kJsonSchema:
      return TTPU_GRAMMAR_JSON_SCHEMA;
    case GrammarKind::kRegex:
      return TTPU_GRAMMAR_REGEX;
    case GrammarKind::kChoices:
      return TTPU_GRAMMAR_CHOICES;
    case GrammarKind::kLark:
      return TTPU_GRAMMAR_LARK;
  }
  fail(Code::kInternal, "[grammar] kind {} has no number", static_cast<int>(kind));
}

const char* name_of(GrammarKind kind) {
  switch (kind) {
    case GrammarKind::kJsonSchema:
      return "the JSON schema";
    case GrammarKind::kRegex:
      return "the regular expression";
    case GrammarKind::kChoices:
      return "the list of choices";
    case GrammarKind::kLark:
      return "the grammar";
  }
  return "";
}

const uint32_t* as_words(std::span<const int32_t> tokens) {
  return reinterpret_cast<const uint32_t*>(tokens.data());
}

}  // namespace

void GrammarMatcher::Free::operator()(TtpuGrammar* handle) const { ttpu_grammar_free(handle); }

void GrammarMatcher::mask(std::span<uint32_t> words) {
  rust_call(kPart, [&](TtpuBytes* error) {
    return ttpu_grammar_mask(handle_.get(), words.data(), words.size(), error);
  });
}

size_t GrammarMatcher::accept(std::span<const int32_t> tokens) {
  size_t accepted = 0;
  rust_call(kPart, [&](TtpuBytes* error) {
    return ttpu_grammar_accept(handle_.get(), as_words(tokens), tokens.size(), &accepted, error);
  });
  return accepted;
}

size_t GrammarMatcher::validate(std::span<const int32_t> tokens) {
  size_t allowed = 0;
  rust_call(kPart, [&](TtpuBytes* error) {
    return ttpu_grammar_validate(handle_.get(), as_words(tokens), tokens.size(), &allowed, error);
  });
  return allowed;
}

void GrammarMatcher::rollback(size_t count) {
  rust_call(kPart,
            [&](TtpuBytes* error) { return ttpu_grammar_rollback(handle_.get(), count, error); });
}

std::vector<int32_t> GrammarMatcher::forced() {
  TtpuIds ids{};
  rust_call(kPart,
            [&](TtpuBytes* error) { return ttpu_grammar_forced(handle_.get(), &ids, error); });
  std::vector<int32_t> result(ids.data, ids.data + ids.len);
  ttpu_text_ids_free(ids);
  return result;
}

bool GrammarMatcher::is_stopped() const { return ttpu_grammar_is_stopped(handle_.get()); }

Grammar::Grammar(GrammarMatcher start, size_t words) : start_(std::move(start)) {
  first_mask_.resize(words);
  start_.mask(first_mask_);
}

GrammarMatcher Grammar::matcher() const {
  const std::scoped_lock lock(mutex_);
  TtpuGrammar* handle = nullptr;
  rust_call(kPart, [&](TtpuBytes* error) {
    return ttpu_grammar_clone(start_.handle_.get(), &handle, error);
  });
  return GrammarMatcher(handle);
}

struct GrammarCompiler::State {
  struct Free {
    void operator()(TtpuGrammarCompiler* handle) const { ttpu_grammar_compiler_free(handle); }
  };
  struct Kept {
    GrammarKind kind;
    std::string text;
    std::shared_ptr<const Grammar> grammar;
  };

  Tokenizer tokenizer;
  int64_t vocab;
  std::vector<int32_t> end_tokens;
  std::mutex compiler_mutex;
  std::unique_ptr<TtpuGrammarCompiler, Free> compiler;
  std::mutex kept_mutex;
  std::list<Kept> kept;  // the one that was asked for last, first

  const TtpuGrammarCompiler* get() {
    const std::scoped_lock lock(compiler_mutex);
    if (compiler == nullptr) {
      TtpuGrammarCompiler* handle = nullptr;
      rust_call(kPart, [&](TtpuBytes* error) {
        return ttpu_grammar_compiler_new(tokenizer.handle(), static_cast<size_t>(vocab),
                                         as_words(end_tokens), end_tokens.size(), &handle, error);
      });
      compiler.reset(handle);
    }
    return compiler.get();
  }

  std::shared_ptr<const Grammar> find(GrammarKind kind, const std::string& text) {
    const std::scoped_lock lock(kept_mutex);
    const auto found = std::find_if(kept.begin(), kept.end(), [&](const Kept& candidate) {
      return candidate.kind == kind && candidate.text == text;
    });
    if (found == kept.end()) return nullptr;
    kept.splice(kept.begin(), kept, found);
    return found->grammar;
  }

  void keep(GrammarKind kind, const std::string& text, std::shared_ptr<const Grammar> grammar) {
    const std::scoped_lock lock(kept_mutex);
    kept.push_front({kind, text, std::move(grammar)});
    if (kept.size() > kKept) kept.pop_back();
  }
};

GrammarCompiler::GrammarCompiler(Tokenizer tokenizer, int64_t vocab,
                                 std::vector<int32_t> end_tokens)
    : state_(new State{std::move(tokenizer), vocab, std::move(end_tokens), {}, {}, {}, {}}) {
  require(vocab > 0, "[grammar] the vocabulary has {} tokens", vocab);
}

GrammarCompiler::~GrammarCompiler() = default;

std::shared_ptr<const Grammar> GrammarCompiler::compile(GrammarKind kind,
                                                        const std::string& text) const {
  if (auto grammar = state_->find(kind, text)) return grammar;
  const TtpuGrammarCompiler* compiler = state_->get();
  TtpuGrammar* handle = nullptr;
  TtpuBytes message{};
  const int32_t status = ttpu_grammar_compile(compiler, number_of(kind), as_bytes(text),
                                              text.size(), &handle, &message);
  if (status != TTPU_TEXT_OK) {
    std::string why = take(message);
    std::replace(why.begin(), why.end(), '\0', ' ');
    fail(static_cast<Code>(status), "[grammar] {} cannot be used: {}; change or simplify it",
         name_of(kind), why);
  }
  GrammarMatcher start(handle);
  const auto words = static_cast<size_t>((state_->vocab + 31) / 32);
  std::shared_ptr<const Grammar> grammar(new Grammar(std::move(start), words));
  state_->keep(kind, text, grammar);
  return grammar;
}

}  // namespace ttpu::text
