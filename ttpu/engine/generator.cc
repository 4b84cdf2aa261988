#include "ttpu/engine/generator.h"

#include <algorithm>
#include <chrono>

#include "ttpu/base/error.h"
#include "ttpu/text/detokenizer.h"
#include "ttpu/text/stop_matcher.h"

namespace ttpu::engine {
namespace {

using Clock = std::chrono::steady_clock;

void add_ids(const Json& config, std::vector<int32_t>* ids) {
  const auto found = config.find("eos_token_id");
  if (found == config.end()) return;
  for (const Json& id : found->is_array() ? *found : Json::array({*found})) {
    if (id.is_number_integer()) ids->push_back(id.get<int32_t>());
  }
}

// What templates know as bos_token and eos_token: a string, or an object with `content`.
Json token_variables(const Json& tokenizer_config) {
  Json variables = Json::object();
  for (const char* name : {"bos_token", "eos_token", "unk_token", "pad_token"}) {
    const auto found = tokenizer_config.find(name);
    if (found == tokenizer_config.end()) continue;
    if (found->is_string()) variables[name] = *found;
    if (found->is_object() && found->contains("content")) variables[name] = (*found)["content"];
  }
  return variables;
}

}  // namespace

Generator::Generator(const std::filesystem::path& path, const ModelOptions& options)
    : files_(io::load_model_files(path)),
      tokenizer_(text::Tokenizer::from_source(files_.tokenizer)) {
  if (!files_.chat_template.empty()) template_.emplace(files_.chat_template);
  add_ids(files_.generation_config, &end_ids_);
  if (end_ids_.empty()) add_ids(files_.config, &end_ids_);
  model_ = std::make_unique<Model>(files_.config, path, options);
}

std::vector<int32_t> Generator::encode(const std::string& text) const {
  return tokenizer_.encode(text);
}

std::vector<int32_t> Generator::encode_chat(const Json& messages) const {
  if (!template_) {
    fail(Code::kFailedPrecondition,
         "[chat] the model has no chat template; use `ttpu generate` with plain text, or a model "
         "that is tuned for chat");
  }
  text::RenderOptions options;
  options.add_generation_prompt = true;
  options.variables = token_variables(files_.tokenizer_config);
  // The template writes the special tokens itself.
  return tokenizer_.encode(template_->render(messages, options), false);
}

bool Generator::is_end(int32_t token) const {
  return std::find(end_ids_.begin(), end_ids_.end(), token) != end_ids_.end();
}

std::span<float> Generator::prefill(const std::vector<int32_t>& prompt) {
  require(!prompt.empty(), "[generate] the prompt has no tokens; give some text");
  // At least one token has to be run for its logits.
  const size_t limit = std::min(cached_.size(), prompt.size() - 1);
  size_t common = 0;
  while (common < limit && cached_[common] == prompt[common]) ++common;
  model_->truncate(static_cast<int64_t>(common));
  cached_.resize(common);
  const std::span<float> logits = model_->append(std::span(prompt).subspan(common));
  cached_ = prompt;
  return logits;
}

GenerationResult Generator::generate(const GenerationRequest& request,
                                     const std::function<void(const std::string&)>& on_text,
                                     const std::atomic<bool>* cancelled) {
  Sampler sampler(request.sampling, request.prompt, model_->vocab());
  text::Detokenizer detokenizer(tokenizer_);
  text::StopMatcher matcher(request.stop);
  GenerationResult result;
  const auto emit = [&](const std::string& piece) {
    if (piece.empty()) return;
    result.text += piece;
    if (on_text) on_text(piece);
  };
  const auto start = Clock::now();
  std::span<float> logits = prefill(request.prompt);
  auto first = start;
  bool stopped = false;
  while (result.finish_reason.empty()) {
    Sampled sampled = sampler.sample(logits);
    if (result.token_ids.empty()) first = Clock::now();
    result.token_ids.push_back(sampled.token);
    if (request.sampling.logprobs > 0) result.steps.push_back(sampled);
    const bool end = is_end(sampled.token) && !request.sampling.ignore_eos;
    if (!end) {
      const auto match = matcher.push(detokenizer.push(sampled.token));
      emit(match.text);
      stopped = match.matched;
    }
    const auto count = static_cast<int64_t>(result.token_ids.size());
    if (end || stopped) {
      result.finish_reason = "stop";
    } else if (count >= request.sampling.max_tokens ||
               model_->length() >= model_->max_model_len()) {
      result.finish_reason = "length";
    } else if (cancelled != nullptr && cancelled->load()) {
      result.finish_reason = "cancelled";
    } else {
      logits = model_->append(std::span(&sampled.token, 1));
      cached_.push_back(sampled.token);
    }
  }
  if (!stopped) {
    const auto match = matcher.push(detokenizer.flush());
    emit(match.text);
    if (!match.matched) emit(matcher.flush());
  }
  result.first_token_seconds = std::chrono::duration<double>(first - start).count();
  result.decode_seconds = std::chrono::duration<double>(Clock::now() - first).count();
  return result;
}

}  // namespace ttpu::engine
