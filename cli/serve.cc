// `ttpu serve`: the OpenAI server.
#include <cstdio>
#include <filesystem>
#include <memory>

#include <sys/resource.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/model_flags.h"
#include "cli/numbers.h"
#include "cli/with_engine.h"
#include "ttpu/base/error.h"
#include "ttpu/server/server.h"

namespace {

struct ServeFlags {
  ttpu::cli::LoadFlags model;
  ttpu::server::ServerOptions server;
  std::string log_format = "text";
  std::string task = "auto";
  bool no_prefix_caching = false;
  bool auto_tools = true;
};

void add_engine_flags(CLI::App& command, ServeFlags* flags) {
  command
      .add_option("--task,--runner", flags->task,
                  "generate, or embed (pooling): vectors for texts. auto embeds with encoders and "
                  "with folders of sentence-transformers")
      ->check(CLI::IsMember({"auto", "generate", "embed", "pooling"}))
      ->capture_default_str();
  ttpu::engine::EngineOptions& engine = flags->model.engine;
  engine.max_num_seqs = 16;
  ttpu::cli::add_load_flags(command, &flags->model);
  command.add_option("--max-num-seqs", engine.max_num_seqs, "Requests that run at once")
      ->capture_default_str();
  command
      .add_option("--max-num-batched-tokens", engine.max_num_batched_tokens, "Tokens of one step")
      ->capture_default_str();
  command.add_option("--block-size", engine.block_size, "Tokens of a block of the cache")
      ->capture_default_str();
  command.add_option("--num-blocks", engine.num_blocks, "Blocks of the cache (0: by memory)");
  command
      .add_option(
          "--memory-fraction,--gpu-memory-utilization", engine.memory_fraction,
          "On CPU most of the free memory that the cache may take; on GPU and TPU most of a "
          "device's memory")
      ->capture_default_str();
  command.add_flag("--no-prefix-caching,--no-enable-prefix-caching", flags->no_prefix_caching,
                   "Compute every prompt whole");
}

void add_server_flags(CLI::App& command, ServeFlags* flags) {
  ttpu::server::ServerOptions& server = flags->server;
  command.add_option("--host", server.http.host, "The address to listen on")->capture_default_str();
  command.add_option("--port", server.http.port, "0: any that is free")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  command.add_option("--served-model-name", server.served_names,
                     "What clients call the model; several are possible");
  command
      .add_option("--api-key", server.api_keys,
                  "What clients must send as `Authorization: Bearer KEY`; several are possible")
      ->envname("TTPU_API_KEY");
  command.add_option("--tool-call-parser", server.tool_call_parser,
                     "How the model calls tools: hermes, llama3_json, mistral, pythonic (default: "
                     "by its chat template)");
  command.add_flag("--enable-auto-tool-choice", flags->auto_tools,
                   "Accepted for vLLM's sake; it always is so");
  command.add_option("--reasoning-parser", server.reasoning_parser,
                     "Thoughts become reasoning_content: deepseek_r1, qwen3 (default: none)");
  command.add_option("--ssl-certfile", server.http.certificate_file, "For TLS: certificates, PEM");
  command.add_option("--ssl-keyfile", server.http.key_file, "For TLS: the key, PEM");
  command
      .add_option("--max-queue", server.max_queue,
                  "Requests that may wait; more are answered with 429")
      ->check(ttpu::cli::zero_or_more())
      ->capture_default_str();
  command.add_option("--max-connections", server.http.max_connections, "Open at once")
      ->check(ttpu::cli::above_zero())
      ->capture_default_str();
  command.add_option("--max-body-bytes", server.http.max_body_bytes, "Of a request")
      ->check(ttpu::cli::above_zero())
      ->capture_default_str();
  command.add_option("--log-format", flags->log_format, "Of the access log, on standard error")
      ->check(CLI::IsMember({"text", "json", "none"}))
      ->capture_default_str();
}

ttpu::engine::EngineOptions engine_options(const ServeFlags& flags) {
  ttpu::engine::EngineOptions engine = ttpu::cli::engine_options(flags.model);
  engine.prefix_caching = !flags.no_prefix_caching;
  engine.needs_tokenizer = true;
  return ttpu::cli::with_bundle(flags.model, engine);
}

void complete_server_options(ServeFlags* flags) {
  using ttpu::server::LogFormat;
  ttpu::server::ServerOptions& server = flags->server;
  server.log = flags->log_format == "json"   ? LogFormat::kJson
               : flags->log_format == "none" ? LogFormat::kNone
                                             : LogFormat::kText;
  if (server.served_names.empty()) {
    const std::string& model = flags->model.model;
    server.served_names = {model.empty() ? ttpu::cli::model_path(flags->model).filename().string()
                                         : model};
  }
  server.version = TTPU_VERSION;
}

// A connection is a file; systems start programs with few of them.
void allow_many_files() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

// On a terminal one line that changes, else a line now and then.
void print_progress(int64_t done, int64_t total) {
  const bool terminal = isatty(STDERR_FILENO) != 0;
  if (terminal) {
    std::fprintf(stderr, "\rpreparing programs: %ld of %ld%s", done, total,
                 done == total ? "\n" : "");
  } else if (done == total || done % 8 == 0) {
    std::fprintf(stderr, "preparing programs: %ld of %ld\n", done, total);
  }
}

void print_loaded(const ttpu::engine::LoadStats& stats) {
  std::fprintf(stderr, "weights %.2f s, %ld programs %.2f s (%ld compiled now)\n",
               stats.load_seconds, stats.programs, stats.compile_seconds, stats.compiled);
}

// `model`: an engine or an embedder.
template <typename Model>
void serve(Model& model, const ttpu::server::ServerOptions& options) {
  print_loaded(model.stats());
  ttpu::server::Server server(model, options);
  std::printf("serving %s on %s\n", options.served_names.front().c_str(), server.url().c_str());
  std::fflush(stdout);
  server.run();
}

bool embeds(const ServeFlags& flags, const std::filesystem::path& path) {
  if (flags.task == "auto") return ttpu::engine::is_embedding_model(path);
  return flags.task != "generate";
}

void run(ServeFlags* flags) {
  complete_server_options(flags);
  ttpu::server::check_options(flags->server);  // before the model is loaded
  allow_many_files();
  const std::filesystem::path path = ttpu::cli::model_path(flags->model);
  flags->server.model_path = path.string();
  if (!ttpu::cli::follows_another()) std::fprintf(stderr, "loading %s\n", path.c_str());
  if (embeds(*flags, path)) {
    ttpu::engine::EmbedderOptions options = ttpu::cli::embedder_options(flags->model);
    options.needs_tokenizer = true;
    ttpu::engine::Embedder embedder(path, options, print_progress);
    serve(embedder, flags->server);
    return;
  }
  const auto lead = [&](ttpu::engine::Engine& engine) {
    flags->server.generation_config = engine.files().generation_config;
    serve(engine, flags->server);
  };
  ttpu::cli::with_engine(path, engine_options(*flags), lead, print_progress);
}

}  // namespace

void add_serve_command(CLI::App& app) {
  auto flags = std::make_shared<ServeFlags>();
  CLI::App* command = app.add_subcommand("serve", "Serve a model to OpenAI's clients");
  add_engine_flags(*command, flags.get());
  add_server_flags(*command, flags.get());
  command->footer("Example: ttpu serve model.gguf --port 8000 --api-key SECRET");
  command->callback([flags] { run(flags.get()); });
}
