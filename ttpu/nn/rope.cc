#include "ttpu/nn/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "ttpu/ir/ir.h"

namespace ttpu::nn {
namespace {

using Freqs = std::vector<double>;

Freqs base_frequencies(const RopeSpec& spec, double theta) {
  Freqs freqs;
  for (int64_t i = 0; i < spec.dim; i += 2) {
    freqs.push_back(1.0 / std::pow(theta, static_cast<double>(i) / static_cast<double>(spec.dim)));
  }
  return freqs;
}

Freqs llama3_frequencies(const RopeSpec& spec) {
  Freqs freqs = base_frequencies(spec, spec.theta);
  const auto original = static_cast<double>(spec.original_max_positions);
  const double low = original / spec.low_freq_factor;
  const double high = original / spec.high_freq_factor;
  for (double& freq : freqs) {
    const double wavelength = 2 * std::numbers::pi / freq;
    if (wavelength > low) {
      freq /= spec.factor;
    } else if (wavelength >= high) {
      const double smooth = (original / wavelength - spec.low_freq_factor) /
                            (spec.high_freq_factor - spec.low_freq_factor);
      freq = (1 - smooth) * freq / spec.factor + smooth * freq;
    }
  }
  return freqs;
}

Freqs yarn_frequencies(const RopeSpec& spec) {
  const auto dim = static_cast<double>(spec.dim);
  const auto correction = [&](double rotations) {
    return dim *
           std::log(static_cast<double>(spec.original_max_positions) /
                    (rotations * 2 * std::numbers::pi)) /
           (2 * std::log(spec.theta));
  };
  double low = correction(spec.beta_fast);
  double high = correction(spec.beta_slow);
  if (spec.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1);
  if (low == high) high += 0.001;
  Freqs freqs = base_frequencies(spec, spec.theta);
  for (size_t i = 0; i < freqs.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    freqs[i] = freqs[i] / spec.factor * ramp + freqs[i] * (1 - ramp);
  }
  return freqs;
}

Freqs divided(Freqs freqs, const std::vector<double>& factors) {
  require(factors.size() == freqs.size(), "[rope] longrope has {} factors, expected {}",
          factors.size(), freqs.size());
  for (size_t i = 0; i < freqs.size(); ++i) freqs[i] /= factors[i];
  return freqs;
}

ir::Value frequencies(ir::Function& function, const Freqs& freqs) {
  return ir::constant(
      function,
      ir::Literal::from_doubles(Shape(DType::kF32, {static_cast<int64_t>(freqs.size())}), freqs));
}

// The length that the scalings which depend on it see: the greatest position and one.
ir::Value current_length(ir::Value positions) { return ir::reduce_max(positions, {0}) + 1.0; }

// Dynamic NTK: the base grows with the length once that passes the model's own.
ir::Value dynamic_frequencies(const RopeSpec& spec, ir::Value positions) {
  ir::Function& function = positions.function();
  const auto limit = static_cast<double>(spec.max_positions);
  const auto dim = static_cast<double>(spec.dim);
  const ir::Value length = ir::maximum(ir::convert(current_length(positions), DType::kF32),
                                       ir::scalar(function, DType::kF32, limit));
  const ir::Value growth = length * (spec.factor / limit) - (spec.factor - 1);
  // theta * growth^(dim / (dim - 2)), then its powers, through logarithms.
  const ir::Value log_base = ir::log(growth) * (dim / (dim - 2)) + std::log(spec.theta);
  Freqs exponents;
  for (int64_t i = 0; i < spec.dim; i += 2) exponents.push_back(-static_cast<double>(i) / dim);
  return ir::exponential(frequencies(function, exponents) * log_base);
}

ir::Value inverse_frequencies(const RopeSpec& spec, ir::Value positions) {
  ir::Function& function = positions.function();
  if (spec.type == "dynamic") return dynamic_frequencies(spec, positions);
  if (spec.type == "llama3") return frequencies(function, llama3_frequencies(spec));
  if (spec.type == "yarn") return frequencies(function, yarn_frequencies(spec));
  Freqs freqs = base_frequencies(spec, spec.theta);
  if (spec.type == "linear") {
    for (double& freq : freqs) freq /= spec.factor;
  }
  if (spec.type == "longrope") {
    const ir::Value is_long = ir::compare(
        current_length(positions),
        ir::scalar(function, DType::kS32, static_cast<double>(spec.original_max_positions)),
        ir::ComparisonDirection::kGt);
    return ir::select(is_long, frequencies(function, divided(freqs, spec.long_factor)),
                      frequencies(function, divided(freqs, spec.short_factor)));
  }
  return frequencies(function, freqs);
}

void read_scaling(const JsonView& scaling, RopeSpec* spec) {
  spec->type =
      scaling.get_or<std::string>("rope_type", scaling.get_or<std::string>("type", "default"));
  if (spec->type == "su") spec->type = "longrope";
  static const std::vector<std::string> known = {"default", "linear",   "dynamic",
                                                 "yarn",    "longrope", "llama3"};
  require(
      std::find(known.begin(), known.end(), spec->type) != known.end(),
      "[rope] {} has rope_type '{}'; known are default, linear, dynamic, yarn, longrope, llama3",
      scaling.what(), spec->type);
  spec->theta = scaling.get_or<double>("rope_theta", spec->theta);
  if (spec->type != "default" && spec->type != "longrope") scaling.get<double>("factor");
  if (spec->type == "llama3") {
    for (const char* field : {"low_freq_factor", "high_freq_factor"}) scaling.get<double>(field);
  }
  spec->factor = scaling.get_or<double>("factor", 1.0);
  spec->original_max_positions =
      scaling.get_or<int64_t>("original_max_position_embeddings", spec->original_max_positions);
  spec->low_freq_factor = scaling.get_or<double>("low_freq_factor", spec->low_freq_factor);
  spec->high_freq_factor = scaling.get_or<double>("high_freq_factor", spec->high_freq_factor);
  spec->beta_fast = scaling.get_or<double>("beta_fast", spec->beta_fast);
  spec->beta_slow = scaling.get_or<double>("beta_slow", spec->beta_slow);
  spec->truncate = scaling.get_or<bool>("truncate", true);
  spec->mscale = scaling.get_optional<double>("mscale");
  spec->mscale_all_dim = scaling.get_optional<double>("mscale_all_dim");
  spec->attention_factor = scaling.get_optional<double>("attention_factor");
  spec->short_factor = scaling.get_or<std::vector<double>>("short_factor", {});
  spec->long_factor = scaling.get_or<std::vector<double>>("long_factor", {});
}

}  // namespace

RopeSpec rope_from_config(const JsonView& config, int64_t head_dim) {
  RopeSpec spec;
  spec.theta = config.get_or<double>("rope_theta", spec.theta);
  spec.max_positions = config.get_or<int64_t>("max_position_embeddings", 2048);
  spec.original_max_positions =
      config.get_or<int64_t>("original_max_position_embeddings", spec.max_positions);
  double partial = config.get_or<double>("partial_rotary_factor", 1.0);
  const char* field = config.has("rope_scaling") ? "rope_scaling" : "rope_parameters";
  if (config.has(field)) {
    const JsonView parameters = config.child(field);
    read_scaling(parameters, &spec);
    partial = parameters.get_or<double>("partial_rotary_factor", partial);
  }
  // Phi-3 keeps the length before scaling beside the scaling.
  spec.original_max_positions =
      config.get_or<int64_t>("original_max_position_embeddings", spec.original_max_positions);
  spec.dim = static_cast<int64_t>(static_cast<double>(head_dim) * partial);
  require(spec.dim > 0 && spec.dim % 2 == 0 && spec.theta > 0 && spec.factor > 0,
          "[rope] {}: rotary dimension {}, theta {} and factor {}; the dimension must be even and "
          "all must be positive",
          config.what(), spec.dim, spec.theta, spec.factor);
  return spec;
}

double yarn_mscale(double scale, double mscale) {
  return scale <= 1 ? 1.0 : 0.1 * mscale * std::log(scale) + 1.0;
}

double rope_attention_factor(const RopeSpec& spec) {
  if (spec.type != "yarn" && spec.type != "longrope") return 1.0;
  if (spec.attention_factor) return *spec.attention_factor;
  if (spec.type == "yarn") {
    if (spec.mscale.value_or(0) != 0 && spec.mscale_all_dim.value_or(0) != 0) {
      return yarn_mscale(spec.factor, *spec.mscale) /
             yarn_mscale(spec.factor, *spec.mscale_all_dim);
    }
    return yarn_mscale(spec.factor, 1.0);
  }
  const double stretch =
      static_cast<double>(spec.max_positions) / static_cast<double>(spec.original_max_positions);
  const double factor = spec.factor > 1 ? spec.factor : stretch;
  if (factor <= 1) return 1.0;
  return std::sqrt(1 +
                   std::log(factor) / std::log(static_cast<double>(spec.original_max_positions)));
}

RotaryTable rotary_table(const RopeSpec& spec, ir::Value positions) {
  const ir::Value angles = ir::expand_dims(ir::convert(positions, DType::kF32), 1) *
                           ir::expand_dims(inverse_frequencies(spec, positions), 0);
  const double factor = rope_attention_factor(spec);
  RotaryTable table{ir::cosine(angles), ir::sine(angles)};
  if (factor != 1.0) table = {table.cos * factor, table.sin * factor};
  return table;
}

}  // namespace ttpu::nn
