// The model families: from config.json to the decoder's specification.
#pragma once

#include <string>
#include <vector>

#include "ttpu/base/json.h"
#include "ttpu/nn/decoder.h"

namespace ttpu::models {

// `config` is the text model's; throws kInvalidArgument with field and file.
using BuildFunction = nn::DecoderSpec (*)(const JsonView& config);

struct Family {
  std::string model_type;  // as config.json has it
  BuildFunction build;
  const char* defaults;  // what transformers takes for fields that config.json leaves out, as JSON
};

// All families, in alphabetical order.
const std::vector<Family>& families();

// The specification of the model that config.json describes; a nested `text_config` is followed.
// An unknown model_type throws kUnimplemented and names the nearest supported ones.
nn::DecoderSpec decoder_from_config(const Json& config);

}  // namespace ttpu::models
