#include "ttpu/engine/pooling.h"

#include <string>

#include "ttpu/base/error.h"
#include "ttpu/base/json.h"
#include "ttpu/ir/ir.h"

namespace ttpu::engine {
namespace {

namespace fs = std::filesystem;

Json read_optional(const fs::path& file) {
  return fs::exists(file) ? read_json(file) : Json::object();
}

// `sentence_transformers.models.Pooling` is a Pooling, whatever stands before it.
std::string module_kind(const JsonView& module) {
  const std::string type = module.get<std::string>("type");
  return type.substr(type.rfind('.') + 1);
}

struct Modules {
  bool pooling = false;
  bool normalize = false;
  std::string pooling_folder = "1_Pooling";
};

Modules read_modules(const fs::path& folder) {
  Modules modules;
  const fs::path file = folder / "modules.json";
  if (!fs::exists(file)) return modules;
  const Json list = read_json(file);
  require(list.is_array(), "[embed] '{}' is not a list of modules", file.string());
  for (const Json& item : list) {
    const JsonView module(item, file.string());
    const std::string kind = module_kind(module);
    if (kind == "Pooling") {
      modules.pooling = true;
      modules.pooling_folder = module.get_or<std::string>("path", modules.pooling_folder);
    } else if (kind == "Normalize") {
      modules.normalize = true;
    } else if (kind != "Transformer") {
      fail(Code::kUnimplemented,
           "[embed] '{}' has a module {}; Transformer, Pooling and Normalize are supported",
           file.string(), kind);
    }
  }
  return modules;
}

std::optional<Pooling> pooling_named(const std::string& name) {
  if (name == "mean" || name == "mean_tokens") return Pooling::kMean;
  if (name == "cls" || name == "cls_token") return Pooling::kCls;
  if (name == "lasttoken") return Pooling::kLast;
  return std::nullopt;
}

// Either `pooling_mode: "mean"`, or `pooling_mode_mean_tokens: true` and the like.
Pooling read_mode(const fs::path& file, Pooling fallback) {
  const Json json = read_optional(file);
  constexpr std::string_view kPrefix = "pooling_mode";
  std::optional<Pooling> found;
  for (const auto& [field, value] : json.items()) {
    if (field.rfind(kPrefix, 0) != 0 || (value.is_boolean() && !value.get<bool>())) continue;
    const std::string name = value.is_string()
                                 ? value.get<std::string>()
                                 : field.substr(std::min(field.size(), kPrefix.size() + 1));
    const std::optional<Pooling> one = pooling_named(name);
    if (!one) {
      fail(Code::kUnimplemented,
           "[embed] '{}' asks for pooling '{}'; mean, cls and lasttoken are supported",
           file.string(), name);
    }
    if (found && *found != *one) {
      fail(Code::kUnimplemented, "[embed] '{}' asks for two kinds of pooling; one is supported",
           file.string());
    }
    found = one;
  }
  return found.value_or(fallback);
}

// [tokens, hidden] to [sequences, hidden]: the mean of each sequence's rows.
ir::Value mean_rows(ir::Value hidden, ir::Value begins, ir::Value ends) {
  const Dims dims = {begins.dim(0), hidden.dim(0)};
  const ir::Value index = ir::iota(hidden.function(), Shape(DType::kS32, dims), 1);
  const auto rows = [&](ir::Value v) { return ir::broadcast_in_dim(v, dims, {0}); };
  const ir::Value inside = ir::and_(ir::compare(index, rows(begins), ir::ComparisonDirection::kGe),
                                    ir::compare(index, rows(ends), ir::ComparisonDirection::kLt));
  const ir::Value sums = ir::dot_general(ir::convert(inside, DType::kF32), hidden,
                                         {.lhs_contracting = {1}, .rhs_contracting = {0}},
                                         std::nullopt, ir::precision_for(DType::kF32));
  const ir::Value one = ir::full(hidden.function(), begins.shape(), 1);
  const ir::Value counts = ir::convert(ir::maximum(ends - begins, one), DType::kF32);
  return sums / ir::expand_dims(counts, 1);
}

// The rows themselves; those of sequences without rows may lie outside.
ir::Value chosen_rows(ir::Value hidden, ir::Value rows) {
  const ir::Value first = ir::full(hidden.function(), rows.shape(), 0);
  const ir::Value last =
      ir::full(hidden.function(), rows.shape(), static_cast<double>(hidden.dim(0) - 1));
  return ir::take(hidden, ir::maximum(first, ir::minimum(rows, last)), 0);
}

ir::Value unit_rows(ir::Value x) {
  const ir::Value squares = x * x;
  const ir::Value zero = ir::scalar(x.function(), DType::kF32, 0);
  const ir::Value sums = ir::reduce({squares}, {zero}, {1}, [](const ir::Values& v) {
    return ir::Values{ir::add(v[0], v[1])};
  })[0];
  const ir::Value norms = ir::sqrt(sums);
  const ir::Value least = ir::full(x.function(), norms.shape(), 1e-12);
  return x / ir::expand_dims(ir::maximum(norms, least), 1);
}

}  // namespace

bool has_pooling(const fs::path& folder) {
  const fs::path file = folder / "modules.json";
  if (!fs::exists(file)) return false;
  for (const Json& item : read_json(file)) {
    if (module_kind(JsonView(item, file.string())) == "Pooling") return true;
  }
  return false;
}

PoolingSpec read_pooling(const fs::path& folder, const PoolingSpec& fallback) {
  const Modules modules = read_modules(folder);
  PoolingSpec spec = fallback;
  spec.pooling = read_mode(folder / modules.pooling_folder / "config.json", fallback.pooling);
  // Who lists modules lists this one, too.
  if (modules.pooling) spec.normalize = modules.normalize;
  const Json limits = read_optional(folder / "sentence_bert_config.json");
  const auto longest =
      JsonView(limits, "sentence_bert_config.json").get_optional<int64_t>("max_seq_length");
  if (longest) spec.max_tokens = longest;
  return spec;
}

ir::Value pool(const PoolingSpec& spec, ir::Value hidden, ir::Value begins, ir::Value ends) {
  ir::Value pooled;
  switch (spec.pooling) {
    case Pooling::kMean:
      pooled = mean_rows(hidden, begins, ends);
      break;
    case Pooling::kCls:
      pooled = chosen_rows(hidden, begins);
      break;
    case Pooling::kLast:
      pooled = chosen_rows(hidden, ends - 1.0);
      break;
  }
  return spec.normalize ? unit_rows(pooled) : pooled;
}

}  // namespace ttpu::engine
