#include "ttpu/models/encoders.h"

#include <algorithm>

#include "ttpu/base/error.h"

namespace ttpu::models {
namespace {

const EncoderFamily* find(const Json& config) {
  const std::string model_type =
      JsonView(config, "config.json").get_or<std::string>("model_type", "");
  const std::vector<EncoderFamily>& families = encoder_families();
  const auto found =
      std::find_if(families.begin(), families.end(),
                   [&](const EncoderFamily& family) { return family.model_type == model_type; });
  return found == families.end() ? nullptr : &*found;
}

}  // namespace

const std::vector<EncoderFamily>& encoder_families() {
  static const std::vector<EncoderFamily> kFamilies = {
      {"bert", build_bert},
      {"roberta", build_roberta},
      {"xlm-roberta", build_roberta},
  };
  return kFamilies;
}

bool is_encoder(const Json& config) { return find(config) != nullptr; }

nn::EncoderSpec encoder_from_config(const Json& config) {
  const EncoderFamily* family = find(config);
  if (family == nullptr) {
    fail(Code::kUnimplemented,
         "[models] config.json is not of a text encoder (bert, roberta, xlm-roberta)");
  }
  return family->build(JsonView(config, "config.json"));
}

}  // namespace ttpu::models
