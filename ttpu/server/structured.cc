#include "ttpu/server/structured.h"

namespace ttpu::server {
namespace {

using engine::StructuredOutputsParams;

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// A schema comes as an object, or as its text.
std::optional<std::string> schema(Fields& fields, std::string_view name) {
  const Json* value = fields.find(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) return value->get<std::string>();
  if (!value->is_object()) fields.wrong(name, "must be a JSON schema: an object, or its text");
  return dump(*value);
}

std::vector<std::string> choices(Fields& fields, std::string_view name) {
  const auto list = fields.strings(name);
  if (!list) return {};
  if (list->empty()) fields.wrong(name, "has no choice");
  for (const std::string& choice : *list) {
    if (choice.empty()) fields.wrong(name, "has an empty choice");
  }
  return *list;
}

int kinds(const StructuredOutputsParams& params) {
  return (params.json ? 1 : 0) + (params.regex ? 1 : 0) + (params.choice.empty() ? 0 : 1) +
         (params.grammar ? 1 : 0) + (params.json_object ? 1 : 0);
}

void set(Fields& fields, std::string_view name, StructuredOutputsParams params,
         engine::SamplingParams& sampling) {
  if (kinds(params) == 0) return;
  if (kinds(params) > 1 || sampling.structured_outputs) {
    fields.wrong(name, "is not the only one that says what form the answer has; give one");
  }
  sampling.structured_outputs = std::move(params);
}

}  // namespace

void read_structured_outputs(Fields& fields, engine::SamplingParams& sampling) {
  StructuredOutputsParams guided;
  guided.json = schema(fields, "guided_json");
  guided.regex = fields.string("guided_regex");
  guided.choice = choices(fields, "guided_choice");
  guided.grammar = fields.string("guided_grammar");
  set(fields, "guided_json", std::move(guided), sampling);
  fields.ignore({"guided_decoding_backend"});
  fields.refuse("guided_whitespace_pattern", "is not offered");
  auto inner = fields.child("structured_outputs");
  if (!inner) return;
  StructuredOutputsParams params;
  params.json = schema(*inner, "json");
  params.regex = inner->string("regex");
  params.choice = choices(*inner, "choice");
  params.grammar = inner->string("grammar");
  params.json_object = inner->boolean("json_object").value_or(false);
  inner->refuse("structural_tag", "is not offered");
  inner->refuse("whitespace_pattern", "is not offered");
  inner->ignore({"disable_fallback", "disable_any_whitespace", "disable_additional_properties"});
  inner->finish();
  if (kinds(params) == 0)
    fields.wrong("structured_outputs", "says nothing; give `json` or another");
  set(fields, "structured_outputs", std::move(params), sampling);
}

void read_response_format(Fields& fields, std::string_view name, bool flat,
                          engine::SamplingParams& sampling) {
  auto format = fields.child(name);
  if (!format) return;
  const std::string type = format->string("type").value_or("");
  StructuredOutputsParams params;
  if (type == "json_object") {
    params.json_object = true;
  } else if (type == "json_schema") {
    auto wrapped = flat ? std::nullopt : format->child("json_schema");
    Fields& inner = wrapped ? *wrapped : *format;
    if (!flat && !wrapped) format->wrong("json_schema", "is missing");
    params.json = schema(inner, "schema");
    if (!params.json) inner.wrong("schema", "is missing");
    inner.ignore({"name", "description", "strict"});
    if (wrapped) wrapped->finish();
  } else if (type != "text") {
    format->wrong("type", "must be text, json_object or json_schema");
  }
  format->finish();
  set(fields, name, std::move(params), sampling);
}

}  // namespace ttpu::server
