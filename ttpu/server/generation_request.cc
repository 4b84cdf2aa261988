#include "ttpu/server/generation_request.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <random>
#include <utility>

#include "ttpu/server/structured.h"

namespace ttpu::server {
namespace {

constexpr int64_t kMostChoices = 128;
constexpr size_t kMostStops = 64;

template <typename T, typename U>
void set(T& place, const std::optional<U>& value) {
  if (value) place = *value;
}

void read_logit_bias(Fields& fields, engine::SamplingParams& sampling) {
  const Json* biases = fields.object("logit_bias");
  if (biases == nullptr) return;
  for (const auto& [name, value] : biases->items()) {
    int32_t token = -1;
    const char* end = name.data() + name.size();
    const auto [stop, error] = std::from_chars(name.data(), end, token);
    if (error != std::errc() || stop != end || token < 0) {
      fields.wrong("logit_bias", "has a key that is not the number of a token");
    }
    if (!value.is_number() || !(std::abs(value.get<double>()) <= 100)) {
      fields.wrong("logit_bias", "has a bias that is not a number from -100 to 100");
    }
    sampling.logit_bias.emplace_back(token, value.get<float>());
  }
}

// A word is banned at the start of a word and inside one, as vLLM has it.
void read_bad_words(Fields& fields, const text::Tokenizer& tokenizer,
                    engine::SamplingParams& sampling) {
  const auto words = fields.strings("bad_words");
  if (!words) return;
  for (const std::string& word : *words) {
    const std::string bare = word.substr(std::min(word.find_first_not_of(' '), word.size()));
    if (bare.empty()) fields.wrong("bad_words", "has an empty word");
    const auto inside = tokenizer.encode(bare, false);
    const auto start = tokenizer.encode(" " + bare, false);
    if (!inside.empty()) sampling.bad_words.push_back(inside);
    if (!start.empty() && start != inside) sampling.bad_words.push_back(start);
  }
}

void read_stream(Fields& fields, GenerationRequest& request) {
  set(request.stream, fields.boolean("stream"));
  auto options = fields.child("stream_options");
  if (!options) return;
  if (!request.stream) fields.wrong("stream_options", "is given, and `stream` is not true");
  set(request.include_usage, options->boolean("include_usage"));
  set(request.continuous_usage, options->boolean("continuous_usage_stats"));
  options->ignore({"include_obfuscation"});
  options->finish();
}

}  // namespace

engine::Request GenerationRequest::engine_request(size_t choice) const {
  engine::Request out;
  out.prompt = prompts[choice / static_cast<size_t>(n)];
  out.sampling = sampling;
  thread_local std::mt19937_64 random{std::random_device{}()};
  out.sampling.seed = seed ? *seed + choice % static_cast<size_t>(n) : random();
  out.priority = priority;
  out.cache_salt = cache_salt;
  out.grammar = grammar;
  return out;
}

engine::SamplingParams default_sampling(const Json& generation_config) {
  engine::SamplingParams sampling;
  sampling.temperature = 1;
  if (!generation_config.is_object()) return sampling;
  const JsonView config(generation_config, "generation_config.json");
  // Greedy models say do_sample: false and may leave a temperature that is not meant.
  if (!config.get_or("do_sample", config.has("temperature"))) return sampling;
  sampling.temperature = config.get_or("temperature", 1.0);
  sampling.top_p = config.get_or("top_p", 1.0);
  sampling.min_p = config.get_or("min_p", 0.0);
  sampling.top_k = config.get_or("top_k", int64_t{0});
  sampling.repetition_penalty = config.get_or("repetition_penalty", 1.0);
  return sampling;
}

std::string read_model(Fields& fields, const ModelFacts& facts) {
  const auto model = fields.string("model");
  if (!model) return facts.names.front();
  if (std::find(facts.names.begin(), facts.names.end(), *model) != facts.names.end()) return *model;
  throw ApiError(404,
                 fmt::format("the model `{}` is not served here; this server has `{}`", *model,
                             fmt::join(facts.names, "`, `")),
                 "model", "model_not_found");
}

void read_common(Fields& fields, const ModelFacts& facts, GenerationRequest& request) {
  engine::SamplingParams& sampling = request.sampling = facts.defaults;
  set(sampling.temperature, fields.number("temperature"));
  set(sampling.top_p, fields.number("top_p"));
  set(sampling.top_k, fields.integer("top_k"));
  set(sampling.min_p, fields.number("min_p"));
  set(sampling.presence_penalty, fields.number("presence_penalty"));
  set(sampling.frequency_penalty, fields.number("frequency_penalty"));
  set(sampling.repetition_penalty, fields.number("repetition_penalty"));
  set(sampling.min_tokens, fields.integer("min_tokens"));
  set(sampling.ignore_eos, fields.boolean("ignore_eos"));
  set(sampling.stop, fields.strings("stop"));
  if (sampling.stop.size() > kMostStops) {
    fields.wrong("stop", fmt::format("has more than {} strings", kMostStops));
  }
  if (std::count(sampling.stop.begin(), sampling.stop.end(), "") > 0) {
    fields.wrong("stop", "has an empty string");
  }
  set(sampling.stop_token_ids, fields.tokens("stop_token_ids"));
  set(sampling.include_stop_str_in_output, fields.boolean("include_stop_str_in_output"));
  set(sampling.skip_special_tokens, fields.boolean("skip_special_tokens"));
  set(sampling.prompt_logprobs, fields.integer("prompt_logprobs"));
  if (sampling.prompt_logprobs < -1) fields.wrong("prompt_logprobs", "is negative");
  read_logit_bias(fields, sampling);
  read_bad_words(fields, facts.text->tokenizer(), sampling);
  if (const auto seed = fields.integer("seed")) request.seed = static_cast<uint64_t>(*seed);
  set(request.n, fields.integer("n"));
  if (request.n < 1 || request.n > kMostChoices) {
    fields.wrong("n", fmt::format("is {}, expected 1 to {}", request.n, kMostChoices));
  }
  read_structured_outputs(fields, sampling);
  read_stream(fields, request);
  set(request.return_token_ids, fields.boolean("return_token_ids"));
  set(request.priority, fields.integer("priority"));
  set(request.cache_salt, fields.string("cache_salt"));
  fields.ignore({"user", "metadata", "store", "service_tier", "safety_identifier",
                 "prompt_cache_key", "prompt_cache_retention", "request_id"});
  if (const auto best_of = fields.integer("best_of"); best_of && *best_of != request.n) {
    if (*best_of < request.n || *best_of > kMostChoices) {
      fields.wrong("best_of", fmt::format("is {}, expected `n` ({}) to {}", *best_of, request.n,
                                          kMostChoices));
    }
    if (request.stream)
      fields.wrong("best_of", "is not offered with `stream`, unless it equals `n`");
    request.best = std::exchange(request.n, *best_of);
    sampling.logprobs = 0;  // of each token, to compare the answers
  }
  fields.refuse("use_beam_search", "the server has none; `ttpu generate --beam-width` does",
                {false});
  fields.refuse("length_penalty", "belongs to beam search, which the server does not offer", {1.0});
  fields.refuse("spaces_between_special_tokens", "is not offered", {true});
}

void read_prompts(Fields& fields, const std::string& name, const ModelFacts& facts, int64_t most,
                  const std::function<void(const std::string&)>& on_text,
                  const std::function<void(std::vector<int32_t>)>& on_tokens) {
  const Json* given = fields.find(name);
  if (given == nullptr) fields.wrong(name, "is missing");
  const auto tokens = [&](const Json& list) {
    std::vector<int32_t> ids;
    for (const Json& item : list) ids.push_back(token_id(item, name));
    if (ids.empty()) fields.wrong(name, "is empty");
    on_tokens(std::move(ids));
  };
  const auto text = [&](const Json& item) {
    const auto& words = item.get_ref<const std::string&>();
    check_prompt_bytes(words.size(), facts, name);
    on_text(words);
  };
  const auto all = [&](auto&& holds) {
    return given->is_array() && !given->empty() && std::all_of(given->begin(), given->end(), holds);
  };
  if (given->is_string()) {
    text(*given);
  } else if (all([](const Json& item) { return item.is_number_integer(); })) {
    tokens(*given);
  } else if (all([](const Json& item) { return item.is_string() || item.is_array(); })) {
    if (static_cast<int64_t>(given->size()) > most) {
      fields.wrong(
          name, fmt::format("has {} texts, at most {} may be given at once", given->size(), most));
    }
    for (const Json& item : *given) item.is_string() ? text(item) : tokens(item);
  } else {
    fields.wrong(name, "must be a string, a list of strings, or a list of tokens' numbers");
  }
}

void check_prompt_bytes(size_t bytes, const ModelFacts& facts, const std::string& field) {
  if (bytes <= facts.max_prompt_bytes) return;
  throw ApiError(400,
                 fmt::format("This model's maximum context length is {} tokens, and the prompt has "
                             "{} bytes, which is more than so many tokens can be. Shorten it.",
                             facts.max_model_len, bytes),
                 field, "context_length_exceeded");
}

void check_prompt_tokens(const ModelFacts& facts, const GenerationRequest& request,
                         const std::string& field) {
  size_t longest = 0;
  for (const auto& prompt : request.prompts) longest = std::max(longest, prompt.size());
  if (static_cast<int64_t>(longest) < facts.max_model_len) return;
  throw ApiError(400,
                 fmt::format("This model's maximum context length is {} tokens, and the prompt has "
                             "{}. Shorten it, and leave room for an answer.",
                             facts.max_model_len, longest),
                 field, "context_length_exceeded");
}

void set_max_tokens(std::optional<int64_t> max_tokens, int64_t fallback, const ModelFacts& facts,
                    GenerationRequest& request) {
  const int64_t wanted = max_tokens.value_or(fallback);
  if (wanted < 0) {
    throw ApiError(400, fmt::format("`max_tokens` is {}, expected 0 or more", wanted),
                   "max_tokens");
  }
  request.no_answer = wanted == 0;
  // The engine ends an answer where the context ends, so that more than that asks for no more.
  request.sampling.max_tokens = std::max<int64_t>(1, std::min(wanted, facts.max_model_len));
}

}  // namespace ttpu::server
