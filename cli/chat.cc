// `ttpu chat`: a conversation in the terminal.
#include <atomic>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <memory>

#include <unistd.h>

#include "cli/commands.h"
#include "cli/model_flags.h"
#include "cli/with_engine.h"
#include "ttpu/base/error.h"

namespace {

using ttpu::Json;

std::atomic<bool> g_cancelled{false};
static_assert(std::atomic<bool>::is_always_lock_free);  // set from a signal handler

void on_interrupt(int) { g_cancelled = true; }

constexpr const char* kHelp =
    "/help          this text\n"
    "/system TEXT   start over with this system prompt\n"
    "/reset         start over\n"
    "/stats         times and memory of the last answer\n"
    "/quit          leave (so does the end of input, Ctrl-D)\n"
    "Ctrl-C stops an answer, not the program.\n";

class Conversation {
 public:
  Conversation(ttpu::engine::Engine& engine, const ttpu::cli::ModelFlags& flags, std::string system)
      : engine_(engine), flags_(flags), system_(std::move(system)) {
    reset();
  }

  // False when the program should end.
  bool handle(const std::string& line) {
    if (line == "/quit" || line == "/exit") return false;
    if (line == "/help") {
      std::fputs(kHelp, stdout);
    } else if (line == "/reset") {
      reset();
    } else if (line == "/stats") {
      ttpu::cli::print_stats(engine_, last_, prompt_tokens_);
    } else if (line.rfind("/system", 0) == 0) {
      system_ = line.size() > 8 ? line.substr(8) : "";
      reset();
    } else if (line[0] == '/') {
      std::printf("There is no command '%s'; /help lists them.\n", line.c_str());
    } else {
      answer(line);
    }
    return true;
  }

 private:
  void reset() {
    messages_ = Json::array();
    if (!system_.empty()) messages_.push_back({{"role", "system"}, {"content", system_}});
  }

  void answer(const std::string& text) {
    messages_.push_back({{"role", "user"}, {"content", text}});
    g_cancelled = false;
    try {
      ttpu::engine::Request request;
      request.prompt = engine_.text().encode_chat(messages_);
      request.sampling = flags_.sampling;
      prompt_tokens_ = request.prompt.size();
      last_ = ttpu::engine::generate_one(
          engine_, request,
          [](const std::string& piece) {
            std::fputs(piece.c_str(), stdout);
            std::fflush(stdout);
          },
          &g_cancelled);
      std::puts(last_.finish_reason == ttpu::engine::FinishReason::kAborted ? " [stopped]" : "");
      messages_.push_back({{"role", "assistant"}, {"content", last_.text}});
      if (flags_.stats) ttpu::cli::print_stats(engine_, last_, prompt_tokens_);
    } catch (const ttpu::Error& error) {
      messages_.erase(messages_.size() - 1);
      std::fprintf(stderr, "ttpu: %s\n", error.what());
    }
  }

  ttpu::engine::Engine& engine_;
  const ttpu::cli::ModelFlags& flags_;
  std::string system_;
  Json messages_;
  ttpu::engine::GenerationResult last_;
  size_t prompt_tokens_ = 0;
};

void talk(ttpu::engine::Engine& engine, const ttpu::cli::ModelFlags& flags,
          const std::string& system) {
  Conversation conversation(engine, flags, system);
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  sigaction(SIGINT, &action, nullptr);  // without SA_RESTART, so that reading a line is interrupted
  const bool terminal = isatty(STDIN_FILENO) != 0;
  if (terminal) std::puts("/help lists the commands.");
  std::string line;
  while (true) {
    if (terminal) {
      std::fputs("> ", stdout);
      std::fflush(stdout);
    }
    if (!std::getline(std::cin, line)) {
      if (!g_cancelled) break;
      g_cancelled = false;
      std::cin.clear();
      clearerr(stdin);
      std::puts("");
      continue;
    }
    if (line.empty()) continue;
    if (!conversation.handle(line)) break;
  }
}

}  // namespace

void add_chat_command(CLI::App& app) {
  auto flags = std::make_shared<ttpu::cli::ModelFlags>();
  auto system = std::make_shared<std::string>();
  flags->sampling.max_tokens = 1024;
  CLI::App* command = app.add_subcommand("chat", "Talk with a model in the terminal");
  ttpu::cli::add_model_flags(*command, flags.get());
  command->add_option("--system", *system, "The system prompt");
  command->footer("Example: ttpu chat model.gguf --temperature 0.7 --top-p 0.9");
  command->callback([flags, system] {
    ttpu::cli::with_engine(*flags,
                           [&](ttpu::engine::Engine& engine) { talk(engine, *flags, *system); });
  });
}
