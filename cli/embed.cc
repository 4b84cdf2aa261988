// `ttpu embed`: vectors for texts.
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/model_flags.h"
#include "ttpu/base/error.h"
#include "ttpu/engine/embedder.h"
#include "ttpu/engine/offline.h"

namespace {

using ttpu::Json;

struct EmbedFlags {
  ttpu::cli::LoadFlags model;
  std::vector<std::string> texts;
  std::string input;
};

std::vector<std::string> texts_of(const EmbedFlags& flags) {
  ttpu::require(flags.texts.empty() != flags.input.empty(),
                "[embed] give either --text TEXT or --input FILE.jsonl");
  std::vector<std::string> texts = flags.texts;
  if (flags.input.empty()) return texts;
  const std::vector<Json> items = ttpu::engine::read_jsonl(flags.input);
  for (size_t i = 0; i < items.size(); ++i) {
    const ttpu::JsonView item(items[i], fmt::format("{}, text {}", flags.input, i + 1));
    texts.push_back(item.get<std::string>("text"));
  }
  return texts;
}

void run(const EmbedFlags& flags) {
  const std::vector<std::string> texts = texts_of(flags);
  ttpu::engine::Embedder embedder(ttpu::cli::model_path(flags.model),
                                  ttpu::cli::embedder_options(flags.model));
  std::vector<std::vector<int32_t>> tokens;
  for (const std::string& text : texts) tokens.push_back(embedder.encode(text));
  const std::vector<std::vector<float>> vectors = embedder.embed(tokens);
  for (size_t i = 0; i < texts.size(); ++i) {
    const Json line = {{"text", texts[i]}, {"tokens", tokens[i].size()}, {"embedding", vectors[i]}};
    std::puts(line.dump(-1, ' ', false, Json::error_handler_t::replace).c_str());
  }
}

}  // namespace

void add_embed_command(CLI::App& app) {
  auto flags = std::make_shared<EmbedFlags>();
  CLI::App* command = app.add_subcommand("embed", "Turn texts into vectors");
  ttpu::cli::add_load_flags(*command, &flags->model);
  command->add_option("--text", flags->texts, "A text; may be repeated")
      ->allow_extra_args(false);  // else CLI11 takes values in brackets apart
  command->add_option("--input", flags->input, "A file with a JSON object a line: `text`");
  command->footer(
      "Prints a JSON object a text: text, tokens, embedding. Longer texts than the model takes are "
      "cut.\nExample: ttpu embed ./all-minilm-l6-v2 --text 'What is a TPU?'");
  command->callback([flags] { run(*flags); });
}
