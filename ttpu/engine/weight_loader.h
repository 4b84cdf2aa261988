// Brings the weights that a program declares from a checkpoint to the device.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ttpu/engine/device.h"
#include "ttpu/io/checkpoint.h"
#include "ttpu/nn/decoder.h"
#include "ttpu/pjrt/client.h"

namespace ttpu::engine {

struct WeightOptions {
  DType compute = DType::kBF16;
  // Encoded weights become dense bf16, quantized ones dense, else they stay as they are.
  bool expand = false;
  // "int8", "fp8" or "int4": linear layers that are dense in the checkpoint are quantized.
  std::string quantization = {};
  // ggml's blocks are kept, and integers of 4 and 8 bits become such, for CPU kernels
  // (kernels::Target). Without, linear layers in blocks become integers with scales of groups.
  bool blocks = false;
  // Buffers are copies that programs may write to; the state of training is donated to them.
  bool donated = false;

  pjrt::HostBufferSemantics semantics() const {
    return donated ? pjrt::HostBufferSemantics::kCopy : pjrt::HostBufferSemantics::kZeroCopy;
  }
};

class WeightLoader {
 public:
  // `prefixes`: DecoderSpec::name_prefixes. Throws kInvalidArgument for a quantization that is not
  // known.
  WeightLoader(const io::Checkpoint& checkpoint, WeightOptions options,
               std::vector<std::pair<std::string, std::string>> prefixes);

  // The form that the program's argument has. Throws when the checkpoint lacks the weight (naming
  // near ones) or has it in another shape.
  nn::WeightFormat format_of(const nn::WeightDecl& decl) const;
  // Throws kInvalidArgument when the checkpoint has weights beside `decls`: the model of
  // config.json is not the one that was saved.
  void check_nothing_left(const std::vector<nn::WeightDecl>& decls) const;
  // Aligned mapped bytes are used in place where the plugin can; the rest is copied once.
  pjrt::Buffer load(const nn::WeightDecl& decl, const pjrt::Client& client,
                    const std::shared_ptr<const io::Checkpoint>& keep_alive) const;
  // What each of these devices of the mesh has of the weight (decl.placement), in their order.
  // Parts are read from the mapped file one at a time; devices with equal parts of a host's memory
  // share them. Only weights that must be put in order first (transposed ones) are made whole.
  std::vector<pjrt::Buffer> load_parts(
      const nn::WeightDecl& decl, const parallel::Mesh& mesh, const pjrt::Client& client,
      std::span<const OwnDevice> devices,
      const std::shared_ptr<const io::Checkpoint>& keep_alive) const;

 private:
  friend class PartLoader;
  // load_parts() of a weight of several stages of a pipeline.
  std::vector<pjrt::Buffer> load_stages(
      const nn::WeightDecl& decl, const parallel::Mesh& mesh, const pjrt::Client& client,
      std::span<const OwnDevice> devices,
      const std::shared_ptr<const io::Checkpoint>& keep_alive) const;
  const io::Tensor& find(const std::string& name) const;
  void check_dims(const nn::WeightDecl& decl, const io::Tensor& tensor) const;
  void fill(const nn::WeightDecl& decl, std::byte* out) const;
  bool is_as_stored(const nn::WeightDecl& decl, const io::Tensor& tensor) const;
  // Of a tensor that is quantized in the checkpoint; of a linear layer in blocks, where no kernel
  // takes blocks, the form with values and factors apart.
  std::optional<Quantization> stored_form(const nn::WeightDecl& decl,
                                          const io::Tensor& tensor) const;
  // How the weight is quantized here: in the checkpoint, or as the options wish.
  std::optional<Quantization> quantization_of(const nn::WeightDecl& decl) const;
  void fill_quantized(const nn::WeightDecl& decl, const io::Tensor& tensor, std::byte* out) const;

  const io::Checkpoint& checkpoint_;
  WeightOptions options_;
  std::optional<Quantization> wanted_;
  std::vector<std::pair<std::string, std::string>> prefixes_;
};

// WeightLoader::format_of of a checkpoint that stays open meanwhile.
nn::FormatOf format_of_weights(const io::Checkpoint& checkpoint, const WeightOptions& options,
                               const std::vector<std::pair<std::string, std::string>>& prefixes);

// The form of weights when there is no checkpoint: dense in the compute type, quantized as the
// options wish, or as the quantization_config of `config` (config.json) promises. Throws as
// WeightLoader, and kUnimplemented for a quantization_config that is not read.
nn::FormatOf format_without_weights(const WeightOptions& options, const Json& config);

}  // namespace ttpu::engine
