// `ttpu bench serve`: how fast a server answers, ours or another of OpenAI's interface.
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>

#include "cli/commands.h"
#include "ttpu/base/error.h"
#include "ttpu/engine/offline.h"
#include "ttpu/server/load.h"

namespace {

using ttpu::Json;

struct BenchServeFlags {
  ttpu::server::LoadOptions load;
  std::string base_url;
  std::string host = "127.0.0.1";
  int port = 8000;
  std::string model;
  std::string dataset;
  int64_t num_prompts = 0;
  int64_t input_len = 128;
  int64_t output_len = 128;
  double temperature = 0;
  bool ignore_eos = false;
  bool json = false;
  bool detailed = false;
};

// Numbers that are ordinary tokens in every vocabulary.
Json random_prompt(int64_t length, std::mt19937_64& random) {
  Json tokens = Json::array();
  for (int64_t i = 0; i < length; ++i) tokens.push_back(1000 + random() % 8000);
  return {{"prompt", std::move(tokens)}};
}

std::vector<Json> read_items(const BenchServeFlags& flags) {
  ttpu::require(flags.num_prompts >= 0 && flags.input_len > 0 && flags.output_len > 0,
                "[bench] --num-prompts is {}, --input-len {} and --output-len {}, expected "
                "positive numbers",
                flags.num_prompts, flags.input_len, flags.output_len);
  if (!flags.dataset.empty()) {
    auto items = ttpu::engine::read_jsonl(flags.dataset);
    ttpu::require(!items.empty(), "[bench] '{}' has no prompts", flags.dataset);
    return items;
  }
  std::vector<Json> items;
  std::mt19937_64 random(flags.load.seed);
  for (int64_t i = 0; i < (flags.num_prompts > 0 ? flags.num_prompts : 32); ++i) {
    items.push_back(random_prompt(flags.input_len, random));
  }
  return items;
}

// An item of a dataset as a request's body.
Json body_of(const BenchServeFlags& flags, const Json& item, size_t number) {
  Json body = {
      {"model", flags.model}, {"max_tokens", flags.output_len}, {"temperature", flags.temperature}};
  if (flags.ignore_eos) body["ignore_eos"] = true;
  bool asks = false;
  for (const auto& [name, field] :
       {std::pair{"messages", "messages"}, {"prompt", "prompt"}, {"prompt_token_ids", "prompt"}}) {
    if (asks || !item.is_object() || !item.contains(name)) continue;
    body[field] = item[name];
    asks = true;
  }
  ttpu::require(asks,
                "[bench] line {} of '{}' has none of `prompt`, `prompt_token_ids` and `messages`",
                number + 1, flags.dataset);
  for (const char* name : {"output_tokens", "max_tokens"}) {
    if (item.contains(name)) body["max_tokens"] = item[name];
  }
  return body;
}

void print(const BenchServeFlags& flags, const Json& report) {
  if (flags.json) {
    std::puts(report.dump(-1, ' ', false, Json::error_handler_t::replace).c_str());
    return;
  }
  for (const auto& [name, value] : report.items()) {
    const std::string text = value.is_number_float()
                                 ? fmt::format("{:.2f}", value.get<double>())
                                 : value.dump(-1, ' ', false, Json::error_handler_t::replace);
    std::printf("%-24s %s\n", name.c_str(), text.c_str());
  }
}

void run(BenchServeFlags flags) {
  const bool six = flags.host.find(':') != std::string::npos;
  flags.load.base_url =
      !flags.base_url.empty()
          ? flags.base_url
          : fmt::format("http://{}{}{}:{}", six ? "[" : "", flags.host, six ? "]" : "", flags.port);
  const std::vector<Json> items = read_items(flags);
  if (flags.model.empty()) flags.model = ttpu::server::first_served_model(flags.load);
  const size_t count =
      flags.num_prompts > 0 ? static_cast<size_t>(flags.num_prompts) : items.size();
  std::vector<Json> requests;
  for (size_t i = 0; i < count; ++i) {
    requests.push_back(body_of(flags, items[i % items.size()], i % items.size()));
  }
  Json report = {
      {"model", flags.model},
      {"num_prompts", count},
      {"request_rate",
       std::isinf(flags.load.request_rate) ? Json("inf") : Json(flags.load.request_rate)},
      {"max_concurrency", flags.load.max_concurrency}};
  report.update(load_report(run_load(flags.load, requests), flags.detailed));
  print(flags, report);
  if (report["failed"] != 0) {
    ttpu::fail(ttpu::Code::kAborted, "[bench] {} of {} requests failed, the first for: {}",
               report["failed"].dump(), count, report["error_messages"][0].get<std::string>());
  }
}

}  // namespace

void add_bench_serve_command(CLI::App& bench) {
  auto flags = std::make_shared<BenchServeFlags>();
  CLI::App* command =
      bench.add_subcommand("serve", "Load a server of OpenAI's interface, whichever it is");
  command->add_option("--base-url", flags->base_url,
                      "The server, http or https, with or without /v1");
  command->add_option("--host", flags->host, "In place of --base-url")->capture_default_str();
  command->add_option("--port", flags->port, "In place of --base-url")
      ->check(CLI::Range(1, 65535))
      ->capture_default_str();
  command->add_option("--api-key", flags->load.api_key, "Sent as `Authorization: Bearer KEY`")
      ->envname("OPENAI_API_KEY");
  command->add_option("--model", flags->model, "What the server calls it (default: its first)");
  command->add_option("--dataset,--dataset-path", flags->dataset,
                      "A file with a JSON object a line: `prompt` (text or numbers of tokens), "
                      "`prompt_token_ids` or `messages`, and perhaps `max_tokens` (default: random "
                      "tokens)");
  command->add_option("--num-prompts", flags->num_prompts,
                      "Requests; a shorter dataset begins again (default: all of it, or 32)");
  command->add_option("--input-len,--random-input-len", flags->input_len, "Of random prompts")
      ->capture_default_str();
  command
      ->add_option("--output-len,--random-output-len", flags->output_len,
                   "Most tokens of an answer, where the dataset does not say")
      ->capture_default_str();
  command->add_option("--request-rate", flags->load.request_rate,
                      "Requests a second, that come by chance (default: all at once)");
  command->add_option("--max-concurrency", flags->load.max_concurrency,
                      "Requests under way at once (default: no limit)");
  command->add_option("--temperature", flags->temperature, "Of sampling")->capture_default_str();
  command->add_flag("--ignore-eos", flags->ignore_eos,
                    "Answers of full length; servers like vLLM's, llama.cpp's and ours know it");
  command->add_option("--seed", flags->load.seed, "Of random prompts and arrivals")
      ->capture_default_str();
  command->add_flag("--json", flags->json, "One JSON object, with vLLM's names");
  command->add_flag("--save-detailed", flags->detailed,
                    "With the lengths, times and error of each request");
  command->footer("Example: ttpu bench serve --port 8000 --num-prompts 64 --max-concurrency 8");
  command->callback([flags] { run(*flags); });
}
