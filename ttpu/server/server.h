// The OpenAI server over an engine, or over a model that embeds.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ttpu/engine/embedder.h"
#include "ttpu/engine/engine.h"
#include "ttpu/server/http_server.h"

namespace ttpu::server {

enum class LogFormat { kNone, kText, kJson };

struct ServerOptions {
  HttpOptions http;
  std::vector<std::string> served_names;  // at least one
  std::string model_path;                 // said by /v1/models
  std::vector<std::string> api_keys;      // one of them is asked for, unless there is none
  int64_t max_queue = 1024;               // requests that may wait, beyond those that run
  LogFormat log = LogFormat::kText;
  std::string version;
  std::string tool_call_parser;  // a format's name; empty: by the chat template
  std::string reasoning_parser;  // empty: the model's thoughts are part of its answer
  Json generation_config;        // for what requests do not say
};

// Throws kInvalidArgument for a parser that is not known, as Server does, which needs an engine.
void check_options(const ServerOptions& options);

class Server {
 public:
  // Listens from here on; the engine or embedder must outlive the server. Throws kUnavailable when
  // the address cannot be had.
  Server(engine::Engine& engine, const ServerOptions& options);
  Server(engine::Embedder& embedder, const ServerOptions& options);
  ~Server();

  std::string url() const;
  // Serves until SIGINT or SIGTERM, and then until what runs has finished; a second signal ends
  // that at once. Throws kInternal when the engine has failed.
  void run();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ttpu::server
