#include "ttpu/io/quantization_config.h"

#include <algorithm>
#include <regex>

#include "ttpu/base/error.h"

namespace ttpu::io {
namespace {

constexpr std::string_view kMethods = "awq, gptq, compressed-tensors, fp8 and mxfp4";

DType dtype_of(const Json& config) {
  std::string name;
  for (const char* key : {"torch_dtype", "dtype"}) {
    if (config.contains(key) && config[key].is_string()) name = config[key].get<std::string>();
  }
  if (name == "bfloat16") return DType::kBF16;
  return name == "float16" ? DType::kF16 : DType::kF32;
}

// transformers writes -1 for whole rows.
int64_t group_of(const JsonView& view) {
  const auto group = view.get_or<int64_t>("group_size", -1);
  require(group == -1 || group >= 1,
          "[quantization] 'group_size' of {} is {}, expected how many columns share a scale, or -1 "
          "for whole rows",
          view.what(), group);
  return group == -1 ? 0 : group;
}

template <typename T>
void require_supported(const JsonView& view, const char* key, const T& value,
                       const std::vector<T>& known) {
  if (std::find(known.begin(), known.end(), value) != known.end()) return;
  std::string list;
  for (const T& one : known) list += fmt::format("{}{}", list.empty() ? "" : ", ", one);
  fail(Code::kUnimplemented, "[quantization] '{}' of {} is {}; supported are {}", key, view.what(),
       value, list);
}

std::vector<std::string> names_of(const JsonView& view, const char* key) {
  return view.get_or<std::vector<std::string>>(key, {});
}

QuantizationConfig read_awq(const JsonView& view) {
  QuantizationConfig config{QuantMethod::kAwq, {}, names_of(view, "modules_to_not_convert")};
  QuantScheme scheme;
  scheme.bits = static_cast<int>(view.get_or<int64_t>("bits", 4));
  require_supported(view, "bits", scheme.bits, {4});
  require_supported<std::string>(view, "version", view.get_or<std::string>("version", "gemm"),
                                 {"gemm", "GEMM"});
  scheme.group = group_of(view);
  scheme.symmetric = !view.get_or<bool>("zero_point", true);
  scheme.scales = DType::kF16;
  config.schemes = {scheme};
  return config;
}

QuantizationConfig read_gptq(const JsonView& view) {
  QuantizationConfig config{QuantMethod::kGptq, {}, names_of(view, "modules_to_not_convert")};
  QuantScheme scheme;
  scheme.bits = static_cast<int>(view.get<int64_t>("bits"));
  require_supported(view, "bits", scheme.bits, {4, 8});
  const auto format = view.get_or<std::string>("checkpoint_format", "gptq");
  require_supported<std::string>(view, "checkpoint_format", format, {"gptq", "gptq_v2"});
  config.zero_point_bias = format == "gptq" ? 1 : 0;
  scheme.group = group_of(view);
  scheme.symmetric = view.get_or<bool>("sym", true);
  scheme.scales = DType::kF16;
  config.schemes = {scheme};
  return config;
}

QuantizationConfig read_fp8(const JsonView& view) {
  QuantizationConfig config{QuantMethod::kFp8, {}, names_of(view, "modules_to_not_convert")};
  if (config.ignored.empty()) config.ignored = names_of(view, "ignored_layers");
  require_supported<std::string>(view, "fmt", view.get_or<std::string>("fmt", "e4m3"), {"e4m3"});
  QuantScheme scheme;
  scheme.floats = true;
  const auto block = view.get_or<std::vector<int64_t>>("weight_block_size", {});
  require(block.empty() || (block.size() == 2 && block[0] > 0 && block[1] > 0),
          "[quantization] weight_block_size of {} is no pair of sizes", view.what());
  scheme.block_rows = block.empty() ? 1 : block[0];
  scheme.group = block.empty() ? 0 : block[1];
  scheme.activations = block.empty();
  config.schemes = {scheme};
  return config;
}

// The experts of GPT-OSS alone, whatever is listed as not converted.
QuantizationConfig mxfp4_experts() {
  QuantScheme scheme;
  scheme.targets = {"mlp.experts"};
  scheme.bits = 4;
  scheme.floats = true;
  scheme.group = 32;
  scheme.scales = DType::kBF16;
  return {QuantMethod::kMxfp4, {scheme}, {}};
}

QuantScheme read_group(const JsonView& group, DType scales) {
  const JsonView weights = group.child("weights");
  QuantScheme scheme;
  scheme.targets = names_of(group, "targets");
  std::erase(scheme.targets, "Linear");
  scheme.bits = static_cast<int>(weights.get<int64_t>("num_bits"));
  const auto type = weights.get_or<std::string>("type", "int");
  require_supported<std::string>(weights, "type", type, {"int", "float"});
  scheme.floats = type == "float";
  require_supported(weights, "num_bits", scheme.bits,
                    scheme.floats ? std::vector{8} : std::vector{4, 8});
  const auto strategy = weights.get_or<std::string>("strategy", "tensor");
  require_supported<std::string>(weights, "strategy", strategy,
                                 {"tensor", "channel", "group", "block"});
  if (strategy == "group") scheme.group = group_of(weights);
  if (strategy == "block") {
    const auto block = weights.get<std::vector<int64_t>>("block_structure");
    require(block.size() == 2 && block[0] > 0 && block[1] > 0,
            "[quantization] block_structure of {} is no pair of sizes", weights.what());
    scheme.block_rows = block[0];
    scheme.group = block[1];
  }
  scheme.symmetric = weights.get_or<bool>("symmetric", true);
  scheme.scales = scales;
  if (!group.has("input_activations")) return scheme;
  const JsonView inputs = group.child("input_activations");
  require_supported<int64_t>(inputs, "num_bits", inputs.get<int64_t>("num_bits"), {8});
  scheme.activations = scheme.bits == 8 && inputs.get_or<std::string>("type", "int") == type;
  return scheme;
}

QuantizationConfig read_compressed_tensors(const JsonView& view, DType scales) {
  QuantizationConfig config{QuantMethod::kCompressedTensors, {}, names_of(view, "ignore")};
  const std::vector<std::string> known = {"pack-quantized", "int-quantized", "float-quantized",
                                          "naive-quantized"};
  require_supported<std::string>(view, "format", view.get<std::string>("format"), known);
  const JsonView groups = view.child("config_groups");
  for (const auto& [name, unused] : groups.json().items()) {
    const JsonView group = groups.child(name);
    if (group.has("format")) {
      require_supported<std::string>(group, "format", group.get<std::string>("format"), known);
    }
    config.schemes.push_back(read_group(group, scales));
  }
  require(!config.schemes.empty(), "[quantization] {} has no config_groups", view.what());
  if (view.has("sparsity_config") && !view.child("sparsity_config").json().empty()) {
    require_supported<std::string>(
        view.child("sparsity_config"), "format",
        view.child("sparsity_config").get_or<std::string>("format", "dense"), {"dense"});
  }
  return config;
}

// "re:" begins a regular expression; other names are of a module, or of its last parts.
bool names_module(const std::string& pattern, std::string_view module) {
  if (pattern.starts_with("re:")) {
    try {
      return std::regex_search(module.begin(), module.end(), std::regex(pattern.substr(3)),
                               std::regex_constants::match_continuous);  // as Python's re.match
    } catch (const std::regex_error&) {
      fail(Code::kInvalidArgument, "[quantization] '{}' is no regular expression", pattern);
    }
  }
  if (module == pattern) return true;
  const std::string dotted = "." + pattern;
  return module.ends_with(dotted) || module.find(dotted + ".") != std::string_view::npos ||
         module.starts_with(pattern + ".");
}

bool names_any(const std::vector<std::string>& patterns, std::string_view module) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return names_module(pattern, module); });
}

}  // namespace

void QuantScheme::require_whole_groups(int64_t columns, std::string_view what) const {
  // A group that is wider than a row is the row; the last block of a row may have less.
  if (group == 0 || block_rows > 1 || group >= columns || columns % group == 0) return;
  fail(Code::kInvalidArgument,
       "[quantization] quantization_config has groups of {} columns (group_size), which do not "
       "divide the {} columns of {}; set group_size to that of the checkpoint's scales",
       group, columns, what);
}

Quantization QuantScheme::form(int64_t rows, int64_t columns) const {
  Quantization form;
  if (bits == 4) {
    form.dtype = floats ? DType::kF4E2M1FN : DType::kS4;
  } else {
    form.dtype = floats ? DType::kF8E4M3FN : DType::kS8;
  }
  form.group = group == 0 ? 0 : fitting_group(group, columns);
  if (form.group == columns && symmetric) form.group = 0;
  if (form.group == 0 && !symmetric) form.group = columns;
  form.zero_points = !symmetric;
  form.activations = activations && form.group == 0;
  form.scales = form.group == 0 ? DType::kF32 : scales;
  form.rows = form.group == 0 ? 1 : fitting_rows(block_rows, rows);
  return form;
}

std::optional<QuantizationConfig> QuantizationConfig::from_config(const Json& config) {
  const Json* own = &config;
  if (!own->contains("quantization_config") && own->contains("text_config")) {
    own = &config["text_config"];
  }
  const auto found = own->find("quantization_config");
  if (found == own->end() || found->is_null()) return std::nullopt;
  const JsonView view(*found, "quantization_config");
  const auto method = view.get_or<std::string>("quant_method", "");
  if (method == "mxfp4") return mxfp4_experts();
  if (method == "awq") return read_awq(view);
  if (method == "gptq") return read_gptq(view);
  if (method == "fp8") return read_fp8(view);
  if (method == "compressed-tensors") return read_compressed_tensors(view, dtype_of(*own));
  fail(Code::kUnimplemented,
       "[quantization] the checkpoint is quantized by '{}', which is not read; {} are. Take the "
       "model's bf16 weights and --quantization int8, fp8 or int4",
       method, kMethods);
}

const QuantScheme* QuantizationConfig::scheme_of(std::string_view module) const {
  if (names_any(ignored, module)) return nullptr;
  for (const QuantScheme& scheme : schemes) {
    if (scheme.targets.empty() || names_any(scheme.targets, module)) return &scheme;
  }
  return nullptr;
}

}  // namespace ttpu::io
