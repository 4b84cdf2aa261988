// How the weights of a model that is planned from config.json alone are stored.
#pragma once

#include <optional>
#include <string>

#include "ttpu/base/json.h"
#include "ttpu/base/quantization.h"
#include "ttpu/plan/model_facts.h"

namespace ttpu::cli {

// Of the linear layers, by the flags --quantization and --weights or as config.json has it. Throws
// kInvalidArgument where both quantize.
std::optional<Quantization> planned_quantization(const Json& config,
                                                 const std::string& quantization,
                                                 const std::string& weights,
                                                 const plan::ModelFacts& facts);

}  // namespace ttpu::cli
