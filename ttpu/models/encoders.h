// The families of text encoders: from config.json to the encoder's specification.
#pragma once

#include <string>
#include <vector>

#include "ttpu/base/json.h"
#include "ttpu/nn/encoder.h"

namespace ttpu::models {

nn::EncoderSpec build_bert(const JsonView& config);
nn::EncoderSpec build_roberta(const JsonView& config);

struct EncoderFamily {
  std::string model_type;  // as config.json has it
  nn::EncoderSpec (*build)(const JsonView& config);
};
const std::vector<EncoderFamily>& encoder_families();

// Whether config.json is of an encoder and not of a decoder.
bool is_encoder(const Json& config);
// Throws kUnimplemented for what is no encoder.
nn::EncoderSpec encoder_from_config(const Json& config);

}  // namespace ttpu::models
