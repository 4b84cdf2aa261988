#include "ttpu/server/embeddings.h"

#include <bit>
#include <chrono>
#include <cmath>
#include <ctime>
#include <iterator>

#include "ttpu/server/ids.h"

namespace ttpu::server {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kMostTexts = 2048;  // OpenAI's

// The tokens of one text, cut if that is wanted; else what is too long is an error.
void add_text(std::vector<int32_t> tokens, std::optional<int64_t> most, const ModelFacts& facts,
              const engine::Embedder& embedder, EmbeddingRequest& request) {
  if (most) embedder.truncate(tokens, *most);
  if (tokens.empty()) throw ApiError(400, "`input` has a text without tokens", "input");
  if (static_cast<int64_t>(tokens.size()) > facts.max_model_len) {
    throw ApiError(400,
                   fmt::format("This model's maximum context length is {} tokens, and a text has "
                               "{}. Shorten it, or give `truncate_prompt_tokens`.",
                               facts.max_model_len, tokens.size()),
                   "input", "context_length_exceeded");
  }
  request.texts.push_back(std::move(tokens));
}

std::optional<int64_t> read_truncation(Fields& fields, const ModelFacts& facts) {
  const auto given = fields.integer("truncate_prompt_tokens");
  if (!given) return std::nullopt;
  if (*given < -1 || *given == 0 || *given > facts.max_model_len) {
    fields.wrong("truncate_prompt_tokens", fmt::format("is {}, expected 1 to {}, or -1 for that",
                                                       *given, facts.max_model_len));
  }
  return *given == -1 ? facts.max_model_len : *given;
}

// A part of a vector is a vector of its own, of the same length as the whole.
void shorten(std::vector<float>& vector, int64_t dimensions, bool normalized) {
  vector.resize(static_cast<size_t>(dimensions));
  if (!normalized) return;
  double sum = 0;
  for (const float x : vector) sum += static_cast<double>(x) * static_cast<double>(x);
  const double scale = 1 / std::max(std::sqrt(sum), 1e-12);
  for (float& x : vector) x = static_cast<float>(static_cast<double>(x) * scale);
}

void append(std::string& out, const std::vector<float>& vector, bool as_base64) {
  static_assert(std::endian::native == std::endian::little);
  if (as_base64) {
    const auto* bytes = reinterpret_cast<const char*>(vector.data());
    out += '"' + base64({bytes, vector.size() * sizeof(float)}) + '"';
    return;
  }
  char separator = '[';
  for (const float x : vector) {
    out += separator;
    fmt::format_to(std::back_inserter(out), "{}", x);  // the shortest that is read as the same
    separator = ',';
  }
  out += ']';
}

int64_t count_tokens(const EmbeddingRequest& request) {
  int64_t tokens = 0;
  for (const auto& text : request.texts) tokens += static_cast<int64_t>(text.size());
  return tokens;
}

}  // namespace

EmbeddingRequest read_embedding(const Json& body, const ModelFacts& facts,
                                const engine::Embedder& embedder) {
  EmbeddingRequest request;
  Fields fields(body);
  request.model = read_model(fields, facts);
  const auto format = fields.string("encoding_format").value_or("float");
  if (format != "float" && format != "base64") {
    fields.wrong("encoding_format", "is neither `float` nor `base64`");
  }
  request.base64 = format == "base64";
  request.dimensions = fields.integer("dimensions");
  if (request.dimensions) {
    try {
      embedder.check_dimensions(*request.dimensions);
    } catch (const Error& error) {
      throw ApiError(400, error.what(), "dimensions");
    }
  }
  const auto most = read_truncation(fields, facts);
  const bool special = fields.boolean("add_special_tokens").value_or(true);
  fields.ignore({"user", "priority", "request_id"});
  ModelFacts limits = facts;
  if (most) limits.max_prompt_bytes = SIZE_MAX;  // what is cut may be long
  read_prompts(
      fields, "input", limits, kMostTexts,
      [&](const std::string& text) {
        add_text(facts.text->tokenizer().encode(text, special), most, facts, embedder, request);
      },
      [&](std::vector<int32_t> tokens) {
        add_text(std::move(tokens), most, facts, embedder, request);
      });
  fields.finish();
  return request;
}

std::string base64(std::string_view bytes) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t count = std::min<size_t>(3, bytes.size() - i);
    uint32_t word = 0;
    for (size_t k = 0; k < 3; ++k) {
      word = word << 8 | (k < count ? static_cast<unsigned char>(bytes[i + k]) : 0U);
    }
    for (size_t k = 0; k < 4; ++k) {
      out += k <= count ? kDigits[word >> (18 - 6 * k) & 63] : '=';
    }
  }
  return out;
}

std::string embedding_answer(const EmbeddingRequest& request,
                             std::vector<std::vector<float>> vectors, bool normalized) {
  std::string out = fmt::format(R"({{"id":"{}","object":"list","created":{},"model":{},"data":[)",
                                random_id("embd-"), std::time(nullptr), Json(request.model).dump());
  for (size_t i = 0; i < vectors.size(); ++i) {
    if (request.dimensions) shorten(vectors[i], *request.dimensions, normalized);
    out += fmt::format(R"({}{{"object":"embedding","index":{},"embedding":)", i == 0 ? "" : ",", i);
    append(out, vectors[i], request.base64);
    out += '}';
  }
  const int64_t tokens = count_tokens(request);
  out += fmt::format(R"(],"usage":{{"prompt_tokens":{},"total_tokens":{}}}}})", tokens, tokens);
  return out;
}

void start_embedding(engine::EmbeddingQueue& queue, Metrics& metrics, EmbeddingRequest request,
                     bool normalized, const std::shared_ptr<Exchange>& exchange,
                     const std::function<void(std::function<void()>)>& post,
                     const std::function<void()>& on_failure) {
  const auto start = Clock::now();
  const auto asked = std::make_shared<const EmbeddingRequest>(std::move(request));
  const auto answer = [=, &metrics](const std::string& body, const std::string& error) {
    exchange->on_gone(nullptr);
    metrics.count_finished(error.empty() ? "stop" : "error");
    if (!error.empty()) {
      exchange->reply({500, ApiError(500, error).json().dump()});
      on_failure();
      return;
    }
    metrics.request_latency.observe(std::chrono::duration<double>(Clock::now() - start).count());
    metrics.prompt_tokens.observe(static_cast<double>(count_tokens(*asked)));
    exchange->reply({200, body});
  };
  const int64_t id = queue.submit(
      asked->texts, [=](std::vector<std::vector<float>> vectors, const std::string* error) {
        // Here, and not on the server's thread: long lists take a while to be written down.
        std::string body =
            error == nullptr ? embedding_answer(*asked, std::move(vectors), normalized) : "";
        post([answer, body = std::move(body), why = error == nullptr ? "" : *error] {
          answer(body, why);
        });
      });
  exchange->on_gone([&queue, &metrics, id] {
    if (queue.abort(id)) metrics.count_finished("abort");
  });
}

}  // namespace ttpu::server
