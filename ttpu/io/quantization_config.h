// config.json's quantization_config: how a checkpoint of transformers is quantized.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ttpu/base/json.h"
#include "ttpu/base/quantization.h"

namespace ttpu::io {

enum class QuantMethod { kAwq, kGptq, kCompressedTensors, kFp8, kMxfp4 };

// How some of the model's linear layers are stored.
struct QuantScheme {
  std::vector<std::string> targets = {};  // compressed-tensors' names of layers; empty: all
  int bits = 8;
  bool floats = false;         // fp8 or fp4, else integers
  int64_t group = 0;           // columns with one scale; 0: whole rows
  int64_t block_rows = 1;      // rows with one scale, of fp8's blocks
  bool symmetric = true;       // no zero points
  bool activations = false;    // of 8 bits too
  DType scales = DType::kF32;  // of groups; those of rows are f32 in programs

  // Throws kInvalidArgument where a row of `what` is no whole groups: no checkpoint is so.
  void require_whole_groups(int64_t columns, std::string_view what) const;
  // What programs take of a matrix of this size.
  Quantization form(int64_t rows, int64_t columns) const;
};

struct QuantizationConfig {
  QuantMethod method = QuantMethod::kAwq;
  std::vector<QuantScheme> schemes;
  std::vector<std::string> ignored;  // modules that are not quantized
  int zero_point_bias = 0;           // GPTQ's first format holds zero points less one

  // Nothing without a quantization_config. Throws kUnimplemented for a method or a form that is not
  // known, with those that are.
  static std::optional<QuantizationConfig> from_config(const Json& config);
  // Of a module such as "model.layers.0.mlp.up_proj"; null: it is not quantized.
  const QuantScheme* scheme_of(std::string_view module) const;
};

}  // namespace ttpu::io
