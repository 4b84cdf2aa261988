// Files of prompts to files of answers, a JSON object a line.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "ttpu/engine/generator.h"

namespace ttpu::engine {

// What a line asks for: `prompt`, `messages` for the chat template, or `prompt_token_ids`. `chat`
// puts `prompt` through the template, too. Throws kInvalidArgument, naming `where`.
std::vector<int32_t> prompt_tokens(const TextProcessor& text, const Json& item, bool chat,
                                   const std::string& where);

// text, token_ids, prompt_token_ids, finish_reason, and logprobs when there are any.
Json to_json(const Request& request, const GenerationResult& result);

// The lines of a file that are not blank. Throws kNotFound, or kInvalidArgument naming the line.
std::vector<Json> read_jsonl(const std::filesystem::path& path);

struct OfflineJob {
  std::vector<Json> items;
  SamplingParams sampling;
  bool chat = false;
  std::filesystem::path output;
};

struct OfflineSummary {
  int64_t kept = 0;  // answers that the output had already
  int64_t answered = 0;
  int64_t failed = 0;  // items that could not be asked; their lines hold `error`
  bool interrupted = false;
};

// Appends to the output, as answers end: their objects with `index`, the item's place in the input.
// An output that is there is gone on with: an item that has an answer is not asked again, one that
// has an `error` is, and a last line that was cut off is dropped, so that no item ever has two
// lines. Throws kInvalidArgument for an output that is something else.
OfflineSummary run_offline(Engine& engine, const OfflineJob& job,
                           const std::function<void(const OfflineSummary&)>& progress,
                           const std::atomic<bool>* cancelled = nullptr);

}  // namespace ttpu::engine
