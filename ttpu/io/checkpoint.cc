#include "ttpu/io/checkpoint.h"

#include <algorithm>
#include <regex>
#include <set>
#include <utility>

#include <fmt/ranges.h>

#include "ttpu/base/edit_distance.h"
#include "ttpu/base/error.h"
#include "ttpu/base/json.h"
#include "ttpu/io/composite.h"
#include "ttpu/io/gguf_names.h"
#include "ttpu/io/quantized_checkpoint.h"
#include "ttpu/io/safetensors.h"

namespace ttpu::io {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail_without_weights(const fs::path& folder) {
  std::vector<std::string> gguf;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    refuse_pickle(entry.path());
    if (entry.path().extension() == ".gguf") gguf.push_back(entry.path().filename().string());
  }
  std::sort(gguf.begin(), gguf.end());
  if (!gguf.empty()) {
    fail(Code::kNotFound,
         "[checkpoint] '{}' has no model.safetensors but GGUF files ({}); name one of them",
         folder.string(), fmt::join(gguf, ", "));
  }
  fail(Code::kNotFound,
       "[checkpoint] '{}' has neither model.safetensors nor model.safetensors.index.json; give a "
       "folder in Hugging Face layout or a .gguf file",
       folder.string());
}

int64_t stored_size(const Tensor& tensor) {
  auto size = static_cast<int64_t>(tensor.bytes.size());
  if (tensor.transform.composite != nullptr) {
    for (const Tensor& part : tensor.transform.composite->parts()) size += stored_size(part);
  }
  return size;
}

}  // namespace

void refuse_pickle(const fs::path& file) {
  static const std::set<std::string> kExtensions = {".bin", ".pt", ".pth", ".ckpt", ".pkl"};
  if (!kExtensions.contains(file.extension().string())) return;
  fail(Code::kUnimplemented,
       "[checkpoint] '{}' is a Python pickle: reading it runs whatever code it carries, so TTPU "
       "does not. Take the model's safetensors or GGUF files (most repositories have them), or "
       "convert it on a machine where you trust it: "
       "AutoModelForCausalLM.from_pretrained(...).save_pretrained(FOLDER)",
       file.string());
}

std::vector<std::string> nearest_names(std::string_view name,
                                       const std::vector<std::string>& candidates, size_t limit) {
  std::vector<std::pair<size_t, const std::string*>> scored;
  for (const std::string& candidate : candidates) {
    const size_t longer = std::max(name.size(), candidate.size());
    const size_t distance = edit_distance(name, candidate);
    if (distance * 2 <= longer) scored.emplace_back(distance, &candidate);
  }
  std::sort(scored.begin(), scored.end(), [](const auto& a, const auto& b) {
    return std::tie(a.first, *a.second) < std::tie(b.first, *b.second);
  });
  std::vector<std::string> names;
  for (size_t i = 0; i < std::min(limit, scored.size()); ++i) names.push_back(*scored[i].second);
  return names;
}

std::vector<fs::path> gguf_parts(const fs::path& file) {
  static const std::regex kSplit(R"((.*)-(\d{5})-of-(\d{5})\.gguf)");
  const std::string name = file.filename().string();
  std::smatch match;
  if (!std::regex_match(name, match, kSplit)) return {file};
  const int count = std::stoi(match[3]);
  require(count > 0 && std::stoi(match[2]) >= 1 && std::stoi(match[2]) <= count,
          "[checkpoint] '{}' is named as part {} of {}", file.string(), match[2].str(),
          match[3].str());
  std::vector<fs::path> parts;
  for (int i = 1; i <= count; ++i) {
    parts.push_back(file.parent_path() /
                    fmt::format("{}-{:05}-of-{:05}.gguf", match[1].str(), i, count));
    if (!fs::exists(parts.back())) {
      fail(Code::kNotFound, "[checkpoint] '{}' is one of {} parts and '{}' is missing; fetch it",
           file.string(), count, parts.back().string());
    }
  }
  return parts;
}

std::unique_ptr<Checkpoint> Checkpoint::open(const fs::path& path) {
  auto checkpoint = std::make_unique<Checkpoint>();
  std::error_code error;
  if (fs::is_regular_file(path, error)) refuse_pickle(path);
  if (fs::is_directory(path, error)) {
    checkpoint->open_folder(path);
    checkpoint->join_blocks_and_scales();
    checkpoint->join_quantized_parts(path / "config.json");
  } else if (!fs::exists(path, error)) {
    fail(Code::kNotFound, "[checkpoint] '{}' does not exist; give a model's folder or .gguf file",
         path.string());
  } else if (path.extension() == ".safetensors") {
    checkpoint->open_safetensors(path);
    checkpoint->join_blocks_and_scales();
  } else if (path.extension() == ".gguf") {
    checkpoint->open_gguf(path);
  } else {
    fail(Code::kInvalidArgument,
         "[checkpoint] '{}' is neither a folder in Hugging Face layout nor a .safetensors or .gguf "
         "file",
         path.string());
  }
  return checkpoint;
}

void Checkpoint::open_folder(const fs::path& folder) {
  if (fs::exists(folder / "model.safetensors")) {
    return open_safetensors(folder / "model.safetensors");
  }
  const fs::path index = folder / "model.safetensors.index.json";
  if (!fs::exists(index)) fail_without_weights(folder);
  const Json json = read_json(index);
  const JsonView map = JsonView(json, "'" + index.string() + "'").child("weight_map");
  std::set<std::string> shards;
  std::vector<std::pair<std::string, std::string>> wanted;
  for (const auto& [tensor, value] : map.json().items()) {
    const auto shard = map.get<std::string>(tensor);
    require(!shard.empty() && shard.find('/') == std::string::npos && shard != ".." &&
                shard.ends_with(".safetensors"),
            "[checkpoint] {} puts tensor '{}' into '{}'; expected the name of a .safetensors file "
            "beside it",
            map.what(), tensor, shard);
    shards.insert(shard);
    wanted.emplace_back(tensor, shard);
  }
  for (const std::string& shard : shards) {
    if (!fs::exists(folder / shard)) {
      fail(Code::kNotFound, "[checkpoint] {} names the shard '{}', which is missing; fetch it",
           map.what(), (folder / shard).string());
    }
    open_safetensors(folder / shard);
  }
  for (const auto& [tensor, shard] : wanted) {
    const Tensor* found = find(tensor);
    require(found != nullptr && found->file->path().filename() == shard,
            "[checkpoint] {} promises tensor '{}' in '{}', which does not have it; index and "
            "shards are not of one model, fetch them again",
            map.what(), tensor, shard);
  }
}

// GPT-OSS is published with its experts in MXFP4, as "x_blocks" and "x_scales".
void Checkpoint::join_blocks_and_scales() {
  constexpr std::string_view kBlocks = "_blocks";
  constexpr std::string_view kScales = "_scales";
  std::vector<Tensor> all = std::exchange(tensors_, {});
  const auto index = std::exchange(index_, {});
  for (Tensor& tensor : all) {
    const auto partner = [&](std::string_view own, std::string_view other) {
      if (!tensor.name.ends_with(own)) return index.end();
      return index.find(tensor.name.substr(0, tensor.name.size() - own.size()) +
                        std::string(other));
    };
    if (partner(kScales, kBlocks) != index.end()) continue;
    if (const auto scales = partner(kBlocks, kScales); scales != index.end()) {
      const std::string name = tensor.name.substr(0, tensor.name.size() - kBlocks.size());
      tensor = gpt_oss_mxfp4_experts(name, tensor, all[scales->second]);
    }
    add(std::move(tensor));
  }
}

void Checkpoint::join_quantized_parts(const fs::path& config_file) {
  if (!fs::exists(config_file)) return;
  const auto config = QuantizationConfig::from_config(read_json(config_file));
  if (!config || config->method == QuantMethod::kMxfp4) return;  // see join_blocks_and_scales
  std::vector<Tensor> joined = join_quantized(std::exchange(tensors_, {}), *config);
  index_.clear();
  for (Tensor& tensor : joined) add(std::move(tensor));
}

void Checkpoint::open_safetensors(const fs::path& file) {
  Safetensors contents = read_safetensors(map(file));
  for (Tensor& tensor : contents.tensors) add(std::move(tensor));
}

void Checkpoint::open_gguf(const fs::path& file) {
  std::vector<Tensor> stored;
  for (const fs::path& part : gguf_parts(file)) {
    const MappedFile& mapped = map(part);
    Gguf gguf = Gguf::parse(mapped.bytes(), "'" + part.string() + "'", &mapped);
    stored.insert(stored.end(), gguf.tensors().begin(), gguf.tensors().end());
    if (gguf_ == nullptr) gguf_ = std::make_unique<Gguf>(std::move(gguf));
  }
  for (Tensor& tensor : transformers_tensors(*gguf_, stored)) add(std::move(tensor));
}

void Checkpoint::add(Tensor tensor) {
  require(index_.emplace(tensor.name, tensors_.size()).second,
          "[checkpoint] tensor '{}' comes twice, the second time in '{}'; the files are not of one "
          "model",
          tensor.name, tensor.file->path().string());
  tensors_.push_back(std::move(tensor));
}

const MappedFile& Checkpoint::map(const fs::path& file) {
  files_.push_back(std::make_unique<MappedFile>(file));
  return *files_.back();
}

const Tensor* Checkpoint::find(std::string_view name) const {
  const auto found = index_.find(std::string(name));
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

const Tensor& Checkpoint::at(std::string_view name) const {
  if (const Tensor* tensor = find(name)) return *tensor;
  std::vector<std::string> names;
  for (const Tensor& tensor : tensors_) names.push_back(tensor.name);
  const std::vector<std::string> nearest = nearest_names(name, names);
  fail(Code::kNotFound,
       "[checkpoint] missing tensor '{}'{}{}; check that the config fits the "
       "weights",
       name, nearest.empty() ? "" : "; nearest names are ", fmt::join(nearest, ", "));
}

void Checkpoint::release(const Tensor& tensor) {
  if (tensor.transform.composite != nullptr) {
    for (const Tensor& part : tensor.transform.composite->parts()) release(part);
  }
  if (tensor.file == nullptr || tensor.bytes.empty()) return;
  tensor.file->release(static_cast<size_t>(tensor.bytes.data() - tensor.file->bytes().data()),
                       tensor.bytes.size());
}

int64_t Checkpoint::total_bytes() const {
  int64_t total = 0;
  for (const Tensor& tensor : tensors_) total += stored_size(tensor);
  return total;
}

}  // namespace ttpu::io
