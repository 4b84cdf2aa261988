// One function a family, each in the file of its name.
#pragma once

#include "ttpu/base/json.h"
#include "ttpu/nn/decoder.h"

namespace ttpu::models {

nn::DecoderSpec build_deepseek_v2(const JsonView& config);
nn::DecoderSpec build_deepseek_v3(const JsonView& config);
nn::DecoderSpec build_gemma(const JsonView& config);
nn::DecoderSpec build_gemma2(const JsonView& config);
nn::DecoderSpec build_gemma3(const JsonView& config);
nn::DecoderSpec build_gpt2(const JsonView& config);
nn::DecoderSpec build_gpt_neox(const JsonView& config);
nn::DecoderSpec build_gpt_oss(const JsonView& config);
nn::DecoderSpec build_granite(const JsonView& config);
nn::DecoderSpec build_llama(const JsonView& config);
nn::DecoderSpec build_mistral(const JsonView& config);
nn::DecoderSpec build_mixtral(const JsonView& config);
nn::DecoderSpec build_olmo2(const JsonView& config);
nn::DecoderSpec build_phi3(const JsonView& config);
nn::DecoderSpec build_qwen2(const JsonView& config);
nn::DecoderSpec build_qwen2_moe(const JsonView& config);
nn::DecoderSpec build_qwen3(const JsonView& config);
nn::DecoderSpec build_qwen3_moe(const JsonView& config);
nn::DecoderSpec build_smollm3(const JsonView& config);
nn::DecoderSpec build_starcoder2(const JsonView& config);

}  // namespace ttpu::models
