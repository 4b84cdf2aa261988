#include "cli/planned_weights.h"

#include "ttpu/base/error.h"
#include "ttpu/io/quantization_config.h"

namespace ttpu::cli {

std::optional<Quantization> planned_quantization(const Json& config,
                                                 const std::string& quantization,
                                                 const std::string& weights,
                                                 const plan::ModelFacts& facts) {
  const auto stored = io::QuantizationConfig::from_config(config);
  require(!stored || quantization.empty(),
          "[plan] config.json's quantization_config says that weights are quantized already; leave "
          "out --quantization {}",
          quantization);
  if (!quantization.empty()) return parse_quantization(quantization);
  if (!stored || weights == "bf16") return std::nullopt;
  const io::QuantScheme& scheme = stored->schemes.at(0);
  if (scheme.targets.empty()) scheme.require_whole_groups(facts.hidden, "the model's layers");
  return scheme.form(facts.hidden, facts.hidden);
}

}  // namespace ttpu::cli
