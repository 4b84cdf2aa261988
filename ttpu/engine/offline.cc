#include "ttpu/engine/offline.h"

#include <algorithm>
#include <fstream>
#include <set>

#include "ttpu/base/error.h"
#include "ttpu/base/file.h"

namespace ttpu::engine {
namespace {

std::string name_of(size_t index) { return fmt::format("prompt {}", index + 1); }

// The items that `path` holds answers of. Lines of errors, whose items are asked again, and a line
// that was cut off are gone from it afterwards.
std::set<size_t> take_up(const std::filesystem::path& path, size_t items) {
  std::set<size_t> done;
  if (!std::filesystem::exists(path)) return done;
  const std::string text = read_file(path);
  std::string kept;
  const size_t whole = text.rfind('\n') == std::string::npos ? 0 : text.rfind('\n') + 1;
  size_t begin = 0;
  while (begin < whole) {
    const size_t end = text.find('\n', begin);
    const Json line =
        parse_json(text.substr(begin, end - begin), fmt::format("'{}'", path.string()));
    if (!line.is_object() || !line.contains("index") || !line["index"].is_number_unsigned() ||
        line["index"].get<size_t>() >= items) {
      fail(Code::kInvalidArgument,
           "[generate] '{}' is not the output of this input: a line has no `index` below {}; give "
           "another --output, or remove the file",
           path.string(), items);
    }
    if (!line.contains("error") && done.insert(line["index"].get<size_t>()).second) {
      kept.append(text, begin, end + 1 - begin);
    }
    begin = end + 1;
  }
  if (kept.size() < text.size()) write_file(path, kept);
  return done;
}

class Output {
 public:
  explicit Output(const std::filesystem::path& path)
      : path_(path), file_(path, std::ios::app | std::ios::binary) {
    check();
  }
  void write(size_t index, Json line) {
    line["index"] = index;
    file_ << line.dump(-1, ' ', false, Json::error_handler_t::replace) << '\n' << std::flush;
    check();
  }

 private:
  void check() const {
    if (!file_) fail(Code::kUnavailable, "[generate] cannot write '{}'", path_.string());
  }
  std::filesystem::path path_;
  std::ofstream file_;
};

}  // namespace

std::vector<int32_t> prompt_tokens(const TextProcessor& text, const Json& item, bool chat,
                                   const std::string& where) {
  if (item.is_object() && item.contains("messages")) return text.encode_chat(item["messages"]);
  const JsonView view(item, where);
  if (view.has("prompt_token_ids")) {
    std::vector<int32_t> tokens;
    for (const int64_t id : view.get<std::vector<int64_t>>("prompt_token_ids")) {
      // What does not fit is outside every vocabulary, and refused there.
      tokens.push_back(static_cast<int32_t>(std::clamp<int64_t>(id, -1, INT32_MAX)));
    }
    return tokens;
  }
  if (!view.has("prompt")) {
    fail(Code::kInvalidArgument,
         "[generate] {} has none of `prompt`, `messages` and `prompt_token_ids`", where);
  }
  const std::string prompt = view.get<std::string>("prompt");
  if (!chat) return text.encode(prompt);
  return text.encode_chat(Json::array({{{"role", "user"}, {"content", prompt}}}));
}

Json to_json(const Request& request, const GenerationResult& result) {
  Json out = {{"text", result.text},
              {"token_ids", result.token_ids},
              {"prompt_token_ids", request.prompt},
              {"finish_reason", to_string(result.finish_reason)}};
  if (result.logprobs.empty()) return out;
  Json steps = Json::array();
  for (const TokenLogprobs& step : result.logprobs) {
    Json top = Json::array();
    for (const auto& [token, logprob] : step.top) {
      top.push_back({{"token_id", token}, {"logprob", logprob}});
    }
    steps.push_back({{"token_id", step.token}, {"logprob", step.logprob}, {"top", top}});
  }
  out["logprobs"] = steps;
  return out;
}

std::vector<Json> read_jsonl(const std::filesystem::path& path) {
  std::ifstream file(path);
  if (!file || std::filesystem::is_directory(path)) {
    fail(Code::kNotFound, "[generate] cannot read '{}'; give a file with a JSON object a line",
         path.string());
  }
  std::vector<Json> items;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    items.push_back(parse_json(line, fmt::format("line {} of '{}'", number, path.string())));
  }
  return items;
}

OfflineSummary run_offline(Engine& engine, const OfflineJob& job,
                           const std::function<void(const OfflineSummary&)>& progress,
                           const std::atomic<bool>* cancelled) {
  const std::set<size_t> done = take_up(job.output, job.items.size());
  std::shared_ptr<const text::Grammar> grammar;
  if (const auto& outputs = job.sampling.structured_outputs) {
    grammar = engine.compile_grammar(*outputs);
  }
  Output output(job.output);
  OfflineSummary summary;
  summary.kept = static_cast<int64_t>(done.size());
  std::vector<size_t> asked;  // the item of each request
  size_t item = 0;
  GenerationCallbacks callbacks;
  callbacks.next = [&]() -> std::optional<Request> {
    for (; item < job.items.size(); ++item) {
      if (done.contains(item)) continue;
      try {
        Request request;
        request.prompt = prompt_tokens(engine.text(), job.items[item], job.chat, name_of(item));
        request.sampling = job.sampling;
        request.grammar = grammar;
        engine.check(request);
        asked.push_back(item++);
        return request;
      } catch (const Error& error) {
        ++summary.failed;
        output.write(item, {{"error", error.what()}});
      }
    }
    return std::nullopt;
  };
  callbacks.on_done = [&](size_t index, const Request& request, const GenerationResult& result) {
    if (result.finish_reason == FinishReason::kAborted) {
      summary.interrupted = true;
      return;
    }
    if (result.finish_reason == FinishReason::kError) {
      ++summary.failed;
      output.write(asked[index], {{"error", result.error}});
      return;
    }
    output.write(asked[index], to_json(request, result));
    ++summary.answered;
    progress(summary);
  };
  generate_all(engine, callbacks, cancelled);
  return summary;
}

}  // namespace ttpu::engine
