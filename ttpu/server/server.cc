#include "ttpu/server/server.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <optional>

#include "ttpu/base/log.h"
#include "ttpu/server/api_error.h"
#include "ttpu/server/chat.h"
#include "ttpu/server/completions.h"
#include "ttpu/server/embeddings.h"
#include "ttpu/server/engine_loop.h"
#include "ttpu/server/generation.h"
#include "ttpu/server/metrics.h"
#include "ttpu/server/page.h"
#include "ttpu/server/parsers/parser.h"
#include "ttpu/server/responses.h"
#include "ttpu/server/worker.h"

namespace ttpu::server {
namespace {

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

HttpReply to_reply(const ApiError& error) {
  HttpReply reply{error.status(), dump(error.json())};
  if (error.status() == 429 || error.status() == 503) reply.headers = {{"retry-after", "1"}};
  if (error.status() == 401) reply.headers = {{"www-authenticate", "Bearer"}};
  return reply;
}

// In a time that does not depend on where they differ.
bool same(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned char difference = 0;
  for (size_t i = 0; i < a.size(); ++i) difference |= static_cast<unsigned char>(a[i] ^ b[i]);
  return difference == 0;
}

Json parse_body(const std::string& body) {
  try {
    return parse_json(body, "the body");
  } catch (const Error& error) {
    throw ApiError(400, error.what());
  }
}

void print_access(const AccessRecord& record, LogFormat format) {
  if (format == LogFormat::kNone) return;
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char time[32];
  std::strftime(time, sizeof time, "%Y-%m-%dT%H:%M:%SZ", &utc);
  std::string line;
  if (format == LogFormat::kJson) {
    line = dump({{"time", time},
                 {"event", "request"},
                 {"request_id", record.id},
                 {"remote", record.remote},
                 {"method", record.method},
                 {"path", record.path},
                 {"status", record.status},
                 {"bytes", record.bytes},
                 {"seconds", record.seconds}});
  } else {
    // As JSON, since a path may hold anything.
    line = fmt::format("{} {} {} {} {} {} bytes {:.3f} s {}", time, record.remote, record.method,
                       dump(Json(record.path)), record.status, record.bytes, record.seconds,
                       record.id);
  }
  line += '\n';
  std::fputs(line.c_str(), stderr);
}

}  // namespace

void check_options(const ServerOptions& options) {
  const std::string& tools = options.tool_call_parser;
  require(tools.empty() || find_tool_format(tools) != nullptr,
          "[serve] --tool-call-parser is '{}', expected hermes, llama3_json, mistral or pythonic",
          tools);
  const std::string& reasoning = options.reasoning_parser;
  require(reasoning.empty() || is_reasoning_parser(reasoning),
          "[serve] --reasoning-parser is '{}', expected deepseek_r1 or qwen3", reasoning);
}

struct Server::Impl {
  explicit Impl(const ServerOptions& server_options)
      : options(server_options),
        metrics(options.served_names.front()),
        http(options.http, callbacks()) {
    facts.names = options.served_names;
    facts.defaults = default_sampling(options.generation_config);
    check_options(options);
    const std::string& tools = options.tool_call_parser;
    if (!tools.empty()) facts.tool_format = find_tool_format(tools);
    facts.reasoning = !options.reasoning_parser.empty();
    add_routes();
  }

  Impl(engine::Engine& given, const ServerOptions& server_options) : Impl(server_options) {
    engine = &given;
    loop.emplace(given, poster(), [this] { fail_and_stop(); });
    facts.text = &given.text();
    if (options.tool_call_parser.empty()) {
      facts.tool_format = detect_tool_format(given.text().chat_template_source());
    }
    facts.max_model_len = given.max_model_len();
    facts.max_prompts = given.options().max_num_seqs + options.max_queue;
    facts.max_prompt_bytes =
        longest_token(given.vocab()) * static_cast<size_t>(facts.max_model_len);
  }

  Impl(engine::Embedder& given, const ServerOptions& server_options) : Impl(server_options) {
    embedder = &given;
    queue.emplace(given);
    facts.text = &given.text();
    facts.max_model_len = given.max_tokens();
    facts.max_prompt_bytes =
        longest_token(given.vocab()) * static_cast<size_t>(facts.max_model_len);
  }

  EngineLoop::Post poster() {
    return [this](std::function<void()> task) { http.post(std::move(task)); };
  }

  void fail_and_stop() {
    failed = true;
    begin_stop();
  }

  using Handler = void (Impl::*)(const HttpRequest&, const std::shared_ptr<Exchange>&);
  struct Route {
    const char* method;
    const char* path;
    Handler handler;
    bool guarded;  // by the key
  };

  HttpCallbacks callbacks() {
    HttpCallbacks out;
    out.on_request = [this](const HttpRequest& request, const std::shared_ptr<Exchange>& exchange) {
      try {
        handle(request, exchange);
      } catch (const ApiError& error) {
        exchange->reply(to_reply(error));
      } catch (const Error& error) {
        exchange->reply(to_reply(to_api_error(error)));
      }
    };
    out.on_refused = [](int status, std::string_view why) {
      return to_reply(ApiError(status, fmt::format("[http] {}", why)));
    };
    out.on_done = [this](const AccessRecord& record) {
      metrics.count_response(record.status);
      print_access(record, options.log);
    };
    out.on_signal = [this] {
      if (draining) {
        http.stop();
      } else {
        spdlog::info("[serve] finishing what runs; a second signal ends it at once");
        begin_stop();
      }
    };
    return out;
  }

  void begin_stop() {
    draining = true;
    http.drain();
  }

  // In bytes.
  size_t longest_token(int64_t vocab) const {
    size_t longest = 1;
    for (int64_t id = 0; id < vocab; ++id) {
      const auto token = facts.text->tokenizer().id_to_token(static_cast<int32_t>(id));
      if (token) longest = std::max(longest, token->size());
    }
    return longest;
  }

  void add_routes() {
    routes = {{"GET", "/", &Impl::page, false},
              {"GET", "/health", &Impl::health, false},
              {"GET", "/version", &Impl::version, false},
              {"GET", "/metrics", &Impl::metrics_text, false},
              {"GET", "/v1/models", &Impl::models, true},
              {"POST", "/v1/chat/completions", &Impl::chat, true},
              {"POST", "/v1/completions", &Impl::completion, true},
              {"POST", "/v1/responses", &Impl::response, true},
              {"POST", "/v1/embeddings", &Impl::embeddings, true},
              {"POST", "/tokenize", &Impl::tokenize, true},
              {"POST", "/detokenize", &Impl::detokenize, true}};
  }

  void handle(const HttpRequest& request, const std::shared_ptr<Exchange>& exchange) {
    constexpr std::string_view kModel = "/v1/models/";
    if (request.path.rfind(kModel, 0) == 0 && request.path.size() > kModel.size()) {
      check_method(request, "GET");
      check_key(request);
      one_model(request.path.substr(kModel.size()), exchange);
      return;
    }
    const auto route = std::find_if(routes.begin(), routes.end(), [&](const Route& candidate) {
      return request.path == candidate.path;
    });
    if (route == routes.end()) {
      throw ApiError(404, fmt::format("there is no {} here", request.path), "", "not_found");
    }
    check_method(request, route->method);
    if (route->guarded) check_key(request);
    (this->*route->handler)(request, exchange);
  }

  static void check_method(const HttpRequest& request, std::string_view expected) {
    if (request.method == expected || (expected == "GET" && request.method == "HEAD")) return;
    throw ApiError(405, fmt::format("{} takes {}, not {}", request.path, expected, request.method),
                   "", "method_not_allowed");
  }

  void check_key(const HttpRequest& request) const {
    if (options.api_keys.empty()) return;
    constexpr std::string_view kBearer = "Bearer ";
    const std::string_view given = request.authorization;
    if (given.substr(0, kBearer.size()) == kBearer) {
      bool found = false;
      for (const std::string& key : options.api_keys) {
        found = same(given.substr(kBearer.size()), key) || found;
      }
      if (found) return;
    }
    throw ApiError(401,
                   given.empty() ? "no API key was given; send it as `Authorization: Bearer KEY`"
                                 : "the API key is not right",
                   "", "invalid_api_key");
  }

  // For requests that make the engine work.
  void check_room(int64_t wanted, int64_t live, int64_t most) const {
    if (draining) throw ApiError(503, "the server is stopping", "", "unavailable");
    if (live + wanted <= most) return;
    throw ApiError(
        429, fmt::format("{} requests run or wait, and at most {} may; try again soon", live, most),
        "", "rate_limit_exceeded");
  }

  void check_generates(int64_t choices) const {
    if (!loop) {
      throw ApiError(400, "this server embeds and does not generate; see /v1/embeddings", "model",
                     "model_not_supported");
    }
    check_room(choices, loop->live() + compiling,
               engine->options().max_num_seqs + options.max_queue);
  }

  void page(const HttpRequest&, const std::shared_ptr<Exchange>& exchange) {
    exchange->reply({200,
                     std::string(page_html()),
                     "text/html; charset=utf-8",
                     {{"content-security-policy",
                       "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
                       "connect-src 'self'; img-src data:"}}});
  }

  void health(const HttpRequest&, const std::shared_ptr<Exchange>& exchange) {
    if (failed || draining) throw ApiError(503, "the server is stopping", "", "unavailable");
    exchange->reply({200, R"({"status":"ok"})"});
  }

  void version(const HttpRequest&, const std::shared_ptr<Exchange>& exchange) {
    exchange->reply({200, dump({{"version", options.version}})});
  }

  void metrics_text(const HttpRequest&, const std::shared_ptr<Exchange>& exchange) {
    const std::string model = loop ? metrics.engine_text(*engine, loop->live())
                                   : metrics.embedding_text(queue->metrics());
    exchange->reply({200, model + metrics.server_text(http.connections()),
                     "text/plain; version=0.0.4; charset=utf-8"});
  }

  Json model_json(const std::string& name) const {
    return {
        {"id", name},         {"object", "model"},          {"created", started},
        {"owned_by", "ttpu"}, {"root", options.model_path}, {"max_model_len", facts.max_model_len}};
  }

  void models(const HttpRequest&, const std::shared_ptr<Exchange>& exchange) {
    Json list = Json::array();
    for (const std::string& name : options.served_names) list.push_back(model_json(name));
    exchange->reply({200, dump({{"object", "list"}, {"data", std::move(list)}})});
  }

  void one_model(const std::string& name, const std::shared_ptr<Exchange>& exchange) {
    const auto& names = options.served_names;
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      throw ApiError(404, fmt::format("the model `{}` is not served here", name), "model",
                     "model_not_found");
    }
    exchange->reply({200, dump(model_json(name))});
  }

  void generate(std::unique_ptr<AnswerFormat> format, const std::shared_ptr<Exchange>& exchange) {
    const size_t choices = format->request.choices();
    if (static_cast<int64_t>(choices) > facts.max_prompts) {
      throw ApiError(400, fmt::format("{} answers are asked for at once, at most {} may be",
                                      choices, facts.max_prompts));
    }
    check_generates(static_cast<int64_t>(choices));
    if (format->request.sampling.structured_outputs) {
      compile_first(std::move(format), exchange);
    } else {
      start_generation(*loop, metrics, std::move(format), exchange);
    }
  }

  // A grammar may take a second to compile, in which the others go on.
  void compile_first(std::unique_ptr<AnswerFormat> given, std::shared_ptr<Exchange> exchange) {
    const auto gone = std::make_shared<bool>(false);
    exchange->on_gone([gone] { *gone = true; });
    ++compiling;
    const std::shared_ptr<AnswerFormat> format = std::move(given);
    compiler.run([this, format, exchange = std::move(exchange), gone] {
      std::optional<ApiError> error;
      try {
        GenerationRequest& request = format->request;
        request.grammar = engine->compile_grammar(*request.sampling.structured_outputs);
      } catch (const Error& failure) {
        error = to_api_error(failure, "structured_outputs");
      }
      http.post([this, format, exchange, gone, error] {
        --compiling;
        if (*gone) return;
        if (error) return exchange->reply(to_reply(*error));
        try {
          start_generation(*loop, metrics, format, exchange);
        } catch (const Error& failure) {
          exchange->reply(to_reply(to_api_error(failure)));
        }
      });
    });
  }

  void chat(const HttpRequest& request, const std::shared_ptr<Exchange>& exchange) {
    check_generates(1);  // before the work of reading
    generate(read_chat(parse_body(request.body), facts), exchange);
  }

  void completion(const HttpRequest& request, const std::shared_ptr<Exchange>& exchange) {
    check_generates(1);
    generate(read_completion(parse_body(request.body), facts), exchange);
  }

  void response(const HttpRequest& request, const std::shared_ptr<Exchange>& exchange) {
    check_generates(1);
    generate(read_response(parse_body(request.body), facts), exchange);
  }

  void embeddings(const HttpRequest& request, const std::shared_ptr<Exchange>& exchange) {
    if (!queue) {
      throw ApiError(400, "this server generates and does not embed; start one with --task embed",
                     "model", "model_not_supported");
    }
    check_room(1, queue->metrics().requests, options.max_queue);
    start_embedding(*queue, metrics, read_embedding(parse_body(request.body), facts, *embedder),
                    embedder->normalized(), exchange, poster(), [this] { fail_and_stop(); });
  }

  // As vLLM has it: a prompt or messages to numbers of tokens.
  void tokenize(const HttpRequest& request, const std::shared_ptr<Exchange>& exchange) {
    const Json body = parse_body(request.body);
    Fields fields(body);
    read_model(fields, facts);
    const text::Tokenizer& tokenizer = facts.text->tokenizer();
    std::vector<int32_t> tokens;
    if (fields.find("messages") != nullptr) {
      tokens = read_conversation(fields, facts);
      fields.ignore({"add_special_tokens"});
    } else {
      const auto prompt = fields.string("prompt");
      if (!prompt) fields.wrong("prompt", "is missing");
      check_prompt_bytes(prompt->size(), facts, "prompt");
      tokens = tokenizer.encode(*prompt, fields.boolean("add_special_tokens").value_or(true));
    }
    const bool names = fields.boolean("return_token_strs").value_or(false);
    fields.finish();
    Json out = {{"count", tokens.size()},
                {"max_model_len", facts.max_model_len},
                {"tokens", tokens},
                {"token_strs", nullptr}};
    if (names) {
      out["token_strs"] = Json::array();
      for (const int32_t token : tokens) {
        out["token_strs"].push_back(tokenizer.id_to_token(token).value_or(""));
      }
    }
    exchange->reply({200, dump(out)});
  }

  void detokenize(const HttpRequest& request, const std::shared_ptr<Exchange>& exchange) {
    const Json body = parse_body(request.body);
    Fields fields(body);
    read_model(fields, facts);
    const auto tokens = fields.tokens("tokens");
    if (!tokens) fields.wrong("tokens", "is missing");
    fields.finish();
    exchange->reply({200, dump({{"prompt", facts.text->tokenizer().decode(*tokens, false)}})});
  }

  engine::Engine* engine = nullptr;  // one of the two
  engine::Embedder* embedder = nullptr;
  ServerOptions options;
  ModelFacts facts;
  Metrics metrics;
  std::vector<Route> routes;
  int64_t started = std::time(nullptr);
  bool draining = false;
  bool failed = false;
  int64_t compiling = 0;  // requests whose grammars are being compiled
  HttpServer http;
  Worker compiler;  // goes before the server: it posts to it
  // Go first: they post to the server.
  std::optional<EngineLoop> loop;
  std::optional<engine::EmbeddingQueue> queue;
};

Server::Server(engine::Engine& engine, const ServerOptions& options)
    : impl_(std::make_unique<Impl>(engine, options)) {}

Server::Server(engine::Embedder& embedder, const ServerOptions& options)
    : impl_(std::make_unique<Impl>(embedder, options)) {}

Server::~Server() = default;

std::string Server::url() const { return impl_->http.url(); }

void Server::run() {
  impl_->http.run();
  if (impl_->failed) {
    fail(Code::kInternal, "[serve] the model has failed, so that the server has ended");
  }
}

}  // namespace ttpu::server
