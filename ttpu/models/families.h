// One function a family and its defaults, each in the file of its name.
#pragma once

#include "ttpu/base/json.h"
#include "ttpu/nn/decoder.h"

namespace ttpu::models {

nn::DecoderSpec build_deepseek_v2(const JsonView& config);
extern const char* const kDeepseekV2Defaults;
nn::DecoderSpec build_deepseek_v3(const JsonView& config);
extern const char* const kDeepseekV3Defaults;
nn::DecoderSpec build_gemma(const JsonView& config);
extern const char* const kGemmaDefaults;
nn::DecoderSpec build_gemma2(const JsonView& config);
extern const char* const kGemma2Defaults;
nn::DecoderSpec build_gemma3(const JsonView& config);
extern const char* const kGemma3Defaults;
nn::DecoderSpec build_gpt2(const JsonView& config);
extern const char* const kGpt2Defaults;
nn::DecoderSpec build_gpt_neox(const JsonView& config);
extern const char* const kGptNeoxDefaults;
nn::DecoderSpec build_gpt_oss(const JsonView& config);
extern const char* const kGptOssDefaults;
nn::DecoderSpec build_granite(const JsonView& config);
extern const char* const kGraniteDefaults;
nn::DecoderSpec build_llama(const JsonView& config);
extern const char* const kLlamaDefaults;
nn::DecoderSpec build_mistral(const JsonView& config);
extern const char* const kMistralDefaults;
nn::DecoderSpec build_mixtral(const JsonView& config);
extern const char* const kMixtralDefaults;
nn::DecoderSpec build_olmo2(const JsonView& config);
extern const char* const kOlmo2Defaults;
nn::DecoderSpec build_phi3(const JsonView& config);
extern const char* const kPhi3Defaults;
nn::DecoderSpec build_qwen2(const JsonView& config);
extern const char* const kQwen2Defaults;
nn::DecoderSpec build_qwen2_moe(const JsonView& config);
extern const char* const kQwen2MoeDefaults;
nn::DecoderSpec build_qwen3(const JsonView& config);
extern const char* const kQwen3Defaults;
nn::DecoderSpec build_qwen3_moe(const JsonView& config);
extern const char* const kQwen3MoeDefaults;
nn::DecoderSpec build_seed_oss(const JsonView& config);
extern const char* const kSeedOssDefaults;
nn::DecoderSpec build_smollm3(const JsonView& config);
extern const char* const kSmollm3Defaults;
nn::DecoderSpec build_starcoder2(const JsonView& config);
extern const char* const kStarcoder2Defaults;

}  // namespace ttpu::models
