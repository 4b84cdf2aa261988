#include "ttpu/kernels/tpu/tpu_kernels.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <utility>

#include <fmt/format.h>
#include <xxhash.h>

#include "ttpu/base/error.h"
#include "ttpu/base/file.h"
#include "ttpu/base/log.h"
#include "ttpu/base/subprocess.h"
#include "ttpu/ir/module.h"

namespace ttpu::kernels {
namespace {

namespace fs = std::filesystem;

constexpr const char* kKernel = "a Mosaic kernel";
constexpr const char* kReference = "the StableHLO reference";
constexpr int kRefused = 3;  // exit code of the tool: it says why
constexpr std::chrono::minutes kPatience{10};

fs::path tool_folder() { return cache_dir() / "tpu-kernels-venv"; }

std::string digest(const std::string& text) {
  const XXH128_hash_t hash = XXH3_128bits(text.data(), text.size());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

std::string last_line(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text.substr(text.rfind('\n') + 1);
}

std::string operator_of(const Json& key) { return key.at("kernel").get<std::string>(); }
std::string name_of(const Json& key) { return operator_of(key) + "." + digest(key.dump()); }

// What the compiler says of a kernel that it refuses, without the operator's own text.
std::string short_refusal(const std::string& error) {
  constexpr size_t kEnough = 400;
  const size_t at = error.find("Scoped allocation with size");
  if (at == std::string::npos) return error.substr(0, kEnough);
  return error.substr(at, std::min(error.find(". ", at) - at, kEnough));
}

// Whether the error has the name of a kernel in this text.
bool names_kernel(const std::string& error, const std::string& text) {
  static constexpr std::string_view kBegin = "kernel_name = \"";
  for (size_t at = text.find(kBegin); at != std::string::npos; at = text.find(kBegin, at)) {
    at += kBegin.size();
    if (error.find(text.substr(at, text.find('"', at) - at)) != std::string::npos) return true;
  }
  return false;
}

}  // namespace

std::optional<std::string> tpu_kernel_tool() {
  const fs::path tool = tool_folder() / "tool";
  // One without the newest of the kernels is older than what is asked of it here.
  if (!fs::exists(tool / "lower.py") || !fs::exists(tool / "token_filter.py")) return std::nullopt;
  std::set<fs::path> parts;
  for (const auto& entry : fs::directory_iterator(tool)) {
    if (entry.path().extension() == ".py") parts.insert(entry.path());
  }
  std::string text;
  for (const fs::path& part : parts) text += read_file(part);
  return digest(text);
}

std::string to_string(const KernelChoice& choice) {
  return fmt::format("{} by {}{}", choice.op, choice.implementation,
                     choice.reason.empty() ? "" : ": " + choice.reason);
}

bool TpuKernels::used() const {
  return std::any_of(choices_.begin(), choices_.end(),
                     [](const auto& choice) { return choice.reason.empty(); });
}

void TpuKernels::note(KernelChoice choice) {
  if (std::find(choices_.begin(), choices_.end(), choice) == choices_.end()) {
    choices_.push_back(std::move(choice));
  }
}

void TpuKernels::note_reference(const std::string& op, const std::string& reason) {
  note({op, kReference, reason});
}

bool TpuKernels::take_back(const std::string& compiler_error) {
  static constexpr std::string_view kWords[] = {"vmem",        "smem", "Mosaic", "tpu_custom_call",
                                                "custom-call", "RPA"};
  const bool meant = std::ranges::any_of(kWords, [&](std::string_view word) {
    return compiler_error.find(word) != std::string::npos;
  });
  if (!meant || !used()) return false;
  std::set<std::string> named, all;
  for (const KernelChoice& choice : choices_) {
    if (choice.reason.empty()) all.insert(choice.op);
  }
  for (const auto& [name, made] : known_) {
    const std::string op = name.substr(0, name.find('.'));
    if (all.contains(op) && names_kernel(compiler_error, made.text)) named.insert(op);
  }
  for (const std::string& op : named.empty() ? all : named) {
    refused_[op] = "the compiler refused the kernel: " + short_refusal(compiler_error);
  }
  choices_.clear();
  return true;
}

const TpuKernels::Lowered& TpuKernels::lowered(const std::string& key, const std::string& name) {
  const auto found = known_.find(name);
  if (found != known_.end()) return found->second;
  Lowered& result = known_[name];
  const auto tool = tpu_kernel_tool();
  if (!tool) {
    result.reason =
        "the tool that lowers kernels is not installed, or an older one; `make tpu-kernels` does "
        "that";
    return result;
  }
  const fs::path kept = cache_dir() / "tpu-kernels" / (*tool + "-" + name + ".mlir");
  const fs::path kept_reason = fs::path(kept).replace_extension(".txt");
  if (fs::exists(kept_reason)) {
    result.reason = read_file(kept_reason);
    return result;
  }
  if (!fs::exists(kept)) {
    fs::create_directories(kept.parent_path());
    const fs::path venv = tool_folder();
    SubprocessOptions options;
    options.timeout = kPatience;
    SubprocessResult made;
    try {
      made = run_subprocess({(venv / "bin" / "python").string(),
                             (venv / "tool" / "lower.py").string(), key, name, kept.string()},
                            options);
    } catch (const Error& error) {
      result.reason = error.what();
      return result;
    }
    if (made.exit_code != 0 || !fs::exists(kept)) {
      result.reason = last_line(made.errors);
      if (made.exit_code == kRefused) {
        write_file(kept_reason, result.reason);
      } else {
        spdlog::warn("[kernels] lowering {} failed: {}", key, made.errors);
      }
      return result;
    }
  }
  result.text = read_file(kept);
  return result;
}

std::string TpuKernels::reason_against(const Json& key) {
  const auto op = operator_of(key);
  if (const auto refused = refused_.find(op); refused != refused_.end()) return refused->second;
  return lowered(key.dump(), name_of(key)).reason;
}

bool TpuKernels::has(const Json& key) {
  const std::string reason = reason_against(key);
  if (!reason.empty()) note_reference(operator_of(key), reason);
  return reason.empty();
}

const ir::Function* TpuKernels::function(ir::Module& module, const Json& key,
                                         const std::vector<Shape>& arguments,
                                         const std::vector<Shape>& results, ir::TextBody cost) {
  if (!has(key)) return nullptr;
  note({operator_of(key), kKernel, ""});
  const std::string name = name_of(key);
  if (const ir::Function* known = module.find_function(name)) return known;
  ir::Function& function = module.add_function(name);
  for (const Shape& shape : arguments) function.add_argument(shape);
  cost.text = lowered(key.dump(), name).text;
  function.set_text(std::move(cost), results);
  return &function;
}

}  // namespace ttpu::kernels
