// `ttpu generate`: text from a prompt, or from a file of prompts.
#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <memory>

#include <unistd.h>

#include "cli/commands.h"
#include "cli/model_flags.h"
#include "cli/with_engine.h"
#include "ttpu/base/error.h"
#include "ttpu/base/file.h"
#include "ttpu/engine/beam_search.h"
#include "ttpu/engine/offline.h"

namespace {

using ttpu::Json;
using ttpu::engine::Engine;

std::atomic<bool> g_cancelled{false};

struct GenerateFlags {
  ttpu::cli::ModelFlags model;
  std::string prompt;
  std::string input;
  std::string output;
  std::string schema_file, regex, grammar_file;
  std::vector<std::string> choices;
  bool chat = false;
  bool json = false;
  ttpu::engine::BeamSearchParams beams;
  int64_t beam_width = 0;
};

void read_structured_outputs(GenerateFlags* flags) {
  ttpu::engine::StructuredOutputsParams params;
  if (!flags->schema_file.empty()) params.json = ttpu::read_file(flags->schema_file);
  if (!flags->regex.empty()) params.regex = flags->regex;
  if (!flags->grammar_file.empty()) params.grammar = ttpu::read_file(flags->grammar_file);
  params.choice = flags->choices;
  if (params.json || params.regex || params.grammar || !params.choice.empty()) {
    flags->model.sampling.structured_outputs = std::move(params);
  }
}

// To standard output, one after the other; text as it comes, objects when they are whole.
void answer_in_turn(Engine& engine, const GenerateFlags& flags, const std::vector<Json>& items) {
  std::vector<ttpu::engine::Request> requests(items.size());
  for (size_t i = 0; i < items.size(); ++i) {  // a bad one is found before the first is answered
    requests[i].prompt = ttpu::engine::prompt_tokens(engine.text(), items[i], flags.chat,
                                                     fmt::format("prompt {}", i + 1));
    requests[i].sampling = flags.model.sampling;
    if (requests[i].sampling.structured_outputs) {
      requests[i].grammar = engine.compile_grammar(*requests[i].sampling.structured_outputs);
    }
    engine.check(requests[i]);
  }
  for (const ttpu::engine::Request& request : requests) {
    const auto result = ttpu::engine::generate_one(engine, request, [&](const std::string& piece) {
      if (flags.json) return;
      std::fputs(piece.c_str(), stdout);
      std::fflush(stdout);
    });
    if (flags.json) {
      Json line = to_json(request, result);
      if (flags.model.stats) line["stats"] = ttpu::cli::stats_json(engine, result);
      std::puts(line.dump().c_str());
    } else {
      std::fputs("\n", stdout);
    }
    std::fflush(stdout);
    if (flags.model.stats && !flags.json) {
      ttpu::cli::print_stats(engine, result, request.prompt.size());
    }
  }
}

// The best answer of each search; with --json all of them.
void search_in_turn(Engine& engine, const GenerateFlags& flags, const std::vector<Json>& items) {
  ttpu::engine::BeamSearchParams params = flags.beams;
  params.beam_width = flags.beam_width;
  params.max_tokens = flags.model.sampling.max_tokens;
  params.ignore_eos = flags.model.sampling.ignore_eos;
  for (size_t i = 0; i < items.size(); ++i) {
    const std::vector<int32_t> prompt = ttpu::engine::prompt_tokens(
        engine.text(), items[i], flags.chat, fmt::format("prompt {}", i + 1));
    const auto answers = ttpu::engine::beam_search(engine, prompt, params);
    Json beams = Json::array();
    for (const auto& answer : answers) {
      beams.push_back({{"text", engine.text().tokenizer().decode(answer.tokens)},
                       {"token_ids", answer.tokens},
                       {"cumulative_logprob", answer.logprob},
                       {"score", answer.score},
                       {"finish_reason", to_string(answer.finish_reason)}});
    }
    if (flags.json) {
      std::puts(Json{{"prompt_token_ids", prompt}, {"beams", beams}}.dump().c_str());
    } else {
      std::puts(beams.at(0)["text"].get<std::string>().c_str());
    }
    std::fflush(stdout);
  }
}

// Many at once, into a file.
void answer_into_file(Engine& engine, const GenerateFlags& flags, std::vector<Json> items) {
  ttpu::engine::OfflineJob job{std::move(items), flags.model.sampling, flags.chat, flags.output};
  std::signal(SIGINT, [](int) { g_cancelled = true; });
  std::signal(SIGTERM, [](int) { g_cancelled = true; });
  const bool terminal = isatty(STDERR_FILENO) != 0;
  const auto summary = ttpu::engine::run_offline(
      engine, job,
      [&](const ttpu::engine::OfflineSummary& now) {
        if (!terminal) return;
        std::fprintf(stderr, "\r%ld of %zu answered", now.kept + now.answered, job.items.size());
      },
      &g_cancelled);
  std::fprintf(stderr, "%s%ld answered, %ld were there, %ld failed: '%s'\n", terminal ? "\r" : "",
               summary.answered, summary.kept, summary.failed, flags.output.c_str());
  if (summary.interrupted) {
    ttpu::fail(ttpu::Code::kCancelled,
               "[generate] interrupted; run the same command again to go on");
  }
  if (summary.failed > 0) {
    ttpu::fail(ttpu::Code::kInvalidArgument,
               "[generate] {} prompts could not be asked; `error` in their lines says why",
               summary.failed);
  }
}

void run(const GenerateFlags& flags) {
  ttpu::require(flags.prompt.empty() != flags.input.empty(),
                "[generate] give either --prompt TEXT or --input FILE.jsonl");
  ttpu::require(flags.output.empty() || !flags.input.empty(),
                "[generate] --output goes with --input FILE.jsonl");
  std::vector<Json> items = flags.input.empty() ? std::vector<Json>{Json{{"prompt", flags.prompt}}}
                                                : ttpu::engine::read_jsonl(flags.input);
  ttpu::require(flags.beam_width == 0 || flags.output.empty(),
                "[generate] --beam-width does not go with --output");
  ttpu::cli::with_engine(flags.model, [&](Engine& engine) {
    if (flags.beam_width > 0) {
      search_in_turn(engine, flags, items);
    } else if (flags.output.empty()) {
      answer_in_turn(engine, flags, items);
    } else {
      answer_into_file(engine, flags, std::move(items));
    }
  });
}

}  // namespace

void add_generate_command(CLI::App& app) {
  auto flags = std::make_shared<GenerateFlags>();
  flags->model.engine.max_num_seqs = 8;
  CLI::App* command =
      app.add_subcommand("generate", "Generate text from a prompt or a file of prompts");
  ttpu::cli::add_model_flags(*command, &flags->model);
  command->add_option("--prompt", flags->prompt, "The text to go on from");
  command->add_option("--input", flags->input,
                      "A file with a JSON object a line: `prompt`, `messages` for chat, or "
                      "`prompt_token_ids`");
  command->add_option("--output", flags->output,
                      "A file for the answers to --input, a JSON object a line with `index`, in "
                      "the order in which they end. Answers that it holds already are kept, errors "
                      "are asked again");
  command
      ->add_option("--max-num-seqs", flags->model.engine.max_num_seqs,
                   "Prompts that are answered at once; not given and without --output: 1, or the "
                   "beams of a search")
      ->capture_default_str();
  command
      ->add_option("--max-num-batched-tokens", flags->model.engine.max_num_batched_tokens,
                   "Tokens of one step")
      ->capture_default_str();
  command->add_flag("--chat", flags->chat, "Put the prompt through the model's chat template");
  command->add_flag("--json", flags->json,
                    "One object a line: text, token_ids, prompt_token_ids, finish_reason, and "
                    "with --stats the times and the memory");
  command->add_option("--logprobs", flags->model.sampling.logprobs,
                      "With --json: the log probabilities of the so many likeliest tokens");
  command->add_option("--json-schema", flags->schema_file,
                      "A file with a JSON schema that the answer must meet");
  command->add_option("--regex", flags->regex, "A regular expression that the answer must match");
  command
      ->add_option("--choice", flags->choices,
                   "What the answer may be; to be repeated for each choice")
      ->allow_extra_args(false);  // else CLI11 takes values in brackets apart
  command->add_option("--grammar", flags->grammar_file,
                      "A file with a Lark grammar that the answer must follow");
  command->add_flag("--ignore-eos", flags->model.sampling.ignore_eos,
                    "Go on to --max-tokens, whatever the model says");
  command->add_option("--beam-width", flags->beam_width,
                      "Beam search with so many beams, 1 to 10, in place of sampling; with --json "
                      "all beams");
  command
      ->add_option("--length-penalty", flags->beams.length_penalty,
                   "Of beam search: an answer's log probability is divided by its tokens ^ this")
      ->capture_default_str();
  command->add_flag("--early-stopping", flags->beams.early_stopping,
                    "Of beam search: end when there are as many answers as beams");
  command->footer("Example: ttpu generate model.gguf --chat --prompt 'What is a TPU?' --stats");
  command->callback([flags, command] {
    read_structured_outputs(flags.get());
    if (flags->output.empty() && command->count("--max-num-seqs") == 0) {
      flags->model.engine.max_num_seqs = std::clamp<int64_t>(flags->beam_width, 1, 10);
    }
    run(*flags);
  });
}
