#include "ttpu/io/hub.h"

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <set>
#include <vector>

#include <fmt/ranges.h>

#include "ttpu/base/error.h"
#include "ttpu/base/file.h"
#include "ttpu/base/json.h"
#include "ttpu/io/hub_download.h"

namespace ttpu::io {
namespace {

namespace fs = std::filesystem;

// "org/name", perhaps with a file in it.
struct HubName {
  std::string repository;
  std::string file;  // a .gguf, or empty
};

bool is_name_part(std::string_view part) {
  if (part.empty() || part.size() > 96 || part.front() == '.' || part.front() == '-') return false;
  return std::all_of(part.begin(), part.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '.' || c == '-' || c == '_';
  });
}

std::vector<std::string> split_path(std::string_view text) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('/', begin), text.size());
    parts.emplace_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

std::optional<HubName> parse_hub_name(std::string_view name) {
  HubName result;
  std::string_view path = name;
  if (const size_t colon = name.find(':'); colon != std::string_view::npos) {
    result.file = name.substr(colon + 1);
    path = name.substr(0, colon);
    if (result.file.empty()) return std::nullopt;
  }
  std::vector<std::string> parts = split_path(path);
  if (result.file.empty() && parts.size() > 2 && parts.back().ends_with(".gguf")) {
    result.file = fmt::format("{}", fmt::join(parts.begin() + 2, parts.end(), "/"));
    parts.resize(2);
  }
  if (parts.empty() || parts.size() > 2 || !std::all_of(parts.begin(), parts.end(), is_name_part)) {
    return std::nullopt;
  }
  for (const std::string& part : split_path(result.file)) {
    if (!result.file.empty() && !is_name_part(part)) return std::nullopt;
  }
  result.repository = fmt::format("{}", fmt::join(parts, "/"));
  return result;
}

bool shards_present(const fs::path& index) {
  const Json json = read_json(index);
  const JsonView map = JsonView(json, "'" + index.string() + "'").child("weight_map");
  std::set<std::string> shards;
  for (const auto& item : map.json().items()) shards.insert(map.get<std::string>(item.key()));
  return std::all_of(shards.begin(), shards.end(), [&](const std::string& shard) {
    return fs::exists(index.parent_path() / shard);
  });
}

// The model of a snapshot when all of it is there. Other programs leave partial snapshots too.
std::optional<fs::path> whole_model(const fs::path& snapshot, const std::string& file) {
  std::error_code error;
  if (!file.empty()) {
    if (!fs::exists(snapshot / file, error)) return std::nullopt;
    return snapshot / file;
  }
  if (!fs::exists(snapshot / "config.json", error)) return std::nullopt;
  const fs::path index = snapshot / "model.safetensors.index.json";
  if (fs::exists(snapshot / "model.safetensors", error) ||
      (fs::exists(index, error) && shards_present(index))) {
    return snapshot;
  }
  return std::nullopt;
}

std::optional<fs::path> find_cached(const fs::path& repository, const std::string& revision,
                                    const std::string& file) {
  const fs::path snapshots = repository / "snapshots";
  std::error_code error;
  if (fs::is_directory(snapshots / revision, error)) {
    return whole_model(snapshots / revision, file);
  }
  const fs::path ref = repository / "refs" / revision;
  if (!fs::is_regular_file(ref, error)) return std::nullopt;
  std::string commit = read_file(ref);
  while (!commit.empty() && std::isspace(static_cast<unsigned char>(commit.back()))) {
    commit.pop_back();
  }
  if (!is_name_part(commit)) return std::nullopt;
  return whole_model(snapshots / commit, file);
}

bool is_offline() { return env_flag("HF_HUB_OFFLINE") || env_flag("TTPU_OFFLINE"); }

}  // namespace

fs::path hub_cache_dir() {
  if (const std::string dir = env_or("HF_HUB_CACHE"); !dir.empty()) return dir;
  if (const std::string dir = env_or("HF_HOME"); !dir.empty()) return fs::path(dir) / "hub";
  if (const std::string dir = env_or("XDG_CACHE_HOME"); !dir.empty()) {
    return fs::path(dir) / "huggingface" / "hub";
  }
  return fs::path(env_or("HOME", "/tmp")) / ".cache" / "huggingface" / "hub";
}

fs::path resolve_model(std::string_view name, std::string_view revision) {
  fs::path local{std::string(name)};
  std::error_code error;
  if (!name.empty() && fs::exists(local, error)) return local;
  const auto parsed = parse_hub_name(name);
  // What looks like a path is one: asking the hub for it would only hide a typing error.
  const bool path_like = name.starts_with('/') || name.starts_with('.') || name.starts_with('~') ||
                         (name.ends_with(".gguf") && (!parsed || parsed->file.empty()));
  if (!parsed || path_like) {
    fail(Code::kNotFound,
         "[hub] '{}' is neither an existing folder or file nor a model's id; give a folder in "
         "Hugging Face layout, a .gguf file, 'org/name' or 'org/name:file.gguf'",
         name);
  }
  const std::string wanted(revision);
  for (const std::string& part : split_path(wanted)) {
    require(is_name_part(part), "[hub] '{}' is not a revision; give a branch, tag or commit",
            revision);
  }
  if (!parsed->file.empty() && !parsed->file.ends_with(".gguf")) {
    fail(Code::kInvalidArgument,
         "[hub] '{}' names the file '{}'; only a .gguf file can be named by itself", name,
         parsed->file);
  }
  std::string folder = "models--" + parsed->repository;
  if (const size_t slash = folder.find('/'); slash != std::string::npos) {
    folder.replace(slash, 1, "--");
  }
  const fs::path repository = hub_cache_dir() / folder;
  if (auto cached = find_cached(repository, wanted, parsed->file)) return *cached;
  if (is_offline()) {
    fail(Code::kNotFound,
         "[hub] '{}' (revision '{}') is not in the cache '{}' and the network is switched off; "
         "unset HF_HUB_OFFLINE and TTPU_OFFLINE, or give a local folder or .gguf file",
         name, revision, hub_cache_dir().string());
  }
  const fs::path snapshot =
      download_model({parsed->repository, wanted, parsed->file, hub_cache_dir(), folder});
  if (auto model = whole_model(snapshot, parsed->file)) return *model;
  fail(Code::kDataLoss,
       "[hub] '{}' was fetched and is still incomplete: its index names files that the repository "
       "does not have; try another revision",
       name);
}

}  // namespace ttpu::io
