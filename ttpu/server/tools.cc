#include "ttpu/server/tools.h"

#include <algorithm>

#include "ttpu/server/ids.h"

namespace ttpu::server {
namespace {

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

const Json* function_of(const Json& tool) {
  if (!tool.is_object()) return nullptr;
  const auto function = tool.find("function");
  if (function == tool.end() || !function->is_object()) return nullptr;
  const auto name = function->find("name");
  return name != function->end() && name->is_string() ? &*function : nullptr;
}

// The function that a choice names; empty for auto, none and required.
std::string named(Fields& fields) {
  const Json* choice = fields.find("tool_choice");
  if (choice == nullptr) return "";
  if (choice->is_object() && choice->value("type", Json()) == "function") {
    if (const Json* function = function_of(*choice)) return (*function)["name"];
  }
  if (*choice != "none" && *choice != "auto" && *choice != "required") {
    fields.wrong("tool_choice",
                 "must be \"none\", \"auto\", \"required\" or {\"type\": \"function\", "
                 "\"function\": {\"name\": ...}}");
  }
  return "";
}

// A schema for calls of these functions; definitions that parameters refer to move to its root.
Json call_schema(const Json& tools, const std::string& only, bool several) {
  Json root = {{"type", "array"}, {"minItems", 1}};
  if (!several) root["maxItems"] = 1;
  Json any = Json::array();
  for (const Json& tool : tools) {
    const Json& function = *function_of(tool);
    if (!only.empty() && function["name"] != only) continue;
    Json parameters = function.value("parameters", Json::object());
    if (!parameters.is_object()) parameters = Json::object();
    for (const char* name : {"$defs", "definitions"}) {
      if (!parameters.contains(name)) continue;
      root[name].update(parameters[name]);
      parameters.erase(name);
    }
    if (!parameters.contains("type")) parameters["type"] = "object";
    any.push_back(
        {{"type", "object"},
         {"properties",
          {{"name", {{"const", function["name"]}}}, {"parameters", std::move(parameters)}}},
         {"required", {"name", "parameters"}},
         {"additionalProperties", false}});
  }
  root["items"] = {{"anyOf", std::move(any)}};
  return root;
}

// A regular expression between Lark's slashes.
std::string slashed(const std::string& regex) {
  std::string out;
  for (size_t i = 0; i < regex.size(); ++i) {
    if (regex[i] == '\\' && i + 1 < regex.size()) {
      out += regex[i++];
      out += regex[i];
    } else if (regex[i] == '/') {
      out += "\\/";
    } else {
      out += regex[i] == '\n' ? std::string("\\n") : std::string(1, regex[i]);
    }
  }
  return "/" + out + "/";
}

}  // namespace

Json read_tools(Fields& fields) {
  const Json* tools = fields.array("tools");
  const std::string name = named(fields);
  const Json* choice = fields.find("tool_choice");
  const bool none = tools == nullptr || tools->empty();
  if (none) {
    if (choice != nullptr && *choice != "none" && *choice != "auto") {
      fields.wrong("tool_choice", "needs `tools`");
    }
    return nullptr;
  }
  bool found = name.empty();
  for (const Json& tool : *tools) {
    const Json* function = function_of(tool);
    if (function == nullptr) {
      fields.wrong("tools", "has one without `function` that has a `name`");
    }
    found = found || (*function)["name"] == name;
  }
  if (!found) fields.wrong("tool_choice", "names a function that is not among `tools`");
  if (choice != nullptr && *choice == "none") return nullptr;
  return *tools;
}

AnswerReading::AnswerReading(Fields& fields, const ModelFacts& facts, GenerationRequest& request) {
  if (facts.reasoning) {
    const std::vector<int32_t>& prompt = request.prompts.at(0);
    const size_t last = std::min<size_t>(prompt.size(), 16);
    const std::string end =
        facts.text->tokenizer().decode(std::span(prompt).last(last), /*skip_special_tokens=*/false);
    const size_t size = end.find_last_not_of(" \r\n") + 1;
    const std::string_view trimmed = std::string_view(end).substr(0, size);
    thinks_ = trimmed.ends_with("<think>")    ? Thinks::kBegun
              : trimmed.ends_with("</think>") ? Thinks::kNever
                                              : Thinks::kMay;
  }
  const Json tools = read_tools(fields);
  const Json* choice = fields.find("tool_choice");
  const auto& outputs = request.sampling.structured_outputs;
  const bool free = !outputs || outputs->grammar;  // answers of other forms are no calls
  if (!tools.is_null() && choice != nullptr && *choice != "auto") {
    force(fields, tools, request);
  } else if (!tools.is_null() && facts.tool_format != nullptr && free) {
    make_parser_ = facts.tool_format->make;
    if (facts.tool_format->special_tokens) request.sampling.skip_special_tokens = false;
  }
  if (request.sampling.structured_outputs && thinks_ != Thinks::kNever) think_first(request);
}

void AnswerReading::force(Fields& fields, const Json& tools, GenerationRequest& request) {
  if (request.sampling.structured_outputs) {
    fields.wrong("tool_choice", "forces a call, and another field says what form the answer has");
  }
  const std::string name = named(fields);
  const bool several = name.empty() && fields.boolean("parallel_tool_calls").value_or(true);
  request.sampling.structured_outputs.emplace();
  request.sampling.structured_outputs->json = dump(call_schema(tools, name, several));
  make_parser_ = make_forced_parser;
}

void AnswerReading::think_first(GenerationRequest& request) const {
  engine::StructuredOutputsParams& params = *request.sampling.structured_outputs;
  std::string answer;
  if (params.json) answer = "%json " + *params.json;
  if (params.json_object) answer = R"(%json {"type": "object"})";
  if (params.regex) answer = slashed(*params.regex);
  for (const std::string& choice : params.choice) {
    answer += (answer.empty() ? "" : " | ") + dump(Json(choice));
  }
  if (params.grammar) return;  // it says itself where thoughts are
  const std::string start = thinks_ == Thinks::kBegun
                                ? "thought ANY_LINES answer"
                                : "\"<think>\" thought ANY_LINES answer | answer";
  engine::StructuredOutputsParams behind;
  behind.grammar = fmt::format(
      "start: {}\nthought[lazy]: /(.|\\n)*<\\/think>/\nANY_LINES: /\\n{{0,2}}/\nanswer: {}\n",
      start, answer);
  params = std::move(behind);
}

AnswerReading::Reader::Reader(const AnswerReading& reading) {
  if (reading.thinks_ != Thinks::kNever) reasoning_.emplace(reading.thinks_ == Thinks::kBegun);
  if (reading.make_parser_ != nullptr) tools_ = reading.make_parser_();
}

void AnswerReading::Reader::say(std::string_view content, Piece& piece) {
  if (tools_ == nullptr) {
    piece.content += content;
    return;
  }
  Parsed parsed = tools_->push(content);
  piece.content += parsed.content;
  std::move(parsed.calls.begin(), parsed.calls.end(), std::back_inserter(piece.calls));
}

AnswerReading::Piece AnswerReading::Reader::push(std::string_view text, bool finished) {
  Piece piece;
  if (reasoning_) {
    Reasoned reasoned = reasoning_->push(text);
    piece.reasoning = std::move(reasoned.reasoning);
    say(reasoned.content, piece);
    if (finished) {
      reasoned = reasoning_->finish();
      piece.reasoning += reasoned.reasoning;
      say(reasoned.content, piece);
    }
  } else {
    say(text, piece);
  }
  if (finished && tools_ != nullptr) {
    Parsed parsed = tools_->finish();
    piece.content += parsed.content;
    std::move(parsed.calls.begin(), parsed.calls.end(), std::back_inserter(piece.calls));
  }
  calls_ += piece.calls.size();
  return piece;
}

Json tool_call_json(const ToolCall& call) {
  return {{"id", random_id("call_")},
          {"type", "function"},
          {"function", {{"name", call.name}, {"arguments", dump(call.arguments)}}}};
}

}  // namespace ttpu::server
