// `ttpu generate`: text from a prompt, or from a file of prompts.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <memory>

#include "cli/commands.h"
#include "cli/model_flags.h"
#include "ttpu/base/error.h"

namespace {

using ttpu::Json;

struct GenerateFlags {
  ttpu::cli::ModelFlags model;
  std::string prompt;
  std::string input;
  bool chat = false;
  bool json = false;
};

std::vector<int32_t> encode(const ttpu::engine::Generator& generator, const Json& item, bool chat,
                            const std::string& where) {
  if (item.is_object() && item.contains("messages")) return generator.encode_chat(item["messages"]);
  const ttpu::JsonView view(item, where);
  if (view.has("prompt_token_ids")) {
    std::vector<int32_t> tokens;
    for (const int64_t id : view.get<std::vector<int64_t>>("prompt_token_ids")) {
      // What does not fit is outside every vocabulary, and refused there.
      tokens.push_back(static_cast<int32_t>(std::clamp<int64_t>(id, -1, INT32_MAX)));
    }
    return tokens;
  }
  if (!view.has("prompt")) {
    ttpu::fail(ttpu::Code::kInvalidArgument,
               "[generate] {} has none of `prompt`, `messages` and `prompt_token_ids`", where);
  }
  const std::string prompt = view.get<std::string>("prompt");
  if (!chat) return generator.encode(prompt);
  return generator.encode_chat(Json::array({{{"role", "user"}, {"content", prompt}}}));
}

Json to_json(const ttpu::engine::Request& request, const ttpu::engine::GenerationResult& result) {
  Json out = {{"text", result.text},
              {"token_ids", result.token_ids},
              {"prompt_token_ids", request.prompt},
              {"finish_reason", to_string(result.finish_reason)}};
  if (result.logprobs.empty()) return out;
  Json steps = Json::array();
  for (const ttpu::engine::TokenLogprobs& step : result.logprobs) {
    Json top = Json::array();
    for (const auto& [token, logprob] : step.top) {
      top.push_back({{"token_id", token}, {"logprob", logprob}});
    }
    steps.push_back({{"token_id", step.token}, {"logprob", step.logprob}, {"top", top}});
  }
  out["logprobs"] = steps;
  return out;
}

std::vector<Json> read_items(const GenerateFlags& flags) {
  if (flags.input.empty()) return {Json{{"prompt", flags.prompt}}};
  std::ifstream file(flags.input);
  if (!file) {
    ttpu::fail(ttpu::Code::kNotFound, "[generate] cannot read '{}'; check the path", flags.input);
  }
  std::vector<Json> items;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    items.push_back(ttpu::parse_json(line, fmt::format("line {} of '{}'", number, flags.input)));
  }
  return items;
}

void run(const GenerateFlags& flags) {
  ttpu::require(flags.prompt.empty() != flags.input.empty(),
                "[generate] give either --prompt TEXT or --input FILE.jsonl");
  const std::vector<Json> items = read_items(flags);
  ttpu::engine::Generator generator = ttpu::cli::load_generator(flags.model);
  for (size_t i = 0; i < items.size(); ++i) {
    ttpu::engine::Request request;
    request.prompt = encode(generator, items[i], flags.chat, fmt::format("prompt {}", i + 1));
    request.sampling = flags.model.sampling;
    const bool stream = !flags.json;
    const auto result = generator.generate(request, [&](const std::string& piece) {
      if (!stream) return;
      std::fputs(piece.c_str(), stdout);
      std::fflush(stdout);
    });
    if (stream) {
      std::fputs("\n", stdout);
    } else {
      Json line = to_json(request, result);
      if (flags.model.stats) line["stats"] = ttpu::cli::stats_json(generator, result);
      std::puts(line.dump().c_str());
    }
    std::fflush(stdout);
    if (flags.model.stats && stream) {
      ttpu::cli::print_stats(generator, result, request.prompt.size());
    }
  }
}

}  // namespace

void add_generate_command(CLI::App& app) {
  auto flags = std::make_shared<GenerateFlags>();
  CLI::App* command =
      app.add_subcommand("generate", "Generate text from a prompt or a file of prompts");
  ttpu::cli::add_model_flags(*command, &flags->model);
  command->add_option("--prompt", flags->prompt, "The text to go on from");
  command->add_option("--input", flags->input,
                      "A file with a JSON object a line: `prompt`, `messages` for chat, or "
                      "`prompt_token_ids`");
  command->add_flag("--chat", flags->chat, "Put the prompt through the model's chat template");
  command->add_flag("--json", flags->json,
                    "One object a line: text, token_ids, prompt_token_ids, finish_reason, and "
                    "with --stats the times and the memory");
  command->add_option("--logprobs", flags->model.sampling.logprobs,
                      "With --json: the log probabilities of the so many likeliest tokens");
  command->add_flag("--ignore-eos", flags->model.sampling.ignore_eos,
                    "Go on to --max-tokens, whatever the model says");
  command->footer("Example: ttpu generate model.gguf --chat --prompt 'What is a TPU?' --stats");
  command->callback([flags] { run(*flags); });
}
