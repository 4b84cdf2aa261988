#include "ttpu/io/config.h"

#include "ttpu/base/error.h"
#include "ttpu/base/file.h"
#include "ttpu/io/checkpoint.h"
#include "ttpu/io/gguf_config.h"
#include "ttpu/io/gguf_tokenizer.h"

namespace ttpu::io {
namespace {

namespace fs = std::filesystem;

Json read_object(const fs::path& file) {
  Json json = read_json(file);
  const JsonView object(json, "'" + file.string() + "'");  // throws unless it is one
  static_cast<void>(object);
  return json;
}

Json read_optional_object(const fs::path& file) {
  return fs::exists(file) ? read_object(file) : Json::object();
}

// A tokenizer config has one template as text, or several as [{"name": ..., "template": ...}].
std::string template_of(const Json& config, const std::string& what) {
  const auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) return "";
  if (found->is_string()) return found->get<std::string>();
  require(found->is_array(), "[config] field 'chat_template' of {} is {}, expected text or a list",
          what, found->type_name());
  std::string names;
  for (const Json& item : *found) {
    const JsonView entry(item, "chat_template of " + what);
    const auto name = entry.get<std::string>("name");
    if (name == "default") return entry.get<std::string>("template");
    names += " " + name;
  }
  fail(Code::kInvalidArgument,
       "[config] {} has the chat templates{} and none named 'default'; put the one you want into "
       "chat_template.jinja beside it",
       what, names);
}

std::string find_chat_template(const fs::path& folder, const Json& tokenizer_config) {
  if (fs::exists(folder / "chat_template.jinja")) return read_file(folder / "chat_template.jinja");
  const fs::path json = folder / "chat_template.json";
  if (fs::exists(json)) return template_of(read_object(json), "'" + json.string() + "'");
  return template_of(tokenizer_config, "'" + (folder / "tokenizer_config.json").string() + "'");
}

ModelFiles load_folder(const fs::path& folder) {
  ModelFiles files;
  files.path = folder;
  if (!fs::exists(folder / "config.json")) {
    fail(Code::kNotFound,
         "[config] '{}' has no config.json; give a folder in Hugging Face layout or a .gguf file",
         folder.string());
  }
  files.config = read_object(folder / "config.json");
  files.generation_config = read_optional_object(folder / "generation_config.json");
  files.tokenizer_config = read_optional_object(folder / "tokenizer_config.json");
  files.special_tokens_map = read_optional_object(folder / "special_tokens_map.json");
  if (fs::exists(folder / "tokenizer.json")) {
    files.tokenizer.json = read_file(folder / "tokenizer.json");
  }
  files.chat_template = find_chat_template(folder, files.tokenizer_config);
  return files;
}

ModelFiles load_gguf(const fs::path& path) {
  const fs::path first = gguf_parts(path).front();
  const MappedFile mapped(first);
  const Gguf gguf = Gguf::parse(mapped.bytes(), "'" + first.string() + "'", &mapped);
  ModelFiles files;
  files.path = path;
  files.config = gguf_config(gguf);
  files.generation_config = gguf_generation_config(gguf);
  files.special_tokens_map = Json::object();
  files.tokenizer_config = Json::object();
  files.chat_template = gguf_chat_template(gguf);
  if (gguf.has("tokenizer.ggml.tokens")) {
    files.tokenizer = gguf_tokenizer(gguf);
    files.tokenizer_config = gguf_tokenizer_config(gguf);
  }
  return files;
}

}  // namespace

ModelFiles load_model_files(const fs::path& path) {
  std::error_code error;
  if (fs::is_directory(path, error)) return load_folder(path);
  if (!fs::exists(path, error)) {
    fail(Code::kNotFound, "[config] '{}' does not exist; give a model's folder or .gguf file",
         path.string());
  }
  refuse_pickle(path);
  require(path.extension() == ".gguf",
          "[config] '{}' is neither a folder in Hugging Face layout nor a .gguf file",
          path.string());
  return load_gguf(path);
}

}  // namespace ttpu::io
